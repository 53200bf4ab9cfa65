"""`ctr verify`: proof that a bundle is as it was exported, and scores as in training, and as a server's log says."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.dataset.inputs import located
from ctr.dataset.reading import Chunk, chunks, column_names
from ctr.errors import ConfigError, CtrError, ThresholdError
from ctr.jobs.logged_rows import PROBABILITY, differences, logged_columns
from ctr.jobs.training_path import TrainingPath
from ctr.serving.bundle import Bundle
from ctr.serving.encoding_file import VERSION, as_of, describe_encoding
from ctr.serving.golden_pairs import mismatches
from ctr.serving.manifest import DESCRIBED, ENCODING, PAIRS, SCHEMA, broken
from ctr.serving.reading_keys import reading_keys
from ctr.serving.scorer import Scorer

Floats = npt.NDArray[np.float64]
Tell = Callable[[str], None]

_EXACT = 1e-6  # the same weights, whatever they are stored as
_LOGGED = 1e-5  # another runtime rounds otherwise, whatever the weights are
_ALONE = 20  # rows of a file that are also scored one by one


def verify(
    bundle: Path,
    file: str | None,
    *,
    run: Path | None,
    log: str | None,
    allow_paths: bool = False,
    tell: Tell = lambda line: None,
) -> None:
    """Verify a bundle: digests, golden rows and golden pairs; and what else is asked for.

    Args:
        bundle: its folder.
        file: raw rows that are scored in more than one way.
        run: the run that made it, to compare with on `file`; by default the one that the bundle lies in, if any.
        log: raw rows with what a server logged of them (`ctr.jobs.logged_rows`).
        allow_paths: see `Scorer`.
        tell: takes a line for each check that is passed.

    Raises:
        ThresholdError: two ways differ; the message names row, field, expected and found.
        ConfigError, DataError: there is no bundle or input, or it is damaged.
    """
    scorer = Scorer(bundle, allow_paths=allow_paths)
    tell(f"{len(scorer.bundle.manifest.files)} files are as they were exported")
    tell(f"{scorer.bundle.golden().height} golden rows have their probabilities")
    _verify_description(scorer.bundle, tell)
    _verify_pairs(scorer, tell)
    run = run or (bundle.parent if file is not None and (bundle.parent / "checkpoints").is_dir() else None)
    if run is not None and file is None:
        raise ConfigError("--against RUN needs a FILE of raw rows to compare on")
    if file is not None:
        _verify_file(scorer, file, run, tell)
    if log is not None:
        _verify_log(scorer, log, tell)


def _verify_description(bundle: Bundle, tell: Tell) -> None:
    """Make sure that other languages are told what this one does.

    Raises:
        DataError: "encoding.json" is not what follows from schema and manifest.
    """
    manifest = bundle.manifest
    if manifest.format_version < DESCRIBED:
        return
    found = bundle.encoding()
    version = found.get("version") if isinstance(found, dict) else None
    if type(version) is not int or not 1 <= version <= VERSION:
        raise broken(
            bundle.folder,
            f'"{ENCODING}": expected a version from 1 to {VERSION}, found {json.dumps(version)[:40]}',
        )
    entries = [entry.model_dump() for entry in manifest.fields]
    personal = [field.name for field in manifest.personal.fields] if manifest.personal else []
    expected = describe_encoding(bundle.schema, entries, manifest.encoding, personal, manifest.columns)
    if found != json.loads(json.dumps(as_of(expected, version))):
        raise broken(bundle.folder, f'"{ENCODING}" says otherwise how cells are encoded than "{SCHEMA}"')
    before = "" if version == VERSION else f", as far as version {version} did"
    tell(f'"{ENCODING}" says how the bundle encodes cells{before}')


def _verify_pairs(scorer: Scorer, tell: Tell) -> None:
    pairs = scorer.bundle.pairs()
    if pairs is None:
        tell(f"no golden pairs: format version {scorer.bundle.manifest.format_version} has none")
        return
    fields, there = {own.spec.name for own in scorer.encoder.encoders}, set(pairs["field"].to_list())
    if fields != there:
        odd = min(str(name) for name in fields ^ there)
        raise broken(
            scorer.bundle.folder, f'"{PAIRS}": expected pairs of every field and no other, see "{odd}"'
        )
    try:
        found = next(mismatches(pairs, scorer.bundle.schema, scorer.encoder), None)
    except (ValueError, TypeError, ArithmeticError, pl.exceptions.PolarsError, CtrError) as error:
        raise broken(scorer.bundle.folder, f'"{PAIRS}": {" ".join(str(error).split())}') from None
    if found is not None:
        raise ThresholdError(
            f'bundle "{scorer.bundle.folder}": "{PAIRS}", field "{found.field}", {found.cell.type} '
            f'"{found.cell.text}", encoded {found.way}: expected {found.expected}, found {found.found}'
        )
    tell(f"{pairs.height:,} golden pairs have their ids, by columns and cell by cell")


def _verify_file(scorer: Scorer, file: str, run: Path | None, tell: Tell) -> None:
    other, rows, largest, changed = None, 0, 0.0, 0.0
    with _opened(scorer, file) as (columns, read):
        if run is not None:
            other = TrainingPath(run, scorer.bundle, columns)
        wanted = dict.fromkeys([*scorer.columns, *(other.columns if other else [])])
        for chunk, first in read(list(wanted)):
            found, _ = scorer.score_chunk(chunk, first)
            if rows == 0:
                _verify_alone(scorer, chunk, first, found)
            if other is not None:
                expected, exact = other.score(chunk, first)
                largest = max(largest, _compared(found, expected, _EXACT, chunk, first, "the training path"))
                changed = max(changed, float(np.nanmax(np.abs(found - exact), initial=0.0)))
            rows += chunk.count
    alone = min(rows, _ALONE)
    tell(f"{alone} rows score one by one as together, cells encoded one by one as by columns")
    if other is not None:
        tell(
            f"{rows:,} rows score as in the training path; largest difference {largest:.1e}, allowed {_EXACT:g}"
        )
        if other.dtype != "float32":
            tell(f"storing weights as {other.dtype} changes the probability of one of them by {changed:.1e}")


def _verify_alone(scorer: Scorer, chunk: Chunk, first: int, together: Floats) -> None:
    if chunk.personal:
        return  # cells have been replaced; a row that is scored alone would have them replaced again
    places = (chunk.rows - first)[:_ALONE]
    rows = chunk.frame.select(scorer.columns).head(_ALONE).to_dicts()
    alone = np.array([scorer.score(row)[0] for row in rows])
    _compared(alone, together[places], _EXACT, chunk, first, "the same rows together", places)


def _verify_log(scorer: Scorer, log: str, tell: Tell) -> None:
    rows, withheld = 0, bool(scorer.personal.fields)
    with _opened(scorer, log) as (columns, read):
        logged = logged_columns(columns, scorer.encoder.fields)
        extra = [entry.column for entry in logged]
        extra += [PROBABILITY] if PROBABILITY in columns else []
        for chunk, first in read([*dict.fromkeys([*scorer.columns, *extra])]):
            scores, prepared, encoded = scorer.told_chunk(chunk, first)
            own = list(differences(logged, chunk.frame, prepared, encoded, withheld))
            if own:
                raise ThresholdError(min(own, key=lambda found: found.row).told(chunk.file, first))
            if PROBABILITY in columns:
                there = chunk.frame[PROBABILITY].cast(pl.Float64).fill_null(np.nan).to_numpy()
                places = chunk.rows - first
                _compared(there, scores[places], _LOGGED, chunk, first, "the bundle", places)
            rows += chunk.count
    what = [f"the ids of {sum(entry.what == 'id' for entry in logged)} fields"] if logged else []
    what += ["the scores"] if PROBABILITY in columns else []
    tell(f"{rows:,} logged rows: {' and '.join(what)} are those of the bundle")


@contextmanager
def _opened(
    scorer: Scorer, file: str
) -> Iterator[tuple[list[str], Callable[[list[str]], Iterator[tuple[Chunk, int]]]]]:
    """The columns of a file, and what reads some of them: chunks, and the number of their first row in their file."""
    with ExitStack() as stack:
        sources = stack.enter_context(located(file))
        keys = reading_keys(sources[0], scorer.bundle.schema, scorer.columns)
        columns = column_names(sources[0], keys)
        scorer.require(columns, f'file "{sources[0].name}"')

        def read(wanted: list[str]) -> Iterator[tuple[Chunk, int]]:
            rows = 0
            for chunk in scorer.personal.chunks(chunks(sources, keys, wanted)):
                yield chunk, rows - chunk.offset
                rows += chunk.count

        yield columns, read


def _compared(
    found: Floats,
    expected: Floats,
    limit: float,
    chunk: Chunk,
    first: int,
    what: str,
    places: npt.NDArray[np.int64] | None = None,
) -> float:
    """The largest difference; refuses one beyond `limit`.

    Raises:
        ThresholdError: names the first row.
    """
    apart = np.abs(found - expected)
    wrong = np.flatnonzero(~(apart <= limit) & ~(np.isnan(found) & np.isnan(expected)))
    if len(wrong):
        at = int(wrong[0])
        row = first + (at if places is None else int(places[at])) + 1
        raise ThresholdError(
            f'file "{chunk.file}", row {row}: expected the probability {expected[at]:.9f} of {what} within {limit:g}, '
            f"found {found[at]:.9f}"
        )
    return float(np.nanmax(apart, initial=0.0))
