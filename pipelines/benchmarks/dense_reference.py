"""Whether what makes training fast costs quality: lazy Adam beside PyTorch's dense AdamW, bf16 beside float32.

    python -m pipelines.benchmarks.dense_reference [--logs ml100k adkdd criteo28k demo] [--seeds 3] [--epochs 6]

All train the network of the log's configuration, keep-all, from the same weights on the same batches. The dense
optimizer gets the whole gradient of each table, zeros included, so that moments of unread rows decay and move them on.
In bf16 products are rounded as `training.precision` has it, with lazy Adam.
AUC is that of the best epoch on valid; test is not read. The log of `demo` is there once `make demo` has run.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn import functional as F

from ctr.config import Config, load_config
from ctr.dataset.batches import Batches
from ctr.dataset.ingest import ingest
from ctr.dataset.schema import load_schema
from ctr.dataset.store import Dataset
from ctr.evaluation.metrics import measure
from ctr.jobs.networks import Networks
from ctr.network.network import Network
from ctr.training.feeding import to_inputs
from ctr.training.machine import rounding
from ctr.training.optimizers import Optimizers, dense_parameters, table_parameters
from ctr.training.predict import predict
from pipelines.benchmarks.quality import CONFIGS, LOGS, splits
from pipelines.benchmarks.spreads import mean_and_spread, paired_gain

OUTPUT = Path("runs/dense_reference")


class DenseAdam:
    """AdamW on whole tables, Adam with L2 on the rest: what `Optimizers` does without touching what is not read."""

    def __init__(
        self, network: Network, rate: float, weight_decay: float, network_weight_decay: float
    ) -> None:
        self._tables = table_parameters(network)
        dense = dense_parameters(network, self._tables)
        self._each = [
            torch.optim.AdamW(self._tables, rate, weight_decay=weight_decay),
            torch.optim.Adam(dense, rate, weight_decay=network_weight_decay),
        ]

    def step(self) -> None:
        """Move everything."""
        for table in self._tables:
            assert table.grad is not None
            table.grad = table.grad.to_dense()
        for optimizer in self._each:
            optimizer.step()

    def settle(self) -> None:
        """Nothing is owed."""


class Way(NamedTuple):
    """How a network is trained."""

    optimizer: type[Optimizers] | type[DenseAdam] = Optimizers
    precision: str = "float32"


WAYS = {"lazy": Way(), "dense": Way(optimizer=DenseAdam), "bf16": Way(precision="bf16")}


def best_valid_auc(config: Config, dataset: Dataset, way: Way, epochs: int) -> float:
    """AUC on valid of the best of so many epochs."""
    networks = Networks(config, dataset, torch.device("cpu"))
    settings, network, layout = config.training, networks.fresh(), networks.everything
    train = Batches(dataset.part("train"), layout, settings.batch_size, config.seed)
    valid = Batches(dataset.part("valid"), layout, 8192)
    optimizer = way.optimizer(
        network, settings.learning_rate, settings.weight_decay, settings.network_weight_decay
    )
    torch.manual_seed(config.seed)
    best = 0.0
    for epoch in range(epochs):
        network.train()
        for batch in train.epoch(epoch):
            for parameter in network.parameters():
                parameter.grad = None
            with rounding(way.precision, network.device):
                logits = network(to_inputs(batch, network.device))
            F.binary_cross_entropy_with_logits(logits.float(), torch.from_numpy(batch.labels)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        optimizer.settle()
        best = max(best, measure(valid.part.labels, predict(network, valid)).auc)
    return best


def main() -> None:
    """Print a line for each log."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--logs", nargs="+", choices=(*LOGS, "demo"), default=[*LOGS, "demo"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    arguments = parser.parse_args()
    print(
        "AUC on valid (deviation over seeds): lazy, dense, bf16; seed by seed: lazy less dense, bf16 less lazy"
    )
    for log in arguments.logs:
        found = defaultdict[str, list[float]](list)
        for seed, schema in splits(log, arguments.seeds, OUTPUT):
            config = load_config(CONFIGS / f"{log}.toml", [f"seed={seed}"])
            dataset = Dataset(ingest(load_schema(schema), config.data.input, Path(config.data.folder)))
            for name, way in WAYS.items():
                found[name].append(best_valid_auc(config, dataset, way, arguments.epochs))
        means = "  ".join(mean_and_spread(found[name]) for name in WAYS)
        gains = "  ".join(paired_gain(found[a], found[b]) for a, b in (("lazy", "dense"), ("bf16", "lazy")))
        print(f"  {log:<10} {means}  {gains}", flush=True)


if __name__ == "__main__":
    main()
