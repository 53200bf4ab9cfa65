"""How fast rows are scored, from ids by PyTorch and by a bundle's graph, and from a file, beside the same MLP alone."""

import math
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

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

ROUNDS = 3  # of processes
FILES_SCORED = 3  # times, beside two that warm up


def measure(setting: Setting) -> dict[str, float]:
    """In turns, at 1 million features: rows per second, and the ratio of them to the MLP's.

    score_rows_per_second_1m, score_ratio: PyTorch. served_rows_per_second_1m, served_ratio: ONNX Runtime, from the ids
    to probabilities, with as many threads as PyTorch has; the two sides in processes of their own, as a server has no
    PyTorch, whose idle threads keep a core busy for a while after each step. scored_file_rows_per_second,
    scored_file_ratio: `score_file`, from a parquet file of raw rows to one of probabilities, loading of the bundle
    included.
    """
    batches = list(random_batches(setting.million, DRAWN, setting.batch))
    network = deepfm(setting.million, setting).eval()
    seconds = seconds_in_turns(
        {"mlp": mlp_alone(setting)[1], "score": forward_turn(network, batches)}, setting.steps
    )
    alone, served = _apart(setting)
    found = {
        "score_rows_per_second_1m": setting.batch / seconds["score"],
        "score_ratio": seconds["mlp"] / seconds["score"],
        "served_rows_per_second_1m": setting.batch / served,
        "served_ratio": alone / served,
    }
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


def _apart(setting: Setting) -> list[float]:
    """Median seconds of a batch by the MLP alone, and by the graph of a bundle, in processes that take turns."""
    parts = (_mlp_seconds, _served_seconds)
    rounds = [
        [in_own_process(part, setting, torch.get_num_threads()) for part in parts] for _ in range(ROUNDS)
    ]
    return [float(np.median(seconds)) for seconds in zip(*rounds, strict=True)]


def _mlp_seconds(setting: Setting, threads: int) -> float:
    torch.set_num_threads(threads)
    return seconds_in_turns({"mlp": mlp_alone(setting)[1]}, setting.steps)["mlp"]


def _served_seconds(setting: Setting, threads: int) -> float:
    torch.set_num_threads(threads)
    batches = list(random_batches(setting.million, DRAWN, setting.batch))
    turn = _served(deepfm(setting.million, setting).eval(), setting, batches, threads)
    return seconds_in_turns({"served": turn}, setting.steps)["served"]


def _served(network: Network, setting: Setting, batches: list[LabelledInputs], threads: int) -> Turn:
    """Turns of a network as a bundle holds it."""
    architecture = Architecture(
        rows=setting.million + 1, fields=FIELDS, dim=DIM, backbone="deepfm", hidden=setting.hidden
    )
    rows = [encoded_ids(inputs.ids.numpy()) for inputs, _ in batches]
    with tempfile.TemporaryDirectory() as folder:
        entry, tensors = write_network(
            Path(folder), network, architecture, rows[0], dtype="float32", keep_rate=1.0
        )
        session = Session(Path(folder), tensors, asdict(architecture), entry.inputs, threads=threads)
    return lambda number: session(rows[number % len(rows)])


def encoded_ids(ids: npt.NDArray[np.int64]) -> EncodedRows:
    """Rows of ids (B, F) alone, as a bundle's network reads them."""
    none = np.zeros(0, np.int64)
    return EncodedRows(ids, None, none, none, np.zeros((len(ids), 0), np.float32), None)
