"""One process at a time in a run's folder: a lock file that expires without a heartbeat.

Guaranteed: of processes that see the same expired lock, one takes it over; a process that was killed on this machine
blocks nobody; clocks of different machines are never compared. Given up: a process that hangs for longer than
`EXPIRES` seconds loses its lock, and finds that out at its next `check`.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from ctr.errors import CtrError

LOCK = "LOCK"
BEAT, EXPIRES = 5.0, 60.0  # seconds
_PAUSE, _ATTEMPTS = 0.05, 40  # while other processes take or release the same lock


@dataclass(frozen=True)
class Holder:
    """Who holds a lock.

    token: unique. machine: boot and process namespace, in which alone `pid` means something; empty where the system
    does not tell. begun: start of the process in clock ticks, which tells it from a later one with its number.
    """

    token: str
    host: str
    machine: str
    pid: int
    begun: str | None
    since: str

    @classmethod
    def this_process(cls) -> Self:
        """The calling process, with a new token."""
        pid = os.getpid()
        since = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(uuid.uuid4().hex, socket.gethostname(), _machine(), pid, _begun(pid), since)

    def is_dead(self) -> bool:
        """Whether the process is known to have ended; False where that cannot be told from here."""
        if (self.host, self.machine) != (socket.gethostname(), _machine()):
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:  # it belongs to another user
            return False
        return _begun(self.pid) not in (None, self.begun)

    def __str__(self) -> str:
        return f'on host "{self.host}", process {self.pid}, since {self.since}'


@dataclass(frozen=True)
class _Found:
    """A lock file as it was found: what it says (None: nothing legible), and its mtime."""

    holder: Holder | None
    text: bytes
    beaten: float


class RunLock:
    """Holds a run's folder while the context lasts; the folder is made, and goes again where nothing came into it.

    Args:
        run: the run's folder.

    Raises:
        CtrError: on entering, another process holds it.
    """

    def __init__(self, run: Path) -> None:
        self._run, self._path, self._me = run, run / LOCK, Holder.this_process()
        self._text = json.dumps(asdict(self._me)).encode()
        self._made = [folder for folder in (run, *run.parents) if not folder.exists()]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lock", daemon=True)

    def __enter__(self) -> Self:
        self._acquire()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        with suppress(OSError):  # the error that ends the run says more
            self._release()

    def check(self) -> None:
        """Make sure that the lock is still this process's own; cheap enough for every stage.

        Raises:
            CtrError: another process has taken it over, or it was deleted.
        """
        found = _look(self._path)
        if found is None or found.text != self._text:
            now = "is gone" if found is None else f"was taken over {found.holder or 'by an unknown process'}"
            raise CtrError(
                f'run "{self._run}": its lock {now}, because this process gave no sign of life for {EXPIRES:g} s or '
                "somebody removed it; this process stops and writes nothing more, the same command goes on from the "
                "last checkpoint"
            )

    def _acquire(self) -> None:
        for _ in range(_ATTEMPTS):
            with suppress(FileNotFoundError):  # another process is removing what it made
                self._run.mkdir(parents=True, exist_ok=True)
            if _create(self._path, self._text):
                return
            found = _look(self._path)
            if found is not None:
                self._refuse_if_alive(found)
                if self._take_over():
                    return
            time.sleep(_PAUSE)
        raise CtrError(f'run "{self._run}": its lock "{self._path}" keeps changing hands; try again later')

    def _take_over(self) -> bool:
        """Replace an expired lock by this process's; False where another process was faster."""
        with self._guard(attempts=1) as alone:
            found = _look(self._path) if alone else None
            if found is None:
                return False
            self._refuse_if_alive(found)  # what was expired before the guard may have been replaced since
            scratch = self._run / f".{LOCK}-{self._me.token}"
            _create(scratch, self._text)
            scratch.replace(self._path)
            return True

    def _refuse_if_alive(self, found: _Found) -> None:
        if found.holder is not None and found.holder.is_dead():
            return
        age = self._now() - found.beaten
        if age <= EXPIRES:
            raise CtrError(
                f'run "{self._run}": already running {found.holder or "in an unknown process"}, last sign of life '
                f"{max(age, 0.0):.0f} s ago; wait for it to end, or stop it and run the same command again (--force "
                f"does not stop it; a lock without a sign of life for {EXPIRES:g} s is taken over)"
            )

    def _now(self) -> float:
        """The time as the disk that holds the run tells it, like the mtime of the lock."""
        probe = self._run / f".{LOCK}-{self._me.token}"
        try:
            probe.touch()
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def _release(self) -> None:
        with self._guard(attempts=_ATTEMPTS) as alone:  # otherwise it is being taken over
            found = _look(self._path) if alone else None
            if found is not None and found.text == self._text:
                self._path.unlink()
        for folder in self._made:
            folder.rmdir()  # raises, and so stops, at the first one that is not empty

    @contextmanager
    def _guard(self, attempts: int) -> Iterator[bool]:
        """A second, short-lived file, without which nobody replaces or removes a lock: whether it could be had."""
        guard = self._run / f".{LOCK}"
        alone = False
        for _ in range(attempts):
            if alone := _create(guard, self._text):
                break
            other = _look(guard)
            if other is not None and (other.holder is not None and other.holder.is_dead()):
                guard.unlink(missing_ok=True)  # killed within the milliseconds that it held this
            elif other is not None and self._now() - other.beaten > EXPIRES:
                guard.unlink(missing_ok=True)
            time.sleep(_PAUSE)
        try:
            yield alone
        finally:
            if alone:
                guard.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            with suppress(OSError), self._path.open("rb") as file:  # a shared disk may be away for a while
                if file.read() != self._text:
                    return
                os.utime(file.fileno())


def _create(path: Path, text: bytes) -> bool:
    """Write a file that is not there yet; False where it, or its folder no longer, is."""
    try:
        with path.open("xb") as file:
            file.write(text)
    except (FileExistsError, FileNotFoundError):
        return False
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return True


def _look(path: Path) -> _Found | None:
    try:
        with path.open("rb") as file:  # opening makes a network disk tell the mtime of now
            beaten, text = os.fstat(file.fileno()).st_mtime, file.read()
    except FileNotFoundError:
        return None
    try:
        holder = Holder(**json.loads(text))
        legible = isinstance(holder.pid, int) and isinstance(holder.host, str)
    except (ValueError, TypeError):
        return _Found(None, text, beaten)
    return _Found(holder if legible else None, text, beaten)


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        # Containers of one name on one machine each count their processes from 1.
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _begun(pid: int) -> str | None:
    """When a process started; "ended" for one that only waits to be noticed; None where that cannot be told."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return "ended" if fields[0] in "ZX" else fields[19]
