"""Personal fields: what a pseudonym is, that it works like the value it stands for, and that the value is nowhere."""

import hashlib
import hmac
import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctr.dataset import ingest as ingest_module
from ctr.dataset.bad_rows import WITHHELD, no_bad_rows
from ctr.dataset.ingest import ingest
from ctr.dataset.personal import Personal
from ctr.dataset.personal_key import Key, load_key
from ctr.dataset.preparation import Preparation
from ctr.dataset.reading import Chunk
from ctr.dataset.schema import Schema
from ctr.dataset.scratch import Arrays
from ctr.errors import ConfigError, DataError
from ctr.settings import check
from tests.reference.leaks import leaks

SECRET = "a secret of more than 16 bytes"
USER = {"name": "user", "pii": True}
LENIENT = {"max_bad_rows": 0.5}


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.delenv("CTR_PII_KEY_FILE", raising=False)
    monkeypatch.setenv("CTR_PII_KEY", SECRET)


def pseudonym(text, secret=SECRET):
    """The slow way, straight from the definition."""
    return hmac.new(secret.encode(), b"ctr value\0" + text.encode(), hashlib.sha256).hexdigest()[:32]


def schema_of(*fields, **keys) -> Schema:
    return check({"name": "log", "label": "click", "fields": list(fields), **keys}, Schema, "schema")


def log(rows=300):
    """Text of a log: click, user (30 persons), friends (a list), day, price."""
    lines = ["click,user,friends,day,price"]
    for row in range(rows):
        friends = "|".join(f"quixote-{(row * 7 + n) % 30:02d}" for n in range(row % 3))
        lines.append(
            f"{row * 5 % 7 % 2},quixote-{row * 11 % 30:02d},{friends},2024-01-{row // 20 + 1:02d},{row % 13}"
        )
    return "\n".join(lines) + "\n"


# The key


def test_the_key_is_the_variable_or_what_the_file_holds_without_the_blanks_around_it(monkeypatch, tmp_path):
    from_variable = load_key(["user"])
    monkeypatch.delenv("CTR_PII_KEY")
    (tmp_path / "key").write_bytes(f"\n {SECRET}\r\n".encode())
    monkeypatch.setenv("CTR_PII_KEY_FILE", str(tmp_path / "key"))
    assert load_key(["user"]).id == from_variable.id
    assert from_variable.id == hmac.new(SECRET.encode(), b"ctr key id", hashlib.sha256).hexdigest()[:16]


def test_a_key_file_may_hold_any_bytes(monkeypatch, tmp_path):
    monkeypatch.delenv("CTR_PII_KEY")
    (tmp_path / "key").write_bytes(bytes(range(200, 232)))
    monkeypatch.setenv("CTR_PII_KEY_FILE", str(tmp_path / "key"))
    assert load_key(["user"]).id == Key(bytes(range(200, 232))).id


def test_a_missing_key_is_answered_with_the_fields_and_both_variables(monkeypatch, write, run):
    monkeypatch.setenv("CTR_PII_KEY", "")  # as good as none
    with pytest.raises(ConfigError) as caught:
        run(write("log.csv", log()), fields=[USER, {"name": "friends", "pii": True}])
    for name in ('"user"', '"friends"', '"CTR_PII_KEY"', '"CTR_PII_KEY_FILE"'):
        assert name in str(caught.value)


def test_two_keys_a_short_one_and_an_unreadable_file_are_refused_without_being_told(monkeypatch, tmp_path):
    monkeypatch.setenv("CTR_PII_KEY_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match='both "CTR_PII_KEY" and "CTR_PII_KEY_FILE" are set'):
        load_key(["user"])
    monkeypatch.delenv("CTR_PII_KEY")
    with pytest.raises(ConfigError, match='none": cannot be read: No such file'):
        load_key(["user"])
    monkeypatch.delenv("CTR_PII_KEY_FILE")
    monkeypatch.setenv("CTR_PII_KEY", "  fifteen bytes..  ")
    with pytest.raises(ConfigError, match="at least 16 bytes, found 15") as caught:
        load_key(["user"])
    assert "fifteen" not in str(caught.value)


def test_a_key_shows_its_id_alone():
    assert repr(Key(b"k" * 16)) == f"Key({Key(b'k' * 16).id})"


# Pseudonyms


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.text())))
def test_each_text_gets_its_keyed_hash_and_missing_stays_missing(texts):
    found = Key(SECRET.encode()).pseudonyms(pl.Series("user", texts, dtype=pl.String))
    assert found.to_list() == [None if text is None else pseudonym(text) for text in texts]


