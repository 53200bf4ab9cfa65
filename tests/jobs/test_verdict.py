"""The final evaluation: its numbers against numbers by hand."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from ctr.dataset.store import Part
from ctr.jobs.verdict import Scored, _ceiling, _feature_counts, _gates, peak_memory, scores_table, versions


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
    found = _ceiling(scored([0.2, 0.4, 0.5, 0.5]), scored([0.1, 0.3, 0.4, 0.8]), part(labels, truth))
    assert found == pytest.approx({"test_auc": 0.75, "baseline_share": 0.5, "selected_share": 1.0})
    assert _ceiling(scored([0.2, 0.4, 0.5, 0.5]), None, part(labels, truth))["selected_share"] is None
    assert _ceiling(scored([0.2]), None, part([1])) is None


def test_without_a_feature_set_everything_counts_as_kept():
    vocabulary = pl.DataFrame(
        {
            "field": ["b", "b", "b", "b", "a", "a", "a"],
            "role": ["unknown", "missing", "value", "value", "unknown", "missing", "value"],
        }
    )
    found = _feature_counts(None, SimpleNamespace(vocabulary=vocabulary))
    assert found == {
        "kept": 3,
        "total": 3,
        "ratio": 1.0,
        "fields": {"b": {"kept": 2, "total": 2}, "a": {"kept": 1, "total": 1}},
        "interactions": {"memorize": None, "factorize": None, "naive": None},
    }
    assert list(found["fields"]) == ["b", "a"]  # as in the schema


def gates(gate, kept, selector="optfs"):
    features = pl.DataFrame({"role": ["value"] * len(gate), "gate": gate, "kept": kept})
    return _gates(SimpleNamespace(features=features, provenance={"selector": selector}))


def test_the_histogram_of_gates_counts_every_value_once():
    values = np.linspace(-1.0, 3.0, 200)
    found = gates(values, values > 0)
    assert len(found["edges"]) == 41
    assert sum(found["kept"]) == int((values > 0).sum())
    assert sum(found["dropped"]) == int((values <= 0).sum())
    assert sum(a * b for a, b in zip(found["kept"], found["dropped"], strict=True)) <= max(found["kept"]) ** 2


def test_a_few_features_of_great_evidence_do_not_flatten_the_histogram():
    found = gates(np.concatenate([np.linspace(-1, 1, 198), [5000.0, 9000.0]]), np.arange(200) > 99)
    assert found["edges"][-1] < 10
    assert sum(found["kept"]) == 100


@pytest.mark.parametrize("gate", [[0.5], [1.0, 1.0, 1.0]])
def test_gates_that_are_all_alike_have_a_histogram_too(gate):
    assert sum(gates(gate, [True] * len(gate))["kept"]) == len(gate)


def test_only_trained_gates_have_a_histogram():
    assert gates([0.5], [True], selector="frequency") is None
    assert _gates(None) is None


def test_versions_name_what_numbers_depend_on():
    assert {"python", "ctr", "torch", "polars", "numpy"} <= set(versions())


def test_peak_memory_is_in_bytes():
    assert 30e6 < peak_memory() < 1e12
