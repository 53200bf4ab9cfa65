"""Referees that drop whole fields, by what libraries of statistics say of each: cheap, and blind to networks.

They judge train rows alone; l1 and gain also look at valid, to stop or to choose a strength. What is judged of a field
is the whole of it, and a size in values is met by `ctr.selection.field_choice.top_fields`.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from ctr.dataset.feature_set import FeatureSet, Floats
from ctr.dataset.store import Dataset, Part
from ctr.errors import ConfigError
from ctr.selection.field_choice import fields_as_set, owners, top_fields
from ctr.selection.field_rows import global_ids, occurrences, sample, weights_of

MOST_ROWS = 1_000_000  # that l1 and gain look at; of a longer log so many are drawn
STRENGTHS = (1e-3, 1e-4, 1e-5, 1e-6)  # of the L1 norm, per row
_EPOCHS = 5
_TREES, _PATIENCE = 200, 10
_LIST_COLUMNS = 32  # values of a list that trees are told of, the most frequent ones

Scores = dict[str, float]


def mutual_information(dataset: Dataset, seed: int) -> Scores:
    """Nats per row that a field says about the label, above what its values would say by chance.

    The chance is that of all ways to deal out the labels (Vinh, Epps and Bailey, "Information Theoretic Measures for
    Clusterings Comparison", JMLR 2010): without it an id that occurs once would say everything.
    """
    from sklearn.metrics import mutual_info_score
    from sklearn.metrics.cluster import expected_mutual_information

    def score(table: Floats, spread: float) -> float:
        counts = np.rint(table / spread).astype(np.int64)  # rows that tell as much as the weighted ones
        counts = counts[counts.sum(1) > 0]
        chance = expected_mutual_information(counts, int(counts.sum()))
        return float(mutual_info_score(None, None, contingency=table) - chance)

    return _of_tables(dataset, score)


def chi2(dataset: Dataset, seed: int) -> Scores:
    """Pearson's chi-squared of a field and the label, less its degrees of freedom, per row.

    That is Cramer's V squared without its bias (Bergsma, "A bias-correction for Cramer's V", 2013).
    """
    from scipy.stats import chi2_contingency

    def score(table: Floats, spread: float) -> float:
        found = chi2_contingency(table, correction=False)
        return float((found.statistic - spread * found.dof) / table.sum())

    return _of_tables(dataset, score)


def _of_tables(dataset: Dataset, score: Callable[[Floats, float], float]) -> Scores:
    """The score of each field by its weighted counts by label, and by how many rows are worth one, as weights differ.

    The values of a list are judged one by one, each with the label of its row; of a vector its best number counts, and
    of fields that share features the best field.
    """
    part = dataset.part("train")
    weights, labels = weights_of(part), part.labels.astype(np.int64)
    found: Scores = {}
    for info, codes, rows in occurrences(dataset, part):
        own = weights[rows]
        table = np.bincount(2 * codes + labels[rows], own, 2 * (int(codes.max(initial=0)) + 1)).reshape(-1, 2)
        table = table[table.sum(1) > 0]
        spread = float(np.square(own).sum() / own.sum())
        value = score(table, spread) if len(table) > 1 else 0.0
        name = info.shares or info.name
        found[name] = max(found.get(name, value), value)
    return found


def l1(dataset: Dataset, seed: int) -> Scores:
    """How far a field moves the logit of a logistic regression on all values with an L1 norm: its standard deviation.

    The strength of the norm is the one with the best log loss on valid.
    """
    from sklearn.linear_model import SGDClassifier
    from sklearn.metrics import log_loss

    train, valid = (sample(dataset.part(name), MOST_ROWS, seed) for name in ("train", "valid"))
    rows, seen = _one_hot(dataset, train), _one_hot(dataset, valid)
    models = []
    for strength in STRENGTHS:
        model = SGDClassifier(
            loss="log_loss",
            penalty="l1",
            alpha=strength,
            max_iter=_EPOCHS,
            tol=None,
            average=False,
            random_state=seed,
        )
        model.fit(rows, train.labels, sample_weight=weights_of(train))
        chances = model.predict_proba(seen)
        models.append((log_loss(valid.labels, chances, sample_weight=weights_of(valid)), model))
    coefficients = min(models, key=lambda entry: entry[0])[1].coef_[0]
    columns, weights = rows.tocsc(), weights_of(train)
    found = {}
    for info, numbers in _columns(dataset):
        moved = columns[:, numbers] @ coefficients[numbers]
        mean = np.average(moved, weights=weights)
        found[info] = float(np.sqrt(np.average(np.square(moved - mean), weights=weights)))
    return found


def _columns(dataset: Dataset) -> list[tuple[str, Any]]:
    """Field and its columns in `_one_hot`."""
    ends = dict[str, list[Any]]()
    for info in owners(dataset):
        ends[info.name] = [np.arange(info.offset, info.offset + info.features)]
    start = dataset.features
    for info in dataset.fields:
        if info.size:
            ends[info.name].append(np.arange(start, start + info.size))
            start += info.size
    return [(name, np.concatenate(numbers)) for name, numbers in ends.items()]


def _one_hot(dataset: Dataset, part: Part) -> Any:
    """(N, V + T) sparse: a column for each feature and each number of a vector; the values of a list are averaged."""
    from scipy import sparse

    ids, listed = global_ids(dataset, part)
    count = len(part)
    rows = [np.repeat(np.arange(count), ids.shape[1])]
    columns, data = (
        [ids.ravel()],
        [np.ones(ids.size) if part.values is None else np.asarray(part.values).ravel()],
    )
    for flat, (_, offsets) in zip(listed, part.lists, strict=True):
        lengths = np.diff(offsets)
        rows.append(np.repeat(np.arange(count), lengths))
        columns.append(flat)
        data.append(np.repeat(1.0 / np.maximum(lengths, 1), lengths))
    numbers = 0 if part.vectors is None else part.vectors.shape[1]
    places = (np.concatenate(rows), np.concatenate(columns))
    features = sparse.csr_matrix((np.concatenate(data), places), shape=(count, dataset.features))
    if not numbers:
        return features
    return sparse.hstack([features, sparse.csr_matrix(np.asarray(part.vectors, np.float64))], format="csr")


def gain(dataset: Dataset, seed: int) -> Scores:
    """Loss that the splits of gradient boosted trees save by a field (LightGBM), stopped by their log loss on valid."""
    require("field_gain")
    import lightgbm

    parts = [sample(dataset.part(name), MOST_ROWS, seed) for name in ("train", "valid")]
    tops = _frequent_items(dataset)
    (rows, names, categorical), (seen, _, _) = (_dense(dataset, part, tops) for part in parts)
    data = [
        lightgbm.Dataset(
            matrix,
            part.labels,
            weight=weights_of(part),
            categorical_feature=categorical,
            free_raw_data=False,
        )
        for matrix, part in zip((rows, seen), parts, strict=True)
    ]
    parameters = {
        "objective": "binary",
        "verbosity": -1,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
    }
    model = lightgbm.train(
        parameters,
        data[0],
        num_boost_round=_TREES,
        valid_sets=[data[1]],
        callbacks=[lightgbm.early_stopping(_PATIENCE, verbose=False)],
    )
    found = {info.name: 0.0 for info in owners(dataset)}
    for name, saved in zip(
        names, model.feature_importance("gain", iteration=model.best_iteration), strict=True
    ):
        found[name] += float(saved)
    return found


def _frequent_items(dataset: Dataset) -> list[Any]:
    """Of each list field the features that most train rows hold."""
    counts = dataset.vocabulary["count"].to_numpy()
    tops = []
    for info in dataset.fields:
        if info.kind == "list":
            own = counts[info.offset : info.offset + info.features]
            tops.append(info.offset + np.argsort(-own, kind="stable")[:_LIST_COLUMNS])
    return tops


def _dense(dataset: Dataset, part: Part, tops: list[Any]) -> tuple[Any, list[str], list[int]]:
    """(N, C) numbers for trees, the field of each column, and which of them are codes of categories."""
    ids, listed = global_ids(dataset, part)
    columns, names, categorical, start = list[Any](), list[str](), list[int](), 0
    single = [info for info in dataset.fields if info.kind != "list"]
    for slot, info in enumerate(single):
        name = info.shares or info.name
        if info.size:
            assert part.vectors is not None
            columns += list(np.asarray(part.vectors[:, start : start + info.size]).T)
            names += [name] * info.size
            start += info.size
        elif info.scaled:
            assert part.values is not None
            columns.append(np.asarray(part.values[:, slot]))
            names.append(name)
        else:
            categorical.append(len(columns))
            columns.append(ids[:, slot] - info.offset)
            names.append(name)
    lists = [info for info in dataset.fields if info.kind == "list"]
    for info, flat, top, (_, offsets) in zip(lists, listed, tops, part.lists, strict=True):
        rows = np.repeat(np.arange(len(part)), np.diff(offsets))
        for feature in top:
            columns.append(np.bincount(rows[flat == feature], minlength=len(part)) > 0)
            names.append(info.shares or info.name)
    return np.column_stack([np.asarray(column, np.float64) for column in columns]), names, categorical


def require(referee: str) -> None:
    """Refuse a referee whose library is not installed.

    Raises:
        ConfigError: it is not.
    """
    if referee == "field_gain" and importlib.util.find_spec("lightgbm") is None:
        raise ConfigError(
            'selector "field_gain" needs LightGBM, which is not installed: pip install "ctr[boosting]", '
            "or use another referee of fields"
        )


def _referee(name: str, judge: Callable[[Dataset, int], Scores]) -> Callable[[Dataset, int, int], FeatureSet]:
    def choose(dataset: Dataset, count: int, seed: int) -> FeatureSet:
        scores = judge(dataset, seed)
        return fields_as_set(
            dataset, top_fields(dataset, scores, count), scores, {"selector": name, "seed": seed}
        )

    return choose


FIELD_REFEREES: dict[str, Callable[[Dataset, int, int], FeatureSet]] = {
    name: _referee(name, judge)
    for name, judge in {
        "field_mutual_information": mutual_information,
        "field_chi2": chi2,
        "field_l1": l1,
        "field_gain": gain,
    }.items()
}
