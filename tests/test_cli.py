"""The command line: exit codes, messages, and what each command leaves behind."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import polars as pl
import pytest
import torch

import ctr.jobs.train as job
from ctr import cli
from ctr.errors import CtrError, DataError, ThresholdError
from ctr.jobs import limits
from ctr.network.network import Network
from ctr.training import machine
from ctr.training.optimizers import Optimizers

ROOT = Path(__file__).parents[1]
SCHEMA = """
name = "tiny"
label = "click"
[split]
by = "random"
valid = 0.2
test = 0.2
[[fields]]
name = "user"
[[fields]]
name = "item"
"""
CONFIG = """
name = "tiny"
[data]
schema = "tiny.toml"
input = "tiny.csv"
[embedding]
dim = 4
[backbone]
kind = "fm"
[selector]
epochs = 1
penalty = 0.5
referees = []
[training]
batch_size = 64
epochs = 1
learning_rate = 0.05
threads = 1
[tracking]
uri = "off"
"""


@pytest.fixture
def real_report():
    """Asks for the page and the pictures of a run as they are."""


@pytest.fixture
def folder(tmp_path, monkeypatch, request):
    """The working directory, with tiny.csv, tiny.toml and run.toml."""
    if "real_report" not in request.fixturenames:  # they have tests of their own, and take longest
        monkeypatch.setattr(
            job, "write_report", lambda report, run, **_: (run / "report.html").write_text("page")
        )
        monkeypatch.setattr(job, "figure_png", lambda report, path: path.write_bytes(b"picture"))
    draw = np.random.default_rng(2)
    user = draw.integers(0, 4, 600)
    frame = pl.DataFrame(
        {
            "click": (draw.random(600) < 0.2 + 0.6 * (user % 2)).astype(int),
            "user": [f"u{n}" for n in user],
            "item": [f"i{n}" for n in draw.integers(0, 9, 600)],
        }
    )
    frame.write_csv(tmp_path / "tiny.csv")
    (tmp_path / "tiny.toml").write_text(SCHEMA)
    (tmp_path / "run.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ctr(monkeypatch, capsys):
    """Runs a command line in this process: exit code, standard output, standard error."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ctr", *map(str, words)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as leaving:
            code = leaving.code or 0
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


