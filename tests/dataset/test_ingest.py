import json
import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ctr.dataset import counting, passes
from ctr.dataset import reading as reading_module
from ctr.dataset.encoding import Encoder
from ctr.dataset.ingest import ingest
from ctr.dataset.inputs import find_files
from ctr.dataset.preparation import Preparation
from ctr.dataset.reading import chunks, column_names
from ctr.dataset.schema import Schema
from ctr.errors import ConfigError
from ctr.settings import check

DATA = Path(__file__).parents[3] / "shared" / "data"
PARTS = ("train", "valid", "test")
FIELDS = [
    {"name": "user", "min_count": 2},
    {"name": "price", "kind": "numeric", "transform": "log_square"},
    {"name": "tags", "kind": "list", "separator": "|"},
]


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


def vocabulary_of(folder, field):
    return pl.read_parquet(folder / "vocabulary.parquet").filter(pl.col("field") == field).drop("field")


def bytes_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture
def small_chunks(monkeypatch):
    """Reads files in blocks of about ten rows, so that a small log has many chunks."""
    monkeypatch.setattr(
        passes, "chunks", lambda sources, read, wanted: reading_module.chunks(sources, read, wanted, 200)
    )


def test_a_log_is_encoded_as_a_naive_program_would(write, run, rows_of, small_log, small_chunks):
    folder = run(
        write("log.csv", small_log), fields=FIELDS, split={"by": "time", "column": "day", "valid": 0.1}
    )
    lines = [line.split(",") for line in small_log.splitlines()[1:]]
    # 20 rows a day: the last two days test, the two before valid.
    expected = {"train": lines[:320], "valid": lines[320:360], "test": lines[360:]}
    users = Counter(line[1] for line in expected["train"])
    tags = Counter(tag for line in expected["train"] for tag in line[3].split("|") if tag)
    user_ids = {user: n + 2 for n, user in enumerate(sorted(users, key=lambda u: (-users[u], u)))}
    tag_ids = {tag: n + 2 for n, tag in enumerate(sorted(tags, key=lambda t: (-tags[t], t)))}
    prices = vocabulary_of(folder, "price").filter(pl.col("role") == "value")
    price_ids = dict(prices.select("value", "id").iter_rows())
    for part, rows in expected.items():
        found = rows_of(folder, part)
        assert found["@label"].to_list() == [int(row[0]) for row in rows]
        assert found["user"].to_list() == [user_ids[row[1]] for row in rows]
        assert found["tags"].to_list() == [
            [tag_ids[t] for t in row[3].split("|") if t] or [1] for row in rows
        ]
        # log_square leaves 0, 1, 2 as they are; 3 and 4 become 1, 5 becomes 2, 6 becomes 3.
        small = {"0": "0", "1": "1", "2": "2", "3": "1", "4": "1", "5": "2", "6": "3"}
        assert found["price"].to_list() == [price_ids[small[row[2]]] if row[2] else 1 for row in rows]
    assert rows_of(folder, "test")["@row"].to_list() == list(range(360, 400))
    assert manifest_of(folder)["window"]["valid"] == [
        "2024-01-17T00:00:00+00:00",
        "2024-01-18T00:00:00+00:00",
    ]


def test_counts_come_from_train_rows_alone(write, run, rows_of):
    lines = [f"{row % 2},{'late' if row >= 8 else 'ab'[row % 3 > 0]},{row}" for row in range(16)]
    folder = run(
        write("log.csv", "click,user,time\n" + "\n".join(lines)),
        split={"by": "time", "column": "time", "valid": 8, "test": 12},
    )
    assert vocabulary_of(folder, "user").rows() == [
        ("unknown", None, 0, 0, 0.0),
        ("missing", None, 1, 0, 0.0),
        ("value", "b", 2, 5, 5.0),
        ("value", "a", 3, 3, 3.0),
    ]
    assert rows_of(folder, "valid")["user"].to_list() == [0, 0, 0, 0]


def test_rare_values_become_unknown(write, run):
    lines = [f"{row % 2},{'rare' if row == 0 else 'ab'[row % 3 > 0]},{row}" for row in range(20)]
    folder = run(
        write("log.csv", "click,user,time\n" + "\n".join(lines)),
        fields=[{"name": "user", "min_count": 2}],
        split={"by": "time", "column": "time", "valid": 0.2, "test": 0.2},
    )
    assert vocabulary_of(folder, "user").row(0) == ("unknown", None, 0, 1, 1.0)


