import polars as pl
import pytest

from ctr.report import tables


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


def test_fields_stay_in_schema_order_and_rows_covered_weighs_values_by_their_count(report):
    report["feature_set"]["fields"] = {"b": {"kept": 1, "total": 2}, "a": {"kept": 0, "total": 1}}
    features = pl.DataFrame(
        {
            "field": ["b", "b", "b", "a"],
            "role": ["unknown", "value", "value", "value"],
            "count": [1000, 90, 10, 50],
            "kept": [True, True, False, False],
        }
    )
    assert texts(tables.fields_table(report, features)) == [
        ["b", "2", "1", "1", "50.0 %", "90.0 %"],
        ["a", "1", "0", "1", "0 %", "0 %"],
    ]
    assert texts(tables.fields_table(report, None)) == [
        ["b", "2", "1", "1", "50.0 %"],
        ["a", "1", "0", "1", "0 %"],
    ]


def test_every_curve_point_is_a_row_and_the_choice_is_named(report):
    rows = texts(tables.curve_table(report))
    assert len(rows) == 16
    assert [row[0] for row in rows if "chosen" in row[0]] == ["optfs (chosen)"]
    assert rows[-1][0] == "all"
    assert rows[-1][3] == "-"  # keep-all has no penalty
    assert rows[-1][-1] == "0.0000 (0.0000 to 0.0000)"


def test_sizes_state_the_change_and_skip_what_neither_model_has(report):
    assert texts(tables.sizes_table(report)) == [
        ["parameters", "149,420", "87,829", "-41.2 %"],
        ["embedding, first-order and cross tables", "358 kB", "111 kB", "-68.9 %"],
        ["all weights", "598 kB", "351 kB", "-41.2 %"],
        ["bundle on disk", "-", "412 kB", "-"],
    ]


def test_quality_compares_both_models_on_valid_and_test(report):
    assert texts(tables.quality_table(report)) == [
        ["valid AUC", "0.7833", "0.7840", "+0.0007"],
        ["valid log loss", "0.4288", "0.4281", "-0.0007"],
        ["test AUC", "0.7812", "0.7819", "+0.0007"],
        ["test log loss", "0.4301", "0.4296", "-0.0005"],
        ["test calibration error (ECE)", "0.0074", "0.0061", "-0.0013"],
    ]


def test_planted_shares_are_counted_from_what_was_found(report):
    assert texts(tables.planted_table(report)) == [
        ["pure-noise values dropped", "356", "360", "98.9 %"],
        ["detectable values kept", "797", "812", "98.2 %"],
    ]


def test_seconds_add_up_and_stages_that_did_not_run_are_dashes(report):
    rows = texts(tables.seconds_table(report))
    assert rows[-2] == ["export", "-", "-"]
    assert rows[-1] == ["all", "1 min 27 s", "100 %"]


def test_provenance_names_dataset_rows_versions_and_resources(report):
    facts = dict(tables.provenance(report))
    assert facts["dataset digest"] == "0123456789abcdef0123456789abcdef0123"
    assert facts["rows"] == "train 160,000, valid 20,000, test 20,000"
    assert facts["training speed"] == "84,512 rows/s"
    assert facts["peak memory"] == "812 MB"
    assert facts["versions"] == "ctr 0.1.0, polars 1.40.0, torch 2.8.0"


@pytest.mark.parametrize("build", [tables.curve_table, tables.planted_table])
def test_tables_without_data_are_left_out(build, report):
    assert build(report | {"curve": None, "planted": None}) is None
