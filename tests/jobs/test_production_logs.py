"""Logs as production has them, against a truth that is known: sampled negatives, late clicks, positions that bias."""

import io
import json

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console

from ctr.config import Config
from ctr.dataset.ingest import ingest
from ctr.dataset.schema import load_schema
from ctr.dataset.store import Dataset
from ctr.dataset.synthetic import write_log
from ctr.jobs.train import train
from ctr.settings import check


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run(tmp_path):
    """Runs the job on a folder with log.parquet and schema.toml; sections by keyword. Returns report and folder."""

    def job(folder, **sections):
        content = {
            "name": folder.name,
            "data": {
                "schema": str(folder / "schema.toml"),
                "input": str(folder / "log.parquet"),
                "folder": str(tmp_path / "datasets"),
            },
            "selector": {"referees": [], "compare_dropped_reads": False},
            "training": {"epochs": 6},
            "tracking": {"uri": "off"},
            "output": {"folder": str(tmp_path / "runs")},
        }
        for name, section in sections.items():
            content[name] = {**content.get(name, {}), **section}
        found = train(check(content, Config, "config"), console=Console(file=io.StringIO()))
        return json.loads((found / "report.json").read_text()), found

    return job


def sampled_log(folder, rate, impressions, base):
    """Four fields whose effects add up; a share `rate` of the rows without a click is kept."""
    folder.mkdir()
    draw = np.random.default_rng(1)
    sizes = (4, 8, 15, 25)
    columns = {f"f{n}": draw.integers(0, size, impressions) for n, size in enumerate(sizes)}
    effects = [draw.normal(0, 0.6, size) for size in sizes]
    logit = base + sum(effect[column] for effect, column in zip(effects, columns.values(), strict=True))
    truth = 1 / (1 + np.exp(-logit))
    click = draw.random(impressions) < truth
    kept = click | (draw.random(impressions) < rate)
    frame = pl.DataFrame({"click": click.astype(np.int8), **columns, "true_probability": truth})
    frame.filter(pl.Series(kept)).write_parquet(folder / "log.parquet")
    fields = "".join(f'[[fields]]\nname = "{name}"\n' for name in columns)
    (folder / "schema.toml").write_text(
        f'name = "sampled"\nlabel = "click"\ntrue_probability = "true_probability"\nnegative_keep_rate = {rate}\n'
        f'[read]\nformat = "parquet"\n[split]\nby = "random"\nvalid = 0.2\ntest = 0.2\n{fields}'
    )
    return folder


# The intercept is known no better than sqrt(1 / clicks + 1 / negatives) of the rows that it is learned from: these logs
# have enough of both in valid for it to be below one percent.
@pytest.mark.slow
@pytest.mark.parametrize(("rate", "impressions", "base"), [(0.1, 1_500_000, -3.0), (0.01, 6_000_000, -4.5)])
def test_probabilities_of_a_sampled_log_are_those_of_the_world(run, tmp_path, rate, impressions, base):
    report, _ = run(sampled_log(tmp_path / "sampled", rate, impressions, base))
    for model in ("baseline", "selected"):
        assert report["ceiling"][f"{model}_calibration"] == pytest.approx(1.0, abs=0.02), model
        assert report[model]["test"]["calibration_ratio"] == pytest.approx(1.0, abs=0.05), model


def test_labels_that_are_given_time_to_mature_have_the_base_rates_of_the_truth(tmp_path):
    write_log("demo", tmp_path / "late", rows=60_000, delay_hours=12, delayed_share=0.3)
    schema = load_schema(tmp_path / "late" / "schema.toml")
    dataset = Dataset(ingest(schema, tmp_path / "late" / "log.parquet", tmp_path / "data"))
    log = pl.read_parquet(tmp_path / "late" / "log.parquet")
    assert dataset.manifest["rows"]["immature"] > 1000
    for part in (dataset.part("train"), dataset.part("valid"), dataset.sealed_test()):
        truth = log["true_label"].gather(np.asarray(part.rows))
        assert part.labels.mean() == pytest.approx(truth.mean(), rel=0.01)
    split = schema.split.model_copy(update={"label_matures_after": None})
    hasty = Dataset(
        ingest(
            schema.model_copy(update={"split": split}), tmp_path / "late" / "log.parquet", tmp_path / "data"
        )
    )
    test = hasty.sealed_test()
    assert test.labels.mean() < 0.97 * log["true_label"].gather(np.asarray(test.rows)).mean()


@pytest.mark.slow
def test_a_position_bias_that_is_stated_hardly_moves_the_selected_set(run, tmp_path):
    kept = {}
    for name, positions in (("unbiased", None), ("biased", 5)):
        write_log("demo", tmp_path / name, rows=600_000, positions=positions)
        # At this price hardly a value is kept by chance; by chance the two sets would differ.
        _, folder = run(tmp_path / name, selector={"penalty": 5.0}, training={"epochs": 1})
        features = pl.read_parquet(folder / "feature_set" / "features.parquet")
        values = features.filter("kept", pl.col("role") == "value", pl.col("field") != "position")
        kept[name] = set(values.select("field", "value").rows())
    both = len(kept["biased"] & kept["unbiased"])
    assert both / len(kept["biased"]) >= 0.95
    assert both / len(kept["unbiased"]) >= 0.95
