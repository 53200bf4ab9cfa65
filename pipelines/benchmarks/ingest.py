"""How fast a Criteo-shaped log is ingested, beside merely reading it; and what a file costs that is added to others."""

import argparse
import json
import multiprocessing
import resource
import shutil
import tempfile
import time
from pathlib import Path

import polars as pl

from ctr.dataset.ingest import ingest, planned
from ctr.dataset.schema import load_schema
from ctr.dataset.synthetic import write_log

ROWS = 1_000_000
FILES = 10
ROWS_OF_FILES = 200_000


def measure(rows: int = ROWS) -> dict[str, float]:
    """Write a synthetic log of `rows` rows to a temporary folder, read it, ingest it; then a small one in ten files.

    Merely reading holds the whole file in memory, about twice its bytes: 500 a row, 5 GB for ten million.

    Returns:
        ingest_rows_per_second, ingest_over_read (time of ingest over time in which Polars reads all columns of the
        same file as text), peak_rss_bytes_ingest (of a process of its own that does nothing else), and what
        `measure_added` returns.
    """
    with tempfile.TemporaryDirectory(prefix="ctr-bench-") as name:
        folder = Path(name)
        write_log("criteo", folder / "log", rows=rows, format="csv")
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            read = pool.apply(_seconds_to_read, (folder / "log",))
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            seconds, peak = pool.apply(_seconds_and_peak_of_ingest, (folder / "log", folder / "datasets"))
    return {
        "ingest_rows_per_second": rows / seconds,
        "ingest_over_read": seconds / read,
        "peak_rss_bytes_ingest": float(peak),
        **measure_added(),
    }


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


def _seconds_to_read(folder: Path) -> float:
    schema = load_schema(folder / "schema.toml")
    start = time.perf_counter()
    pl.read_csv(folder / "log.csv", separator=schema.read.separator, has_header=False, infer_schema=False)
    return time.perf_counter() - start


def _seconds_and_peak_of_ingest(folder: Path, datasets: Path) -> tuple[float, int]:
    start = time.perf_counter()
    ingest(load_schema(folder / "schema.toml"), folder / "log.csv", datasets)
    # Linux counts in kilobytes.
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


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
