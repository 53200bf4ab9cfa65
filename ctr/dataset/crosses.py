"""Crosses: the joint value of two fields as a feature of its own. Its key follows from the keys of the two features.

Shapes: V numbered features, P pairs, N rows, A admitted crosses.

Each feature has four words below 2^31 - 1, two for the left place in a pair and two for the right one, computed from
its key (`ctr.dataset.hashing.spread`). With the salt of the pair, two words of the names of its fields,

    word_k = (left_k(x_i) + right_k(x_j) + salt_k) mod (2^31 - 1),  k = 1, 2        key = word_1 * 2^31 + word_2

is a number below 2^62: sums, so that NumPy, PyTorch and ONNX compute the same from one gather per field. The words are
multilinear in the halves of both keys, hence universal (Carter & Wegman, 1979): two crosses have the same key with a
probability of 2^-62. No key is written to disk per row; what is kept are those of admitted crosses, in order.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ctr.dataset.hashing import PRIME, Ints, Keys, halves, hashes, spread
from ctr.dataset.pairs import PairNames

Bits = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
_FIRST_WORD = 2000  # lookups of the words of a feature: no table has so many of its own
_SKETCH = ("first_word", "second_word")  # columns of the file
_SPARSE = 1_000_000  # bytes of a row of a sketch up to which it may be almost empty
_LEFT, _RIGHT = slice(0, 2), slice(2, 4)


class FeatureColumn(Protocol):
    """(N,) numbers of features of one field in train rows, 0 where it is dropped; an array is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Ints: ...


def feature_words(keys: Keys, numbers: Ints) -> npt.NDArray[np.int32]:
    """(V + 1, 4) words of features by number: left, left, right, right. Those of number 0, the dropped one, are 0.

    Args:
        keys, numbers: of each feature.
    """
    high, low = halves(keys)
    words = np.zeros((int(numbers.max(initial=0)) + 1, 4), np.int32)
    for word in range(4):
        words[numbers, word] = spread(high, low, _FIRST_WORD + word)
    words[0] = 0
    return words


def pair_salts(pairs: Sequence[PairNames]) -> Ints:
    """(P, 2) salts of pairs, from the names of their fields."""
    text = pl.Series("value", [f"{a}\x03{b}" for a, b in pairs], dtype=pl.String)
    high, low = halves(hashes(text))
    return np.stack([high % PRIME, low % PRIME], 1)


def cross_keys(left: Ints, right: Ints, salt: Ints) -> Ints:
    """Keys of crosses (...): of the left words (..., 2) of one field, the right words (..., 2) of the other, salts."""
    words = (left + right + salt) % PRIME
    return words[..., 0] * (PRIME + 1) + words[..., 1]


@dataclass(frozen=True)
class CrossKeys:
    """What a network needs to find the rows of crosses.

    pairs: those that are memorized. words: (V + 1, 4) of features. admitted: (A,) keys of the crosses that are frequent
    enough, ascending, over all pairs. sketch: (2, W) bits in which those of frequent crosses are set
    (`ctr.dataset.cross_sketch`), instead of their keys; None where keys are kept. counts: frequent crosses of each
    pair; empty where nobody has counted.
    """

    pairs: tuple[PairNames, ...]
    words: npt.NDArray[np.int32]
    admitted: Ints
    sketch: Bits | None = None
    counts: tuple[int, ...] = ()

    @property
    def salts(self) -> Ints:
        """(P, 2)."""
        return pair_salts(self.pairs)

    @property
    def index_bytes(self) -> int:
        """Memory of what finds the rows of crosses, beside the table that holds them; none without pairs."""
        if not self.pairs:
            return 0
        found = finding_bytes(len(self.admitted)) if self.sketch is None else self.sketch.nbytes
        return self.words.nbytes + found

    def write(self, path: Path) -> None:
        """The admitted keys, or the bits of the sketch, as parquet."""
        if self.sketch is None:
            write_admitted(self.admitted, path)
        else:
            table = pa.table({name: self.sketch[row] for row, name in enumerate(_SKETCH)})
            pq.write_table(table, path, compression="zstd", use_dictionary=False)
            # Bundles of others are refused where a file unpacks to far more than it has: ours must not look like that.
            if len(table) > max(_SPARSE, 32 * path.stat().st_size):
                pq.write_table(table, path, compression="none", use_dictionary=False)


def cuckoo_places(admitted: Ints) -> npt.NDArray[np.int32]:
    """(2^n,) a table in which the place of every key stands at one of two entries: its words' last n bits.

    So a key is found, or missed, by two looks instead of a binary search. All keys take an entry at once, and whoever
    is turned out goes to its other one (Pagh & Rodler, "Cuckoo Hashing", 2004; all at once as in Alcantara et al.,
    "Real-time Parallel Hashing on the GPU", 2009). Entries that nobody took hold 0: the key there decides.

    Args:
        admitted: (A,) keys, all different.

    Raises:
        ValueError: the keys do not spread, which keys of crosses do.
    """
    words, everyone = np.stack([admitted >> 31, admitted & PRIME]), np.arange(len(admitted))
    size = _cuckoo_size(len(admitted))
    while size <= 64 * len(admitted) + 1024:
        places, way, moving = np.full(size, -1, np.int32), np.zeros(len(admitted), np.int8), everyone
        for _ in range(100):
            at = words[way[moving], moving] & (size - 1)
            turned_out = np.unique(places[at])
            places[at] = moving
            moving = np.concatenate([turned_out[turned_out >= 0], moving[places[at] != moving]])
            way[moving] ^= 1
            if not len(moving):
                return np.maximum(places, 0)
        size *= 2
    raise ValueError("the keys of crosses do not spread")


