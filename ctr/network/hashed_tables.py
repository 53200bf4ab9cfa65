"""Tables whose rows many features share: from places to vectors, one class for each composition.

Shapes: ... any leading axes, R numbers of a place, K lookups, w width of a table row, D = width of an embedding,
W = D plus one float where there are first-order weights, L list values.

`ctr.dataset.placement` says what the numbers of a place mean, and where the compositions come from. Row 0 is the
dropped row, zero for ever: what is read there only is a vector of zeros.
"""

import torch
from torch import Tensor, nn

from ctr.network.embeddings import Table


class HashedTable(Table):
    """What the compositions have in common.

    Args:
        rows: of the table, the dropped row included. second_rows: of the second table, where there is one.
        dim: D. linear: 0 or 1. lookups: K of a field that says nothing.
        odd: (slot, lookups) of the fields that read another number of rows; each gets a projection to D.
        scale: half the range of a uniform draw for the floats at the start.

    NOTE[DIFF] First-order weights are spread over the lookups of a feature like its embedding, and start at zero.
    """

    def __init__(
        self,
        rows: int,
        second_rows: int,
        dim: int,
        linear: int,
        lookups: int,
        odd: tuple[tuple[int, int], ...] = (),
        scale: float = 0.01,
    ) -> None:
        super().__init__(rows, self._width(dim, linear, lookups), linear, scale, uniform=True)
        odd = odd if dim else ()  # nothing but first-order weights, which are added up however many there are
        self.dim, self.linear, self.lookups, self.slots = dim, linear, lookups, tuple(slot for slot, _ in odd)
        self.second = self._second_table(second_rows, dim + linear, lookups, odd)
        self.projections = nn.ParameterList(self._projection(count) for _, count in odd)

    def _width(self, dim: int, linear: int, lookups: int) -> int:
        return dim + linear

    def _second_table(
        self, rows: int, width: int, lookups: int, odd: tuple[tuple[int, int], ...]
    ) -> Table | None:
        return None

    def _projection(self, lookups: int) -> Tensor:
        size = lookups * self.dim // self.lookups
        return nn.init.xavier_uniform_(torch.empty(size, self.dim))

    def forward(self, places: Tensor) -> Tensor:
        """(B, S, R) places of single-valued fields -> (B, S, W)."""
        return self.compose(places, None)

    def compose(self, places: Tensor, slots: Tensor | None) -> Tensor:
        """(..., R) places -> (..., W).

        Args:
            slots: (L,) field of each of (L, R) places of list values, among all fields of the network; None where
                places are (B, S, R), and the field is their second axis.
        """
        raise NotImplementedError


class LookupTable(HashedTable):
    """Rows side by side (Coleman et al. 2023, section 4)."""

    def _width(self, dim: int, linear: int, lookups: int) -> int:
        return dim // lookups + linear

    def compose(self, places: Tensor, slots: Tensor | None) -> Tensor:
        """(..., K) -> (..., W)."""
        return self._side_by_side(self.read(places), slots)

    def _side_by_side(self, rows: Tensor, slots: Tensor | None) -> Tensor:
        """(..., K, w) -> (..., W): embeddings one after the other, first-order weights added up."""
        usual = rows[..., : self.lookups, :]
        if not self.linear:
            vectors = usual.flatten(-2)  # (..., D)
        else:
            vectors = torch.cat(
                [usual[..., :-1].flatten(-2), rows[..., -1].sum(-1, keepdim=True)], -1
            )  # (..., W)
        return vectors if not self.slots else self._projected(vectors, rows, slots)

    def _projected(self, vectors: Tensor, rows: Tensor, slots: Tensor | None) -> Tensor:
        """The vectors (..., W) with those of odd fields projected from all their rows (..., K, w)."""
        embeddings = rows[..., : rows.shape[-1] - self.linear].flatten(-2)
        linear = vectors[..., self.dim :]
        for slot, weight in zip(self.slots, self.projections, strict=True):
            here = torch.arange(vectors.shape[-2], device=vectors.device) if slots is None else slots
            other = torch.cat([embeddings[..., : len(weight)] @ weight, linear], -1)  # (..., W)
            vectors = torch.where((here == slot).unsqueeze(-1), other, vectors)
        return vectors


class RobeTable(LookupTable):
    """Blocks that start at any float of the table (Desai et al. 2022, section 3).

    A block spans two rows at most: both are read, and the block is cut out of them, so that gradients stay sparse in
    rows.

    NOTE[DIFF] The paper's array knows no first-order weights; here the last float of each block adds to it, and as any
    float may be the last of some block, they do not start at zero.
    """

    def __init__(
        self,
        rows: int,
        second_rows: int,
        dim: int,
        linear: int,
        lookups: int,
        odd: tuple[tuple[int, int], ...] = (),
        scale: float = 0.01,
    ) -> None:
        super().__init__(rows, second_rows, dim, linear, lookups, odd, scale)
        if linear:
            nn.init.uniform_(self.weight.data[1:], -scale, scale)

    def compose(self, places: Tensor, slots: Tensor | None) -> Tensor:
        """(..., K) first floats of blocks -> (..., W)."""
        width = self.weight.shape[1]
        row = torch.div(places, width, rounding_mode="floor")
        shift = places - row * width
        rows = self.read(torch.stack([row, (row + 1) * (shift > 0)], -1)).flatten(-2)  # (..., K, 2 w)
        floats = shift.unsqueeze(-1) + torch.arange(width, device=places.device)  # (..., K, w)
        return self._side_by_side(rows.gather(-1, floats), slots)


class MultiHashTable(HashedTable):
    """A weighted sum of rows; the weights of a feature are a row of a second table (Svenstrup et al. 2017).

    NOTE[DIFF] Weights start at 1, not near 0: the sum learns from the first step on.
    """

    def _second_table(
        self, rows: int, width: int, lookups: int, odd: tuple[tuple[int, int], ...]
    ) -> Table | None:
        return Table(rows, max([lookups, *(count for _, count in odd)]), constant=1.0)

    def compose(self, places: Tensor, slots: Tensor | None) -> Tensor:
        """(..., K + 1) -> (..., W)."""
        assert self.second is not None
        weights: Tensor = self.second(places[..., -1])  # (..., K)
        vectors = (weights.unsqueeze(-2) @ self.read(places[..., :-1])).squeeze(-2)  # (..., W)
        # Also where matrices are multiplied as bfloat16: lists add vectors up.
        return vectors.to(weights.dtype)


class QuotientRemainderTable(HashedTable):
    """A row of remainders times a row of quotients (Shi et al. 2020, section 3.2).

    NOTE[DIFF] Quotients start at 1, so that the product starts as the remainder's row instead of near zero.
    """

    def _second_table(
        self, rows: int, width: int, lookups: int, odd: tuple[tuple[int, int], ...]
    ) -> Table | None:
        return Table(rows, width, constant=1.0)

    def compose(self, places: Tensor, slots: Tensor | None) -> Tensor:
        """(..., 2) -> (..., W)."""
        assert self.second is not None
        quotients: Tensor = self.second(places[..., 1])
        return self.read(places[..., 0]) * quotients


COMPOSITIONS: dict[str, type[HashedTable]] = {
    "lookup": LookupTable,
    "multi_hash": MultiHashTable,
    "quotient_remainder": QuotientRemainderTable,
    "robe": RobeTable,
}
