"""Side tables: attributes of users or items, joined to the rows of a log by a key, and by time where they have one."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import polars as pl

from ctr.dataset import canonical
from ctr.dataset.bad_rows import QuotingError
from ctr.dataset.schema import Join
from ctr.dataset.split_keys import TimeKey
from ctr.dataset.split_spec import TimeSplit, parse_duration
from ctr.errors import ConfigError, DataError, nearest

_MICROSECONDS = 1_000_000


class Partners(NamedTuple):
    """How the rows of a chunk fared in one join.

    alone: rows without a partner. too_old: those among them whose partner is older than `max_age` allows.
    strangers: those among them whose key the side table lacks. newest: the latest time of a row. example: a key.
    """

    alone: int = 0
    too_old: int = 0
    strangers: int = 0
    newest: int | None = None
    example: str | None = None

    def plus(self, other: "Partners") -> "Partners":
        """Of both chunks together."""
        times = [time for time in (self.newest, other.newest) if time is not None]
        return Partners(
            self.alone + other.alone,
            self.too_old + other.too_old,
            self.strangers + other.strangers,
            max(times, default=None),
            self.example or other.example,
        )


class SideTable:
    """One side table, ready to be joined.

    Args:
        join: the schema's entry.
        table: its key, its time where it has one, and its attributes.
        log_time: the log's column of times that a join in time goes by.
        timezone: of times that do not say.

    Raises:
        DataError: key or time is missing, or two rows are of one key (and instant).
        ConfigError: `max_age` for times that are numbers.
    """

    def __init__(self, join: Join, table: pl.DataFrame, log_time: str | None, timezone: str) -> None:
        self.join, self.log_time = join, log_time
        self._where = f'join "{join.input}"'
        for name in (join.on, join.time):
            if name is not None and name not in table.columns:
                what = "key column" if name == join.on else "time column"
                raise DataError(f'{self._where}: has no {what} "{name}"{nearest(name, table.columns)}')
        key = canonical.text(table[join.on]).alias("@on")
        self._split = TimeSplit(by="time", column=log_time or join.on, timezone=timezone)
        self.kind: str | None = None
        extra = [key, pl.lit(True).alias("@found")]
        if join.time is not None:
            extra += [self._times(table[join.time]).alias("@time"), table[join.time].alias("@as_read")]
        hidden = [name for name in (join.on, join.time) if name is not None]
        keyed = table.drop(hidden).with_columns(extra).filter(pl.col("@on").is_not_null())
        self.attributes = [name for name in keyed.columns if not name.startswith("@")]
        instants = ["@on"] if join.time is None else ["@on", "@time"]
        twice = keyed.filter(pl.struct(instants).is_duplicated())["@on"]
        if len(twice):
            one = f'one row per "{join.on}"' + (f' and "{join.time}"' if join.time else "")
            message = f"{self._where}: expected {one}, found several"
            raise QuotingError(f'{message}, for example of "{twice[0]}"', message)
        self._table = keyed.sort("@time") if join.time else keyed
        self._keys = keyed.select("@on").unique()
        self._max_age = self._microseconds(join.max_age) if join.max_age else None

    def _times(self, values: pl.Series) -> pl.Series:
        key = TimeKey(self._split)
        found, broken = key.parse(values)
        self.kind = key.kind
        if broken is not None:
            raise DataError(
                f'{self._where}: {int(broken.sum())} of {len(values)} rows have no usable time in "{self.join.time}"; '
                "correct them or leave them out"
            )
        return found

    def _microseconds(self, text: str) -> int:
        found = parse_duration(text)
        assert found is not None, "the schema has checked it"
        if self.kind != "datetime":
            raise ConfigError(
                f'{self._where}: max_age = "{text}" is a duration, but "{self.join.time}" holds numbers, which have no '
                "unit; give both files times"
            )
        return int(found.total_seconds() * _MICROSECONDS)

    def shown(self, time: int) -> str | int | float:
        """A time as messages show it."""
        key = TimeKey(self._split)
        key.kind = self.kind  # type: ignore[assignment]  # one of the kinds of a TimeKey
        return key.shown(time)

    @property
    def earliest(self) -> int | None:
        """The time of its oldest row."""
        return int(self._table["@time"][0]) if self.join.time and self._table.height else None

    def partnered(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, Partners]:
        """`frame` with the attributes, null where a row finds no partner, and how its rows fared.

        Raises:
            DataError: the log's times are numbers and the side table's are not, or the other way round.
        """
        key = canonical.text(frame[self.join.on]).alias("@on")
        newest = None
        if self.log_time is None:
            joined = frame.with_columns(key).join(self._table, on="@on", how="left", maintain_order="left")
            too_old = 0
        else:
            times = self._log_times(frame[self.log_time])
            joined, too_old = self._latest(frame.with_columns(key, times.alias("@at")))
            newest = times.max()
        missing = joined["@found"].is_null()
        strangers = joined.filter(missing).join(self._keys, on="@on", how="anti").height
        present = joined["@on"].drop_nulls()
        partners = Partners(
            int(missing.sum()),
            too_old,
            strangers,
            None if newest is None else int(newest),  # type: ignore[arg-type]  # the largest of integers
            str(present[0]) if len(present) else None,
        )
        return joined.select(*frame.columns, *self.attributes), partners

    def _log_times(self, values: pl.Series) -> pl.Series:
        """(rows,) Int64 keys comparable with the side table's; null where a row has no usable time."""
        if values.dtype.is_temporal() != (self.kind == "datetime") and values.dtype not in (
            pl.String,
            pl.Null,
        ):
            raise self._other_kind()
        if self.kind == "integer":
            found = _next_whole(values)
        else:
            key = TimeKey(self._split)
            key.kind = self.kind  # type: ignore[assignment]  # one of the kinds of a TimeKey
            parsed, wrong = key.parse(values)
            found = parsed if wrong is None else parsed.set(wrong, None)
        if found.null_count() == len(found) and values.null_count() < len(values):
            raise self._other_kind()
        return found

    def _other_kind(self) -> DataError:
        expected = "times" if self.kind == "datetime" else "numbers"
        other = "numbers or other text" if self.kind == "datetime" else "times or other text"
        return DataError(
            f'{self._where}: "{self.join.time}" holds {expected}, but "{self.log_time}" of the log holds {other}; '
            "both must be of one kind"
        )

    def _latest(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, int]:
        """Each row with the latest row of its key strictly before it, unless that is too old; and how many were."""
        numbered = frame.with_row_index("@number")
        usable = numbered.filter(pl.col("@at").is_not_null() & pl.col("@on").is_not_null()).sort("@at")
        found = usable.select("@number", "@on", "@at").join_asof(
            self._table,
            left_on="@at",
            right_on="@time",
            by="@on",
            strategy="backward",
            allow_exact_matches=False,
            check_sortedness=False,
        )
        too_old = 0
        if self._max_age is not None:
            late = (found["@at"] - found["@time"] > self._max_age).fill_null(False)
            too_old = int(late.sum())
            found = found.filter(~late)
        found = found.drop("@on", "@at")
        return numbered.join(found, on="@number", how="left", maintain_order="left"), too_old

    def frame(self, columns: Collection[str]) -> pl.DataFrame:
        """The table again, with its key, its time and those attributes that are among `columns`."""
        kept = [name for name in self.attributes if name in columns]
        time = [pl.col("@as_read").alias(self.join.time)] if self.join.time else []
        return self._table.select(pl.col("@on").alias(self.join.on), *time, *kept)


