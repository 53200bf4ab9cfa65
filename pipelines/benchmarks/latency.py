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

from ctr.serving.scorer import Scorer
from pipelines.benchmarks.memory import in_own_process, resident_bytes
from pipelines.benchmarks.served_bundles import exported
from pipelines.benchmarks.steps import Setting

BATCHES = (1, 32, 1024)
CANDIDATES, CONTEXT = 500, 20  # of one request of ranking; how many of its fields are the context's
_WARM_UP = 20


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


def measure_loading(setting: Setting) -> dict[str, float]:
    """Load a bundle of about a million kept features, in a process that has imported what it takes.

    Returns:
        features_loaded, load_seconds_1m, index_bytes_per_value (what looks values up, their text left out),
        load_seconds_per_million (features).
    """
    with tempfile.TemporaryDirectory(prefix="ctr-bench-") as temporary:
        folder = Path(temporary)
        in_own_process(exported, folder, setting.rows_loaded, setting.served_hidden)
        return in_own_process(_loaded, folder / "keep_all")


def _loaded(bundle: Path) -> dict[str, float]:
    started = time.perf_counter()
    scorer = Scorer(bundle)
    seconds = time.perf_counter() - started
    values = scorer.bundle.vocabulary().filter(pl.col("value").is_not_null())
    text = int(values["value"].str.len_bytes().sum())
    index = sum(own.index_bytes for own in scorer.encoder.encoders)
    return {
        "features_loaded": float(values.height),
        "load_seconds_1m": seconds,
        "load_seconds_per_million": seconds / values.height * 1e6,
        "index_bytes_per_value": (index - text) / values.height,
    }


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
