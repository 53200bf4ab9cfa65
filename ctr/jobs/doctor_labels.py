"""What the labels of train and valid say of each other; those of test are not read."""

import math

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.dataset.store import Dataset
from ctr.dataset.value_counts import value_of
from ctr.evaluation.intervals import Interval, auc_interval
from ctr.jobs.doctor_fields import FieldFacts
from ctr.jobs.findings import Finding
from ctr.report.units import count, share, signed

_ROWS = 500_000  # of valid that the simple model scores
_SIGMAS, _RELATIVE = 4.0, 0.1  # beyond noise, and worth a word


def clicks_of(dataset: Dataset) -> dict[str, tuple[int, int]]:
    """Rows and clicks of train and valid."""
    found = {}
    for part in ("train", "valid"):
        frame = dataset.scanned(part, labels=True)
        counted = frame.select(pl.len(), pl.col("@label").cast(pl.Int64).sum()).collect(engine="streaming")
        rows, clicks = counted.row(0)
        found[part] = (int(rows), int(clicks))
    return found


def classes(clicks: dict[str, tuple[int, int]]) -> list[Finding]:
    """Whether both classes occur in train and in valid."""
    lines = []
    for part, (rows, number) in clicks.items():
        if number in (0, rows):
            text = f"all {count(rows)} rows of {part} have the label {int(number > 0)}"
            advice = "look at `label` and `where` of the schema, and at how the log was cut"
            lines.append(Finding("error", "one class", text, advice))
    return lines


def rates(clicks: dict[str, tuple[int, int]]) -> list[Finding]:
    """Whether the share of clicks differs between train and valid by more than noise, and by a tenth."""
    (rows, first), (valid_rows, second) = clicks["train"], clicks["valid"]
    before, after, pooled = first / rows, second / valid_rows, (first + second) / (rows + valid_rows)
    error = math.sqrt(pooled * (1.0 - pooled) * (1.0 / rows + 1.0 / valid_rows))
    relative = after / before - 1.0
    figures = {"train": before, "valid": after, "relative": relative}
    found = f"{share(before)} of the train rows are clicked, and {share(after)} of the valid rows"
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
    labels, scores = _scored(dataset, facts)
    found = auc_interval(labels, scores)
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
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Labels and summed log odds of valid rows, every so many of them."""
    step = -(-dataset.manifest["rows"]["valid"] // _ROWS)
    columns = [value_of(dataset, fact.field).alias(fact.field.name) for fact in facts]
    frame = dataset.scanned("valid", labels=True).gather_every(step).select("@label", *columns)
    rows = frame.with_row_index("@number").collect()
    total = np.zeros(rows.height)
    for fact in facts:
        own = rows.select("@number", pl.col(fact.field.name).alias("value"))
        if fact.field.kind == "list":
            own = own.explode("value")
        scored = own.join(fact.scores, on="value", how="left").group_by("@number").agg(pl.col("score").mean())
        total[scored["@number"].to_numpy()] += scored["score"].fill_null(0.0).to_numpy()
    return rows["@label"].to_numpy(), total
