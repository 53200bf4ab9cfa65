"""Interactions: planted pairs found again, quality on real logs beside the pure methods, what a search step costs.

    python -m pipelines.benchmarks.interactions planted [--seeds 3] [--log-seed 0] [--search-rows held_out train]
    python -m pipelines.benchmarks.interactions real    [--logs ml100k adkdd criteo28k] [--seeds 3]
    python -m pipelines.benchmarks.interactions screen  [--seeds 3] [--log-seed 0]
    python -m pipelines.benchmarks.interactions speed
    python -m pipelines.benchmarks.interactions memory
    python -m pipelines.benchmarks.interactions large

Each seed has a split of its own: logs split at random are drawn anew, those split by time are cut earlier. Finished
runs are kept under `runs/interactions` and not repeated; `--set section.key=value` changes all of them, `--out FILE`
keeps the numbers as JSON.
"""

import argparse
import json
import time
from collections import defaultdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ctr.config import load_config
from ctr.dataset.feature_set import METHODS
from ctr.dataset.ingest import ingest
from ctr.dataset.layout import Layout
from ctr.dataset.pairs import chosen_pairs
from ctr.dataset.schema import load_schema
from ctr.dataset.store import Dataset
from ctr.dataset.synthetic import read_truth, write_log
from ctr.errors import CtrError
from ctr.evaluation.intervals import auc_difference
from ctr.jobs.train import load_report, train
from ctr.selection.pair_screen import screen
from ctr.selection.pair_space import PairSpace
from ctr.settings import dump_toml, load_toml
from pipelines.benchmarks import interaction_memory
from pipelines.benchmarks.interaction_steps import measure
from pipelines.benchmarks.quality import CONFIGS, LOGS, splits
from pipelines.benchmarks.spreads import half_of_interval, mean_and_spread

OUTPUT = Path("runs/interactions")
PLANTED = Path("data/synthetic/pairs")
PURE = ("memorize", "factorize", "naive")
ROWS = ("held_out", "train")
TENTH = "a tenth of its bytes"
RANDOM = "random, the same counts"  # as the first search has chosen
CONTROL = "memorize two rows a pair"  # all crosses share them: as many vectors, which tell next to nothing
SCREENED = (16, 32, 64)  # pairs
_ROW_BYTES = 4 * 8  # float32, of the default pair_dim
_SETTINGS = ("selector.kind=optinter", "selector.epochs=3", "backbone.kind=fnn", "backbone.norm=layer")


