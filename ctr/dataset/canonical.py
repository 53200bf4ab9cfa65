"""One text per value, whatever file it came from: 1, "1" and 1.0 are the same value of a categorical field.

Used alike for counting, encoding and scoring. None of it depends on the Polars version.
"""

import math
from collections.abc import Collection, Iterable

import numpy as np
import polars as pl
import pyarrow as pa

from ctr.dataset.arrow_arrays import as_arrow, as_numpy, lengths_of
from ctr.errors import ConfigError, DataError

_LARGEST = float(2**63)
_WIDE = (pl.List(pl.Int128), pl.List(pl.UInt128))  # Arrow has no such integers


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
        # Lengths are there, so that this is several times cheaper than comparing texts.
        return values.set(values == "", None) if values.str.len_bytes().min() == 0 else values
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
    raise DataError(
        f'column "{values.name}": expected text, numbers, booleans or dates, found {str(dtype)[:100]}'
    )


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


def lists(values: pl.Series, separator: str | None, field: str, missing: Collection[str] = ()) -> pl.Series:
    """Lists of canonical text; missing items (also those of `missing`) are dropped, an empty list is null.

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
    if values.dtype in _WIDE:
        values = values.cast(pl.List(pl.String))
    array = values.rechunk().to_arrow()
    items = without(text(pl.Series("item", array.flatten())), missing)
    kept = items.is_not_null().to_numpy()
    lengths = np.bincount(as_numpy(array.value_parent_indices())[kept], minlength=len(values))
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    grouped = pa.LargeListArray.from_arrays(
        as_arrow(offsets), items.drop_nulls().rechunk().to_arrow(), mask=as_arrow(lengths == 0)
    )
    # Polars 1.40 reads lists of text from an Arrow table, but not from an Arrow array.
    return pl.DataFrame(pa.table({"lists": grouped}))["lists"].rename(values.name)


def without(values: pl.Series, missing: Collection[str]) -> pl.Series:
    """Canonical text with null where it is one of `missing`, canonical texts as well."""
    found = values.is_in(list(missing)) if missing else None
    return values if found is None or not found.any() else values.set(found.fill_null(False), None)


def texts(cells: Iterable[object]) -> frozenset[str]:
    """The canonical texts of single cells, such as the -1 of `missing_values`; empty text has none."""
    found = (text(pl.Series("cell", [cell]))[0] for cell in cells)
    return frozenset(value for value in found if value is not None)


def vectors(values: pl.Series, size: int, separator: str | None, field: str) -> tuple[pl.Series, pl.Series]:
    """Vectors of `size` finite numbers, null where missing, and which cells are none (they are null as well).

    Raises:
        ConfigError: text without a `separator` to cut it at.
        DataError: neither lists nor text.
    """
    if isinstance(values.dtype, pl.Array):
        values = values.arr.to_list()
    if values.dtype == pl.String:
        if separator is None:
            raise ConfigError(f'schema: field "{field}" is a vector of text: it needs separator = "..."')
        values = text(values).str.split(separator)
    if values.dtype == pl.Null:
        values = values.cast(pl.List(pl.Float64))
    if not isinstance(values.dtype, pl.List):
        raise DataError(f'field "{field}": expected vectors of {size} numbers, found {values.dtype}')
    if values.dtype in _WIDE:
        values = values.cast(pl.List(pl.Float64))
    array = values.rechunk().to_arrow()
    lengths = lengths_of(values)  # (rows,)
    flat, unusable = numbers(pl.Series("item", array.flatten()))
    row = np.repeat(np.arange(len(values)), lengths)
    wrong = np.bincount(row[(unusable | flat.is_null()).to_numpy()], minlength=len(values)) > 0
    broken = (lengths > 0) & (wrong | (lengths != size))
    whole = (lengths > 0) & ~broken
    result = np.zeros((len(values), size), np.float32)
    with np.errstate(over="ignore"):  # a number beyond float32 is infinite
        result[whole] = flat.to_numpy()[whole[row]].reshape(-1, size)
    found = pl.Series(values.name, result, dtype=pl.Array(pl.Float32, size))
    return found.set(pl.Series(~whole), None) if not whole.all() else found, pl.Series(broken)


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
    # Where the sum is finite, so is each number: one pass in the common case.
    if found.null_count() == values.null_count() and math.isfinite(found.sum()):
        return found, pl.Series(values.name, [False]).new_from_index(0, len(values))
    bad = found.is_infinite().fill_null(False) | (found.is_null() & values.is_not_null())
    if dtype == pl.String:
        bad &= values.fill_null("").str.strip_chars() != ""
    return found.set(bad, None).fill_nan(None), bad
