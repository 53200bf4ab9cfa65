"""A walk forward: sets selected on the rows before an instant, judged on window after window of what follows.

    windows -> grid on the first one -> choice on its valid -> at each later window, keep-all, the set as it was
    selected and one selected anew are trained on all rows before it -> each window's test rows are read once

Trained cells and datasets are kept by digest, as all others are, and the scores of each window in `walk_forward/`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import polars as pl
import torch
from rich.console import Console

from ctr.dataset.carried_set import NewValues, Unjudged, unjudged
from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.store import Dataset
from ctr.errors import ConfigError
from ctr.jobs.cell_pool import train_cells
from ctr.jobs.cells import Cell, EarlierSet, Grid
from ctr.jobs.comparison_config import Comparison, WalkForward
from ctr.jobs.comparison_scores import sealed_scores
from ctr.jobs.entries import Entry, Setting, by_setting, entries_of
from ctr.jobs.limits import require_batch
from ctr.jobs.valid_choice import Choice
from ctr.jobs.walk_windows import Window, windows_of

Line = Literal["keep_all", "drop", "keep", "anew"]
Lines = dict[Line, dict[Setting, list[Entry]]]
_FEWEST = 2  # rows of each class without which an AUC has no interval


@dataclass(frozen=True)
class Step:
    """A window, and what is trained for it, by line; of the first one nothing, because the grid is."""

    window: Window
    dataset: Dataset
    cells: dict[Line, list[Cell]]


@dataclass(frozen=True)
class ScoredStep:
    """A window with the scores of its rows, and the models of each line with theirs."""

    window: Window
    dataset: Dataset
    scores: pl.DataFrame
    lines: Lines
    unjudged: Unjudged


class Walk:
    """The windows of a comparison that walks forward, each with its dataset.

    Raises:
        ConfigError: see `windows_of`; or a window has too few rows of a class.
    """

    def __init__(self, comparison: Comparison, config: WalkForward) -> None:
        self._comparison, self.config = comparison, config
        self.windows = windows_of(comparison.run, config)
        self.datasets = [window.build(comparison.run) for window in self.windows]
        for window, dataset in zip(self.windows, self.datasets, strict=True):
            require_batch(comparison.run, dataset)
            _require_classes(window, dataset)

    def settings(self, choice: Choice, entries: Sequence[Entry]) -> list[Setting]:
        """What is walked with; empty where nothing was chosen."""
        if self.config.sets == "chosen":
            return [] if choice.chosen is None else [choice.chosen]
        return [setting for setting in by_setting(entries) if setting.role == "selector"]

    def steps(
        self, settings: Sequence[Setting], entries: Sequence[Entry], device: torch.device
    ) -> list[Step]:
        """The cells of every window.

        Args:
            entries: the models of the grid, which was trained for the first window.
        """
        found = [Step(self.windows[0], self.datasets[0], {})]
        for window, dataset in zip(self.windows[1:], self.datasets[1:], strict=True):
            cells = [
                cell
                for narrowed in self._narrowed(settings)
                for cell in Grid(narrowed, dataset, device).cells()
            ]
            keep_all = {cell.digest(dataset.digest): cell for cell in cells if cell.role == "keep_all"}
            anew = [cell for cell in cells if cell.role == "selector"]
            lines: dict[Line, list[Cell]] = {"keep_all": list(keep_all.values()), "anew": anew}
            for new_values in self.config.new_values:
                lines[new_values] = [
                    _frozen(cell, size, entries, new_values) for cell in anew for size in cell.sizes
                ]
            found.append(Step(window, dataset, lines))
        return found

    def train(self, steps: Sequence[Step], jobs: int, console: Console) -> None:
        """Train what is not trained yet, window after window; test is not read."""
        for step in steps[1:]:
            window = step.window
            text = f"window {window.number + 1} of {len(steps)}, {window.first} to {window.end}:"
            console.print(text, end=" ", highlight=False, soft_wrap=True)
            cells = [cell for own in step.cells.values() for cell in own]
            train_cells(cells, step.dataset.folder, step.dataset.digest, jobs, console)

    def score(
        self,
        steps: Sequence[Step],
        settings: Sequence[Setting],
        entries: Sequence[Entry],
        scores: pl.DataFrame,
        folder: Path,
        digest: str,
        *,
        force: bool,
    ) -> list[ScoredStep]:
        """Every window scored, each read once.

        Args:
            entries, scores: of the grid on the first window, which was read with it.
            folder: of the comparison. digest: of it. force: read again what was read.
        """
        found = []
        for step in steps:
            if step.cells:
                path = folder / "walk_forward" / f"window-{step.window.number}.parquet"
                cells = [cell for own in step.cells.values() for cell in own]
                own = sealed_scores(path, folder.name, digest, cells, step.dataset, force=force)
                lines = _lines(step, own)
            else:
                own, lines = scores, self._at_start(settings, entries)
            weights = own["weight"].to_numpy() if "weight" in own.columns else None
            rows = step.dataset.scanned("test")  # ids alone: that is no look at how rows ended
            new = unjudged(rows, step.dataset, self.datasets[0], weights)
            found.append(ScoredStep(step.window, step.dataset, own, lines, new))
        return found

    def _at_start(self, settings: Sequence[Setting], entries: Sequence[Entry]) -> Lines:
        """At the first window a set is as old as one that is selected anew, and there are no new values."""
        groups = by_setting(entries)
        own = {setting: groups[setting] for setting in settings}
        keep_all = {setting: same for setting, same in groups.items() if setting.role == "keep_all"}
        return {"keep_all": keep_all, "anew": own, **dict.fromkeys(self.config.new_values, own)}

    def _narrowed(self, settings: Sequence[Setting]) -> list[Comparison]:
        """A comparison for each selector with its network and all its sizes, beside keep-all and nothing else."""
        sizes: dict[tuple[str, str, str], list[float]] = {}
        for setting in settings:
            own = sizes.setdefault((setting.label, setting.backbone, setting.embedding), [])
            own += [] if setting.size is None else [setting.size]
        rules = self._comparison.compare.model_copy(update={"alternatives": []})
        found = []
        for (label, backbone, embedding), own in sizes.items():
            chooser = self._comparison.grid.choosers()[label]
            choices = [chooser["choice"]] if "choice" in chooser else None
            changes = {"selectors": [chooser["kind"]], "choices": choices}
            changes |= {"backbones": [backbone], "embeddings": [embedding]}
            grid = self._comparison.grid.model_copy(update={**changes, **({"sizes": own} if own else {})})
            found.append(self._comparison.model_copy(update={"grid": grid, "compare": rules}))
        return found


def _lines(step: Step, scores: pl.DataFrame) -> Lines:
    found, first = Lines(), 0
    for line, cells in step.cells.items():
        entries = entries_of(cells, step.dataset.digest)
        columns = [scores[f"model_{first + number}"].to_numpy() for number in range(len(entries))]
        found[line] = by_setting(
            [replace(entry, test=own) for entry, own in zip(entries, columns, strict=True)]
        )
        first += len(entries)
    return found


def _frozen(cell: Cell, size: float | None, entries: Sequence[Entry], new_values: NewValues) -> Cell:
    """The cell that trains what the same selector chose at the start, with the same seed and for the same size."""
    setting = Setting("selector", cell.label, size, cell.config.backbone.kind, cell.embedding)
    entry = next(e for e in entries if (e.setting, e.seed) == (setting, cell.config.seed))
    assert entry.feature_set is not None, "a selector leaves a feature set"
    earlier = EarlierSet(entry.feature_set, FeatureSet.load(entry.feature_set).digest(), new_values)
    config = cell.config.model_copy(update={"name": f"{cell.config.name}-as-it-was"})
    return replace(cell, config=config, sizes=(size,), earlier=earlier)


def _require_classes(window: Window, dataset: Dataset) -> None:
    rows, positives = (dataset.manifest[key]["test"] for key in ("rows", "positives"))
    if min(positives, rows - positives) < _FEWEST:
        raise ConfigError(
            f"walk_forward: the window from {window.first} to {window.end} holds {rows:,} rows, {positives:,} of them "
            f"positive; expected at least {_FEWEST} of each class: state a longer step"
        )
