"""Opens bundles that mean harm in a process of its own, whose memory and time are limited."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.serving.mutations import sign
from tests.serving.write_released import RELEASED

RELEASE = RELEASED / "format_3"
SECONDS = 120  # on a machine that has other things to do
MEGABYTES = 300  # by which a process may grow before it refuses
_OPENS = """
import json, resource, sys
import polars as pl
from ctr.errors import CtrError
from ctr.serving.scorer import Scorer
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
told, scores = "", None
try:
    scores = Scorer(sys.argv[1]).score(pl.read_parquet(sys.argv[2])).tolist()
except CtrError as error:
    told = str(error)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
print(json.dumps([told, scores, grown]))
"""


class Outcome(NamedTuple):
    """told: of a refusal, else empty. scores: of the rows beside the fixture; None where it was refused."""

    told: str
    scores: list[float] | None
    megabytes: int


def fresh(folder: Path) -> Path:
    """A copy of the released bundle, to be spoiled."""
    return Path(shutil.copytree(RELEASE / "bundle", folder / "bundle"))


def rewritten(bundle, name, change):
    """Change a JSON file of a bundle."""
    content = json.loads((bundle / name).read_text(encoding="utf-8"))
    change(content)
    (bundle / name).write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def opened(bundle) -> Outcome:
    """What becomes of a bundle, with digests computed anew; fails where the process dies or hangs."""
    sign(bundle)
    command = [sys.executable, "-c", _OPENS, str(bundle), str(RELEASE / "rows.parquet")]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        pytest.fail(f"no answer in {SECONDS} s")
    assert run.returncode == 0, f"exit {run.returncode}: {run.stderr[-2000:]}"
    return Outcome(*json.loads(run.stdout.splitlines()[-1]))


def refused(bundle) -> str:
    """By what message, of one line, a bundle is refused; it took little memory."""
    outcome = opened(bundle)
    assert outcome.scores is None
    assert "\n" not in outcome.told
    assert len(outcome.told) < 1000
    assert outcome.megabytes < MEGABYTES
    return outcome.told
