"""Whether the parts of a dataset are apart: no row in two of them, and no row of train that is younger than test."""

import math

import polars as pl

from ctr.dataset.schema import Schema
from ctr.dataset.split_spec import FilesSplit
from ctr.dataset.store import Dataset, PartName
from ctr.dataset.twins import Twins, twins
from ctr.jobs.doctor_labels import Clicks
from ctr.jobs.findings import Finding
from ctr.report.units import count, share, shown_window

_COPIES = 0.005  # of the rows of a part: fewer copies move no AUC that one would report
_AGREE = (
    0.85  # of clicked rows above chance: copies have the label of their original, impressions alike do not
)
_TWINS = 20  # clicked rows with a twin, to know that
_TIMES = 3.0  # as many twins as valid, for test to be another matter
_DATES = ("TIMESTAMP", "DATE", "DATETIME", "TO_DATE")


def rows_in_two_parts(dataset: Dataset) -> list[Finding]:
    """Whether rows of train were copied into valid or test, or of valid into test.

    Impressions that say the same occur in any log. A copy also has the label of its original, which tells the two
    apart on valid; the labels of test are sealed, so there it is the number of twins, against that of valid.
    """
    found = twins(dataset)
    figures = {
        "valid_in_train": found.valid,
        "test_in_train": found.test,
        "test_in_valid": found.test_in_valid,
        "train_in_train": found.train,
        "agreement": found.agreement,
    }
    advice = (
        "drop repeated rows from the input, or split by a key that keeps them in one part, and ingest again"
    )
    lines = []
    if found.valid >= _COPIES and found.clicked >= _TWINS and _above_chance(found) >= _AGREE:
        text = (
            f"{share(found.valid)} of the valid rows say the same in every field as a row of train, and of the clicked "
            f"ones {share(found.agreement)} of these twins are clicked too: they are copies"
        )
        lines.append(Finding("error", "same rows", text, advice, figures=figures))
    for part, shared in (("train", found.test), ("valid", found.test_in_valid)):
        if shared >= _COPIES and shared > _TIMES * found.valid + _COPIES:
            text = (
                f"{share(shared)} of the test rows say the same in every field as a row of {part}, which only "
                f"{share(found.valid)} of the valid rows do of train"
            )
            lines.append(Finding("error", "same rows", text, advice, figures=figures))
    if lines:
        return lines
    text = f"no sign of copies: {share(found.valid)} of valid and {share(found.test)} of test rows have a twin in train"
    if found.agreement is not None and found.valid >= _COPIES:
        text += f", as impressions alike do (labels agree in {share(found.agreement)} of the clicked ones)"
    return [Finding("ok", "same rows", text, figures=figures)]


def _above_chance(found: Twins) -> float:
    """How far labels of twins agree beyond what the click rate alone would give; 1 where always (Cohen's kappa)."""
    assert found.agreement is not None
    return (found.agreement - found.rate) / (1.0 - found.rate) if found.rate < 1.0 else 0.0


def time_of_parts(dataset: Dataset) -> list[Finding]:
    """Whether train ends before valid begins, and valid before test; or whether time played no part in the split."""
    window = _windows(dataset)
    if not window:
        return _untimed(dataset.schema)
    if isinstance(dataset.schema.split, FilesSplit):
        return _times_of_files(dataset, window) or [_APART]
    lines = []
    pairs: tuple[tuple[PartName, PartName], ...] = (("train", "valid"), ("valid", "test"))
    for before, after in pairs:
        late, early = window[before][1], window[after][0]
        if late >= early:
            text = (
                f"rows of {before} reach {late:,}, where those of {after} begin at {early:,} (keys of time)"
            )
            advice = "the files are not as they were written: delete the dataset and ingest again"
            figures = {f"{before}_last": float(late), f"{after}_first": float(early)}
            lines.append(Finding("error", "time", text, advice, figures=figures))
    return lines or [_APART]


_APART = Finding("ok", "time", "train ends before valid begins, and valid before test")


