"""The cells of a comparison trained, several at a time, each in a process of its own.

A cell that is done is not trained again, and one that was interrupted goes on from its checkpoints. Processes end when
the one that started them does, however that ends.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
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
    for cell, seconds in _trained(waiting, dataset_folder, jobs):
        done += 1
        aucs = ", ".join(f"{point.facts['valid']['auc']:.4f}" for point in sealed_points(cell, data_digest))
        config = cell.config
        console.print(
            f"  {done:>3}/{len(cells)}  {cell.label:<16} {config.backbone.kind} {cell.embedding} seed {config.seed}  "
            f"valid AUC {aucs}  ({seconds:.0f} s)",
            highlight=False,
            soft_wrap=True,
        )


def _trained(cells: Sequence[Cell], dataset_folder: Path, jobs: int) -> Iterator[tuple[Cell, float]]:
    if jobs == 1 or len(cells) == 1:
        for cell in cells:
            yield cell, train_cell(cell, dataset_folder)
        return
    # A fork would copy a process in which PyTorch has threads.
    with ProcessPoolExecutor(jobs, get_context("spawn"), _end_with_parent) as pool:
        try:
            running = {pool.submit(train_cell, cell, dataset_folder): cell for cell in cells}
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
