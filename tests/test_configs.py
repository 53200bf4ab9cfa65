from pathlib import Path

import polars as pl
import pytest

from ctr.config import load_config
from ctr.dataset.ingest import ingest
from ctr.dataset.inputs import Source
from ctr.dataset.plan import Plan
from ctr.dataset.reading import column_names
from ctr.dataset.schema import load_schema
from ctr.dataset.split_spec import RandomSplit
from ctr.dataset.store import Dataset
from ctr.dataset.synthetic_presets import PRESETS

ROOT = Path(__file__).parents[1]
LOGS = ROOT / "../shared/data"
CONFIGS = sorted((ROOT / "pipelines/configs").glob("*.toml"))
SCHEMAS = sorted((ROOT / "data/schemas").glob("*.toml"))

# Schema, log, rows of train, valid and test, positives in all of them, fields.
REAL = {
    "criteo28k": ("criteo", "criteo28k/clicks.tsv.gz", (22_652, 2_848, 2_888), 6_617, 39),
    "ml100k": ("ml100k", "ml100k/u.data", (58_284, 7_286, 7_285), 55_375, 9),
    "adkdd": ("adkdd", "adkdd/clicks.parquet", (132_122, 16_515, 16_515), 59_638, 5),
    "avazu10k": ("avazu10k", "avazu10k/clicks.csv.gz", (8_004, 1_054, 941), 1_706, 21),
}
# The first lines of the full files, by their publishers' description; no published row is repeated here.
HEADERS = {
    "avazu": "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,"
    "device_id,device_ip,device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21",
    "attribution": "timestamp\tuid\tcampaign\tconversion\tconversion_timestamp\tconversion_id\tattribution\tclick"
    "\tclick_pos\tclick_nb\tcost\tcpo\ttime_since_last_click\tcat1\tcat2\tcat3\tcat4\tcat5\tcat6\tcat7\tcat8\tcat9",
}


def _columns(schema, tmp_path):
    if schema.read.columns:
        return schema.read.columns
    if schema.read.format == "parquet":
        return ["cat1", "cat4", "cat6", "cat8", "cat9", "click", "__index_level_0__"]
    path = tmp_path / "log.csv"
    path.write_text(HEADERS[schema.name.removesuffix("10k")] + "\n")
    return column_names(Source("log.csv", path), schema.read)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_run_config_loads_and_is_named_as_its_file(path):
    config = load_config(path)
    assert config.name == config.tracking.experiment == path.stem
    assert config.tracking.uri == "sqlite:///mlflow/store/mlflow.db"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_run_config_names_a_schema_of_the_project_or_of_a_synthetic_log(path):
    schema = load_config(path).data.schema_file
    synthetic = [f"data/synthetic/{name}/schema.toml" for name in PRESETS]
    assert schema in synthetic or ROOT / schema in SCHEMAS


def test_every_schema_has_a_run_config_of_its_name():
    assert {path.stem for path in SCHEMAS} <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.stem)
def test_every_schema_names_columns_that_its_log_has(path, tmp_path):
    schema = load_schema(path)
    assert schema.name == path.stem
    names = [*_columns(schema, tmp_path), *(name for join in schema.joins for name in join.columns)]
    Plan(schema, names, schema.fields, True, getattr(schema.split, "column", None))


def test_the_full_logs_have_the_published_number_of_columns():
    widths = {"criteo": 40, "kdd12": 12, "ml100k": 4}
    assert {
        name: len(load_schema(ROOT / f"data/schemas/{name}.toml").read.columns) for name in widths
    } == widths


def test_the_avazu_sample_differs_from_avazu_in_its_split_and_the_fields_of_time_alone():
    full, sample = (load_schema(ROOT / f"data/schemas/{name}.toml") for name in ("avazu", "avazu10k"))
    fields = [field for field in full.fields if field.name not in full.derive]
    same = {"name": "avazu10k", "derive": {}, "split": RandomSplit(by="random"), "fields": fields}
    assert sample == full.model_copy(update=same)


def test_avazu_hours_become_hour_of_day_and_weekday():
    derive = load_schema(ROOT / "data/schemas/avazu.toml").derive
    hours = pl.DataFrame({"hour": [14102100, 14102623]})  # a Tuesday and a Sunday
    found = hours.select(pl.sql_expr(text).alias(name) for name, text in derive.items())
    assert found.rows() == [(0, 2), (23, 7)]


def test_kdd12_rows_are_positive_when_clicked_at_all(tmp_path):
    schema = load_schema(ROOT / "data/schemas/kdd12.toml")
    log = tmp_path / "training.txt"
    rows = [[row % 3, 3, *(row % 7 + column for column in range(10))] for row in range(600)]
    log.write_text("\n".join("\t".join(map(str, row)) for row in rows) + "\n")
    dataset = Dataset(ingest(schema, log, tmp_path / "datasets"))
    assert sum(dataset.manifest["positives"].values()) == 400
    assert "impression" not in {field.name for field in dataset.fields}


def test_the_attribution_log_is_split_by_its_seconds(tmp_path):
    rows = [HEADERS["attribution"]]
    for row in range(500):
        cells = [row * 600, row % 9, row % 5, 0, -1, -1, 0, row % 2, -1, -1, 0.1, 0.2, row % 40 - 1]
        rows.append("\t".join(map(str, [*cells, *(row % (3 + column) for column in range(9))])))
    log = tmp_path / "log.tsv"
    log.write_text("\n".join(rows) + "\n")
    dataset = Dataset(ingest(load_schema(ROOT / "data/schemas/attribution.toml"), log, tmp_path / "datasets"))
    assert dataset.manifest["window"]["test"] == [450 * 600, 499 * 600]
    hours = dataset.vocabulary.filter(pl.col("field") == "hour_of_day", pl.col("role") == "value")["value"]
    assert set(hours) == {str(hour) for hour in range(24)}


@pytest.mark.real
@pytest.mark.skipif(not LOGS.is_dir(), reason="the real logs are not here")
@pytest.mark.parametrize("name", REAL)
def test_a_real_log_ingests_with_the_expected_rows_in_each_part(name, tmp_path, monkeypatch):
    schema, log, parts, positives, fields = REAL[name]
    monkeypatch.chdir(ROOT)
    dataset = Dataset(ingest(load_schema(f"data/schemas/{schema}.toml"), LOGS / log, tmp_path))
    rows = dataset.manifest["rows"]
    assert tuple(rows[part] for part in ("train", "valid", "test")) == parts
    assert sum(dataset.manifest["positives"].values()) == positives
    assert len(dataset.fields) == fields
    assert rows["set_aside"] == 0
    assert all(join["unmatched"] == 0 for join in dataset.manifest["joins"])


@pytest.mark.parametrize("name", REAL)
def test_the_config_of_a_sample_reads_that_sample(name):
    schema, log, *_ = REAL[name]
    data = load_config(ROOT / f"pipelines/configs/{name}.toml").data
    assert (data.schema_file, data.input) == (f"data/schemas/{schema}.toml", f"../shared/data/{log}")
