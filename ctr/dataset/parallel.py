"""Several columns, or the next chunk, worked on at once; Polars, PyArrow and NumPy release the interpreter lock."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`[function(item) for item in items]`, as many at a time as there are cores; order is kept."""
    return list(threaded(function, items))


def threaded(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """The same, one result after the other, so that early ones can leave memory."""
    todo = list(items)
    workers = min(cores(), len(todo))
    if workers < 2:
        yield from map(function, todo)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(function, todo)


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The same items; the next one is made in a thread while the current one is used."""
    source, end = iter(items), object()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, source, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, source, end)
            yield item  # type: ignore[misc]  # whatever is not `end` is an item
