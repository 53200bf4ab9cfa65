"""One field of a few rows -> ids, cell by cell: Python values in, no column built, the same ids as by the column.

Each cell counts alone: what 1, "1" and 1.0 become does not depend on the cells beside them. The plain ways here know
plain values; a cell that is anything else, or breaks the schema, goes the column's way, which decides.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from math import floor, log
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.dataset import canonical
from ctr.dataset.encoding import FieldEncoder
from ctr.dataset.field_cells import prepare, served
from ctr.dataset.field_spec import Cell
from ctr.dataset.personal import Personal
from ctr.dataset.plain_cells import UnplainCellError, number_of, text_of
from ctr.serving.python_cells import series
from ctr.serving.rows import FieldRows, field_rows

_SURE = 1e-9  # closer to a whole number than this, a square of a logarithm may round either way
_PLAIN = ({str}, {int}, {float}, {bool})  # a column holds cells of one type, and nulls
_LISTED = {pl.String, pl.Boolean, pl.Float32, pl.Float64, pl.Int8, pl.Int16, pl.Int32, pl.Int64}
_COLUMN = 2000  # cells from which a column is worth building
_REPEATED = 8  # cells from which it is worth looking for equal ones


class CellRows(NamedTuple):
    """Encoded cells, and the numbers of those that break the schema (they are encoded as missing)."""

    rows: FieldRows
    broken: Sequence[int] | npt.NDArray[np.integer[Any]] = ()


class CellEncoder:
    """Encodes cells of one field. Safe to use from several threads.

    Args:
        encoder: of the field, by columns.
        missing_values: what means "missing" in every field of the schema.
        personal: by what personal cells are replaced.
    """

    def __init__(self, encoder: FieldEncoder, missing_values: Sequence[Cell], personal: Personal) -> None:
        self.spec, self._encoder = encoder.spec, encoder
        self._everywhere, self._personal = missing_values, personal
        self._missing = canonical.texts([*missing_values, *encoder.spec.missing_values])
        self._is_personal = any(field.name == self.spec.name for field in personal.fields)
        self._blank = self._missing | {""}
        self._category = self._category_way()
        self._plain = self._plain_way()

    def constant(self) -> CellRows:
        """A bias field, which at scoring has one value whatever the rows say, of one row."""
        return self._encoded(served(self.spec, 1), ())

    def cells(self, cells: Sequence[object]) -> CellRows:
        """Encode Python values.

        Raises:
            DataError: a cell is of a type that its field cannot have.
        """
        if len(cells) >= _COLUMN and _one_type(cells):
            return self._by_column(self._series(cells))
        try:
            return CellRows(self._plain(cells))
        except (UnplainCellError, UnicodeEncodeError):
            if len(cells) > 1:
                return _stacked([self.cells([cell]) for cell in cells])
        cell = cells[0]
        if isinstance(cell, np.number | np.bool_ | np.str_) and type(cell.item()) in (bool, int, float, str):
            return self.cells([cell.item()])
        return self._by_column(self._series([cell]))

    def column(self, values: pl.Series) -> CellRows:
        """Encode a column of raw cells.

        Raises:
            ConfigError, DataError: it has a type that its field cannot have.
        """
        if len(values) < _COLUMN and values.dtype in _LISTED:
            return self.cells(values.to_list())
        return self._by_column(values)

    def _by_column(self, values: pl.Series) -> CellRows:
        if self._is_personal:
            values = self._personal.replaced(values.alias(self.spec.name).to_frame())[self.spec.name]
        found = prepare(self.spec, values, self._everywhere)
        broken = () if found.broken is None else np.flatnonzero(found.broken.to_numpy())
        return self._encoded(found.values, broken)

    def _encoded(self, prepared: pl.Series, broken: Any) -> CellRows:
        frame = pl.DataFrame(self._encoder.encode(prepared))
        return CellRows(field_rows(frame, self.spec), broken)

    def _series(self, cells: Sequence[object]) -> pl.Series:
        return series(f'field "{self.spec.name}"', self.spec.name, cells)

    def _plain_way(self) -> Callable[[Sequence[object]], FieldRows]:
        spec = self.spec
        if spec.kind == "vector":
            return self._vectors
        if spec.kind == "list":
            return self._lists
        if spec.scaled:
            return self._scaled
        return self._categories

    def _categories(self, cells: Sequence[object]) -> FieldRows:
        if len(cells) == 1:
            text = self._category(cells[0])
            return FieldRows([self._encoder.missing if text is None else self._encoder.find(text)])
        if len(cells) < _REPEATED or not _one_type(cells):
            return FieldRows(self._found([self._category(cell) for cell in cells]))
        distinct = list(dict.fromkeys(cells))
        texts = distinct if self._is_canonical(distinct) else [self._category(cell) for cell in distinct]
        ids = dict(zip(distinct, self._found(texts), strict=True))  # type: ignore[arg-type]  # texts, and None
        return FieldRows([ids[cell] for cell in cells])

    def _is_canonical(self, distinct: Sequence[object]) -> bool:
        """Whether cells of one type and None are canonical texts already."""
        looked_up = self.spec.kind == "categorical" and not self._is_personal
        return looked_up and type(distinct[-1]) is str and not self._blank.intersection(distinct)

    def _found(self, texts: Sequence[str | None]) -> list[int]:
        """Ids of texts, None is missing."""
        there = iter(self._encoder.find_all([text for text in texts if text is not None]))
        absent = self._encoder.missing
        return [absent if text is None else next(there) for text in texts]

    def _category_way(self) -> Callable[[object], str | None]:
        """From a cell to the text that is looked up, None where missing."""
        missing = self._missing
        if self.spec.transform == "quantile":
            edges = list(self._encoder.edges or [])

            def binned(cell: object) -> str | None:
                value = number_of(cell, missing)
                return None if value is None else str(bisect_left(edges, value))

            return binned
        if self.spec.transform == "log_square":

            def squared(cell: object) -> str | None:
                value = number_of(cell, missing)
                return None if value is None else str(_log_square(value))

            return squared
        return self._text

    def _text(self, cell: object) -> str | None:
        """Canonical text, replaced where it is personal; None where missing."""
        found = text_of(cell)
        if found is None or found in self._missing:
            return None
        if not self._is_personal:
            return found
        assert self._personal.key is not None, "a personal column is read, so the key was asked for"
        found = self._personal.key.pseudonym(found)
        return None if found in self._missing else found

    def _scaled(self, cells: Sequence[object]) -> FieldRows:
        scale, present, absent = self._encoder.scale, self._encoder.present, self._encoder.missing
        assert scale is not None, "a scaled field has a scale"
        found = [number_of(cell, self._missing) for cell in cells]
        ids = [absent if value is None else present for value in found]
        numbers = [1.0 if value is None else (value - scale.shift) * scale.factor for value in found]
        return FieldRows(ids, numbers)

    def _lists(self, cells: Sequence[object]) -> FieldRows:
        find, longest = self._encoder.find, self.spec.max_length
        ids: list[int] = []
        lengths: list[int] = []
        for cell in cells:
            texts = [text for text in map(self._text, self._items(cell)) if text is not None][:longest]
            ids += map(find, texts) if texts else [self._encoder.missing]
            lengths.append(len(texts) or 1)
        return FieldRows(ids, None, lengths)

    def _items(self, cell: object) -> Sequence[object]:
        if type(cell) is list or type(cell) is tuple:
            return cell
        if cell is None:
            return ()
        if not self.spec.separator:
            raise UnplainCellError
        text = text_of(cell)
        return () if text is None else text.split(self.spec.separator)

    def _vectors(self, cells: Sequence[object]) -> FieldRows:
        scale, size = self._encoder.scale, self.spec.size
        assert scale is not None, "a vector field has a scale"
        ids: list[int] = []
        numbers = np.zeros((len(cells), size or 0), np.float32)
        for row, cell in enumerate(cells):
            if not (cell is None or type(cell) in (str, list, tuple)):
                raise UnplainCellError
            items = self._items(cell)
            found = [number_of(item, frozenset()) for item in items]
            if found and (None in found or len(found) != size):
                raise UnplainCellError
            if found:
                with np.errstate(over="ignore"):
                    numbers[row] = np.array(found, np.float32) * np.float32(scale.factor)
            ids.append(self._encoder.present if found else self._encoder.missing)
        return FieldRows(ids, numbers)


def _log_square(value: float) -> int:
    """As `ctr.dataset.transforms.log_square`, of a finite number."""
    if value <= 2.0:
        return int(max(value, -(2.0**63)))
    square = log(value) ** 2
    whole = floor(square)
    if min(square - whole, whole + 1 - square) < _SURE * square:
        raise UnplainCellError  # libraries may differ in the last bit of a logarithm
    return whole


def _one_type(cells: Sequence[object]) -> bool:
    """Whether a column holds the cells as they are: each counts as it would alone."""
    kinds = set(map(type, cells)) - {type(None)}
    if kinds == {int}:
        return all(-(2**63) <= cell < 2**63 for cell in cells if cell is not None)  # type: ignore[operator]
    return kinds in _PLAIN


def _stacked(parts: Sequence[CellRows]) -> CellRows:
    """Cells that were encoded one by one."""
    rows = [part.rows for part in parts]
    ids = np.concatenate([np.asarray(row.ids, np.int64) for row in rows])
    numbers = [np.asarray(row.numbers) for row in rows if row.numbers is not None]
    lengths = [np.asarray(row.lengths) for row in rows if row.lengths is not None]
    broken = [number for number, part in enumerate(parts) if len(part.broken)]
    return CellRows(
        FieldRows(
            ids, np.concatenate(numbers) if numbers else None, np.concatenate(lengths) if lengths else None
        ),
        broken,
    )
