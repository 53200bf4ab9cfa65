"""Embeddings of hashed features by nested loops: one feature, one float at a time.

Tables are tensors, so that dense gradients can be had from them; a place is a list of whole numbers.
"""

from types import SimpleNamespace

import torch


def lookup(tables, place):
    """The rows of a place side by side; the last float of each is a share of the first-order weight."""
    return _side_by_side(tables, [[tables.weight[row, d] for d in range(tables.width)] for row in place])


def robe(tables, place):
    """Blocks that begin at any float of the table, written out as one line."""
    line = [tables.weight[row, d] for row in range(len(tables.weight)) for d in range(tables.width)]
    return _side_by_side(tables, [[line[start + d] for d in range(tables.width)] for start in place])


def multi_hash(tables, place):
    """A weighted sum: the last number of a place is the row of the weights."""
    *rows, own = place
    found = []
    for d in range(tables.width):
        total = torch.zeros((), dtype=tables.weight.dtype)
        for k, row in enumerate(rows):
            total = total + tables.second[own, k] * tables.weight[row, d]
        found.append(total)
    return torch.stack(found)


def quotient_remainder(tables, place):
    """The row of the remainder times that of the quotient."""
    remainder, quotient = place
    return torch.stack(
        [tables.weight[remainder, d] * tables.second[quotient, d] for d in range(tables.width)]
    )


REFERENCES = {
    "lookup": lookup,
    "multi_hash": multi_hash,
    "quotient_remainder": quotient_remainder,
    "robe": robe,
}


def _side_by_side(tables, rows):
    parts = [row[: tables.width - tables.linear] for row in rows]
    if tables.projection is None:
        embedding = [number for part in parts[: tables.lookups] for number in part]
    else:
        size, dim = tables.projection.shape
        flat = [number for part in parts for number in part][:size]
        embedding = [sum(flat[n] * tables.projection[n, d] for n in range(size)) for d in range(dim)]
    if tables.linear:
        embedding.append(sum(row[-1] for row in rows))
    return torch.stack(embedding)


def read(composition, table, place, slot, weight=None, second=None, projections=None):
    """The vector (W,) of the feature at `place` (numbers) in the field at `slot`.

    Args:
        table: a `ctr.network.hashed_tables.HashedTable`; its own floats are read unless others are given.
    """
    weight = table.weight.detach() if weight is None else weight
    if second is None and table.second is not None:
        second = table.second.weight.detach()
    projections = [own.detach() for own in table.projections] if projections is None else projections
    tables = SimpleNamespace(
        weight=weight,
        second=second,
        width=weight.shape[1],
        linear=table.linear,
        lookups=table.lookups,
        projection=projections[table.slots.index(slot)] if slot in table.slots else None,
    )
    return REFERENCES[composition](tables, [int(number) for number in place])
