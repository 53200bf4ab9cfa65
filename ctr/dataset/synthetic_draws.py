"""Random numbers without state: each is a hash of a key and a position, so any part can be drawn alone."""

import hashlib
from functools import cache

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Words = NDArray[np.uint64]
Floats = NDArray[np.float64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_HEX = 1 << 32


def key_of(*parts: object) -> int:
    """64 bits that depend on all `parts`, the same in every process."""
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def words(key: int, positions: NDArray[np.integer]) -> Words:
    """Give 64 random bits per position, (N,) -> (N,): splitmix64 (Steele et al., OOPSLA 2014) from `key`."""
    word: Words = positions.astype(np.uint64)  # a copy; the rest is in place
    word *= _GOLDEN
    word += np.uint64(key)
    word ^= word >> np.uint64(30)
    word *= _FIRST
    word ^= word >> np.uint64(27)
    word *= _SECOND
    word ^= word >> np.uint64(31)
    return word


def uniforms(key: int, positions: NDArray[np.integer]) -> Floats:
    """Give uniform numbers in [0, 1) with 53 random bits, (N,) -> (N,)."""
    word = words(key, positions)
    word >>= np.uint64(11)
    uniform = word.astype(np.float64)
    uniform *= 2.0**-53
    return uniform


def normals(key: int, positions: NDArray[np.integer]) -> Floats:
    """Give standard normal numbers, (N,) -> (N,), by the method of Box and Muller."""
    radius = np.sqrt(-2.0 * np.log1p(-uniforms(key, positions)))
    normal: Floats = radius * np.cos(2.0 * np.pi * uniforms(key_of(key, "turn"), positions))
    return normal


def zipf_ranks(uniform: Floats, cardinality: int, exponent: float) -> Integers:
    """Turn uniform numbers into ranks 0 .. cardinality - 1 of a Zipf law, (N,) -> (N,).

    P(rank k) is the area under x ** -exponent over [k + 1, k + 2), normalised.
    NOTE[DIFF]: Zipf's law has k ** -exponent itself; the area has a closed inverse, so ten million values
    need no table and a draw costs one power. The tail is the same, the head is a little lighter.
    """
    top = cardinality + 1.0
    if exponent == 1.0:
        position = np.exp(uniform * np.log(top))
    else:
        position = (1.0 + uniform * (top ** (1.0 - exponent) - 1.0)) ** (1.0 / (1.0 - exponent))
    ranks: Integers = position.astype(np.int64)
    ranks -= 1
    return np.minimum(ranks, cardinality - 1, out=ranks)


def zipf_shares(cardinality: int, exponent: float) -> Floats:
    """Give the probability of each rank under `zipf_ranks`, (cardinality,)."""
    edges = np.arange(1.0, cardinality + 2.0)
    area = np.log(edges) if exponent == 1.0 else edges ** (1.0 - exponent) / (1.0 - exponent)
    shares: Floats = np.diff(area) / (area[-1] - area[0])
    return shares


class Names:
    """The texts of a field's values: rank -> "site_0417" or "68fd1e64" and back, without a table.

    A rank is sent through `rank * factor + shift` modulo the number of texts, so that a name does not tell
    how frequent its value is; the factor has an inverse, so that the text tells its rank.
    """

    def __init__(self, field: str, cardinality: int, style: str, key: int) -> None:
        self.cardinality = cardinality
        self.prefix = b"" if style == "hex" else f"{field}_".encode()
        self.number = 16 if style == "hex" else 10
        self.digits = 8 if style == "hex" or cardinality > 10_000 else 4
        self.modulus = _HEX if style == "hex" else cardinality
        factor = key % self.modulus | 1
        while np.gcd(factor, self.modulus) != 1:
            factor += 2
        self.factor, self.shift = factor, (key >> 32) % self.modulus

    def texts(self, ranks: Integers) -> pa.StringArray:
        """Texts of ranks, (N,) -> (N,); a rank below 0 is null."""
        code = (
            np.maximum(ranks, 0).astype(np.uint64) * np.uint64(self.factor) + np.uint64(self.shift)
        ) % np.uint64(self.modulus)
        groups, start = self.digits // 4, len(self.prefix)
        width = start + self.digits
        letters = np.empty((len(ranks), width), dtype=np.uint8)
        letters[:, :start] = np.frombuffer(self.prefix, dtype=np.uint8)
        for group in range(groups - 1, -1, -1):
            code, four = np.divmod(code, np.uint64(self.number**4))
            letters[:, start + 4 * group : start + 4 * group + 4] = _four_digits(self.number)[
                four.astype(np.int64)
            ]
        offsets = np.arange(0, (len(ranks) + 1) * width, width, dtype=np.int32)
        present = ranks >= 0
        valid = None if present.all() else pa.py_buffer(np.packbits(present, bitorder="little"))
        return pa.StringArray.from_buffers(len(ranks), pa.py_buffer(offsets), pa.py_buffer(letters), valid)

    def ranks(self, texts: pl.Series) -> Integers:
        """Ranks of texts: -1 for null, -2 for a text that no value of the field has."""
        cut = texts.str.slice(len(self.prefix))
        code = cut.str.to_integer(base=self.number, strict=False).fill_null(0).to_numpy().astype(np.uint64)
        back = np.uint64(pow(self.factor, -1, self.modulus))
        lifted = code % np.uint64(self.modulus) + np.uint64(self.modulus - self.shift)
        ranks: Integers = (lifted % np.uint64(self.modulus) * back % np.uint64(self.modulus)).astype(np.int64)
        ranks[ranks >= self.cardinality] = 0
        own = pl.Series(self.texts(ranks)) == texts  # the way back decides which texts are the field's own
        ranks[~own.fill_null(False).to_numpy()] = -2
        ranks[texts.is_null().to_numpy()] = -1
        return ranks


@cache
def _four_digits(number: int) -> NDArray[np.uint8]:
    """Row v holds v in four ASCII digits to the given radix, (number ** 4, 4)."""
    digits = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
    value = np.arange(number**4)[:, None] // number ** np.arange(3, -1, -1) % number
    ascii_digits: NDArray[np.uint8] = digits[value]
    return ascii_digits
