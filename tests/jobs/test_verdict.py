"""The final evaluation: its numbers against numbers by hand."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.field_spec import FieldSpec
from ctr.dataset.store import Part
from ctr.jobs.report_facts import ceiling, feature_counts, gates, peak_memory, versions
from ctr.jobs.scored import Scored
from ctr.jobs.verdict import model_entry, scores_table


def part(labels, truth=None):
    labels = np.array(labels, np.uint8)
    rows = np.arange(10, 10 + len(labels))
    return Part(np.zeros((len(labels), 1), np.int32), None, [], labels, rows, truth)


def scored(test, valid=(0.5, 0.5)):
    return Scored(model=None, valid=np.array(valid), test=np.array(test))


def test_scores_stand_beside_row_and_label():
    table = scores_table(scored([0.1, 0.2, 0.3]), scored([0.4, 0.5, 0.6]), part([0, 1, 0]))
    assert table.to_dict(as_series=False) == {
        "row": [10, 11, 12],
        "label": [0, 1, 0],
        "baseline": [0.1, 0.2, 0.3],
        "selected": [0.4, 0.5, 0.6],
    }
    assert table.schema["baseline"] == table.schema["selected"] == pl.Float64


def test_without_a_selection_the_scores_of_it_are_null():
    table = scores_table(scored([0.1, 0.2]), None, part([0, 1]))
    assert table["selected"].to_list() == [None, None]
    assert table.schema["selected"] == pl.Float64


def test_the_ceiling_is_the_auc_of_the_truth_and_models_reach_a_share_of_what_it_gains_over_chance():
    # Truth orders 3 of 4 pairs rightly: AUC 0.75. The baseline reaches 0.625 with a tie, half of the gain.
    labels, truth = [0, 1, 0, 1], np.array([0.1, 0.3, 0.4, 0.8])
    found = ceiling(scored([0.2, 0.4, 0.5, 0.5]), scored([0.1, 0.3, 0.4, 0.8]), part(labels, truth))
    shares = {"test_auc": 0.75, "baseline_share": 0.5, "selected_share": 1.0}
    assert found == pytest.approx(shares | {"baseline_calibration": 1.0, "selected_calibration": 1.0})
    assert ceiling(scored([0.2, 0.4, 0.5, 0.5]), None, part(labels, truth))["selected_share"] is None
    assert ceiling(scored([0.2]), None, part([1])) is None


def test_without_a_feature_set_everything_counts_as_kept():
    vocabulary = pl.DataFrame(
        {
            "field": ["b", "b", "b", "b", "a", "a", "a"],
            "role": ["unknown", "missing", "value", "value", "unknown", "missing", "value"],
        }
    )
    specs = [FieldSpec(name="b"), FieldSpec(name="a")]
    dataset = SimpleNamespace(vocabulary=vocabulary, schema=SimpleNamespace(fields=specs))
    found = feature_counts(None, dataset)
    assert found == {
        "kept": 3,
        "total": 3,
        "ratio": 1.0,
        "fields": {"b": {"kept": 2, "total": 2}, "a": {"kept": 1, "total": 1}},
        "cost": None,
        "groups": None,
        "interactions": {"memorize": None, "factorize": None, "naive": None},
        "shadow": None,
    }
    assert list(found["fields"]) == ["b", "a"]  # as in the schema


def test_costs_are_those_of_fields_that_keep_anything_and_groups_count_fields():
    features = pl.DataFrame(
        {"field": ["a", "b", "c"], "role": ["value"] * 3, "value": ["x"] * 3, "kept": [True, False, True]}
    )
    specs = [
        FieldSpec(name="a", cost=2, group="crm"),
        FieldSpec(name="b", cost=3.5, group="crm"),
        FieldSpec(name="c", group="log"),
        FieldSpec(name="d", shares="b", cost=1, group="log"),  # goes with the field whose table it reads
    ]
    found = feature_counts(FeatureSet(features), SimpleNamespace(schema=SimpleNamespace(fields=specs)))
    assert found["cost"] == {"kept": 2, "total": 6.5}
    assert found["groups"] == {
        "crm": {"kept": 1, "total": 2, "cost": 5.5},
        "log": {"kept": 1, "total": 2, "cost": 1.0},
    }


def test_bias_fields_weights_and_row_ids_stand_in_the_scores():
    test = replace(part([0, 1]), weights=np.array([1.0, 2.0], np.float32))
    baseline = replace(scored([0.1, 0.2]), served=np.array([0.3, 0.4]))
    table = scores_table(baseline, None, test, pl.Series(["r1", "r2"]))
    assert table.columns == [
        "row",
        "label",
        "baseline",
        "selected",
        "weight",
        "row_id",
        "baseline_at_serving",
        "selected_at_serving",
    ]
    assert table.row(1) == (11, 1, 0.2, None, 2.0, "r2", 0.4, None)


def test_a_refitted_model_lends_no_metrics_and_both_windows_are_named():
    dataset = SimpleNamespace(manifest={"window": {"train": [0, 7], "valid": [8, 9], "test": [10, 12]}})
    model, report = SimpleNamespace(best_step=40), {"selected": None, "baseline": {"valid": 1, "test": 2}}
    metrics = {"valid": 1, "test": 2}
    evaluated = {"trained_on": ["train"], "steps": 40, "window": [0, 7], "metrics": metrics}
    none = model_entry("none", model, dataset, report)
    assert none == {"refit": "none", "evaluated": evaluated, "shipped": evaluated}
    whole = model_entry("all", model, dataset, report)
    assert whole["evaluated"] == evaluated
    assert whole["shipped"] == {
        "trained_on": ["train", "valid", "test"],
        "steps": 40,
        "window": [0, 12],
        "metrics": None,
    }


def histogram(gate, kept, selector="optfs"):
    features = pl.DataFrame({"role": ["value"] * len(gate), "gate": gate, "kept": kept})
    return gates(SimpleNamespace(features=features, provenance={"selector": selector}))


def test_the_histogram_of_gates_counts_every_value_once():
    values = np.linspace(-1.0, 3.0, 200)
    found = histogram(values, values > 0)
    assert len(found["edges"]) == 41
    assert sum(found["kept"]) == int((values > 0).sum())
    assert sum(found["dropped"]) == int((values <= 0).sum())
    assert sum(a * b for a, b in zip(found["kept"], found["dropped"], strict=True)) <= max(found["kept"]) ** 2


def test_a_few_features_of_great_evidence_do_not_flatten_the_histogram():
    found = histogram(np.concatenate([np.linspace(-1, 1, 198), [5000.0, 9000.0]]), np.arange(200) > 99)
    assert found["edges"][-1] < 10
    assert sum(found["kept"]) == 100


@pytest.mark.parametrize("gate", [[0.5], [1.0, 1.0, 1.0]])
def test_gates_that_are_all_alike_have_a_histogram_too(gate):
    assert sum(histogram(gate, [True] * len(gate))["kept"]) == len(gate)


def test_only_trained_gates_have_a_histogram():
    assert histogram([0.5], [True], selector="frequency") is None
    assert gates(None) is None


def test_versions_name_what_numbers_depend_on():
    assert {"python", "ctr", "torch", "polars", "numpy"} <= set(versions())


def test_peak_memory_is_in_bytes():
    assert 30e6 < peak_memory() < 1e12
