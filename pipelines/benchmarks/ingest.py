"""How fast a Criteo-shaped log is ingested, beside merely reading it."""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import polars as pl

from ctr.dataset.ingest import ingest
from ctr.dataset.schema import load_schema
from ctr.dataset.synthetic import write_log

ROWS = 1_000_000


def measure(rows: int = ROWS) -> dict[str, float]:
    """Write a synthetic log of `rows` rows to a temporary folder, read it, ingest it.

    Returns:
        ingest_rows_per_second, ingest_over_read (time of ingest over time in which Polars reads all columns of the
        same file as text), peak_rss_bytes_ingest (of a process of its own that does nothing else).
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
    }


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


def main() -> None:
    """Print the numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    print(json.dumps(measure(parser.parse_args().rows), indent=1))


if __name__ == "__main__":
    main()
