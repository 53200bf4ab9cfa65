"""How fast a Criteo-shaped log is ingested, beside merely reading it; and what a file costs that is added to others."""

import argparse
import json
import multiprocessing
import shutil
import tempfile
import time
from pathlib import Path
from typing import NamedTuple, Self

import polars as pl

from ctr.dataset.ingest import ingest, planned
from ctr.dataset.schema import load_schema
from ctr.dataset.store import Dataset
from ctr.dataset.synthetic import PRESETS, write_log
from ctr.dataset.synthetic_spec import Categorical, SyntheticSpec
from pipelines.benchmarks.ingest_script import by_script
from pipelines.benchmarks.memory import in_own_process, peak_rss_bytes
from pipelines.benchmarks.steps import Setting

ROWS = 1_000_000
FILES = 10
ROWS_OF_FILES = 200_000
_LARGE = 1_000_000  # values of a column, from which on it has a longer tail in the larger log
_FLAT = (
    0.75  # the Zipf exponent of that tail; 31 million distinct values in 50 million rows, as the real log has
)


def measure(rows: int = ROWS) -> dict[str, float]:
    """Write a synthetic log of `rows` rows to a temporary folder, read it, ingest it; then a small one in ten files.

    Returns:
        ingest_rows_per_second, ingest_over_read (time of ingest over that of `_read`), ingest_cpu_over_read (the same
        of processor time, which other programs do not lengthen much), ingest_over_read_csv and ingest_over_script (time
        of ingest over that of `_read_csv` and of `_by_script`), peak_rss_bytes_ingest and peak_rss_bytes_ingest_script
        (of processes of their own that do nothing else), and what `measure_added` returns.
    """
    return _beside_reading(PRESETS["criteo"](), rows, "", whole=True) | measure_added()


def measure_50m(setting: Setting) -> dict[str, float]:
    """The same of one log of 50 million rows, with as many distinct values as Criteo's.

    Returns:
        ingest_rows_per_second_50m, ingest_over_read_50m, ingest_cpu_over_read_50m, peak_rss_bytes_ingest_50m,
        ingest_distinct_50m (values of the log's largest columns), ingest_features_50m (ids of the dataset: values that
        train rows hold twice).
    """
    return _beside_reading(long_tailed(), 50 * setting.rows_ingested, "_50m")


def long_tailed() -> SyntheticSpec:
    """The preset `criteo` with more rare values: its Zipf exponents draw two thirds of the real log's values."""
    spec = PRESETS["criteo"]()
    fields = tuple(
        field.model_copy(update={"zipf": _FLAT}) if _is_large(field) else field for field in spec.fields
    )
    return spec.model_copy(update={"fields": fields})


def _is_large(field: object) -> bool:
    return isinstance(field, Categorical) and field.cardinality >= _LARGE


def _beside_reading(spec: SyntheticSpec, rows: int, name: str, whole: bool = False) -> dict[str, float]:
    """Also beside what holds the whole log in memory, if it is small enough for that."""
    with tempfile.TemporaryDirectory(prefix="ctr-bench-") as temporary:
        folder = Path(temporary)
        in_own_process(_write_log, spec, folder / "log", rows)
        read = in_own_process(_read, folder / "log")
        ingested, peak, features = in_own_process(_ingested, folder / "log", folder / "datasets")
        results = {
            f"ingest_rows_per_second{name}": rows / ingested.wall,
            f"ingest_over_read{name}": ingested.wall / read.wall,
            f"ingest_cpu_over_read{name}": ingested.cpu / read.cpu,
            f"peak_rss_bytes_ingest{name}": float(peak),
        }
        if whole:
            kept = in_own_process(_read_csv, folder / "log")
            script, most = in_own_process(_by_script, folder / "log", folder / "script")
            results["ingest_over_read_csv"] = ingested.wall / kept.wall
            results["ingest_over_script"] = ingested.wall / script.wall
            results["peak_rss_bytes_ingest_script"] = float(most)
        if name:
            results[f"ingest_features{name}"] = float(features)
            results[f"ingest_distinct{name}"] = float(in_own_process(_distinct, spec, folder / "log"))
    return results


