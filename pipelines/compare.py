"""Comparisons of feature sets: `python -m pipelines.compare CONFIG | RUN RUN ... [--out DIR] [--set ...] [--force]`."""

import sys

from ctr.cli import main

if __name__ == "__main__":
    sys.argv = ["ctr", "compare", *sys.argv[1:]]
    main()
