"""Synthetic logs as production has them: sampled, late, biased by position, weighted. Bounds: four standard errors."""

import hashlib
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from ctr.dataset.schema import load_schema
from ctr.dataset.synthetic import PRESETS, Truth, read_truth, write_log
from ctr.dataset.synthetic_draws import normals
from ctr.dataset.synthetic_production import Production, ShownPositions
from ctr.dataset.synthetic_spec import Categorical, SyntheticSpec
from ctr.errors import ConfigError

ROWS = 60_000
ALL = {
    "base_rate": 0.1,
    "negative_keep_rate": 0.2,
    "delay_hours": 12,
    "delayed_share": 0.4,
    "positions": 5,
    "weights": True,
}


def read(folder, format="parquet"):
    return pl.read_parquet(folder / "log.parquet") if format == "parquet" else pl.read_csv(folder / "log.csv")


def near(found, expected, variance, rows):
    """Whether a mean over `rows` rows is within four standard errors of what is expected."""
    return abs(found - expected) < 4.0 * np.sqrt(variance / rows)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "log"
    return write_log("demo", folder, rows=ROWS, seed=4), read(folder)


@pytest.fixture(scope="module")
def written(tmp_path_factory, plain):
    """Write the demo's log with options, once for each set of them: folder, truth, rows, schema."""
    known = {}

    def write(**options):
        key = tuple(sorted(options.items()))
        if key not in known:
            folder = tmp_path_factory.mktemp("log") / "log"
            truth = write_log("demo", folder, rows=ROWS, seed=4, **options)
            known[key] = folder, truth, read(folder), load_schema(folder / "schema.toml")
        return known[key]

    return write


@pytest.mark.parametrize(
    ("preset", "digest"),
    [("demo", "080358063ec94f9e"), ("pairs", "432dd4947b5ed9bf"), ("criteo", "60c074d51e9570d2")],
)
def test_without_options_a_log_is_what_it_was_before_there_were_any(preset, digest, tmp_path):
    write_log(preset, tmp_path / "log", rows=3000, seed=5)
    # Rounded, as the last bit of an exponential depends on the processor.
    frame = read(tmp_path / "log").with_columns(pl.col("true_probability").round(6))
    found = hashlib.sha256(frame.write_csv(datetime_format="%Y-%m-%d %H:%M:%S").encode())
    found.update((tmp_path / "log" / "schema.toml").read_bytes())
    assert found.hexdigest()[:16] == digest
    assert "production" not in (tmp_path / "log" / "truth.json").read_text()


def test_sampling_keeps_every_click_and_the_stated_share_of_the_other_rows(plain, written):
    truth, world = plain
    _, sampled, log, schema = written(negative_keep_rate=0.1)
    clicked = world.filter(click=1)
    assert log.filter(click=1).equals(clicked)
    negatives = len(world) - len(clicked)
    assert near(len(log.filter(click=0)) / negatives, 0.1, 0.1 * 0.9, negatives)
    assert log.join(world, on=world.columns, how="semi", nulls_equal=True).height == len(log)
    assert log["timestamp"].is_sorted()
    assert (sampled.rows, sampled.logged_rows) == (ROWS, len(log))
    assert (sampled.positive_rate, sampled.best_auc) == (truth.positive_rate, truth.best_auc)
    assert schema.negative_keep_rate == 0.1
    # Which negatives are kept tells nothing: their true probabilities have the same mean.
    rest, kept = (frame.filter(click=0)["true_probability"] for frame in (world, log))
    assert near(kept.mean(), rest.mean(), rest.var(), len(kept))
    assert sampled.best_auc == pytest.approx(roc_auc_score(log["click"], log["true_probability"]), abs=0.01)


def test_the_base_rate_is_that_of_the_impressions_before_any_is_left_out(written):
    _, truth, log, _ = written(base_rate=0.01, negative_keep_rate=0.05)
    # The intercept is set on 65,536 pilot rows, whose mean probability has an error of its own.
    error = np.sqrt(0.01 / ROWS) + 0.02 / np.sqrt(65_536)
    assert abs(truth.positive_rate - 0.01) < 4.0 * error
    assert truth.spec.base_rate == 0.01
    assert log["click"].sum() == round(truth.positive_rate * ROWS)
    assert log["click"].mean() > 0.1


