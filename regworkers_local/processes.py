"""Child processes that outlive the command that started them, told apart from strangers by pid and birth."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from regworkers_core.adapters.files.private_files import open_private

# Down: stopped in an orderly way, or never started. Dead: it should run and does not.
ProcessState = Literal["running", "paused", "dead", "down"]

# A create time is computed from the time of boot, which moves a little when the clock is corrected.
SAME_BIRTH_SECONDS = 2.0
# SIGKILL needs no consent, but the kernel may be busy.
KILL_SECONDS = 10.0
# Pids of children that were let go of and not reaped yet.
_children: set[int] = set()


@dataclass(frozen=True, slots=True)
class ProcessRef:
    """A process by pid and create time (epoch seconds), so that a recycled pid is never taken for it."""

    pid: int
    started: float

    def find(self) -> psutil.Process | None:
        """The living process, or None. Reaps it if it is a dead child of ours."""
        try:
            process = psutil.Process(self.pid)
            if not self._is(process):
                return None
            if process.status() == psutil.STATUS_ZOMBIE:
                with suppress(psutil.TimeoutExpired):
                    process.wait(timeout=0)
                return None
            return process
        except psutil.NoSuchProcess:
            return None

    def recycled(self) -> bool:
        """Whether the pid belongs to a stranger by now."""
        try:
            return not self._is(psutil.Process(self.pid))
        except psutil.NoSuchProcess:
            return False

    def _is(self, process: psutil.Process) -> bool:
        return bool(abs(process.create_time() - self.started) <= SAME_BIRTH_SECONDS)

    def state(self) -> ProcessState:
        process = self.find()
        try:
            if process is None:
                return "dead"
            return "paused" if process.status() == psutil.STATUS_STOPPED else "running"
        except psutil.NoSuchProcess:
            return "dead"


def spawn(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path, interruptible: bool = False
) -> ProcessRef:
    """Start `command` in a session of its own, output appended to `log`, and let go of it.

    `interruptible`: SIGINT works in it even if this process ignores it, as a shell's background job does.
    """
    with open_private(log, append=True) as out:
        child = subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # What it writes is the user's alone.
            umask=0o077,
            preexec_fn=_restore_sigint if interruptible else None,
        )
    # From here on it is watched by its pid; without this, Popen complains that it is still running.
    child.returncode = 0
    ref = ProcessRef(child.pid, psutil.Process(child.pid).create_time())
    _children.add(child.pid)
    # It may have died before it was known, when the signal of its death found nothing to do.
    _reap()
    return ref


@contextmanager
def reaping() -> Iterator[None]:
    """Inside, a child of `spawn` that dies leaves no zombie. For the main thread of a program that outlives its
    servers: who starts one again must not take the zombie of the last one for a living process.
    """
    before = signal.signal(signal.SIGCHLD, lambda _number, _frame: _reap())
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def _reap() -> None:
    # Only those: the exit codes of other children are awaited by whoever started them.
    for pid in tuple(_children):
        try:
            gone = os.waitpid(pid, os.WNOHANG)[0] != 0
        except ChildProcessError:
            gone = True
        if gone:
            _children.discard(pid)


def drop_stale_pid_file(path: Path) -> None:
    """Delete a server's pid file unless its pid is a living process that was started with this very file."""
    try:
        process = psutil.Process(int(path.read_text()))
        if process.status() != psutil.STATUS_ZOMBIE and str(path) in process.cmdline():
            return
    except (FileNotFoundError, ValueError, psutil.Error):
        pass
    path.unlink(missing_ok=True)


def stop(process: psutil.Process, grace_seconds: float) -> None:
    """SIGTERM, wait, SIGKILL when the grace is over; reaped if it is our child."""
    with suppress(psutil.NoSuchProcess):
        process.terminate()
        # A paused process gets its SIGTERM only once it goes on.
        process.resume()
        try:
            process.wait(grace_seconds)
        except psutil.TimeoutExpired:
            kill(process)


def kill(process: psutil.Process) -> None:
    """SIGKILL and wait until it is gone."""
    with suppress(psutil.NoSuchProcess):
        process.kill()
        process.wait(KILL_SECONDS)


def listens(process: psutil.Process, port: int) -> bool:
    """Whether this very process listens on the port."""
    with suppress(psutil.Error):
        return any(
            connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            for connection in process.net_connections(kind="tcp4")
        )
    return False


def family(leaders: Iterable[ProcessRef]) -> list[psutil.Process]:
    """All living members of the leaders' sessions, orphans of a dead leader included."""
    # The kernel keeps a pid while its session has members: only a living stranger has to be sorted out.
    sessions = {ref.pid for ref in leaders if not ref.recycled()}
    members = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getsid(process.pid) in sessions and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
    return members


def _restore_sigint() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
