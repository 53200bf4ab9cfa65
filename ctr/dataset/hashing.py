"""Features -> 64-bit keys -> rows of a table: the same numbers in every version, on every platform, for ever.

A key is the xxhash64 of UTF-8 bytes: the field's name, one byte that says what it is, and the value's canonical text.
The name keeps fields apart, so adding, removing or reordering fields moves no key of another field:

    value     name 00 text        (a field's text is never empty)
    missing   name 00
    unknown   name 01
    number    name 02             the one feature of a scaled or a vector field

Row numbers come from the upper 62 bits of a key in two halves of 31, high and low (Carter & Wegman, 1979):

    h_k(key) = (a_k * high + b_k * low + c_k) mod (2^31 - 1)              row = h_k(key) mod rows

Signed 64-bit products of such halves never overflow, so that NumPy, PyTorch and ONNX compute the same. a_k, b_k, c_k
are words of xxhash64 for each lookup k; any two lookups are independent of each other.
"""

from functools import cache

import numpy as np
import numpy.typing as npt
import polars as pl
import polars_hash as plh
from xxhash import xxh64_intdigest

Keys = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

PRIME = 2**31 - 1
_MARKS = {"missing": "\x00", "unknown": "\x01", "number": "\x02"}


def hashes(values: pl.Series) -> Keys:
    """xxhash64 of each text, the same in every version."""
    found: Keys = values.to_frame("value").select(plh.col("value").nchash.xxhash64()).to_series().to_numpy()
    return found


def value_keys(field: str, values: pl.Series) -> Keys:
    """Keys of canonical texts; null is missing.

    Args:
        field: the field's name, or that of the field whose features it shares.
        values: text.
    """
    missing = _MARKS["missing"]
    return hashes((f"{field}{missing}" + values.cast(pl.String).fill_null("")).alias("value"))


def value_key(field: str, text: str) -> int:
    """Key of one canonical text, as `value_keys` gives it.

    Raises:
        UnicodeEncodeError: the text holds a lone surrogate, which UTF-8 cannot say.
    """
    return xxh64_intdigest(f"{field}{_MARKS['missing']}{text}".encode())


def role_key(field: str, role: str) -> int:
    """Key of what is no value of a field: missing, unknown, or the number of a scaled or a vector field."""
    return int(hashes(pl.Series("value", [f"{field}{_MARKS[role]}"]))[0])


def vocabulary_keys(vocabulary: pl.DataFrame) -> Keys:
    """(V,) keys of features: field, role, value. A `value` without text is the number of its field."""
    found = np.empty(vocabulary.height, np.uint64)
    numbered = vocabulary.select("field", "role", "value").with_row_index("@")
    for (field, role), group in numbered.group_by("field", "role"):
        at = group["@"].to_numpy()
        if role != "value":
            found[at] = role_key(str(field), str(role))
            continue
        nameless = group["value"].is_null().to_numpy()
        found[at[nameless]] = role_key(str(field), "number")
        found[at[~nameless]] = value_keys(str(field), group["value"].drop_nulls())
    return found


@cache
def multipliers(lookup: int) -> tuple[int, int, int]:
    """a, b and c of a lookup, from 0."""
    words = hashes(pl.Series("value", [f"lookup {lookup} {letter}" for letter in "abc"]))
    a, b, c = (int(word >> np.uint64(2)) % (PRIME - 1) + 1 for word in words)
    return a, b, c


def halves(keys: Keys) -> tuple[Ints, Ints]:
    """High and low 31 bits of the upper 62 bits of each key."""
    upper = (keys >> np.uint64(2)).astype(np.int64)
    return upper >> 31, upper & PRIME


def spread(high: Ints, low: Ints, lookup: int) -> Ints:
    """`h_k` of keys in halves: numbers below 2^31 - 1, of their shape."""
    a, b, c = multipliers(lookup)
    return (a * high + b * low + c) % PRIME
