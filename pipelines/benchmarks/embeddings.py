"""What a memory budget for embeddings costs in AUC: collision-free, separate and shared tables; and drift.

    python -m pipelines.benchmarks.embeddings pipelines/benchmarks/embeddings.toml --out docs/embeddings
        [--parts budgets variants drift] [--logs ml100k ...] [--workers 2]

Writes budgets.json, budgets.md and a budgets-LOG.png for each log; variants.json and variants.md; drift.json,
drift.md and drift.png. Separate and shared tables have the same bytes, which is the comparison of Coleman et al.
("Unified Embedding", NeurIPS 2023).
"""

import argparse
import json
from pathlib import Path

from rich.console import Console

from ctr.settings import check, load_toml
from pipelines.benchmarks import embedding_budgets, embedding_drift, embedding_variants
from pipelines.benchmarks.embedding_runs import Settings

PARTS = {"budgets": embedding_budgets, "variants": embedding_variants, "drift": embedding_drift}


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder for tables and plots")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--logs", nargs="+", help="names of logs; all by default")
    parser.add_argument("--workers", type=int, default=1, help="trainings at a time, each on one core")
    arguments = parser.parse_args()
    settings = check(load_toml(arguments.config, "config"), Settings, f'config "{arguments.config}"')
    arguments.out.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    for part in arguments.parts:
        results = PARTS[part].measure(settings, arguments.logs, arguments.workers, console)
        if results:
            _write(arguments.out / f"{part}.json", json.dumps(results, indent=1) + "\n")
            text = PARTS[part].markdown(results)
            _write(arguments.out / f"{part}.md", text)
            if draw := getattr(PARTS[part], "draw", None):
                draw(results, arguments.out)
            print(text)


def _write(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)


if __name__ == "__main__":
    main()
