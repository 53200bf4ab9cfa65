import copy

import numpy as np
import polars as pl
import pytest

from ctr.report import write_report

FIELDS = {
    "user_id": 3200,
    "item_id": 1400,
    "hour": 24,
    "weekday": 7,
    "device": 40,
    "noise_a": 300,
    "noise_b": 60,
}
FIELDS |= {"genres": 18, "price": 31, "city": 180}
KEPT = {"user_id": 900, "item_id": 610, "hour": 22, "weekday": 7, "device": 12, "noise_a": 4, "noise_b": 0}
KEPT |= {"genres": 15, "price": 26, "city": 41}


def _history(stage, epochs, start, end):
    rows = []
    for epoch in range(1, epochs + 1):
        done = 1.0 - 0.35**epoch
        row = {
            "epoch": epoch,
            "step": 70 * epoch,
            "seconds": 1.9 * epoch,
            "train_logloss": 0.52 - 0.11 * done - 0.004 * epoch - end / 20,
            "valid_auc": start + (end - start) * done - 0.0006 * max(0, epoch - 5),
            "valid_logloss": 0.50 - 0.07 * done + 0.0007 * epoch - end / 20,
            "learning_rate": 1e-3,
        }
        if stage == "search":
            row |= {"open": 1.0 - 0.66 * (epoch / epochs) ** 2, "temperature": 2000.0 ** (epoch / epochs)}
        rows.append(row)
    return rows


def _point(selector, ratio, auc, chosen=False):
    total = sum(FIELDS.values())
    half = 0.0012 + 0.0012 * (1 - ratio)
    return {
        "selector": selector,
        "ratio": ratio,
        "kept": round(ratio * total),
        "penalty": 0.31 / ratio if selector == "optfs" else None,
        "parameters": 60_000 + round(ratio * total * 17),
        "bytes": 4 * (60_000 + round(ratio * total * 17)),
        "valid": {"auc": auc + 0.0021, "logloss": 0.4402 - (auc - 0.75) / 2},
        "test": {"auc": auc, "logloss": 0.4431 - (auc - 0.75) / 2, "ece": 0.0061},
        "difference": {"value": auc - 0.7812, "low": auc - 0.7812 - half, "high": auc - 0.7812 + half},
        "chosen": chosen,
    }


