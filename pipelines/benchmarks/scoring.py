"""How fast batches of encoded rows are scored, by PyTorch and by a bundle's graph, beside the same MLP alone."""

import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ctr.network.network import Architecture, Network
from ctr.serving.network_files import write_network
from ctr.serving.rows import EncodedRows
from ctr.serving.session import Session
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


def measure(setting: Setting) -> dict[str, float]:
    """In turns, at 1 million features: rows per second, and the ratio of them to the MLP's.

    score_rows_per_second_1m, score_ratio: PyTorch. served_rows_per_second_1m, served_ratio: ONNX Runtime, from the ids
    to probabilities, with as many threads as PyTorch has.
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
    return found


def _served(network: Network, setting: Setting, batches: list[LabelledInputs]) -> Turn:
    """Turns of the same network as a bundle holds it."""
    architecture = Architecture(
        rows=setting.million + 1, fields=FIELDS, dim=DIM, backbone="deepfm", hidden=setting.hidden
    )
    rows = [_encoded(inputs.ids.numpy()) for inputs, _ in batches]
    with tempfile.TemporaryDirectory() as folder:
        entry, tensors = write_network(
            Path(folder), network, architecture, rows[0], dtype="float32", keep_rate=1.0
        )
        session = Session(Path(folder), tensors, asdict(architecture), entry.inputs)
    return lambda number: session(rows[number % len(rows)])


def _encoded(ids: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> EncodedRows:
    none = np.zeros(0, np.int64)
    return EncodedRows(ids, None, none, none, np.zeros((len(ids), 0), np.float32), None)
