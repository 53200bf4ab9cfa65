"""One or many models on the same rows: every metric with its interval, and that of the difference to the first model.

Rows come in batches, twice: for the values of the metrics, then for the influences of rows on these (see
`ctr.evaluation.estimates`). Where all of them fit into memory their AUC is exact; of more it is that of a histogram
(`ctr.evaluation.histogram`), whose error is bounded and known.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from ctr.evaluation.estimates import METRICS, Codes, Spread, Totals, around, ranked
from ctr.evaluation.gaps import MOST_SUMS, Gaps
from ctr.evaluation.grouped import GroupAucs, group_aucs, group_error
from ctr.evaluation.histogram import Histogram, bins_of
from ctr.evaluation.intervals import Interval
from ctr.evaluation.metrics import Floats
from ctr.evaluation.reliability import Reliability, reliability

NAMES = ("auc", "logloss", "normalised_entropy", "ece", "calibration_ratio", "gauc")
HIGHEST = {"auc": 1.0, "gauc": 1.0}  # of all others there is none; the lowest is 0


class Batch(NamedTuple):
    """Some rows: labels (B,) 0 or 1, mass (B,) how much each counts, clusters (B,) or None, scores (B,) by model.

    In a batch of whole groups, `clusters` are these.
    """

    labels: Floats
    mass: Floats
    clusters: Codes | None
    scores: Mapping[str, Floats]


class ScoredRows(Protocol):
    """Rows with the probabilities of models.

    models: their names, the baseline first. clusters: number of clusters, None where each row is its own.
    """

    models: Sequence[str]
    clusters: int | None

    def batches(self) -> Iterator[Batch]:
        """All rows, the same at each call."""
        ...

    def whole(self) -> Batch | None:
        """All rows at once; None where they do not fit into memory."""
        ...

    def groups(self) -> Iterator[Batch] | None:
        """All rows that have a group, each group whole in one batch; None where no groups are asked for."""
        ...


@dataclass(frozen=True)
class Measured:
    """What rows say about models.

    rows, clicks: how many rows, and how many of them have label 1, whatever they weigh. values: by model, then by
    metric of `NAMES`; NaN where a metric is not defined. differences: to the first model, by the other ones.
    reliability: by model. auc_error: by model, how far its AUC can be from the exact one; 0 where it is exact.
    """

    rows: int
    clicks: int
    values: dict[str, dict[str, Interval]]
    differences: dict[str, dict[str, Interval]]
    reliability: dict[str, Reliability]
    auc_error: dict[str, float]


def measured(rows: ScoredRows) -> Measured:
    """All metrics of all models; those that one class alone does not define are NaN."""
    number, clicks, totals = _totals(rows)
    aucs = _ranked(rows) or _binned(rows)
    both = 0 < clicks < number
    values: dict[str, dict[str, Interval]] = {name: {} for name in rows.models}
    differences: dict[str, dict[str, Interval]] = {name: {} for name in rows.models[1:]}
    found = {"auc": aucs.values} | {
        metric: {name: METRICS[metric].value(totals[name]) for name in rows.models} for metric in METRICS
    }
    spreads = {"auc": aucs.spreads} | _spreads(rows, totals)
    for metric, spread in spreads.items():
        highest = HIGHEST.get(metric, math.inf)
        defined = both or metric == "logloss"
        for name in rows.models:
            value = found[metric][name] if defined else math.nan
            error = spread.own[name].error() if defined else math.nan
            values[name][metric] = around(value, error, 0.0, highest, spread.own[name].freedom)
        for name in differences:
            change = values[name][metric].value - values[rows.models[0]][metric].value
            error = spread.paired[name].error() if defined else math.nan
            differences[name][metric] = around(change, error, -highest, highest, spread.paired[name].freedom)
    for name in rows.models:
        bounds = aucs.gaps[name].bounds() if name in aucs.gaps else (math.nan, math.nan)
        values[name]["ece"] = Interval(aucs.reliability[name].error, *bounds)
    for name in differences:
        change = values[name]["ece"].value - values[rows.models[0]]["ece"].value
        differences[name]["ece"] = Interval(change, math.nan, math.nan)
    _add_grouped(rows, values, differences)
    return Measured(number, clicks, values, differences, aucs.reliability, aucs.errors)


class _Spreads:
    """Of one metric by model: the spread of its value, and of the difference to the first model."""

    def __init__(self, rows: ScoredRows) -> None:
        self.own = {name: Spread(rows.clusters) for name in rows.models}
        self.paired = {name: Spread(rows.clusters) for name in rows.models[1:]}
        self._first: Floats | None = None

    def add(self, batch: Batch, name: str, influence: Floats) -> None:
        """Take in a batch; the first model's comes first."""
        self.own[name].add(batch.labels, influence, batch.mass, batch.clusters)
        if name in self.paired:
            assert self._first is not None, "the first model comes first"
            self.paired[name].add(batch.labels, influence - self._first, batch.mass, batch.clusters)
        else:
            self._first = influence


