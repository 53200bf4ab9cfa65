"""The lock of a run's folder: who gets it, who is refused, and who loses it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from ctr.errors import CtrError
from ctr.jobs import lock as lock_module
from ctr.jobs.lock import EXPIRES, LOCK, Holder, RunLock

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path):
    return tmp_path / "runs" / "tiny-1234"


def held_by(run, holder, *, age=0.0):
    """Puts the lock of another process into the folder, last touched `age` seconds ago."""
    run.mkdir(parents=True, exist_ok=True)
    path = run / LOCK
    path.write_text(json.dumps(asdict(holder)))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def elsewhere():
    return replace(Holder.this_process(), host="elsewhere", pid=4711, machine="another boot")


def gone():
    """A process of this machine that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return replace(Holder.this_process(), pid=child.pid, begun="1")


def test_a_second_process_is_refused_and_told_who_runs(run):
    held_by(run, elsewhere(), age=20)
    with pytest.raises(CtrError) as error, RunLock(run):
        pass
    assert error.value.exit_code == 1
    message = str(error.value)
    for part in (str(run), '"elsewhere"', "process 4711", "last sign of life 20 s ago", "--force", "wait"):
        assert part in message
    assert json.loads((run / LOCK).read_text())["host"] == "elsewhere"


def test_a_lock_of_this_machine_is_refused_while_its_process_lives(run):
    with RunLock(run) as lock:
        with pytest.raises(CtrError, match=f"process {os.getpid()}"), RunLock(run):
            pass
        lock.check()
        assert sorted(path.name for path in run.iterdir()) == [LOCK]


@pytest.mark.parametrize(("age", "free"), [(EXPIRES - 10, False), (EXPIRES + 1, True)])
def test_a_lock_without_heartbeat_expires(age, free, run):
    held_by(run, elsewhere(), age=age)
    if free:
        with RunLock(run) as lock:
            lock.check()
            assert json.loads((run / LOCK).read_text())["pid"] == os.getpid()
    else:
        with pytest.raises(CtrError), RunLock(run):
            pass


def test_a_clock_that_runs_ahead_expires_nothing(run, monkeypatch):
    held_by(run, elsewhere())
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    with pytest.raises(CtrError, match="last sign of life 0 s ago"), RunLock(run):
        pass


def test_the_lock_of_a_process_that_was_killed_is_taken_over_at_once(run):
    program = (
        "import os, signal, sys; from pathlib import Path; from ctr.jobs.lock import RunLock\n"
        "with RunLock(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(run)], cwd=ROOT)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie: it ended, and nobody has noticed yet
    with RunLock(run) as lock:
        lock.check()
    assert child.wait() == -signal.SIGKILL
    assert not (run / LOCK).exists()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="start times are read from /proc")
def test_a_later_process_with_the_same_number_is_not_taken_for_the_holder(run):
    held_by(run, replace(Holder.this_process(), begun="1"))
    with RunLock(run) as lock:
        lock.check()


def test_numbers_of_processes_mean_nothing_in_another_container_of_the_same_name(run):
    held_by(run, replace(gone(), machine="the same boot, other processes"))
    with pytest.raises(CtrError), RunLock(run):
        pass


def test_of_many_that_see_one_expired_lock_one_gets_it(tmp_path):
    for number in range(8):
        run = tmp_path / str(number)
        held_by(run, gone())
        ready, tried, got = threading.Barrier(6), threading.Semaphore(0), list[str]()

        def contend(run=run, ready=ready, tried=tried, got=got):
            ready.wait()
            try:
                with RunLock(run) as lock:
                    got.append("got")
                    for _ in range(5):  # until all others have been refused
                        tried.acquire(timeout=5)
                    lock.check()
                    got.append("kept")
            except CtrError:
                tried.release()

        threads = [threading.Thread(target=contend) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got == ["got", "kept"]
        assert list(run.iterdir()) == []


@pytest.mark.parametrize("age", [0.0, EXPIRES + 1])
def test_what_a_process_killed_while_taking_over_left_behind_blocks_nobody(run, age):
    path = held_by(run, gone() if age == 0.0 else elsewhere(), age=age)
    path.rename(run / f".{LOCK}")
    held_by(run, gone())
    with RunLock(run) as lock:
        lock.check()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": 3}'])
def test_a_lock_that_says_nothing_counts_as_live_until_it_expires(content, run):
    run.mkdir(parents=True)
    (run / LOCK).write_bytes(content)
    with pytest.raises(CtrError, match="in an unknown process"), RunLock(run):
        pass
    os.utime(run / LOCK, (0, 0))
    with RunLock(run) as lock:
        lock.check()


def test_the_heart_beats_while_the_lock_is_held(run, monkeypatch):
    monkeypatch.setattr(lock_module, "BEAT", 0.01)
    with RunLock(run):
        os.utime(run / LOCK, (0, 0))
        until = time.monotonic() + 5
        while (run / LOCK).stat().st_mtime == 0 and time.monotonic() < until:
            time.sleep(0.01)
        assert time.time() - (run / LOCK).stat().st_mtime < 60


def leave_a_report(run, end):
    with RunLock(run):
        (run / "report.json").write_text("{}")
        if end is not None:
            raise end


@pytest.mark.parametrize("end", [None, RuntimeError, KeyboardInterrupt])
def test_the_lock_ends_with_the_run_however_it_ends(end, run):
    with pytest.raises(end) if end else nullcontext():
        leave_a_report(run, end)
    assert [path.name for path in run.iterdir()] == ["report.json"]


def test_folders_into_which_nothing_came_go_again(run, tmp_path):
    with RunLock(run):
        assert run.is_dir()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs").mkdir()
    with RunLock(run):
        pass
    assert list(tmp_path.iterdir()) == [tmp_path / "runs"]


def test_who_lost_the_lock_is_told_and_leaves_the_other_one_alone(run, monkeypatch):
    monkeypatch.setattr(lock_module, "BEAT", 0.01)
    with RunLock(run) as lock:
        path = held_by(run, elsewhere(), age=30)
        before = path.stat().st_mtime_ns
        time.sleep(0.1)
        assert path.stat().st_mtime_ns == before  # no heartbeat for another's lock
        with pytest.raises(CtrError, match='taken over on host "elsewhere", process 4711'):
            lock.check()
    assert json.loads((run / LOCK).read_text())["host"] == "elsewhere"


def test_a_deleted_lock_is_a_lost_lock(run):
    with RunLock(run) as lock:
        (run / LOCK).unlink()
        with pytest.raises(CtrError, match="its lock is gone"):
            lock.check()
