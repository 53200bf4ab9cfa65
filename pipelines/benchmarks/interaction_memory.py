"""Memory of a network that memorizes all 741 pairs of 39 fields: with a row for each cross, and under a budget."""

from pathlib import Path

from ctr.config import load_config
from ctr.dataset.ingest import ingest
from ctr.dataset.layout import Layout
from ctr.dataset.pairs import chosen_pairs
from ctr.dataset.schema import load_schema
from ctr.dataset.store import Dataset
from ctr.dataset.synthetic import write_log
from ctr.jobs.train import load_report, train
from ctr.selection.pair_space import PairSpace
from ctr.settings import dump_toml
from pipelines.benchmarks.memory import in_own_process, peak_rss_bytes

ROWS = (100_000, 400_000)
BUDGET = 64_000_000  # bytes of the table of crosses, and as many to count them in


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
            peak, auc = in_own_process(_trained, log, folder, budget)
            results[f"peak_rss_bytes_{name}_pairs_{size}"] = peak
            results[f"auc_{name}_pairs_{size}"] = auc
    return results


def _crosses(log: Path, folder: Path) -> int:
    schema = load_schema(log / "schema.toml")
    dataset = Dataset(ingest(schema, str(log / "log.parquet"), folder / "datasets"))
    space = PairSpace(dataset, Layout(dataset), chosen_pairs(schema.fields, None), min_count=2, dim=8)
    return sum(space.rows(pair) - 1 for pair in space.pairs)


def _trained(log: Path, folder: Path, budget: int | None) -> tuple[int, float]:
    """Peak bytes of one epoch without and one with all pairs, and the test AUC of the latter."""
    selector: dict[str, object] = {"kind": "optinter", "choice": "memorize"}
    if budget is not None:
        selector |= {"cross_bytes": budget, "sketch_bytes": budget}
    stated = {
        "data": {
            "schema": str(log / "schema.toml"),
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
    return peak_rss_bytes(), load_report(run)["selected"]["test"]["auc"]
