"""What a step of a pair search costs, against a DeepFM step on the same rows with the same MLP."""

import time

import numpy as np
import torch
from torch.nn import functional as F

from ctr.dataset.crosses import CrossKeys, counted_crosses, feature_words
from ctr.network.crosses import CrossIndex, PairLayout
from ctr.network.embeddings import Inputs
from ctr.network.network import Architecture, Network, build
from ctr.selection.optinter import searched_dim
from ctr.selection.pair_evidence import DrawnPaths
from ctr.selection.pair_space import cross_index
from ctr.training.optimizers import Optimizers
from pipelines.benchmarks.steps import DIM, FIELDS, HIDDEN, Step, random_batches

FEATURES = 100_000
PAIR_DIM = 8


def measure(steps: int = 8) -> dict[str, float]:
    """Seconds of a step of the first round, and their ratio, at 39 fields and 741 pairs."""
    batches = list(random_batches(FEATURES, 4))
    torch.manual_seed(0)
    plain = build(Architecture(FEATURES + 1, FIELDS, DIM, "deepfm", HIDDEN))
    layout, index = _pairs(batches)
    searched = build(Architecture(FEATURES + 1, FIELDS, DIM, "deepfm", HIDDEN, pairs=layout), index=index)
    ways = (_step(plain), _step(searched, DrawnPaths(searched, 0, naive=True)))
    # One after the other, so that a busy machine slows both down.
    seconds = [[_seconds(step, *batches[number % len(batches)]) for step in ways] for number in range(steps)]
    before, search = (float(np.median(column)) for column in zip(*seconds[1:], strict=True))
    return {
        "deepfm_step_seconds": before,
        "pair_search_step_seconds": search,
        "pair_search_over_deepfm": search / before,
        "pairs": len(layout.memorized),
        "cross_rows": layout.cross_rows,
    }


def _seconds(step: Step, inputs: Inputs, labels: torch.Tensor) -> float:
    started = time.perf_counter()
    step(inputs, labels)
    return time.perf_counter() - started


def _pairs(batches: list[tuple[Inputs, torch.Tensor]]) -> tuple[PairLayout, CrossIndex]:
    """All pairs, with the crosses that the batches hold twice."""
    draw = np.random.default_rng(0)
    numbers = np.arange(1, FEATURES + 1)
    words = feature_words(draw.integers(0, 2**64, FEATURES, dtype=np.uint64), numbers)
    ids = np.concatenate([inputs.ids.numpy() for inputs, _ in batches])
    names = [f"f{slot}" for slot in range(FIELDS)]
    slots = [(i, j) for i in range(FIELDS) for j in range(i + 1, FIELDS)]
    pairs = [(names[i], names[j]) for i, j in slots]
    found = counted_crosses({name: ids[:, slot] for slot, name in enumerate(names)}, pairs, words, 2)
    admitted = np.unique(np.concatenate(list(found.values())))
    index = cross_index(CrossKeys(tuple(pairs), words, admitted))
    layout = PairLayout(
        searched_dim(len(pairs), PAIR_DIM, 2),
        tuple(slots),
        tuple(slots),
        1 + len(pairs) + len(admitted),
        factor_rows=FEATURES + 1,
        shifts=tuple((slot, 0) for slot in range(FIELDS)),
        searched=True,
    )
    return layout, index


def _step(network: Network, paths: DrawnPaths | None = None) -> Step:
    optimizers = Optimizers(network, 1e-3, 0.0, 0.0)

    def step(inputs: Inputs, labels: torch.Tensor) -> None:
        if paths:
            paths.before_step(inputs, labels, None, 0.5)
        for parameter in network.parameters():
            parameter.grad = None
        F.binary_cross_entropy_with_logits(network(inputs), labels).backward()  # type: ignore[no-untyped-call]
        optimizers.step()

    return step
