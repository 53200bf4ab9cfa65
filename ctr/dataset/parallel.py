"""Several columns, or the next chunk, worked on at once; Polars, PyArrow and NumPy release the interpreter lock."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`[function(item) for item in items]`, as many at a time as there are cores; order is kept."""
    todo = list(items)
    workers = min(cores(), len(todo))
    if workers < 2:
        return list(map(function, todo))
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(function, todo))


def threaded(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    size: Callable[[Item], int] = lambda item: 0,
    waiting: int = 0,
) -> Iterator[Result]:
    """The same, one result after the other; as many are in memory as there are cores, and the one that is used.

    Args:
        function: what is done.
        items: what it is done to.
        size: about how large the result for an item is.
        waiting: how large all results together may be that are in memory although it is another's turn; so much is
            worked ahead while a large one keeps one core busy.
    """
    source, workers = iter(items), cores()
    coming: deque[tuple[int, Future[Result]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        while True:
            while len(coming) < workers or sum(each for each, _ in coming) < waiting:
                for item in islice(source, 1):
                    coming.append((size(item), pool.submit(function, item)))
                    break
                else:
                    break
            if not coming:
                return
            yield coming.popleft()[1].result()


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The same items; the next one is made in a thread while the current one is used."""
    source, end = iter(items), object()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, source, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, source, end)
            yield item  # type: ignore[misc]  # whatever is not `end` is an item