@pytest.mark.parametrize("format", ["csv", "tsv", "csv.gz", "parquet", "ndjson"])
def test_every_format_gives_the_same_rows(write, run, tmp_path, rows_of, small_log, format):
    reference = run(write("log.csv", small_log), fields=FIELDS)
    frame = pl.read_csv(small_log.encode(), schema_overrides={"price": pl.Float64})
    path = tmp_path / f"other.{format}"
    if format == "parquet":
        frame.write_parquet(path)
    elif format == "ndjson":
        frame.with_columns(pl.col("tags").str.split("|")).write_ndjson(path)
    elif format == "tsv":
        frame.write_csv(path, separator="\t")
    else:
        import gzip

        path.write_bytes(gzip.compress(small_log.encode()) if format == "csv.gz" else small_log.encode())
    read = {"format": "csv" if format[:3] in ("csv", "tsv") else format}
    folder = run(path, fields=FIELDS, read=read | ({"separator": "\t"} if format == "tsv" else {}))
    for part in PARTS:
        assert rows_of(folder, part).equals(rows_of(reference, part))


def test_the_order_of_columns_does_not_matter(write, run, small_log):
    turned = "\n".join(",".join(reversed(line.split(","))) for line in small_log.splitlines())
    first, second = (
        run(write("log.csv", small_log), fields=FIELDS),
        run(write("b/log.csv", turned), fields=FIELDS),
    )
    one, other = bytes_of(first), bytes_of(second)
    assert one.keys() == other.keys()
    assert all(one[name] == other[name] for name in one if name != "manifest.json")


def test_the_same_input_gives_the_same_bytes(write, tmp_path, make_schema, small_log):
    path, schema = write("log.csv", small_log), make_schema(fields=FIELDS)
    assert bytes_of(ingest(schema, path, tmp_path / "a")) == bytes_of(ingest(schema, path, tmp_path / "b"))


def test_no_file_names_a_place_on_this_machine(write, run, tmp_path, small_log):
    folder = run(write("log.csv", small_log), fields=FIELDS)
    assert all(str(tmp_path).encode() not in content for content in bytes_of(folder).values())


def test_chunks_of_any_size_give_the_same_files(write, run, tmp_path, make_schema, small_log, monkeypatch):
    path, schema = write("log.csv", small_log), make_schema(fields=FIELDS)
    whole = bytes_of(ingest(schema, path, tmp_path / "a"))
    monkeypatch.setattr(
        passes, "chunks", lambda sources, read, wanted: reading_module.chunks(sources, read, wanted, 100)
    )
    assert bytes_of(ingest(schema, path, tmp_path / "b")) == whole


def test_an_unchanged_log_is_not_read_again(write, run, small_log, monkeypatch):
    path = write("log.csv", small_log)
    folder = run(path, fields=FIELDS)
    monkeypatch.setattr(passes, "chunks", None)
    assert run(path, fields=FIELDS) == folder


def test_a_changed_byte_of_input_or_schema_gives_another_dataset(write, run, small_log):
    folder = run(write("log.csv", small_log), fields=FIELDS)
    assert run(write("log.csv", small_log + "1,u1,,,2024-01-20\n"), fields=FIELDS) != folder
    assert run(write("log.csv", small_log), fields=FIELDS[:1]) != folder


@pytest.mark.parametrize("name", ["manifest.json", "vocabulary.parquet", "train/part-00000.parquet"])
@pytest.mark.parametrize("damage", ["change", "delete"])
def test_a_damaged_dataset_is_built_again(write, run, small_log, name, damage):
    path = write("log.csv", small_log)
    folder = run(path, fields=FIELDS)
    whole = bytes_of(folder)
    if damage == "delete":
        (folder / name).unlink()
    else:
        content = bytearray(whole[name])
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)
    assert bytes_of(run(path, fields=FIELDS)) == whole
    assert [entry.name for entry in folder.parent.iterdir()] == [folder.name]


