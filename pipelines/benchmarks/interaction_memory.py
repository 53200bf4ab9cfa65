"""Memory of networks that memorize all pairs: with a row for each cross, and under a budget."""

import time
from pathlib import Path

import polars as pl

from ctr.config import load_config
from ctr.dataset.crosses import each_counted
from ctr.dataset.ingest import ingest
from ctr.dataset.layout import Layout
from ctr.dataset.pairs import chosen_pairs
from ctr.dataset.schema import load_schema
from ctr.dataset.store import Dataset
from ctr.dataset.synthetic import write_log
from ctr.jobs.train import load_report, train
from ctr.selection.pair_space import PairSpace
from ctr.settings import dump_toml, load_toml
from pipelines.benchmarks.memory import in_own_process, peak_rss_bytes

ROWS = (100_000, 400_000)
BUDGET = 64_000_000  # bytes of the table of crosses, and as many to count them in
_LARGE_DIM = 4  # floats of a pair's vector, as published for Avazu
Settings = dict[str, object]
LARGE_ROWS, LARGE_FIELDS, LARGE_BUDGET = 5_000_000, 12, 256_000_000


def measure(folder: Path) -> dict[str, float]:
    """Admitted crosses of two logs, peak bytes of training on each, and test AUC.

    Args:
        folder: for the logs and the runs.

    Returns:
        For each number of rows: pair_crosses_* (held by two train rows or more), peak_rss_bytes_exact_pairs_*,
        peak_rss_bytes_budget_pairs_*, auc_exact_pairs_*, auc_budget_pairs_*.
    """
    results: dict[str, float] = {}
    for rows in ROWS:
        size = f"{rows // 1000}k"
        log = folder / f"criteo-{size}"
        if not (log / "schema.toml").is_file():
            write_log("criteo", log, rows=rows, seed=0)
        results[f"pair_crosses_{size}"] = in_own_process(_crosses, log, folder)
        for name, budget in (("exact", None), ("budget", BUDGET)):
            peak, auc, _ = in_own_process(_trained, log, folder, budget)
            results[f"peak_rss_bytes_{name}_pairs_{size}"] = peak
            results[f"auc_{name}_pairs_{size}"] = auc
    return results


def measure_large(
    folder: Path, rows: int = LARGE_ROWS, fields: int = LARGE_FIELDS, budget: int = LARGE_BUDGET
) -> dict[str, float]:
    """The fields with most values of a large log, every pair memorized and every cross admitted, under a budget.

    Args:
        folder: for the log and the run.
        rows, fields: of the log.
        budget: bytes of the table of crosses, and as many to count them in.

    Returns:
        large_crosses (different ones in train), large_cross_bytes (of a row of the table for each of them),
        large_budget_bytes, large_peak_rss_bytes and large_seconds of a process that ingests the log, trains one epoch
        without pairs and one with them, and exports; large_auc, large_baseline_auc.
    """
    log = folder / f"criteo-{rows}-{fields}"
    if not (log / "fields.toml").is_file():
        in_own_process(_large_log, log, rows, fields)
    started = time.perf_counter()
    own = {"min_count": 1, "pair_dim": _LARGE_DIM}
    peak, auc, baseline = in_own_process(_trained, log, folder, budget, "fields.toml", own)
    seconds = time.perf_counter() - started
    crosses = in_own_process(_different, log, folder)
    return {
        "large_crosses": crosses,
        "large_cross_bytes": crosses * _LARGE_DIM * 4,
        "large_budget_bytes": budget,
        "large_peak_rss_bytes": peak,
        "large_seconds": seconds,
        "large_auc": auc,
        "large_baseline_auc": baseline,
    }


def _large_log(log: Path, rows: int, fields: int) -> None:
    """A log, and a schema of its fields with most values."""
    write_log("criteo", log, rows=rows, seed=0)
    schema = load_toml(log / "schema.toml", "schema")
    names = [entry["name"] for entry in schema["fields"] if entry.get("kind", "categorical") == "categorical"]
    scan = pl.scan_parquet(log / "log.parquet")
    counts = {name: int(scan.select(pl.col(name).n_unique()).collect().item()) for name in names}
    largest = set(sorted(names, key=counts.__getitem__)[-fields:])
    schema["fields"] = [entry for entry in schema["fields"] if entry["name"] in largest]
    (log / "fields.toml").write_text(dump_toml(schema), encoding="utf-8")


def _different(log: Path, folder: Path) -> int:
    """Crosses of train rows, counted a pair at a time."""
    schema = load_schema(log / "fields.toml")
    dataset = Dataset(ingest(schema, str(log / "log.parquet"), folder / "datasets"))
    space = PairSpace(dataset, Layout(dataset), chosen_pairs(schema.fields, None), min_count=1, dim=1)
    return sum(len(keys) for _, keys in each_counted(space.columns(space.pairs), space.pairs, space.words, 1))


def _crosses(log: Path, folder: Path) -> int:
    schema = load_schema(log / "schema.toml")
    dataset = Dataset(ingest(schema, str(log / "log.parquet"), folder / "datasets"))
    space = PairSpace(dataset, Layout(dataset), chosen_pairs(schema.fields, None), min_count=2, dim=8)
    return sum(space.rows(pair) - 1 for pair in space.pairs)


def _trained(
    log: Path, folder: Path, budget: int | None, schema: str = "schema.toml", own: Settings | None = None
) -> tuple[int, float, float]:
    """Peak bytes of one epoch without and one with all pairs, and the test AUC of the latter, and of the former."""
    selector: Settings = {"kind": "optinter", "choice": "memorize", **(own or {})}
    if budget is not None:
        selector |= {"cross_bytes": budget, "sketch_bytes": budget}
    stated = {
        "data": {
            "schema": str(log / schema),
            "input": str(log / "log.parquet"),
            "folder": str(folder / "datasets"),
        },
        "backbone": {"kind": "fnn"},
        "selector": selector,
        "training": {"epochs": 1, "threads": 1},
        "output": {"folder": str(folder)},
        "tracking": {"uri": "off"},
    }
    config = folder / "pairs.toml"
    config.write_text(dump_toml(stated), encoding="utf-8")
    run = train(load_config(config), force=True)
    report = load_report(run)
    return peak_rss_bytes(), report["selected"]["test"]["auc"], report["baseline"]["test"]["auc"]