def _next_whole(values: pl.Series) -> pl.Series:
    """The smallest integer that is not below each number: strictly before 7.5 is strictly before 8.

    Integers stay as they are, however long; null where there is no number.
    """
    if values.dtype.is_integer():
        return values.cast(pl.Int64)
    whole = values.str.strip_chars().cast(pl.Int64, strict=False) if values.dtype == pl.String else None
    above = canonical.numbers(values)[0].ceil().cast(pl.Int64, strict=False)
    return above if whole is None else whole.fill_null(above)


class SideTables:
    """The side tables of a schema, in order; a later one may be keyed by an attribute of an earlier one.

    Args:
        joins: the schema's entries.
        tables: a frame for each: its key column, its time and its attributes.
        columns: the columns of the log.
        log_times: per entry the log's column of times, None where it is not joined in time.
        timezone: of times that do not say.

    Raises:
        DataError: a key or time column is missing, a key occurs twice, or an attribute has the name of another column.
    """

    def __init__(
        self,
        joins: Sequence[Join],
        tables: Sequence[pl.DataFrame],
        columns: Sequence[str],
        log_times: Sequence[str | None] | None = None,
        timezone: str = "UTC",
    ) -> None:
        self.joins = list(joins)
        self.names = list(columns)
        self.tables: list[SideTable] = []
        times = log_times or [None] * len(self.joins)
        for join, table, time in zip(joins, tables, times, strict=True):
            for what, name in (("key", join.on), ("log_time", time)):
                if name is not None and name not in self.names:
                    raise DataError(
                        f'join "{join.input}": the {what} "{name}" is no column of the input, nor of an earlier '
                        f"side table (joins come before derive){nearest(name, self.names)}"
                    )
            side = SideTable(join, table, time, timezone)
            for name in side.attributes:
                if name in self.names:
                    raise DataError(
                        f'join "{join.input}": its column "{name}" is also a column of the input; '
                        "give the file's columns other names with columns = [...]"
                    )
            self.names += side.attributes
            self.tables.append(side)

    def needed(self, columns: Collection[str]) -> list[int]:
        """Numbers of the joins that `columns` come from, directly or through another join's key or time."""
        wanted, found = set(columns), list[int]()
        for number in reversed(range(len(self.joins))):
            if wanted & set(self.tables[number].attributes):
                found.insert(0, number)
                wanted |= self.keys([number])
        return found

    def keys(self, numbers: Sequence[int]) -> set[str]:
        """The columns that the given joins go by."""
        used = (name for number in numbers for name in (self.joins[number].on, self.tables[number].log_time))
        return {name for name in used if name is not None}

    def join(self, frame: pl.DataFrame, numbers: Sequence[int]) -> tuple[pl.DataFrame, list[Partners]]:
        """`frame` with the attributes of the given joins, and per join how the rows fared."""
        fared = [Partners()] * len(self.joins)
        for number in numbers:
            frame, fared[number] = self.tables[number].partnered(frame)
        return frame, fared

    def check(self, fared: Sequence[Partners], rows: int) -> None:
        """Refuse a join by which not one row of the log found a partner.

        Args:
            fared: per join, over the whole log.
            rows: of the log.

        Raises:
            DataError: no key is known to the side table, or all that is known of them comes after the log.
        """
        for side, partners in zip(self.tables, fared, strict=True):
            if rows == 0 or partners.alone < rows:
                continue
            where = f'join "{side.join.input}": no row of the log finds a partner'
            if partners.strangers == rows or side.join.time is None:
                known = side.frame(())[side.join.on]
                theirs = f'such as "{known[0]}"' if len(known) else "which has none"
                raise QuotingError(
                    f'{where}: the log\'s "{side.join.on}", such as "{partners.example}", is not among the keys of the '
                    f"side table, {theirs}",
                    f'{where}: the log\'s "{side.join.on}" is not among the keys of the side table',
                )
            earliest, newest = side.earliest, partners.newest
            assert earliest is not None, "there are keys, so there are rows"
            if newest is None or earliest >= newest:
                late = "no usable time" if newest is None else f"{side.shown(newest)} as its latest time"
                raise DataError(
                    f'{where}: the side table holds future rows only, from "{side.join.time}" = {side.shown(earliest)} '
                    f'on, and the log has {late} in "{side.log_time}"'
                )
            raise DataError(
                f"{where} that is old enough and not too old (max_age = {side.join.max_age!r}); "
                f"{partners.too_old} of {rows} rows have one that is too old"
            )

    def frames(self, columns: Collection[str]) -> list[pl.DataFrame]:
        """The tables again, with their key, their time and those attributes that are among `columns`."""
        return [side.frame(columns) for side in self.tables]
