"""Slow and obvious versions of crosses: one row, one pair at a time, plain Python numbers."""

from collections import Counter
from collections.abc import Mapping, Sequence

PRIME = 2**31 - 1


def key(left: Sequence[int], right: Sequence[int], salt: Sequence[int]) -> int:
    """The key of a cross, from two left words, two right words and the salt of the pair."""
    first, second = ((left[k] + right[k] + salt[k]) % PRIME for k in (0, 1))
    return first * 2**31 + second


def admitted(
    rows: Sequence[tuple[int, int]], words: Sequence[Sequence[int]], salt: Sequence[int], min_count: int
) -> list[int]:
    """Keys of the crosses of one pair that enough rows (number, number) hold, ascending."""
    counts = Counter(row for row in rows if row[0] and row[1])
    frequent = [row for row, count in counts.items() if count >= min_count]
    return sorted(key(words[a][:2], words[b][2:], salt) for a, b in frequent)


def pair_vectors(
    ids: Sequence[int],
    pairs: Sequence[tuple[int, int]],
    *,
    words: Sequence[Sequence[int]],
    salts: Sequence[Sequence[int]],
    known: Sequence[int],
    memory: Sequence[Sequence[float]],
    factors: Sequence[Sequence[float]],
    weights: Sequence[Sequence[float]],
    shifts: Mapping[int, int],
    budget: int | None = None,
) -> list[list[float]]:
    """w0 * E_m[cross] + w1 * E_a[x_i] * E_a[x_j] of every pair, for one row of feature numbers.

    Args:
        known: admitted keys, ascending. budget: rows that they share; None gives each its own.
        shifts: slot -> what E_a's row of a feature is less than its number.
    """
    vectors = []
    for number, (i, j) in enumerate(pairs):
        a, b = ids[i], ids[j]
        cross = key(words[a][:2], words[b][2:], salts[number])
        if not a or not b:
            row = 0
        elif cross not in known:
            row = 1 + number
        elif budget is None:
            row = 1 + len(pairs) + known.index(cross)
        else:
            first, second = cross // 2**31, cross % 2**31
            row = 1 + len(pairs) + first * (second + 1) % PRIME % budget
        left = factors[a - shifts[i]] if a else [0.0] * len(memory[0])
        right = factors[b - shifts[j]] if b else [0.0] * len(memory[0])
        memorize, factorize = weights[number][:2]
        vectors.append(
            [memorize * m + factorize * x * y for m, x, y in zip(memory[row], left, right, strict=True)]
        )
    return vectors
