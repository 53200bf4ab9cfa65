"""Bundles that were written by earlier code, and must score as they did for ever (`write_released.py`)."""

import numpy as np
import polars as pl
import pytest

from ctr.serving.bundle import Bundle
from ctr.serving.manifest import FORMAT_VERSION
from ctr.serving.scorer import Scorer
from tests.serving.write_released import FORMS, RELEASED

FORMATS = sorted(RELEASED.iterdir())


def manifest(folder):
    return Bundle.open(folder / "bundle").manifest


def test_every_format_has_a_fixture_and_that_of_today_one_of_each_form():
    names = {folder.name for folder in FORMATS}
    assert {f"format_{version}" for version in range(1, FORMAT_VERSION + 1)} | FORMS.keys() <= names


def test_the_forms_of_today_are_those_in_which_bundles_store_and_read_features():
    found = [manifest(RELEASED / name) for name in FORMS]
    assert {each.network.dtype for each in found} == {"float32", "float16", "int8"}
    assert {each.encoding for each in found} == {"vocabulary", "hashed"}
    tables = {bool(each.placement.second_rows) for each in found if each.placement is not None}
    assert tables == {True, False}
    crosses = [each.crosses for each in found if each.crosses is not None]
    assert {each.sketch is None for each in crosses} == {True, False}
    assert all(each.architecture["pairs"]["factorized"] for each in found if each.crosses is not None)


@pytest.mark.parametrize("folder", FORMATS, ids=lambda folder: folder.name)
def test_a_released_bundle_scores_as_when_it_was_written(folder):
    rows = pl.read_parquet(folder / "rows.parquet")
    expected = rows["expected"].to_numpy()
    assert np.nanstd(expected) > 0.001
    assert folder.name.split("_")[1] == str(manifest(folder).format_version)
    np.testing.assert_allclose(
        Scorer(folder / "bundle").score(rows.drop("expected")), expected, rtol=0, atol=1e-6
    )
