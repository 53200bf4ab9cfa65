"""Which rows belong together, by a column of the raw log."""

import numpy as np
import polars as pl
import pytest

from ctr.dataset.schema import load_schema
from ctr.errors import ConfigError
from ctr.jobs.cell_pool import processes
from ctr.jobs.cluster_keys import cluster_numbers
from tests.jobs.comparison_logs import ROWS, write_log


def test_rows_have_one_number_where_the_column_of_the_raw_log_is_equal(tmp_path):
    log = write_log(tmp_path)
    rows = np.array([ROWS - 1, 3, 700, 3, 12])
    found = cluster_numbers(load_schema(log / "tiny.toml"), str(log / "tiny.csv"), "user", rows)
    users = pl.read_csv(log / "tiny.csv")["user"].to_numpy()[rows]
    assert (found[:, None] == found).tolist() == (users[:, None] == users).tolist()
    assert sorted(set(found.tolist())) == list(range(len(set(users))))


def test_rows_without_a_value_belong_together(tmp_path):
    (tmp_path / "log.csv").write_text("time,click,user\n1,0,a\n2,1,\n3,0,\n4,1,b\n")
    (tmp_path / "log.toml").write_text(
        'name = "log"\nlabel = "click"\n[split]\nby = "time"\ncolumn = "time"\n[[fields]]\nname = "user"\n'
    )
    schema = load_schema(tmp_path / "log.toml")
    found = cluster_numbers(schema, str(tmp_path / "log.csv"), "user", np.arange(4))
    assert found[1] == found[2]
    assert len(set(found.tolist())) == 3


def test_a_log_whose_parts_are_files_is_refused(tmp_path):
    (tmp_path / "log.toml").write_text(
        'name = "log"\nlabel = "click"\n[split]\nby = "files"\ntrain = "a"\nvalid = "b"\ntest = "c"\n'
        '[[fields]]\nname = "user"\n'
    )
    with pytest.raises(ConfigError, match="splits by files"):
        cluster_numbers(load_schema(tmp_path / "log.toml"), str(tmp_path), "user", np.arange(4))


def test_cells_are_trained_as_stated_or_one_for_each_core_and_one_on_a_gpu(monkeypatch):
    monkeypatch.setattr("ctr.jobs.cell_pool.cores", lambda: 8)
    assert [
        processes(0, "cpu", 1),
        processes(0, "cpu", 4),
        processes(0, "cuda", 1),
        processes(3, "cuda", 1),
    ] == [
        8,
        2,
        1,
        3,
    ]
    assert processes(0, "cpu", 16) == 1
