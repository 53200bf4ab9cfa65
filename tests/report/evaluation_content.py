"""What an evaluation of two models on a log with time, slices and bounds writes as evaluation.json."""

import math


def _interval(value, half):
    return {"value": value, "low": value - half, "high": value + half}


def _model(name, auc, half=0.004):
    return {
        "name": name,
        "auc": _interval(auc, half),
        "logloss": 0.98 - auc * 0.7,
        "normalised_entropy": 1.6 - auc,
        "ece": 0.012,
        "calibration_ratio": 1.04,
        "gauc": auc - 0.02,
        "intervals": {
            name: {"low": 0.3, "high": 1.1}
            for name in ("logloss", "normalised_entropy", "calibration_ratio", "gauc")
        },
        "rows": 60_000,
    }


def _difference(name, baseline, value, half=0.002):
    whole = {metric: _interval(value, half) for metric in ("auc", "logloss", "normalised_entropy", "gauc")}
    return {
        "name": name,
        "baseline": baseline,
        **whole,
        "ece": {"value": 0.001, "low": None, "high": None},
        "calibration_ratio": _interval(0.01, 0.03),
    }


def _part(field, value, rows, shift, names):
    return {
        "field": field,
        "value": value,
        "rows": rows,
        "positives": rows // 5,
        "models": [_model(name, 0.76 + 0.01 * place + shift, 0.012) for place, name in enumerate(names)],
        "differences": [
            _difference(name, names[0], 0.01 * place + shift, 0.006)
            for place, name in enumerate(names)
            if place
        ],
    }


def _whole(name, auc):
    bins = [0.01 * 1.25**number for number in range(20)]
    return _model(name, auc) | {
        "auc_error": 0.0,
        "at_serving": None,
        "reliability": [
            {"promised": p, "observed": 0.9 * p**1.05, "low": 0.8 * p, "high": 1.1 * p, "mass": 3000.0}
            for p in bins
        ],
        "unseen": {
            "user": {"values": 60_000, "unseen": 12_000, "share": 0.2, "missing": 12},
            "device": {"values": 60_000, "unseen": 3, "share": 5e-5, "missing": 0},
        },
        "overlap": {"rows": 0, "window": ["2024-05-01T00:00:00+00:00", "2024-05-08T23:59:59+00:00"]},
        "bundle": {
            "given": f"runs/{name}",
            "path": f"runs/{name}/bundle",
            "trained_on": ["train"],
            "window": ["2024-05-01T00:00:00+00:00", "2024-05-08T23:59:59+00:00"],
        },
    }


def evaluation(names=("champion", "candidate")) -> dict:
    """Of some models; the first is the baseline."""
    names = list(names)
    guardrail = {
        "metric": "auc",
        "bound": "min",
        "limit": 0.7,
        "judged_by": "value",
        "slice": None,
        "value": None,
    }
    guardrail |= {
        "model": names[-1],
        "rows": 60_000,
        "found": 0.771,
        "low": 0.767,
        "high": 0.775,
        "why": None,
    }
    devices = [
        ("phone", 41_000, 0.0),
        ("tablet", 12_000, 0.002),
        ("a television with a very long name", 7_000, -0.004),
    ]
    return {
        "log": {
            "inputs": ["log-9.parquet"],
            "files": [{"input": "log-9.parquet", "name": "log-9.parquet", "first_row": 0}],
            "digest": "0123456789abcdef0123456789abcdef0123",
            "rows_read": 60_020,
            "filtered": 0,
            "set_aside": 20,
            "rows": 60_000,
            "positives": 12_000,
            "weighted": False,
            "negative_keep_rate": None,
            "time": {"column": "time", "unit": "times in UTC", "first": "2024-05-09", "last": "2024-05-18"},
        },
        "rows": 60_000,
        "positives": 12_000,
        "models": [_whole(name, 0.761 + 0.01 * place) for place, name in enumerate(names)],
        "differences": [
            _difference(name, names[0], 0.01 * place) for place, name in enumerate(names) if place
        ],
        "slices": [_part("device", value, rows, shift, names) for value, rows, shift in devices],
        "days": [
            _part("day", f"2024-05-{9 + day:02}", 6000, 0.004 * math.cos(day), names) for day in range(10)
        ],
        "method": {"auc": "exact", "intervals": "rows", "group_by": "user"},
        "warnings": ["20 rows break a model's schema and are left out for all models"],
        "guardrails": [guardrail | {"kept": True}],
        "command": "ctr evaluate runs/champion runs/candidate --data log-9.parquet --out evaluation",
        "versions": {"ctr": "0.1.0"},
    }
