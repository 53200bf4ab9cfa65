"""Side tables at scoring: embedded in the bundle, read from a path, or expected as columns of the rows themselves."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

import polars as pl

from ctr.dataset.inputs import located
from ctr.dataset.personal import Personal
from ctr.dataset.preparation import side_table_path
from ctr.dataset.schema import Join, Schema
from ctr.errors import ConfigError, CtrError, DataError

Place = Literal["bundle", "path", "row"]


def attributes(join: Join, columns: Sequence[str]) -> list[str]:
    """A side table's columns without its key and its time."""
    return [name for name in columns if name not in (join.on, join.time)]


def joined_from(schema: Schema, places: Collection[Place]) -> Schema:
    """The schema with those joins alone that find their table in one of `places`.

    The attributes of all others are columns of the rows then.
    """
    return schema.model_copy(update={"joins": [join for join in schema.joins if join.at_scoring in places]})


def embedded(schema: Schema, join: Join, number: int) -> Join:
    """The join of a bundle's schema that reads the embedded table of that number."""
    return Join(
        input=side_table_path(number),
        on=join.on,
        time=join.time,
        log_time=schema.log_time(join),
        max_age=join.max_age,
        format="parquet",
    )


def check_paths(schema: Schema, folder: Path) -> None:
    """Refuse to read side tables from outside the bundle, for a caller who has not said that it may.

    A bundle from elsewhere could name any file or address that whoever scores with it can reach.

    Raises:
        ConfigError: the bundle has such a side table.
    """
    for join in schema.joins:
        if join.at_scoring == "path":
            raise ConfigError(
                f'bundle "{folder}" reads a side table from outside, "{join.input[:200]}": if you trust the bundle, '
                "add --allow-paths (in Python allow_paths=True, in an evaluation's TOML allow_paths = true)"
            )


def table_at_path(join: Join, personal: Personal, folder: Path) -> pl.DataFrame:
    """The side table that a bundle reads from where its join says, relative to the working directory.

    Args:
        join: of the bundle's schema.
        personal: what replaces personal cells.
        folder: of the bundle, for messages.

    Raises:
        ConfigError, DataError: it is not there, or cannot be read.
    """
    where = f'bundle "{folder}" reads a side table when a scorer is made'
    try:
        with located(join.input, "join") as sources:
            if len(sources) != 1:
                raise ConfigError(f'join "{join.input}": expected one file, found {len(sources)}')
            table, bad = personal.side_table(sources[0], join.read)
    except CtrError as error:
        raise type(error)(f"{where}: {error}") from None
    if bad.height > join.read.max_bad_rows * (table.height + bad.height):
        raise DataError(
            f'{where}: join "{join.input}": {bad.height} of {table.height + bad.height} rows break its format'
        )
    return table
