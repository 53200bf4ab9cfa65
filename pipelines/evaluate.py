"""The offline evaluation pipeline: `python -m pipelines.evaluate BUNDLE ... --data FILE ... --out DIR`."""

import sys

from ctr.cli import main

if __name__ == "__main__":
    sys.argv = ["ctr", "evaluate", *sys.argv[1:]]
    main()
