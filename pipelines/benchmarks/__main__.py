"""Benchmarks: `python -m pipelines.benchmarks [part ...] [--out FILE] [--against FILE]`; see docs/speed.md.

Flat JSON. Ratios compare two things measured in the same run, so that they mean the same on any machine.
"""

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pipelines.benchmarks import (
    epochs,
    evaluation,
    feeding,
    ingest,
    latency,
    peers,
    precision,
    scoring,
    search,
    selectors,
    step_profile,
    tables,
    training,
)
from pipelines.benchmarks.steps import Setting


class Part(NamedTuple):
    """What can be run by name.

    about: what it is about to do. measure: does it. usual: whether it runs where no part is named.
    """

    about: str
    measure: Callable[[Setting], dict[str, float]]
    usual: bool = True


PARTS = {
    "ingest": Part(
        "a Criteo-shaped log: reading it, ingesting it", lambda setting: ingest.measure(setting.rows_ingested)
    ),
    "feeding": Part("batches of an ingested log, beside training on them", feeding.measure),
    "training": Part("steps at 1 and 10 million features, beside the MLP alone; memory", training.measure),
    "search": Part("steps of a search at 1 million features, beside plain ones", search.measure),
    "evaluation": Part(
        "metrics and a paired difference on 10 million rows, beside a sort", evaluation.measure
    ),
    "scoring": Part("the forward pass at 1 million features, beside the MLP's", scoring.measure),
    "latency": Part(
        "requests to a bundle of kept features and to one of all: times, loading, memory", latency.measure
    ),
    "peers": Part("FuxiCTR at 1 and 10 million features, and LightGBM, beside us", peers.measure),
    "profile": Part("where a step's time goes, on one thread", step_profile.measure, usual=False),
    "epochs": Part(
        "epochs of the main job: looks at valid, and a search with its retraining, beside plain ones",
        epochs.measure,
        usual=False,
    ),
    "precision": Part(
        "steps at 1 and 10 million features in bfloat16, beside float32", precision.measure, usual=False
    ),
    "tables": Part(
        "a table alone, beside PyTorch's and FBGEMM's, at 1 and 10 million features",
        tables.measure,
        usual=False,
    ),
    "selectors": Part("choosing values by trial, beside an OptFS search", selectors.measure, usual=False),
    "loading": Part("a bundle of about a million kept features", latency.measure_loading, usual=False),
    "training_33m": Part("steps at 1 and 33 million features", training.measure_33m, usual=False),
    "ingest_50m": Part("a log of 50 million rows: reading it, ingesting it", ingest.measure_50m, usual=False),
    "search_10m": Part("steps of a search at 10 million features", search.measure_10m, usual=False),
}


def main(arguments: Sequence[str] | None = None, setting: Setting | None = None) -> None:
    """Run the parts that are asked for, by default all but the larger ones.

    Args:
        arguments: of the command line, by default this process's.
        setting: how large everything is.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--against", type=Path, help="an earlier JSON file to compare with")
    given = parser.parse_args(arguments)
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if "peers" in given.parts and not peers.importable():
        parser.error(
            'peers: neither FuxiCTR nor LightGBM is installed; `pip install -c constraints.txt -e ".[peers]"`'
        )
    if given.out and not given.out.absolute().parent.is_dir():
        parser.error(f'--out: there is no folder "{given.out.absolute().parent}"')
    try:
        earlier = _earlier(given.against) if given.against else {}
    except (OSError, ValueError) as error:
        parser.error(f'--against "{given.against}": expected a JSON file that --out has written ({error})')
    results: dict[str, float] = {"cores": os.cpu_count() or 1}
    results |= _measured(given.parts, setting or Setting())
    for key, value in results.items():
        print(f"{key:<36} {value:>16,.3f}{_before(value, earlier.get(key))}")
    _say_what_differs(results, earlier, whole=not given.parts)
    if given.out:
        scratch = given.out.with_name(f".{given.out.name}")
        scratch.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        scratch.replace(given.out)


def _earlier(path: Path) -> dict[str, float]:
    """What an earlier run wrote.

    Raises:
        OSError, ValueError: it is no such file.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    numbers = isinstance(found, dict) and all(isinstance(value, int | float) for value in found.values())
    if not numbers:
        raise ValueError("not a flat object of numbers")
    return dict(found)


def _before(value: float, earlier: float | None) -> str:
    if earlier is None:
        return ""
    ratio = f"  ({value / earlier:.2f}x)" if earlier else ""
    return f"   before {earlier:>16,.3f}{ratio}"


def _say_what_differs(results: dict[str, float], earlier: dict[str, float], *, whole: bool) -> None:
    """What a reader of the two columns should know: another machine, and figures that are gone."""
    if earlier and earlier.get("cores") != results["cores"]:
        print("The earlier figures are of another number of cores: compare ratios, not rates and seconds.")
    gone = sorted(earlier.keys() - results.keys())
    if gone and whole:
        print(f"Not measured now: {', '.join(gone)}")


def _measured(names: Sequence[str], setting: Setting) -> dict[str, float]:
    """What the named parts give, in the order of `PARTS`."""
    results: dict[str, float] = {}
    for name, part in PARTS.items():
        usual = part.usual and (name != "peers" or bool(peers.importable()))
        if name in names or (usual and not names):
            print(f"{name}: {part.about}", flush=True)
            results |= part.measure(setting)
    return results


if __name__ == "__main__":
    main()