def test_a_manifest_with_another_number_is_written_again(write, run, small_log):
    path = write("log.csv", small_log)
    folder = run(path, fields=FIELDS)
    whole = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(whole.replace('"read": 400', '"read": 401'))
    assert (run(path, fields=FIELDS) / "manifest.json").read_text() == whole


def test_the_manifest_counts_every_row_once(write, run, small_log):
    broken = small_log + "2,u1,1,a,2024-01-20\n1,u1\n"
    folder = run(
        write("log.csv", broken),
        fields=FIELDS,
        where="\"user\" <> 'u3'",
        split={
            "by": "time",
            "column": "day",
            "valid": "2d",
            "test": "2d",
            "gap": "1d",
            "label_matures_after": "1d",
        },
    )
    rows = manifest_of(folder)["rows"]
    # u3 has one row a day; the last day is immature only in part: rows of the newest instant are.
    assert rows["read"] == 402 == sum(rows[name] for name in rows if name != "read")
    assert (rows["set_aside"], rows["filtered"]) == (2, 20)
    assert rows["gap"] == 2 * 19
    aside = pl.read_parquet(folder / "set_aside.parquet")
    assert aside.select("file", "row", "column", "found").rows() == [
        ("log.csv", 401, "click", "2"),
        ("log.csv", 402, "", "2 columns"),
    ]


def test_the_manifest_says_what_the_dataset_holds(write, run, small_log):
    folder = run(write("log.csv", small_log), fields=FIELDS, where="price < 100")
    manifest = manifest_of(folder)
    assert manifest["format"] == 1
    assert folder.name == f"log-{manifest['digest'][:12]}"
    assert len(manifest["digest"]) == 36
    assert manifest["inputs"][0]["name"] == "log.csv"
    assert manifest["columns"] == {"price": "Int64"}
    assert Schema.model_validate(manifest["schema"]).fields[0].name == "user"
    assert [field["name"] for field in manifest["fields"]] == ["user", "price", "tags"]
    assert [field["features"] for field in manifest["fields"]] == [
        vocabulary_of(folder, name).height for name in ("user", "price", "tags")
    ]


def test_scaled_fields_use_train_statistics(write, run, rows_of):
    lines = [f"{row % 2},{value},{row}" for row, value in enumerate([1, 3, 5, 3, 1, 5, 100, 200, 7, ""])]
    fields = [{"name": "x", "kind": "numeric", "transform": "minmax"}]
    split = {"by": "time", "column": "time", "valid": 6, "test": 8}
    folder = run(write("log.csv", "click,x,time\n" + "\n".join(lines)), fields=fields, split=split)
    assert manifest_of(folder)["fields"][0]["scale"] == {"shift": 1.0, "factor": 0.25}
    assert rows_of(folder, "train")["@value:x"].to_list() == [0.0, 0.5, 1.0, 0.5, 0.0, 1.0]
    assert rows_of(folder, "test").select("x", "@value:x").rows() == [(2, 1.5), (1, 1.0)]
    assert vocabulary_of(folder, "x")["count"].to_list() == [0, 0, 6]


def test_quantile_bins_come_from_train_rows(write, run, rows_of):
    lines = [f"{row % 2},{row if row < 8 else 1000},{row}" for row in range(12)]
    fields = [{"name": "x", "kind": "numeric", "transform": "quantile", "bins": 2}]
    split = {"by": "time", "column": "time", "valid": 8, "test": 10}
    folder = run(write("log.csv", "click,x,time\n" + "\n".join(lines)), fields=fields, split=split)
    assert manifest_of(folder)["fields"][0]["edges"] == [3.0]
    assert vocabulary_of(folder, "x").select("value", "count").rows() == [
        (None, 0),
        (None, 0),
        ("0", 4),
        ("1", 4),
    ]
    assert rows_of(folder, "test")["x"].to_list() == [3, 3]


def test_many_rows_give_quantiles_from_a_seeded_sample(
    write, run, small_log, monkeypatch, tmp_path, make_schema
):
    rng = np.random.default_rng(0)
    lines = [f"{row % 2},{value:.6f}" for row, value in enumerate(rng.normal(size=4000))]
    path = write("log.csv", "click,x\n" + "\n".join(lines))
    schema = make_schema(fields=[{"name": "x", "kind": "numeric", "transform": "quantile", "bins": 4}])
    monkeypatch.setattr(counting, "SAMPLE_ROWS", 1000)
    first, second = ingest(schema, path, tmp_path / "a"), ingest(schema, path, tmp_path / "b")
    edges = manifest_of(first)["fields"][0]["edges"]
    assert edges == manifest_of(second)["fields"][0]["edges"]
    np.testing.assert_allclose(edges, [-0.6745, 0.0, 0.6745], atol=0.12)
    monkeypatch.undo()
    assert edges != manifest_of(ingest(schema, path, tmp_path / "c"))["fields"][0]["edges"]


