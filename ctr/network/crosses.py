"""Pairs of fields as vectors: crosses that are memorized, products that are factorized, or a weighing of both.

Lyu et al., "Memorize, Factorize, or be Naive", ICDE 2022 (arXiv 2108.01265), section III.

Shapes: B rows, S single-valued fields, M memorized and H factorized pairs, P pairs, d width of a pair's vector, V
numbered features, A admitted crosses.

    m_p = E_m[cross(x_i, x_j)]        (B, M, d)        h_p = E_a[x_i] * E_a[x_j]        (B, H, d)
    in a search  b_p = w[p, 0] m_p + w[p, 1] h_p       w = softmax(logits / temperature), (P, 3), the third is naive,
                                                       or one method for each pair, drawn by the search

Keys of crosses are computed here, from the words of two features (`ctr.dataset.crosses`). Rows of E_m: 0 is what a
cross with a dropped feature reads, zero for ever; 1 to M are the unknown crosses of the pairs; then come admitted
crosses, each at its place among the admitted keys, or hashed to one of the rows that a budget has left.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ctr.network.embeddings import Inputs, Table
from ctr.network.gates import hardened
from ctr.network.layers import Given

PRIME = 2**31 - 1  # as in ctr.dataset.hashing
FACTOR_START = 0.1  # standard deviation of the floats of E_a at the start
Slots = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class PairLayout:
    """How the pairs of a network are modelled.

    dim: d. memorized, factorized: (slot, slot) of the single-valued fields of each pair.
    cross_rows: of E_m, row 0 included. hashed: whether admitted crosses share the rows that the budget has left.
    factor_rows: of E_a, row 0 included, where each feature has a row of its own there.
    shifts: (slot, shift) of each field that is factorized: a feature's row in E_a is its number less that.
    searched: whether the pairs, all of them both memorized and factorized, have weights that are learned.
    """

    dim: int
    memorized: Slots = ()
    factorized: Slots = ()
    cross_rows: int = 1
    hashed: bool = False
    factor_rows: int = 1
    shifts: tuple[tuple[int, int], ...] = ()
    searched: bool = False

    @property
    def numbers(self) -> int:
        """Floats of all pair vectors of a row."""
        pairs = len(self.memorized) if self.searched else len(self.memorized) + len(self.factorized)
        return pairs * self.dim


class CrossIndex(NamedTuple):
    """What crosses are found by.

    words: (V + 1, 4) int32 of features. salts: (M, 2) int64 of pairs. admitted: (A,) int64 keys, ascending. places:
    (2^n,) int32, a cuckoo table: one of a key's two words says where its place among the admitted ones stands
    (`ctr.dataset.crosses.cuckoo_places`). sketch: (2, W) uint8, bits of which both are set for an admitted cross, where
    keys are not kept; W is 0 where they are.
    """

    words: Tensor
    salts: Tensor
    admitted: Tensor
    places: Tensor
    sketch: Tensor


def table_parameters(layout: PairLayout, factors: int) -> int:
    """Learned floats of E_m and E_a, without the rows that dropped features read.

    Args:
        factors: of E_a, where its rows are hashed; otherwise each feature has its own, and this is 0.
    """
    memory = (layout.cross_rows - 1) * layout.dim if layout.memorized else 0
    if not layout.factorized:
        return memory
    return memory + (factors or (layout.factor_rows - 1) * layout.dim)


class PairChoice(nn.Module):
    """Weights of memorizing, factorizing and leaving out, for each of P pairs.

    `logits` (P, 3) start equal. The buffer `temperature` is set from outside, by the search: it falls from 1. So is
    `drawn`: the numbers of the pairs that memorize in this step, and of those that factorize; None takes the weights.
    """

    temperature: Tensor

    def __init__(self, pairs: int) -> None:
        super().__init__()
        self.drawn: tuple[Tensor, Tensor] | None = None
        self.logits = nn.Parameter(torch.zeros(pairs, 3))
        self.register_buffer("temperature", torch.ones(()))

    def forward(self) -> Tensor:
        """(P, 3), each row adds up to 1."""
        return hardened(torch.softmax(self.logits / self.temperature, dim=1))


class Crosses(nn.Module):
    """Rows -> the vectors of all modelled pairs, side by side: memorized ones first, then factorized ones.

    Args:
        layout: how pairs are modelled.
        factors: E_a, any table of width d; None where nothing is factorized.
        index: what crosses are found by.

    NOTE[DIFF] E_m starts at zero, so that a cross adds what its rows have taught it and no noise, and E_a at 0.1:
    products of small numbers are smaller still, and learn slowly. In the published code the two start orders of
    magnitude apart, and in the retraining elsewhere than in the search.
    """

    words: Tensor
    salts: Tensor
    admitted: Tensor
    places: Tensor
    sketch: Tensor

    def __init__(self, layout: PairLayout, factors: Table | None, index: CrossIndex) -> None:
        super().__init__()
        self.layout = layout
        self.memory = Table(layout.cross_rows, layout.dim, constant=0.0) if layout.memorized else None
        self.factors = factors if layout.factorized else None
        self.choice = PairChoice(len(layout.memorized)) if layout.searched else None
        for name, tensor in index._asdict().items():
            self.register_buffer(name, tensor, persistent=False)
        for name, pairs in (("memorized", layout.memorized), ("factorized", self._in_factors())):
            places = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
            self.register_buffer(f"{name}_first", places[:, 0], persistent=False)
            self.register_buffer(f"{name}_second", places[:, 1], persistent=False)
        slots = torch.tensor(layout.shifts, dtype=torch.int64).reshape(-1, 2)
        self.register_buffer("factor_slots", slots[:, 0], persistent=False)
        self.register_buffer("factor_shifts", slots[:, 1], persistent=False)

    def _in_factors(self) -> Slots:
        """The factorized pairs as places among the fields that E_a is read for."""
        place = {slot: number for number, (slot, _) in enumerate(self.layout.shifts)}
        return tuple((place[first], place[second]) for first, second in self.layout.factorized)

    def forward(self, inputs: Inputs) -> Tensor | Given:
        """(B, number of pair vectors * d); where methods are drawn, without the pairs that are naive."""
        if self.choice is None:
            return torch.cat(self.parts(inputs), dim=1).flatten(1)  # (B, (M + H) * d)
        if self.choice.drawn is not None:
            return self._drawn(inputs, *self.choice.drawn)
        weights = self.choice()  # (P, 3)
        memory, products = self.parts(inputs)
        vectors: Tensor = weights[:, :1] * memory + weights[:, 1:2] * products  # (B, P, d)
        return vectors.flatten(1)

    def _drawn(self, inputs: Inputs, memorized: Tensor, factorized: Tensor) -> Given:
        """The vectors of some pairs (M,), memorized, then of others (H,), factorized."""
        numbers = torch.cat([self.memorized(inputs, memorized), self.products(inputs, factorized)], dim=1)
        pairs = torch.cat([memorized, factorized])
        floats = torch.arange(self.layout.dim, device=pairs.device)
        here = (pairs.unsqueeze(1) * self.layout.dim + floats).flatten()
        return Given(numbers.flatten(1), here, len(self.layout.memorized) * self.layout.dim)

    def parts(self, inputs: Inputs) -> list[Tensor]:
        """Vectors of memorized pairs (B, M, d), then those of factorized ones (B, H, d), where there are any."""
        found = [self.memorized(inputs)] if self.memory is not None else []
        return [*found, self.products(inputs)] if self.factors is not None else found

    def memorized(self, inputs: Inputs, here: Tensor | None = None) -> Tensor:
        """Vectors of memorized pairs, all or the given ones, (B, M, d)."""
        assert self.memory is not None
        rows = inputs.cross_rows
        if rows is None:
            rows = self.cross_rows(inputs.ids, here)
        elif here is not None:
            rows = rows.index_select(1, here)
        vectors: Tensor = self.memory(rows)
        return vectors

    def products(self, inputs: Inputs, here: Tensor | None = None) -> Tensor:
        """Vectors of factorized pairs, all or the given ones, (B, H, d)."""
        assert self.factors is not None
        vectors = self._factor_vectors(self.factors, inputs)  # (B, fields, d)
        first, second = self.get_buffer("factorized_first"), self.get_buffer("factorized_second")
        if here is not None:
            first, second = first[here], second[here]
        return vectors.index_select(1, first) * vectors.index_select(1, second)

    def _factor_vectors(self, factors: Table, inputs: Inputs) -> Tensor:
        """E_a of the fields that are factorized, (B, fields, d)."""
        slots = self.get_buffer("factor_slots")
        if inputs.places is not None:
            vectors: Tensor = factors(inputs.places.index_select(1, slots))
            return vectors
        rows = inputs.ids.index_select(1, slots) - self.get_buffer("factor_shifts")
        own: Tensor = factors(rows.clamp_(min=0))  # of number 0, the dropped one, too
        return own

    def cross_rows(self, ids: Tensor, here: Tensor | None = None) -> Tensor:
        """Rows in E_m of the crosses of memorized pairs, all or given ones, for feature numbers (B, S): (B, M)."""
        pairs = len(self.salts)
        here = torch.arange(pairs, device=ids.device) if here is None else here
        first, second = self.get_buffer("memorized_first")[here], self.get_buffer("memorized_second")[here]
        words, salts = F.embedding(ids, self.words).long(), self.salts[here]  # (B, S, 4), (M, 2)
        one, two = (
            words[..., word]
            .index_select(1, first)
            .add_(words[..., 2 + word].index_select(1, second))
            .add_(salts[:, word])
            .remainder_(PRIME)
            for word in (0, 1)
        )  # (B, M)
        rows = (here + 1).expand_as(one)
        sketched = self.sketch.shape[1] > 0
        if sketched or len(self.admitted):
            at, there = self._sketched(one, two) if sketched else self._place(one, two)
            if self.layout.hashed:
                # A product, so that values of one field do not collide for all values of the other at once.
                at = (one * (two + 1)).remainder_(PRIME).remainder_(self.layout.cross_rows - 1 - pairs)
            rows = torch.where(there, at + (pairs + 1), rows)
        present = (ids > 0).index_select(1, first) & (ids > 0).index_select(1, second)
        return rows * present

    def _place(self, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
        """Places among the admitted keys, and whether they are there at all, for the words of keys (B, M)."""
        keys = one * (PRIME + 1) + two
        at, there = torch.zeros_like(keys), torch.zeros_like(keys, dtype=torch.bool)
        for word in (one, two):
            # index_select, which reads a flat index in parallel, takes a third of the time of tensor[index].
            place = self.places.index_select(0, (word & (len(self.places) - 1)).view(-1)).view_as(word)
            match = self.admitted.index_select(0, place.view(-1)).view_as(word) == keys
            at, there = torch.where(match, place, at), there | match
        return at, there

    def _sketched(self, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
        """No places, and whether both bits of crosses are set, for the words of keys (B, M)."""
        set_bits = []
        for bits, word in zip(self.sketch, (one, two), strict=True):
            at = word.remainder(8 * len(bits))
            byte = bits.index_select(0, (at >> 3).view(-1)).view_as(at)
            set_bits.append((byte >> (at & 7)) & 1 > 0)
        return one, set_bits[0] & set_bits[1]
