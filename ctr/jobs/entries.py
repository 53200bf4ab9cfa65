"""What a comparison compares: settings, each trained with several seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ctr.evaluation.influence import Influence, auc_influence, logloss_influence
from ctr.evaluation.metrics import measure
from ctr.jobs.cells import Cell, Role
from ctr.jobs.scored import Probabilities
from ctr.jobs.sealed_cell import sealed_points


class Setting(NamedTuple):
    """What an entry is, but for its seed. size: the share of values that was asked for; None where none was."""

    role: Role
    label: str
    size: float | None
    backbone: str
    embedding: str


@dataclass(frozen=True)
class Entry:
    """One trained model.

    facts: sizes, counts, metrics on valid (`ctr.jobs.sealed_cell`), and on test once that was read.
    valid, test: probabilities. Those of valid are None where they are not known, those of test empty before it is read.
    source: the folder that it is kept in.
    """

    setting: Setting
    seed: int
    facts: dict[str, Any]
    valid: Probabilities | None
    test: Probabilities
    feature_set: Path | None
    source: Path

    @property
    def fields_kept(self) -> int:
        """Fields that keep any value."""
        return sum(kept > 0 for kept in self.facts["fields"].values())

    @property
    def pairs(self) -> dict[str, int | None]:
        """How many pairs of fields are memorized and factorized, and the rows of crosses; None where none were chosen.

        Cells and runs of before pairs were counted do not say.
        """
        methods = self.facts.get("pairs") or {}
        found = {"memorized": methods.get("memorize"), "factorized": methods.get("factorize")}
        return {**found, "cross_rows": self.facts.get("cross_rows")}


@dataclass(frozen=True)
class Rows:
    """The rows that all entries are scored on: labels, weights and, where rows belong together, cluster numbers."""

    labels: npt.NDArray[np.uint8]
    weights: npt.NDArray[np.float64] | None = None
    clusters: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def auc(self, scores: Probabilities) -> Influence:
        """AUC row by row. Weights that only undo the sampling of negatives change nothing in it."""
        return auc_influence(self.labels, scores, self.weights)

    def logloss(self, scores: Probabilities) -> Influence:
        """Log loss row by row."""
        return logloss_influence(self.labels, scores, self.weights)


def entries_of(cells: Sequence[Cell], data_digest: str) -> list[Entry]:
    """The models of finished cells, in the order of the cells; test is not read.

    Raises:
        CtrError: a cell's files are missing or altered.
    """
    found = []
    for cell in cells:
        for point in sealed_points(cell, data_digest):
            setting = Setting(
                cell.role,
                cell.label,
                point.size,
                cell.config.backbone.kind,
                cell.embedding,
            )
            folder = cell.folder(data_digest)
            found.append(
                Entry(
                    setting,
                    cell.config.seed,
                    point.facts,
                    point.valid,
                    np.zeros(0),
                    point.feature_set,
                    folder,
                )
            )
    return found


def judged(entry: Entry, scores: Probabilities, test: Rows) -> Entry:
    """The entry with its probabilities of test rows, and with its metrics on them."""
    found = measure(test.labels, scores, test.weights)
    metrics = {name: getattr(found, name) for name in ("auc", "logloss", "ece", "calibration_ratio")}
    return replace(entry, test=scores, facts={**entry.facts, "test": metrics})


def by_setting(entries: Sequence[Entry]) -> dict[Setting, list[Entry]]:
    """Entries of each setting, by seed; settings in the order in which they first come."""
    found: dict[Setting, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.setting, []).append(entry)
    return {setting: sorted(own, key=lambda entry: entry.seed) for setting, own in found.items()}


def keep_all_of(setting: Setting) -> Setting:
    """The setting that another one is compared with."""
    return Setting("keep_all", "keep all", None, setting.backbone, setting.embedding)
