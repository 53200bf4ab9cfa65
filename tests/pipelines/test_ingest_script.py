import polars as pl

from ctr.dataset.ingest import ingest
from ctr.dataset.schema import load_schema
from ctr.dataset.synthetic import write_log
from pipelines.benchmarks.ingest_script import by_script


def test_the_script_of_the_benchmark_does_what_an_ingest_does(tmp_path):
    write_log("criteo", tmp_path / "log", rows=3_000, format="csv")
    schema = load_schema(tmp_path / "log" / "schema.toml")
    by_script(schema, tmp_path / "log" / "log.csv", tmp_path / "script")
    ours = ingest(schema, tmp_path / "log" / "log.csv", tmp_path / "data")
    names = [field.name for field in schema.fields]
    raw = pl.read_csv(
        tmp_path / "log" / "log.csv", separator="\t", has_header=False, new_columns=schema.read.columns
    )
    known = pl.read_parquet(tmp_path / "script" / "vocabulary.parquet")
    parts = [pl.read_parquet(tmp_path / "script" / f"{part}.parquet") for part in ("train", "valid", "test")]
    assert [part.height for part in parts] == [2400, 300, 300]
    # Its split is another one; so its ids are held against its own train rows, and the share of ids against ours.
    for name in ("I5", "C14", "C20"):
        listed = known.filter(pl.col("field") == name)
        counts = parts[0][name].value_counts().filter(pl.col(name) > 1).sort(name)
        assert listed["id"].to_list() == counts[name].to_list() == list(range(2, 2 + listed.height))
        assert listed["count"].to_list() == counts["count"].to_list()
        missing = sum(int((part[name] == 1).sum()) for part in parts)
        assert missing == raw[name].null_count()
    theirs = known.height + 2 * len(names)
    assert abs(theirs / pl.read_parquet(ours / "vocabulary.parquet").height - 1) < 0.05
