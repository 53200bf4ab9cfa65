"""`ctr verify`: what is as it should be says so; each way in which it is not ends with code 4 and names the place."""

import hashlib
import json
import re
import shutil

import polars as pl
import pytest
from safetensors.torch import load_file, save_file

from ctr.config import Config
from ctr.dataset.synthetic import write_log
from ctr.errors import ConfigError, DataError, ThresholdError
from ctr.jobs.train import train
from ctr.jobs.verify import verify
from ctr.serving.scorer import Scorer, _chunk
from ctr.settings import check
from tests.serving.test_bundle import resign
from tests.serving.write_released import RELEASED


@pytest.fixture(scope="module")
def log_folder(tmp_path_factory):
    """3,000 rows of the demo log."""
    work = tmp_path_factory.mktemp("verify")
    write_log("demo", work / "log", rows=3000, seed=1)
    return work


def finished(work, **export):
    """A finished run on that log, and the log."""
    keys = {
        "name": "verify",
        "data": {
            "schema": str(work / "log" / "schema.toml"),
            "input": str(work / "log" / "log.parquet"),
            "folder": str(work / "datasets"),
        },
        "embedding": {"dim": 4},
        "backbone": {"hidden": [8]},
        "selector": {"kind": "frequency", "ratio": [0.5]},
        "training": {"epochs": 1, "device": "cpu"},
        "output": {"folder": str(work / "runs")},
        "tracking": {"uri": "off"},
        "export": export,
    }
    return train(check(keys, Config, "config")), work / "log" / "log.parquet"


@pytest.fixture(scope="module")
def run(log_folder):
    """A run whose bundle stores float32."""
    return finished(log_folder)


def told(*args, **keys):
    lines = []
    verify(*args, **{"run": None, "log": None, **keys}, tell=lines.append)
    return "\n".join(lines)


def test_a_bundle_in_its_run_scores_as_the_training_path(run):
    lines = told(run[0] / "bundle", str(run[1]))
    assert "files are as they were exported" in lines
    assert "golden pairs have their ids" in lines
    assert "20 rows score one by one as together" in lines
    assert "3,000 rows score as in the training path; largest difference" in lines


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_rounded_weights_score_as_the_training_path_with_the_same_weights(log_folder, dtype):
    folder, log = finished(log_folder, dtype=dtype, max_auc_loss=0.01)
    lines = told(folder / "bundle", str(log))
    assert "3,000 rows score as in the training path; largest difference" in lines
    assert "allowed 1e-06" in lines
    changed = float(re.search(f"storing weights as {dtype} changes .* by (\\S+)", lines)[1])
    stated = Scorer(folder / "bundle").bundle.manifest.rounding.largest_change
    assert 1e-6 < stated < 10 * changed  # of all rows, not of valid alone
    assert changed < (1e-3 if dtype == "float16" else 0.05)


def test_other_weights_than_those_stored_are_found_out_in_few_bits_too(log_folder, tmp_path):
    folder, log = finished(log_folder, dtype="int8", max_auc_loss=0.01)
    copied = shutil.copytree(folder / "bundle", tmp_path / "bundle")
    tensors = load_file(copied / "weights.safetensors")
    tensors["bias"] += 1e-4  # less than rounding changes, and golden rows show
    golden = pl.read_parquet(copied / "golden.parquet")
    save_file(tensors, copied / "weights.safetensors")
    scores = golden["@probability"]
    shifted = 1 / (1 + (-((scores / (1 - scores)).log() + 1e-4)).exp())
    golden.with_columns(shifted.alias("@probability")).write_parquet(copied / "golden.parquet")
    for name in ("weights.safetensors", "golden.parquet"):
        resign(copied, name)
    with pytest.raises(ThresholdError, match="of the training path within 1e-06"):
        told(copied, str(log), run=folder)


def test_without_a_run_the_bundle_is_compared_with_itself(run, tmp_path):
    shutil.copytree(run[0] / "bundle", tmp_path / "bundle")
    assert "training path" not in told(tmp_path / "bundle", str(run[1]))
    assert "training path" in told(tmp_path / "bundle", str(run[1]), run=run[0])
    assert "score" not in told(tmp_path / "bundle", None)


