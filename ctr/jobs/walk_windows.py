"""The windows of a walk forward: where each begins and ends, and the dataset whose test part it is.

Window k is [start + k step, start + (k + 1) step); the end of the log may cut the last one short, by half at most. Its
dataset ends with it: the window is test, what lies before is train and valid, cut as the schema says. So the rows of a
window are train rows of later windows, and test rows of no other.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.config import Config
from ctr.dataset.ingest import planned
from ctr.dataset.schema import Schema, load_schema
from ctr.dataset.split_keys import TimeKey
from ctr.dataset.split_spec import TimeSplit, parse_duration
from ctr.dataset.store import Dataset, PartName
from ctr.errors import ConfigError
from ctr.jobs.comparison_config import WalkForward

_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}  # in a second
_SECTION = "walk_forward"


@dataclass(frozen=True)
class Window:
    """A stretch of a log. `first` and `end`: as the schema states instants; rows at `end` belong to the next one.

    age: seconds from `start` to `first`; None where the time column has no unit. schema: cut for this window.
    as_of: from when on rows are as if they were not there yet.
    """

    number: int
    first: str | int
    end: str | int
    age: float | None
    schema: Schema
    as_of: str | int

    def build(self, run: Config) -> Dataset:
        """Ingest the log for it, unless that was done before."""
        with planned(
            self.schema, run.data.input, Path(run.data.folder), encoding=run.data.encoding, as_of=self.as_of
        ) as plan:
            return Dataset(plan.build())


def windows_of(run: Config, walk: WalkForward) -> list[Window]:
    """The windows of a log, oldest first; the log is ingested as its own schema says, to know its times.

    Raises:
        ConfigError: the log is not split by time, its times are no whole numbers, or it is too short for the windows.
    """
    schema = load_schema(run.data.schema_file)
    split = _time_split(schema, run.data.schema_file)
    with planned(
        schema, run.data.input, Path(run.data.folder), encoding=run.data.encoding, as_of=run.data.as_of
    ) as plan:
        dataset = Dataset(plan.build())
    key = TimeKey(split, kind=_kind(dataset, split.column))
    parts: tuple[PartName, ...] = ("train", "valid", "test")
    times = np.sort(
        pl.concat([dataset.scanned(part).select("@time") for part in parts]).collect()["@time"].to_numpy()
    )
    edges = _edges(walk, key, times)
    return [_window(number, edges, schema, key, walk) for number in range(walk.windows)]


def _time_split(schema: Schema, path: str) -> TimeSplit:
    if not isinstance(schema.split, TimeSplit):
        raise ConfigError(
            f'{_SECTION}: schema "{path}" splits by = "{schema.split.by}"; a walk forward needs a log with time: '
            'expected [split] by = "time" and column, the one that says when a row was shown; or leave the section out'
        )
    if _is_instant(schema.split.valid):
        raise ConfigError(
            f'{_SECTION}: schema "{path}" states split.valid = "{schema.split.valid}", an instant, which cannot move '
            'with the windows; expected a share (0.1) or a duration ("1d")'
        )
    return schema.split


def _is_instant(size: float | int | str) -> bool:
    return not isinstance(size, float) and not (isinstance(size, str) and parse_duration(size) is not None)


def _kind(dataset: Dataset, column: str) -> Any:
    first = dataset.manifest["window"]["train"][0]
    if isinstance(first, float):
        raise ConfigError(
            f'{_SECTION}: "{column}" holds numbers with a fraction; expected times or whole numbers, which [derive] '
            "can make of them"
        )
    return "datetime" if isinstance(first, str) else "integer"


def _edges(walk: WalkForward, key: TimeKey, times: npt.NDArray[np.int64]) -> list[int]:
    """The keys at which windows begin, and the one at which the last one ends.

    Raises:
        ConfigError: the log ends before the last window does, or begins after its first.
    """
    low, high = int(times[0]), int(times[-1])
    if isinstance(walk.start, float):
        start = int(times[min(round(walk.start * len(times)), len(times) - 1)])
    else:
        start = key.instant(walk.start)
    if isinstance(walk.step, float):
        rank, stride = int(np.searchsorted(times, start)), round(walk.step * len(times))
        ranks = [rank + stride * number for number in range(walk.windows + 1)]
        whole = (len(times) - rank) // max(stride, 1)
        # The last window may end with the newest row.
        edges = [high + 1 if at == len(times) else int(times[at]) for at in ranks if at <= len(times)]
    else:
        step = _step(walk, key)
        whole = (2 * (high + 1 - start) + step) // (2 * step)
        edges = [start + step * number for number in range(min(walk.windows, whole) + 1)]
    if start <= low or whole < walk.windows or len(set(edges)) != walk.windows + 1:
        raise ConfigError(
            f"{_SECTION}: expected {walk.windows} windows of {walk.step} from {key.shown(start)} on, within the rows "
            f'from {key.shown(low)} to {key.shown(high)} of "{key.column}"; found room for {max(whole, 0)}: state '
            "another start, fewer windows or a shorter step"
        )
    return edges


def _step(walk: WalkForward, key: TimeKey) -> int:
    """The length of a window in what keys count."""
    if isinstance(walk.step, str) and key.kind == "integer" and walk.unit is not None:
        found = parse_duration(walk.step)
        assert found is not None, "the configuration has checked it"
        return round(found.total_seconds() * _UNITS[walk.unit])
    if isinstance(walk.step, str):
        if key.kind == "integer":
            raise ConfigError(
                f'{_SECTION}.step = "{walk.step}" is a duration, but "{key.column}" holds numbers: state '
                f'{_SECTION}.unit ("s" for seconds since 1970), or a step that is a number or a share of the rows'
            )
        return key.duration(walk.step)
    if key.kind == "datetime":
        raise ConfigError(
            f'{_SECTION}.step = {walk.step}: "{key.column}" holds times; expected a duration ("1d") or a share (0.1)'
        )
    return int(walk.step)


def _window(number: int, edges: list[int], schema: Schema, key: TimeKey, walk: WalkForward) -> Window:
    first, end = edges[number], edges[number + 1]
    assert isinstance(schema.split, TimeSplit)
    wait = schema.split.label_matures_after
    # Rows of a window have ripened by the time that they are judged: the log is as it was so much later.
    later = key.duration(wait) - 1 if wait else 0
    split = schema.split.model_copy(update={"test": _stated(key, first)})
    return Window(
        number,
        _stated(key, first),
        _stated(key, end),
        _seconds(first - edges[0], key, walk),
        schema.model_copy(update={"split": split}),
        _stated(key, end + later),
    )


def _seconds(keys: int, key: TimeKey, walk: WalkForward) -> float | None:
    if key.kind == "datetime":
        return keys / _UNITS["us"]
    return None if walk.unit is None else keys / _UNITS[walk.unit]


def _stated(key: TimeKey, at: int) -> str | int:
    shown = key.shown(at)
    assert not isinstance(shown, float)
    return shown