def main() -> None:
    """Run the part that is asked for and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("planted", "real", "screen", "speed", "memory", "large"))
    parser.add_argument("--logs", nargs="+", choices=LOGS, default=list(LOGS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--log-seed", type=int, default=0, help="of the planted log: another one, another truth"
    )
    parser.add_argument("--search-rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="section.key=value")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results: dict[str, Any]
    if arguments.part == "speed":
        results = measure()
        for name, value in results.items():
            print(f"{name:<40} {value:>14,.3f}")
    elif arguments.part in ("memory", "large"):
        measured = (
            interaction_memory.measure if arguments.part == "memory" else interaction_memory.measure_large
        )
        results = measured(OUTPUT / "memory")
        for name, value in results.items():
            print(f"{name:<40} {value:>18,.4f}")
    elif arguments.part == "planted":
        results = planted(arguments.seeds, arguments.search_rows, arguments.changes, arguments.log_seed)
    elif arguments.part == "screen":
        results = screens(arguments.seeds, arguments.changes, arguments.log_seed)
    else:
        results = {
            log: real(log, arguments.seeds, arguments.search_rows, arguments.changes)
            for log in arguments.logs
        }
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def planted(seeds: int, search_rows: list[str], changes: list[str], log_seed: int = 0) -> dict[str, Any]:
    """Planted pairs found, empty ones chosen, AUC and rows of crosses, over seeds of training."""
    truth, places = _planted_log(log_seed)
    changes = [*places, *changes]
    results: dict[str, Any] = defaultdict(list)
    searched = _choices(search_rows)[len(PURE)][0]
    for seed in range(seeds):
        for name, own in [*_choices(search_rows), (TENTH, []), (RANDOM, [])]:
            if name == TENTH:
                own = _tenth(results["memorize"][-1])
            if name == RANDOM:
                own = _random(results[searched][-1])
            run = _run(CONFIGS / "pairs.toml", [f"seed={seed}", *own, *changes])
            found = pl.read_parquet(run / "feature_set" / "interactions.parquet")
            counts = found.join(truth, on=["field_a", "field_b"]).group_by("kind", "method").len()
            results[name].append(
                {f"{kind}:{method}": number for kind, method, number in counts.iter_rows()} | _numbers(run)
            )
    print(
        "found: memorized of 8, factorized of 8, empty pairs chosen of 174; test AUC (deviation); rows of crosses"
    )
    for name, entries in results.items():
        right = [
            (
                entry.get("memorize:memorize", 0),
                entry.get("factorize:factorize", 0),
                174 - entry.get("none:naive", 0),
            )
            for entry in entries
        ]
        print(f"  {name:<20} {' '.join(map(str, right))}  {_summary(entries)}")
    return results


def screens(seeds: int, changes: list[str], log_seed: int = 0) -> dict[str, Any]:
    """Planted pairs among the best of a screen, and its seconds beside those of the baseline's training."""
    truth, places = _planted_log(log_seed)
    kinds = {(a, b): kind for a, b, kind in truth.iter_rows()}
    results: dict[str, Any] = {}
    print("found: memorize of 8, factorize of 8 among the best N; seconds of the screen, of the baseline")
    for seed in range(seeds):
        run = _run(CONFIGS / "pairs.toml", [f"seed={seed}", *places, *changes, "selector.kind=none"])
        config = load_config(run / "config.toml")
        schema = load_schema(config.data.schema_file)
        dataset = Dataset(ingest(schema, config.data.input, Path(config.data.folder)))
        space = PairSpace(dataset, Layout(dataset), chosen_pairs(schema.fields, None), min_count=1, dim=1)
        part, found = dataset.part("train"), {}
        started = time.perf_counter()
        for number in SCREENED:
            kept = [kinds[pair] for pair in screen(space, part.labels, part.weights, number, seed).kept]
            found[str(number)] = [kept.count("memorize"), kept.count("factorize")]
        took = (time.perf_counter() - started) / len(SCREENED)
        results[f"seed {seed}"] = {
            "found": found,
            "screen_seconds": took,
            "baseline_seconds": load_report(run)["seconds"]["baseline"],
        }
        best = "  ".join(f"{number}: {right}" for number, right in found.items())
        print(f"  seed {seed:<5} {best}  {took:.1f}  {results[f'seed {seed}']['baseline_seconds']:.1f}")
    return results


def _planted_log(seed: int) -> tuple[pl.DataFrame, list[str]]:
    """Kind of each pair of the planted log, which is written where it is missing; and where a run finds it."""
    folder = PLANTED if seed == 0 else PLANTED.with_name(f"{PLANTED.name}-{seed}")
    if not (folder / "log.parquet").is_file():
        write_log("pairs", folder, rows=300_000, seed=seed)
    places = {"schema": folder / "schema.toml", "input": folder / "log.parquet", "truth": folder}
    truth = read_truth(folder).pairs().select("field_a", "field_b", "kind")
    return truth, [f"data.{key}={path}" for key, path in places.items()]


def real(log: str, seeds: int, search_rows: list[str], changes: list[str]) -> dict[str, Any]:
    """Test AUC of searches and of the pure methods; methods chosen, and how far seeds agree on them."""
    results: dict[str, Any] = defaultdict(list)
    runs: dict[str, list[Path]] = defaultdict(list)
    chosen: dict[str, list[list[str]]] = defaultdict(list)
    for seed, schema in splits(log, seeds, OUTPUT, earlier=0.05):
        searched = _choices(search_rows)[len(PURE)][0]
        added = [(CONTROL, []), (TENTH, []), (RANDOM, []), ("best on valid", ["selector.choice=best"])]
        for name, own in [*_choices(search_rows), *added]:
            if name == TENTH:
                own = _tenth(results["memorize"][-1])
            if name == RANDOM:
                own = _random(results[searched][-1])
            if name == CONTROL:
                budget = 2 * len(chosen["memorize"][-1]) * _ROW_BYTES
                own = ["selector.choice=memorize", f"selector.cross_bytes={budget}"]
            stated = [f"seed={seed}", f"data.schema={schema}", *own, *changes]
            run = _run(CONFIGS / f"{log}.toml", stated)
            results[name].append(_numbers(run))
            runs[name].append(run)
            frame = pl.read_parquet(run / "feature_set" / "interactions.parquet")
            chosen[name].append(frame["method"].to_list())
    print(
        f"\n{log}: test AUC (deviation); rows of crosses; pairs memorized, factorized; same method in two seeds"
    )
    for name, entries in results.items():
        counts = [[methods.count(method) for method in METHODS[:2]] for methods in chosen[name]]
        print(f"  {name:<20} {_summary(entries)}  {counts}  {_agreement(chosen[name]):.0%}")
    print(
        "  AUC less that of a pure method (deviation), and halves of 95 % intervals: of the test rows, paired, and"
        " of the mean over splits (Student's)"
    )
    for name in [name for name in results if name not in PURE]:
        for pure in PURE:
            pairs = zip(runs[name], runs[pure], strict=True)
            found = [_difference(run, other) for run, other in pairs]
            differences, halves = zip(*found, strict=True)
            half = float(np.linalg.norm(halves)) / len(halves)
            spread = f"{mean_and_spread(differences, '+')}  {half:.4f}  {half_of_interval(differences):.4f}"
            print(f"    {name:<20} less {pure:<10} {spread}")
            for entry, difference in zip(results[name], differences, strict=True):
                entry[f"less_{pure}"] = difference
    return results


