"""What the labels of train and valid say of each other; those of test are not read."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.dataset.store import Dataset, PartName
from ctr.dataset.value_counts import row_weight, value_of
from ctr.evaluation.intervals import Interval, auc_interval
from ctr.jobs.doctor_fields import FieldFacts
from ctr.jobs.findings import Finding
from ctr.report.units import count, share, signed

_ROWS = 500_000  # of valid that the simple model scores
_SIGMAS, _RELATIVE = 4.0, 0.1  # beyond noise, and worth a word


class Clicks(NamedTuple):
    """What a part holds.

    rows, clicks: numbers of rows. weight, clicked: what all rows, and the clicked ones, count by `row_weight`. squares,
    clicked_squares: sums of the squares of these weights.
    """

    rows: int
    clicks: int
    weight: float
    clicked: float
    squares: float
    clicked_squares: float

    @property
    def rate(self) -> float:
        """Share of clicks."""
        return self.clicked / self.weight

    def variance(self, rate: float) -> float:
        """Of the share of clicks, where it is `rate` in truth; a row of weight 2 is no more evidence than one row."""
        others = self.squares - self.clicked_squares
        return (self.clicked_squares * (1.0 - rate) ** 2 + others * rate**2) / self.weight**2

    @property
    def effective(self) -> tuple[float, float]:
        """Shares of the clicked rows, and of the others, that would tell as much if they all counted alike.

        Kish, "Survey Sampling", 1965.
        """
        others, squares = self.weight - self.clicked, self.squares - self.clicked_squares
        return (
            self.clicked**2 / (self.clicked_squares * self.clicks),
            others**2 / (squares * (self.rows - self.clicks)),
        )


def clicks_of(dataset: Dataset) -> dict[PartName, Clicks]:
    """Rows, clicks and weights of train and valid."""
    found = {}
    parts: tuple[PartName, ...] = ("train", "valid")
    for part in parts:
        frame = dataset.scanned(part, labels=True).select("@label", row_weight(dataset))
        weight, clicked = pl.col("@weight"), pl.col("@label") == 1
        sums = [own.sum() for mass in (weight, weight**2) for own in (mass, mass.filter(clicked))]
        counted = frame.select(
            pl.len(), clicked.sum().alias("clicks"), *(own.alias(str(at)) for at, own in enumerate(sums))
        )
        found[part] = Clicks(*counted.collect(engine="streaming").row(0))
    return found


def classes(clicks: dict[PartName, Clicks]) -> list[Finding]:
    """Whether both classes occur in train and in valid."""
    lines = []
    for part, found in clicks.items():
        if found.clicks in (0, found.rows):
            text = f"all {count(found.rows)} rows of {part} have the label {int(found.clicks > 0)}"
            advice = "look at `label` and `where` of the schema, and at how the log was cut"
            lines.append(Finding("error", "one class", text, advice))
    return lines


def rates(dataset: Dataset, clicks: dict[PartName, Clicks]) -> list[Finding]:
    """Whether the share of clicks differs between train and valid by more than noise, and by a tenth."""
    train, valid = clicks["train"], clicks["valid"]
    before, after = train.rate, valid.rate
    pooled = (train.clicked + valid.clicked) / (train.weight + valid.weight)
    error = math.sqrt(train.variance(pooled) + valid.variance(pooled))
    relative = after / before - 1.0
    figures = {"train": before, "valid": after, "relative": relative}
    by = "by weight, " if dataset.schema.weighted else ""
    found = f"{by}{share(before)} of the train rows are clicked, and {share(after)} of the valid rows"
    if abs(after - before) > _SIGMAS * error and abs(relative) >= _RELATIVE:
        advice = (
            f"a change of {signed(100 * relative, 0)} % is no noise: AUC does not see it, log loss and calibration do; "
            "look for what changed, or for labels that had no time to come in (split.label_matures_after)"
        )
        return [Finding("warn", "label rate", found, advice, figures=figures)]
    return [Finding("ok", "label rate", found, figures=figures)]


def simple_model(dataset: Dataset, facts: list[FieldFacts]) -> tuple[float, list[Finding]]:
    """The AUC on valid of adding up what each value says alone (naive Bayes), and what it means.

    A model that ranks worse than chance has learned the opposite of what it is asked: labels, or time, are turned.
    """
    labels, scores, weights = _scored(dataset, facts)
    found = auc_interval(labels, scores, weights)
    figures = {"auc": found.value, "low": found.low, "high": found.high}
    text = f"a naive Bayes model of train has AUC {found.value:.4f} ({_bounds(found)}) on valid"
    if found.high < 0.5:
        advice = (
            "worse than chance: labels are turned in one of the parts, or what raises clicks changes in between; "
            "look at the label's expression and at the order of time"
        )
        return found.value, [Finding("error", "simple model", text, advice, figures=figures)]
    if found.low <= 0.5:
        advice = "no better than chance: the fields say nothing of the label, or valid is too small to see it"
        return found.value, [Finding("warn", "simple model", text, advice, figures=figures)]
    return found.value, [Finding("ok", "simple model", text, figures=figures)]


def _bounds(found: Interval) -> str:
    return f"95 % interval {found.low:.4f} to {found.high:.4f}"


def _scored(
    dataset: Dataset, facts: list[FieldFacts]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64], npt.NDArray[np.float64] | None]:
    """Labels, summed log odds and weights of valid rows, every so many of them.

    None where weights change no ranking: that negatives were sampled weighs all of them alike.
    """
    step = -(-dataset.manifest["rows"]["valid"] // _ROWS)
    columns = [value_of(dataset, fact.field).alias(fact.field.name) for fact in facts]
    frame = (
        dataset.scanned("valid", labels=True)
        .gather_every(step)
        .select("@label", row_weight(dataset), *columns)
    )
    rows = frame.with_row_index("@number").collect()
    total = np.zeros(rows.height)
    for fact in facts:
        own = rows.select("@number", pl.col(fact.field.name).alias("value"))
        if fact.field.kind == "list":
            own = own.explode("value")
        scored = own.join(fact.scores, on="value", how="left").group_by("@number").agg(pl.col("score").mean())
        total[scored["@number"].to_numpy()] += scored["score"].fill_null(0.0).to_numpy()
    weights = None if dataset.schema.weight is None else rows["@weight"].to_numpy()
    return rows["@label"].to_numpy(), total, weights
