import json

import polars as pl
import pytest
from rich.console import Console

from ctr.dataset.ingest import ingest
from ctr.dataset.schema import Schema
from ctr.dataset.store import Dataset
from ctr.errors import ConfigError, DataError
from ctr.report import views
from ctr.report.show import show
from ctr.settings import check

SCHEMA = """
name = "tiny"
label = "rating >= 4"
where = "rating <> 3"
[derive]
decade = "year // 10"
[[fields]]
name = "user"
min_count = 2
[[fields]]
name = "price"
kind = "numeric"
transform = "log_square"
"""


def _text(path, width=120):
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(show(path))
    return capture.get()


def _cells(text, first):
    """The cells of the table line that begins with `first`."""
    rows = [
        [cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if "│" in line
    ]
    return next(row for row in rows if row[0] == first)


@pytest.fixture
def dataset(tmp_path):
    # 1000 rows, a quarter positive; of ten users four are "a", one is missing, the others are u0, u1 and u2.
    users = ["" if row % 10 == 9 else "a" if row % 5 < 2 else f"u{row % 3}" for row in range(1000)]
    lines = [f"{row % 4 == 0:d},{user},{row}" for row, user in enumerate(users)]
    (tmp_path / "log.csv").write_text("click,user,at\n" + "\n".join(lines) + "\n")
    keys = {
        "name": "tiny",
        "label": "click",
        "split": {"by": "time", "column": "at", "valid": 0.1, "test": 0.1},
        "fields": [{"name": "user"}, {"name": "at", "kind": "numeric", "transform": "quantile", "bins": 4}],
    }
    return ingest(check(keys, Schema, "schema"), tmp_path / "log.csv", tmp_path / "datasets")


@pytest.fixture
def run(tmp_path, report):
    folder = tmp_path / "demo-0123456789ab"
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "config.toml").write_text('name = "demo"\n')
    (folder / "report.html").write_text("page")
    (folder / "DONE").write_text("")
    return folder


