"""Progress for people: a bar where there is a terminal, and a line per epoch."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ctr.training.looks import Look


class StageProgress:
    """Shows one stage's epochs: rows per second, loss, time left. A `Watcher` of `ctr.training.looks`."""

    def __init__(self, console: Console, progress: Progress, name: str) -> None:
        self._console, self._progress, self._name = console, progress, name
        self._task: TaskID | None = None
        self._unsaid: Look | None = None
        self._started = time.perf_counter()  # of the training since the last look

    def step(self, epoch: int, batch: int, batches: int, rows: int, loss: float) -> None:
        """Move the bar."""
        if self._task is None:
            self._task = self._progress.add_task("", total=batches)
        speed = rows / (time.perf_counter() - self._started)
        self._progress.update(
            self._task,
            completed=batch,
            description=f"{self._name} epoch {epoch}  {speed:,.0f} rows/s  loss {loss:.4f}",
        )

    def look(self, record: Look) -> None:
        """Print one line where an epoch ends; a look before that is shown if it turns out to be the last."""
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
        self._started = time.perf_counter()
        self._unsaid = None if record.ends_epoch else record
        if record.ends_epoch:
            self._print(record)

    def finish(self) -> None:
        """Print the last look, where it ended the training inside an epoch."""
        if self._unsaid is not None:
            self._print(self._unsaid)
            self._unsaid = None

    def _print(self, record: Look) -> None:
        extra = f"  open {record.extra['open']:.1%}" if "open" in record.extra else ""
        valid = "" if record.valid_auc is None else f"valid AUC {record.valid_auc:.4f}  "
        self._console.print(
            f"  {self._name:<24} epoch {record.epoch:>2}  loss {record.train_logloss:.4f}  "
            f"{valid}{record.rows_per_second:>9,.0f} rows/s{extra}",
            highlight=False,
            soft_wrap=True,
        )


@contextmanager
def stage_progress(console: Console, name: str) -> Iterator[StageProgress]:
    """A bar that lives as long as a stage."""
    columns = (TextColumn("  {task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = StageProgress(console, progress, name)
        yield bar
        bar.finish()
