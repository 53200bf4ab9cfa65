"""The cells of a comparison trained, several at a time, each in a process of its own.

A cell that is done is not trained again, and one that was interrupted goes on from its checkpoints. Processes end when
the one that started them does, however that ends.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import chain
from multiprocessing import get_context, parent_process
from pathlib import Path

from rich.console import Console

from ctr.dataset.parallel import cores
from ctr.jobs.cells import Cell
from ctr.jobs.sealed_cell import is_done, sealed_points, train_cell


def processes(jobs: int, device: str, threads: int) -> int:
    """How many cells are trained at a time: as stated, or as many as there are cores for; on a GPU one."""
    if jobs:
        return jobs
    return max(1, cores() // threads) if device == "cpu" else 1


def train_cells(
    cells: Sequence[Cell], dataset_folder: Path, data_digest: str, jobs: int, console: Console
) -> None:
    """Train the cells that are not done, `jobs` at a time.

    Raises:
        CtrError: of the first cell that fails; those that are being trained end first.
    """
    waiting = [cell for cell in cells if not is_done(cell.folder(data_digest))]
    done = len(cells) - len(waiting)
    aside = f", {done} of them done" if done else ""
    console.print(f"{len(cells)} cells{aside}; {jobs} at a time", highlight=False, soft_wrap=True)
    shared = {_network(cell): cell.folder(data_digest) for cell in cells if cell.role == "keep_all"}
    first = [cell for cell in waiting if cell.role == "keep_all"]
    rest = [cell for cell in waiting if cell.role != "keep_all"]
    tasks = [(cell, shared.get(_network(cell)) if cell.asks_keep_all else None) for cell in [*first, *rest]]
    for cell, seconds in chain(
        _trained(tasks[: len(first)], dataset_folder, jobs),
        _trained(tasks[len(first) :], dataset_folder, jobs),
    ):
        done += 1
        aucs = ", ".join(f"{point.facts['valid']['auc']:.4f}" for point in sealed_points(cell, data_digest))
        config = cell.config
        name = cell.label if cell.earlier is None else f"{cell.label} as it was"
        console.print(
            f"  {done:>3}/{len(cells)}  {name:<16} {config.backbone.kind} {cell.embedding} seed {config.seed}  "
            f"valid AUC {aucs}  ({seconds:.0f} s)",
            highlight=False,
            soft_wrap=True,
        )


def _network(cell: Cell) -> tuple[str, str, int]:
    """What keep-all of a cell's network and seed is known by."""
    return cell.config.backbone.kind, cell.embedding, cell.config.seed


def _trained(
    tasks: Sequence[tuple[Cell, Path | None]], dataset_folder: Path, jobs: int
) -> Iterator[tuple[Cell, float]]:
    if jobs == 1 or len(tasks) < 2:
        for cell, keep_all in tasks:
            yield cell, train_cell(cell, dataset_folder, keep_all)
        return
    # A fork would copy a process in which PyTorch has threads.
    with ProcessPoolExecutor(jobs, get_context("spawn"), _end_with_parent) as pool:
        try:
            running = {pool.submit(train_cell, cell, dataset_folder, shared): cell for cell, shared in tasks}
            for future in as_completed(running):
                yield running[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _end_with_parent() -> None:
    """Leave no process behind that trains for nobody."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
