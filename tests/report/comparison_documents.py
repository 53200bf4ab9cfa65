"""The document of a comparison of made-up models, whose true differences are known."""

from functools import cache
from pathlib import Path

import numpy as np

from ctr.jobs.comparison_document import build_document
from ctr.jobs.entries import Entry, Rows, Setting, by_setting, judged
from ctr.jobs.valid_choice import choose
from ctr.report.comparison_words import verdict_words
from ctr.report.walk_words import walk_words

ROWS = 1500
FIELDS = {"user_id": 900, "item_id": 500, "hour": 24, "noise <b>": 60}
LOSSES = {("optfs", 0.5): 0.0, ("optfs", 0.1): 0.15, ("frequency", 0.5): 0.3, ("frequency", 0.1): 0.6}
LOSSES |= {("width 8", None): 0.05, ("unified", 0.5): 0.02, ("unified", 0.1): 0.2, ("keep all", None): 0.0}


def entries(seeds=(0, 1, 2)):
    """Scores whose noise grows with what is lost; rows and entries."""
    random = np.random.default_rng(3)
    labels = (random.random(ROWS) < 0.3).astype(np.uint8)
    hard, rows, found = random.normal(size=ROWS), Rows(labels), []
    for (label, size), loss in LOSSES.items():
        role = {"keep all": "keep_all", "optfs": "selector", "frequency": "selector"}.get(
            label, "alternative"
        )
        for seed in seeds:
            own = np.random.default_rng(seed)
            scores = (
                1.4 * labels + hard + (0.3 + loss) * own.normal(size=ROWS) + loss * random.normal(size=ROWS)
            )
            share = size or 1.0
            kept = {name: round(share * number) for name, number in FIELDS.items()}
            if label == "optfs":
                kept["noise <b>"] = 0
            tables = 4000 if label == "width 8" else round(8000 * share)
            facts = {
                "kept": sum(kept.values()),
                "total": sum(FIELDS.values()),
                "ratio": share,
                "fields": kept,
                "cost": None,
                "groups": None,
                "parameters": 5000 + tables,
                "bytes": 20_000 + 4 * tables,
                "table_bytes": 4 * tables,
                "bundle_bytes": 50_000 + 6 * tables,
                "valid": {"auc": 0.79 - loss / 10 + 0.001 * seed, "logloss": 0.5 + loss / 20},
                "seconds": {"search": 1.0, "train": 4.0 + seed},
                "importance": {name: 0.1 / (n + 1) + 0.01 * seed for n, name in enumerate(FIELDS)},
                "pair_importance": [("user_id", "item_id", 0.02 - 0.03 * seed), ("user_id", "hour", 0.001)],
            }
            probabilities = 1.0 / (1.0 + np.exp(-(scores - 1.2)))
            setting = Setting(role, label, size, "deepfm", "table")
            entry = Entry(
                setting, seed, facts, probabilities, np.zeros(0), None, Path(f"cells/{label}-{seed}")
            )
            found.append(judged(entry, probabilities, rows))
    return found, rows


PAIR = {"field_a": "user_id", "field_b": "noise <b>", "memorize": 2, "factorize": 0, "naive": 1}


def _alike(label, size):
    index = {"value": 0.7 if label == "optfs" else 1.0, "low": 0.6, "high": 0.8}
    return {
        "role": "selector",
        "label": label,
        "size": size,
        "backbone": "deepfm",
        "embedding": "table",
        "runs": 3,
        "features": {"nogueira": index, "jaccard": 0.8},
        "fields": {"nogueira": None, "jaccard": 1.0},
        "pairs": {"nogueira": None, "jaccard": 0.5, "methods": 0.4, "changing": 3, "changing_named": [PAIR]},
        "coin_flips": 7,
        "coin_flips_named": [{"field": "user_id", "value": "<u7>", "count": 40}],
        "fields_by_run": dict.fromkeys(FIELDS, 3),
    }


def _walk(margin=0.001, known=True):
    """A set that ages by 0.004 a day, over four windows."""

    def difference(value):
        bounds = {"low": value - 0.003, "high": value + 0.003}
        wide = {"low_corrected": value - 0.005, "high_corrected": value + 0.005}
        outcome = "loss" if value < -0.003 else "undecided"
        decision = {"outcome": outcome, "provable": 0.003, "more_rows": 1000, "seeds_known": known}
        return {"value": value, **bounds, **wide, "by_seed": [value], **decision}

    def points(pace, lines):
        return [
            {"window": n, "auc": 0.78 + pace * n, "keep_all_auc": 0.782}
            | {
                f"minus_{line}": difference(pace * n - (0.002 if line == "keep_all" else 0.0))
                for line in lines
            }
            for n in range(4)
        ]

    both = ("keep_all", "anew")
    lines = {"drop": points(-0.004, both), "keep": points(-0.001, both), "anew": points(0.0, both[:1])}
    pace = {"value": -0.004, "low": -0.005, "high": -0.003, "by_seed": [-0.004], "outcome": "ages"}
    pace |= {"seeds_known": known, "margin_after": {"value": 0.25, "low": 0.2, "high": 0.33}}
    one = {"role": "selector", "label": "optfs", "size": 0.5, "backbone": "deepfm", "embedding": "table"}
    one |= {"points": lines, "pace": {"drop": pace, "keep": {**pace, "outcome": "undecided"}}}
    windows = [
        {
            "age": float(n),
            "first": f"2024-01-0{n + 1}T00:00:00+00:00",
            "end": f"2024-01-0{n + 2}T00:00:00+00:00",
            "rows": 5000,
            "positives": 900,
            "trained_on": {"train": 9000, "valid": 1000},
            "features": 1400 + n,
            "unjudged": {"any": 0.1 + 0.1 * n, "fields": dict.fromkeys(FIELDS, 0.05 * n)},
            "test_reads": 1,
        }
        for n in range(4)
    ]
    walk = {"column": "when <i>", "age_unit": "day", "new_values": ["drop", "keep"], "level": 0.99}
    walk |= {"windows": windows, "sets": [one]}
    one["sentence"] = walk_words(walk, one, margin)
    return walk


@cache
def document(seeds=(0, 1, 2)):
    found, rows = entries(seeds)
    choice = choose(by_setting(found), rows, {})
    built = build_document(found, rows, choice, 0.001, {})
    built |= {
        "name": "made <up>",
        "digest": "0" * 12,
        "command": "ctr compare made-up.toml --out out",
        "ship": "ctr train run.toml --set selector.kind=optfs",
        "dataset": {
            "name": "made up",
            "digest": "d" * 36,
            "rows": {"train": 9000, "valid": ROWS, "test": ROWS},
        }
        | {"fields": 4, "features": 1492, "window": None, "test_reads": {"look": 1, "reads": [{"run": "x"}]}},
        "cluster": None,
        "left_out": [],
        "stability": [_alike(label, size) for label in ("optfs", "frequency") for size in (0.5, 0.1)],
        "chosen_set": {
            "feature_set": {"fields": {name: {"kept": n // 2, "total": n} for name, n in FIELDS.items()}},
            "gates": {"edges": [-1.0, 0.0, 1.0], "kept": [0, 9], "dropped": [5, 0]},
        },
    }
    built["margin"] |= {"foreseen": 0.004, "assumed_auc": 0.75, "assumed_correlation": 0.95}
    built["verdict"] = verdict_words(built)
    built["walk_forward"] = _walk(known=len(seeds) > 2)
    return built