@pytest.mark.parametrize(
    "cells", [["7", None, "-1", "", "7"], [7, None, -1, None, 7], [7.0, None, -1.0, float("nan"), 7.0]]
)
def test_the_raw_value_tells_what_is_missing_and_one_value_has_one_pseudonym_whatever_its_type(cells):
    personal = Personal.of(schema_of({**USER, "missing_values": [-1]}))
    found = personal.replaced(pl.DataFrame({"user": cells, "other": cells}, strict=False))
    assert found["user"].to_list() == [pseudonym("7"), None, None, None, pseudonym("7")]
    assert found["other"].equals(pl.Series("other", cells, strict=False), null_equal=True)


@pytest.mark.parametrize("cells", [["1|?|2", "?", None, "", "1"], [[1, None, 2], [None], None, [], [1]]])
def test_the_items_of_a_list_are_hashed_one_by_one(cells):
    field = {"name": "friends", "kind": "list", "separator": "|", "pii": True}
    personal = Personal.of(schema_of(field, missing_values=["?"]))
    found = personal.replaced(pl.DataFrame({"friends": cells}))["friends"]
    one, two = pseudonym("1"), pseudonym("2")
    assert found.to_list() == [[one, two], None, None, None, [one]]


def test_no_rows_and_no_personal_column_are_no_trouble():
    personal = Personal.of(schema_of(USER, {"name": "friends", "kind": "list", "pii": True}))
    empty = personal.replaced(pl.DataFrame({"user": [], "friends": []}))
    assert empty.schema == {"user": pl.String, "friends": pl.List(pl.String)}
    assert personal.replaced(pl.DataFrame({"price": [1]})).rows() == [(1,)]


# The schema


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"split": {"by": "time", "column": "user"}}, '"user" cannot be the split\'s time'),
        (
            {"split": {"by": "time", "column": "day"}, "derive": {"day": 'CAST("user" AS DATE)'}},
            '"day" cannot be the split\'s time: the cells of "user" are hashed',
        ),
        ({"label": "\"user\" = 'x'"}, "cannot be the label"),
        (
            {"label": "bought", "derive": {"bought": 'friend = "user"'}},
            'the cells of "friend", "user" are hashed',
        ),
        (
            {"joins": [{"input": "s.csv", "on": "item", "time": "since", "log_time": "user"}]},
            '"user" cannot be a time of join "s.csv"',
        ),
        ({"joins": [{"input": "s.csv", "on": "friends"}]}, '"friends" cannot be the key of join "s.csv"'),
        ({"row_id": "friends"}, '"friends" cannot be row_id'),
        ({"split": {"by": "hash", "column": "friends"}}, '"friends" cannot be split.column'),
    ],
)
def test_a_personal_field_is_refused_where_its_raw_value_would_be_needed(keys, message):
    fields = [USER, {"name": "friend", "pii": True}, {"name": "friends", "kind": "list", "pii": True}]
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        Personal.of(schema_of(*fields, **keys))


def test_a_label_may_be_computed_from_a_personal_column_and_another():
    Personal.of(schema_of(USER, label='"user" IS NOT NULL AND click = 1'))


# Datasets


