"""Bounds on metrics: what is kept, what is missed, and what cannot be told."""

import pytest

from ctr.errors import ConfigError
from ctr.jobs.evaluation_settings import EvaluationSettings, Guardrail, evaluation_settings
from ctr.jobs.guardrails import judged, missed_text
from ctr.settings import check


def entry(name, auc, half=0.01, ratio=1.0):
    interval = {"value": auc, "low": auc - half, "high": auc + half} if auc else None
    bounds = {"calibration_ratio": {"low": ratio - 0.1, "high": ratio + 0.1}}
    none = {"value": None, "low": None, "high": None}
    return {
        "name": name,
        "auc": interval or none,
        "calibration_ratio": ratio,
        "ece": 0.02,
        "gauc": None,
        "intervals": bounds,
    }


def change(value, half=0.01):
    return {"name": "new", "auc": {"value": value, "low": value - half, "high": value + half}}


REPORT = {
    "rows": 1000,
    "models": [entry("old", 0.75), entry("new", 0.74)],
    "differences": [change(-0.01, 0.004)],
    "slices": [
        {
            "field": "device",
            "value": value,
            "rows": rows,
            "models": [entry("old", auc), entry("new", auc)],
            "differences": [change(0.0)],
        }
        for value, rows, auc in (("phone", 900, 0.76), ("tv", 90, 0.6), ("fridge", 10, None))
    ],
    "days": None,
}


def outcomes(**keys):
    found = judged([check(keys, Guardrail, "guardrail")], REPORT)
    return [(item["model"], item["value"], item["kept"]) for item in found]


@pytest.mark.parametrize(
    ("keys", "kept"),
    [
        ({"min": 0.74}, True),
        ({"min": 0.741}, False),
        ({"min": 0.735, "judged_by": "interval"}, False),
        ({"min": 0.73, "judged_by": "interval"}, True),
        ({"max": 0.745, "judged_by": "interval"}, False),
        ({"max_drop": 0.01}, True),
        ({"max_drop": 0.0099}, False),
        ({"max_drop": 0.0139, "judged_by": "interval"}, False),
        ({"max_drop": 0.0141, "judged_by": "interval"}, True),
        ({"metric": "calibration_ratio", "max": 1.1}, True),
        ({"metric": "calibration_ratio", "max": 1.05, "judged_by": "interval"}, False),
        ({"metric": "ece", "max": 0.01}, False),
        ({"metric": "gauc", "min": 0.5}, None),
    ],
)
def test_bounds_of_all_rows_judge_the_candidate(keys, kept):
    assert outcomes(**keys) == [("new", None, kept)]


def test_a_named_model_is_judged_instead():
    assert outcomes(min=0.75, model="old") == [("old", None, True)]
    with pytest.raises(ConfigError, match='no model is named "odl"; the nearest name is "old"'):
        outcomes(min=0.75, model="odl")


def test_bounds_of_a_slice_judge_each_of_its_values():
    expected = [("new", "phone", True), ("new", "tv", False), ("new", "fridge", None)]
    assert outcomes(min=0.7, slice="device") == expected
    assert outcomes(min=0.7, slice="device", value="tv") == [("new", "tv", False)]
    assert outcomes(min=0.7, slice="device", min_rows=100)[1:] == [
        ("new", "tv", None),
        ("new", "fridge", None),
    ]
    assert outcomes(min=0.7, slice="device", value="car") == [("new", "car", None)]
    assert outcomes(min=0.7, slice="day") == [("new", None, None)]


def test_what_could_not_be_told_says_why():
    found = judged([Guardrail(min=0.7, slice="device", min_rows=100)], REPORT)
    assert [item["why"] for item in found] == [None, "fewer than 100 rows", "fewer than 100 rows"]
    assert judged([Guardrail(min=0.7, slice="age")], REPORT)[0]["why"] == "the log has no such rows"


def test_a_missed_bound_is_one_line():
    found = judged([Guardrail(min=0.7, slice="device", value="tv"), Guardrail(max_drop=0.001)], REPORT)
    assert missed_text(found[0]) == '"new" where device is tv: auc is 0.6000, min 0.7'
    assert missed_text(found[1]) == '"new": auc changes by -0.0100, max_drop 0.001'


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"metric": "auc"}, "needs a bound"),
        ({"metric": "logloss", "max_drop": 0.1}, 'max_drop applies to "auc" and "gauc"'),
        ({"metric": "auc", "max_rise": 0.1}, "max_rise applies to"),
        ({"min": 0.1, "value": "tv"}, "value needs slice"),
        ({"metric": "ece", "max_rise": 0.1, "judged_by": "interval"}, "has no interval; state max"),
        ({"metric": "acu", "min": 0.1}, "metric: expected"),
    ],
)
def test_a_guardrail_that_bounds_nothing_is_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        check(keys, Guardrail, "guardrail")


def test_the_command_line_counts_where_the_file_says_something_else(tmp_path):
    file = tmp_path / "evaluation.toml"
    file.write_text(
        'models = ["a", "b"]\ndata = "log.csv"\nout = "there"\nmin_auc = 0.6\nslices = ["device"]\n'
        '[[guardrail]]\nslice = "hour"\nmin = 0.5\n[[guardrail]]\nslice = "day"\nmax_drop = 0.1\n'
    )
    found = evaluation_settings(file, {"out": "here", "data": [], "min_auc": None})
    assert isinstance(found, EvaluationSettings)
    assert (found.out, found.data, found.sliced) == ("here", ["log.csv"], ["device", "hour"])
    assert [rail.min for rail in found.bounds] == [0.6, 0.5, None]
    file.write_text(file.read_text().replace("min_auc", "min_acu"))
    with pytest.raises(ConfigError, match='min_acu: unknown key; the nearest name is "min_auc"'):
        evaluation_settings(file, {})


def test_what_is_missing_is_named():
    with pytest.raises(ConfigError) as error:
        evaluation_settings(None, {"models": []})
    assert all(f"{key}: this key is required" in str(error.value) for key in ("models", "data", "out"))
