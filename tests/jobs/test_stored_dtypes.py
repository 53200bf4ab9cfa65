"""Runs whose bundles store weights in fewer bits: what the report counts, what the bundle scores, what is refused."""

import json

import numpy as np
import polars as pl
import pytest

import ctr.jobs.train as job
from ctr.errors import CtrError
from ctr.serving.bundle import Bundle
from ctr.serving.scorer import Scorer
from ctr.serving.storage import restored, table_bytes
from tests.jobs.conftest import SCHEMA, configuration, tiny_log, trained


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a log and its schema."""
    found = tmp_path_factory.mktemp("dtypes")
    (found / "shop.toml").write_text(SCHEMA)
    tiny_log().write_parquet(found / "log.parquet")
    return found


def finished(folder, name, selector, **export):
    config = configuration(
        folder,
        name,
        export=export,
        selector=selector,
        tracking={"uri": "off"},
        backbone={"kind": "deepfm", "hidden": [16, 8]},
        embedding={"dim": 8},
        output={"folder": str(folder / "runs")},
    )
    return trained(config)


def read(run):
    return json.loads((run / "report.json").read_text())


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_the_report_is_about_what_the_bundle_holds(folder, dtype):
    run = finished(folder, dtype, {"kind": "frequency", "ratio": 0.5}, dtype=dtype)
    report, bundle = read(run), Bundle.open(run / "bundle")
    weights = bundle.weights()
    assert report["selected"]["table_bytes"] == table_bytes(weights)
    assert report["selected"]["bytes"] < report["selected"]["parameters"] * (4 if dtype == "int8" else 3)
    assert report["baseline"]["bytes"] == report["baseline"]["parameters"] * 4
    # Test is scored by the rounded network: as the bundle scores the raw rows.
    log, scores = pl.read_parquet(folder / "log.parquet"), pl.read_parquet(run / "scores" / "test.parquet")
    found = Scorer(bundle).score(log[scores["row"]])
    np.testing.assert_allclose(found, scores["selected"], rtol=0, atol=1e-6)
    manifest = bundle.manifest
    assert manifest.network.dtype == dtype
    assert manifest.rounding.auc == report["selected"]["valid"]["auc"]
    assert manifest.rounding.model_dump() == report["rounding"]
    assert 0.0 < manifest.rounding.largest_change < 0.05
    assert manifest.sizes.kept.model_dump() == {
        key: report["selected"][key] for key in ("parameters", "bytes", "table_bytes")
    }
    assert manifest.sizes.keep_all.model_dump() == {
        key: report["baseline"][key] for key in ("parameters", "bytes", "table_bytes")
    }
    assert sum(own.bytes for own in manifest.costs.fields.values()) == table_bytes(weights)
    assert restored(weights)["table.weight"].shape == weights["table.weight"].shape


def test_what_costs_more_than_is_allowed_is_refused_before_test_is_read(folder, monkeypatch):
    monkeypatch.setattr(job, "score", lambda *_, **__: pytest.fail("test was read"))
    selector = {"kind": "frequency", "ratio": 0.4}
    with pytest.raises(
        CtrError, match=r'dtype = "int8" changes a probability on valid by 0\.\d+; .* allows 1e-09'
    ):
        finished(folder, "refused", selector, dtype="int8", max_probability_change=1e-9)
    assert not list((folder / "runs").glob("refused-*/bundle"))


def test_a_loss_of_auc_beyond_the_bound_is_refused(folder):
    from ctr.config import Export
    from ctr.jobs.rounding import require_small

    settings = Export(dtype="int8", max_auc_loss=0.001)
    found = {"auc": 0.7980, "float32_auc": 0.8, "largest_change": 0.0}
    with pytest.raises(CtrError, match=r"lowers AUC on valid by 0\.002000, from 0\.800000 to 0\.798000"):
        require_small(found, settings)
    require_small({**found, "auc": 0.7991}, settings)
    changed = {**found, "auc": 0.8, "largest_change": 0.002}
    require_small(changed, settings)
    with pytest.raises(CtrError, match=r'by 0\.002000, more than 0\.001; use export\.dtype = "float32"'):
        require_small(changed, Export(dtype="float16"))
    require_small({**changed, "largest_change": 0.0009}, Export(dtype="float16"))
    require_small({**found, "auc": 0.81}, settings)  # a gain is none


def test_where_nothing_is_selected_keep_all_is_rounded_and_counted_in_float32(folder):
    run = finished(folder, "none", {"kind": "none"}, dtype="int8")
    report, bundle = read(run), Bundle.open(run / "bundle")
    assert report["baseline"]["bytes"] == report["baseline"]["parameters"] * 4
    assert bundle.manifest.sizes.kept.table_bytes == table_bytes(bundle.weights())
    assert bundle.manifest.rounding.auc == report["baseline"]["valid"]["auc"]