def _tenth(memorize: dict[str, float]) -> list[str]:
    """A search that may memorize what fits a tenth of the table that memorizes all pairs."""
    return [f"selector.max_cross_bytes={memorize['cross_bytes'] // 10:.0f}", "selector.cross_price=0"]


def _random(search: dict[str, float]) -> list[str]:
    """Pairs drawn at random, as many for each method as a search has chosen."""
    counts = [int(search["memorized"]), int(search["factorized"])]
    return ["selector.choice=random", f"selector.random_counts={counts}"]


def _difference(run: Path, other: Path) -> tuple[float, float]:
    """Test AUC of a run less that of another one on the same rows, and half of its paired 95 % interval."""
    scores, others = (pl.read_parquet(each / "scores" / "test.parquet") for each in (run, other))
    if not scores["row"].equals(others["row"]):
        raise CtrError(f'"{run}" and "{other}" scored different rows')
    found = auc_difference(
        scores["label"].to_numpy(), others["selected"].to_numpy(), scores["selected"].to_numpy()
    )
    return found.value, (found.high - found.low) / 2


def _choices(search_rows: list[str]) -> list[tuple[str, list[str]]]:
    searches = [(f"search on {rows}", [f"selector.search_rows={rows}"]) for rows in search_rows]
    return [*((method, [f"selector.choice={method}"]) for method in PURE), *searches]


def _run(config: Path, changes: list[str]) -> Path:
    """Train by a configuration without its own selector."""
    stated = {key: value for key, value in load_toml(config, "config").items() if key != "selector"}
    target = OUTPUT / "configs" / config.name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(dump_toml(stated), encoding="utf-8")
    return train(load_config(target, [*_SETTINGS, "tracking.uri=off", f"output.folder={OUTPUT}", *changes]))


def _numbers(run: Path) -> dict[str, float]:
    report = load_report(run)
    selected = report["selected"]
    row_bytes = 4 * load_toml(run / "config.toml", "config")["selector"]["pair_dim"]  # float32
    return {
        "baseline_auc": report["baseline"]["test"]["auc"],
        "auc": selected["test"]["auc"],
        "difference": report["difference"]["test_auc"]["value"],
        "memorized": report["feature_set"]["interactions"]["memorize"],
        "factorized": report["feature_set"]["interactions"]["factorize"],
        "cross_rows": selected["cross_rows"],
        "cross_bytes": selected["cross_rows"] * row_bytes,
        "table_bytes": selected["table_bytes"],
        "search_seconds": report["seconds"]["search"],
    }


def _summary(entries: list[dict[str, float]]) -> str:
    rows = round(float(np.mean([entry["cross_rows"] for entry in entries])))
    return f"{mean_and_spread([entry['auc'] for entry in entries])}  {rows:>9,}"


def _agreement(chosen: list[list[str]]) -> float:
    """Share of pairs with the same method, over all two seeds."""
    shares = [
        np.mean([a == b for a, b in zip(one, other, strict=True)]) for one, other in combinations(chosen, 2)
    ]
    return float(np.mean(shares)) if shares else float("nan")


if __name__ == "__main__":
    main()
