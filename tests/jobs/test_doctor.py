"""Each fault that makes numbers lie is planted and found by name, and a clean log gives no warning."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ctr.dataset.ingest import ingest
from ctr.dataset.schema import Schema, load_schema
from ctr.dataset.store import Dataset
from ctr.dataset.synthetic import write_log
from ctr.errors import ConfigError, CtrError
from ctr.jobs.doctor import dataset_at, examine
from ctr.settings import check

ROWS = 6000
PARTS = ("train", "valid", "test")
FILES = {"by": "files", **{part: f"{part}.parquet" for part in PARTS}}
NOTHING: dict[str, str] = {}
REAL = Path(__file__).parents[2] / "../shared/data"


def log(rows: int = ROWS, seed: int = 0, shown: float = 0.3) -> pl.DataFrame:
    """Clicks that depend on one field of four; no two rows are alike."""
    draw = np.random.default_rng(seed)
    item = draw.integers(0, 20, rows)
    click = draw.random(rows) < shown * (0.4 + 0.06 * item)
    return pl.DataFrame(
        {
            "click": click.astype(np.int8),
            "item": item,
            "user": draw.integers(0, 60, rows),
            "place": draw.integers(0, 5, rows),
            "code": draw.integers(0, 400, rows),
            "time": np.arange(rows),
        }
    )


FIELDS = [{"name": name} for name in ("item", "user", "place", "code")]


@pytest.fixture
def examined(tmp_path):
    """Ingests a frame, or one for each part, and returns what is wrong with it: check -> finding; and all findings."""

    def build(frame, fields=FIELDS, encoding="vocabulary", folder=False, files=NOTHING, **keys):
        source = tmp_path / "log"
        shutil.rmtree(source, ignore_errors=True)  # of a log before
        source.mkdir()
        frames = frame if isinstance(frame, dict) else {"log": frame}
        for name, own in frames.items():
            own.write_parquet(source / f"{name}.parquet")
        split = FILES | files if isinstance(frame, dict) else {"by": "random"}
        keys = {"name": "log", "label": "click", "split": split, "read": {"format": "parquet"}} | keys
        schema = check(keys | {"fields": fields}, Schema, "schema")
        given = source if isinstance(frame, dict) else source / "log.parquet"
        place = ingest(schema, given, tmp_path / "datasets", encoding=encoding)
        return place if folder else examine(Dataset(place))

    return build


def wrong(findings) -> dict[str, str]:
    """What is not ok, but for the size of these small test parts: check -> severity."""
    return {
        finding.check: finding.severity
        for finding in findings
        if finding.severity != "ok" and finding.check != "test size"
    }


def of(findings, name):
    return [finding for finding in findings if finding.check == name]


def parts(seeds=(0, 1, 2), **keys) -> dict[str, pl.DataFrame]:
    return {part: log(ROWS // 2, seed, **keys) for part, seed in zip(PARTS, seeds, strict=True)}


@pytest.mark.parametrize("encoding", ["vocabulary", "hashed"])
def test_a_clean_log_gives_no_warning(examined, encoding):
    assert wrong(examined(log(), encoding=encoding)) == {}


def test_the_synthetic_log_gives_no_warning_at_all(tmp_path):
    write_log("demo", tmp_path / "demo", rows=150_000, seed=0, format="parquet")
    schema = load_schema(next((tmp_path / "demo").glob("*.toml")))
    findings = examine(Dataset(ingest(schema, next((tmp_path / "demo").glob("log*")), tmp_path / "datasets")))
    assert {finding.severity for finding in findings} == {"ok"}


@pytest.mark.skipif(not REAL.is_dir(), reason="the real logs are not part of the repository")
def test_of_movielens_it_is_said_that_its_users_do_not_come_back(tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    schema = load_schema("data/schemas/ml100k.toml")
    findings = examine(Dataset(ingest(schema, REAL / "ml100k/u.data", tmp_path)))
    assert wrong(findings) == {"unseen values": "warn"}
    assert {finding.fields for finding in of(findings, "unseen values")} == {("user_id",), ("zip",)}


def test_a_log_with_every_row_twice_has_copies_in_two_parts(examined):
    findings = examined(pl.concat([log(), log()]))
    assert wrong(findings) == {"same rows": "error"}
    (found,) = of(findings, "same rows")
    assert "they are copies" in found.text
    assert found.figures["valid_in_train"] > 0.7


def test_rows_of_train_or_valid_that_were_copied_into_test_are_found(examined, tmp_path):
    frames = parts()
    frames["test"] = pl.concat([frames["test"], frames["train"][:300], frames["valid"][:300]])
    findings = examined(frames)
    assert wrong(findings) == {"same rows": "error"}
    assert ["as a row of train" in found.text for found in of(findings, "same rows")] == [True, False]


def test_impressions_that_say_the_same_are_no_copies(examined):
    coarse = log().with_columns(pl.col("code") % 2, pl.col("user") % 3)
    (found,) = of(examined(coarse), "same rows")
    assert found.severity == "ok"
    assert found.figures["valid_in_train"] > 0.99


def test_lists_numbers_and_vectors_belong_to_what_a_row_says(examined):
    draw = np.random.default_rng(0)
    more = {
        "tags": ["|".join(f"t{tag}" for tag in draw.integers(0, 9, 3)) for _ in range(ROWS)],
        "price": draw.random(ROWS),
        "shape": [draw.random(2).tolist() for _ in range(ROWS)],
    }
    frame = log().with_columns(pl.lit(0).alias("user"), pl.lit(0).alias("code"))
    kinds = [
        {"name": "tags", "kind": "list", "separator": "|"},
        {"name": "price", "kind": "numeric", "transform": "standard"},
        {"name": "shape", "kind": "vector", "size": 2},
    ]
    frame = frame.with_columns(*(pl.Series(name, values) for name, values in more.items()))
    findings = examined(frame, fields=[{"name": "item"}, *kinds])
    assert of(findings, "same rows")[0].figures["valid_in_train"] == 0.0


def test_parts_that_overlap_in_time_are_found(examined):
    place = examined(log(), folder=True, split={"by": "time", "column": "time"})
    assert of(examine(Dataset(place)), "time")[0].severity == "ok"
    for file in (place / "valid").glob("*.parquet"):
        pl.read_parquet(file).with_columns(pl.col("@time") - ROWS // 3).write_parquet(file)
    (found,) = of(examine(Dataset(place)), "time")
    assert found.severity == "error"
    assert found.text.startswith("rows of train reach ")


@pytest.mark.parametrize(("by", "advice"), [("random", "use split.by"), ("hash", "use split.by")])
def test_a_split_that_asks_no_clock_where_there_is_one_is_warned_of(examined, by, advice):
    derive = {"day": "DATE_PART('day', CAST(time * 1000000 AS TIMESTAMP))"}
    split = {"by": by} | ({"column": "user"} if by == "hash" else {})
    (found,) = of(examined(log(), derive=derive, split=split), "time")
    assert found.severity == "warn"
    assert advice in found.advice


def test_files_that_overlap_in_time_are_warned_of_and_such_as_follow_each_other_are_not(examined):
    frames = parts()
    late = {
        "train": 0,
        "valid": ROWS // 2 - 300,
        "test": ROWS - 300,
    }  # a tenth of train is no older than valid
    shifted = {part: frames[part].with_columns(pl.col("time") + late[part]) for part in PARTS}
    findings = examined(shifted, files={"column": "time"})
    assert wrong(findings) == {"time": "warn"}
    (found,) = of(findings, "time")
    assert found.text == (
        "train covers 0 to 2999, and valid 2700 to 5699: 10.0 % of the train rows are no older than the first of valid"
    )
    assert found.figures == {"train_last": 2999.0, "valid_first": 2700.0, "share": 0.1}


def test_files_whose_test_is_oldest_are_told_of_train_and_of_valid(examined):
    frames = parts()
    late = {"train": ROWS, "valid": 2 * ROWS, "test": 0}
    shifted = {part: frames[part].with_columns(pl.col("time") + late[part]) for part in PARTS}
    found = of(examined(shifted, files={"column": "time"}), "time")
    assert [finding.figures["share"] for finding in found] == [1.0, 1.0]
    assert [finding.text.split(",")[0] for finding in found] == [
        "train covers 6000 to 8999",
        "valid covers 12000 to 14999",
    ]


def test_files_that_follow_each_other_are_fine_and_without_a_column_nothing_is_known(examined):
    frames = {
        part: frame.with_columns(pl.col("time") + at * ROWS)
        for at, (part, frame) in enumerate(parts().items())
    }
    assert of(examined(frames, files={"column": "time"}), "time")[0].text.startswith(
        "train ends before valid"
    )
    assert "split.column would" in of(examined(frames), "time")[0].text


LEAKS = {
    "categorical": ({"name": "leak"}, pl.when(pl.col("click") == 1).then(pl.col("code")).otherwise(None)),
    "numeric": (
        {"name": "leak", "kind": "numeric", "transform": "standard"},
        pl.col("click") * 2.0 + pl.col("code") / 400,
    ),
    "list": (
        {"name": "leak", "kind": "list", "separator": "|"},
        pl.when(pl.col("click") == 1).then(pl.lit("seen|bought")).otherwise(pl.lit("seen")),
    ),
}


@pytest.mark.parametrize("kind", ["categorical", "numeric"])
@pytest.mark.parametrize("encoding", ["vocabulary", "hashed"])
def test_a_field_that_is_written_after_the_click_is_named(examined, kind, encoding):
    spec, values = LEAKS[kind]
    findings = examined(log().with_columns(values.alias("leak")), [*FIELDS, spec], encoding)
    assert wrong(findings) == {"label in a field": "error"}
    (found,) = of(findings, "label in a field")
    assert found.fields == ("leak",)
    assert found.figures["auc"] > 0.99


@pytest.mark.parametrize("encoding", ["vocabulary", "hashed"])
def test_a_number_of_a_vector_that_is_written_after_the_click_is_named(examined, encoding):
    draw = np.random.default_rng(0)
    frame = log()
    noise = draw.random((len(frame), 3))
    noise[:, 1] += frame["click"].to_numpy()
    cells = pl.Series("shape", [None if row % 50 == 0 else cell for row, cell in enumerate(noise.tolist())])
    fields = [*FIELDS, {"name": "shape", "kind": "vector", "size": 3}]
    findings = examined(frame.with_columns(cells), fields, encoding)
    assert wrong(findings) == {"label in a field": "error"}
    (found,) = of(findings, "label in a field")
    assert found.fields == ("shape",)
    assert found.text.startswith('number 1 of field "shape" alone has AUC 0.9')


@pytest.mark.parametrize("encoding", ["vocabulary", "hashed"])
@pytest.mark.parametrize("heavy", [0, 1])
@pytest.mark.parametrize("kind", ["field", "number"])
def test_a_field_leaks_where_the_rows_that_weigh_much_say_so(examined, encoding, heavy, kind):
    """Half of the rows know the answer, the others toss a coin; either half may hold nearly all of the weight."""
    draw = np.random.default_rng(0)
    knows, coin = draw.random(ROWS) < 0.5, draw.integers(0, 2, ROWS)
    frame = log(shown=0.8).with_columns(pl.Series("w", np.where(knows == heavy, 9.0, 0.001)))
    leak = pl.Series("leak", np.where(knows, frame["click"].to_numpy(), coin))
    spec = {"name": "leak"}
    if kind == "number":
        leak, spec = (
            leak.cast(pl.Float64).reshape((-1, 1)).arr.to_list(),
            {"name": "leak", "kind": "vector", "size": 1},
        )
    findings = examined(frame.with_columns(leak), [*FIELDS, spec], encoding, weight="w")
    found = [line for line in of(findings, "label in a field") if line.fields == ("leak",)]
    assert [line.severity for line in found] == ["error"] * heavy
    assert not heavy or found[0].figures["auc"] > 0.99
    if kind == "field":  # the simple model reads no vectors
        assert (of(findings, "simple model")[0].figures["auc"] > 0.95) == bool(heavy)


def test_weights_and_sampled_negatives_count_as_rows_that_are_repeated(examined):
    """Whole weights, and one negative kept of four, against the log that they stand for; shrinkage alone differs."""
    fields = FIELDS[:3]
    frames = {part: frame.with_columns(w=pl.col("code") % 3 + 1) for part, frame in parts().items()}

    def figures(**keys):
        found = examined(**keys)
        (line,) = of(found, "label rate")
        return line.figures | of(found, "label in a field")[0].figures | of(found, "simple model")[0].figures

    def repeated(times):
        return {
            part: frame.with_columns(again=times).select(pl.exclude("again").repeat_by("again").explode())
            for part, frame in frames.items()
        }

    weighted = figures(frame=frames, fields=fields, weight="w")
    assert weighted == pytest.approx(figures(frame=repeated(pl.col("w")), fields=fields), abs=0.01)
    sampled = figures(frame=frames, fields=fields, negative_keep_rate=0.25)
    many = pl.when(pl.col("click") == 1).then(1).otherwise(4)
    assert sampled == pytest.approx(figures(frame=repeated(many), fields=fields), abs=0.01)
    plain = figures(frame=frames, fields=fields)
    assert abs(plain["train"] - sampled["train"]) > 0.1


def test_an_item_of_a_list_that_is_written_after_the_click_is_seen_by_the_simple_model(examined):
    spec, values = LEAKS["list"]
    findings = examined(log().with_columns(values.alias("leak")), [*FIELDS, spec])
    assert of(findings, "simple model")[0].figures["auc"] > 0.99


def test_a_field_that_knows_most_of_the_answer_is_asked_about(examined):
    frame = log().with_columns(
        pl.when(pl.col("time") % 12 == 0).then(1 - pl.col("click")).otherwise("click").alias("leak")
    )
    frame = frame.with_columns(pl.col("leak") + 2 * (pl.col("code") % 2))
    (found,) = of(examined(frame, [*FIELDS, {"name": "leak"}]), "label in a field")
    assert (found.severity, found.fields) == ("warn", ("leak",))


def test_a_date_belongs_to_one_part(examined):
    frame = log().with_columns((pl.col("time") // 300).alias("day"))
    findings = examined(frame, [*FIELDS, {"name": "day"}], split={"by": "time", "column": "time"})
    assert wrong(findings) == {"values of one part": "warn"}
    assert of(findings, "values of one part")[0].fields == ("day",)


@pytest.mark.parametrize("encoding", ["vocabulary", "hashed"])
def test_users_who_are_new_in_test_make_it_another_world(examined, encoding):
    frames = parts()
    frames["test"] = frames["test"].with_columns(
        pl.when(pl.col("time") % 2 == 0).then(pl.col("user") + 1000).otherwise("user").alias("user")
    )
    findings = examined(frames, encoding=encoding)
    assert wrong(findings) == {"unseen values": "warn"}
    (found,) = of(findings, "unseen values")
    assert found.fields == ("user",)
    assert found.figures["test"] == pytest.approx(0.5, abs=0.01)
    assert found.figures["valid"] == 0.0


def test_new_users_of_rows_that_weigh_nothing_make_no_other_world(examined):
    frames = {part: frame.with_columns(w=pl.lit(1.0)) for part, frame in parts().items()}
    strange = pl.col("time") % 2 == 0
    frames["valid"] = frames["valid"].with_columns(
        pl.when(strange).then(pl.col("user") + 1000).otherwise("user").alias("user"),
        pl.when(strange).then(0.001).otherwise(1.0).alias("w"),
    )
    assert wrong(examined(frames, weight="w")) == {}


def test_what_train_knows_from_rows_without_weight_it_does_not_know(examined):
    frames = {part: frame.with_columns(w=pl.lit(1.0)) for part, frame in parts().items()}
    frames["train"] = frames["train"].with_columns(w=(pl.col("user") >= 30).cast(pl.Float64))
    for encoding in ("vocabulary", "hashed"):
        (found,) = of(examined(frames, encoding=encoding, weight="w"), "unseen values")
        assert (found.severity, found.fields) == ("warn", ("user",))
        assert found.figures["valid"] == pytest.approx(0.5, abs=0.03)
        assert "% of valid, by weight, and" in found.text


def test_rare_values_that_are_new_as_often_as_train_foretells_are_no_other_world(examined):
    draw = np.random.default_rng(5)
    frame = log().with_columns(pl.Series("code", draw.zipf(1.3, ROWS) % 100_000))
    findings = examined(frame)
    assert of(findings, "unseen values")[0].severity == "ok"
    assert of(findings, "unseen values")[0].figures["test"] > 0.1


def test_constant_fields_and_numbers_of_rows_are_named(examined):
    frame = log().with_columns(pl.lit("x").alias("same"), pl.col("time").alias("row"))
    # Where there is a vocabulary, ingest refuses a field that is constant.
    findings = examined(frame, [*FIELDS, {"name": "same"}, {"name": "row"}], "hashed")
    assert wrong(findings) == {"constant": "warn", "row id": "warn"}
    assert of(findings, "constant")[0].fields == ("same",)
    assert of(findings, "row id")[0].fields == ("row",)


def test_a_number_of_the_row_is_seen_behind_a_min_count(examined):
    frame = log().with_columns(pl.col("time").alias("row"))
    findings = examined(frame, [*FIELDS, {"name": "row", "min_count": 3}])
    assert wrong(findings) == {"row id": "warn"}


def test_labels_that_are_turned_in_valid_make_a_model_worse_than_chance(examined):
    frames = parts(shown=0.8)
    frames["valid"] = frames["valid"].with_columns((1 - pl.col("click")).alias("click"))
    findings = examined(frames)
    assert wrong(findings)["simple model"] == "error"
    assert of(findings, "simple model")[0].figures["high"] < 0.5
    assert ("item",) in {found.fields for found in of(findings, "turned field")}


def test_fields_that_say_nothing_are_no_better_than_chance(examined):
    findings = examined(log(), [{"name": "place"}])
    assert of(findings, "simple model")[0].severity == "warn"


def test_a_click_rate_that_changes_is_told_and_noise_is_not(examined):
    frames = parts()
    frames["valid"] = log(ROWS // 2, 1, shown=0.6)
    findings = examined(frames)
    assert wrong(findings) == {"label rate": "warn"}
    assert of(findings, "label rate")[0].figures["relative"] == pytest.approx(1.0, abs=0.2)


def test_a_click_rate_that_changes_in_rows_without_weight_does_not_change(examined):
    frames = {part: frame.with_columns(w=pl.lit(1.0)) for part, frame in parts().items()}
    often = log(ROWS // 2, 1, shown=0.9).with_columns(w=pl.lit(0.001))
    frames["valid"] = pl.concat([frames["valid"], often])
    (found,) = of(examined(frames, weight="w"), "label rate")
    assert found.severity == "ok"
    assert found.text.startswith("by weight, ")
    assert abs(found.figures["relative"]) < 0.1


def test_a_click_rate_of_few_heavy_rows_is_noise(examined):
    """A hundredth of the rows holds most of the weight, so that rates are those of thirty rows."""
    draw = np.random.default_rng(1)
    heavy = draw.random(ROWS // 2) < 0.01
    frames = {
        part: frame.with_columns(pl.Series("w", np.where(heavy, 1000.0, 1.0)))
        for part, frame in parts(shown=0.5).items()
    }
    (found,) = of(examined(frames, weight="w"), "label rate")
    assert abs(found.figures["relative"]) > 0.1
    assert found.severity == "ok"


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_an_error_and_ends_what_needs_two(examined, label):
    place = examined(parts(), folder=True)  # ingest refuses such a log
    for file in (place / "valid").glob("*.parquet"):
        turned = pl.read_parquet(file).with_columns(pl.lit(label, pl.UInt8).alias("@label"))
        turned.write_parquet(file)
    findings = examine(Dataset(place))
    assert wrong(findings) == {"one class": "error"}
    assert of(findings, "one class")[0].text == f"all 3,000 rows of valid have the label {label}"


def test_the_smallest_difference_that_test_can_prove_shrinks_with_its_rows(examined):
    (small,) = of(examined(log()), "test size")
    assert small.severity == "warn"
    assert 0.01 < small.figures["smallest_difference"] < 0.04
    assert "test rows would do for 0.005" in small.advice


def test_rows_of_unlike_weights_prove_less_and_the_unit_of_weights_is_no_matter(examined):
    def smallest(weights, **keys):
        found = examined(log().with_columns(w=weights), weight="w", **keys)
        return of(found, "test size")[0].figures["smallest_difference"]

    alike, large = smallest(pl.lit(1.0)), smallest(pl.lit(1000.0))
    assert large == pytest.approx(alike, rel=1e-9)
    uneven = smallest(pl.when(pl.col("code") % 10 == 0).then(100.0).otherwise(0.001))
    assert uneven == pytest.approx(alike * 10**0.5, rel=0.15)  # a tenth of the rows counts


def test_the_labels_of_test_are_not_read_and_no_look_is_counted(examined):
    place = examined(log().with_columns(w=pl.col("code") + 1), folder=True, weight="w")
    before = [
        finding.line() for finding in examine(Dataset(place))
    ]  # sums of weights are rounded in any order
    for file in (place / "test").glob("*.parquet"):
        pl.read_parquet(file).drop("@label", "@weight").write_parquet(file)
    assert [finding.line() for finding in examine(Dataset(place))] == before
    assert Dataset(place).sealed_reads() == []
    assert not (place / "cache" / "test").exists()
    with pytest.raises(CtrError, match='labels of "test" are sealed'):
        Dataset(place).scanned("test", labels=True)


def test_findings_are_plain_json_with_the_worst_first(examined):
    twice = pl.concat([log(), log()]).with_columns(pl.lit(1).alias("place"))
    findings = examined(twice, encoding="hashed")
    assert [finding.severity for finding in findings][:2] == ["error", "warn"]
    assert findings[0].line().startswith("error  same rows: ")
    json.dumps([finding.figures for finding in findings], allow_nan=False)


def test_a_path_that_means_no_dataset_is_refused_with_the_nearest_name(examined, tmp_path):
    place = examined(log(), folder=True)
    nothing = f'found nothing; the nearest name is "{place.name}"'
    with pytest.raises(ConfigError, match=nothing), dataset_at(place.with_name(place.name[:-2])):
        pass
    with pytest.raises(ConfigError, match="found none of these"), dataset_at(tmp_path):
        pass


def test_a_run_config_means_the_dataset_that_it_would_train_on(examined, tmp_path):
    place = examined(log(), folder=True)
    fields = "".join(f'[[fields]]\nname = "{field["name"]}"\n' for field in FIELDS)
    read = '[read]\nformat = "parquet"\n[split]\nby = "random"\n'
    (tmp_path / "log.toml").write_text(f'name = "log"\nlabel = "click"\n{read}{fields}')
    data = f'schema = "{tmp_path}/log.toml"\ninput = "{tmp_path}/log/log.parquet"\n'
    (tmp_path / "config.toml").write_text(f'[data]\n{data}folder = "{tmp_path}/datasets"\n')
    for path in (tmp_path, tmp_path / "config.toml"):
        with dataset_at(path) as found:
            assert found.folder == place
