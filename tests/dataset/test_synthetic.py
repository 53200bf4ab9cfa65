import json

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import OneHotEncoder

from ctr.dataset.schema import load_schema
from ctr.dataset.synthetic import PRESETS, SyntheticSpec, Truth, read_truth, schema_of, write_log
from ctr.dataset.synthetic_draws import Names, uniforms, zipf_ranks, zipf_shares
from ctr.dataset.synthetic_fields import planted_field
from ctr.dataset.synthetic_log import joint_effects
from ctr.dataset.synthetic_spec import Categorical, Hour, Listed, Numeric, Pair
from ctr.errors import ConfigError, DataError
from ctr.settings import check

ROWS = 60_000


def small_spec(**more):
    fields = (
        Categorical(name="useful", cardinality=12, zipf=0.3, matters=1.0, effect=(0.5, 1.0)),
        Categorical(name="some", cardinality=40, zipf=0.3, matters=0.4, effect=(0.8, 1.2), missing=0.1),
        Categorical(name="noise", cardinality=50, late=0.5),
        Categorical(name="left", cardinality=10, zipf=0.5),
        Categorical(name="right", cardinality=8, zipf=0.5),
        Listed(name="tags", cardinality=12, longest=3, zipf=0.2, matters=1.0, effect=(0.8, 1.2), missing=0.1),
        Numeric(name="price", lowest=-3.0, scale=20.0, effect=0.8, missing=0.2, missing_effect=1.0),
        Numeric(name="speed", transform="quantile", bins=4, effect=0.7, shape="hill"),
        Hour(effect=0.5),
    )
    pairs = (Pair(field_a="left", field_b="right", kind="memorize", strength=0.8),)
    return SyntheticSpec(name="small", **{"fields": fields, "pairs": pairs, "days": 5, **more})


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic") / "small"
    truth = write_log(small_spec(), folder, rows=ROWS, seed=7)
    return folder, truth, pl.read_parquet(folder / "log.parquet")


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_truth(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_log("demo", tmp_path / name, rows=500, seed=seed)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["log.parquet", "schema.toml", "truth.json"]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)
    first, other = read_truth(tmp_path / "a"), read_truth(tmp_path / "c")
    values = ["site_0001", "site_0002"]
    assert first.effect("site", values).tolist() != other.effect("site", values).tolist()


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_rows_do_not_depend_on_the_size_of_the_chunks(preset, tmp_path):
    whole = write_log(preset, tmp_path / "whole", rows=1000, seed=3)
    parts = write_log(preset, tmp_path / "parts", rows=1000, seed=3, chunk=77)
    one, many = (pl.read_parquet(tmp_path / name / "log.parquet") for name in ("whole", "parts"))
    assert one.equals(many)
    assert len(one) == 1000
    assert whole == parts


