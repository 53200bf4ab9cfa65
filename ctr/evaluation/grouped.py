"""gAUC: how well rows are ranked within a group (a user, a request), which is what a ranker is used for.

Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018, equation 6: the mean of the groups'
AUCs, each weighted by the group's impressions. Groups of a single class have no AUC and are left out.
"""

from typing import NamedTuple

import numpy as np

from ctr.evaluation.estimates import Codes
from ctr.evaluation.metrics import Floats


class GroupAucs(NamedTuple):
    """The groups that have both classes: their AUCs (G,) and masses (G,)."""

    aucs: Floats
    masses: Floats

    @property
    def value(self) -> float:
        """gAUC; NaN where no group has both classes."""
        total = self.masses.sum()
        return float(self.aucs @ self.masses / total) if total > 0.0 else float("nan")

    @property
    def influence(self) -> Floats:
        """What each group (G,) moves `value` by, as rows do in `ctr.evaluation.estimates`."""
        return np.asarray(self.masses * (self.aucs - self.value) / self.masses.sum())


def group_aucs(labels: Floats, scores: Floats, mass: Floats, groups: Codes) -> GroupAucs:
    """The AUC within each group.

    Args:
        labels: (B,) 0 or 1.
        scores: (B,) any finite numbers.
        mass: (B,) how much each row counts.
        groups: (B,) number of each row's group.
    """
    order = np.lexsort((scores, groups))
    code, score, weight = groups[order], scores[order], mass[order]
    if not len(order):
        return GroupAucs(np.zeros(0), np.zeros(0))
    new_group = np.concatenate(([True], code[1:] != code[:-1]))
    new_tie = new_group | np.concatenate(([True], score[1:] != score[:-1]))
    starts = np.flatnonzero(new_tie)
    positives = np.add.reduceat(weight * labels[order], starts)  # per group of ties within a group
    negatives = np.add.reduceat(weight, starts) - positives
    owner = np.cumsum(new_group[starts]) - 1  # of each group of ties
    clicks, others = (np.bincount(owner, values).astype(np.float64) for values in (positives, negatives))
    before = np.cumsum(negatives) - negatives / 2.0 - (np.cumsum(others) - others)[owner]
    won = np.bincount(owner, positives * before)
    both = (clicks > 0.0) & (others > 0.0)
    return GroupAucs(won[both] / (clicks * others)[both], (clicks + others)[both])


def group_error(influence: Floats) -> float:
    """The standard error from the influences (G,) of groups; infinite for fewer than two."""
    groups = len(influence)
    return float(np.sqrt(groups / (groups - 1) * (influence @ influence))) if groups > 1 else float("inf")