@pytest.fixture(scope="session")
def _report():
    total, kept = sum(FIELDS.values()), sum(KEPT.values())
    optfs = {0.05: 0.7698, 0.1: 0.7761, 0.2: 0.7799, kept / total: 0.7819, 0.5: 0.7816}
    frequency = {0.05: 0.7571, 0.1: 0.7702, 0.2: 0.7784, kept / total: 0.7803, 0.5: 0.7811}
    random = {0.05: 0.7012, 0.1: 0.7203, 0.2: 0.7418, kept / total: 0.7571, 0.5: 0.7688}
    curve = [_point("optfs", ratio, auc, chosen=auc == 0.7819) for ratio, auc in optfs.items()]
    curve += [_point("frequency", ratio, auc) for ratio, auc in frequency.items()]
    curve += [_point("random", ratio, auc) for ratio, auc in random.items()]
    curve.append(_point("all", 1.0, 0.7812) | {"difference": {"value": 0.0, "low": 0.0, "high": 0.0}})
    edges = [round(-1.5 + 0.1 * number, 1) for number in range(31)]
    centres = np.array(edges[:-1]) + 0.05
    shape = 900 * np.exp(-(((centres + 0.7) / 0.3) ** 2)) + 420 * np.exp(-(((centres - 0.8) / 0.25) ** 2))
    return {
        "name": "demo",
        "run": "demo-0123456789ab",
        "command": 'python -m pipelines.train pipelines/configs/demo.toml --set seed=1',
        "dataset": {
            "name": "synthetic",
            "digest": "0123456789abcdef0123456789abcdef0123",
            "rows": {"train": 160_000, "valid": 20_000, "test": 20_000},
            "fields": len(FIELDS),
            "features": total + 2 * len(FIELDS),
        },
        "baseline": {
            "valid": {"auc": 0.7833, "logloss": 0.4288},
            "test": {"auc": 0.7812, "logloss": 0.4301, "ece": 0.0074},
            "parameters": 60_000 + total * 17,
            "bytes": 4 * (60_000 + total * 17),
            "table_bytes": 4 * total * 17,
        },
        "selected": {
            "valid": {"auc": 0.7840, "logloss": 0.4281},
            "test": {"auc": 0.7819, "logloss": 0.4296, "ece": 0.0061},
            "parameters": 60_000 + kept * 17,
            "bytes": 4 * (60_000 + kept * 17),
            "table_bytes": 4 * kept * 17,
            "cross_rows": None,
        },
        "difference": {"test_auc": {"value": 0.0007, "low": -0.0011, "high": 0.0025}},
        "feature_set": {
            "kept": kept,
            "total": total,
            "ratio": kept / total,
            "fields": {name: {"kept": KEPT[name], "total": FIELDS[name]} for name in FIELDS},
            "interactions": {"memorize": None, "factorize": None, "naive": None},
        },
        "bundle": {"path": "bundle", "bytes": 412_345},
        "seconds": {
            "ingest": 1.21, "baseline": 9.8, "search": 14.2, "retrain": 61.2, "evaluate": 0.41,
            "export": None,
        },
        "train_rows_per_second": 84_512.3,
        "peak_rss_bytes": 812_345_678,
        "seed": 1,
        "backbone": "deepfm",
        "selector": "optfs",
        "embedding": "table",
        "versions": {"ctr": "0.1.0", "polars": "1.40.0", "torch": "2.8.0"},
        "curve": curve,
        "history": {
            "baseline": _history("baseline", 7, 0.61, 0.7845),
            "search": _history("search", 10, 0.60, 0.7790),
            "retrain": _history("retrain", 6, 0.63, 0.7850),
        },
        "ceiling": {"test_auc": 0.7921, "baseline_share": 0.2812 / 0.2921, "selected_share": 0.2819 / 0.2921},
        "planted": {
            "noise_values": 360, "noise_dropped": 356, "detectable_values": 812, "detectable_kept": 797,
            "noise_share": 356 / 360, "detectable_share": 797 / 812,
        },
        "gates": {
            "edges": edges,
            "kept": np.where(centres > 0, shape, 0).astype(int).tolist(),
            "dropped": np.where(centres <= 0, shape, 0).astype(int).tolist(),
        },
    }  # fmt: skip


@pytest.fixture
def report(_report):
    """A whole report as a run with a selector on a synthetic log writes it; the test may change it."""
    return copy.deepcopy(_report)


@pytest.fixture(scope="session")
def features():
    """Its feature set: Zipf counts, frequent values kept more often."""
    random = np.random.default_rng(0)
    rows = []
    for field, total in FIELDS.items():
        counts = np.maximum(1, 160_000 / (np.arange(1, total + 1) * np.log(total + 2)) ** 1.1).astype(int)
        places = np.sort(random.permutation(total)[: KEPT[field]])
        chosen = np.zeros(total, dtype=bool)
        chosen[np.unique((places * 0.75).astype(int))] = True
        rows += [(field, "unknown", None, 0, 100, 0.5, True), (field, "missing", None, 1, 0, -0.1, False)]
        for number in range(total):
            gate = float(random.uniform(0.1, 1.0) * (1 if chosen[number] else -1))
            rows.append(
                (field, "value", f"v{number}", number + 2, int(counts[number]), gate, bool(chosen[number]))
            )
    columns = {"field": pl.String, "role": pl.String, "value": pl.String, "id": pl.Int32, "count": pl.Int64}
    columns |= {"gate": pl.Float64, "kept": pl.Boolean}
    return pl.DataFrame(rows, schema=columns, orient="row")


@pytest.fixture(scope="session")
def page(_report, features, tmp_path_factory):
    """The page of the unchanged report."""
    return write_report(_report, tmp_path_factory.mktemp("page"), features=features)
