"""The distinct values of one field's chunks, on disk, as numbers where they are short; and ids by such numbers."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ctr.dataset.scratch import Arrays
from ctr.dataset.short_texts import MOST_BYTES, packed, unpacked
from ctr.dataset.transforms import log_square

Ints = npt.NDArray[np.int64]
Ids = npt.NDArray[np.int32]
Codes = npt.NDArray[np.integer[Any]]
Kind = Literal["number", "short text", "text"]


class Dictionaries:
    """One dictionary per chunk, each value once.

    Args:
        folder: where they are kept.
        numeric: whether values are numbers.

    Attributes:
        sizes: how many values each holds.
    """

    def __init__(self, folder: Path, numeric: bool) -> None:
        self.numeric = numeric
        self._numbers = Arrays(folder / "numbers", pa.int64())
        self._texts = Arrays(folder / "texts", pa.large_string())
        self._are_numbers: list[bool] = []  # of each
        self.sizes: list[int] = []

    @property
    def kind(self) -> Kind:
        """What `read` gives: numbers, the numbers of short texts, or, where one text is long, texts."""
        return "number" if self.numeric else "text" if self._texts.there else "short text"

    def code(self, values: pl.Series) -> Codes:
        """Codes into the dictionary of the next chunk, which is written; it holds a null where the values do."""
        return self._coded(values.rechunk().to_arrow() if self.numeric else packed(values), values)

    def code_log_squares(self, values: pl.Series) -> Codes:
        """The same of the log squares of numbers, each number's taken once."""
        first = values.rechunk().to_arrow().dictionary_encode(null_encoding="encode")
        squares = log_square(pl.Series(first.dictionary, dtype=values.dtype))
        codes: Codes = self.code(squares)[first.indices.to_numpy(zero_copy_only=False)]
        return codes

    def _coded(self, numbers: pa.Array | None, values: pl.Series) -> Codes:
        array = values.rechunk().to_arrow() if numbers is None else numbers
        found = array.dictionary_encode(null_encoding="encode")
        (self._texts if numbers is None else self._numbers).append(found.dictionary)
        self._are_numbers.append(numbers is not None)
        self.sizes.append(len(found.dictionary))
        # No wider than codes have to be: they are written, and read twice.
        codes: Codes = found.indices.to_numpy(zero_copy_only=False)
        return codes.astype(np.min_scalar_type(self.sizes[-1]))

    def close(self) -> None:
        """End writing."""
        self._numbers.close()
        self._texts.close()

    def read(self, places: Iterable[int] | None = None) -> Iterator[pl.Series]:
        """Each dictionary, or those that were written at the given places, from 0; after `close`."""
        chosen = range(len(self.sizes)) if places is None else list(places)
        at = np.cumsum(self._are_numbers) - 1
        numbers = self._numbers.read(int(at[place]) for place in chosen if self._are_numbers[place])
        texts = self._texts.read(
            place - int(at[place]) - 1 for place in chosen if not self._are_numbers[place]
        )
        for place in chosen:
            if not self._are_numbers[place]:
                yield pl.Series(next(texts)).cast(pl.String)
            elif self.kind == "text":
                yield unpacked(pl.Series(next(numbers)))
            else:
                yield pl.Series(next(numbers))

    def texts(self, values: pl.Series) -> pl.Series:
        """What `read` gives, as texts."""
        if self.kind == "text":
            return values
        return values.cast(pl.String) if self.numeric else unpacked(values)

    def index(self, texts: pl.Series, ids: Ids) -> "NumberIndex":
        """Ids by what `read` gives, where that is numbers."""
        if self.numeric:
            return NumberIndex(texts.cast(pl.Int64).to_numpy(), ids)
        short = texts.str.len_bytes() <= MOST_BYTES
        numbers = packed(texts.filter(short))
        assert numbers is not None, "they are short"
        return NumberIndex(numbers.to_numpy(), ids[short.to_numpy()])

    def delete(self) -> None:
        """Give their disk space back."""
        self._numbers.delete()
        self._texts.delete()


class NumberIndex:
    """Number -> id by binary search."""

    def __init__(self, numbers: Ints, ids: Ids) -> None:
        order = np.argsort(numbers)
        self._numbers, self._ids = numbers[order], ids[order]

    def look_up(self, values: pl.Series, unknown: int, missing: int) -> Ids:
        """Id of each number; of null `missing`, of one that has none `unknown`."""
        result = np.full(len(values), missing, np.int32)
        wanted = values.drop_nulls().to_numpy()
        order = np.argsort(wanted)  # sorted look-ups walk through memory in one direction
        wanted = wanted[order]
        at = np.searchsorted(self._numbers, wanted)
        there = at < len(self._numbers)
        there[there] = self._numbers[at[there]] == wanted[there]
        ids = np.full(len(wanted), unknown, np.int32)
        ids[order[there]] = self._ids[at[there]]
        result[values.is_not_null().to_numpy()] = ids
        return result
