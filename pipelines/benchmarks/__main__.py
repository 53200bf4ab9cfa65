"""Benchmarks: `python -m pipelines.benchmarks [ingest] [training] [--out FILE] [--against FILE]`.

Flat JSON. Ratios compare two things measured in the same run, so that they mean the same on any machine.
"""

import argparse
import json
import os
from pathlib import Path

from pipelines.benchmarks import ingest, training

PARTS = {"ingest": ingest.measure, "training": training.measure}


def main() -> None:
    """Run the parts that are asked for, all by default."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--against", type=Path, help="an earlier JSON file to compare with")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    earlier = json.loads(arguments.against.read_text(encoding="utf-8")) if arguments.against else {}
    results: dict[str, float] = {"cores": os.cpu_count() or 1}
    for name in arguments.parts or PARTS:
        results |= PARTS[name]()
    for key, value in results.items():
        before = (
            f"   before {earlier[key]:>16,.3f}  ({value / earlier[key]:.2f}x)" if earlier.get(key) else ""
        )
        print(f"{key:<32} {value:>16,.3f}{before}")
    if arguments.out:
        scratch = arguments.out.with_name(f".{arguments.out.name}")
        scratch.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        scratch.replace(arguments.out)


if __name__ == "__main__":
    main()