def test_other_weights_than_the_checkpoints_are_found_out_with_their_row(run, tmp_path):
    copied = shutil.copytree(run[0], tmp_path / "run")
    best = next(path for path in (copied / "checkpoints").glob("frequency*/best"))
    content = json.loads((best / "state.json").read_text())
    weights = best / f"{content['tensors'][:16]}.safetensors"
    tensors = load_file(weights)
    tensors["/network/bias"] += 0.01
    save_file(tensors, weights)
    data = weights.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    weights.rename(best / f"{digest[:16]}.safetensors")
    (best / "state.json").write_text(json.dumps({**content, "tensors": digest}))
    with pytest.raises(
        ThresholdError, match=r"row 1: expected the probability .* of the training path within 1e-06"
    ):
        told(copied / "bundle", str(run[1]))


def test_a_run_that_did_not_make_the_bundle_is_refused(run, tmp_path):
    with pytest.raises(ConfigError, match="expected the folder of a finished run"):
        told(run[0] / "bundle", str(run[1]), run=tmp_path)
    with pytest.raises(ConfigError, match="--against RUN needs a FILE"):
        told(run[0] / "bundle", None, run=run[0])


def test_a_golden_pair_that_is_encoded_otherwise_is_told(run, tmp_path):
    copied = shutil.copytree(run[0] / "bundle", tmp_path / "bundle")
    pairs = pl.read_parquet(copied / "golden_pairs.parquet")
    ids = pairs["ids"].to_list()
    ids[7] = [10**6]
    pairs.with_columns(pl.Series("ids", ids, dtype=pl.List(pl.Int64))).write_parquet(
        copied / "golden_pairs.parquet"
    )
    resign(copied, "golden_pairs.parquet")
    field = pairs["field"][7]
    with pytest.raises(ThresholdError, match=rf'field "{field}", \w+ .*expected .*ids=\[1000000\]'):
        told(copied, None)


def of_field(number, **cells):
    """Other cells in the first pair of a field."""

    def change(frame):
        first = frame.with_row_index()["index"] == number
        return frame.with_columns(
            pl.when(first).then(pl.lit(value)).otherwise(pl.col(name)).alias(name)
            for name, value in cells.items()
        )

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (of_field(0, type="texts", raw="[" * 5000), "lists of lists are no cell|Expecting value"),
        (of_field(0, type="texts", raw="[" * 5000 + "]" * 5000), "lists of lists are no cell|expected"),
        (of_field(0, type="integer", raw="9" * 40), "a whole number has at most 64 bits"),
        (of_field(0, type="integer", raw="9" * 5000), "Exceeds the limit"),
        (of_field(0, type="integers", raw='{"a": 1}'), "invalid literal"),
        (of_field(0, type="nothing", raw="x"), 'there is no cell of the type "nothing"'),
        (lambda frame: frame.clear(), "expected pairs of every field and no other"),
        (lambda frame: frame.filter(pl.col("field") != frame["field"][0]), "expected pairs of every field"),
        (of_field(0, field="nobody"), 'expected pairs of every field and no other, see "nobody"'),
        (of_field(0, field=None), "expected pairs of every field and no other"),
    ],
)
def test_golden_pairs_that_are_none_are_refused_in_one_line(run, tmp_path, change, message):
    copied = shutil.copytree(run[0] / "bundle", tmp_path / "bundle")
    pairs = pl.read_parquet(copied / "golden_pairs.parquet")
    change(pairs).write_parquet(copied / "golden_pairs.parquet")
    resign(copied, "golden_pairs.parquet")
    with pytest.raises(DataError, match=message) as caught:
        told(copied, None)
    assert str(caught.value).startswith(f'bundle "{copied}": "golden_pairs.parquet"')
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "expected a version from 1 to 2, found null"),
        ('{"version": true}', "expected a version from 1 to 2, found true"),
        ('{"version": 3}', "expected a version from 1 to 2, found 3"),
        ('{"version": 1}', "says otherwise how cells"),
        ("[" * 100_000, "is no valid JSON"),
        (None, "says otherwise how cells"),
    ],
)
def test_a_description_of_another_encoding_is_refused(run, tmp_path, content, message):
    copied = shutil.copytree(run[0] / "bundle", tmp_path / "bundle")
    path = copied / "encoding.json"
    if content is None:
        described = json.loads(path.read_text())
        described["fields"][0]["missing_values"] = ["7"]
        content = json.dumps(described)
    path.write_text(content)
    resign(copied, "encoding.json")
    with pytest.raises(DataError, match=message):
        told(copied, None)