def _times_of_files(dataset: Dataset, window: dict[PartName, tuple[int, int]]) -> list[Finding]:
    """Parts that were given as files and overlap in time, which is as it may be, but another question."""
    lines, shown = [], dataset.manifest["window"]
    pairs: tuple[tuple[PartName, PartName], ...] = (("train", "valid"), ("train", "test"), ("valid", "test"))
    for before, after in pairs:
        early = window[after][0]
        rows = dataset.scanned(before).select(pl.len(), (pl.col("@time") >= early).sum().alias("late"))
        total, late = rows.collect(engine="streaming").row(0)
        if late:
            text = (
                f"{before} covers {shown_window(shown[before])}, and {after} {shown_window(shown[after])}: "
                f"{share(late / total)} of the {before} rows are no older than the first of {after}"
            )
            advice = (
                f"{before} then knows times that {after} is asked about; give it files that end before {after} begins, "
                'or use split.by = "time"'
            )
            figures = {f"{before}_last": float(window[before][1]), f"{after}_first": float(early)}
            lines.append(Finding("warn", "time", text, advice, figures=figures | {"share": late / total}))
    return lines


def _windows(dataset: Dataset) -> dict[PartName, tuple[int, int]]:
    found: dict[PartName, tuple[int, int]] = {}
    if "@time" not in dataset.manifest["row_columns"]:
        return found
    parts: tuple[PartName, ...] = ("train", "valid", "test")
    for part in parts:
        frame = dataset.scanned(part)
        ends = frame.select(pl.col("@time").min().alias("low"), pl.col("@time").max().alias("high"))
        low, high = ends.collect(engine="streaming").row(0)
        found[part] = (int(low), int(high))
    return found


def _untimed(schema: Schema) -> list[Finding]:
    """Of a split that asked no clock: whether the log has one."""
    by = schema.split.by
    clocks = [f'join on "{join.on}" by "{join.time}"' for join in schema.joins if join.time]
    clocks += [
        f'derived column "{name}"'
        for name, text in schema.derive.items()
        if any(word in text.upper() for word in _DATES)
    ]
    if clocks:
        text = f'rows have a time ({", ".join(clocks)}), but split.by = "{by}" does not ask it'
        how = (
            "name it (split.column), to see whether the files follow each other in time"
            if by == "files"
            else 'train then knows days that test is asked about; use split.by = "time"'
        )
        return [Finding("warn", "time", text, how)]
    how = " (split.column would)" if by == "files" else ""
    return [Finding("ok", "time", f'split.by = "{by}", and the schema names no time to compare{how}')]


def size_of_test(dataset: Dataset, train: Clicks, auc: float) -> list[Finding]:
    """The smallest AUC difference that the test rows can tell from none.

    Hanley and McNeil, "The meaning and use of the area under a ROC curve", Radiology 1982, for the spread of one AUC;
    two models of one log are correlated, so that their difference spreads less (`_CORRELATION`).

    Args:
        train: its rows, whose share of clicks and spread of weights stand for those of test, which are sealed.
        auc: of a simple model on valid.
    """
    rows = dataset.manifest["rows"]["test"]
    auc = min(max(auc, 0.5), 0.99)
    rate, effective = train.clicks / train.rows, train.effective
    positives, negatives = max(rows * rate * effective[0], 1.0), max(rows * (1.0 - rate) * effective[1], 1.0)
    first, second = auc / (2.0 - auc), 2.0 * auc**2 / (1.0 + auc)
    variance = auc * (1.0 - auc) + (positives - 1) * (first - auc**2) + (negatives - 1) * (second - auc**2)
    error = math.sqrt(variance / (positives * negatives))
    smallest = 1.96 * error * math.sqrt(2.0 * (1.0 - _CORRELATION))
    figures = {"rows": float(rows), "smallest_difference": smallest}
    text = f"{count(rows)} test rows tell AUC differences from none that are above {smallest:.4f}, about"
    if smallest <= _PROVABLE:
        return [Finding("ok", "test size", text, figures=figures)]
    needed = rows * (smallest / _PROVABLE) ** 2
    advice = f"smaller ones stay undecided; {count(round(needed, -3))} test rows would do for {_PROVABLE:g}"
    return [Finding("warn", "test size", text, advice, figures=figures)]


_CORRELATION = 0.9
_PROVABLE = 0.005
