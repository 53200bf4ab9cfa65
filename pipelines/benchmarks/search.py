"""What a step of the OptFS search costs, against a plain step of the same network."""

import tempfile
from pathlib import Path

import torch

from ctr.network.gates import SoftGate
from ctr.selection.evidence import EvidenceGates, Schedule
from pipelines.benchmarks.memory import BYTES_OF_A_FEATURE, fits
from pipelines.benchmarks.steps import (
    DRAWN,
    Setting,
    deepfm,
    fed,
    random_batches,
    seconds_in_turns,
    training_step,
)

_SCHEDULE = Schedule(1000, 333, 200.0)


def measure(setting: Setting) -> dict[str, float]:
    """Seconds of a search step over those of a plain one, at 1 million features: search_over_plain_1m."""
    return {"search_over_plain_1m": _search_over_plain(setting.million, setting)}


def measure_10m(setting: Setting) -> dict[str, float]:
    """The same at 10 million: search_over_plain_10m. Nothing where memory is short."""
    features = 10 * setting.million
    # Two networks, and what gates keep of each feature.
    if not fits("search_10m", 1.1 * features * (2 * BYTES_OF_A_FEATURE + 24) + 1e9):
        return {}
    return {"search_over_plain_10m": _search_over_plain(features, setting)}


def _search_over_plain(features: int, setting: Setting) -> float:
    batches = list(random_batches(features, DRAWN, setting.batch))
    plain, searched = deepfm(features, setting), deepfm(features, setting)
    searched.gate = SoftGate(features + 1)
    with tempfile.TemporaryDirectory(prefix="ctr-bench-") as folder:
        gates = EvidenceGates(
            searched,
            _SCHEDULE,
            price=2.5,
            values=torch.ones(features, dtype=torch.bool),
            rate=1.0,
            rewind_epoch=0,
            folder=Path(folder),
        )
        turns = {
            "plain": fed(training_step(plain), batches),
            "search": fed(training_step(searched, gates), batches),
        }
        seconds = seconds_in_turns(turns, setting.steps)
    return seconds["search"] / seconds["plain"]
