"""A small log in the containers that people hold rows in."""

import numpy as np
import polars as pl
import pytest
import torch

FAST = {"batch_size": 128, "dim": 4, "hidden": (8,), "learning_rate": 0.02, "random_state": 0, "n_jobs": 1}


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def small_log(rows: int = 1500, seed: int = 0) -> tuple[pl.DataFrame, np.ndarray]:
    """`user` (12 values) decides; `noise` (40 values), `price` and `tags` mean nothing; `same` is constant."""
    draw = np.random.default_rng(seed)
    user = draw.integers(0, 12, rows)
    clicks = (draw.random(rows) < 1 / (1 + np.exp(-2.5 * (user % 2 * 2 - 1)))).astype(int)
    frame = pl.DataFrame(
        {
            "noise": [f"n{n}" for n in draw.integers(0, 40, rows)],
            "user": [f"u{n}" if n != 11 else None for n in user],
            "same": ["k"] * rows,
            "price": draw.normal(size=rows),
            "tags": [["a", "b", "c"][:n] for n in draw.integers(0, 4, rows)],
            "hour": draw.integers(0, 24, rows),
        }
    )
    return frame, clicks


@pytest.fixture(scope="session")
def log() -> tuple[pl.DataFrame, np.ndarray]:
    """`small_log`."""
    return small_log()
