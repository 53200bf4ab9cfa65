"""A selector held against the best other one: hand-made comparisons whose answer is known."""

import json

import numpy as np
import polars as pl
import pytest

from pipelines.benchmarks.best_referee import cells, main, over_logs, over_sizes

LABELS = np.tile([0, 1], 200)


def comparison(folder, tests, valids):
    """Three seeds of two sizes: scores by selector are right for so many rows in ten."""
    folder.mkdir()
    models, scores = [], {"row": np.arange(400), "label": LABELS}
    for label, right in tests.items():
        for size in (0.5, 0.1):
            for seed in range(3):
                draw = np.random.default_rng([seed, 5])  # the same noise for all: pairs of a seed share it
                noise = draw.normal(size=400)
                scores[f"model_{len(models)}"] = LABELS * right[size] + noise
                models.append(
                    {
                        "role": "selector",
                        "label": label,
                        "size": size,
                        "seed": seed,
                        "valid_auc": valids[label],
                    }
                )
    pl.DataFrame(models).write_parquet(folder / "comparison.parquet")
    pl.DataFrame(scores).write_parquet(folder / "scores.parquet")
    (folder / "comparison.json").write_text(json.dumps({"name": folder.name}))
    return folder


@pytest.fixture
def log(tmp_path):
    tests = {"trial": {0.5: 2.0, 0.1: 1.0}, "good": {0.5: 1.0, 0.1: 1.0}, "lucky": {0.5: 0.5, 0.1: 0.5}}
    return comparison(tmp_path / "log", tests, {"trial": 0.6, "good": 0.7, "lucky": 0.65})


def test_the_rival_is_the_best_on_valid_and_the_difference_that_on_test(log):
    large, small = cells(log, "trial")
    assert (large.size, small.size) == (0.5, 0.1)
    assert large.best == small.best == "good"  # not itself, and not the one with the best test AUC
    assert large.difference.interval().low > 0.05
    assert small.difference.interval() == (0.0, 0.0, 0.0)  # the same scores


def test_the_mean_over_sizes_lies_between_them_and_is_paired_row_by_row(log):
    large, small = cells(log, "trial")
    mean = over_sizes([large, small])
    assert mean.value == pytest.approx(large.difference.value / 2)
    assert mean.half_width() == pytest.approx(large.difference.half_width() / 2)  # the other adds nothing


def test_logs_add_up_in_squares(log):
    mean = over_sizes(cells(log, "trial")).interval()
    both = over_logs([mean, mean])
    assert both.value == pytest.approx(mean.value)
    assert both.high - both.low == pytest.approx((mean.high - mean.low) / np.sqrt(2))


def test_the_command_prints_every_size_and_writes_them(log, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["best_referee", str(log), "--out", str(tmp_path / "found.json")])
    main()
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found["log"]) == ["mean", "0.5", "0.1"]
    assert found["all"]["value"] == pytest.approx(found["log"]["mean"]["value"])
    printed = capsys.readouterr().out
    assert "50%  good" in printed
    assert "all logs: +" in printed
