"""What a report says about the log: nothing of a plain one, and everything else in plain words."""

from ctr.report.log_facts import join_fact, log_facts


def test_a_plain_log_of_which_every_row_was_used_needs_no_words(report):
    assert log_facts(report) == []


def test_every_circumstance_is_said(report):
    report["dataset"] |= {
        "as_of": "2024-05-01",
        "window": {"train": ["a", "b"], "valid": ["c", "d"], "test": ["e", "f"]},
        "filtered": 1200,
        "gap": 0,
        "immature": 7,
        "weights": {"min": 0.5, "max": 3.0, "mean": 1.25, "zero_rows": 4},
        "negative_keep_rate": 0.1,
        "joins": [{"input": "u.csv", "on": "user", "time": None, "unmatched": 0.25}],
        "truncated": {"seen": 12},
        "personal": {"fields": ["user"], "key": "0123"},
    }
    report["bias"] = {"position": 1}
    report["dropped_reads"] = {
        "used": "zero",
        "valid_auc": {"zero": 0.7, "unknown": 0.71},
        "better": "unknown",
    }
    report["model"] = {
        "refit": "valid",
        "shipped": {"trained_on": ["train", "valid"], "steps": 1200, "window": ["a", "d"]},
    }
    found = dict(log_facts(report))
    assert found["rows left out"] == "1,200 filtered by where, 7 too young for their label"
    assert found["as of"] == "2024-05-01"
    assert found["train, valid and test cover"] == "train a to b; valid c to d; test e to f"
    assert found["weights"] == "from 0.5 to 3, on average 1.25; 4 rows weigh nothing; intervals by bootstrap"
    assert found["sampling"].startswith("10.0 % of the rows without click were kept")
    assert found["side tables"] == "u.csv on user: not point in time, 25.0 % of rows without partner"
    assert found["lists cut off"] == "seen in 12 rows"
    assert found["personal data"] == "user: replaced by keyed hashes on reading (key 0123)"
    assert found["bias fields"] == "position (at scoring always 1)"
    assert found["a dropped value reads"] == (
        "a row of zeros, the worse on valid (AUC 0.7000; its field's unknown: 0.7100)"
    )
    assert "refitted on train + valid, a to d for the same 1,200 steps" in found["model in the bundle"]


def test_a_join_in_time_names_its_time_and_what_was_too_old():
    join = {"input": "p.csv", "on": "item", "time": "since", "unmatched": 0.5, "too_old": 0.125}
    assert join_fact(join) == (
        "p.csv on item: latest row before each impression by since, 50.0 % of rows without partner, "
        "12.5 % with a partner that is too old"
    )


def test_the_comparison_of_readings_may_be_off(report):
    report["dropped_reads"] = {"used": "unknown", "valid_auc": {"zero": None, "unknown": 0.7}, "better": None}
    assert dict(log_facts(report))["a dropped value reads"] == "its field's unknown"
