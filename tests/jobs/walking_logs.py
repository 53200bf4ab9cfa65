"""Small logs with time, on which a feature set ages, or does not, and comparisons that walk forward on them."""

from pathlib import Path

import numpy as np
import polars as pl

from ctr.jobs.comparison_config import Comparison
from ctr.settings import check

ROWS = 6000
ALIVE = 24  # ads at a time
SCHEMA = """
name = "walking"
label = "click"
[split]
by = "time"
column = "time"
valid = 0.1
test = 0.1
[[fields]]
name = "ad"
min_count = 5
[[fields]]
name = "site"
[[fields]]
name = "noise"
[[fields]]
name = "tags"
kind = "list"
separator = "|"
"""


def write_log(folder: Path, *, drift: bool) -> Path:
    """log.csv and schema.toml: half of the ads are clicked more; with drift, one of them is replaced every 125 rows."""
    draw = np.random.default_rng(3)
    time = np.arange(ROWS)
    ad = draw.integers(0, ALIVE, ROWS) + (time // 125 if drift else 0)
    site, noise = draw.integers(0, 10, ROWS), draw.integers(0, 30, ROWS)
    logit = np.where(ad % 2, 1.2, -1.6) + np.where(site % 2, 0.3, -0.3)
    pl.DataFrame(
        {
            "time": time,
            "click": (draw.random(ROWS) < 1 / (1 + np.exp(-logit))).astype(int),
            "ad": [f"a{number}" for number in ad],
            "site": [f"s{number}" for number in site],
            "noise": [f"n{number}" for number in noise],
            "tags": [["x", "x|y", ""][number] for number in draw.integers(0, 3, ROWS)],
        }
    ).write_csv(folder / "log.csv")
    (folder / "schema.toml").write_text(SCHEMA)
    return folder


def walking(log: Path, runs: Path, **sections) -> Comparison:
    """A comparison of the most frequent values that walks forward; sections by keyword."""
    content = {
        "name": "walking",
        "run": {
            "name": "walking",
            "data": {
                "schema": str(log / "schema.toml"),
                "input": str(log / "log.csv"),
                "folder": str(log / "datasets"),
            },
            "embedding": {"dim": 4},
            "backbone": {"kind": "lr"},
            "training": {"batch_size": 128, "epochs": 2, "learning_rate": 3e-2, "eval_every": 1000},
            "tracking": {"uri": "off"},
            "output": {"folder": str(runs)},
        },
        "grid": {"selectors": ["frequency"], "sizes": [0.7], "seeds": [0, 1]},
        "compare": {"alternatives": [], "jobs": 1},
        "walk_forward": {"start": 0.5, "step": 0.125, "windows": 3},
    }
    for name, section in sections.items():
        content[name] = {**content[name], **section}
    return check(content, Comparison, "comparison")