def vocabulary(folder):
    frame = pl.read_parquet(folder / "vocabulary.parquet").filter(pl.col("role") == "value")
    return {(field, value): count for field, value, count in frame.select("field", "value", "count").rows()}


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_a_dataset_of_pseudonyms_counts_like_one_of_raw_values(write, run):
    path = write("log.csv", log())
    friends = {"name": "friends", "kind": "list", "separator": "|", "max_length": 1}
    keys = {"split": {"by": "time", "column": "day", "valid": 0.2, "test": 0.2}}
    raw = run(path, fields=[{"name": "user"}, {**friends, "shares": "user"}], **keys)
    hashed = run(path, fields=[USER, {**friends, "shares": "user", "pii": True}], **keys)
    expected = {(field, pseudonym(value)): count for (field, value), count in vocabulary(raw).items()}
    assert vocabulary(hashed) == expected
    assert len(expected) == 30
    assert manifest(hashed)["fields"][1]["truncated"] == manifest(raw)["fields"][1]["truncated"] > 0
    assert manifest(hashed)["personal"] == {"fields": ["user", "friends"], "key": load_key(["user"]).id}
    assert manifest(raw)["personal"] is None


def test_another_key_makes_another_dataset_and_no_personal_field_needs_none(monkeypatch, write, run):
    path = write("log.csv", log())
    first, again = run(path, fields=[USER]), run(path, fields=[USER])
    monkeypatch.setenv("CTR_PII_KEY", "another secret of some bytes")
    other, raw = run(path, fields=[USER]), run(path)
    assert first == again != other
    assert manifest(first)["digest"] != manifest(other)["digest"]
    assert set(vocabulary(first).values()) == set(vocabulary(other).values())
    monkeypatch.delenv("CTR_PII_KEY")
    assert run(path) == raw


def test_joins_expressions_row_ids_and_splits_see_pseudonyms(write, run, rows_of):
    path = write("log.csv", log())
    side = "user,team,boss\n" + "".join(f"quixote-{n:02d},t{n % 3},quixote-{n // 2:02d}\n" for n in range(20))
    offices = "boss,city\n" + "".join(f"quixote-{n:02d},c{n % 4}\n" for n in range(10))
    folder = run(
        path,
        fields=[USER, {"name": "boss", "pii": True}, {"name": "team"}, {"name": "city"}, {"name": "start"}],
        joins=[
            {"input": str(write("side.csv", side)), "on": "user"},
            {"input": str(write("offices.csv", offices)), "on": "boss"},
        ],
        derive={"start": 'LEFT("user", 1)'},
        where=f"\"user\" <> '{pseudonym('quixote-05')}'",
        row_id="user",
        split={"by": "hash", "column": "user", "valid": 0.2, "test": 0.2},
    )
    found, counted = manifest(folder), vocabulary(folder)
    assert found["rows"]["filtered"] == 10
    assert [join["unmatched"] for join in found["joins"]] == pytest.approx([1 / 3, 1 / 3])
    assert {value for field, value in counted if field == "start"} <= set("0123456789abcdef")
    assert {value for field, value in counted if field == "city"} == {"c0", "c1", "c2", "c3"}
    bosses = {value for field, value in counted if field == "boss"}
    assert bosses <= {pseudonym(f"quixote-{n:02d}") for n in range(10)}
    ids = set(rows_of(folder, "train")["@row_id"])
    assert ids <= {pseudonym(f"quixote-{n:02d}") for n in range(30)}
    assert len(ids) > 10
    assert leaks(folder, "quixote") == []


def test_the_reader_s_bad_rows_are_listed_without_what_was_found(write, run):
    text = log().encode()
    text += b"1,quixote-00\n" + b'1,"quixote-01,a\n' + b"1,quixote-\xff,a,2024-01-09,1\n"
    text += b"1,2024-01-09,a,quixote-03,quixote-04\n"  # a shifted line
    folder = run(
        write("log.csv", text),
        fields=[USER, {"name": "price", "kind": "numeric", "transform": "standard"}],
        split={"by": "time", "column": "day", "valid": 0.2, "test": 0.2},
        read=LENIENT,
    )
    aside = pl.read_parquet(folder / "set_aside.parquet")
    assert sorted(aside["row"]) == [301, 302, 303, 304]
    assert set(aside["found"]) == {WITHHELD}
    assert leaks(folder, "quixote") == []
    with pytest.raises(DataError) as caught:
        run(
            write("log.csv", text),
            fields=[USER],
            split={"by": "time", "column": "day"},
            read={"max_bad_rows": 0.0},
        )
    assert WITHHELD in str(caught.value)
    assert "quixote" not in str(caught.value)