def _cuckoo_size(keys: int) -> int:
    """Entries that so many keys begin with; they hardly ever need more."""
    return 1 << (2 * keys + 8).bit_length()


def finding_bytes(admitted: int) -> int:
    """Memory of so many keys and of the table that finds their places."""
    return 8 * admitted + 4 * _cuckoo_size(admitted)


def write_admitted(admitted: Ints, path: Path) -> None:
    """Write ascending keys as differences."""
    pq.write_table(
        pa.table({"cross": admitted}),
        path,
        use_dictionary=False,
        column_encoding={"cross": "DELTA_BINARY_PACKED"},
        compression="zstd",
    )


def read_admitted(path: Path) -> Ints:
    """What `write_admitted` wrote.

    Raises:
        ValueError: the file does not hold ascending keys of 62 bits.
    """
    try:
        column = pq.read_table(path, columns=["cross"]).column(0).to_numpy()
    except (pa.ArrowException, KeyError, OSError) as error:
        raise ValueError(f"cannot be read: {error}") from None
    keys: Ints = np.array(column)  # a copy, which may be written to
    if keys.dtype != np.int64 or (
        len(keys) and (keys[0] < 0 or keys[-1] >> 62 or (np.diff(keys) <= 0).any())
    ):
        raise ValueError("expected ascending whole numbers of 62 bits")
    return keys


def read_sketch(path: Path) -> Bits:
    """The bits of a sketch that `CrossKeys.write` wrote, (2, W).

    Raises:
        ValueError: the file does not hold them.
    """
    try:
        table = pq.read_table(path, columns=list(_SKETCH))
        columns = [table.column(name) for name in _SKETCH]
    except (pa.ArrowException, KeyError, OSError) as error:
        raise ValueError(f"cannot be read: {error}") from None
    if any(column.type != pa.uint8() or column.null_count for column in columns) or not len(table):
        raise ValueError(f'expected bytes in the columns "{_SKETCH[0]}" and "{_SKETCH[1]}"')
    return np.stack([column.to_numpy() for column in columns])


def counted_crosses(
    columns: Mapping[str, FeatureColumn],
    pairs: Sequence[PairNames],
    words: npt.NDArray[np.int32],
    min_count: int,
) -> dict[PairNames, Ints]:
    """What `each_counted` finds, of all pairs."""
    return dict(each_counted(columns, pairs, words, min_count))


def each_counted(
    columns: Mapping[str, FeatureColumn],
    pairs: Sequence[PairNames],
    words: npt.NDArray[np.int32],
    min_count: int,
) -> Iterator[tuple[PairNames, Ints]]:
    """Keys, ascending, of the crosses that enough train rows hold, pair by pair.

    Counted exactly. Memory is that of the joint values of one pair, and one to four bytes for each row and field.

    Args:
        columns: of each field. Crosses with a dropped feature are none.
        words: of features.
        min_count: rows that a cross needs.
    """
    compact = dict[str, tuple[Ints, Ints]]()
    for name in dict.fromkeys(name for pair in pairs for name in pair):
        there, places = compacted(columns[name][:])
        compact[name] = there, places.astype(np.min_scalar_type(len(there)))
    for (a, b), salt in zip(pairs, pair_salts(pairs), strict=True):
        keys, counts = joint_keys(compact[a], compact[b], words, salt)
        yield (a, b), np.sort(keys[counts >= min_count])


def compacted(column: Ints) -> tuple[Ints, Ints]:
    """Numbers that occur, ascending, and (N,) the place of each row's among them."""
    if int(column.max(initial=0)) > 4 * len(column) + 1_000_000:  # few of very many: a sort is cheaper
        return np.unique(column, return_inverse=True)
    there = np.flatnonzero(np.bincount(column))
    place = np.zeros(int(there.max(initial=0)) + 1, np.int64)
    place[there] = np.arange(len(there))
    return there, place[column]


def joint_keys(
    first: tuple[Ints, Ints], second: tuple[Ints, Ints], words: npt.NDArray[np.int32], salt: Ints
) -> tuple[Ints, Ints]:
    """Keys of the different crosses of two compact columns of a pair, and the rows of each; dropped features have none.

    Args:
        first, second: numbers that occur, and the place of each row's among them.
    """
    (numbers_a, ids_a), (numbers_b, ids_b) = first, second
    joint, counts, _ = joint_sums(ids_a, ids_b, len(numbers_b), len(numbers_a))
    left, right = numbers_a[joint // len(numbers_b)], numbers_b[joint % len(numbers_b)]
    there = (left > 0) & (right > 0)
    keys = cross_keys(
        words[left[there], _LEFT].astype(np.int64), words[right[there], _RIGHT].astype(np.int64), salt
    )
    return keys, counts[there]


def joint_sums(
    first: Ints, second: Ints, seconds: int, firsts: int, weights: Sequence[Floats] = ()
) -> tuple[Ints, Ints, list[Floats]]:
    """Joint values first * seconds + second that occur, ascending: in how many rows, and sums of what rows weigh.

    Args:
        first, second: (N,) places below `firsts` and `seconds`.
        weights: (N,) each; there is a sum, over the rows of each joint value, for each of them.
    """
    joint = first.astype(np.int64) * seconds + second
    if (
        firsts * seconds <= 4 * len(joint) + 1_000_000
    ):  # a counter for each that could occur is cheaper than a sort
        counts = np.bincount(joint)
        there = np.flatnonzero(counts)
        return there, counts[there], [_sums(joint, each)[there] for each in weights]
    values, counts = np.unique(joint, return_counts=True)
    place = np.searchsorted(values, joint) if weights else joint
    return values, counts, [_sums(place, each) for each in weights]


def _sums(place: Ints, weights: Floats) -> Floats:
    return np.asarray(np.bincount(place, weights), np.float64)
