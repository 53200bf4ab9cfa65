"""Embedding tables: from rows of a table to one vector per field.

Shapes: B rows in the batch, S single-valued fields, M list fields, F = S + M, W width of a table row.
"""

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Pooling = Literal["mean", "sum", "max"]


class Inputs(NamedTuple):
    """What a network reads of a batch.

    ids: (B, S) int64 numbers of features, which gates read; 0 is dropped. values: (B, S) factors, or None where no
        field is scaled.
    list_ids: (L,) int64 numbers of features over all lists. list_slots: (L,) int64, row in the batch * M + list field.
    list_lengths: (B, M) number of values in each list.
    vectors: (B, T) numbers of the vector fields side by side, or None where there are none.
    places, list_places: (B, S, R) and (L, R) int64, where hashed features are read (`ctr.dataset.placement`); None
        where the number of a feature is its row.
    cross_rows: (B, M) int64 rows of the crosses of M memorized pairs; None where the network is to find them.
    """

    ids: Tensor
    values: Tensor | None
    list_ids: Tensor
    list_slots: Tensor
    list_lengths: Tensor
    vectors: Tensor | None = None
    places: Tensor | None = None
    list_places: Tensor | None = None
    cross_rows: Tensor | None = None


class Lookup(torch.autograd.Function):
    """Rows of a table, with a sparse gradient in which row 0 has zeros, or does not occur.

    PyTorch's own (`F.embedding` with `padding_idx`) takes row 0 out of the gradient, for which it has to count what is
    left: on a GPU every step would wait for that, so there it stays in, with zeros.
    """

    @staticmethod
    def forward(ids: Tensor, weight: Tensor) -> Tensor:
        """(...) row numbers, (rows, W) -> (..., W)."""
        return F.embedding(ids, weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """What `backward` needs."""
        ids, weight = inputs
        ctx.save_for_backward(ids)
        ctx.shape = weight.shape

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        """(..., W) -> the sparse (rows, W)."""
        ids = ctx.saved_tensors[0].flatten()
        values = gradient.flatten(0, -2)  # (N, W)
        if ids.device.type != "cpu":
            values = values * (ids > 0).unsqueeze(1)
        elif not bool(ids.all()):
            # Counting waits for nothing here, and what is left out need not be added up: where much is dropped, row 0
            # would be most of the batch.
            read = ids.nonzero().squeeze(1)
            ids, values = ids.index_select(0, read), values.index_select(0, read)
        found = torch.sparse_coo_tensor(
            ids.unsqueeze(0), values, ctx.shape, check_invariants=False, is_coalesced=False
        )
        return None, found


class Table(nn.Module):
    """One embedding row per feature; row 0 is the dropped row, zero for ever.

    Args:
        rows: V + 1, the dropped row included.
        width: floats in a row. The last `linear` of them are first-order weights, which start at zero.
        linear: 0 or 1.
        scale: standard deviation of the other floats at the start; with `uniform` half the range of their draw.
        constant: what all floats start at instead.

    Gradients are sparse, so that a step costs what the batch holds and not what the vocabulary holds.
    """

    def __init__(
        self,
        rows: int,
        width: int,
        linear: int = 0,
        scale: float = 0.01,
        *,
        uniform: bool = False,
        constant: float | None = None,
    ) -> None:
        super().__init__()
        if constant is not None:
            weight = torch.full((rows, width), constant)
        elif uniform:
            weight = torch.empty(rows, width).uniform_(-scale, scale)
        else:
            weight = torch.randn(rows, width).mul_(scale)
        weight[0] = 0.0
        if linear:
            weight[:, -linear:] = 0.0
        self.weight = nn.Parameter(weight)
        # Where an optimizer listens: rows that are about to be read, which may owe it something.
        self.asked = nn.Identity()

    def forward(self, ids: Tensor) -> Tensor:
        """(...) row numbers -> (..., W)."""
        return self.read(ids)

    def read(self, ids: Tensor) -> Tensor:
        """(...) row numbers -> (..., w), as wide as the table, also where `forward` makes something else of them."""
        rows: Tensor = Lookup.apply(self.asked(ids), self.weight)  # type: ignore[no-untyped-call]
        return rows


class Projections(nn.Module):
    """The numbers of vector fields -> vectors, by one learned matrix per field, added to the field's table row.

    Args:
        fields: (slot among the single-valued fields, numbers) of each.
        width: floats in a row. The last `linear` of them are first-order weights, which start at zero.
        linear: 0 or 1.
        scale: standard deviation of what a vector of root mean square 1 is turned into at the start.
    """

    def __init__(self, fields: tuple[tuple[int, int], ...], width: int, linear: int, scale: float) -> None:
        super().__init__()
        self.fields = fields
        self.weights = nn.ParameterList()
        for _, size in fields:
            weight = torch.randn(size, width).mul_(scale / math.sqrt(size))
            if linear:
                weight[:, -linear:] = 0.0
            self.weights.append(weight)

    def forward(self, single: Tensor, vectors: Tensor, ids: Tensor) -> Tensor:
        """(B, S, W), (B, T), (B, S) -> (B, S, W). A field that reads the dropped row gets nothing added to it."""
        result, start = list(single.unbind(1)), 0
        for (slot, size), weight in zip(self.fields, self.weights, strict=True):
            projected = vectors[:, start : start + size] @ weight  # (B, W)
            result[slot] = result[slot] + projected * (ids[:, slot, None] > 0)
            start += size
        return torch.stack(result, dim=1)

    def keep(self, kept: list[int], slots: tuple[int, ...]) -> "Projections | None":
        """A copy with the fields of the given numbers, at new slots; None where none is left."""
        if not kept:
            return None
        fields = tuple((slot, self.fields[number][1]) for number, slot in zip(kept, slots, strict=True))
        width = self.weights[0].shape[1]
        with torch.random.fork_rng(devices=[]):  # fresh weights are replaced at once: no draw may count
            smaller = Projections(fields, width, 0, 1.0)
        for own, number in zip(smaller.weights, kept, strict=True):
            own.data = self.weights[number].detach().clone()
        return smaller


def pool_lists(rows: Tensor, slots: Tensor, lengths: Tensor, pooling: tuple[Pooling, ...]) -> Tensor:
    """Average, add or take the maximum of the rows of each list. (L, W), (L,), (B, M) -> (B, M, W).

    Dropped values count as rows of zeros: they add nothing, but in an average they do not make the others louder. So
    a network with closed gates and its compacted form agree.

    Args:
        pooling: one word for each of the M fields.
    """
    shape = (*lengths.shape, rows.shape[-1])
    sums = rows.new_zeros(lengths.numel(), rows.shape[-1]).index_add(0, slots, rows).view(shape)  # (B, M, W)
    counts = lengths.unsqueeze(-1).clamp(min=1.0)  # (B, M, 1)
    if set(pooling) <= {"mean"}:
        return sums / counts
    largest = sums
    if "max" in pooling:
        index = slots.unsqueeze(-1).expand_as(rows)
        # Every list holds at least one value, so no infinity of the start is left.
        start = rows.new_full((lengths.numel(), rows.shape[-1]), -torch.inf)
        largest = start.scatter_reduce(0, index, rows, "amax").view(shape)
    by_word = {"mean": sums / counts, "sum": sums, "max": largest}
    return torch.stack([by_word[word][:, number] for number, word in enumerate(pooling)], dim=1)  # (B, M, W)
