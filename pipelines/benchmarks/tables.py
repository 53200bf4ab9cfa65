"""What reading and updating an embedding table costs: ours beside PyTorch's own sparse optimizer and FBGEMM's table.

FBGEMM (https://github.com/pytorch/FBGEMM, `fbgemm-gpu-cpu`, measured with 1.8.0, which goes with PyTorch 2.13) is no
dependency; where it cannot be imported it is left out. Its CPU table has no Adam: it is measured with row-wise Adagrad,
which keeps one number for each row where Adam keeps two vectors, so its updates move half of the memory.
"""

import importlib.util
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ctr.network.embeddings import Table
from ctr.training.optimizers import LazyAdam
from pipelines.benchmarks.memory import fits
from pipelines.benchmarks.steps import DIM, DRAWN, FIELDS, Setting, Turn, random_batches, seconds_in_turns

# Of a feature in all three: weights, two vectors of moments in two of them, and the step at which ours was read.
_BYTES_OF_A_FEATURE = 4 * DIM * (3 + 3 + 1) + 4 + 8


def importable() -> bool:
    """Whether FBGEMM is there."""
    return importlib.util.find_spec("fbgemm_gpu") is not None


def measure(setting: Setting) -> dict[str, float]:
    """Steps of a table alone, in turns: look up a batch's rows, take their gradient, update them.

    Returns:
        tables_distinct_1m and _10m (rows that a batch reads, on average), table_steps_per_second_1m and _10m (ours),
        sparse_adam_over_table_1m and _10m (time of PyTorch's SparseAdam over ours), and where it is installed
        fbgemm_over_table_1m and _10m.
    """
    results = _beside(setting.million, "1m", setting)
    if fits("tables at 10 million features", 1.1 * 10 * setting.million * _BYTES_OF_A_FEATURE + 1e9):
        results |= _beside(10 * setting.million, "10m", setting)
    return results


def _beside(features: int, name: str, setting: Setting) -> dict[str, float]:
    batches = [inputs.ids for inputs, _ in random_batches(features, DRAWN, setting.batch)]
    turns = {"ours": _lazy_adam(features, batches), "sparse_adam": _sparse_adam(features, batches)}
    if importable():
        turns["fbgemm"] = _fbgemm(features, batches)
    seconds = seconds_in_turns(turns, setting.steps)
    ours = seconds.pop("ours")
    return {
        f"tables_distinct_{name}": float(np.mean([len(np.unique(ids.numpy())) for ids in batches])),
        f"table_steps_per_second_{name}": 1.0 / ours,
        **{f"{other}_over_table_{name}": value / ours for other, value in seconds.items()},
    }


def _lazy_adam(features: int, batches: list[Tensor]) -> Turn:
    table = Table(features + 1, DIM)
    return _turn(table, LazyAdam([table.weight]), batches)


def _sparse_adam(features: int, batches: list[Tensor]) -> Turn:
    table = nn.Embedding(features + 1, DIM, padding_idx=0, sparse=True)
    return _turn(table, torch.optim.SparseAdam([table.weight]), batches)


def _turn(table: nn.Module, optimizer: torch.optim.Optimizer, batches: list[Tensor]) -> Turn:
    gradient = _gradient(batches)

    def turn(number: int) -> None:
        optimizer.zero_grad()
        table(batches[number % len(batches)]).backward(gradient)
        optimizer.step()

    return turn


def _fbgemm(features: int, batches: list[Tensor]) -> Turn:
    table, by_field, bags = fbgemm_table(features, batches)
    gradient = _gradient(batches).flatten(1)  # (B, F * D)
    return lambda number: table(by_field[number % len(by_field)], bags).backward(gradient)


def fbgemm_table(features: int, batches: list[Tensor]) -> tuple[Any, list[Tensor], Tensor]:
    """FBGEMM's table, which updates itself in the backward pass, and what it reads, where each id is a bag of one.

    Returns:
        The table, from ids field by field (F * B,) and where bags start (F * B + 1,) to vectors (B, F * D); the ids of
        each batch; where bags start.
    """
    from fbgemm_gpu.split_embedding_configs import EmbOptimType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
        ComputeDevice,
        SplitTableBatchedEmbeddingBagsCodegen,
    )

    table = SplitTableBatchedEmbeddingBagsCodegen(
        [(features + 1, DIM, EmbeddingLocation.HOST, ComputeDevice.CPU)],
        feature_table_map=[0] * FIELDS,
        optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        learning_rate=1e-3,
    )
    nn.init.normal_(table.split_embedding_weights()[0], std=0.01)
    by_field = [ids.t().flatten() for ids in batches]
    return table, by_field, torch.arange(len(by_field[0]) + 1)


def _gradient(batches: list[Tensor]) -> Tensor:
    """A ready-made gradient of the vectors of a batch, (B, F, D)."""
    return torch.randn(*batches[0].shape, DIM, generator=torch.Generator().manual_seed(0))
