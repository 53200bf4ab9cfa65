"""Side tables: attributes of users or items, joined to the rows of a log by a key."""

from collections.abc import Collection, Sequence

import polars as pl

from ctr.dataset import canonical
from ctr.dataset.schema import Join
from ctr.errors import DataError, nearest


class SideTables:
    """The side tables of a schema, in order; a later one may be keyed by an attribute of an earlier one.

    Args:
        joins: the schema's entries.
        tables: a frame for each: its key column and its attributes.
        columns: the columns of the log.

    Raises:
        DataError: a key column is missing, a key occurs twice, or an attribute has the name of another column.
    """

    def __init__(self, joins: Sequence[Join], tables: Sequence[pl.DataFrame], columns: Sequence[str]) -> None:
        self.joins = list(joins)
        self.names = list(columns)
        self._tables: list[pl.DataFrame] = []
        for join, table in zip(joins, tables, strict=True):
            if join.on not in self.names:
                raise DataError(
                    f'join "{join.input}": the key "{join.on}" is no column of the input{nearest(join.on, self.names)}'
                )
            keyed = _keyed(table, join)
            attributes = [name for name in keyed.columns if not name.startswith("@")]
            for name in attributes:
                if name in self.names:
                    raise DataError(
                        f'join "{join.input}": its column "{name}" is also a column of the input; '
                        "give the file's columns other names with columns = [...]"
                    )
            self.names += attributes
            self._tables.append(keyed)

    def needed(self, columns: Collection[str]) -> list[int]:
        """Numbers of the joins that `columns` come from, directly or through another join's key."""
        wanted, found = set(columns), list[int]()
        for number in reversed(range(len(self.joins))):
            if wanted & set(self._tables[number].columns):
                found.insert(0, number)
                wanted.add(self.joins[number].on)
        return found

    def join(self, frame: pl.DataFrame, numbers: Sequence[int]) -> tuple[pl.DataFrame, list[int]]:
        """`frame` with the attributes of the given joins, and per join the rows that found no partner."""
        unmatched = [0] * len(self.joins)
        for number in numbers:
            key = canonical.text(frame[self.joins[number].on]).alias("@on")
            frame = frame.with_columns(key).join(
                self._tables[number], on="@on", how="left", maintain_order="left"
            )
            unmatched[number] = frame["@found"].null_count()
            frame = frame.drop("@on", "@found")
        return frame, unmatched

    def frames(self, columns: Collection[str]) -> list[pl.DataFrame]:
        """The tables again, with their key and those attributes that are among `columns`."""
        return [
            table.select(pl.col("@on").alias(join.on), *(name for name in table.columns if name in columns))
            for table, join in zip(self._tables, self.joins, strict=True)
        ]


def _keyed(table: pl.DataFrame, join: Join) -> pl.DataFrame:
    """The table with its canonical key as `@on` and a flag `@found`; rows without a key are left out."""
    if join.on not in table.columns:
        raise DataError(
            f'join "{join.input}": has no key column "{join.on}"{nearest(join.on, table.columns)}'
        )
    key = canonical.text(table[join.on]).alias("@on")
    keyed = table.drop(join.on).with_columns(key, pl.lit(True).alias("@found"))
    keyed = keyed.filter(pl.col("@on").is_not_null())
    twice = keyed.filter(pl.col("@on").is_duplicated())["@on"]
    if len(twice):
        raise DataError(
            f'join "{join.input}": expected one row per "{join.on}", found several, for example of "{twice[0]}"'
        )
    return keyed
