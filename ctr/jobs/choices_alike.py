"""How alike feature sets are over seeds and backbones, and how much importances vary among runs of equal quality."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import polars as pl

from ctr.dataset.feature_set import METHODS, FeatureSet
from ctr.evaluation.stability import Choices, agreement, coin_flips, jaccard, nogueira
from ctr.jobs.entries import Entry, Setting

_NAMED = 20  # features that are told by name


def stability(groups: Mapping[Setting, Sequence[Entry]]) -> list[dict[str, Any]]:
    """Per selector and size: over the seeds of each backbone and embedding, and over all of these where there are more.

    Of features, fields (chosen where any value is) and, where pairs were chosen, pairs that are modelled.
    """
    found, together = [], dict[tuple[str, float | None], list[Entry]]()
    for setting, entries in groups.items():
        if setting.role != "selector" or any(entry.feature_set is None for entry in entries):
            continue
        together.setdefault((setting.label, setting.size), []).extend(entries)
        found.append({**setting._asdict(), **_alike(entries)})
    for (label, size), entries in together.items():
        if len({entry.setting for entry in entries}) > 1:
            both = {"backbone": "all", "embedding": "all"}
            found.append({"role": "selector", "label": label, "size": size, **both, **_alike(entries)})
    return found


def _alike(entries: Sequence[Entry]) -> dict[str, Any]:
    sets = [FeatureSet.load(entry.feature_set) for entry in entries if entry.feature_set is not None]
    values, chosen = _joined([each.features.filter(pl.col("role") == "value") for each in sets])
    kept = [{name: number > 0 for name, number in entry.facts["fields"].items()} for entry in entries]
    shared = [name for name in kept[0] if all(name in own for own in kept)]
    fields = np.array([[own[name] for name in shared] for own in kept])
    flips = coin_flips(chosen) if len(sets) > 1 else np.zeros(0, np.int64)
    named = values[flips].sort("count", "field", "id", descending=[True, False, False])
    return {
        "runs": len(sets),
        "features": _indices(chosen),
        "fields": _indices(fields),
        "pairs": _pairs(sets),
        "coin_flips": len(flips),
        "coin_flips_named": named.select("field", "value", "count").head(_NAMED).to_dicts(),
        "fields_by_run": {
            name: sum(own.get(name, False) for own in kept) for name in dict.fromkeys(chain(*kept))
        },
    }


def _joined(values: Sequence[pl.DataFrame]) -> tuple[pl.DataFrame, Choices]:
    """The values that every run had to choose from, as the first one counts them, and which of them each keeps."""
    first, key = values[0], ["field", "value"]
    kept = [first["kept"]]
    if all(other.select(key).equals(first.select(key)) for other in values[1:]):
        kept += [other["kept"] for other in values[1:]]
    else:  # other vocabularies: the position of a value says nothing
        for number, other in enumerate(values[1:]):
            own = other.select(*key, pl.col("kept").alias(f"kept_{number}"))
            first = first.join(own, on=key, how="inner", nulls_equal=True, maintain_order="left")
        kept = [first["kept"], *(first[f"kept_{number}"] for number in range(len(values) - 1))]
    return first, np.stack([each.to_numpy() for each in kept])


def _indices(choices: Choices) -> dict[str, Any]:
    if not choices.shape[1]:  # runs that had nothing in common to choose from
        return {"nogueira": None, "jaccard": None}
    found = nogueira(choices)
    return {"nogueira": None if found is None else found._asdict(), "jaccard": jaccard(choices)}


def _pairs(sets: Sequence[FeatureSet]) -> dict[str, Any] | None:
    """Of pairs that are modelled, and of how: memorized, factorized or not at all."""
    if any(each.interactions is None for each in sets):
        return None
    found = [
        {pair: number for number, how in enumerate(METHODS) for pair in each.pairs(how)} for each in sets
    ]
    naive = METHODS.index("naive")
    every = sorted(set().union(*found))  # what could have been chosen, most of it naive
    methods = np.array([[own.get(pair, naive) for pair in every] for own in found])
    modelled = methods != naive
    if not modelled.any():
        return None
    told = [
        {"field_a": every[at][0], "field_b": every[at][1]}
        | {how: int((methods[:, at] == number).sum()) for number, how in enumerate(METHODS)}
        for at in np.flatnonzero((methods != methods[0]).any(0))
    ]
    told.sort(key=lambda pair: max(int(pair[how]) for how in METHODS))  # those least agreed on first
    return {
        **_indices(modelled),
        "methods": agreement(methods),
        "changing": len(told),
        "changing_named": told[:_NAMED],
    }


def equal_runs(entries: Sequence[Entry], margin: float) -> dict[str, Any]:
    """The runs of practically equal AUC on valid (a Rashomon set), and what fields and pairs of them are worth to each.

    Equal: within the margin of the best run, or within what the seeds of its setting differ by, where that is more.
    Breiman, "Statistical Modeling: The Two Cultures", 2001; Fisher, Rudin and Dominici, JMLR 20 (2019).
    """
    if not entries:
        return {"within": None, "runs": [], "importance": {}, "pair_importance": [], "importance_of": []}
    aucs = {id(entry): entry.facts["valid"]["auc"] for entry in entries}
    best = max(entries, key=lambda entry: aucs[id(entry)])
    alike = [aucs[id(entry)] for entry in entries if entry.setting == best.setting]
    reach = max(margin, max(alike) - min(alike))
    near = [entry for entry in entries if aucs[id(entry)] >= aucs[id(best)] - reach]
    known = [entry for entry in near if entry.facts.get("importance")]
    names = list(known[0].facts["importance"]) if known else []
    by_pair = [{(a, b): worth for a, b, worth in entry.facts.get("pair_importance", [])} for entry in known]
    # Each run measures the pairs of the fields that matter most to it; those that most runs measured are told.
    measured = Counter(pair for own in by_pair for pair in own)
    pairs = [pair for pair, runs in measured.items() if 2 * runs > len(known)]
    return {
        "within": reach,
        "runs": [
            {**entry.setting._asdict(), "seed": entry.seed, "valid_auc": aucs[id(entry)]} for entry in near
        ],
        "importance": {name: [entry.facts["importance"].get(name) for entry in known] for name in names},
        "pair_importance": [
            {"fields": list(pair), "values": [own[pair] for own in by_pair if pair in own]} for pair in pairs
        ],
        "importance_of": [f"{entry.setting.label} {entry.seed}" for entry in known],
    }