@pytest.fixture
def feature_set(tmp_path, report, features):
    folder = tmp_path / "feature_set"
    folder.mkdir()
    counts = {key: report["feature_set"][key] for key in ("kept", "total", "ratio", "fields")}
    content = {"selector": "optfs", "ratio": 0.3, "dataset": "d" * 36, "digest": "f" * 36} | counts
    (folder / "feature_set.json").write_text(json.dumps(content))
    features.write_parquet(folder / "features.parquet")
    return folder


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"w" * 1500)
    manifest = {
        "format_version": 1,
        "name": "demo-0123456789ab",
        "files": {"weights.safetensors": {"bytes": 1500, "sha256": "0" * 64}},
        "versions": {"ctr": "0.1.0", "torch": "2.8.0"},
        "architecture": {"backbone": "deepfm", "width": 16, "hidden": [256, 128]},
        "fields": [{"name": "user"}, {"name": "price"}],
        "features": {
            "kept": 120,
            "total": 480,
            "ratio": 0.25,
            "fields": {"user": {"kept": 90, "total": 450}},
        },
        "provenance": {"selector": "optfs", "seed": 3},
        "metrics": {"valid": {"auc": 0.7812}, "test": {"auc": 0.7799, "logloss": 0.4}},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_dataset_shows_rows_positives_and_window_of_each_part(dataset):
    text = _text(dataset)
    assert "Dataset tiny" in text
    assert _cells(text, "train") == ["train", "800", "200", "25.0 %", "0", "799"]
    assert _cells(text, "test") == ["test", "100", "25", "25.0 %", "900", "999"]
    assert "1,000 read" in text


def test_a_dataset_shows_the_vocabulary_of_each_field(dataset):
    text = _text(dataset)
    assert _cells(text, "user") == ["user", "categorical", "4", "1", "0 %", "10.0 %", "a (40.0 %)"]
    assert _cells(text, "at")[:3] == ["at", "numeric, quantile", "4"]


def test_a_dataset_of_hashed_values_shows_what_is_known_of_them(tmp_path, dataset):
    schema = Schema.model_validate(json.loads((dataset / "manifest.json").read_text())["schema"])
    hashed = ingest(schema, tmp_path / "log.csv", tmp_path / "datasets", encoding="hashed")
    assert "no vocabulary" in _text(hashed)
    assert _cells(_text(hashed), "user")[2:] == ["-"] * 5
    distinct = Dataset(hashed).vocabulary.filter(field="user").height - 2  # counts them
    assert _cells(_text(hashed), "user")[2:4] == [str(distinct), "-"]


def test_a_dataset_without_its_vocabulary_is_shown_all_the_same(dataset):
    (dataset / "vocabulary.parquet").unlink()
    assert _cells(_text(dataset), "user")[4:] == ["-", "-", "-"]


def test_a_run_shows_its_verdict_aucs_and_interval_and_where_the_report_is(run):
    text = _text(run, width=200)
    assert "Run demo-0123456789ab" in text
    assert "No loss beyond noise" in text
    assert _cells(text, "test AUC") == ["test AUC", "0.7812", "0.7819", "+0.0007"]
    assert "+0.0007 on test (95 % interval -0.0011 to +0.0025)" in text
    assert str(run / "report.html") in text
    assert "state           done" in text
    assert _cells(text, "user_id") == ["user_id", "3,200", "900", "2,300", "28.1 %"]


def test_a_run_of_the_baseline_alone_lists_no_dropped_features(run, report):
    report |= {"selected": None, "difference": None, "curve": []}
    (run / "report.json").write_text(json.dumps(report))
    text = _text(run)
    assert "Keep-all baseline only" in text
    assert "user_id" not in text


def test_an_unfinished_run_says_how_far_it_came(run):
    (run / "report.json").unlink()
    (run / "checkpoints/baseline").mkdir(parents=True)
    text = _text(run)
    assert "unfinished" in text
    assert "baseline" in text


def test_a_run_whose_report_is_written_but_not_finished_says_so(run):
    (run / "DONE").unlink()
    assert "report written, run not finished" in _text(run)


def test_a_feature_set_shows_kept_values_per_field_and_the_strongest_gates(feature_set, features):
    text = _text(feature_set)
    assert "1,637 of 5,260 values (31.1 %)" in text
    assert _cells(text, "user_id")[:5] == ["user_id", "3,200", "900", "2,300", "28.1 %"]
    kept = features.filter(pl.col("role") == "value", pl.col("kept")).sort("gate", descending=True)
    first = text.split("kept values with")[1]
    assert _cells(first, kept["field"][0])[1:] == [
        kept["value"][0],
        f"{kept['count'][0]:,}",
        f"{kept['gate'][0]:.3f}",
    ]
    assert first.count("│") == 15 * 5


def test_a_feature_set_with_interactions_counts_pairs_by_method_and_lists_the_strongest(
    feature_set, monkeypatch
):
    pairs = [("a", "b", "factorize", 1.5), ("a", "c", "naive", None), ("a", "d", "memorize", 1234.5)]
    columns = ["field_a", "field_b", "method", "strength"]
    frame = pl.DataFrame([*pairs, ("b", "c", "naive", -1.0)], schema=columns, orient="row")
    frame.write_parquet(feature_set / "interactions.parquet")
    text = _text(feature_set)
    assert _cells(text, "naive") == ["naive", "2"]
    assert _cells(text, "a x d") == ["a x d", "memorize", "1234.50"]
    assert _cells(text, "a x b") == ["a x b", "factorize", "1.50"]
    assert text.index("2 of 2 pairs in use") < text.index("a x d") < text.index("a x b")
    assert "a x c" not in text
    monkeypatch.setattr(views, "_PAIRS", 1)
    assert "1 of 2 pairs in use, the strongest" in " ".join(_text(feature_set).split())
    assert "a x b" not in _text(feature_set)


def test_a_feature_set_whose_pairs_are_all_naive_lists_none(feature_set):
    frame = pl.DataFrame({"field_a": ["a"], "field_b": ["b"], "method": ["naive"], "strength": [0.0]})
    frame.write_parquet(feature_set / "interactions.parquet")
    assert _cells(_text(feature_set), "naive") == ["naive", "1"]
    assert "pairs in use" not in _text(feature_set)


def test_a_bundle_lists_its_pairs_those_with_most_rows_first(bundle, monkeypatch):
    manifest = json.loads((bundle / "manifest.json").read_text())
    kinds = {"user": "categorical", "tags": "list", "price": "numeric", "hour": "categorical"}
    manifest["fields"] = [{"name": name, "kind": kind} for name, kind in kinds.items()]
    pairs = {"memorized": [[0, 1], [1, 2]], "factorized": [[0, 2]], "cross_rows": 31}
    manifest["architecture"] |= {"pairs": pairs}
    rows = [(["user", "price"], 10), (["price", "hour"], 20), (["user", "hour"], 0)]
    manifest["costs"] = {"pairs": [{"fields": fields, "rows": number} for fields, number in rows]}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    text = _text(bundle)
    lines = [_cells(text, pair) for pair in ("price x hour", "user x price", "user x hour")]
    assert [line[1:] for line in lines] == [["memorize", "20"], ["memorize", "10"], ["factorize", "0"]]
    places = [text.index(line[0]) for line in lines]
    assert places == sorted(places)
    assert "3 of 3 pairs in use" in text
    monkeypatch.setattr(views, "_PAIRS", 2)
    assert "2 of 3 pairs in use" in _text(bundle)
    assert "user x hour" not in _text(bundle)
    manifest["costs"] = None  # as before a bundle said what its pairs take
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    assert _cells(_text(bundle), "user x price") == ["user x price", "memorize", "-"]


def test_a_bundle_whose_pairs_are_of_no_fields_is_named(bundle):
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["fields"] = [{"name": name, "kind": "categorical"} for name in ("user", "price")]
    manifest["architecture"] |= {"pairs": {"memorized": [[0, 2]], "factorized": [], "cross_rows": 3}}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="expected slots from 0 to 1, found 2"):
        show(bundle)


