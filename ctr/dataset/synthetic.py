"""Synthetic click logs with a known truth: what matters, what is noise, and the best AUC that can be reached.

Rows are drawn in chunks, and each number in them is a hash of the seed, the column and the row (see
`synthetic_draws`): memory is constant, and rows do not depend on the size of the chunks. The true probability
of every row is in the column `true_probability`.
"""

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ctr.dataset.synthetic_log import PlantedLog
from ctr.dataset.synthetic_presets import PRESETS
from ctr.dataset.synthetic_production import REAL_COLUMNS, LogKeeper, Production
from ctr.dataset.synthetic_schema import schema_of, schema_toml
from ctr.dataset.synthetic_spec import SyntheticSpec, Values
from ctr.dataset.synthetic_truth import Truth, read_truth
from ctr.errors import ConfigError, nearest
from ctr.settings import check

__all__ = ["PRESETS", "SyntheticSpec", "Truth", "read_truth", "schema_of", "write_log"]

CHUNK = 131_072
MANY_VALUES = 10_000  # above, a parquet dictionary costs time and saves nothing
_WRITTEN = {"log.parquet", "log.csv", "schema.toml", "truth.json"}


def write_log(
    preset: str | SyntheticSpec,
    folder: Path,
    *,
    rows: int,
    seed: int = 0,
    format: Literal["parquet", "csv"] = "parquet",
    chunk: int = CHUNK,
    base_rate: float | None = None,
    negative_keep_rate: float | None = None,
    delay_hours: float | None = None,
    delayed_share: float = 0.3,
    positions: int | None = None,
    weights: bool = False,
) -> Truth:
    """Write log.parquet or log.csv, schema.toml and truth.json into `folder`, all of them or none.

    An earlier synthetic log in the folder is replaced. The same arguments give the same bytes.

    Args:
        preset: `demo`, `drift`, `pairs`, `criteo`, or a spec of your own.
        folder: new, or with an earlier synthetic log.
        rows: impressions, any number >= 1; memory does not grow with it.
        seed: another seed gives another truth, not just other rows.
        format: how the log is written; separator and header of a csv stand in the spec.
        chunk: rows drawn at once, and rows per parquet row group; the rows are the same for all sizes.
        base_rate: share of the impressions that are clicked, instead of the one of the preset.
        negative_keep_rate, delay_hours, delayed_share, positions, weights: see `Production`.

    Raises:
        ConfigError: an unknown preset or format, fewer than one row, a folder that holds anything else, or an option
            out of range.
    """
    options = {
        "negative_keep_rate": negative_keep_rate,
        "delay_hours": delay_hours,
        "delayed_share": delayed_share,
        "positions": positions,
        "weights": weights,
    }
    production = check(options, Production, "synthetic log")
    spec = production.fitted(_checked(preset, rows, seed, format, chunk), base_rate)
    stated = production if production.stated else None
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - _WRITTEN):
        raise ConfigError(f'"{folder}": expected a new folder or one with a synthetic log, found other files')
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        planted = PlantedLog(spec, seed, production.positions)
        tally = _Tally(spec.label)
        keeper = LogKeeper(production, seed, spec.label, planted.newest(rows))
        impressions = tally.counted(_chunks(planted, rows, chunk))
        with (partial / f"log.{format}").open("wb") as file:
            _write(_gathered(map(keeper.log, impressions), chunk), file, spec, format)
        truth = Truth(
            spec,
            seed,
            rows,
            planted.intercept,
            tally.positive_rate,
            tally.auc(),
            stated,
            keeper.kept if stated else None,
        )
        truth.save(partial / "truth.json")
        schema = schema_of(spec, format, production)
        (partial / "schema.toml").write_text(schema_toml(schema), encoding="utf-8")
        partial.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return truth


def _checked(preset: str | SyntheticSpec, rows: int, seed: int, format: str, chunk: int) -> SyntheticSpec:
    if isinstance(preset, str) and preset not in PRESETS:
        raise ConfigError(f'unknown synthetic log "{preset}"{nearest(preset, PRESETS)}')
    if format not in ("parquet", "csv"):
        raise ConfigError(f'format: expected "parquet" or "csv", found "{format}"')
    for name, value, least in (("rows", rows, 1), ("chunk", chunk, 1), ("seed", seed, 0)):
        if value < least:
            raise ConfigError(f"{name}: expected at least {least}, found {value}")
    return PRESETS[preset]() if isinstance(preset, str) else preset


def _chunks(planted: PlantedLog, rows: int, chunk: int) -> Iterator[pa.Table]:
    """Draw chunks in order, the next one in a second thread while this one is being written."""
    spans = [(first, min(first + chunk, rows)) for first in range(0, rows, chunk)]
    with ThreadPoolExecutor(max_workers=1) as ahead:
        coming = ahead.submit(planted.rows, *spans[0], rows)
        for span in spans[1:]:
            table = coming.result()
            coming = ahead.submit(planted.rows, *span, rows)
            yield table
        yield coming.result()


def _gathered(tables: Iterator[pa.Table], chunk: int) -> Iterator[pa.Table]:
    """Join tables to at least `chunk` rows each; the last one, which may be the only one, has what is left."""
    waiting: list[pa.Table] = []
    yielded = False
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= chunk:
            yield pa.concat_tables(waiting)
            waiting, yielded = [], True
    if sum(map(len, waiting)) or not yielded:
        yield pa.concat_tables(waiting)


def _write(tables: Iterator[pa.Table], file: BinaryIO, spec: SyntheticSpec, format: str) -> None:
    if format == "csv":
        for number, table in enumerate(tables):
            frame = pl.DataFrame(table)
            frame.write_csv(
                file,
                include_header=spec.header and number == 0,
                separator=spec.separator,
                datetime_format="%Y-%m-%d %H:%M:%S",
            )
        return
    large = {
        field.name for field in spec.fields if isinstance(field, Values) and field.cardinality > MANY_VALUES
    }
    writer = None
    for table in tables:
        if writer is None:
            few = [name for name in table.column_names if name not in large | set(REAL_COLUMNS)]
            writer = pq.ParquetWriter(file, table.schema, compression="zstd", use_dictionary=few)
        writer.write_table(table, row_group_size=max(len(table), 1))
    if writer is not None:
        writer.close()


class _Tally:
    """Counts labels by true probability, in constant memory, while chunks pass by."""

    BINS = 1 << 16

    def __init__(self, label: str) -> None:
        self.label = label
        self.counts = np.zeros((2, self.BINS), dtype=np.int64)

    def counted(self, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """Pass tables on."""
        for table in tables:
            place = (table["true_probability"].to_numpy() * self.BINS).astype(np.int64)
            label = table[self.label].to_numpy()
            for side in (0, 1):
                self.counts[side] += np.bincount(place[label == side], minlength=self.BINS)
            yield table

    @property
    def positive_rate(self) -> float:
        return float(self.counts[1].sum() / self.counts.sum())

    def auc(self) -> float | None:
        """AUC of the true probability, exact to about 1 / BINS (bins are ties); None for one class."""
        negatives, positives = self.counts
        pairs = float(negatives.sum()) * float(positives.sum())
        below = np.cumsum(negatives) - 0.5 * negatives
        return float(below @ positives) / pairs if pairs else None
