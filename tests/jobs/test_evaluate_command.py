"""`ctr evaluate` and `python -m pipelines.evaluate`: what is printed, and exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ctr import cli

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ctr.jobs.evaluate.write_evaluation", lambda report, out: None)


def run(monkeypatch, capsys, *words):
    """The exit code of a command, and what it wrote."""
    monkeypatch.setattr(sys, "argv", ["ctr", "evaluate", *map(str, words)])
    try:
        cli.main()
    except SystemExit as end:
        return end.code or 0, capsys.readouterr()
    return 0, capsys.readouterr()


def test_the_pipeline_does_what_the_command_does(finished, tmp_path):
    command = [sys.executable, "-m", "pipelines.evaluate", finished.champion, finished.candidate / "bundle"]
    command += [
        "--data",
        finished.folder / "test.parquet",
        "--out",
        "out",
        "--tracking",
        "none",
        "--slice",
        "shop",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("On 960 rows: candidate-")
    assert lines[1] == "page: out/evaluation.html"
    page = (tmp_path / "out" / "evaluation.html").read_text(encoding="utf-8")
    assert "ctr evaluate" in page
    assert len(json.loads((tmp_path / "out" / "evaluation.json").read_text())["slices"]) == 3


def test_a_toml_file_says_all_and_options_say_otherwise(finished, tmp_path, monkeypatch, capsys):
    file = tmp_path / "weekly.toml"
    file.write_text(
        f'models = ["{finished.champion}", "{finished.candidate}"]\ndata = "{finished.folder}/test.parquet"\n'
        'out = "weekly"\ntracking = "none"\n[[guardrail]]\nslice = "shop"\nmin = 0.3\n'
    )
    for words in ([file], ["--config", file]):
        code, written = run(monkeypatch, capsys, *words)
        assert code == 0, written.err
        assert "All stated bounds are kept." in written.out
    code, written = run(monkeypatch, capsys, file, "--min-auc", 0.99, "--out", "other")
    assert code == 4
    assert written.err.startswith('error: 1 bound was missed; everything is written to "other":\n')
    assert (tmp_path / "other" / "evaluation.json").is_file()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--data", "{data}", "--out", "out"], 2, "models: this key is required"),
        (["{run}", "--out", "out"], 2, "data: this key is required"),
        (["{run}", "--data", "{data}", "--out", "out", "--max-drop", "0.1"], 2, "name at least two models"),
        (["{run}", "--data", "{data}", "--out", "out", "--min-auc", "7"], 2, "min_auc: expected"),
        (["{run}", "--data", "{data}", "--out", "{data}"], 2, "expected a folder to write to, found a file"),
        (["nothing", "--data", "{data}", "--out", "out"], 2, 'model "nothing": no such folder'),
        (["nothing.toml"], 2, 'evaluation config "nothing.toml": no such file'),
        (["{run}", "--data", "{toml}", "--out", "out"], 3, "shop.toml"),
    ],
)
def test_mistakes_end_in_one_message_and_their_exit_code(finished, monkeypatch, capsys, words, code, message):
    places = {
        "data": finished.folder / "test.parquet",
        "run": finished.champion,
        "toml": finished.folder / "shop.toml",
    }
    found, written = run(
        monkeypatch, capsys, *(word.format(**places) for word in words), "--tracking", "none"
    )
    assert (found, written.out) == (code, "")
    assert message in written.err
    assert "Traceback" not in written.err
