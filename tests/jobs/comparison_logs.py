"""A tiny click log, and comparisons on it."""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ctr.jobs import cell_pool as pool
from ctr.jobs.comparison_config import Comparison
from ctr.settings import check

ROWS = 1600
SCHEMA = """
name = "tiny"
label = "click"
[split]
by = "time"
column = "time"
valid = 0.2
test = 0.2
[[fields]]
name = "user"
cost = 2.0
group = "people"
[[fields]]
name = "noise"
cost = 1.0
group = "things"
[[fields]]
name = "tags"
kind = "list"
separator = "|"
"""


def write_log(folder: Path) -> Path:
    """tiny.csv and tiny.toml: half of the users click more, one tag does, noise tells nothing."""
    draw = np.random.default_rng(5)
    user, noise = draw.integers(0, 30, ROWS), draw.integers(0, 40, ROWS)
    tags = [sorted({"abcde"[n] for n in draw.integers(0, 5, size)}) for size in draw.integers(0, 4, ROWS)]
    logit = np.where(user % 2, 1.0, -1.4) + np.array([0.8 * ("a" in entry) for entry in tags])
    pl.DataFrame(
        {
            "time": np.arange(ROWS),
            "click": (draw.random(ROWS) < 1 / (1 + np.exp(-logit))).astype(int),
            "user": [f"u{n}" for n in user],
            "noise": [f"n{n}" for n in noise],
            "tags": ["|".join(entry) for entry in tags],
        }
    ).write_csv(folder / "tiny.csv")
    (folder / "tiny.toml").write_text(SCHEMA)
    return folder


@contextmanager
def broken_off(monkeypatch, after: int):
    """Within it a comparison is broken off when so many cells are trained."""
    trained, train_cell = [], pool.train_cell

    def breaking(cell, *others):
        if len(trained) == after:
            raise KeyboardInterrupt
        trained.append(cell)
        return train_cell(cell, *others)

    with monkeypatch.context() as patch:
        patch.setattr(pool, "train_cell", breaking)
        with pytest.raises(KeyboardInterrupt):
            yield


def content(log: Path, runs: Path, **sections):
    """A comparison as a TOML file would hold it; sections by keyword."""
    found = {
        "name": "tiny",
        "run": {
            "name": "tiny",
            "data": {
                "schema": str(log / "tiny.toml"),
                "input": str(log / "tiny.csv"),
                "folder": str(log / "datasets"),
            },
            "embedding": {"dim": 4},
            "backbone": {"kind": "deepfm", "hidden": [8]},
            "selector": {"epochs": 1},
            "training": {"batch_size": 128, "epochs": 1, "learning_rate": 1e-2},
            "tracking": {"uri": "off"},
            "output": {"folder": str(runs)},
        },
        "grid": {"selectors": ["optfs", "frequency"], "sizes": [0.5, 0.2], "seeds": [0, 1, 2]},
        "compare": {"alternatives": ["min_count"], "jobs": 1},
    }
    for name, section in sections.items():
        found[name] = {**found[name], **section} if isinstance(section, dict) else section
    return found


def comparison(log: Path, runs: Path, **sections) -> Comparison:
    return check(content(log, runs, **sections), Comparison, "comparison")
