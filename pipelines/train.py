"""The scheduled training pipeline: `python -m pipelines.train CONFIG [--set section.key=value ...] [--force]`."""

import sys

from ctr.cli import main

if __name__ == "__main__":
    sys.argv = ["ctr", "train", *sys.argv[1:]]
    main()
