"""The distinct values of one field's chunks, on disk, as numbers where they are short."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ctr.dataset.arrow_arrays import as_numpy
from ctr.dataset.scratch import Arrays
from ctr.dataset.short_texts import packed, unpacked
from ctr.dataset.transforms import log_square
from ctr.errors import DataError

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
        # `take` where codes index: NumPy fetches by narrow integers several times faster so.
        codes: Codes = self.code(squares).take(as_numpy(first.indices))
        return codes

    def _coded(self, numbers: pa.Array | None, values: pl.Series) -> Codes:
        array = values.rechunk().to_arrow() if numbers is None else numbers
        found = array.dictionary_encode(null_encoding="encode")
        (self._texts if numbers is None else self._numbers).append(found.dictionary)
        self._are_numbers.append(numbers is not None)
        self.sizes.append(len(found.dictionary))
        # No wider than codes have to be: they are written, and read twice.
        codes: Codes = as_numpy(found.indices)
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

    @property
    def nbytes(self) -> int:
        """What the values of all chunks take in memory."""
        return self._numbers.nbytes + self._texts.nbytes

    def like_read(self, texts: pl.Series) -> pl.Series:
        """Texts that were counted in the chunks' files before, as `read` gives them.

        Raises:
            DataError: the chunks have no such texts.
        """
        if self.kind == "text":
            return texts
        if self.numeric:
            return texts.cast(pl.Int64)
        numbers = packed(texts)
        if numbers is None:
            raise DataError(
                "a file of the log was changed while it was read: values that were counted in it are gone; run again"
            )
        return pl.Series(texts.name, numbers)

    def delete(self) -> None:
        """Give their disk space back."""
        self._numbers.delete()
        self._texts.delete()
