"""Quality on real logs: keep-all baselines, and selectors at equal size, over seeds.

    python -m pipelines.benchmarks.quality baselines [--logs ml100k adkdd criteo28k] [--seeds 3] [--out FILE]
    python -m pipelines.benchmarks.quality curve     [--logs ...] [--seeds 3] [--out FILE]

Logs that are split at random get another split with each seed, so that the spread holds both. Finished runs are kept
under `runs/quality` and not repeated. LightGBM, where it is installed, sees the same encoded rows as a peer.
"""

import argparse
import importlib.util
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ctr.config import Config, load_config
from ctr.dataset.ingest import ingest
from ctr.dataset.schema import load_schema
from ctr.dataset.split_spec import RandomSplit, TimeSplit
from ctr.dataset.store import Dataset, Part
from ctr.evaluation.metrics import measure
from ctr.jobs.train import load_report, train
from ctr.settings import dump_toml
from pipelines.benchmarks.spreads import mean_and_spread

CONFIGS = Path(__file__).parent.parent / "configs"
LOGS = ("ml100k", "adkdd", "criteo28k")
BACKBONES = ("lr", "fm", "fnn", "ipnn", "pin", "deepfm", "dcn", "dcnv2")
OUTPUT = Path("runs/quality")


def main() -> None:
    """Run the part that is asked for and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("baselines", "curve"))
    parser.add_argument("--logs", nargs="+", choices=LOGS, default=list(LOGS))
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=list(BACKBONES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="section.key=value")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}
    for log in arguments.logs:
        if arguments.part == "baselines":
            results[log] = baselines(log, arguments.backbones, arguments.seeds, arguments.changes)
        else:
            results[log] = curve(log, arguments.seeds, arguments.changes)
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def baselines(log: str, backbones: list[str], seeds: int, changes: list[str]) -> dict[str, Any]:
    """Test AUC of keep-all per backbone: mean and standard deviation over seeds."""
    table: dict[str, list[float]] = defaultdict(list)
    for seed, schema in splits(log, seeds):
        for backbone in backbones:
            own = ["selector.kind=none", f"backbone.kind={backbone}"]
            report = load_report(_train(log, seed, schema, [*own, *changes]))
            table[backbone].append(report["baseline"]["test"]["auc"])
        if importlib.util.find_spec("lightgbm"):
            table["lightgbm (peer)"].append(_lightgbm(load_config(CONFIGS / f"{log}.toml"), schema, seed))
    print(f"\n{log}: test AUC of keep-all, {seeds} seeds")
    for name, aucs in sorted(table.items(), key=lambda entry: -np.mean(entry[1])):
        print(f"  {name:<16} {mean_and_spread(aucs)}")
    return dict(table)


def curve(log: str, seeds: int, changes: list[str]) -> dict[str, Any]:
    """Per selector and share kept: test AUC, and its difference to keep-all of the same seed."""
    values: dict[tuple[str, float], list[tuple[float, float]]] = defaultdict(list)
    keep_all = []
    for seed, schema in splits(log, seeds):
        report = load_report(_train(log, seed, schema, changes))
        keep_all.append(report["baseline"]["test"]["auc"])
        for point in report["curve"]:
            key = (point["selector"], round(point["ratio"], 2))
            values[key].append((point["test"]["auc"], point["difference"]["value"]))
    print(f"\n{log}: test AUC by share of values kept, {seeds} seeds (keep-all {mean_and_spread(keep_all)})")
    for (selector, ratio), pairs in sorted(values.items(), key=lambda entry: (-entry[0][1], entry[0][0])):
        aucs, differences = zip(*pairs, strict=True)
        change = mean_and_spread(differences, "+")
        print(f"  {ratio:>5.0%} {selector:<10} {mean_and_spread(aucs)}   to keep-all {change}")
    return {f"{selector}@{ratio}": pairs for (selector, ratio), pairs in values.items()}


def splits(
    log: str, seeds: int, folder: Path = OUTPUT, *, earlier: float = 0.0
) -> Iterator[tuple[int, Path]]:
    """Seeds, each with the schema to use: with a split of its own where rows are split at random.

    Args:
        earlier: by which share of its rows the test part of a log that is split by time begins earlier with each seed.
    """
    path = Path(load_config(CONFIGS / f"{log}.toml").data.schema_file)
    schema = load_schema(path)
    for seed in range(seeds):
        if isinstance(schema.split, RandomSplit):
            change: dict[str, float] = {"seed": seed}
        elif (
            earlier and seed and isinstance(schema.split, TimeSplit) and isinstance(schema.split.test, float)
        ):
            change = {"test": schema.split.test + seed * earlier}
        else:
            yield seed, path
            continue
        other = schema.model_copy(update={"split": schema.split.model_copy(update=change)})
        target = folder / "schemas" / f"{schema.name}-{seed}.toml"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(dump_toml(other.model_dump(mode="json", exclude_unset=True)), encoding="utf-8")
        yield seed, target


def _train(log: str, seed: int, schema: Path, changes: list[str]) -> Path:
    own = [f"seed={seed}", f"data.schema={schema}", "tracking.uri=off", f"output.folder={OUTPUT}"]
    return train(load_config(CONFIGS / f"{log}.toml", [*own, *changes]))


def _lightgbm(config: Config, schema: Path, seed: int) -> float:
    """Test AUC of LightGBM on the same ids as categories, stopped early on valid."""
    import lightgbm

    dataset = Dataset(ingest(load_schema(schema), config.data.input, Path(config.data.folder)))

    def rows(part: Part) -> tuple[Any, Any]:
        offsets = [field.offset for field in dataset.fields if field.kind != "list"]
        return np.asarray(part.ids) - np.array(offsets), part.labels

    train_rows, valid_rows = (
        lightgbm.Dataset(*rows(dataset.part(name)), categorical_feature=list(range(len(dataset.fields))))
        for name in ("train", "valid")
    )
    settings = {
        "objective": "binary",
        "metric": "auc",
        "learning_rate": 0.05,
        "num_leaves": 31,
        "min_data_per_group": 20,
        "cat_smooth": 50,
        "seed": seed,
        "verbosity": -1,
    }
    model = lightgbm.train(
        settings,
        train_rows,
        1000,
        valid_sets=[valid_rows],
        callbacks=[lightgbm.early_stopping(50, verbose=False)],
    )
    features, labels = rows(dataset.sealed_test())
    return measure(labels, np.asarray(model.predict(features))).auc


if __name__ == "__main__":
    main()
