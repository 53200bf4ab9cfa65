"""Which set is chosen, by valid alone: it stands before the test split is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ctr.evaluation.influence import Influence
from ctr.evaluation.margins import seeds_known
from ctr.evaluation.paired_seeds import Difference, paired_difference
from ctr.jobs.entries import Entry, Rows, Setting

Known = Literal["known", "rows", "unknown"]


@dataclass(frozen=True)
class Choice:
    """What valid says; nothing at all where models have other valid rows (`NOTHING`).

    best: the highest mean AUC of keep-all and all sets. best_set: of the sets alone; None where there is none.
    cheapest: the fewest stored bytes among those within one standard error of the best (Breiman et al.,
        "Classification and Regression Trees", 1984), paired by row and seed.
    within: all of those.
    standard_error: how far it is known: `known`; `rows`: over rows alone, for there are too few seeds; `unknown`: with
        as few seeds and without the scores of valid rows, so that only ties are within it.
    budget: the best set that fits the stated budget; None where none is stated, or none fits.
    chosen: the set that the verdict is about: of the budget where one is stated, else the cheapest, else (where only
        keep-all comes near keep-all) the best set.
    """

    best: Setting | None
    best_set: Setting | None
    cheapest: Setting | None
    within: tuple[Setting, ...]
    standard_error: Known
    budget: Setting | None
    chosen: Setting | None

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        single = ("best", "best_set", "cheapest", "budget", "chosen")
        named = {name: getattr(self, name) for name in single}
        return {
            **{name: None if setting is None else setting._asdict() for name, setting in named.items()},
            "standard_error": self.standard_error,
            "within_one_standard_error": [setting._asdict() for setting in self.within],
        }


NOTHING = Choice(None, None, None, (), "unknown", None, None)


def choose(
    groups: Mapping[Setting, Sequence[Entry]], valid: Rows | None, budget: Mapping[str, float]
) -> Choice:
    """Choose among keep-all and the sets of selectors; alternatives are no candidates.

    Args:
        groups: entries by setting. One that shares no seed with the best cannot be paired with it, and does not count
            as within one standard error.
        valid: the rows that they were scored on; None where only their AUCs are known.
        budget: limits by name: max_bytes, max_fields, max_cost; each must hold with every seed.
    """
    candidates = [setting for setting in groups if setting.role != "alternative"]
    sets = [setting for setting in candidates if setting.role == "selector"]
    placed = {
        setting: {entry.seed: _influence(entry, valid) for entry in groups[setting]} for setting in candidates
    }
    means = {
        setting: float(np.mean([each.value for each in own.values()])) for setting, own in placed.items()
    }
    best = max(candidates, key=means.__getitem__)
    differences = {setting: paired(placed[best], placed[setting], valid) for setting in candidates}
    within = [
        setting
        for setting, difference in differences.items()
        if setting == best or (difference and difference.value <= standard_error(difference))
    ]
    others = [each for setting, each in differences.items() if setting != best and each is not None]
    known: Known = "known"
    if not all(map(seeds_known, others)):
        known = "unknown" if valid is None else "rows"
    cheapest = min(within, key=_bytes({setting: groups[setting] for setting in within}).__getitem__)
    fitting = [setting for setting in sets if budget and all(_fits(e, budget) for e in groups[setting])]
    best_set = max(sets, key=means.__getitem__, default=None)
    of_budget = max(fitting, key=means.__getitem__, default=None)
    chosen = of_budget if budget else cheapest if cheapest.role == "selector" else best_set
    return Choice(best, best_set, cheapest, tuple(within), known, of_budget, chosen)


def paired(
    first: Mapping[int, Influence], second: Mapping[int, Influence], rows: Rows | None
) -> Difference | None:
    """`first` minus `second`, by seed, over the seeds that both have; None where they share none."""
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    one, other = ([each[seed] for seed in seeds] for each in (first, second))
    return paired_difference(one, other, None if rows is None else rows.clusters)


def standard_error(difference: Difference) -> float:
    """Of the mean over seeds."""
    return float(np.sqrt(difference.rows_variance + difference.seeds_variance / difference.seeds))


def _influence(entry: Entry, valid: Rows | None) -> Influence:
    if valid is None or entry.valid is None:
        return Influence(entry.facts["valid"]["auc"], np.zeros(1))
    return valid.auc(entry.valid)


def _bytes(groups: Mapping[Setting, Sequence[Entry]]) -> dict[Setting, float]:
    """Mean stored bytes: of whole bundles where all are known, else of all weights, which are another measure."""
    bundles = all(entry.facts["bundle_bytes"] is not None for own in groups.values() for entry in own)
    key = "bundle_bytes" if bundles else "bytes"
    return {setting: float(np.mean([entry.facts[key] for entry in own])) for setting, own in groups.items()}


def _fits(entry: Entry, budget: Mapping[str, float]) -> bool:
    cost = entry.facts["cost"]
    used: dict[str, float | None] = {
        "max_bytes": entry.facts["bundle_bytes"],
        "max_fields": entry.fields_kept,
        "max_cost": None if cost is None else cost["kept"],
    }
    return all((number := used[name]) is not None and number <= limit for name, limit in budget.items())