class _Aucs(NamedTuple):
    """AUC by model: value, how far it can be from the exact one, spread; and what the same order of rows also tells."""

    values: dict[str, float]
    errors: dict[str, float]
    spreads: _Spreads
    reliability: dict[str, Reliability]
    gaps: dict[str, Gaps]


def _totals(rows: ScoredRows) -> tuple[int, int, dict[str, Totals]]:
    """Rows, clicks, and totals by model."""
    number = clicks = 0
    totals = dict.fromkeys(rows.models, Totals(0.0, 0.0, 0.0, 0.0))
    for batch in rows.batches():
        number += len(batch.labels)
        clicks += int(batch.labels.sum())
        for name, scores in batch.scores.items():
            totals[name] = totals[name].plus(Totals.of(batch.labels, scores, batch.mass))
    return number, clicks, totals


def _spreads(rows: ScoredRows, totals: Mapping[str, Totals]) -> dict[str, _Spreads]:
    """Of the metrics that follow from totals."""
    found = {metric: _Spreads(rows) for metric in METRICS}
    both = all(0.0 < entry.rate < 1.0 for entry in totals.values())
    for batch in rows.batches():
        for name, scores in batch.scores.items():
            for metric, spreads in found.items():
                if both or metric == "logloss":
                    influence = METRICS[metric].influence(batch.labels, scores, batch.mass, totals[name])
                    spreads.add(batch, name, influence)
    return found


def _ranked(rows: ScoredRows) -> _Aucs | None:
    """Exact AUCs; None where the rows do not fit into memory."""
    batch = rows.whole()
    if batch is None:
        return None
    found = _Aucs({}, dict.fromkeys(rows.models, 0.0), _Spreads(rows), {}, {})
    for name, scores in batch.scores.items():
        ranking = ranked(batch.labels, scores, batch.mass)
        found.values[name] = ranking.auc
        found.spreads.add(batch, name, ranking.influence)
        mass = ranking.positives + ranking.negatives
        diagram = reliability(ranking.positives, ranking.scores * mass, mass)
        found.reliability[name] = diagram
        gaps = _gaps(rows, diagram)
        if gaps is not None:
            bins = np.searchsorted(ranking.scores[diagram.first[1:]], scores, side="right")
            gaps.add(batch.labels, scores, batch.mass, bins, batch.clusters)
            found.gaps[name] = gaps
        del ranking  # before the next one is made
    return found


def _binned(rows: ScoredRows) -> _Aucs:
    """AUCs of histograms."""
    histograms = {name: Histogram() for name in rows.models}
    for batch in rows.batches():
        for name, scores in batch.scores.items():
            histograms[name].add(batch.labels, scores, batch.mass)
    found, edges = _Aucs({}, {}, _Spreads(rows), {}, {}), dict[str, Codes]()
    for name, histogram in histograms.items():
        found.values[name], found.errors[name] = histogram.auc, histogram.auc_error
        mass = histogram.positives + histogram.negatives
        there = mass > 0.0
        found.reliability[name] = reliability(
            histogram.positives[there], histogram.expected[there], mass[there]
        )
        gaps = _gaps(rows, found.reliability[name])
        if gaps is not None:
            found.gaps[name] = gaps
            edges[name] = np.flatnonzero(there)[found.reliability[name].first[1:]]
    for batch in rows.batches() if all(map(math.isfinite, found.values.values())) else ():
        for name, scores in batch.scores.items():
            influence = histograms[name].influence(batch.labels, scores, batch.mass)
            found.spreads.add(batch, name, influence)
            if name in found.gaps:
                bins = np.searchsorted(edges[name], bins_of(scores), side="right")
                found.gaps[name].add(batch.labels, scores, batch.mass, bins, batch.clusters)
    return found


def _gaps(rows: ScoredRows, diagram: Reliability) -> Gaps | None:
    """For the gaps of a model; None where there are too many clusters to hold their sums."""
    if rows.clusters is not None and rows.clusters * len(diagram.mass) > MOST_SUMS:
        return None
    return Gaps(diagram.promised, diagram.observed, diagram.mass, rows.clusters)


def _add_grouped(
    rows: ScoredRows, values: dict[str, dict[str, Interval]], differences: dict[str, dict[str, Interval]]
) -> None:
    """GAUC, whose evidence are whole groups; nothing where no groups are asked for."""
    batches = rows.groups()
    if batches is None:
        return
    parts: dict[str, list[GroupAucs]] = {name: [] for name in rows.models}
    for batch in batches:
        assert batch.clusters is not None, "a batch of groups names them"
        for name, scores in batch.scores.items():
            parts[name].append(group_aucs(batch.labels, scores, batch.mass, batch.clusters))
    found = {
        name: GroupAucs(*(np.concatenate(arrays) for arrays in zip(*own, strict=True)))
        for name, own in parts.items()
    }
    for name, groups in found.items():
        error = group_error(groups.influence) if len(groups.aucs) else math.nan
        values[name]["gauc"] = around(groups.value, error, 0.0, 1.0)
    first = found[rows.models[0]]
    for name in differences:
        error = group_error(found[name].influence - first.influence) if len(first.aucs) else math.nan
        differences[name]["gauc"] = around(found[name].value - first.value, error, -1.0, 1.0)
