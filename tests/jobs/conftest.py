"""Two finished runs on a tiny log, and the raw rows that they were tested on: for jobs that read runs."""

import io
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console

import ctr.jobs.train as job
from ctr.config import Config
from ctr.settings import check

ROWS = 2400
SCHEMA = """
name = "shop"
label = "click"
[derive]
hour = "DATE_PART('hour', time)"
[read]
format = "parquet"
[split]
by = "time"
column = "time"
valid = 0.2
test = 0.4
[[fields]]
name = "tags"
kind = "list"
separator = "|"
[[fields]]
name = "user"
min_count = 4
[[fields]]
name = "hour"
[[fields]]
name = "price"
kind = "numeric"
transform = "standard"
"""


class Finished(NamedTuple):
    """folder: holds log.parquet and test.parquet. champion, candidate: run folders, by schema and time split."""

    folder: object
    champion: object
    candidate: object


def tiny_log(rows=ROWS, seed=5) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    user = draw.integers(0, 30, rows)
    tags = [sorted({"abcde"[n] for n in draw.integers(0, 5, size)}) for size in draw.integers(0, 4, rows)]
    logit = draw.normal(0, 1.3, 30)[user] + np.array([0.8 * ("a" in entry) for entry in tags]) - 0.6
    start = np.datetime64("2024-05-01T00:00:00", "us")
    return pl.DataFrame(
        {
            "time": start + np.arange(rows) * np.timedelta64(180, "s"),
            "click": (draw.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int8),
            "user": [f"u{n}" for n in user],
            "tags": ["|".join(entry) for entry in tags],
            "price": [
                None if n % 9 == 0 else round(float(p), 3) for n, p in enumerate(draw.normal(3, 2, rows))
            ],
            "shop": [f"s{n}" for n in draw.integers(0, 3, rows)],
        }
    )


def configuration(folder, name, **sections) -> Config:
    content = {
        "name": name,
        "seed": 3,
        "data": {
            "schema": str(folder / "shop.toml"),
            "input": str(folder / "log.parquet"),
            "folder": str(folder / "datasets"),
        },
        "embedding": {"dim": 4},
        "backbone": {"kind": "deepfm", "hidden": [8]},
        "selector": {"kind": "frequency", "ratio": 0.6, "referees": [], "compare_dropped_reads": False},
        "training": {"batch_size": 128, "epochs": 2, "learning_rate": 1e-2, "threads": 1},
        "tracking": {"uri": "off"},
        "output": {"folder": str(folder / "runs")},
    }
    return check(content | sections, Config, "config")


def trained(config):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "write_report", lambda report, run, **_: None)
        patch.setattr(job, "figure_png", lambda report, path: None)
        return job.train(config, console=Console(file=io.StringIO()))


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Finished:
    """A keep-all logistic regression, and a DeepFM with fewer features; read only."""
    before = torch.get_num_threads()
    folder = tmp_path_factory.mktemp("finished")
    log = tiny_log()
    log.write_parquet(folder / "log.parquet")
    (folder / "shop.toml").write_text(SCHEMA)
    champion = trained(configuration(folder, "champion", backbone={"kind": "lr"}, selector={"kind": "none"}))
    candidate = trained(configuration(folder, "candidate"))
    torch.set_num_threads(before)
    rows = pl.read_parquet(champion / "scores" / "test.parquet")["row"]
    log[rows].write_parquet(folder / "test.parquet")
    return Finished(folder, champion, candidate)