def test_a_bundle_shows_what_is_kept_its_metrics_and_its_files(bundle):
    text = _text(bundle)
    assert "Bundle demo-0123456789ab" in text
    assert "120 of 480 values (25.0 %)" in text
    assert "selector optfs, seed 3" in text
    assert _cells(text, "user") == ["user", "450", "90", "360", "20.0 %"]
    assert "2: user, price" in text
    assert _cells(text, "test") == ["test", "0.7799", "0.4000"]
    assert _cells(text, "valid") == ["valid", "0.7812", "-"]
    assert _cells(text, "weights.safetensors") == ["weights.safetensors", "1.50 kB"]
    assert "backbone deepfm, width 16, hidden 256, 128" in text


def test_a_schema_shows_its_fields_and_expressions(tmp_path):
    (tmp_path / "tiny.toml").write_text(SCHEMA)
    text = _text(tmp_path / "tiny.toml")
    assert "Schema tiny" in text
    assert "derive decade  year // 10" in text
    assert _cells(text, "user") == ["user", "categorical", "-", "min_count 2"]
    assert _cells(text, "price") == ["price", "numeric", "log_square", "-"]


def test_a_run_config_shows_every_key_with_its_default(tmp_path):
    (tmp_path / "run.toml").write_text('name = "mine"\n[data]\nschema = "s.toml"\ninput = "log.csv"\n')
    text = _text(tmp_path / "run.toml")
    assert "Run config mine" in text
    assert _cells(text, "data") == ["data", "schema", "s.toml"]
    assert ["embedding", "dim", "16"] in [
        _cells(line, "embedding") for line in text.splitlines() if " dim " in line
    ]


def test_the_file_that_marks_a_folder_stands_for_it(bundle, run):
    assert _text(bundle / "manifest.json") == _text(bundle)
    assert _text(run / "report.json") == _text(run)


def test_values_that_look_like_markup_are_shown_as_they_are(feature_set, features):
    odd = features.with_columns(
        pl.when(pl.col("value") == "v0").then(pl.lit("[red]x[/red]")).otherwise("value").alias("value"),
        pl.when(pl.col("value") == "v0").then(9.0).otherwise("gate").alias("gate"),
        pl.when(pl.col("value") == "v0").then(True).otherwise("kept").alias("kept"),
    )
    odd.write_parquet(feature_set / "features.parquet")
    assert "[red]x[/red]" in _text(feature_set)


def test_a_path_that_is_not_there_is_answered_with_the_nearest(run):
    with pytest.raises(ConfigError, match='no such file or folder; the nearest name is "demo-0123456789ab"'):
        show(run.with_name("demo-0123456789"))


def test_an_unknown_folder_is_told_what_was_expected_and_what_lies_below(run, tmp_path):
    with pytest.raises(ConfigError, match=r"expected a folder with .* can be shown: .*\"demo-0123456789ab\""):
        show(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="found an empty folder"):
        show(tmp_path / "empty")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.txt", "hello", "expected a folder with"),
        ("x.toml", "a = ", "no valid TOML"),
        ("x.toml", "a = 1", "expected a schema .* or a run config"),
        ("x.toml", '[data]\nschema = "s"\ninputs = "x"', "unknown key"),
    ],
)
def test_a_file_that_is_none_of_these_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=message):
        show(tmp_path / name)


@pytest.mark.parametrize("content", ["{", "[]", '{"fields": 1, "rows": 2}'])
def test_a_damaged_manifest_is_named(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=str(tmp_path)):
        show(tmp_path)


def test_a_manifest_of_something_else_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text('{"app": "other"}')
    with pytest.raises(ConfigError, match="expected a folder with"):
        show(tmp_path)
