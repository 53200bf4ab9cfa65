"""Where the time of a training step goes: shares of the operators' own time, by phase, on one thread.

    python -m pipelines.benchmarks profile

Every operator counts for the phase of the forward pass that it belongs to; those of the backward pass are found by the
sequence numbers that autograd gives to both. Time in which the process waits for the processor counts for whatever it
interrupts, so that shares hold on a busy machine, if less exactly.
"""

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from ctr.dataset.batches import Batches
from ctr.network.backbones.deepfm import DeepFM
from ctr.network.network import Network
from ctr.training.feeding import to_inputs
from ctr.training.optimizers import Optimizers, dense_parameters, table_parameters
from pipelines.benchmarks.feeding import fed_log, full_batches
from pipelines.benchmarks.steps import (
    DRAWN,
    WARM_UP,
    Moving,
    Setting,
    deepfm,
    random_batches,
    training_step,
)

FEEDING, GATHER, FM, MLP, OTHER = "feeding", "gather", "fm", "mlp", "other"
_BACKWARD = "autograd::engine::evaluate_function: "
_UPDATES = {
    "Optimizer.step#LazyAdam.step": "sparse_update",
    "Optimizer.step#SparseAdam.step": "sparse_update",
    "Optimizer.step#Adam.step": "dense_update",
}
# What a phase's operators are called where the forward and the backward pass are two phases.
_TWO_SIDED = {MLP: ("mlp_forward", "mlp_backward")}
PHASES = ("mlp_forward", "mlp_backward", "dense_update", GATHER, "sparse_update", FM, FEEDING, OTHER)


def measure(setting: Setting) -> dict[str, float]:
    """Profile steps of the DeepFM at 1 million features, each after reading a batch of as many rows of a log.

    Returns:
        profile_share_ of each phase: mlp_forward, mlp_backward, dense_update (the MLP's Adam), gather (table rows of a
        batch, and their gradient), sparse_update (of table rows), fm, feeding (reading a batch), other (first-order
        weights, loss, slices and the gradients of all these); they add up to 1. profile_sparse_adam_share_ likewise,
        with PyTorch's own SparseAdam for the table, and profile_sparse_adam_over_ours, the time of its step over ours.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory(prefix="ctr-bench-") as name:
            batches = fed_log(Path(name), setting)[1]
            ours, theirs = _profiled(_optimizers, batches, setting), _profiled(_Plain, batches, setting)
    finally:
        torch.set_num_threads(threads)
    all_of_ours, all_of_theirs = sum(ours.values()), sum(theirs.values())
    return {
        **{f"profile_share_{phase}": ours[phase] / all_of_ours for phase in PHASES},
        **{f"profile_sparse_adam_share_{phase}": theirs[phase] / all_of_theirs for phase in PHASES},
        "profile_sparse_adam_over_ours": all_of_theirs / all_of_ours,
    }


class _Plain:
    """PyTorch's own optimizers: SparseAdam for tables, Adam for dense weights."""

    def __init__(self, network: Network) -> None:
        tables = table_parameters(network)
        self._each = [
            torch.optim.SparseAdam(tables, 1e-3),
            torch.optim.Adam(dense_parameters(network, tables), 1e-3),
        ]

    def step(self) -> None:
        """Move all weights."""
        for optimizer in self._each:
            optimizer.step()


def _optimizers(network: Network) -> Optimizers:
    return Optimizers(network, 1e-3, 0.0, 0.0)


def _profiled(moving: Callable[[Network], Moving], fed: Batches, setting: Setting) -> dict[str, float]:
    """Microseconds of each phase."""
    network = deepfm(setting.million, setting)
    step = training_step(network, optimizers=moving(network))
    batches = list(random_batches(setting.million, DRAWN, setting.batch))
    stream = full_batches(fed)

    def rounds(numbers: Iterable[int]) -> None:
        for number in numbers:
            with record_function(FEEDING):
                to_inputs(next(stream), network.device)
            step(*batches[number % DRAWN])

    with named(network):
        rounds(range(WARM_UP))
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            rounds(range(WARM_UP, WARM_UP + setting.steps))
    return by_phase(profiler.events() or [])


@contextmanager
def named(network: Network) -> Iterator[None]:
    """Names in the profile for the modules whose operators are a phase of the forward pass."""
    assert isinstance(network.backbone, DeepFM)
    modules = {GATHER: network.table, FM: network.backbone, MLP: network.backbone.mlp}
    hooks = [hook for name, module in modules.items() for hook in _name(name, module)]
    yield
    for hook in hooks:
        hook.remove()


def _name(name: str, module: nn.Module) -> list[torch.utils.hooks.RemovableHandle]:
    open_spans: list[record_function] = []

    def enter(*_: object) -> None:
        open_spans.append(record_function(name))
        open_spans[-1].__enter__()  # type: ignore[no-untyped-call]

    def leave(*_: object) -> None:
        open_spans.pop().__exit__(None, None, None)

    return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]


def by_phase(events: Iterable[torch.autograd.profiler_util.FunctionEvent]) -> dict[str, float]:
    """Microseconds of own time of all operators, by phase."""
    spent, phase_of = defaultdict[str, float](float), dict[int, str]()

    def add(event: torch.autograd.profiler_util.FunctionEvent, phase: str, side: int) -> None:
        if event.name in (FEEDING, GATHER, FM, MLP):
            phase = event.name
        if side == 0 and event.sequence_nr >= 0:
            phase_of[event.sequence_nr] = phase
        spent[_TWO_SIDED[phase][side] if phase in _TWO_SIDED else phase] += event.self_cpu_time_total
        for child in event.cpu_children:
            add(child, phase, side)

    roots = [event for event in events if event.cpu_parent is None]
    for event in sorted(roots, key=lambda event: event.time_range.start):
        if event.name.startswith(_BACKWARD):
            add(event, phase_of.get(event.sequence_nr, OTHER), 1)
        else:
            add(event, _UPDATES.get(event.name, OTHER), 0)
    return spent
