"""How fast a network with one unified table trains, against one with a row for each feature."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from ctr.dataset.hashing import Ints
from ctr.dataset.placement import place
from ctr.network.network import Architecture, build
from pipelines.benchmarks.steps import (
    DIM,
    DRAWN,
    FIELDS,
    LabelledInputs,
    Setting,
    Step,
    Turn,
    random_batches,
    seconds_in_turns,
    training_step,
)


def measure(setting: Setting) -> dict[str, float]:
    """Rows per second over those of a row for each feature, in turns: one table for all, of a tenth of the bytes.

    From ids, or from keys, to updated weights: looking up or computing where they are read is part of a step.
    """
    features = setting.million
    size = features // FIELDS
    counts = {f"field {number}": size for number in range(FIELDS)}
    shape = Architecture(rows=features + 1, fields=FIELDS, dim=DIM, backbone="deepfm", hidden=setting.hidden)
    placement = place(counts, shared=True, dim=shape.width, linear=shape.linear)
    keys = np.random.default_rng(0).integers(0, 1 << 63, features + 1, np.uint64)
    keys[0] = 0
    slots = np.arange(FIELDS)
    places = placement.places(keys, np.maximum(0, np.arange(features + 1) - 1) // size % FIELDS)
    hashed = replace(shape, rows=placement.rows, composition=placement.composition, lookups=placement.lookups)
    places_of: dict[str, Callable[[Ints], Ints | None]] = {
        "table": lambda ids: None,
        "unified": lambda ids: places[ids],
        "unified_hashed": lambda ids: placement.places(keys[ids], slots),
    }
    torch.manual_seed(0)
    networks = {"table": build(shape), "unified": build(hashed), "unified_hashed": build(hashed)}
    batches = list(random_batches(features, DRAWN, setting.batch))
    turns = {
        name: _placing(training_step(network), places_of[name], batches) for name, network in networks.items()
    }
    seconds = seconds_in_turns(turns, setting.steps)
    usual = seconds.pop("table")
    return {f"{name}_over_table_1m": usual / needed for name, needed in seconds.items()}


def _placing(step: Step, places: Callable[[Ints], Ints | None], batches: list[LabelledInputs]) -> Turn:
    def turn(number: int) -> None:
        inputs, labels = batches[number % len(batches)]
        found = places(inputs.ids.numpy())
        step(inputs if found is None else inputs._replace(places=torch.from_numpy(found)), labels)

    return turn