def test_a_hash_split_keeps_a_user_in_one_part(write, run, rows_of, small_log):
    split = {"by": "hash", "column": "user", "valid": 0.3, "test": 0.3}
    folder = run(write("log.csv", small_log), fields=FIELDS, split=split)
    users = [line.split(",")[1] for line in small_log.splitlines()[1:]]
    seen = [{users[row] for row in rows_of(folder, part)["@row"]} for part in PARTS]
    assert sum(len(part) for part in seen) == 20 == len(set.union(*seen))


def test_a_random_split_is_no_matter_of_rows_before(write, run, rows_of, small_log):
    folder = run(write("log.csv", small_log), fields=FIELDS)
    longer = run(write("more/log.csv", small_log + small_log.split("\n", 1)[1]), fields=FIELDS)
    for part in PARTS:
        rows = rows_of(longer, part)["@row"]
        assert rows.filter(rows < 400).to_list() == rows_of(folder, part)["@row"].to_list()


def test_given_files_are_the_parts(write, run, tmp_path, rows_of, small_log):
    header, *lines = small_log.splitlines()
    for name, some in {"a": lines[:200], "b": lines[200:300], "v": lines[300:350], "t": lines[350:]}.items():
        write(f"logs/{name}.csv", "\n".join([header, *some]))
    split = {"by": "files", "train": "[ab].csv", "valid": "v.csv", "test": "t.csv"}
    folder = run(tmp_path / "logs", fields=FIELDS, split=split)
    assert [rows_of(folder, part).height for part in PARTS] == [300, 50, 50]
    assert rows_of(folder, "test")["@row"].to_list() == list(range(350, 400))
    assert [entry["name"] for entry in manifest_of(folder)["inputs"]] == ["a.csv", "b.csv", "v.csv", "t.csv"]


@pytest.fixture
def given_files(write, run, tmp_path, small_log):
    """Ingests rows of the small log, dealt out to three files in turn; the second row of valid may be another."""

    def build(broken=None, **keys):
        shutil.rmtree(tmp_path / "logs", ignore_errors=True)
        header, *lines = small_log.splitlines()
        lines = [broken if broken and row == 5 else line for row, line in enumerate(lines)]
        for part, name in enumerate(PARTS):
            write(f"logs/{name}.csv", "\n".join([header, *lines[part::4]]))
        split = {"by": "files", **{name: f"{name}.csv" for name in PARTS}} | keys
        return run(tmp_path / "logs", fields=FIELDS[:2], split=split, read={"max_bad_rows": 0.01})

    return build


def test_a_split_by_files_without_a_time_is_what_it_was_before_it_could_name_one(given_files, make_schema):
    # Digests of before there was the key: datasets of such schemas are found again.
    split = {"by": "files", "train": "[ab].csv", "valid": "v.csv", "test": "t.csv"}
    assert make_schema(split=split).digest() == "9746428edfb5f0ffbac0a60f5d5e7fae8d71"
    folder = given_files()
    manifest = manifest_of(folder)
    assert manifest["schema"]["split"] == {"by": "files", **{name: f"{name}.csv" for name in PARTS}}
    assert (manifest["row_columns"], manifest["window"]) == ([], None)
    assert manifest_of(given_files(column="day"))["digest"] != manifest["digest"]