def test_late_clicks_are_missing_from_the_label_until_they_arrive(plain, written):
    truth_before, world = plain
    _, truth, log, schema = written(delay_hours=12)
    assert log.drop("true_label", "click").equals(world.drop("click"))
    assert log["true_label"].equals(world["click"].alias("true_label"))
    assert (log["click"] <= log["true_label"]).all()
    age = (log["timestamp"].max() - log["timestamp"]) / timedelta(hours=1)
    mature = log.filter(age >= 12)
    assert mature["click"].equals(mature["true_label"].alias("click"))
    # Of the clicks of the last 12 hours, 30 % are late, and the delay of half of those is above the row's age.
    newest = log.filter((age < 12) & (pl.col("true_label") == 1))
    missed = 1.0 - newest["click"].mean()
    assert near(missed, 0.15, 0.15 * 0.85, len(newest))
    latest = log.filter((age < 1) & (pl.col("true_label") == 1))
    assert 1.0 - latest["click"].mean() > missed
    assert schema.split.label_matures_after == "12h"
    assert schema.split.by == "time"
    assert (truth.positive_rate, truth.best_auc) == (truth_before.positive_rate, truth_before.best_auc)


@pytest.mark.parametrize(("hours", "text"), [(12, "12h"), (0.5, "1800s"), (1e-5, "1s")])
def test_labels_mature_after_the_longest_delay(hours, text):
    assert Production(delay_hours=hours).split_keys() == {"label_matures_after": text}


def test_a_log_without_times_gets_a_time_column_and_keeps_its_rows_once_clicks_come_late(tmp_path):
    write_log("pairs", tmp_path / "plain", rows=2000)
    truth = write_log("pairs", tmp_path / "late", rows=2000, delay_hours=24, delayed_share=1)
    plain, late = read(tmp_path / "plain"), read(tmp_path / "late")
    assert late.drop("timestamp", "click", "true_label").equals(plain.drop("click"))
    assert late["timestamp"].is_sorted()
    assert late["timestamp"].dt.date().n_unique() == 14
    assert truth.spec.days == 14
    assert late["click"].sum() < late["true_label"].sum() == plain["click"].sum()
    assert load_schema(tmp_path / "late" / "schema.toml").split.column == "timestamp"


def test_positions_leave_the_impressions_alone_and_move_clicks_as_stated(plain, written):
    _, world = plain
    _, truth, log, schema = written(positions=5)
    changed = ["click", "true_probability"]
    assert log.select(world.columns).drop(changed).equals(world.drop(changed))
    shares = log["position"].value_counts(normalize=True).sort("position")
    assert shares["position"].to_list() == [1, 2, 3, 4, 5]
    # Limits of positions are quantiles of 65,536 pilot rows.
    error = np.sqrt(0.2 * 0.8 * (1 / ROWS + 1 / 65_536))
    assert (shares["proportion"] - 0.2).abs().max() < 4.0 * error

    def logit(name):
        return (pl.col(name) / (1 - pl.col(name))).log()

    at_first = log.select(logit("true_probability_at_1") - logit("true_probability")).to_series()
    np.testing.assert_allclose(at_first, np.log(log["position"]), atol=1e-9)  # odds fall as 1 / position
    rate = log["true_probability"].mean()
    assert near(log["click"].mean(), rate, rate * (1 - rate), ROWS)
    assert near(rate, 0.2, log["true_probability"].var(), 65_536 / 2)  # pilot rows
    assert truth.positive_rate == log["click"].mean()
    assert truth.best_auc == pytest.approx(roc_auc_score(log["click"], log["true_probability"]), abs=1e-4)
    field = schema.fields[-1]
    assert (field.name, field.role, field.serve_value) == ("position", "bias", 1)
    assert schema.true_probability == "true_probability"