def test_a_broken_line_of_json_or_of_a_side_table_is_not_told(write, run):
    lines = [
        json.dumps({"click": row * 5 % 7 % 2, "user": f"quixote-{row % 9}", "item": row % 4})
        for row in range(90)
    ]
    path = write("log.ndjson", "\n".join([*lines, '{"click": 1, "user": "quixote']))
    side = write("side.csv", 'item,city\n0,Rome\n1,Oslo\n2,"quixote\n3,Bonn\n')
    folder = run(
        path,
        fields=[USER, {"name": "city"}],
        joins=[{"input": str(side), "on": "item", **LENIENT}],
        read={"format": "ndjson", **LENIENT},
    )
    assert pl.read_parquet(folder / "set_aside.parquet")["found"].to_list() == [WITHHELD] * 2
    assert leaks(folder, "quixote") == []


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        (log().partition("\n")[2], {}),  # no header: the first row is taken for one
        ("1,quixote-01,quixote-01,x,y\n0,a,b,c,d\n", {}),
        (log(), {"derive": {"n": "CAST(note AS INT)"}, "fields": [USER, {"name": "n"}]}),
        (log().replace("friends", "quixote"), {"fields": [USER, {"name": "quixot"}]}),
    ],
    ids=["no-header", "no-header-with-equal-cells", "cast", "nearest-name"],
)
def test_errors_quote_nothing_of_a_log_with_personal_data(content, keys, write, run):
    content = content.replace("day,", "note,").replace("2024-01-", "sancho-quixote-")
    with pytest.raises(DataError) as caught:
        run(write("log.csv", content), **{"fields": [USER], **keys})
    assert "quixote" not in str(caught.value).replace('"quixot"', "")
    assert "\n\n" not in str(caught.value)


def test_a_second_file_without_a_header_is_not_told(write, run, tmp_path):
    write("a.csv", log())
    write("b.csv", "1,quixote-01,,2024-01-01,3\n" + log().partition("\n")[2])
    with pytest.raises(DataError, match=r'file "b\.csv": has no column "click"$'):
        run(tmp_path / "*.csv", fields=[USER])


def test_a_side_table_without_a_header_is_not_told(write, run):
    side = write("side.csv", "quixote-01,Rome\nquixote-02,Oslo\n")
    with pytest.raises(DataError, match='has no key column "user"') as caught:
        run(write("log.csv", log()), fields=[USER], joins=[{"input": str(side), "on": "user"}])
    assert "quixote" not in str(caught.value)


def test_temporary_files_hold_no_raw_value(write, tmp_path, monkeypatch):
    """Nothing of the scratch is deleted here, neither on the way nor in the end."""
    monkeypatch.setattr(Arrays, "delete", lambda _: None)
    monkeypatch.setattr(ingest_module.shutil, "rmtree", lambda *_, **__: None)
    path = write("inputs/log.csv", log())
    friends = {"name": "friends", "kind": "list", "separator": "|", "pii": True}
    ingest(schema_of(USER, friends, {"name": "day"}), path, tmp_path / "datasets")
    kept = [file for file in (tmp_path / "datasets").rglob(".unfinished-*/scratch/**/*") if file.is_file()]
    assert len(kept) > 4
    assert leaks(tmp_path, "quixote", tmp_path / "inputs") == []
    assert leaks(tmp_path, pseudonym("quixote-05"), tmp_path / "inputs") != [], "the search looks into them"
    assert leaks(tmp_path, "quixote") == ["inputs/log.csv"]


def test_raw_cells_cannot_be_prepared_by_mistake():
    frame = pl.DataFrame({"click": ["1"], "user": ["quixote-01"]})
    chunk = Chunk("log.csv", frame, np.arange(1), 0, 1, no_bad_rows(), 1.0)
    with pytest.raises(AssertionError, match="replaced on reading"):
        Preparation(schema_of(USER), frame.columns)(chunk)