def test_files_that_name_a_time_keep_it_with_their_rows(given_files, rows_of):
    plain, timed = given_files(), given_files(column="day", timezone="Europe/Paris")
    for part in PARTS:
        rows = rows_of(timed, part)
        assert rows.drop("@time").equals(rows_of(plain, part))
        days = (
            pl.from_epoch(rows["@time"], "us")
            .dt.replace_time_zone("UTC")
            .dt.convert_time_zone("Europe/Paris")
        )
        numbers = rows["@row"].to_numpy()
        starts = {
            name: sum(rows_of(plain, other).height for other in PARTS[:at]) for at, name in enumerate(PARTS)
        }
        there = 4 * (numbers - starts[part]) + PARTS.index(part)  # rows were dealt out in turn
        assert (days.dt.day().to_numpy() == there // 20 + 1).all()
    window = manifest_of(timed)["window"]
    assert window["train"] == ["2023-12-31T23:00:00+00:00", "2024-01-19T23:00:00+00:00"]
    assert list(window) == list(PARTS)


def test_rows_without_a_usable_time_are_set_aside_though_their_file_is_their_part(given_files):
    line = "1,u4,5,a,soon"
    assert manifest_of(given_files(line))["rows"]["set_aside"] == 0
    folder = given_files(line, column="day")
    (bad,) = pl.read_parquet(folder / "set_aside.parquet").to_dicts()
    assert (bad["column"], bad["found"], bad["file"]) == ("day", "soon", "valid.csv")
    assert bad["reason"] == "expected an ISO date or time as the time of the row"
    assert manifest_of(folder)["rows"]["valid"] == manifest_of(given_files(line))["rows"]["valid"] - 1


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"timezone": "Europe/Paris"}, "timezone needs column, the one that says when a row was shown"),
        ({"column": "day", "timezone": "Paris"}, 'split.timezone: no such time zone: "Paris"'),
        ({"column": "day", "gap": "6h"}, "split.gap: unknown key"),
    ],
)
def test_a_time_of_files_that_says_too_much_is_refused(given_files, keys, message):
    with pytest.raises(ConfigError, match=message):
        given_files(**keys)


def test_an_as_of_date_needs_a_split_by_time_also_where_files_name_one(given_files, tmp_path):
    schema = check(manifest_of(given_files(column="day"))["schema"], Schema, "schema")
    with pytest.raises(
        ConfigError, match=r'as_of = "2024-01-09" needs a split by time, found split.by = "files"'
    ):
        ingest(schema, tmp_path / "logs", tmp_path / "datasets", as_of="2024-01-09")


def test_side_tables_are_joined_counted_and_kept(write, run, tmp_path, rows_of, small_log):
    users = write(
        "users.psv", "u0|Ä\nu1|B\n".encode("latin-1") + b"".join(b"u%d|C\n" % n for n in range(2, 19))
    )
    join = {
        "input": str(users), "on": "user", "separator": "|", "has_header": False, "columns": ["user", "city"],
        "encoding": "latin-1",
    }  # fmt: skip
    folder = run(write("log.csv", small_log), fields=[{"name": "city"}], joins=[join])
    assert manifest_of(folder)["joins"] == [
        {
            "input": "users.psv",
            "on": "user",
            "time": None,
            "max_age": None,
            "point_in_time": False,
            "unmatched": 0.05,
            "too_old": None,
        }
    ]
    assert set(vocabulary_of(folder, "city")["value"]) == {None, "Ä", "B", "C"}
    assert pl.read_parquet(folder / "side_tables/00000.parquet").columns == ["user", "city"]
    shutil.rmtree(users.parent / "users.psv", ignore_errors=True)
    users.unlink()
    preparation = Preparation.from_dataset(folder, ["user"])
    assert preparation.raw_columns == ["user"]


def test_a_changed_side_table_gives_another_dataset(write, run, small_log):
    join = {"input": str(write("users.csv", "user,city\nu1,A\nu2,B\n")), "on": "user"}
    keys = {"fields": [{"name": "city"}], "joins": [join]}
    folder = run(write("log.csv", small_log), **keys)
    write("users.csv", "user,city\nu1,A\nu2,C\n")
    assert run(write("log.csv", small_log), **keys) != folder


def scored(folder, path, **keys):
    """Ids of every raw row, by the preparation and encoder that a dataset keeps."""
    schema = Schema.model_validate(manifest_of(folder)["schema"])
    sources = find_files(path)
    preparation = Preparation.from_dataset(folder, column_names(sources[0], schema.read), **keys)
    encoder = Encoder.from_dataset(folder, keys.get("fields"))
    return pl.concat(
        encoder.encode(preparation(chunk).frame)
        for chunk in chunks(sources, schema.read, preparation.raw_columns, 300)
    )