def test_better_items_are_shown_higher_so_that_leaving_the_position_out_exaggerates_effects(written):
    _, truth, log, _ = written(positions=5)
    own = log.select(
        (pl.col("true_probability_at_1") / (1 - pl.col("true_probability_at_1"))).log()
    ).to_series()
    assert (
        -0.65 < np.corrcoef(own, log["position"])[0, 1] < -0.5
    )  # 0.6, less what cutting scores into five loses
    effect = pl.Series("effect", truth.effect("advertiser", log["advertiser"]))
    good, bad = (log.filter(side) for side in (effect > 0, effect < 0))

    def gap(name):
        rates = np.array([frame[name].mean() for frame in (good, bad)])
        return float(np.subtract(*np.log(rates / (1 - rates))))

    assert good["position"].mean() < bad["position"].mean() - 0.1
    assert gap("click") > 1.1 * gap("true_probability_at_1")


def test_the_truth_knows_positions_and_still_says_what_can_be_seen(written):
    folder, truth, log, _ = written(positions=5)
    effects = truth.effect("position", ["1", "2", "5", "6", "0", None, "x"])
    centred = -np.log([1, 2, 5]) + np.log([1, 2, 3, 4, 5]).mean()
    np.testing.assert_allclose(effects[:3], centred)
    assert np.isnan(effects[3:]).all()
    assert truth.roles["position"] == "bias"
    counts = [
        log.group_by(pl.col(name).cast(pl.String).alias("value"))
        .agg(pl.len().alias("count"))
        .select(pl.lit(name).alias("field"), "value", "count")
        .drop_nulls()
        for name in ("position", "site", "browser")
    ]
    found = truth.detectable(pl.concat(counts), base_rate=0.2)
    by_field = {
        name: part.get_column("detectable").mean()
        for (name,), part in found.group_by("field", maintain_order=True)
    }
    assert by_field["position"] == 1.0
    assert by_field["browser"] == 0.0 < by_field["site"]
    assert not found.filter(field="position")["noise"].any()
    assert read_truth(folder) == truth


def test_the_base_rate_is_met_under_the_positions(tmp_path):
    truth = write_log("pairs", tmp_path / "log", rows=40_000, positions=10, base_rate=0.05)
    assert near(truth.positive_rate, 0.05, 0.05 * 0.95, 40_000 / 2)


def test_weights_have_mean_one_and_tell_nothing(plain, written):
    _, world = plain
    _, _, log, schema = written(weights=True)
    weight = log["weight"]
    assert log.drop("weight").equals(world)
    assert weight.min() > 0.0
    assert near(weight.mean(), 1.0, np.exp(0.25) - 1.0, ROWS)
    assert near(weight.log().mean(), -0.125, 0.25, ROWS)
    assert abs(np.corrcoef(weight.log(), log["true_probability"])[0, 1]) < 4.0 / np.sqrt(ROWS)
    assert schema.weight == "weight"


def test_normal_numbers_are_normal():
    found = normals(3, np.arange(200_000))
    assert near(found.mean(), 0.0, 1.0, 200_000)
    assert near((found**2).mean(), 1.0, 2.0, 200_000)
    for limit, share in ((1.0, 0.8413447), (2.0, 0.9772499), (-1.0, 0.1586553)):
        assert near((found < limit).mean(), share, share * (1 - share), 200_000)


@pytest.mark.parametrize("format", ["parquet", "csv"])
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_all_options_go_together_in_every_preset_and_format(preset, format, tmp_path):
    truth = write_log(preset, tmp_path / "log", rows=1500, format=format, **ALL)
    schema = load_schema(tmp_path / "log" / "schema.toml")
    read = schema.read
    if format == "csv":
        frame = pl.read_csv(tmp_path / "log" / "log.csv", separator=read.separator, has_header=read.has_header,
                            new_columns=read.columns)  # fmt: skip
    else:
        frame = pl.read_parquet(tmp_path / "log" / "log.parquet")
    frame = frame.with_columns(pl.sql_expr(text).alias(name) for name, text in schema.derive.items())
    fields = {field.name for field in schema.fields}
    assert fields <= set(frame.columns)
    assert set(frame.columns) - fields == {
        schema.label,
        "timestamp",
        "true_probability",
        "true_probability_at_1",
        "true_label",
        "weight",
    }
    assert frame["position"].is_between(1, 5).all()
    assert frame["weight"].mean() == pytest.approx(1.0, abs=0.2)
    # A late click is a row with label 0 so far, and sampled like one.
    assert frame[schema.label].sum() <= frame["true_label"].sum() <= round(truth.positive_rate * 1500)
    assert (frame[schema.label] <= frame["true_label"]).all()
    assert truth.logged_rows == len(frame) < 1500
    assert truth.spec.base_rate == 0.1
    assert read_truth(tmp_path / "log") == truth