def shell(*words, cwd):
    """Runs a command line in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "60", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60
    )


def test_a_whole_run_prints_verdict_report_and_bundle(real_report, folder, ctr):
    code, out, _ = ctr("train", "run.toml")
    assert code == 0
    (run,) = (folder / "runs").glob("tiny-*")
    lines = out.splitlines()
    report = json.loads((run / "report.json").read_text())
    assert lines[0] == report["verdict"]
    places = [f"report: runs/{run.name}/report.html", f"bundle: runs/{run.name}/bundle"]
    assert lines[1:] == [*places, "Test read once."]
    assert report["command"] == "ctr train run.toml"
    assert (run / "DONE").is_file()


def test_the_same_command_again_trains_nothing_and_says_so(folder, ctr):
    ctr("train", "run.toml")
    code, out, err = ctr("train", "run.toml")
    assert code == 0
    assert "already done" in err
    assert "--force" in err
    assert out.splitlines()[1].startswith("report: ")


def test_keys_can_be_set_on_the_command_line(folder, ctr):
    code, _, _ = ctr("train", "run.toml", "--set", "selector.kind=none", "--set", "selector.penalty=[1.0]")
    assert code == 2
    words = ("--set", "backbone.kind=lr", "--set", "name=my-run", "--set", "seed=4")
    code, _, _ = ctr("train", "run.toml", *words)
    assert code == 0
    (run,) = (folder / "runs").glob("my-run-*")
    report = json.loads((run / "report.json").read_text())
    assert (report["backbone"], report["seed"]) == ("lr", 4)
    assert report["command"] == "ctr train run.toml --set backbone.kind=lr --set name=my-run --set seed=4"


CONFIG_MISTAKES = {
    "no such config": (("run.tml",), '"run.tml": no such file; the nearest name is "run.toml"'),
    "a folder": ((".",), "expected a TOML file, found a folder"),
    "an unknown key": (
        ("run.toml", "--set", "training.learning_rat=1"),
        'training.learning_rat: unknown key; the nearest name is "learning_rate"',
    ),
    "a value out of range": (("run.toml", "--set", "training.epochs=0"), "training.epochs"),
    "no value": (("run.toml", "--set", "training.epochs"), 'found "training.epochs"'),
    "a section that is a value": (("run.toml", "--set", "name.x=1"), '"name" in "name.x" is a value'),
    "an unknown backbone": (("run.toml", "--set", "backbone.kind=deepfn"), '"deepfn"'),
    "no such schema": (("run.toml", "--set", "data.schema=tinny.toml"), 'the nearest name is "tiny.toml"'),
    "no such log": (("run.toml", "--set", "data.input=tinny.csv"), '"tinny.csv"'),
    "an empty glob": (("run.toml", "--set", "data.input=log/*.csv"), '"log/*.csv"'),
}


@pytest.mark.parametrize("case", CONFIG_MISTAKES)
def test_a_wrong_configuration_ends_with_2_and_one_message(case, folder, ctr):
    words, message = CONFIG_MISTAKES[case]
    code, out, err = ctr("train", *words)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert not (folder / "runs").exists()


def test_all_mistakes_are_reported_together_and_unwrapped(folder, ctr, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    changes = ["training.epochs=0", "seed=-1", "embeding.dim=4", "backbone.kind=nothing-of-this-kind"]
    code, _, err = ctr("train", "run.toml", *(word for change in changes for word in ("--set", change)))
    assert code == 2
    for name in ("training.epochs", "seed", "embeding", "backbone.kind"):
        assert name in err
    assert any(len(line) > 80 for line in err.splitlines())
    assert '"embedding"' in err


def test_data_that_break_the_schema_end_with_3(folder, ctr):
    (folder / "tiny.toml").write_text(SCHEMA.replace('"item"', '"itm"'))
    code, out, err = ctr("train", "run.toml")
    assert code == 3
    assert out == ""
    assert '"itm"' in err
    assert '"item"' in err
    assert not (folder / "runs").exists()


def test_a_missed_threshold_ends_with_4_and_everything_is_written(folder, ctr):
    code, _, err = ctr("train", "run.toml", "--set", "export.min_auc=0.9999")
    assert code == 4
    assert "0.9999" in err
    (run,) = (folder / "runs").glob("tiny-*")
    assert {"DONE", "report.json", "bundle"} <= {path.name for path in run.iterdir()}


def test_a_full_disk_ends_with_1_and_one_message(folder, ctr, monkeypatch):
    def full(*arguments, **keys):
        raise OSError(28, "No space left on device", "runs/tiny/scores")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    code, out, err = ctr("train", "run.toml")
    assert code == 1
    assert out == ""
    assert "No space left on device" in err or "full" in err
    assert len(err.splitlines()) <= 3


def test_a_disk_that_is_full_when_scores_are_written_ends_with_1_and_one_message(folder, ctr, monkeypatch):
    class Full:
        def write_parquet(self, path):
            raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(job, "scores_table", lambda *_: Full())
        code, _, err = ctr("train", "run.toml")
    assert code == 1
    message = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(message) == 1
    assert "No space left on device" in message[0]
    assert "test.parquet" in message[0]
    assert ctr("train", "run.toml")[0] == 0  # and goes on once there is room


def refused(folder, err, *words):
    """One message and nothing half-written: no run, and of the dataset all or nothing."""
    assert err.count("error: ") == 1
    assert err.splitlines()[-1].startswith("error: ")
    for word in words:
        assert word in err
    assert not (folder / "runs").exists()
    assert not list(folder.glob("datasets/.unfinished*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("training.threads=3", "training.threads = 3: expected at most the 2 cores"),
        ("training.device=cuda", 'training.device: "cuda" is not available here'),
        ("training.device=cuda:7", 'training.device: "cuda:7" is not available here'),
        ("training.device=mps", 'training.device: "mps" is not available here'),
    ],
)
def test_what_the_machine_does_not_have_is_told_before_the_log_is_encoded(
    change, message, folder, ctr, monkeypatch
):
    monkeypatch.setattr(machine, "cores", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    code, out, err = ctr("train", "run.toml", "--set", change)
    assert (code, out) == (2, "")
    refused(folder, err, message)
    assert not (folder / "datasets").exists()


def test_a_finished_run_asks_nothing_of_the_machine(folder, ctr, monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 1)
    assert ctr("train", "run.toml")[0] == 0
    monkeypatch.setattr(machine, "cores", lambda: 0)
    assert ctr("train", "run.toml")[0] == 0
    assert ctr("train", "run.toml", "--force")[0] == 2


def test_a_stated_batch_that_is_larger_than_train_is_refused(folder, ctr):
    code, out, err = ctr("train", "run.toml", "--set", "training.batch_size=1024")
    assert (code, out) == (2, "")
    (dataset,) = (folder / "datasets").glob("tiny-*")
    rows = json.loads((dataset / "manifest.json").read_text())["rows"]["train"]
    refused(folder, err, f'training.batch_size = 1024: expected at most the {rows} train rows of "tiny"')
    assert ctr("train", "run.toml", "--set", f"training.batch_size={rows + 1}")[0] == 2
    assert ctr("train", "run.toml", "--set", f"training.batch_size={rows}")[0] == 0


def test_a_small_log_is_one_batch_where_none_is_stated_also_when_the_run_is_repeated_by_its_config(
    folder, ctr
):
    (folder / "run.toml").write_text(CONFIG.replace("batch_size = 64\n", ""))
    assert ctr("train", "run.toml")[0] == 0
    (run,) = (folder / "runs").iterdir()
    code, _, err = ctr("train", run / "config.toml")
    assert code == 0
    assert "already done" in err
    assert ctr("train", run / "config.toml", "--force")[0] == 0


def test_the_config_of_a_run_states_the_batch_wherever_it_fits(folder, ctr):
    ctr("train", "run.toml")
    (run,) = (folder / "runs").iterdir()
    assert "batch_size = 64" in (run / "config.toml").read_text()


@pytest.mark.parametrize(
    ("changes", "message", "advice"),
    [
        (
            [],
            'embedding.kind = "table": rows for ',
            'use embedding.kind = "unified" with embedding.bytes = "1MB"',
        ),
        (
            ["embedding.kind=unified", "embedding.bytes=4kB"],
            'embedding.kind = "unified": ',
            'state embedding.bytes = "1MB"\n',
        ),
        (
            ["embedding.kind=hashed", "embedding.rows=60"],
            'embedding.kind = "hashed": ',
            'state embedding.bytes = "1MB" instead of embedding.rows\n',
        ),
    ],
)
def test_tables_that_memory_does_not_hold_are_refused(changes, message, advice, folder, ctr, monkeypatch):
    monkeypatch.setattr(limits, "free_memory", lambda _: 1_000)
    words = [word for change in changes for word in ("--set", change)]
    code, out, err = ctr("train", "run.toml", *words)
    assert (code, out) == (2, "")
    refused(folder, err, message, 'found 1.00 kB free on "', advice)
    monkeypatch.setattr(limits, "free_memory", lambda _: None)
    assert ctr("train", "run.toml", *words)[0] == 0


def test_crosses_that_memory_does_not_hold_are_refused_before_they_have_a_table(folder, ctr, monkeypatch):
    left = iter([10**9, 100])  # as the run begins, and once the crosses are counted
    monkeypatch.setattr(limits, "free_memory", lambda _: next(left))
    config = (
        CONFIG.replace('kind = "fm"', 'kind = "fnn"').replace("penalty = 0.5", "").replace("epochs = 1", "")
    )
    (folder / "run.toml").write_text(config)
    words = (
        "--set",
        "selector.kind=optinter",
        "--set",
        "selector.choice=memorize",
        "--set",
        "training.epochs=1",
    )
    code, out, err = ctr("train", "run.toml", *words)
    assert (code, out) == (2, "")
    assert 'selector.kind = "optinter": ' in err
    assert "rows for crosses take about" in err
    assert "state selector.cross_bytes, a larger selector.min_count or a smaller selector.pair_dim" in err


def test_a_refused_run_leaves_a_finished_one_as_it_is(folder, ctr, monkeypatch):
    ctr("train", "run.toml")
    (run,) = (folder / "runs").iterdir()
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    monkeypatch.setattr(limits, "free_memory", lambda _: 1_000)
    assert ctr("train", "run.toml", "--force")[0] == 2
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name != "LOCK"} == before


def test_a_log_that_the_disk_has_no_room_for_is_refused(folder, ctr, monkeypatch):
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000))
    code, out, err = ctr("train", "run.toml")
    assert (code, out) == (2, "")
    refused(folder, err, 'data.folder "datasets": expected about ', '"tiny.csv"', "found 1.00 kB")
    assert list((folder / "datasets").iterdir()) == []


GPU = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.20 GiB is "
    "free. Including non-PyTorch memory, this process has 77.90 GiB memory in use."
)
CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "4000000 bytes. Error code 12 (Cannot allocate memory)"
)
EXHAUSTED = {
    "of a GPU": (
        torch.OutOfMemoryError(GPU),
        "the memory of the GPU ran out (2.50 GiB more were asked for); ",
    ),
    "of the machine": (RuntimeError(CPU), "the memory ran out (4000000 bytes more were asked for); "),
    "of Windows": (
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        "(8 bytes",
    ),
    "of NumPy": (MemoryError(), "the memory ran out; "),
}


@pytest.mark.parametrize("case", EXHAUSTED)
@pytest.mark.parametrize("place", ["training", "evaluation"])
def test_memory_that_runs_out_ends_with_1_and_says_what_to_lower(case, place, folder, ctr, monkeypatch):
    error, message = EXHAUSTED[case]

    def exhausted(*arguments, **keys):
        raise error

    with monkeypatch.context() as patch:
        if place == "training":
            patch.setattr(Network, "forward", exhausted)
        else:
            patch.setattr(job, "score", exhausted)
        code, out, err = ctr("train", "run.toml")
    assert (code, out) == (1, "")
    said = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert message in said[0]
    for word in ("training.batch_size (now 64)", "embedding.dim (now 4)", '"unified"', "embedding.bytes"):
        assert word in said[0]
    assert not list(folder.glob("runs/*/DONE"))
    assert ctr("train", "run.toml")[0] == 0


def test_memory_that_runs_out_as_a_checkpoint_is_taken_up_damages_nothing(folder, ctr, monkeypatch):
    def exhausted(*arguments, **keys):
        raise RuntimeError(CPU)

    with monkeypatch.context() as patch:
        patch.setattr(job, "score", exhausted)
        assert ctr("train", "run.toml")[0] == 1
    with monkeypatch.context() as patch:
        patch.setattr(Optimizers, "load_state_dict", exhausted)
        code, _, err = ctr("train", "run.toml")
    assert code == 1
    assert "the memory ran out" in err
    assert "damaged" not in err


def test_memory_that_runs_out_in_scoring_ends_with_1_and_leaves_no_file(folder, ctr, monkeypatch):
    ctr("train", "run.toml")
    (run,) = (folder / "runs").iterdir()
    for place in ("run", "__init__"):  # of rows, and of the bundle

        def exhausted(*arguments, **keys):
            raise RuntimeError(CPU)

        with monkeypatch.context() as patch:
            patch.setattr(onnxruntime.InferenceSession, place, exhausted)
            code, out, err = ctr("score", run / "bundle", "tiny.csv", "--out", "scores.parquet")
        assert (code, out) == (1, "")
        assert (
            "the memory ran out (4000000 bytes more were asked for); score on a machine with more memory"
            in err
        )
        assert not list(folder.glob("*scores*"))


def test_other_faults_of_pytorch_keep_their_traceback(folder, monkeypatch):
    def broken(*arguments, **keys):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(Network, "forward", broken)
    monkeypatch.setattr(sys, "argv", ["ctr", "train", "run.toml"])
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        cli.main()


USAGE_MISTAKES = [
    ("trian", "run.toml"),
    ("train",),
    ("train", "run.toml", "--forse"),
    ("train", "run.toml", "extra"),
    ("synthetic", "demo"),
    ("synthetic", "demo", "--out", "x", "--rows", "many"),
    ("score", "bundle"),
    ("schema", "inferr"),
]


@pytest.mark.parametrize("words", USAGE_MISTAKES, ids=" ".join)
def test_wrong_arguments_end_with_2_and_a_plain_message(words, folder, ctr, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    code, out, err = ctr(*words)
    assert code == 2
    assert out == ""
    assert err.strip()
    assert not set(err) & set("│╭╰─")  # plain text, whatever the width of the terminal
    assert "rror" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["grid.toml", "--max-auc-loss", "0.5"], "use --set compare.max_auc_loss=0.5"),
        (["grid.toml", "--tracking-uri", "http://x"], "use --set run.tracking.uri=http://x"),
        (["a", "b", "--set", "seed=1"], '--set "seed=1" changes a comparison (.toml), found finished runs'),
        (["a", "b", "--force"], "found finished runs, which are judged each time; leave it out"),
    ],
)
def test_an_option_of_compare_that_would_change_nothing_ends_with_2(words, message, folder, ctr):
    code, _, err = ctr("compare", *words, "--out", "there")
    assert code == 2
    assert message in err
    assert not (folder / "there").exists()


def test_wrong_arguments_in_a_process_of_its_own_end_with_2(folder):
    found = shell("ctr.cli", "train", "run.toml", "--forse", cwd=folder)
    assert found.returncode == 2
    assert "--forse" in found.stderr
    assert "Traceback" not in found.stderr
    found = shell("pipelines.train", "nowhere.toml", cwd=folder)
    assert found.returncode == 2
    assert 'config "nowhere.toml": no such file' in found.stderr
    assert found.stdout == ""


@pytest.mark.parametrize("words", [("--help",), ("train", "--help"), ("schema", "--help")])
def test_help_ends_with_0(words, ctr):
    code, out, _ = ctr(*words)
    assert code == 0
    assert "Usage" in out


def test_help_imports_nothing_heavy(folder):
    code = (
        "import sys; sys.argv = ['ctr', '--help']\n"
        "import ctr.cli\n"
        "try: ctr.cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'polars', 'numpy', 'mlflow', 'matplotlib', 'pydantic'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )
    assert "heavy: []" in found.stdout


def test_no_arguments_at_all_show_the_help(ctr):
    code, out, err = ctr()
    assert code == 2
    assert "Usage" in out + err
    assert "train" in out + err


@pytest.mark.parametrize(
    ("error", "code"),
    [(CtrError("plain"), 1), (DataError("plain"), 3), (ThresholdError("plain"), 4)],
)
def test_every_error_ends_with_its_own_code(error, code, ctr, monkeypatch):
    def raising():
        raise error

    monkeypatch.setattr(cli, "app", lambda *_, **__: raising())
    assert ctr("train") == (code, "", "error: plain\n")


def test_an_interruption_ends_with_130_and_says_how_to_go_on(folder, ctr, monkeypatch):
    def interrupted(*arguments, **keys):
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "planned", interrupted)
    code, _, err = ctr("train", "run.toml")
    assert code == 130
    assert "the same command goes on" in err


def test_a_fault_of_the_program_keeps_its_traceback(folder, monkeypatch):
    def broken(*arguments, **keys):
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(job, "planned", broken)
    monkeypatch.setattr(sys, "argv", ["ctr", "train", "run.toml"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_synthetic_writes_log_schema_and_truth(folder, ctr):
    code, out, _ = ctr("synthetic", "demo", "--out", "log", "--rows", "500", "--seed", "3", "--format", "csv")
    assert code == 0
    assert out.startswith("500 rows, best reachable AUC 0.")
    assert {path.name for path in (folder / "log").iterdir()} == {"log.csv", "schema.toml", "truth.json"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("dmo", "--out", "log"), '"dmo"; the nearest name is "demo"'),
        (("demo", "--out", "log", "--rows", "0"), "rows: expected at least 1, found 0"),
        (("demo", "--out", "log", "--format", "parket"), 'the nearest name is "parquet"'),
        (("demo", "--out", "."), "expected a new folder"),
    ],
)
def test_a_synthetic_log_that_cannot_be_written_ends_with_2(words, message, folder, ctr):
    code, out, err = ctr("synthetic", *words)
    assert code == 2
    assert message in err
    assert out == ""


def test_a_schema_that_was_inferred_works_as_it_is(folder, ctr):
    code, out, _ = ctr("schema", "infer", "tiny.csv", "--label", "click")
    assert code == 0
    assert 'label = "click"' in out
    assert ctr("schema", "infer", "tiny.csv", "--label", "click", "--out", "found.toml")[0] == 0
    assert (folder / "found.toml").read_text() == out
    code, _, err = ctr("schema", "infer", "tiny.csv", "--label", "click", "--out", "found.toml")
    assert code == 2
    assert '"found.toml"' in err
    assert ctr("train", "run.toml", "--set", "data.schema=found.toml")[0] == 0


def test_inferring_from_a_wrong_label_or_file_names_it(folder, ctr):
    code, _, err = ctr("schema", "infer", "tiny.csv", "--label", "clik")
    assert code in (2, 3)
    assert '"click"' in err
    code, _, err = ctr("schema", "infer", "nowhere.csv", "--label", "click")
    assert code == 2
    assert '"nowhere.csv"' in err


def test_a_bundle_scores_raw_rows_as_the_job_did(folder, ctr):
    ctr("train", "run.toml")
    (run,) = (folder / "runs").glob("tiny-*")
    code, out, _ = ctr("score", run / "bundle", "tiny.csv", "--out", "scores.parquet")
    assert code == 0
    assert out.startswith("600 rows scored")
    found = pl.read_parquet("scores.parquet")["probability"]
    assert len(found) == 600
    test = pl.read_parquet(run / "scores" / "test.parquet")
    assert np.abs(found.to_numpy()[test["row"].to_numpy()] - test["selected"].to_numpy()).max() < 1e-6


def test_scoring_what_cannot_be_scored_says_so(folder, ctr):
    ctr("train", "run.toml")
    (run,) = (folder / "runs").glob("tiny-*")
    for words in ((folder / "nowhere", "tiny.csv"), (run / "bundle", "nowhere.csv")):
        code, _, err = ctr("score", *words, "--out", "scores.parquet")
        assert code in (2, 3)
        assert "nowhere" in err
    pl.read_csv("tiny.csv").drop("user").write_csv("less.csv")
    code, _, err = ctr("score", run / "bundle", "less.csv", "--out", "scores.parquet")
    assert code == 3
    assert '"user"' in err
    assert not (folder / "scores.parquet").exists()


def test_show_prints_each_kind_of_folder(folder, ctr):
    ctr("train", "run.toml")
    (run,) = (folder / "runs").glob("tiny-*")
    (dataset,) = (folder / "datasets").glob("tiny-*")
    for path in (run, run / "feature_set", run / "bundle", dataset):
        code, out, _ = ctr("show", path)
        assert code == 0
        assert "tiny" in out or "user" in out
    for path in (folder / "nowhere", folder):
        code, out, err = ctr("show", path)
        assert code in (2, 3)
        assert str(path) in err
        assert out == ""


def test_doctor_prints_a_line_per_finding_and_strict_ends_with_code_4(folder, ctr):
    code, out, _ = ctr("doctor", "run.toml")
    assert code == 0
    *lines, last = out.splitlines()
    assert {line.split()[0] for line in lines} <= {"error", "warn", "ok"}
    assert last == "the labels of test were not read; this was no look at them"
    (dataset,) = (folder / "datasets").glob("tiny-*")
    code, out, _ = ctr("doctor", str(dataset), "--json", "--strict")
    findings = json.loads(out)
    assert code == (4 if any(finding["severity"] == "error" for finding in findings) else 0)
    assert len(findings) == len(lines)
    keys = {"severity", "check", "text", "advice", "fields", "figures"}
    assert all(finding.keys() == keys for finding in findings)
    for file in (*(dataset / "train").glob("*.parquet"), *(dataset / "valid").glob("*.parquet")):
        told = pl.col("@label").cast(pl.Int32) + 2
        pl.read_parquet(file).with_columns(told.alias("user")).write_parquet(file)
    code, out, err = ctr("doctor", str(dataset), "--strict")
    assert (code, out.splitlines()[0].split()[0]) == (4, "error")
    assert "findings are errors (--strict)" in err
