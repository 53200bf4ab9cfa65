"""How fast rows are scored, from ids by PyTorch and by a bundle's graph, and from a file, beside the same MLP alone."""

import math
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ctr.network.network import Architecture, Network
from ctr.serving.network_files import write_network
from ctr.serving.rows import EncodedRows
from ctr.serving.scorer import score_file
from ctr.serving.session import Session
from pipelines.benchmarks.memory import in_own_process
from pipelines.benchmarks.served_bundles import exported
from pipelines.benchmarks.steps import (
    DIM,
    DRAWN,
    FIELDS,
    LabelledInputs,
    Setting,
    Turn,
    deepfm,
    forward_turn,
    mlp_alone,
    random_batches,
    seconds_in_turns,
)

FILES_SCORED = 3  # times, beside two that warm up


def measure(setting: Setting) -> dict[str, float]:
    """In turns, at 1 million features: rows per second, and the ratio of them to the MLP's.

    score_rows_per_second_1m, score_ratio: PyTorch. served_rows_per_second_1m, served_ratio: ONNX Runtime, from the ids
    to probabilities, with as many threads as PyTorch has. scored_file_rows_per_second, scored_file_ratio: `score_file`,
    from a parquet file of raw rows to one of probabilities, loading of the bundle included.
    """
    batches = list(random_batches(setting.million, DRAWN, setting.batch))
    network = deepfm(setting.million, setting).eval()
    turns = {
        "mlp": mlp_alone(setting)[1],
        "score": forward_turn(network, batches),
        "served": _served(network, setting, batches),
    }
    seconds = seconds_in_turns(turns, setting.steps)
    found = {}
    for name in ("score", "served"):
        found[f"{name}_rows_per_second_1m"] = setting.batch / seconds[name]
        found[f"{name}_ratio"] = seconds["mlp"] / seconds[name]
    with tempfile.TemporaryDirectory(prefix="ctr-bench-") as name:
        folder = Path(name)
        in_own_process(exported, folder, setting.rows_served, setting.hidden)
        return found | in_own_process(_scored_file, folder, setting)


def _scored_file(folder: Path, setting: Setting) -> dict[str, float]:
    """A file and as many rows of the MLP alone, in turns."""
    source, out = folder / "log" / "log.parquet", folder / "probabilities.parquet"
    _, forward = mlp_alone(setting)
    batches = setting.rows_served / setting.batch
    turns: dict[str, Turn] = {
        "mlp": lambda number: [forward(number) for _ in range(math.ceil(batches))],
        "file": lambda number: score_file(folder / "keep_all", source, out),
    }
    seconds = seconds_in_turns(turns, FILES_SCORED)
    return {
        "scored_file_rows_per_second": setting.rows_served / seconds["file"],
        "scored_file_ratio": seconds["mlp"] * batches / math.ceil(batches) / seconds["file"],
    }


def _served(network: Network, setting: Setting, batches: list[LabelledInputs]) -> Turn:
    """Turns of the same network as a bundle holds it."""
    architecture = Architecture(
        rows=setting.million + 1, fields=FIELDS, dim=DIM, backbone="deepfm", hidden=setting.hidden
    )
    rows = [encoded_ids(inputs.ids.numpy()) for inputs, _ in batches]
    with tempfile.TemporaryDirectory() as folder:
        entry, tensors = write_network(
            Path(folder), network, architecture, rows[0], dtype="float32", keep_rate=1.0
        )
        session = Session(Path(folder), tensors, asdict(architecture), entry.inputs)
    return lambda number: session(rows[number % len(rows)])


def encoded_ids(ids: npt.NDArray[np.int64]) -> EncodedRows:
    """Rows of ids (B, F) alone, as a bundle's network reads them."""
    none = np.zeros(0, np.int64)
    return EncodedRows(ids, None, none, none, np.zeros((len(ids), 0), np.float32), None)
