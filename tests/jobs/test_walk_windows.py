"""Where windows lie: by durations, numbers and shares, on times and on numbers, and what does not fit."""

from datetime import datetime, timedelta
from itertools import pairwise

import polars as pl
import pytest

from ctr.config import Config
from ctr.errors import ConfigError
from ctr.jobs.comparison_config import WalkForward
from ctr.jobs.walk_windows import windows_of
from ctr.settings import check

ROWS = 240
START = datetime(2024, 1, 1)
SCHEMA = """
name = "tiny"
label = "click"
[split]
by = "{by}"
{column}
{more}
[[fields]]
name = "user"
"""


@pytest.fixture
def run(tmp_path):
    """A run on a log of ten days, a row an hour; `when` is a time, `epoch` the same in seconds."""
    times = [START + timedelta(hours=row) for row in range(ROWS)]
    pl.DataFrame(
        {
            "when": times,
            "epoch": [int((time - datetime(1970, 1, 1)).total_seconds()) for time in times],
            "real": [row + 0.5 for row in range(ROWS)],
            "click": [row % 2 for row in range(ROWS)],
            "user": [f"u{row % 5}" for row in range(ROWS)],
        }
    ).write_parquet(tmp_path / "log.parquet")

    def build(column="when", by="time", more=""):
        path = tmp_path / f"{column}-{by}.toml"
        column = f'column = "{column}"' if by == "time" else ""
        path.write_text(SCHEMA.format(by=by, column=column, more=more) + '[read]\nformat = "parquet"\n')
        data = {"schema": str(path), "input": str(tmp_path / "log.parquet")}
        return check({"name": "tiny", "data": {**data, "folder": str(tmp_path / "datasets")}}, Config, "run")

    return build


def walk(**keys):
    return check({"start": "2024-01-06", "step": "1d", "windows": 3, **keys}, WalkForward, "walk_forward")


def test_windows_of_a_day_follow_each_other_and_know_their_ages(run):
    windows = windows_of(run(), walk())
    days = [f"2024-01-0{day}T00:00:00+00:00" for day in (6, 7, 8, 9)]
    assert [(each.first, each.end) for each in windows] == list(pairwise(days))
    assert [each.age for each in windows] == [0.0, 86_400.0, 172_800.0]


def test_a_window_is_the_test_part_of_its_dataset_and_all_before_it_is_trained_on(run):
    config = run()
    for number, window in enumerate(windows_of(config, walk())):
        dataset = window.build(config)
        rows = dataset.manifest["rows"]
        assert rows["test"] == 24
        assert rows["train"] + rows["valid"] == 24 * (5 + number)
        assert dataset.manifest["window"]["test"] == [
            f"2024-01-0{6 + number}T00:00:00+00:00",
            f"2024-01-0{6 + number}T23:00:00+00:00",
        ]


def test_labels_that_ripen_late_are_waited_for(run):
    config = run(more='label_matures_after = "36h"')
    window = windows_of(config, walk(windows=2))[1]
    assert window.build(config).manifest["rows"]["test"] == 24


def test_numbers_are_walked_in_numbers_or_with_a_unit_in_durations(run):
    epoch = int((datetime(2024, 1, 6) - datetime(1970, 1, 1)).total_seconds())
    by_number = windows_of(run("epoch"), walk(start=epoch, step=86_400))
    by_duration = windows_of(run("epoch"), walk(start=epoch, step="1d", unit="s"))
    assert [each.first for each in by_number] == [epoch, epoch + 86_400, epoch + 172_800]
    assert [each.first for each in by_duration] == [each.first for each in by_number]
    assert [each.age for each in by_number] == [None, None, None]
    assert [each.age for each in by_duration] == [0.0, 86_400.0, 172_800.0]
    assert by_number[2].build(run("epoch")).manifest["rows"]["test"] == 24


def test_shares_walk_through_as_many_rows_each(run):
    config = run()
    windows = windows_of(config, walk(start=0.5, step=0.25, windows=2))
    assert [each.build(config).manifest["rows"]["test"] for each in windows] == [60, 60]
    assert windows[0].first == "2024-01-06T00:00:00+00:00"


def test_the_end_of_the_log_may_cut_the_last_window_by_half_at_most(run):
    config = run()
    windows = windows_of(config, walk(start="2024-01-08T10:00"))
    assert [each.build(config).manifest["rows"]["test"] for each in windows] == [24, 24, 14]
    with pytest.raises(ConfigError, match="found room for 2"):
        windows_of(config, walk(start="2024-01-08T14:00"))


@pytest.mark.parametrize(
    ("column", "by", "more", "keys", "words"),
    [
        ("when", "random", "", {}, 'splits by = "random"; a walk forward needs a log with time'),
        ("when", "time", 'valid = "2024-01-04"', {}, "which cannot move with the windows"),
        ("real", "time", "", {"start": 0.5}, "numbers with a fraction"),
        ("epoch", "time", "", {"start": 0.5}, 'state walk_forward.unit \\("s" for seconds since 1970\\)'),
        ("when", "time", "", {"step": 3600}, 'expected a duration \\("1d"\\) or a share'),
        ("when", "time", "", {"windows": 9}, "found room for 5: state another start, fewer windows"),
        ("when", "time", "", {"start": "2023-12-01"}, "state another start"),
        ("epoch", "time", "", {"step": 9}, '"2024-01-06" is a date, but "epoch" holds numbers'),
    ],
)
def test_what_cannot_be_walked_is_refused_with_what_to_do(run, column, by, more, keys, words):
    with pytest.raises(ConfigError, match=words):
        windows_of(run(column, by, more), walk(**keys))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"step": "soon"}, 'expected a duration \\("1d"\\), a share of the rows or a number, found "soon"'),
        ({"step": 0}, "expected a step ahead"),
        ({"start": 1.5}, "expected a share of the rows above 0 and below 1"),
        ({"windows": 1}, "greater than or equal to 2"),
        ({"new_values": ["drop", "drop"]}, 'found "drop" more than once'),
    ],
)
def test_what_cannot_be_meant_is_refused(keys, words):
    with pytest.raises(ConfigError, match=words):
        walk(**keys)
