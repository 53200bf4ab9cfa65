"""How fast batches are read from an encoded Criteo-shaped log, beside training on them."""

import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import torch

from ctr.dataset.batches import Batches
from ctr.dataset.ingest import ingest
from ctr.dataset.layout import Batch, Layout
from ctr.dataset.schema import load_schema
from ctr.dataset.store import Dataset
from ctr.dataset.synthetic import write_log
from ctr.training.feeding import to_inputs
from pipelines.benchmarks.steps import Setting, deepfm, seconds_in_turns, training_step


def measure(setting: Setting) -> dict[str, float]:
    """Write a synthetic log to a temporary folder, ingest it, read its train rows shuffled.

    Returns:
        feeding_rows_per_second (over one whole epoch), feeding_over_training (rows per second of reading a batch
        over those of a DeepFM step on that batch, in turns).
    """
    with tempfile.TemporaryDirectory(prefix="ctr-bench-") as name:
        dataset, batches = fed_log(Path(name), setting)
        started = time.perf_counter()
        rows = sum(len(batch) for batch in batches.epoch())
        whole = time.perf_counter() - started
        seconds = _reading_and_training(batches, dataset, setting)
    return {
        "feeding_rows_per_second": rows / whole,
        "feeding_over_training": seconds["train"] / seconds["read"],
    }


def fed_log(folder: Path, setting: Setting) -> tuple[Dataset, Batches]:
    """A synthetic log of Criteo's shape in `folder`, encoded, and the shuffled batches of its train rows."""
    write_log("criteo", folder / "log", rows=setting.rows_fed)
    schema = load_schema(folder / "log" / "schema.toml")
    dataset = Dataset(ingest(schema, folder / "log" / "log.parquet", folder / "datasets"))
    return dataset, Batches(dataset.part("train"), Layout(dataset), setting.batch, seed=0)


def _reading_and_training(batches: Batches, dataset: Dataset, setting: Setting) -> dict[str, float]:
    network = deepfm(dataset.features, setting, len(dataset.fields))
    step = training_step(network)
    stream = full_batches(batches)
    latest: list[Batch] = []

    def read(number: int) -> None:
        latest[:] = [next(stream)]

    def train(number: int) -> None:
        (batch,) = latest
        step(to_inputs(batch, network.device), torch.from_numpy(batch.labels))

    return seconds_in_turns({"read": read, "train": train}, setting.steps)


def full_batches(batches: Batches) -> Iterator[Batch]:
    """Epoch after epoch, without the smaller last batch of each."""
    for epoch in count():
        yield from (batch for batch in batches.epoch(epoch) if len(batch) == batches.batch_size)
