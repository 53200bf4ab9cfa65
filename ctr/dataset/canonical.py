"""One text per value, whatever file it came from: 1, "1" and 1.0 are the same value of a categorical field.

Used alike for counting, encoding and scoring. None of it depends on the Polars version.
"""

import numpy as np
import polars as pl
import pyarrow as pa

from ctr.errors import ConfigError, DataError

_LARGEST = float(2**63)


def text(values: pl.Series) -> pl.Series:
    """Canonical text, null where missing.

    Text stays as it is, empty text is missing; integers in decimal; floats that are whole numbers as integers,
    others in the shortest form that reads back the same, NaN missing; `true`/`false`; ISO dates and times, UTC
    where zoned.

    Raises:
        DataError: the column holds structs or bytes.
    """
    dtype = values.dtype
    if dtype == pl.String:
        empty = values == ""
        return values.set(empty, None) if empty.any() else values
    if dtype.is_float():
        return _float_text(values.cast(pl.Float64))
    if dtype == pl.Date:
        return values.dt.strftime("%Y-%m-%d")
    if isinstance(dtype, pl.Datetime):
        zoned = dtype.time_zone is not None
        utc = values.dt.convert_time_zone("UTC") if zoned else values
        return utc.dt.strftime("%Y-%m-%dT%H:%M:%S%.f" + ("Z" if zoned else ""))
    if (
        dtype.is_integer()
        or dtype in (pl.Boolean, pl.Null, pl.Time)
        or isinstance(dtype, (pl.Categorical, pl.Enum))
    ):
        return text(values.cast(pl.String))
    if isinstance(dtype, pl.Decimal):
        return _float_text(values.cast(pl.Float64))
    raise DataError(f'column "{values.name}": expected text, numbers, booleans or dates, found {dtype}')


def _float_text(values: pl.Series) -> pl.Series:
    whole = (values == values.floor()) & (values.abs() < _LARGEST)
    result = values.set(~whole, None).cast(pl.Int64).cast(pl.String)
    rest = values.set(whole | values.is_nan(), None)
    if rest.null_count() == len(rest):
        return result
    distinct = rest.unique().drop_nulls()
    # Python writes the shortest text that reads back the same, in every version.
    return result.zip_with(
        whole | rest.is_null(), rest.replace_strict(distinct, [repr(v) for v in distinct], default=None)
    )


def lists(values: pl.Series, separator: str | None, field: str) -> pl.Series:
    """Lists of canonical text; missing items are dropped, an empty list is null.

    Raises:
        DataError: text without a `separator` to cut it at, or items that have no canonical text.
    """
    if values.null_count() == len(values):
        return pl.Series(values.name, [None] * len(values), dtype=pl.List(pl.String))
    if isinstance(values.dtype, pl.Array):
        values = values.arr.to_list()
    if not isinstance(values.dtype, pl.List):
        if separator is None:
            raise ConfigError(f'schema: field "{field}" is a list of text: it needs separator = "..."')
        values = text(values).str.split(separator)
    array = values.rechunk().to_arrow()
    items = text(pl.Series("item", array.flatten()))
    kept = items.is_not_null().to_numpy()
    lengths = np.bincount(array.value_parent_indices().to_numpy()[kept], minlength=len(values))
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    grouped = pa.LargeListArray.from_arrays(
        pa.array(offsets), items.drop_nulls().rechunk().to_arrow(), mask=pa.array(lengths == 0)
    )
    # Polars 1.40 reads lists of text from an Arrow table, but not from an Arrow array.
    return pl.DataFrame(pa.table({"lists": grouped}))["lists"].rename(values.name)


def numbers(values: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Float64 with NaN as null, and which cells are no finite number (they are null as well).

    Text must be a decimal number, blanks around it are allowed; "nan" is missing, "inf" is no number.
    """
    dtype = values.dtype
    if dtype == pl.String:
        found = values.cast(pl.Float64, strict=False)
        if found.null_count() > values.null_count():
            found = values.str.strip_chars().cast(pl.Float64, strict=False)
    elif dtype.is_numeric() or dtype in (pl.Boolean, pl.Null):
        found = values.cast(pl.Float64)
    else:
        found = pl.Series(values.name, [None] * len(values), dtype=pl.Float64)
    infinite = found.is_infinite()
    if found.null_count() == values.null_count() and not infinite.any():
        bad = pl.Series(values.name, [False]).new_from_index(0, len(values))
    else:
        bad = infinite.fill_null(False) | (found.is_null() & values.is_not_null())
        if dtype == pl.String:
            bad &= values.fill_null("").str.strip_chars() != ""
        found = found.set(bad, None)
    return found.fill_nan(None), bad
