"""Checkpoints come back as they were saved, are never half-written, and tell when they were altered."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ctr.errors import CtrError
from ctr.training import checkpoint
from ctr.training.checkpoint import load_checkpoint, save_checkpoint

STATE = {
    "network": {"weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(7)},
    "list": [1, 2.5, None, "text", {"deep": torch.tensor([True, False])}],
    "rate": 0.1 + 0.2,
    "empty": {},
}
OTHER = {"network": {"weight": torch.zeros(2, 3)}, "rate": 0.5}


def files(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir())


def test_a_nested_state_comes_back_bit_by_bit(tmp_path):
    save_checkpoint(tmp_path / "last", STATE)
    state = load_checkpoint(tmp_path / "last")
    assert torch.equal(state["network"]["weight"], STATE["network"]["weight"])
    assert state["network"]["steps"].dtype == torch.int64
    assert state["network"]["steps"].shape == ()
    assert torch.equal(state["list"][4].pop("deep"), torch.tensor([True, False]))
    assert state["list"] == [1, 2.5, None, "text", {}]
    assert state["rate"] == 0.1 + 0.2
    assert state["empty"] == {}


def test_a_column_of_a_larger_tensor_is_saved_as_its_values(tmp_path):
    weight = torch.arange(6.0).reshape(2, 3)
    save_checkpoint(tmp_path / "last", {"column": weight[:, 1], "other": weight.t()})
    state = load_checkpoint(tmp_path / "last")
    assert state["column"].tolist() == [1.0, 4.0]
    assert state["other"].tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]


def test_where_nothing_was_saved_there_is_none(tmp_path):
    assert load_checkpoint(tmp_path / "last") is None
    (tmp_path / "last").mkdir()
    assert load_checkpoint(tmp_path / "last") is None


def test_a_new_checkpoint_replaces_the_old_one_and_its_files(tmp_path):
    save_checkpoint(tmp_path / "last", STATE)
    save_checkpoint(tmp_path / "last", OTHER)
    assert load_checkpoint(tmp_path / "last")["rate"] == 0.5
    assert files(tmp_path / "last") == [".json", ".safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_equal_tensors_beside_another_state_are_saved_again(tmp_path):
    save_checkpoint(tmp_path / "last", OTHER)
    save_checkpoint(tmp_path / "last", {**OTHER, "rate": 0.25})
    assert load_checkpoint(tmp_path / "last")["rate"] == 0.25
    assert files(tmp_path / "last") == [".json", ".safetensors"]


# Every call that changes the disk, in order; a process may die before any of them.
MOMENTS = ["save_file", "replace 1", "write_text", "replace 2", "unlink"]


def die(monkeypatch, moment: str) -> None:
    name, _, number = moment.partition(" ")
    count = [0]

    def stop(original):
        def call(*arguments, **keys):
            count[0] += 1
            if count[0] == int(number or 1):
                raise KeyboardInterrupt
            return original(*arguments, **keys)

        return call

    owner = checkpoint if name == "save_file" else Path
    monkeypatch.setattr(owner, name, stop(getattr(owner, name)))


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_crash_while_saving_leaves_the_old_checkpoint_or_the_new_one(tmp_path, monkeypatch, moment):
    save_checkpoint(tmp_path / "last", STATE)
    with monkeypatch.context() as patched:
        die(patched, moment)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path / "last", OTHER)
    rate = load_checkpoint(tmp_path / "last")["rate"]
    assert rate == (OTHER["rate"] if moment == "unlink" else STATE["rate"])
    save_checkpoint(tmp_path / "last", OTHER)
    assert load_checkpoint(tmp_path / "last")["rate"] == OTHER["rate"]
    assert files(tmp_path / "last") == [".json", ".safetensors"]


@pytest.mark.parametrize("moment", MOMENTS[:4])
def test_a_crash_in_the_first_save_leaves_no_checkpoint(tmp_path, monkeypatch, moment):
    with monkeypatch.context() as patched:
        die(patched, moment)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path / "last", STATE)
    assert load_checkpoint(tmp_path / "last") is None
    save_checkpoint(tmp_path / "last", STATE)
    assert files(tmp_path / "last") == [".json", ".safetensors"]


def test_a_process_killed_while_saving_leaves_a_whole_checkpoint(tmp_path):
    code = (
        "import os, sys, threading, time, torch\n"
        "from pathlib import Path\n"
        "from ctr.training.checkpoint import save_checkpoint\n"
        "threading.Thread(target=lambda: (sys.stdin.readline(), os._exit(9)), daemon=True).start()\n"
        "number = 0\n"
        "while True:\n"
        "    number += 1\n"
        "    save_checkpoint(Path(sys.argv[1]), {'number': number, 'tensor': torch.full((100_000,), number)})\n"
        "    print(number, flush=True)\n"
    )
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "last")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout.readline() == "1\n"
    process.stdin.write("stop\n")
    process.stdin.close()
    rest = process.stdout.read()  # not `communicate`, which passes by what `readline` has fetched ahead
    process.wait(60)
    saved = max(map(int, ["1", *rest.split()]))
    state = load_checkpoint(tmp_path / "last")
    assert state["number"] in (saved, saved + 1)
    assert torch.equal(state["tensor"], torch.full((100_000,), state["number"]))


def test_a_full_disk_is_one_message_and_keeps_the_old_checkpoint(tmp_path):
    save_checkpoint(tmp_path / "last", STATE)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(CtrError, match=r'last" cannot be written .*make room'):
            save_checkpoint(tmp_path / "last", {"tensor": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_checkpoint(tmp_path / "last")["rate"] == STATE["rate"]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def change_number(path: Path) -> None:
    content = json.loads(path.read_text())
    content["state"]["rate"] = 0.31
    path.write_text(json.dumps(content))


DAMAGES = {
    "a flipped bit in the tensors": ("*.safetensors", flip),
    "the tensors cut short": ("*.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-3])),
    "the tensors gone": ("*.safetensors", Path.unlink),
    "the state cut short": ("state.json", lambda path: path.write_text(path.read_text()[:-5])),
    "a number changed": ("state.json", change_number),
    "another kind of state": ("state.json", lambda path: path.write_text("[1]")),
    "an empty state": ("state.json", lambda path: path.write_text("")),
    "bytes that are no text": ("state.json", lambda path: path.write_bytes(b"\xff\xfe")),
    "a state without tensors": ("state.json", lambda path: path.write_text('{"state": {}}')),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_one_clear_message(tmp_path, damage):
    pattern, change = DAMAGES[damage]
    save_checkpoint(tmp_path / "last", STATE)
    change(next((tmp_path / "last").glob(pattern)))
    with pytest.raises(CtrError, match=r'checkpoint ".*last" is damaged \(.+\); delete it, or use --force'):
        load_checkpoint(tmp_path / "last")