def test_a_log_with_all_options_depends_on_the_seed_alone_and_not_on_chunks(tmp_path):
    whole = write_log("demo", tmp_path / "whole", rows=3000, seed=3, **ALL)
    write_log("demo", tmp_path / "again", rows=3000, seed=3, **ALL)
    parts = write_log("demo", tmp_path / "parts", rows=3000, seed=3, chunk=77, **ALL)
    write_log("demo", tmp_path / "other", rows=3000, seed=4, **ALL)
    for name in ("log.parquet", "schema.toml", "truth.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert read(tmp_path / "whole").equals(read(tmp_path / "parts"))
    assert not read(tmp_path / "whole").equals(read(tmp_path / "other"))
    assert whole == parts


def test_sampled_rows_are_written_in_row_groups_as_long_as_a_chunk(tmp_path):
    import pyarrow.parquet as pq

    write_log("pairs", tmp_path / "log", rows=4000, chunk=100, negative_keep_rate=0.01, base_rate=0.05)
    file = pq.ParquetFile(tmp_path / "log" / "log.parquet")
    lengths = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    assert all(100 <= length < 200 for length in lengths[:-1])


@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_a_log_of_which_nothing_is_kept_is_empty_and_has_its_columns(format, tmp_path):
    options = {"base_rate": 1e-9, "negative_keep_rate": 1e-9}
    truth = write_log("demo", tmp_path / "log", rows=50, format=format, **options)
    assert truth.logged_rows == 0
    assert read(tmp_path / "log", format).height == 0
    assert "click" in read(tmp_path / "log", format).columns


def test_where_nothing_matters_positions_are_noise_alone(tmp_path):
    spec = SyntheticSpec(name="flat", fields=(Categorical(name="f", cardinality=3),))
    shown = ShownPositions(4, seed=1)
    index = np.arange(8000, dtype=np.uint64)
    shown.fit(index, np.zeros(8000))
    assert np.bincount(shown.draw(index, np.zeros(8000)))[1:].tolist() == [2000] * 4
    truth = write_log(spec, tmp_path / "log", rows=5000, positions=4)
    assert truth.best_auc > 0.6  # the position alone
    assert isinstance(truth, Truth)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"negative_keep_rate": 0.0}, "negative_keep_rate: expected greater than 0"),
        ({"negative_keep_rate": 1.5}, "negative_keep_rate: expected less than or equal to 1"),
        ({"base_rate": 1.0}, "base_rate: expected less than 1"),
        ({"delay_hours": -1}, "delay_hours: expected greater than 0"),
        ({"delay_hours": 240}, "delay_hours: expected less than the 240 hours that the log spans, found 240"),
        ({"delay_hours": 1, "delayed_share": 2}, "delayed_share: expected less than or equal to 1"),
        ({"positions": 1}, "positions: expected greater than or equal to 2"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        write_log("demo", tmp_path / "log", rows=10, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_field_with_the_name_of_a_column_that_an_option_adds_is_refused(tmp_path):
    spec = SyntheticSpec(name="mine", fields=(Categorical(name="weight", cardinality=3),))
    assert write_log(spec, tmp_path / "log", rows=10).rows == 10
    with pytest.raises(ConfigError, match='the column "weight" is named more than once'):
        write_log(spec, tmp_path / "log", rows=10, weights=True)
