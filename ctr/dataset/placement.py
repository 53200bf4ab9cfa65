"""Which rows of which tables a feature reads: the arithmetic between a key and an embedding. Needs no PyTorch.

Shapes: n features, R numbers that say where a feature is read.

Row 0 of every table is the dropped row. After it stand the rows of the fields: one stretch of their own for each field
(`hashed`), or one stretch for all of them (`unified`), and a stretch of its own for each field that is free of
collisions. How many numbers a feature has, and what they mean, is the composition's:

    lookup              R = lookups    rows, side by side
    robe                R = lookups    first floats of blocks, in the table as one line of floats
    multi_hash          R = lookups+1  rows that are added up, the last one: row of their weights in a second table
    quotient_remainder  R = 2          a row of the table and one of a second table, multiplied

Sources: Coleman et al., "Unified Embedding", NeurIPS 2023; Svenstrup et al., "Hash Embeddings", NIPS 2017; Shi et al.,
"Compositional Embeddings Using Complementary Partitions", KDD 2020; Desai et al., "Random Offset Block Embedding
(ROBE)", MLSys 2022.

NOTE[DIFF] Quotient and remainder are taken of the key's hash, not of an id in a vocabulary, so that they work without
one and can be shared by fields: two values of a field still agree in both with a probability of about 4 / rows^2. A
block of ROBE never runs over the end of its stretch, where the paper's goes on at its beginning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ctr.dataset.hashing import Ints, Keys, halves, spread
from ctr.errors import ConfigError, nearest

Composition = Literal["lookup", "multi_hash", "quotient_remainder", "robe"]
_FLOAT32 = 4  # bytes
_SECOND = 1000  # the lookup of the second table: no config has so many of the first
_TWO_TABLES = ("multi_hash", "quotient_remainder")


@dataclass(frozen=True)
class Stretch:
    """Where the features of one field are.

    start, rows: in the table. second_start, second_rows: in the second table, where there is one.
    lookups: rows that each feature reads. exact: whether each feature has rows of its own, in the order of features.
    """

    field: str
    start: int
    rows: int
    second_start: int
    second_rows: int
    lookups: int
    exact: bool = False


@dataclass(frozen=True)
class Placement:
    """Where every feature of some fields is read.

    shared: whether fields without rows of their own share one stretch.
    width: floats in a row of the table, `linear` of them first-order weights. lookups: of a field that says nothing.
    rows, second_rows: of the tables, the dropped row included; the second is 0 where there is none.
    """

    composition: Composition
    shared: bool
    width: int
    linear: int
    lookups: int
    rows: int
    second_rows: int
    stretches: tuple[Stretch, ...]

    @property
    def numbers(self) -> int:
        """R."""
        if self.composition == "quotient_remainder":
            return 2
        return self._most_lookups + (self.composition == "multi_hash")

    @property
    def second_width(self) -> int:
        """Floats in a row of the second table."""
        if self.composition == "multi_hash":
            return self.numbers - 1
        return self.width if self.composition == "quotient_remainder" else 0

    @property
    def parameters(self) -> int:
        """Learned floats of both tables."""
        return (self.rows - 1) * self.width + max(0, self.second_rows - 1) * self.second_width

    @property
    def odd_lookups(self) -> dict[str, int]:
        """Lookups of the fields that do not have the usual number, where that changes their width."""
        if self.composition not in ("lookup", "robe"):
            return {}
        return {own.field: own.lookups for own in self.stretches if own.lookups != self.lookups}

    def of(self, field: str) -> int:
        """Number of a field's stretch."""
        return self._numbered[field]

    @cached_property
    def _numbered(self) -> dict[str, int]:
        return {stretch.field: number for number, stretch in enumerate(self.stretches)}

    def places(self, keys: Keys, stretch: npt.NDArray[np.int64] | int, local: Ints | None = None) -> Ints:
        """Where features are read. (...) keys -> (..., R).

        Args:
            keys: of features.
            stretch: number of each one's stretch; broadcast against `keys`.
            local: number of each feature within its field, needed where a field is exact.
        """
        table, numbers = self._columns, np.asarray(stretch)
        start, rows, lookups, exact = (table[name][numbers] for name in ("start", "rows", "lookups", "exact"))
        own = np.zeros(1, np.int64) if local is None else local
        high, low = halves(keys)
        found = np.zeros((*keys.shape, self.numbers), np.int64)
        for lookup in range(self._most_lookups):
            hashed, of_its_own = spread(high, low, lookup), start + own * lookups + lookup
            if self.composition == "robe":
                # Where a block starts, in floats; the last one ends with its stretch.
                place = start * self.width + hashed % (rows * self.width - (self.width - 1))
                of_its_own *= self.width
            else:
                place = start + hashed % rows
            if self.composition == "multi_hash":
                of_its_own = (start + own) * (lookup == 0)  # a row of its own needs no others
            if self.composition == "quotient_remainder":
                of_its_own = start + own
            found[..., lookup] = np.where(exact, of_its_own, place) * (lookup < lookups)
        if self.second_rows:
            start, rows = table["second_start"][numbers], table["second_rows"][numbers]
            found[..., -1] = np.where(exact, start + own, start + spread(high, low, _SECOND) % rows)
        return found

    @cached_property
    def _most_lookups(self) -> int:
        if self.composition == "quotient_remainder":
            return 1
        return max([self.lookups, *(own.lookups for own in self.stretches)])

    @cached_property
    def _columns(self) -> dict[str, npt.NDArray[Any]]:
        names = ("start", "rows", "second_start", "second_rows", "lookups", "exact")
        return {name: np.array([getattr(own, name) for own in self.stretches]) for name in names}

    def kept(self, features: Mapping[str, int], kept: Mapping[str, int]) -> "Placement":
        """The placement of a compact network: as many features on a row as before, without the fields that are gone.

        Args:
            features: of each field before. kept: of each field now.
        """
        left = [own for own in self.stretches if kept.get(own.field)]
        shares = {own.field: kept[own.field] / max(1, features[own.field]) for own in left}
        hashed = [own for own in self.stretches if not own.exact]
        all_kept = sum(kept.get(own.field, 0) for own in hashed)
        joint = all_kept / max(1, sum(features[own.field] for own in hashed))
        demands = []
        for own in left:
            share = joint if self.shared and not own.exact else shares[own.field]
            rows = kept[own.field] * self._rows_each(own.lookups)
            if not own.exact:
                both = own.rows + own.second_rows * (self.composition == "quotient_remainder")
                rows = max(_least(self.composition), round(both * share))
            demands.append((own.field, rows, own.lookups, own.exact))
        return _laid_out(self, demands)

    def with_copies(self, features: Mapping[str, int], copies: Mapping[str, str]) -> "Placement":
        """The placement of a network with copies of some fields: as many features on a row as before.

        Where fields share a stretch it grows, and copies share it too; so rows may be other ones than before.

        Args:
            features: of each field. copies: name of each copy, and the field that is copied.
        """
        sharing = {own.field for own in self.stretches if self.shared and not own.exact}
        before = sum(features[name] for name in sharing)
        after = before + sum(features[name] for name in copies.values() if name in sharing)
        demands = []
        for name, field in [*((own.field, own.field) for own in self.stretches), *copies.items()]:
            own = self.stretches[self.of(field)]
            rows = own.rows + own.second_rows * (self.composition == "quotient_remainder")
            if field in sharing:
                rows = round(rows * after / max(1, before))
            demands.append((name, rows, own.lookups, own.exact))
        return _laid_out(self, demands)

    def _rows_each(self, lookups: int) -> int:
        return {"lookup": lookups, "robe": lookups, "multi_hash": 1, "quotient_remainder": 2}[
            self.composition
        ]

    def entry(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> "Placement":
        """What `entry` gave.

        Raises:
            ValueError, TypeError, KeyError: it is no placement, or one outside its tables.
        """
        stretches = tuple(Stretch(**own) for own in entry["stretches"])
        found = cls(**{**entry, "stretches": stretches})
        if found.composition not in get_args(Composition):
            raise ValueError(f'there is no composition "{found.composition}"')
        if len(found._numbered) < len(stretches):
            raise ValueError("a field has more than one stretch")
        two = found.composition in _TWO_TABLES
        for own in stretches:
            inside = 1 <= own.start < own.start + own.rows <= found.rows and 1 <= own.lookups < _SECOND
            if two:
                inside &= 1 <= own.second_start < own.second_start + own.second_rows <= found.second_rows
            if not inside:
                raise ValueError(f'the stretch of "{own.field}" is not within the table')
        return found


def _least(composition: Composition) -> int:
    """Fewest rows that a stretch can have."""
    return 2 if composition == "quotient_remainder" else 1


def _rows(number: int) -> str:
    return f"{number} row{'s' * (number != 1)}"


def row_bytes(composition: Composition, width: int, lookups: int) -> int:
    """Bytes that a row of the budget takes: the row, and its weights where rows are weighted."""
    return _FLOAT32 * (width + (lookups if composition == "multi_hash" else 0))


def place(
    features: Mapping[str, int],
    *,
    shared: bool,
    composition: Composition = "lookup",
    dim: int,
    linear: int,
    lookups: int = 2,
    field_lookups: Mapping[str, int] | None = None,
    bytes: int | None = None,
    rows: int | None = None,
    collision_free: int = 0,
) -> Placement:
    """Lay tables out under a budget.

    Args:
        features: distinct train values of each field, missing among them.
        shared: one table for all fields, or one for each, in proportion to its features.
        dim: floats of an embedding; linear: 1 where a first-order weight stands beside them.
        lookups: rows that a feature reads. field_lookups: of single fields.
        bytes: of all learned floats of the tables. rows: instead of bytes, rows of `dim / lookups` floats (or `dim`).
            Without either a tenth of the bytes of a row for each feature, or the least that the fields need.
        collision_free: fields of at most so many features get rows of their own for each, out of the budget.

    Raises:
        ConfigError: the budget is smaller than a row, or does not hold the fields that are free of collisions; both
            bytes and rows are given, or lookups for a field that is not there.
    """
    own_lookups = dict(field_lookups or {})
    side_by_side = composition in ("lookup", "robe")
    if side_by_side and dim % lookups:
        raise ConfigError(
            f"embedding.dim = {dim} cannot be put together from embedding.lookups = {lookups} rows of equal width; "
            f"state a multiple of {lookups}"
        )
    width = (dim // lookups if side_by_side else dim) + linear
    most = max([lookups, *own_lookups.values()])
    each = row_bytes(composition, width, most)
    if bytes is not None and rows is not None:
        raise ConfigError("embedding: state bytes or rows, not both")
    for name in own_lookups:
        if name not in features:
            raise ConfigError(
                f'embedding.field_lookups names "{name}", which is no field with features of its own'
                + nearest(name, features)
            )
    empty = Placement(composition, shared, width, linear, lookups, 1, 0, ())
    exact = {name: count for name, count in features.items() if count <= collision_free}
    hashed = {name: count for name, count in features.items() if name not in exact}
    taken = sum(count * empty._rows_each(own_lookups.get(name, lookups)) for name, count in exact.items())
    least = _least(composition) * (min(1, len(hashed)) if shared else len(hashed))
    if rows is not None:
        budget, stated = rows, f"embedding.rows = {rows}"
    elif bytes is not None:
        budget, stated = bytes // each, f"embedding.bytes = {bytes:,}"
    else:
        tenth = sum(features.values()) * _FLOAT32 * (dim + linear) // 10
        budget, stated = max(tenth // each, taken + least), "the usual budget"
    needed = taken + least
    if budget < needed:
        uses = [f"{least} for hashed fields"] if hashed else []
        uses += [f"{taken} for fields free of collisions"] if exact else []
        enough = f"{needed * each:,} bytes" if rows is None else f"{needed} rows ({needed * each:,} bytes)"
        raise ConfigError(
            f"{stated} holds {_rows(budget)} of {width} floats ({each} bytes each), expected at least "
            f"{_rows(needed)}: {' and '.join(uses)}; state {enough} or more"
            + (", or lower embedding.collision_free" if exact else "")
        )
    free = budget - taken
    sizes = dict.fromkeys(hashed, free) if shared else _proportional(hashed, free, _least(composition))
    demands = [
        (
            name,
            count * empty._rows_each(own_lookups.get(name, lookups)) if name in exact else sizes[name],
            own_lookups.get(name, lookups),
            name in exact,
        )
        for name, count in features.items()
    ]
    return _laid_out(empty, demands)


def _laid_out(like: Placement, demands: Sequence[tuple[str, int, int, bool]]) -> Placement:
    """Stretches for (field, rows, lookups, exact): those that share one stretch first, then one after the other."""
    start, second, two = 1, 1, like.composition in _TWO_TABLES
    placed: dict[str, Stretch] = {}
    stretch: tuple[int, int, int, int] | None = None
    for name, rows, lookups, exact in sorted(demands, key=lambda demand: demand[3]):
        own_second = 0
        if like.composition == "quotient_remainder":
            own_second = rows // 2
            rows -= own_second
        elif two:
            own_second = rows
        if like.shared and not exact and stretch is not None:
            placed[name] = Stretch(name, *stretch, lookups)
            continue
        at = (start, rows, second if two else 0, own_second)
        placed[name] = Stretch(name, *at, lookups, exact)
        if like.shared and not exact:
            stretch = at
        start, second = start + rows, second + own_second
    stretches = tuple(placed[name] for name, *_ in demands)
    return replace(like, rows=start, second_rows=second if two else 0, stretches=stretches)


def _proportional(counts: Mapping[str, int], total: int, least: int) -> dict[str, int]:
    """`total` rows in proportion to counts, at least `least` each; what rounding leaves goes to the largest rests."""
    shares = {name: max(count, 1) for name, count in counts.items()}
    spare, all_shares = total - least * len(shares), sum(shares.values())
    exact = {name: spare * share / all_shares for name, share in shares.items()}
    found = {name: least + int(part) for name, part in exact.items()}
    rests = sorted(exact, key=lambda name: (int(exact[name]) - exact[name], name))
    for name in rests[: total - sum(found.values())]:
        found[name] += 1
    return found
