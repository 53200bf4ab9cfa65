"""Embedding tables: from rows of a table to one vector per field.

Shapes: B rows in the batch, S single-valued fields, M list fields, F = S + M, W width of a table row.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Inputs(NamedTuple):
    """What a network reads of a batch.

    ids: (B, S) int64 rows of the table. values: (B, S) factors, or None where no field is scaled.
    list_ids: (L,) int64 rows of the table over all lists. list_slots: (L,) int64, row in the batch * M + list field.
    list_lengths: (B, M) number of values in each list.
    """

    ids: Tensor
    values: Tensor | None
    list_ids: Tensor
    list_slots: Tensor
    list_lengths: Tensor


class Table(nn.Module):
    """One embedding row per feature; row 0 is the dropped row, zero for ever.

    Args:
        rows: V + 1, the dropped row included.
        width: floats in a row. The last `linear` of them are first-order weights, which start at zero.
        linear: 0 or 1.
        scale: standard deviation of the other floats at the start.

    Gradients are sparse, so that a step costs what the batch holds and not what the vocabulary holds.
    """

    def __init__(self, rows: int, width: int, linear: int = 0, scale: float = 0.01) -> None:
        super().__init__()
        weight = torch.randn(rows, width).mul_(scale)
        weight[0] = 0.0
        if linear:
            weight[:, -linear:] = 0.0
        self.weight = nn.Parameter(weight)

    def forward(self, ids: Tensor) -> Tensor:
        """(...) row numbers -> (..., W)."""
        return F.embedding(ids, self.weight, padding_idx=0, sparse=True)


def pool_lists(rows: Tensor, slots: Tensor, lengths: Tensor) -> Tensor:
    """Average the rows of each list. (L, W), (L,), (B, M) -> (B, M, W).

    Dropped values count in the average: they add nothing, but they do not make the others louder. So a network with
    closed gates and its compacted form agree.
    """
    pooled = rows.new_zeros(lengths.numel(), rows.shape[-1]).index_add(0, slots, rows)  # (B * M, W)
    return pooled.view(*lengths.shape, rows.shape[-1]) / lengths.unsqueeze(-1).clamp(min=1.0)  # (B, M, W)
