"""A thousand persons are planted in a log; after a whole job and everything that can go wrong none is found again."""

import io
import logging
import traceback
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console

from ctr.config import Config
from ctr.dataset import ingest as ingest_module
from ctr.dataset.personal_key import load_key
from ctr.errors import CtrError
from ctr.jobs.train import train
from ctr.serving.scorer import score_file
from ctr.settings import check
from tests.reference.leaks import leaks

PERSONS, ROWS = 1000, 2500
NEEDLES = ("quixote", "dulcinea")  # of users, and of their friends
SECRET = "a secret of more than 16 bytes"
SCHEMA = """
name = "planted"
label = "click"
row_id = "user"
derive.known = 'CASE WHEN "user" IS NULL THEN 0 ELSE 1 END'
read.max_bad_rows = 0.1
[split]
by = "time"
column = "time"
valid = 0.15
test = 0.15
[[fields]]
name = "user"
pii = true
missing_values = ["unknown"]
[[fields]]
name = "friends"
kind = "list"
separator = "|"
pii = true
shares = "user"
[[fields]]
name = "known"
[[fields]]
name = "team"
[[fields]]
name = "price"
kind = "numeric"
transform = "standard"
[[joins]]
input = "{users}"
on = "user"
"""


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.delenv("CTR_PII_KEY_FILE", raising=False)
    monkeypatch.setenv("CTR_PII_KEY", SECRET)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def person(number) -> str:
    return f"quixote-{number:04d}@example.org"


