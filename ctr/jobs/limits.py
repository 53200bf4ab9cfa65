"""What a run asks for, against what the log and the machine have; told before the run's folder is written to."""

import torch

from ctr.config import Config
from ctr.dataset.store import Dataset
from ctr.errors import ConfigError, shown_bytes
from ctr.network.crosses import table_parameters as pair_table_parameters
from ctr.network.network import Architecture, build_table, layer_floats
from ctr.training.looks import BEST_IN_MEMORY
from ctr.training.machine import free_memory
from ctr.training.optimizers import table_parameters

_FLOAT = 4  # bytes
_READ = 8  # bytes of the step at which a row was read last, which the optimizer of tables keeps
_COPIES = 8  # of the vectors that a batch reads: their gradient, duplicates merged, what Adam does with them
_LAYER_COPIES = 2  # of what layers give: it is kept for the way back, where its gradient comes
_GATE = 4 + 2 * 4 + 1  # bytes of a feature in a search: logit, evidence, rule


def require_batch(config: Config, dataset: Dataset) -> None:
    """Refuse a batch that was stated and is larger than train; by default a smaller log is one batch.

    Raises:
        ConfigError: it is.
    """
    rows, size = dataset.manifest["rows"]["train"], config.training.batch_size
    if size > rows and "batch_size" in config.training.model_fields_set:
        raise ConfigError(
            f'training.batch_size = {size}: expected at most the {rows} train rows of "{dataset.name}"; '
            "state fewer, or leave it out"
        )


def training_bytes(architecture: Architecture, gates: int = 0) -> int:
    """Bytes that the tables of a network take while it is trained; dense weights and batches come on top.

    Args:
        gates: features that have one in a search, 0 where no search follows.
    """
    with torch.device("meta"):  # shapes alone
        tables = table_parameters(build_table(architecture))
    floats, rows = sum(table.numel() for table in tables), sum(len(table) for table in tables)
    pairs = architecture.pairs
    if pairs is not None:
        floats += pair_table_parameters(pairs, 0)
        rows += pairs.cross_rows + pairs.factor_rows
    # Training keeps the weights of the best look beside the current ones, where they are small, and on disk where they
    # are not; a search does not, but has gates.
    weights = _FLOAT * floats
    best = 0 if (pairs is not None and pairs.searched) or weights > BEST_IN_MEMORY else weights
    return 3 * _FLOAT * floats + _READ * rows + max(best, _GATE * gates)


def batch_bytes(architecture: Architecture, rows: int) -> int:
    """Bytes, about, that the vectors of a batch, and what layers make of them, take at the worst moment of a step."""
    floats = architecture.fields * (architecture.width + architecture.linear)
    floats += architecture.pairs.numbers if architecture.pairs is not None else 0
    return _FLOAT * rows * (_COPIES * floats + _LAYER_COPIES * layer_floats(architecture))


def require_memory(
    config: Config,
    architecture: Architecture,
    device: torch.device,
    dataset: Dataset,
    gates: int = 0,
    index: int = 0,
) -> None:
    """Refuse what cannot be trained in the memory that is left; where that is unknown, nothing is refused.

    Args:
        architecture: of the network that is to be built.
        dataset: the encoded log.
        gates: see `training_bytes`.
        index: bytes of what finds the rows of crosses.

    Raises:
        ConfigError: memory is too small.
    """
    size = min(config.training.batch_size, dataset.manifest["rows"]["train"])
    working, free = batch_bytes(architecture, size), free_memory(device)
    needed = training_bytes(architecture, gates) + index + working
    if free is None or needed <= free:
        return
    if needed - working <= free:
        raise ConfigError(
            f"training.batch_size = {size}: training takes about {shown_bytes(needed)} of memory, "
            f"{shown_bytes(working)} of it for the vectors of a batch, found {shown_bytes(free)} free on "
            f'"{device}"; state a smaller batch, or a smaller '
            + ("embedding.dim" if architecture.pairs is None else "selector.pair_dim")
        )
    pairs, embedding = architecture.pairs, config.embedding
    budget = f'embedding.bytes = "{max(1, free // 8_000_000)}MB"'  # trained, it takes half of what is free
    if pairs is not None:
        what = f'selector.kind = "{config.selector.kind}": {pairs.cross_rows - 1:,} rows for crosses'
        advice = "state selector.cross_bytes, a larger selector.min_count or a smaller selector.pair_dim"
    elif embedding.kind == "table":
        what = f'embedding.kind = "table": rows for {dataset.features:,} features'
        advice = (
            f'use embedding.kind = "unified" with {budget}, a smaller embedding.dim, or a larger min_count'
        )
    else:
        what = f'embedding.kind = "{embedding.kind}": {architecture.rows - 1:,} rows'
        advice = f"state {budget}" + (" instead of embedding.rows" if embedding.rows is not None else "")
    raise ConfigError(
        f"{what} take about {shown_bytes(needed)} of memory in training (weights and two moments of "
        f'each, and a batch), found {shown_bytes(free)} free on "{device}"; {advice}'
    )


def memory_advice(config: Config) -> str:
    """What to lower where memory runs out on the way."""
    embedding = config.embedding
    if embedding.kind == "table":
        table = 'use embedding.kind = "unified" with embedding.bytes'
    else:
        table = f'lower embedding.bytes of embedding.kind = "{embedding.kind}"'
    return (
        f"lower training.batch_size (now {config.training.batch_size}) or embedding.dim (now {embedding.dim}), or "
        f"{table}; if something else took the memory, the same command goes on from the last checkpoint"
    )
