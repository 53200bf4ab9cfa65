"""What single fields do to a dataset's numbers: they say too much, nothing, or what nobody can learn from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.dataset.store import UNKNOWN, Dataset, FieldInfo
from ctr.dataset.value_counts import NO_NUMBER, bin_of, missing_of, row_weight, value_counts
from ctr.jobs.findings import Finding
from ctr.report.units import share

Floats = npt.NDArray[np.float64]

SHRINKAGE = 10.0  # rows of the mean rate that each value gets on top of its own
_LEAK_AUC, _SUSPECT_AUC = 0.95, 0.9
_LEAK_SHARE, _SUSPECT_SHARE = 0.8, 0.5  # of what there is to know about the label
_TURNED = 0.45
_ROW_ID = 0.9
_UNSEEN, _ONE_PART = 0.3, 0.9
_FORETOLD = 3.0
_FEW = 20  # clicks in valid that a claim about labels needs
_VECTOR_FLOATS = 1 << 25  # of a vector field's rows that are looked at, in one part


@dataclass(frozen=True)
class FieldFacts:
    """What the counts of one field say.

    Where rows have weights, or negatives were sampled, train and valid count by them, but where rows are meant.

    values: in train, missing included. rare: share of train rows whose value (nearly) no other train row has.
    foretold: the same share by weight. unseen_valid: share of valid whose value train does not know. unseen_test: share
    of the test rows, whose weights are sealed as their labels are. weighted: whether rows count other than one each.
    auc: on valid, of the click rate that each value had in train; None where labels have one class. explained: share of
    the entropy of valid labels that these rates explain; below zero where they mislead. scores: value and its log odds
    against the mean, from train.
    """

    field: FieldInfo
    values: int
    rare: float
    foretold: float
    unseen_valid: float
    unseen_test: float
    weighted: bool
    auc: float | None
    explained: float | None
    scores: pl.DataFrame


class LabelFacts(NamedTuple):
    """What a field, or one number of a vector field, says of the label.

    column: as it is shown. auc, explained: see `FieldFacts`.
    """

    field: str
    column: str
    auc: float | None
    explained: float | None


def facts_of(dataset: Dataset, field: FieldInfo) -> FieldFacts:
    """Count a field and sum up."""
    counts = value_counts(dataset, field)
    rows, test_rows = counts["train"].to_numpy(), counts["test"].to_numpy()
    train, valid, clicks, valid_clicks = (
        counts[name].to_numpy() for name in ("train_weight", "valid_weight", "train_clicks", "valid_clicks")
    )
    others = np.maximum(valid - valid_clicks, 0.0)  # sums of weights are rounded
    rate = _part(clicks.sum(), train)
    rates = _rates(clicks, train)
    unknown = np.zeros(len(train), np.bool_)
    if not dataset.hashed and not field.scaled:
        unknown = (counts["value"] == UNKNOWN).to_numpy()
    there = counts["value"].to_numpy() != missing_of(dataset, field)
    rare = there & (unknown | (rows == 1))
    strange = unknown | (train == 0.0)
    odds = np.log(np.clip(rates, 1e-9, None)) - np.log(np.clip(1.0 - rates, 1e-9, None))
    level = odds_of(rate)
    return FieldFacts(
        field,
        values=int((rows > 0).sum()),
        rare=_part(rows[rare].sum(), rows),
        foretold=_part(train[rare].sum(), train),
        unseen_valid=_part(valid[strange].sum(), valid),
        unseen_test=_part(test_rows[strange].sum(), test_rows),
        weighted=dataset.schema.weighted,
        auc=_auc(rates, valid_clicks, others),
        explained=_explained(rates, valid_clicks, others),
        scores=pl.DataFrame({"value": counts["value"], "score": odds - level}),
    )


def _rates(clicks: Floats, train: Floats) -> Floats:
    """The click rate (T,) of each value in train, drawn towards that of all rows."""
    return np.asarray((clicks + SHRINKAGE * _part(clicks.sum(), train)) / (train + SHRINKAGE))


def odds_of(rate: float) -> float:
    """Log odds of a rate, finite also for 0 and 1."""
    rate = min(max(rate, 1e-9), 1.0 - 1e-9)
    return float(np.log(rate / (1.0 - rate)))


def _part(share: float, of: Floats | npt.NDArray[np.int64]) -> float:
    total = float(of.sum())
    return float(share) / total if total else 0.0


def _auc(rates: Floats, positives: Floats, negatives: Floats) -> float | None:
    from sklearn.metrics import roc_auc_score

    if not positives.sum() or not negatives.sum():
        return None
    labels = np.repeat([1, 0], len(rates))
    weights = np.concatenate([positives, negatives])
    return float(roc_auc_score(labels, np.concatenate([rates, rates]), sample_weight=weights))


def _explained(rates: Floats, positives: Floats, negatives: Floats) -> float | None:
    """1 - log loss over entropy, of the labels counted."""
    total, clicks = positives.sum() + negatives.sum(), positives.sum()
    if not clicks or clicks == total:
        return None
    rates, mean = np.clip(rates, 1e-6, 1.0 - 1e-6), clicks / total
    loss = -(positives * np.log(rates) + negatives * np.log1p(-rates)).sum() / total
    entropy = -(mean * np.log(mean) + (1.0 - mean) * np.log1p(-mean))
    return float(1.0 - loss / entropy)


def label_facts(fact: FieldFacts) -> LabelFacts:
    """What a field says of the label."""
    return LabelFacts(fact.field.name, f'field "{fact.field.name}"', fact.auc, fact.explained)


def label_facts_of_numbers(dataset: Dataset, field: FieldInfo) -> list[LabelFacts]:
    """The same of each number of a vector field, in bins, by its first rows of train and valid.

    Source: as `facts_of`; a vector that is missing is a bin of its own.
    """
    rows = max(1, _VECTOR_FLOATS // field.size)
    parts = [
        dataset.scanned(part, labels=True)
        .select(
            "@label",
            row_weight(dataset),
            pl.col(field.name) != missing_of(dataset, field),
            f"@vector:{field.name}",
        )
        .head(rows)
        .collect(engine="streaming")
        for part in ("train", "valid")
    ]
    weights = [part["@weight"].to_numpy() for part in parts]
    clicked = [part["@label"].to_numpy() * part["@weight"].to_numpy() for part in parts]
    there = np.concatenate([part[field.name].to_numpy() for part in parts])
    numbers = np.concatenate([part[f"@vector:{field.name}"].to_numpy() for part in parts])  # (N, size)
    cut, found = len(weights[0]), []
    for number in range(field.size):
        _, bins = np.unique(np.where(there, bin_of(numbers[:, number]), NO_NUMBER), return_inverse=True)
        size, own = int(bins.max()) + 1, (bins[:cut], bins[cut:])
        (train, valid), (clicks, valid_clicks) = (
            [
                np.bincount(bin, weights=mass, minlength=size).astype(np.float64)
                for bin, mass in zip(own, masses, strict=True)
            ]
            for masses in (weights, clicked)
        )
        rates = _rates(clicks, train)
        others = np.maximum(valid - valid_clicks, 0.0)
        column = f'number {number} of field "{field.name}"'
        facts = _auc(rates, valid_clicks, others), _explained(rates, valid_clicks, others)
        found.append(LabelFacts(field.name, column, *facts))
    return found


def nearly_the_label(facts: list[LabelFacts], clicks: int) -> list[Finding]:
    """Fields, or numbers of vectors, that know the answer: written after the click, or from it."""
    lines = []
    for fact in facts:
        if fact.auc is None or fact.explained is None or clicks < _FEW:
            continue
        name, figures = fact.field, {"auc": fact.auc, "explained": fact.explained}
        found = (
            f"{fact.column} alone has AUC {fact.auc:.4f} on valid and explains {share(max(fact.explained, 0.0))} of "
            "the label"
        )
        if fact.auc >= _LEAK_AUC or fact.explained >= _LEAK_SHARE:
            advice = "nobody knows that much before the click: find out when it is written, and drop it from the schema"
            lines.append(Finding("error", "label in a field", found, advice, (name,), figures))
        elif fact.auc >= _SUSPECT_AUC or fact.explained >= _SUSPECT_SHARE:
            advice = "make sure that it is known before the click"
            lines.append(Finding("warn", "label in a field", found, advice, (name,), figures))
        elif fact.auc <= _TURNED:
            found = f"{fact.column}: what raises clicks in train lowers them in valid (AUC {fact.auc:.4f})"
            advice = "find out whether its values, or the labels, change their meaning in between"
            lines.append(Finding("warn", "turned field", found, advice, (name,), figures))
    known = [fact for fact in facts if fact.auc is not None]
    if lines or not known:
        return lines
    best = max(known, key=lambda fact: fact.auc or 0.0)
    text = f"no field knows the answer: the best alone is {best.column} with AUC {best.auc:.4f} on valid"
    return [Finding("ok", "label in a field", text, figures={"auc": best.auc})]


def says_nothing(facts: list[FieldFacts]) -> list[Finding]:
    """Fields with one value for all rows, or with a value for each row."""
    lines = []
    for fact in facts:
        name = fact.field.name
        if fact.rare >= _ROW_ID:
            text = f'field "{name}": {share(fact.rare)} of the train rows have a value that hardly another row has'
            advice = "a number of the row, or an id that never comes back: take it out of the schema"
            lines.append(Finding("warn", "row id", text, advice, (name,), {"rare": fact.rare}))
        elif fact.values <= 1 and not fact.field.scaled:
            text = f'field "{name}" has the same value in all train rows'
            lines.append(Finding("warn", "constant", text, "take it out of the schema", (name,)))
    return lines or [Finding("ok", "empty fields", "no field is constant, none numbers the rows")]


def of_another_world(facts: list[FieldFacts]) -> list[Finding]:
    """Fields of which valid or test hold values that train does not know, and more than train itself foretells.

    Where rows are alike, a new one has an unknown value about as often as a train row has one of its own (Good, "The
    population frequencies of species", Biometrika 1953).
    """
    lines = []
    for fact in facts:
        if fact.rare >= _ROW_ID or fact.field.scaled:
            continue
        name = fact.field.name
        # Test counts by rows, and is held against the rows of train.
        unseen = ((fact.unseen_valid, fact.foretold), (fact.unseen_test, fact.rare))
        figures = {"valid": fact.unseen_valid, "test": fact.unseen_test, "foretold": fact.foretold}
        valid = "valid, by weight," if fact.weighted else "the valid rows"
        found = (
            f'field "{name}": train does not know the values of {share(fact.unseen_valid)} of {valid} and '
            f"{share(fact.unseen_test)} of the test rows"
        )
        if max(fact.unseen_valid, fact.unseen_test) >= _ONE_PART:
            advice = "the values belong to one part, like a date: nothing learned of them is ever used; take it out"
            lines.append(Finding("warn", "values of one part", found, advice, (name,), figures))
        elif any(seen >= _UNSEEN and seen >= _FORETOLD * own for seen, own in unseen):
            advice = (
                f"within train it is {share(fact.foretold)}: the parts are different worlds, and keeping its values is "
                "worth less than train says"
            )
            lines.append(Finding("warn", "unseen values", found, advice, (name,), figures))
    if lines:
        return lines
    known = [fact for fact in facts if not fact.field.scaled]
    if not known:
        return []
    worst = max(known, key=lambda fact: fact.unseen_test)
    text = (
        "no field has more new values than train itself foretells; most are in "
        f'"{worst.field.name}": {share(worst.unseen_test)} of the test rows'
    )
    return [Finding("ok", "unseen values", text, figures={"test": worst.unseen_test})]


FIELD_CHECKS: tuple[Callable[[list[FieldFacts]], list[Finding]], ...] = (says_nothing, of_another_world)