def lines_of_the_log() -> list[bytes]:
    """Good rows with every person, and among them broken ones of each kind, with a person each."""
    draw = np.random.default_rng(1)
    lines = [b"time,click,user,friends,price"]
    for row in range(ROWS):
        user = "unknown" if row % 50 == 7 else person(row % PERSONS)
        friends = "|".join(f"dulcinea-{n:03d}" for n in draw.integers(0, 300, row % 4))
        if row % 60 == 11:
            friends += "é"
        click = int(draw.random() < (0.7 if row % 2 else 0.2))
        line = f"{row},{click},{user},{friends},{draw.normal(3, 2):.2f}"
        lines.append(line.encode("latin-1" if row % 120 == 11 else "utf-8"))
        if row % 100 == 50:
            who = person(row % PERSONS)
            lines.append(
                [
                    f"{row},1,{who}".encode(),  # ragged
                    f'{row},1,"{who},dulcinea-001,2'.encode(),  # a quote that does not close
                    f"{row},1,{who},dulcinea-001,dear".encode(),  # no price
                    f"{row},{who},1,dulcinea-001,2".encode(),  # a person for a label
                    f"{who},1,{who},dulcinea-001,2".encode(),  # and for a time
                ][row // 100 % 5]
            )
    return lines


@pytest.fixture
def planted(tmp_path) -> Config:
    """The inputs in a folder of their own, and the job's configuration."""
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    (inputs / "log.csv").write_bytes(b"\n".join(lines_of_the_log()) + b"\n")
    users = "".join(f"{person(n)},t{n % 5}\n" for n in range(0, PERSONS, 2))
    (inputs / "users.csv").write_text("user,team\n" + users + person(1) + "\n" * 2)
    (inputs / "schema.toml").write_text(SCHEMA.replace("{users}", str(inputs / "users.csv")))
    content = {
        "name": "planted",
        "data": {
            "schema": str(inputs / "schema.toml"),
            "input": str(inputs / "log.csv"),
            "folder": str(tmp_path / "datasets"),
        },
        "embedding": {"dim": 4},
        "backbone": {"kind": "fm"},
        "selector": {
            "kind": "optfs",
            "epochs": 1,
            "ratio": [0.5],
            "referees": [],
            "compare_dropped_reads": False,
        },
        "training": {"batch_size": 128, "epochs": 1, "learning_rate": 1e-2, "threads": 1},
        "tracking": {"uri": f"sqlite:///{tmp_path / 'store' / 'mlflow.db'}"},
        "output": {"folder": str(tmp_path / "runs")},
    }
    (tmp_path / "store").mkdir()
    return check(content, Config, "config")


def test_none_of_a_thousand_planted_persons_is_found_in_anything_a_job_leaves(
    planted, tmp_path, monkeypatch, capfd, caplog
):
    pytest.importorskip("sqlalchemy", reason="MLflow is not installed")
    caplog.set_level(logging.INFO)
    inputs, told = tmp_path / "inputs", io.StringIO()
    # The ingest's temporary files stay, to be searched as well.
    monkeypatch.setattr(ingest_module.shutil, "rmtree", lambda *_, **__: None)
    run = train(planted, console=Console(file=told), command="ctr train planted.toml")
    monkeypatch.undo()
    monkeypatch.setenv("CTR_PII_KEY", SECRET)

    folder = next((tmp_path / "datasets").glob("planted-*"))
    aside = pl.read_parquet(folder / "set_aside.parquet")
    assert set(aside["column"]) >= {"", "price", "click", "time"}
    assert aside.height > 30
    score_file(run / "bundle", inputs / "log.csv", tmp_path / "scores.parquet")

    messages = [
        fails(lambda: score_file(run / "bundle", inputs / "log.csv", tmp_path / "no", max_bad_rows=0.0))
    ]
    headless = inputs / "headless.csv"
    headless.write_bytes(b"\n".join(lines_of_the_log()[1:]))
    messages.append(fails(lambda: score_file(run / "bundle", headless, tmp_path / "no")))
    for name, schema in wrong_schemas(inputs):
        (inputs / name).write_text(schema)
        data = planted.data.model_copy(update={"schema_file": str(inputs / name)})
        messages.append(
            fails(
                lambda data=data: train(planted.model_copy(update={"data": data}), console=Console(file=told))
            )
        )
    monkeypatch.setenv("CTR_PII_KEY", "another secret of some bytes")
    messages.append(fails(lambda: score_file(run / "bundle", inputs / "log.csv", tmp_path / "no")))
    monkeypatch.delenv("CTR_PII_KEY")
    messages.append(fails(lambda: train(planted, console=Console(file=told))))

    said = "\n".join([*messages, told.getvalue(), *capfd.readouterr(), caplog.text])
    for needle in NEEDLES:
        assert needle not in said.lower()
        assert leaks(tmp_path, needle, inputs) == []
        assert leaks(tmp_path, needle), "the search finds what is there"
    assert SECRET not in said
    assert leaks(tmp_path, SECRET) == []
    monkeypatch.setenv("CTR_PII_KEY", SECRET)
    pseudonym = load_key([]).pseudonyms(pl.Series([person(4)]))[0]
    found = {Path(name).parts[0] for name in leaks(tmp_path, pseudonym)}
    assert found >= {"datasets", "runs"}, "the search looks into what is compressed"


def wrong_schemas(inputs) -> list[tuple[str, str]]:
    """Schemas that the log breaks, each in another way."""
    right = (inputs / "schema.toml").read_text()
    return [
        ("strict.toml", right.replace("max_bad_rows = 0.1", "max_bad_rows = 0.0")),
        (
            "numeric.toml",
            right.replace(
                'name = "team"', 'name = "amount"\nkind = "numeric"\ntransform = "standard"'
            ).replace("derive.", "derive.amount = 'CAST(\"user\" AS INT)'\nderive."),
        ),
        ("absent.toml", right.replace('name = "price"', 'name = "prise"')),
        ("headless.toml", right.replace("users.csv", "headless.csv")),
        ("label.toml", right.replace('label = "click"', 'label = "time"')),
    ]


def fails(attempt) -> str:
    """The error's message and all that hangs on it, as a traceback would show it."""
    with pytest.raises(CtrError) as caught:
        attempt()
    return "".join(traceback.format_exception(caught.value))