def test_a_description_of_the_first_version_is_compared_as_far_as_it_goes(tmp_path):
    released = RELEASED / "format_3" / "bundle"
    assert '"encoding.json" says how the bundle encodes cells, as far as version 1 did' in told(
        released, None
    )
    copied = shutil.copytree(released, tmp_path / "bundle")
    described = json.loads((copied / "encoding.json").read_text())
    described["fields"][0]["owner"] = "item"
    (copied / "encoding.json").write_text(json.dumps(described))
    resign(copied, "encoding.json")
    with pytest.raises(DataError, match="says otherwise how cells"):
        told(copied, None)


@pytest.fixture
def log(run, tmp_path):
    """Writes a log of the first 50 rows with ids, numbers and scores as the bundle has them, changed by a function."""
    scorer = Scorer(run[0] / "bundle")
    raw = pl.read_parquet(run[1]).head(50)
    scores, _, encoded = scorer.told_chunk(_chunk(raw), 0)
    names = {name: f"@id:{name}" for name in encoded.columns if not name.startswith("@")}
    frame = pl.concat([raw, encoded.rename(names)], how="horizontal").with_columns(probability=scores)

    def write(change=lambda frame: frame):
        change(frame).write_parquet(tmp_path / "served.parquet")
        return str(tmp_path / "served.parquet")

    return write, [field.name for field in scorer.encoder.fields]


def test_a_log_that_agrees_says_how_much_was_compared(run, log):
    write, fields = log
    lines = told(run[0] / "bundle", None, log=write())
    assert f"50 logged rows: the ids of {len(fields)} fields and the scores are those of the bundle" in lines
    only = told(
        run[0] / "bundle", None, log=write(lambda frame: frame.drop("probability", f"@id:{fields[0]}"))
    )
    assert f"the ids of {len(fields) - 1} fields are those" in only


def changed(column, row, value):
    def change(frame):
        cells = frame[column].to_list()
        cells[row] = value
        return frame.with_columns(pl.Series(column, cells, dtype=frame[column].dtype))

    return change


def test_the_first_logged_id_that_differs_is_named_with_row_value_expected_and_found(run, log):
    write, fields = log
    name = fields[1]
    with pytest.raises(ThresholdError) as caught:
        told(run[0] / "bundle", None, log=write(changed(f"@id:{name}", 12, 77_777)))
    message = str(caught.value)
    assert 'file "' in message
    assert f'row 13, field "{name}"' in message
    assert "its cell is" in message or "expected" in message
    assert "found 77777 in the log" in message


def test_a_logged_score_that_differs_or_is_not_there_is_named(run, log):
    write, _ = log
    for value in (0.99, None, float("nan")):
        with pytest.raises(ThresholdError, match=r"row 31: expected the probability 0\.\d+ of the bundle"):
            told(run[0] / "bundle", None, log=write(changed("probability", 30, value)))


def test_a_log_with_nothing_logged_or_of_no_field_is_refused(run, log):
    write, fields = log
    with pytest.raises(DataError, match='expected a column "probability" or columns such as "@id:FIELD"'):
        told(run[0] / "bundle", None, log=str(run[1]))
    with pytest.raises(DataError, match='the bundle has no field "nothing"'):
        told(
            run[0] / "bundle",
            None,
            log=write(lambda frame: frame.rename({f"@id:{fields[0]}": "@id:nothing"})),
        )


def test_ids_in_text_are_read_and_lists_are_no_ids(run, log):
    write, fields = log
    column = f"@id:{fields[0]}"
    told(run[0] / "bundle", None, log=write(lambda frame: frame.with_columns(pl.col(column).cast(pl.String))))
    with pytest.raises(DataError, match=f'column "{column}": expected Int64, found List'):
        told(
            run[0] / "bundle",
            None,
            log=write(lambda frame: frame.with_columns(pl.concat_list(column).alias(column))),
        )