def test_the_true_probability_is_that_of_the_labels(log):
    _, truth, frame = log
    assert frame["click"].mean() == pytest.approx(0.2, abs=0.01)
    assert truth.positive_rate == frame["click"].mean()
    tenth = (pl.col("true_probability").rank("ordinal") * 10 // (ROWS + 1)).alias("tenth")
    part = frame.group_by(tenth).agg(
        pl.col("click").mean(), pl.col("true_probability").mean().alias("p"), pl.len()
    )
    errors = (part["click"] - part["p"]) / (part["p"] * (1 - part["p"]) / part["len"]).sqrt()
    assert errors.abs().max() < 4.0
    assert truth.best_auc == pytest.approx(roc_auc_score(frame["click"], frame["true_probability"]), abs=1e-4)


def test_the_logit_of_a_row_is_the_sum_of_what_the_truth_says(log):
    _, truth, frame = log
    head = frame.head(300)
    probability = head["true_probability"]
    logit = (probability / (1 - probability)).log().to_numpy()
    price = head["price"].cast(pl.Float64)
    squared = pl.select(pl.when(price > 2).then((price.log() ** 2).floor()).otherwise(price)).to_series()
    ours = np.full(300, truth.intercept)
    ours += sum(truth.effect(name, head[name]) for name in ("useful", "some", "noise", "left", "right"))
    ours += truth.effect("price", squared.cast(pl.Int64).cast(pl.String))
    ours += truth.effect("hour", head["timestamp"].dt.hour().cast(pl.String))
    for row, (tags, speed) in enumerate(head.select("tags", "speed").iter_rows()):
        if tags is not None:
            each = truth.effect("tags", tags.split("|")) / (2 / 4)  # undo the mean share of a list of 1 .. 3
            ours[row] += each.mean()
        ours[row] += -0.7 * np.cos(2 * np.pi * (1 - (1 + speed / 10.0) ** -2.0))
    fields = {field.name: field for field in truth.spec.fields}
    table = joint_effects(truth.spec.pairs[0], fields["left"], fields["right"], truth.seed)
    names = {name: planted_field(fields[name], 7, 5).names for name in ("left", "right")}
    ours += table[names["left"].ranks(head["left"]), names["right"].ranks(head["right"])]
    np.testing.assert_allclose(ours, logit, atol=1e-9)


def test_logistic_regression_finds_planted_effects_and_nothing_in_noise(log):
    _, truth, frame = log
    names = ["useful", "some", "noise", "left"]
    encoder = OneHotEncoder()
    rows = encoder.fit_transform(frame.select(pl.col(names).fill_null("missing")).to_numpy())
    weights = LogisticRegression(C=10.0, max_iter=300).fit(rows, frame["click"]).coef_[0]
    found = dict(zip(encoder.get_feature_names_out(names), weights, strict=True))
    for name in names:
        values = frame[name].drop_nulls().unique().sort()
        planted = truth.effect(name, values)
        learned = np.array([found[f"{name}_{value}"] for value in values])
        learned -= learned.mean() - planted.mean()
        count = np.array([(frame[name] == value).sum() for value in values])
        # Logistic regression sees rows averaged over what it is not shown, which shrinks weights by a tenth.
        assert np.all(np.abs(learned - planted) < 0.25 * np.abs(planted) + 5.0 / np.sqrt(0.16 * count))
        if name == "useful":
            assert np.corrcoef(learned, planted)[0, 1] > 0.99


def test_a_noise_field_has_no_association_with_the_label(log):
    _, truth, frame = log
    assert truth.noise == ["noise"]
    half = ROWS // 2
    known = frame.head(half).group_by("noise").agg(pl.col("click").mean().alias("rate"))
    scored = frame.tail(half).join(known, on="noise", how="inner")
    assert roc_auc_score(scored["click"], scored["rate"]) == pytest.approx(0.5, abs=0.015)
    useful = frame.head(half).group_by("useful").agg(pl.col("click").mean().alias("rate"))
    scored = frame.tail(half).join(useful, on="useful")
    assert roc_auc_score(scored["click"], scored["rate"]) > 0.6


def test_late_values_are_absent_on_the_first_day_and_come_every_later_day(log):
    _, _, frame = log
    day = (pl.col("timestamp").dt.date() - pl.lit("2024-01-01").str.to_date()).dt.total_days().alias("day")
    firsts = frame.group_by("noise").agg(day.min())["day"]
    late = (firsts > 0).sum()
    assert 15 <= late <= 35  # half of 50
    assert set(firsts) == {0, 1, 2, 3, 4}
    assert frame["timestamp"].is_sorted()
    assert frame.group_by("useful").agg(day.min())["day"].max() == 0


def test_missing_values_come_at_the_stated_share_and_lists_hold_no_value_twice(log):
    _, _, frame = log
    shares = frame.select(pl.col("some", "price", "tags").is_null().mean()).row(0)
    assert shares == pytest.approx((0.1, 0.2, 0.1), abs=0.01)
    tags = frame["tags"].drop_nulls().str.split("|")
    assert set(tags.list.len()) == {1, 2, 3}
    assert (tags.list.n_unique() == tags.list.len()).all()
    assert frame["price"].min() == -3
    assert frame["speed"].median() == pytest.approx(10.0 * (2**0.5 - 1.0), rel=0.03)  # half below: u = 1 / 2
    missing = frame.filter(pl.col("price").is_null())["click"].mean()
    assert missing > frame["click"].mean() + 0.05  # planted: +1.0


@pytest.mark.parametrize("kind", ["memorize", "factorize"])
def test_a_joint_effect_has_zero_margins_and_the_stated_strength(kind):
    a = Categorical(name="a", cardinality=30, zipf=0.8)
    b = Categorical(name="b", cardinality=20, zipf=1.0)
    table = joint_effects(Pair(field_a="a", field_b="b", kind=kind, strength=0.5, rank=2), a, b, seed=1)
    weight_a, weight_b = zipf_shares(30, 0.8), zipf_shares(20, 1.0)
    np.testing.assert_allclose(weight_a @ table, 0.0, atol=1e-12)
    np.testing.assert_allclose(table @ weight_b, 0.0, atol=1e-12)
    assert np.sqrt(weight_a @ table**2 @ weight_b) == pytest.approx(0.5)
    assert np.linalg.matrix_rank(table, tol=1e-6) == (2 if kind == "factorize" else 19)


def test_a_pair_shows_in_joint_values_and_not_in_either_field(log):
    _, _, frame = log
    first, second = frame.head(ROWS // 2), frame.tail(ROWS // 2)

    def auc(*fields):
        rates = first.group_by(fields).agg(pl.col("click").mean().alias("rate"))
        scored = second.join(rates, on=fields)
        return roc_auc_score(scored["click"], scored["rate"])

    assert auc("left") == pytest.approx(0.5, abs=0.02)
    assert auc("right") == pytest.approx(0.5, abs=0.02)
    assert auc("left", "right") > 0.6


def test_ranks_follow_the_stated_law():
    uniform = uniforms(5, np.arange(200_000))
    for exponent in (0.0, 0.7, 1.0, 1.4):
        ranks = zipf_ranks(uniform, 50, exponent)
        found = np.bincount(ranks, minlength=50) / len(ranks)
        np.testing.assert_allclose(found, zipf_shares(50, exponent), atol=0.004)
    assert zipf_shares(3, 1.0) == pytest.approx(np.log([2 / 1, 3 / 2, 4 / 3]) / np.log(4))
    assert zipf_ranks(np.array([0.0, 1.0 - 2**-53]), 10_000_000, 1.0).tolist() == [0, 9_999_999]


@pytest.mark.parametrize(
    ("cardinality", "style"), [(1, "name"), (24, "name"), (12_345, "name"), (9_000_000, "hex")]
)
def test_a_text_tells_its_rank_and_foreign_texts_are_recognised(cardinality, style):
    names = Names("site", cardinality, style, key=0xDEADBEEFCAFE)
    ranks = np.unique(np.linspace(0, cardinality - 1, 500).astype(np.int64))
    texts = pl.Series(names.texts(ranks))
    assert texts.n_unique() == len(ranks)
    assert set(texts.str.len_chars()) == {8} if style == "hex" else texts.str.starts_with("site_").all()
    np.testing.assert_array_equal(names.ranks(texts), ranks)
    foreign = pl.Series([None, "", "site_", "zzzzzzzz", "site_99999999999999999999", "-1", texts[0] + "0"])
    assert names.ranks(foreign).tolist() == [-1] + [-2] * 6


def test_detectable_says_which_values_their_rows_can_show():
    spec = SyntheticSpec(
        name="tiny",
        fields=(
            Categorical(name="f", cardinality=2, matters=1.0, effect=(0.5, 0.5)),
            Categorical(name="g", cardinality=2),
            Categorical(name="h", cardinality=2),
            Categorical(name="i", cardinality=2),
        ),
        pairs=(Pair(field_a="h", field_b="i", kind="memorize"),),
    )
    truth = Truth(spec, seed=0, rows=1, intercept=0.0, positive_rate=0.2, best_auc=None)
    vocabulary = pl.DataFrame(
        {
            "field": ["g", "f", "f", "f", "h"],
            "role": ["value", "value", "value", "unknown", "value"],
            "value": ["g_0000", "f_0000", "f_0001", None, "h_0001"],
            "count": [10_000, 399, 401, 5, 9],  # 4 / sqrt(400 * 0.16) = 0.5, the size of the effect
        }
    )
    found = truth.detectable(vocabulary, base_rate=0.2)
    assert found["value"].to_list() == ["g_0000", "f_0000", "f_0001", "h_0001"]
    assert found["detectable"].to_list() == [False, False, True, False]
    assert found["noise"].to_list() == [True, False, False, False]
    assert found["effect"].abs().to_list() == [0.0, 0.5, 0.5, 0.0]
    assert found["effect"].sum() == 0.0  # neighbours in rank have opposite signs
    assert found["standard_error"][0] == pytest.approx(0.025)
    assert truth.roles == {"f": "useful", "g": "noise", "h": "useful", "i": "useful"}
    assert truth.pairs().filter(pl.col("kind") != "none").rows() == [("h", "i", "memorize", 0.5)]
    assert len(truth.pairs()) == 6
    assert np.isnan(truth.effect("f", ["nothing"])).all()
    with pytest.raises(ConfigError, match='has no field "ff"'):
        truth.effect("ff", [])


def test_truth_is_read_back_as_it_was_written(log):
    folder, truth, frame = log
    again = read_truth(folder)
    assert again == truth
    np.testing.assert_array_equal(again.effect("some", frame["some"]), truth.effect("some", frame["some"]))
    assert json.loads((folder / "truth.json").read_text())["fields"]["partial"] == ["some"]
    assert again.useful == ["useful", "left", "right", "tags", "price", "speed", "hour"]


def test_effects_of_numbers_are_by_feature_and_missing_has_its_own(log):
    _, truth, _ = log
    assert truth.effect("price", [None]).tolist() == [1.0]
    rising = truth.effect("price", ["0", "1", "4", "9", "25", "64"])
    assert np.all(np.diff(rising) > 0)
    np.testing.assert_allclose(
        truth.effect("speed", ["0", "1", "2", "3"]), 0.7 * np.array([-1, 1, 1, -1]) / 2**0.5
    )


@pytest.mark.parametrize("format", ["parquet", "csv"])
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_the_schema_that_is_written_fits_the_log(preset, format, tmp_path):
    write_log(preset, tmp_path / "log", rows=300, format=format)
    schema = load_schema(tmp_path / "log" / "schema.toml")
    assert schema == schema_of(PRESETS[preset](), format)
    if format == "csv":
        read = schema.read
        frame = pl.read_csv(
            tmp_path / "log" / "log.csv",
            separator=read.separator,
            has_header=read.has_header,
            infer_schema=False,
        )
        if read.columns:
            frame.columns = read.columns
    else:
        frame = pl.read_parquet(tmp_path / "log" / "log.parquet")
    frame = frame.with_columns(pl.sql_expr(text).alias(name) for name, text in schema.derive.items())
    assert {field.name for field in schema.fields} <= set(frame.columns)
    assert {schema.label, schema.true_probability} <= set(frame.columns)
    if preset == "demo":
        assert frame["hour"][0] == 0
        assert frame["hour"][-1] == 23


def test_csv_and_parquet_hold_the_same_log(tmp_path):
    write_log("demo", tmp_path / "p", rows=400, seed=1, chunk=150)
    write_log("demo", tmp_path / "c", rows=400, seed=1, chunk=150, format="csv")
    parquet = pl.read_parquet(tmp_path / "p" / "log.parquet")
    csv = pl.read_csv(tmp_path / "c" / "log.csv", schema=parquet.schema)
    assert csv.equals(parquet)


def test_criteo_has_the_shape_of_criteo(tmp_path):
    write_log("criteo", tmp_path / "log", rows=20_000, format="csv")
    line = (tmp_path / "log" / "log.csv").read_text().split("\n")[0].split("\t")
    assert len(line) == 1 + 13 + 26 + 1
    schema = load_schema(tmp_path / "log" / "schema.toml")
    assert [field.name for field in schema.fields] == [f"I{i}" for i in range(1, 14)] + [
        f"C{i}" for i in range(1, 27)
    ]
    frame = pl.read_csv(
        tmp_path / "log" / "log.csv", separator="\t", has_header=False, new_columns=schema.read.columns
    )
    assert frame["C3"].drop_nulls().str.contains("^[0-9a-f]{8}$").all()
    assert frame["C3"].n_unique() > 5_000
    assert frame["C9"].n_unique() == 3
    assert frame["I2"].min() < 0
    assert frame["label"].mean() == pytest.approx(0.25, abs=0.015)
    assert max(field.cardinality for field in PRESETS["criteo"]().fields if field.name[0] == "C") > 10_000_000


def test_the_demo_is_mostly_noise_and_what_matters_can_be_seen(tmp_path):
    truth = write_log("demo", tmp_path / "log", rows=100_000)
    assert 0.80 < truth.best_auc < 0.86
    values = {f.name: pl.Series(planted_field(f, 0, 10).names.texts(np.arange(f.cardinality)))
              for f in truth.spec.fields if hasattr(f, "cardinality")}  # fmt: skip
    mattering = sum(int((truth.effect(name, texts) != 0).sum()) for name, texts in values.items())
    assert mattering / sum(len(texts) for texts in values.values()) < 0.35


def test_where_nothing_matters_the_best_auc_is_one_half_and_without_clicks_it_is_unknown(tmp_path):
    spec = SyntheticSpec(name="flat", fields=(Categorical(name="f", cardinality=3),))
    assert write_log(spec, tmp_path / "log", rows=500).best_auc == 0.5
    assert write_log(spec, tmp_path / "log", rows=1).best_auc is None
    assert read_truth(tmp_path / "log").best_auc is None


def test_the_pairs_preset_plants_eight_of_each_among_190():
    pairs = read_kinds(PRESETS["pairs"]())
    assert pairs == {"memorize": 8, "factorize": 8, "none": 174}


def read_kinds(spec):
    truth = Truth(spec, seed=0, rows=1, intercept=0.0, positive_rate=0.2, best_auc=None)
    return dict(truth.pairs().group_by("kind").len().rows())


def test_mistakes_are_refused_with_one_message_and_nothing_written(tmp_path):
    for arguments, message in (
        ({"preset": "demoo"}, 'unknown synthetic log "demoo"; the nearest name is "demo"'),
        ({"rows": 0}, "rows: expected at least 1, found 0"),
        ({"seed": -1}, "seed: expected at least 0, found -1"),
        ({"format": "xlsx"}, 'expected "parquet" or "csv", found "xlsx"'),
    ):
        given = {"preset": "demo", "rows": 10, **arguments}
        with pytest.raises(ConfigError, match=message):
            write_log(given.pop("preset"), tmp_path / "log", **given)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(ConfigError, match="found other files"):
        write_log("demo", tmp_path / "mine", rows=10)
    assert (tmp_path / "mine" / "thesis.txt").exists()
    with pytest.raises(DataError, match="no such file"):
        read_truth(tmp_path / "mine")
    (tmp_path / "mine" / "truth.json").write_text('{"format": 9}')
    with pytest.raises(DataError, match="expected format 1, found 9"):
        read_truth(tmp_path / "mine")


def test_a_failed_write_leaves_the_earlier_log_alone(tmp_path, monkeypatch):
    write_log("demo", tmp_path / "log", rows=10)
    before = (tmp_path / "log" / "log.parquet").read_bytes()
    monkeypatch.setattr("ctr.dataset.synthetic.schema_of", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_log("demo", tmp_path / "log", rows=20)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert (tmp_path / "log" / "log.parquet").read_bytes() == before
    monkeypatch.undo()
    assert write_log("demo", tmp_path / "log", rows=20).rows == 20
    assert len(pl.read_parquet(tmp_path / "log" / "log.parquet")) == 20


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"days": 0}, 'kind = "hour" needs a timestamp'),
        ({"days": 1}, "late values need days >= 2, found 1"),
        ({"label": "useful"}, 'the column "useful" is named more than once'),
        ({"pairs": [{"field_a": "left", "field_b": "left", "kind": "memorize"}]}, "found a field twice"),
        ({"pairs": [{"field_a": "left", "field_b": "lost", "kind": "memorize"}]}, 'found "lost"'),
        ({"pairs": [{"field_a": "left", "field_b": "noise", "kind": "memorize"}]}, 'found "noise"'),
        ({"base_rate": 1.5}, "less than 1"),
    ],
)
def test_a_wrong_spec_is_refused(changed, message):
    content = {**small_spec().model_dump(), **changed}
    content["fields"] = tuple(content["fields"])
    content["pairs"] = tuple(content["pairs"])
    with pytest.raises(ConfigError, match=message):
        check(content, SyntheticSpec, "spec")
