"""Bundles that were written by earlier code, and must score as they did for ever (`write_released.py`)."""

import numpy as np
import polars as pl
import pytest

from ctr.serving.bundle import Bundle
from ctr.serving.manifest import FORMAT_VERSION
from ctr.serving.scorer import Scorer
from tests.serving.write_released import RELEASED

FORMATS = sorted(RELEASED.iterdir())


def test_the_format_of_today_has_a_fixture():
    assert RELEASED / f"format_{FORMAT_VERSION}" in FORMATS


@pytest.mark.parametrize("folder", FORMATS, ids=lambda folder: folder.name)
def test_a_released_bundle_scores_as_when_it_was_written(folder):
    rows = pl.read_parquet(folder / "rows.parquet")
    expected = rows["expected"].to_numpy()
    assert np.nanstd(expected) > 0.001
    assert f"format_{Bundle.open(folder / 'bundle').manifest.format_version}" == folder.name
    np.testing.assert_allclose(
        Scorer(folder / "bundle").score(rows.drop("expected")), expected, rtol=0, atol=1e-6
    )
