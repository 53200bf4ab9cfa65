"""How weights are stored: float32 as they were trained, rounded to float16, or to int8 with a scale for each row.

    int8    value = scale * whole number from -127 to 127,  scale = largest absolute value of the row / 127

A row runs along the last axis: a feature's in a table, what one output reads in a dense layer. Numbers are rounded to
the nearest, so a row of zeros stays one, row 0 of a table among them. Vectors (biases, norms) stay float32; they weigh
nothing. So does float16 what int8 would not make smaller: rows of up to four numbers.

Shapes: ... any leading axes, N numbers of a row.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ctr.errors import CtrError

Dtype = Literal["float32", "float16", "int8"]
Arrays = Mapping[str, npt.NDArray[Any]]
SCALE = ".scale"  # after the name of an int8 tensor
TABLES = ("table", "table.second", "crosses.memory", "crosses.factors", "crosses.factors.second")

_LARGEST = 127


def stored(weights: Arrays, dtype: Dtype) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a bundle: those of a network (..., N), and scales (..., 1) of the int8 ones.

    Raises:
        CtrError: a weight is too large for float16.
    """
    found: dict[str, npt.NDArray[Any]] = {}
    for name, array in weights.items():
        if dtype == "float32" or array.dtype != np.float32 or array.ndim < 2:
            found[name] = array
        elif dtype == "int8" and array.shape[-1] > 4:
            found[name], found[name + SCALE] = _scaled(array)
        else:
            found[name] = _halved(name, array)
    return found


def restored(tensors: Arrays) -> dict[str, npt.NDArray[Any]]:
    """The weights that stored tensors stand for, in float32: what a bundle's graph computes with."""
    found = {}
    for name, array in tensors.items():
        if name + SCALE in tensors:
            array = array.astype(np.float32) * tensors[name + SCALE]
        if not name.endswith(SCALE):
            found[name] = array.astype(np.float32) if array.dtype == np.float16 else array
    return found


def table_bytes(tensors: Arrays, *, zeros: bool = False) -> int:
    """Bytes of all tables with their scales, with `zeros` those of the rows that dropped features read as well."""
    names = {f"{table}.weight{end}" for table in TABLES for end in ("", SCALE)}
    first = 0 if zeros else 1
    return sum(array[first:].nbytes for name, array in tensors.items() if name in names)


def _scaled(array: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    scales = np.abs(array).max(axis=-1, keepdims=True, initial=0.0) / np.float32(_LARGEST)
    # A scale that is no normal number has lost its digits: such a row is zero for all that float32 can tell.
    scales = np.where(scales < np.finfo(np.float32).tiny, np.float32(0.0), scales)
    whole = np.rint(array / np.where(scales > 0.0, scales, np.float32(1.0)))
    whole = np.where(scales > 0.0, np.clip(whole, -_LARGEST, _LARGEST), 0.0)
    return whole.astype(np.int8), scales.astype(np.float32)


def _halved(name: str, array: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if not np.isfinite(half).all():
        raise CtrError(
            f'export: "{name}" holds {np.abs(array).max():g}, more than float16 can; use export.dtype = "float32"'
        )
    return half
