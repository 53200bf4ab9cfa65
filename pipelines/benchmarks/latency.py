"""From a raw row to its probability: a bundle of kept features beside the bundle that keeps all; time and memory.

The selected one holds int8 weights, keep-all float32. Both are exported from the Criteo-shaped synthetic log with the
network of the published settings (39 fields, DeepFM, width 16, MLP 400-400). Weights are random: what they say costs no
time.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from ctr.config import Config
from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.ingest import ingest
from ctr.dataset.layout import Layout
from ctr.dataset.schema import load_schema
from ctr.dataset.store import Dataset
from ctr.dataset.synthetic import write_log
from ctr.jobs.networks import Networks
from ctr.network.network import Network
from ctr.selection.compaction import compact_architecture
from ctr.selection.referees import REFEREES
from ctr.serving.export import export_bundle
from ctr.serving.scorer import Scorer
from ctr.settings import check
from pipelines.benchmarks.memory import in_own_process, resident_bytes
from pipelines.benchmarks.steps import Setting

KEPT = 0.3
BATCHES = (1, 32, 1024)
CANDIDATES, CONTEXT = 500, 20  # of one request of ranking; how many of its fields are the context's
_WARM_UP = 20
_NOTHING = {"trained_on": ["train"], "steps": 0, "window": None, "metrics": None}


def measure(setting: Setting) -> dict[str, float]:
    """Export both bundles, and measure each in a process of its own.

    Returns:
        For `keep_all` and `selected`: latency_<bundle>_p50_ms_<rows> and p99, of rows as dicts (1, 32) and as a frame
        (1024), latency_<bundle>_p50_ms_ranking and p99 (500 candidates, 20 of 39 fields in the context),
        score_rows_per_second_<bundle> (a frame), load_seconds_<bundle>, resident_bytes_<bundle> (what the process grows
        by while it loads), bundle_bytes_<bundle>, features_<bundle>.
    """
    results: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="ctr-bench-") as temporary:
        folder = Path(temporary)
        in_own_process(exported, folder, setting.rows_served, setting.served_hidden)
        for name in ("keep_all", "selected"):
            found = in_own_process(_served, folder / name, folder / "rows.parquet", setting.requests)
            results |= found
    return results


def exported(folder: Path, rows: int, hidden: tuple[int, ...]) -> None:
    """Write a log, and the bundles `keep_all` and `selected` of it; the first rows as `rows.parquet`."""
    torch.set_num_threads(1)
    write_log("criteo", folder / "log", rows=rows)
    source = folder / "log" / "log.parquet"
    dataset = Dataset(ingest(load_schema(folder / "log" / "schema.toml"), source, folder / "datasets"))
    pl.scan_parquet(source).head(4 * max(BATCHES)).collect().write_parquet(folder / "rows.parquet")
    keys: dict[str, Any] = {
        "name": "latency",
        "data": {"schema": str(folder / "log" / "schema.toml"), "input": str(source)},
        "embedding": {"dim": 16},
        "backbone": {"kind": "deepfm", "hidden": list(hidden)},
    }
    networks = Networks(check(keys, Config, "config"), dataset, torch.device("cpu"))
    total = FeatureSet.of(dataset, np.ones(dataset.features, np.bool_), np.ones(dataset.features), {})
    kept = REFEREES["frequency"](dataset, round(KEPT * total.counts()["total"]), 0)
    layout = networks.layout(kept)
    _export(folder / "keep_all", dataset, source, networks, networks.fresh(), networks.everything, None)
    _export(
        folder / "selected", dataset, source, networks, networks.compact(kept, layout, None), layout, kept
    )


def _export(
    folder: Path,
    dataset: Dataset,
    source: Path,
    networks: Networks,
    network: Network,
    layout: Layout,
    feature_set: FeatureSet | None,
) -> None:
    export_bundle(
        folder,
        dataset=dataset,
        source=source,
        network=network,
        architecture=compact_architecture(networks.architecture, layout),
        layout=layout,
        feature_set=feature_set,
        metrics={},
        model={"refit": "none", "evaluated": _NOTHING, "shipped": _NOTHING},
        provenance={"selector": "frequency", "seed": 0},
        dtype="float32" if feature_set is None else "int8",
    )


def _served(bundle: Path, rows: Path, requests: int) -> dict[str, float]:
    """What a process that serves one bundle measures of itself."""
    frame, name = pl.read_parquet(rows), bundle.name
    before, started = resident_bytes(), time.perf_counter()
    scorer = Scorer(bundle)
    results = {
        f"load_seconds_{name}": time.perf_counter() - started,
        f"resident_bytes_{name}": float(resident_bytes() - before),
        f"bundle_bytes_{name}": float(scorer.bundle.bytes),
        f"features_{name}": float(scorer.bundle.vocabulary().height),
    }
    frame = frame.select(scorer.columns)
    dicts = frame.to_dicts()
    largest = max(BATCHES)
    for size in BATCHES:
        # A few rows come as a program holds them, many as a frame.
        parts: list[Any] = [dicts[at : at + size] for at in range(0, len(dicts) - size + 1, size)]
        if size == 1:
            parts = dicts
        if size == largest:
            parts = [frame.slice(at, size) for at in range(0, frame.height - size + 1, size)]
        spent = _seconds(_in_turn(scorer, parts), requests)
        results |= _quantiles(f"latency_{name}", str(size), spent)
    results[f"score_rows_per_second_{name}"] = largest / float(np.median(spent))
    context = scorer.columns[:CONTEXT]
    candidates = frame.head(CANDIDATES).drop(context)
    shared = [{column: row[column] for column in context} for row in dicts]
    spent = _seconds(lambda number: scorer.score(shared[number % len(shared)], candidates), requests)
    return results | _quantiles(f"latency_{name}", "ranking", spent)


def _in_turn(scorer: Scorer, parts: list[Any]) -> Callable[[int], object]:
    return lambda number: scorer.score(parts[number % len(parts)])


def _seconds(request: Callable[[int], object], count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Of each of so many requests, after a few that warm up."""
    spent = np.empty(count + _WARM_UP)
    for number in range(count + _WARM_UP):
        started = time.perf_counter()
        request(number)
        spent[number] = time.perf_counter() - started
    return spent[_WARM_UP:]


def _quantiles(name: str, what: str, spent: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
    return {f"{name}_p{share}_ms_{what}": float(np.quantile(spent, share / 100)) * 1000 for share in (50, 99)}
