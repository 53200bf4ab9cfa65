import polars as pl

from ctr.dataset.vocabulary import SCHEMA, scaled_vocabulary, vocabulary, vocabulary_writer


def counts(**values):
    return pl.DataFrame({"value": list(values), "count": list(values.values())})


def test_values_come_by_count_descending_then_by_value():
    found, _ = vocabulary("x", counts(b=3, a=3, c=5, d=1))
    assert found["value"].to_list() == [None, None, "c", "a", "b", "d"]
    assert found["id"].to_list() == [0, 1, 2, 3, 4, 5]
    assert found["role"].to_list() == ["unknown", "missing", *["value"] * 4]


def test_values_sort_by_their_characters_not_by_language():
    found, _ = vocabulary("x", counts(**{"b": 1, "B": 1, "é": 1, "10": 1, "9": 1}))
    assert found["value"].to_list()[2:] == ["10", "9", "B", "b", "é"]


def test_rare_values_are_unknown_and_nulls_missing():
    found, _ = vocabulary(
        "x",
        pl.concat(
            [counts(a=5, b=2, c=1), pl.DataFrame({"value": [None], "count": [7]}).cast({"value": pl.String})]
        ),
        min_count=2,
    )
    assert found.select("value", "count").rows() == [(None, 1), (None, 7), ("a", 5), ("b", 2)]


def test_a_scaled_field_has_three_features():
    assert scaled_vocabulary("x", 9, 1).rows() == [
        ("x", "unknown", None, 0, 0, 0.0),
        ("x", "missing", None, 1, 1, 1.0),
        ("x", "value", None, 2, 9, 9.0),
    ]


def test_each_row_of_the_counts_has_an_id():
    null = pl.DataFrame({"value": [None], "count": [7]}, schema={"value": pl.String, "count": pl.Int64})
    found, ids = vocabulary("x", pl.concat([counts(b=2, never=0), null, counts(rare=1, a=5)]), min_count=2)
    assert found["value"].to_list() == [None, None, "a", "b"]
    assert ids.tolist() == [3, 0, 1, 0, 2]


def test_what_is_in_no_train_row_is_no_value_whatever_the_least_count():
    found, ids = vocabulary("x", counts(a=1, never=0), min_count=0)
    assert found["value"].to_list() == [None, None, "a"]
    assert ids.tolist() == [2, 0]


def test_what_is_written_reads_back_the_same(tmp_path):
    frames = [vocabulary(name, counts(a=3, b=1))[0] for name in ("x", "y")]
    with vocabulary_writer(tmp_path / "vocabulary.parquet") as writer:
        for frame in frames:
            writer.write_table(frame.to_arrow())
    found = pl.read_parquet(tmp_path / "vocabulary.parquet")
    assert found.equals(pl.concat(frames))
    assert found.schema == SCHEMA
