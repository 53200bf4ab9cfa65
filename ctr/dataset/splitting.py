"""Which part each row falls into: by time, by hash of a key, at random, or by file; before anything is counted."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctr.dataset.split_keys import TimeKey, mixed
from ctr.dataset.split_spec import RandomSplit, TimeSplit, parse_duration
from ctr.errors import ConfigError, DataError

PARTS = ("train", "valid", "test")
TRAIN, VALID, TEST, GAP, IMMATURE, AFTER = range(6)

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint8]
Keys = Callable[[], Iterator[Ints]]

_BUCKETS = 1 << 16


def by_share(hashes: npt.NDArray[np.uint64], valid: float, test: float) -> Codes:
    """Parts by where a hash falls in the range of 64-bit numbers: test lowest, then valid, then train."""
    low, high = int(test * 2.0**64), int((test + valid) * 2.0**64)
    parts = np.full(len(hashes), TRAIN, np.uint8)
    parts[hashes < np.uint64(min(high, 2**64 - 1))] = VALID
    parts[hashes < np.uint64(low)] = TEST
    return parts


def random_parts(rows: Ints, split: RandomSplit) -> Codes:
    """Part of each row by its number over all files; it does not depend on other rows."""
    return by_share(mixed(rows.astype(np.uint64), split.seed), split.valid, split.test)


@dataclass(frozen=True)
class Cuts:
    """Where a log is cut in time, as keys.

    Rows from `valid` on are valid, from `test` on test, above `newest` immature, from `as_of` on as if they were not
    there yet; rows in [cut - gap, cut) belong to no part.
    """

    valid: int
    test: int
    newest: int
    gap: int
    as_of: int | None = None

    def parts(self, keys: Ints) -> Codes:
        """Part of each key: train, valid, test, gap, immature or after the as-of date."""
        result = np.full(len(keys), TRAIN, np.uint8)
        result[keys >= self.valid] = VALID
        result[keys >= self.test] = TEST
        if self.gap:
            for cut in (self.valid, self.test):
                result[(keys >= cut - self.gap) & (keys < cut)] = GAP
        result[keys > self.newest] = IMMATURE
        if self.as_of is not None:
            result[keys >= self.as_of] = AFTER
        return result


def time_cuts(keys: Keys, key: TimeKey, as_of: str | int | None = None) -> Cuts:
    """The cuts of a time split; passes over the keys several times, in constant memory.

    A share is cut where the number of newer rows comes closest to it without dividing rows of one instant. Labels
    mature until `as_of`, or until the newest row where none is given.

    Raises:
        ConfigError: durations or dates for a column of numbers, or a cut for valid that is not before the one for test.
        DataError: all rows are of one instant.
    """
    split = key.split
    assert isinstance(split, TimeSplit), "only a split by time is cut"
    low, high = _range(keys)
    moment = None if as_of is None else key.instant(as_of)
    if moment is not None and moment <= low:
        raise ConfigError(
            f'data.as_of = "{as_of}" leaves no row: the oldest "{split.column}" is {key.shown(low)}'
        )
    newest = high if moment is None else min(high, moment - 1)
    if split.label_matures_after:
        newest = min(newest, (high if moment is None else moment) - key.duration(split.label_matures_after))
    gap = key.duration(split.gap) if split.gap else 0
    rows = _below(keys, newest + 1)
    test = _cut(keys, key, split.test, newest, newest + 1, rows)
    valid = _cut(keys, key, split.valid, test - 1, test, rows)
    if not low < valid < test:
        raise DataError(
            f'schema split: train, valid and test need three separate stretches of "{split.column}", found rows from '
            f"{key.shown(low)} to {key.shown(high)}, valid from {key.shown(valid)}, test from {key.shown(test)}"
        )
    return Cuts(valid, test, newest, gap, moment)


def _cut(keys: Keys, key: TimeKey, size: float | int | str, newest: int, end: int, rows: int) -> int:
    """First key of the part that ends before `end`: a share of `rows`, a duration up to `end`, or an instant."""
    if isinstance(size, float):
        return _share_cut(keys, newest, _below(keys, end) - round(size * rows))
    if isinstance(size, str) and parse_duration(size) is not None:
        return end - key.duration(size)
    return key.instant(size)


def _share_cut(keys: Keys, newest: int, before: int) -> int:
    """The cut with as nearly `before` rows before it as whole instants allow, and with at least one after it."""
    rows = _below(keys, newest + 1)
    before = min(max(before, 1), max(rows - 1, 0))
    at = _at_rank(keys, newest, before)
    fewer, more = _below(keys, at), _below(keys, at + 1)
    if more < rows and (fewer == 0 or more - before < before - fewer):
        return min(int(batch[batch > at].min()) for batch in keys() if (batch > at).any())
    return at


def _range(keys: Keys) -> tuple[int, int]:
    ends = [(int(batch.min()), int(batch.max())) for batch in keys() if len(batch)]
    return min(low for low, _ in ends), max(high for _, high in ends)


def _below(keys: Keys, limit: int) -> int:
    return sum(int((batch < limit).sum()) for batch in keys())


def _at_rank(keys: Keys, high: int, rank: int) -> int:
    """The key of `rank` (from 0) among the sorted keys up to `high`, by histograms of ever finer buckets."""
    low = _range(keys)[0]
    while low < high:
        width = (high - low) // _BUCKETS + 1
        counts = np.zeros(_BUCKETS, np.int64)
        for batch in keys():
            inside = batch[(batch >= low) & (batch <= high)]
            # Differences of int64 may pass 2^63; as uint64 they wrap to the right value.
            steps = (inside.view(np.uint64) - np.array([low], np.int64).view(np.uint64)) // np.uint64(width)
            counts += np.bincount(steps.astype(np.int64), minlength=_BUCKETS)
        total = np.cumsum(counts)
        bucket = int(np.searchsorted(total, rank, side="right"))
        rank -= int(total[bucket] - counts[bucket])
        low, high = low + bucket * width, min(high, low + (bucket + 1) * width - 1)
    return low


def windows(batches: Iterable[tuple[Ints, Codes]], key: TimeKey) -> dict[str, list[str | int | float]]:
    """First and last time of each part."""
    found: dict[int, tuple[int, int]] = {}
    for keys, parts in batches:
        for part in (TRAIN, VALID, TEST):
            chosen = keys[parts == part]
            if len(chosen):
                low, high = found.get(part, (int(chosen[0]), int(chosen[0])))
                found[part] = min(low, int(chosen.min())), max(high, int(chosen.max()))
    return {PARTS[part]: [key.shown(low), key.shown(high)] for part, (low, high) in sorted(found.items())}
