"""The batch scoring pipeline: `python -m pipelines.score BUNDLE FILE --out FILE`."""

import sys

from ctr.cli import main

if __name__ == "__main__":
    sys.argv = ["ctr", "score", *sys.argv[1:]]
    main()
