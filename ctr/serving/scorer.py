"""Raw rows -> click probabilities, by a bundle. Needs no PyTorch, but for bundles of the first two formats."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.dataset.bad_rows import describe, no_bad_rows
from ctr.dataset.encoding import Encoder
from ctr.dataset.inputs import located
from ctr.dataset.parallel import ahead
from ctr.dataset.personal import Personal
from ctr.dataset.preparation import Preparation, Prepared
from ctr.dataset.reading import Chunk, chunks
from ctr.errors import ConfigError, DataError, memory_told, nearest
from ctr.serving.bundle import GOLDEN_PROBABILITY, Bundle
from ctr.serving.forward_pass import forward_pass
from ctr.serving.given_rows import Given
from ctr.serving.joins import check_paths, joined_from, table_at_path
from ctr.serving.limits import refusing
from ctr.serving.manifest import GOLDEN, VOCABULARY, broken
from ctr.serving.probability_file import ProbabilityFile
from ctr.serving.reading_keys import reading_keys
from ctr.serving.request_scorer import RequestScorer
from ctr.serving.row_encoder import RowEncoder, reads_columns
from ctr.serving.rows import encoded_rows

Floats = npt.NDArray[np.float64]
Progress = Callable[[str, float], None]

_PIECE = 65_536  # rows of a frame that are encoded at once
# Other processors and batch sizes round otherwise; a wrong encoding is wrong by far more.
_GOLDEN_TOLERANCE = 1e-5


class Scorer:
    """Scores raw rows. Safe to use from several threads.

    Args:
        bundle: a bundle or its folder.
        batch_size: most rows in one pass through the network; memory grows with it, results do not change.
        allow_paths: whether the bundle may read the side tables that its joins want from a path or URL.

    encoder, reader: from prepared rows to ids, and from these to places in the table (None where ids are rows of it).

    Raises:
        ConfigError: there is no bundle, it was written by a newer version, personal data lack their key, or a path is
            not allowed.
        DataError: the bundle is damaged, or its golden rows do not get the probabilities that they had at export.
    """

    def __init__(
        self, bundle: str | Path | Bundle, batch_size: int = 8192, *, allow_paths: bool = False
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size: expected at least 1, found {batch_size}")
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        self._batch_size = batch_size
        if not allow_paths:
            check_paths(self.bundle.schema, self.bundle.folder)
        with refusing(self.bundle.folder):
            self._make_ready()

    def _make_ready(self) -> None:
        schema, manifest = self.bundle.schema, self.bundle.manifest
        entry = manifest.personal
        self.personal = Personal.with_key(
            entry.key if entry else "",
            entry.fields if entry else [],
            schema,
            self.columns,
            f'bundle "{self.bundle.folder}"',
        )
        embedded = iter(self.bundle.side_tables())
        self._preparation = Preparation(
            schema,
            self.columns,
            types=manifest.columns,
            side_tables=[
                next(embedded)
                if join.at_scoring == "bundle"
                else table_at_path(join, self.personal, self.bundle.folder)
                for join in schema.joins
            ],
            training=False,
        )
        entries = [entry.model_dump() for entry in manifest.fields]
        vocabulary = None if manifest.encoding == "hashed" else self.bundle.vocabulary()
        self.encoder = Encoder(schema, entries, vocabulary)
        for own in self.encoder.encoders:
            if own.repeated() is not None:
                raise broken(
                    self.bundle.folder, f'"{VOCABULARY}": a value of "{own.spec.name}" is there twice'
                )
        weights = self.bundle.weights()
        self.reader = self.bundle.reader(vocabulary, weights)
        self._forward = forward_pass(self.bundle, weights, self.bundle.crosses(vocabulary))
        by_cell = reads_columns(schema, manifest)
        self._requests = RequestScorer(
            self.columns,
            RowEncoder(self.encoder, schema, self.personal, self.reader) if by_cell else None,
            self._forward,
            self._score_frame,
            self.require,
            self._batch_size,
        )
        self._check_golden()

    @property
    def fields(self) -> list[str]:
        """The fields that the network reads, in schema order."""
        return [field.name for field in self.encoder.fields]

    @property
    def columns(self) -> list[str]:
        """The raw columns that rows must have; all others are ignored."""
        return self.bundle.columns

    def score(self, rows: Given, candidates: Given | None = None) -> Floats:
        """Click probabilities (rows,) in row order, NaN where a row breaks the schema (text in a numeric field).

        Cells of dicts count each alone: 1, 1.0 and "1" are the same category, as in columns of these types. A key
        that is absent is an error, as a missing column is: a missing value is None (or NaN).

        Args:
            rows: raw rows, columns in any order: a Polars or pandas frame, a list of dicts, or a dict, which is one
                row. `where` does not apply, and no label is needed.
            candidates: rows as well; `rows` is then a dict of the columns that all of them have in common, which is
                encoded once.

        Raises:
            DataError: a column is missing, or has a type that its field cannot have; or a column is in both.
        """
        if candidates is not None:
            return self._requests.candidates(rows, candidates)
        return self._requests.rows(rows)

    def _score_frame(self, frame: pl.DataFrame) -> Floats:
        result = np.full(frame.height, np.nan)
        needed = frame.select(self.columns)
        for start in range(0, frame.height, _PIECE):
            piece = needed.slice(start, _PIECE)
            result[start : start + piece.height], _ = self.score_chunk(_chunk(piece), 0)
        return result

    def score_chunk(self, chunk: Chunk, first: int) -> tuple[Floats, pl.DataFrame]:
        """Probabilities of all rows of a chunk (chunk.count,), and those that break the schema as `BAD_ROWS`.

        Args:
            chunk: rows with the columns `columns`; personal cells are replaced unless they have been.
            first: number, in its file, of the chunk's first row.
        """
        result, prepared, _ = self.told_chunk(chunk, first)
        return result, prepared.bad

    def told_chunk(self, chunk: Chunk, first: int) -> tuple[Floats, Prepared, pl.DataFrame]:
        """The same probabilities, with the rows as they were prepared and encoded."""
        prepared = self._preparation(self.personal.chunk(chunk))
        result, encoded = self._scored(prepared, first)
        return result, prepared, encoded

    def _scored(self, prepared: Prepared, first: int) -> tuple[Floats, pl.DataFrame]:
        result, encoded = np.full(prepared.count, np.nan), self.encoder.encode(prepared.frame)
        result[prepared.rows - first] = self.probabilities(encoded)
        result[prepared.bad["row"].to_numpy() - 1 - first] = np.nan
        return result, encoded

    def probabilities(self, encoded: pl.DataFrame) -> Floats:
        """Click probabilities (rows,) of what `encoder` has encoded."""
        result = np.empty(encoded.height)
        for start in range(0, encoded.height, self._batch_size):
            batch = encoded.slice(start, self._batch_size)
            rows = encoded_rows(batch, self.encoder.fields, self.reader)
            result[start : start + batch.height] = self._forward(rows)
        return result

    def require(self, columns: Iterable[str], where: str) -> None:
        """Refuse input without a needed column.

        Raises:
            DataError: names the field, the column and the nearest column that there is.
        """
        there = set(columns)
        for entry in self.bundle.manifest.fields:
            for column in entry.columns:
                if column not in there:
                    needs = f'field "{entry.name}"' + (
                        f' needs the column "{column}"' if column != entry.name else ""
                    )
                    hint = nearest(column, sorted(set(self.personal.known(there)) - set(self.columns)))
                    raise DataError(f"{needs}: {where} has no such column{hint}")

    def _check_golden(self) -> None:
        golden = self.bundle.golden()
        expected = golden[GOLDEN_PROBABILITY].fill_null(np.nan).to_numpy()
        rows = golden.drop(GOLDEN_PROBABILITY)
        # Attributes of side tables that are not embedded stand in the rows; personal cells have been replaced.
        preparation = Preparation(
            joined_from(self.bundle.schema, ["bundle"]),
            rows.columns,
            types=self.bundle.manifest.columns,
            side_tables=self.bundle.side_tables(),
            training=False,
        )
        found, _ = self._scored(preparation(_chunk(rows, personal=True)), 0)
        wrong = np.flatnonzero(~np.isclose(found, expected, rtol=0.0, atol=_GOLDEN_TOLERANCE, equal_nan=True))
        if len(wrong):
            row = wrong[0]
            raise broken(
                self.bundle.folder,
                f'row {row + 1} of "{GOLDEN}": expected the probability {expected[row]:.6f}, found {found[row]:.6f}',
            )


def _chunk(frame: pl.DataFrame, personal: bool = False) -> Chunk:
    return Chunk("frame", frame, np.arange(frame.height), 0, frame.height, no_bad_rows(), 1.0, personal)


@dataclass(frozen=True)
class ScoreSummary:
    """What `score_file` did: rows written, those without a probability, seconds."""

    rows: int
    null_rows: int
    seconds: float


@memory_told(
    "score on a machine with more memory, or train a smaller bundle: with a smaller embedding.dim, or with "
    'embedding.kind = "unified" and embedding.bytes'
)
def score_file(
    bundle: str | Path | Bundle,
    input: str | Path,
    out: str | Path,
    *,
    progress: Progress | None = None,
    max_bad_rows: float | None = None,
    allow_paths: bool = False,
) -> ScoreSummary:
    """Score a file of raw rows, in constant memory.

    `out` becomes a parquet file with the column `probability` (Float64: the sigmoid of float32 logits), in input
    order, null where a row breaks the schema. It appears whole or not at all.

    Args:
        bundle: a bundle or its folder.
        input: path, glob or URL; the format is told by the name, and read with the schema's keys (see `reading_keys`).
        out: the file to write; an existing one is replaced.
        progress: called with "score" and the share of the input that is done.
        max_bad_rows: share of rows that may break the schema; by default the schema's.
        allow_paths: see `Scorer`.

    Raises:
        ConfigError: there is no such input or bundle, personal data lack their key, or `out` cannot be meant.
        DataError: the bundle is damaged, the input lacks a column, or too many rows break the schema.
        CtrError: `out` cannot be written.
    """
    started = time.perf_counter()
    scorer = Scorer(bundle, allow_paths=allow_paths)
    limit = scorer.bundle.schema.read.max_bad_rows if max_bad_rows is None else max_bad_rows
    if not 0.0 <= limit <= 1.0:
        raise ConfigError(f"max_bad_rows: expected a share from 0 to 1, found {limit}")
    rows, bad, shown = 0, 0, no_bad_rows()
    with located(input) as sources, ProbabilityFile(Path(out), sources) as file:
        read = reading_keys(sources[0], scorer.bundle.schema, scorer.columns)
        scorer.require(scorer.personal.columns(sources[0], read), f'file "{sources[0].name}"')
        for chunk in ahead(scorer.personal.chunks(chunks(sources, read, scorer.columns))):
            found, broken_rows = scorer.score_chunk(chunk, rows - chunk.offset)
            rows, bad = rows + chunk.count, bad + broken_rows.height
            shown = pl.concat([shown, broken_rows.head(5 - shown.height)])
            # As soon as they are too many for the whole input, as far as its length can be told.
            if bad > limit * rows / max(chunk.fraction, 1e-9):
                raise _too_many(bad, rows, limit, shown)
            file.append(found)
            if progress:
                progress("score", chunk.fraction)
        if bad > limit * rows:
            raise _too_many(bad, rows, limit, shown)
    return ScoreSummary(rows, bad, time.perf_counter() - started)


def _too_many(bad: int, rows: int, limit: float, shown: pl.DataFrame) -> DataError:
    return DataError(
        f"{bad} of {rows} rows ({bad / rows:.2%}) break the schema, max_bad_rows = {limit:g} allows {limit:.2%}; "
        f"nothing was written; the first:\n{describe(shown)}"
    )