ALL_KINDS = [
    *FIELDS,
    {"name": "double"},
    {"name": "day"},
    {"name": "age", "kind": "numeric", "transform": "quantile", "bins": 5},
    {"name": "weight", "kind": "numeric", "transform": "standard"},
]


def test_scoring_gives_the_very_ids_of_training(write, run, rows_of, small_log):
    random.seed(1)
    lines = small_log.splitlines()
    more = [f"{line},{random.choice([*range(9), ''])},{random.random():.3f}" for line in lines[1:]]
    path = write("log.csv", "\n".join([lines[0] + ",age,weight", *more]))
    folder = run(path, fields=ALL_KINDS, derive={"double": "price * 2"})
    ids = scored(folder, path)
    for part in PARTS:
        found = rows_of(folder, part)
        assert found.drop("@row", "@label").equals(ids[found["@row"]])
    some = scored(folder, path, fields=["weight", "double"])
    assert some.equals(ids.select("double", "weight", "@value:weight"))


def test_parts_are_cut_into_files_of_fixed_numbers_of_rows(write, run, rows_of, monkeypatch, small_log):
    from ctr.dataset import part_files

    monkeypatch.setattr(part_files, "ROW_GROUP", 50)
    monkeypatch.setattr(part_files, "FILE_ROWS", 100)
    folder = run(write("log.csv", small_log), fields=FIELDS)
    heights = [pl.read_parquet(path).height for path in sorted((folder / "train").iterdir())]
    assert heights[:-1] == [100] * (len(heights) - 1)
    rows = rows_of(folder, "train")["@row"]
    assert rows.to_list() == sorted(set(rows))
    assert len(rows) == manifest_of(folder)["rows"]["train"]


def test_progress_runs_through_the_stages_to_their_end(write, tmp_path, make_schema, small_log):
    seen = []
    ingest(
        make_schema(), write("log.csv", small_log), tmp_path / "d", progress=lambda *step: seen.append(step)
    )
    assert [stage for stage, share in seen if share == 1.0] == ["read", "count", "encode"]


@pytest.mark.real
@pytest.mark.skipif(not DATA.exists(), reason="the real logs are not here")
def test_real_logs_are_ingested(tmp_path, make_schema):
    criteo = ["label", *(f"I{n}" for n in range(1, 14)), *(f"C{n}" for n in range(1, 27))]
    fields = [
        {"name": name, "kind": "numeric", "transform": "log_square"}
        if name[0] == "I"
        else {"name": name, "min_count": 2}
        for name in criteo[1:]
    ]
    read = {"separator": "\t", "has_header": False, "columns": criteo}
    schema = make_schema(name="criteo", label="label", fields=fields, read=read)
    rows = manifest_of(ingest(schema, DATA / "criteo28k/clicks.tsv.gz", tmp_path))["rows"]
    assert (rows["read"], rows["set_aside"]) == (28_388, 0)
    schema = make_schema(
        name="ml100k",
        label="rating >= 4",
        where="rating <> 3",
        derive={"when": "CAST(timestamp * 1000000 AS TIMESTAMP)", "hour": "DATE_PART('hour', \"when\")"},
        read={"separator": "\t", "has_header": False, "columns": ["user_id", "item_id", "rating", "timestamp"]},
        split={"by": "time", "column": "when"},
        fields=[{"name": name} for name in ("user_id", "item_id", "age", "occupation", "release", "hour")],
        joins=[
            {
                "input": str(DATA / "ml100k/u.user"), "on": "user_id", "separator": "|", "has_header": False,
                "columns": ["user_id", "age", "gender", "occupation", "zip"],
            },
            {
                "input": str(DATA / "ml100k/u.item"), "on": "item_id", "separator": "|", "has_header": False,
                "columns": ["item_id", "title", "release", "video", "url", *(f"g{n}" for n in range(19))],
                "encoding": "latin-1", "quote": "",
            },
        ],
    )  # fmt: skip
    manifest = manifest_of(ingest(schema, DATA / "ml100k/u.data", tmp_path))
    assert manifest["rows"]["read"] == 100_000
    assert manifest["rows"]["filtered"] == 27_145
    assert [join["unmatched"] for join in manifest["joins"]] == [0.0, 0.0]
