"""How fast a DeepFM trains, and in how much memory, as ratios to bounds measured in the same run."""

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np

from ctr.config import Training
from ctr.dataset.batches import Batches
from ctr.dataset.layout import Layout
from ctr.dataset.store import Dataset, FieldInfo, Part
from ctr.network.network import Network
from ctr.training.fit import fit
from pipelines.benchmarks import unified
from pipelines.benchmarks.memory import BYTES_OF_A_FEATURE, fits, in_own_process, peak_rss_bytes
from pipelines.benchmarks.steps import (
    DRAWN,
    FIELDS,
    Setting,
    Turn,
    deepfm,
    fed,
    mlp_alone,
    random_batches,
    seconds_in_turns,
    training_step,
)

_FEW_ROWS = 64  # enough for clicks and none
_STEPS_FOR_MEMORY = 4  # with two looks; the second one already has all that any later one has


def measure(setting: Setting) -> dict[str, float]:
    """Rows per second of the MLP alone, at 1 and at 10 million features, in turns; then memory; unified tables.

    Returns:
        mlp_rows_per_second, train_rows_per_second_1m and _10m, train_ratio_1m (over the MLP), train_10m_over_1m;
        peak_rss_bytes_training_1m and _10m (of processes that only train: `fit`, with looks and checkpoints),
        training_rss_over_tables_1m and _10m (bytes beyond those after imports over bytes of tables and optimizer
        state), training_rss_beyond_tables_1m and _10m (the difference of the two), training_rss_over_tables (the one
        at 10 million, where tables are most of it); unified_over_table_1m, unified_hashed_over_table_1m.
    """
    turns = {
        "mlp": mlp_alone(setting)[0],
        "1m": _turn(setting.million, setting),
        "10m": _turn(10 * setting.million, setting),
    }
    seconds = seconds_in_turns(turns, setting.steps)
    del turns  # and the networks, before the next ones
    results = {
        "mlp_rows_per_second": setting.batch / seconds["mlp"],
        "train_rows_per_second_1m": setting.batch / seconds["1m"],
        "train_rows_per_second_10m": setting.batch / seconds["10m"],
        "train_ratio_1m": seconds["mlp"] / seconds["1m"],
        "train_10m_over_1m": seconds["1m"] / seconds["10m"],
    }
    for name, features in (("1m", setting.million), ("10m", 10 * setting.million)):
        before, peak, held = in_own_process(_memory_of_training, features, setting)
        results[f"peak_rss_bytes_training_{name}"] = float(peak)
        results[f"training_rss_over_tables_{name}"] = (peak - before) / held
        results[f"training_rss_beyond_tables_{name}"] = float(max(1, peak - before - held))
    results["training_rss_over_tables"] = results["training_rss_over_tables_10m"]
    return results | unified.measure(setting)


def measure_33m(setting: Setting) -> dict[str, float]:
    """Rows per second at 33 million features over those at 1 million, in turns. Nothing where memory is short."""
    # A tenth more, for batches and what the allocator keeps.
    if not fits("training_33m", 1.1 * 34 * setting.million * BYTES_OF_A_FEATURE + 1e9):
        return {}
    turns = {"1m": _turn(setting.million, setting), "33m": _turn(33 * setting.million, setting)}
    seconds = seconds_in_turns(turns, setting.steps)
    return {
        "train_rows_per_second_33m": setting.batch / seconds["33m"],
        "train_33m_over_1m": seconds["1m"] / seconds["33m"],
    }


def _turn(features: int, setting: Setting) -> Turn:
    batches = list(random_batches(features, DRAWN, setting.batch))
    return fed(training_step(deepfm(features, setting)), batches)


def _memory_of_training(features: int, setting: Setting) -> tuple[int, int, int]:
    """Peak of this process in bytes before and after a training, and bytes of tables and optimizer state."""
    # A tiny one first: PyTorch imports parts of itself when they are needed.
    _train(deepfm(FIELDS, setting), FIELDS, _FEW_ROWS)
    before = peak_rss_bytes()
    network = deepfm(features, setting)
    _train(network, features, setting.batch)
    dense = sum(weight.numel() for weight in network.parameters()) - network.table.weight.numel()
    return before, peak_rss_bytes(), BYTES_OF_A_FEATURE * (features + 1) + 2 * 4 * dense


def _train(network: Network, features: int, batch: int) -> None:
    """A few steps with looks at valid and checkpoints, on random rows."""
    fields = [
        FieldInfo(f"f{slot}", "categorical", features // FIELDS, slot * (features // FIELDS), False)
        for slot in range(FIELDS)
    ]
    layout = Layout(
        cast("Dataset", SimpleNamespace(fields=fields, features=features, hashed=False, digest=""))
    )
    parts = []
    for steps in (_STEPS_FOR_MEMORY, 1):
        drawn = list(random_batches(features, steps, batch))
        parts.append(
            Part(
                ids=np.concatenate([inputs.ids.numpy() - 1 for inputs, _ in drawn]).astype(np.int32),
                values=None,
                lists=[],
                labels=np.concatenate([labels.numpy() for _, labels in drawn]).astype(np.uint8),
                rows=np.arange(steps * batch),
                true_probability=None,
            )
        )
    # A little of the decay, which has its own work in training.
    settings = Training(epochs=1, batch_size=batch, eval_every=2, weight_decay=0.01, device="cpu")
    train, valid = (Batches(part, layout, batch) for part in parts)
    with tempfile.TemporaryDirectory(prefix="ctr-bench-") as name:
        fit(network, train, valid, settings, folder=Path(name))