def measure_added(rows: int = ROWS_OF_FILES) -> dict[str, float]:
    """Ingest a log of ten files where nine are known, and where none is.

    Returns:
        ingest_added_file_over_whole (time from the end of reading to the end of counting, one to the other),
        ingest_nine_known_over_none (time of the whole ingest likewise).
    """
    with tempfile.TemporaryDirectory(prefix="ctr-bench-") as name:
        folder = Path(name)
        write_log("criteo", folder / "log", rows=rows, format="csv")
        lines = (folder / "log" / "log.csv").read_bytes().splitlines(keepends=True)
        (folder / "days").mkdir()
        for number in range(FILES):
            own = lines[number * rows // FILES : (number + 1) * rows // FILES]
            (folder / "days" / f"{number}.csv").write_bytes(b"".join(own))
        last = folder / "days" / f"{FILES - 1}.csv"
        shutil.move(last, folder / "last.csv")
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            pool.apply(_seconds_of_counting, (folder, folder / "grown", FILES - 1))
            shutil.move(folder / "last.csv", last)
            added, grown = pool.apply(_seconds_of_counting, (folder, folder / "grown", 1))
            counted, whole = pool.apply(_seconds_of_counting, (folder, folder / "whole", FILES))
    return {"ingest_added_file_over_whole": added / counted, "ingest_nine_known_over_none": grown / whole}


def _write_log(spec: SyntheticSpec, folder: Path, rows: int) -> None:
    write_log(spec, folder, rows=rows, format="csv")


def _scanned(folder: Path) -> pl.LazyFrame:
    schema = load_schema(folder / "schema.toml")
    return pl.scan_csv(
        folder / "log.csv", separator=schema.read.separator, has_header=False, infer_schema=False
    )


class _Seconds(NamedTuple):
    """By the clock, and of the processor in all threads."""

    wall: float
    cpu: float

    @classmethod
    def so_far(cls) -> Self:
        return cls(time.perf_counter(), time.process_time())

    def till_now(self) -> "_Seconds":
        now = self.so_far()
        return _Seconds(now.wall - self.wall, now.cpu - self.cpu)


def _read(folder: Path) -> _Seconds:
    """Seconds in which Polars reads all columns as text, and asks of every cell whether it is empty.

    The streaming engine drops rows once they have been asked, so that memory does not grow with the file. Where memory
    is fast, it takes half of the time of `pl.read_csv`, which keeps them all.
    """
    start = _Seconds.so_far()
    _scanned(folder).select(pl.all().null_count()).collect(engine="streaming")
    return start.till_now()


def _read_csv(folder: Path) -> _Seconds:
    """Seconds in which Polars reads all columns as text into memory."""
    start = _Seconds.so_far()
    _scanned(folder).collect()
    return start.till_now()


def _by_script(folder: Path, built: Path) -> tuple[_Seconds, int]:
    """Seconds of a short script that gives ids as an ingest does, and this process's peak in bytes."""
    schema, start = load_schema(folder / "schema.toml"), _Seconds.so_far()
    by_script(schema, folder / "log.csv", built)
    return start.till_now(), peak_rss_bytes()


def _ingested(folder: Path, datasets: Path) -> tuple[_Seconds, int, int]:
    """Seconds of ingest, this process's peak in bytes, and ids of the dataset."""
    start = _Seconds.so_far()
    built = ingest(load_schema(folder / "schema.toml"), folder / "log.csv", datasets)
    return start.till_now(), peak_rss_bytes(), Dataset(built).features


def _distinct(spec: SyntheticSpec, folder: Path) -> int:
    """Distinct values of the columns that may have a million or more, one column at a time."""
    lazy = _scanned(folder)
    names = lazy.collect_schema().names()
    places = [
        1 + place for place, field in enumerate(spec.fields) if _is_large(field)
    ]  # the label comes first
    counts = (lazy.select(pl.col(names[place]).n_unique()).collect(engine="streaming") for place in places)
    return sum(count.item() for count in counts)


def _seconds_of_counting(folder: Path, datasets: Path, fresh: int) -> tuple[float, float]:
    """Seconds from the end of reading to the end of counting, of which `fresh` files were new, and of all."""
    at: dict[str, float] = {}

    def note(stage: str, share: float) -> None:
        at[stage] = time.perf_counter()

    start = time.perf_counter()
    schema = load_schema(folder / "log" / "schema.toml")
    with planned(schema, str(folder / "days" / "*.csv"), datasets) as dataset:
        dataset.build(progress=note)
    found = (dataset.counts or "").split()
    if found[1:2] != [str(fresh)]:
        raise RuntimeError(f"expected {fresh} files counted, found {dataset.counts}")
    return at["count"] - at["read"], time.perf_counter() - start


def main() -> None:
    """Print the numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    print(json.dumps(measure(parser.parse_args().rows), indent=1))


if __name__ == "__main__":
    main()
