"""Several columns, or the next chunk, worked on at once; Polars, PyArrow and NumPy release the interpreter lock."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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
    workers = cores()
    coming: deque[tuple[int, Future[Result]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                coming.append((size(item), pool.submit(function, item)))
                while len(coming) > workers and sum(each for each, _ in coming) >= waiting:
                    yield coming.popleft()[1].result()
            while coming:
                yield coming.popleft()[1].result()
        finally:  # where nobody asks for the rest
            for _, future in coming:
                future.cancel()


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The same items; the next one is made in a thread while the current one is used."""
    source, end = iter(items), object()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, source, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, source, end)
            yield item  # type: ignore[misc]  # whatever is not `end` is an item
