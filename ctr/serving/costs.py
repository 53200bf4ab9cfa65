"""What a bundle weighs: numbers and bytes before and after, and what each field and each pair has of them.

Bytes are those of learned weights as they are stored, scales included, without the rows that dropped features read.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ctr.dataset.crosses import CrossKeys
from ctr.dataset.layout import Layout
from ctr.network.crosses import PairLayout
from ctr.network.network import Architecture, Network, sizes, sizes_of
from ctr.serving.storage import SCALE, Arrays, Dtype, stored, table_bytes

_FLOAT32 = 4  # bytes


def weight_bytes(network: Network, dtype: Dtype) -> tuple[int, int]:
    """Bytes of all weights, and of those in tables, as a bundle stores them."""
    if dtype == "float32":
        found = sizes(network)
        return found.parameters * _FLOAT32, found.table_parameters * _FLOAT32
    weights = {name: own.detach().cpu().numpy() for name, own in network.named_parameters()}
    tensors = stored(weights, dtype)
    tables = table_bytes(tensors)
    zeros = table_bytes(tensors, zeros=True) - tables
    return sum(array.nbytes for array in tensors.values()) - zeros, tables


def size_entry(network: Network, dtype: Dtype, keep_all: Architecture | None) -> dict[str, Any]:
    """What a manifest says of sizes.

    Args:
        keep_all: architecture of the network with all features, in float32; None where it is not known.
    """
    found = sizes(network)
    whole, tables = weight_bytes(network, dtype)
    before = None
    if keep_all is not None:
        every = sizes_of(keep_all)
        before = {
            "parameters": every.parameters,
            "bytes": every.parameters * _FLOAT32,
            "table_bytes": every.table_parameters * _FLOAT32,
        }
    after = {"parameters": found.parameters, "bytes": whole, "table_bytes": tables}
    return {"keep_all": before, "kept": after}


def cost_entry(
    layout: Layout, pairs: PairLayout | None, crosses: CrossKeys | None, tensors: Arrays
) -> dict[str, Any]:
    """Rows and bytes in tables of each field, and of each pair; null where rows are shared, and nobody's own.

    A field that shares another one's rows has none of its own, nor has a factorized pair: it reads those of its fields,
    which are counted there.
    """
    return {
        "fields": _fields(layout, pairs, tensors),
        "pairs": [] if pairs is None else _pairs(layout, pairs, crosses, tensors),
    }


def _row_bytes(tensors: Arrays, table: str) -> int:
    names = (f"{table}.weight", f"{table}.weight{SCALE}")
    return sum(tensors[name][0].nbytes for name in names if name in tensors)


def _fields(layout: Layout, pairs: PairLayout | None, tensors: Arrays) -> dict[str, Any]:
    factorized = {layout.fields[slot] for slot, _ in pairs.shifts} if pairs else set[str]()
    found, counted = dict[str, dict[str, int | None]](), set[str]()
    for name, owner in zip(layout.fields, layout.owners, strict=True):
        first, second = _own_rows(layout, owner) if owner not in counted else (0, 0)
        counted.add(owner)
        if first is None or second is None:
            found[name] = {"rows": None, "bytes": None}
            continue
        bytes_ = first * _row_bytes(tensors, "table") + second * _row_bytes(tensors, "table.second")
        if name in factorized:
            bytes_ += first * _row_bytes(tensors, "crosses.factors")
            bytes_ += second * _row_bytes(tensors, "crosses.factors.second")
        found[name] = {"rows": first + second, "bytes": bytes_}
    return found


def _own_rows(layout: Layout, owner: str) -> tuple[int | None, int | None]:
    """Rows of a field in the table and in the second one; None where it shares them with others."""
    placement = layout.placement
    if placement is None:
        numbers: npt.NDArray[np.int64] = layout.numbers_of(owner)
        return len(np.unique(numbers[numbers > 0])), 0
    own = placement.stretches[placement.of(owner)]
    shared = placement.shared and not own.exact
    return (None, None) if shared else (own.rows, own.second_rows)


def _pairs(
    layout: Layout, pairs: PairLayout, crosses: CrossKeys | None, tensors: Arrays
) -> list[Mapping[str, Any]]:
    names, row = layout.fields, _row_bytes(tensors, "crosses.memory")
    counts: list[int | None] = [None] * len(pairs.memorized)
    if crosses is not None and crosses.counts and not pairs.hashed:
        counts = [count + 1 for count in crosses.counts]  # and the pair's unknown cross
    memorized = [
        {
            "fields": [names[first], names[second]],
            "method": "memorize",
            "rows": rows,
            "bytes": None if rows is None else rows * row,
        }
        for (first, second), rows in zip(pairs.memorized, counts, strict=True)
    ]
    factorized = [
        {"fields": [names[first], names[second]], "method": "factorize", "rows": 0, "bytes": 0}
        for first, second in pairs.factorized
    ]
    return [*memorized, *factorized]
