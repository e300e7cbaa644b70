"""Child processes that outlive the command that started them, identified by pid and start time."""

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

from regworkers_core.adapters.files import open_private
from regworkers_core.adapters.local_instance import born, is_same

# Down: stopped gracefully, or never started. Dead: it should run and does not.
ProcessState = Literal["running", "paused", "dead", "down"]

# SIGKILL always works, but the kernel may be busy.
KILL_SECONDS = 10.0
# Pids of detached children that are not reaped yet.
_children: set[int] = set()


@dataclass(frozen=True, slots=True)
class ProcessRef:
    """A process by pid and start, which identify it even if the pid is reused."""

    pid: int
    # No clock that is set changes it: see `born`.
    started: float

    def find(self) -> psutil.Process | None:
        """The running process, or None. Reaps a dead child of ours."""
        try:
            process = psutil.Process(self.pid)
            if not is_same(process, self.started):
                return None
            if process.status() == psutil.STATUS_ZOMBIE:
                with suppress(psutil.TimeoutExpired):
                    process.wait(timeout=0)
                return None
            return process
        except psutil.NoSuchProcess:
            return None

    def recycled(self) -> bool:
        """Whether another process has the pid by now."""
        try:
            return not is_same(psutil.Process(self.pid), self.started)
        except psutil.NoSuchProcess:
            return False

    def state(self) -> ProcessState:
        process = self.find()
        try:
            if process is None:
                return "dead"
            return "paused" if process.status() == psutil.STATUS_STOPPED else "running"
        except psutil.NoSuchProcess:
            return "dead"


def spawn(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    log: Path,
    interruptible: bool = False,
    pass_fds: Sequence[int] = (),
) -> ProcessRef:
    """Start `command` detached, in a new session, with its output appended to `log`.

    `interruptible`: SIGINT works in it even if this process ignores it, as a shell's background jobs do. `pass_fds` are
    open in it, too.
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
            # Its files are private to the user.
            umask=0o077,
            preexec_fn=_restore_sigint if interruptible else None,
            pass_fds=pass_fds,
        )
    # It is identified by its pid now; without this, Popen warns that it is still running.
    child.returncode = 0
    ref = ProcessRef(child.pid, born(psutil.Process(child.pid)))
    _children.add(child.pid)
    # It may have died before its pid was known to the signal handler.
    _reap()
    return ref


@contextmanager
def reaping() -> Iterator[None]:
    """Reap children of `spawn` that die inside. For the main thread of a program that outlives its servers: a zombie
    must not be taken for a running server when it is started again.
    """
    before = signal.signal(signal.SIGCHLD, lambda _number, _frame: _reap())
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def _reap() -> None:
    # Only these: other code waits for the exit codes of other children.
    for pid in tuple(_children):
        try:
            gone = os.waitpid(pid, os.WNOHANG)[0] != 0
        except ChildProcessError:
            gone = True
        if gone:
            _children.discard(pid)


def drop_stale_pid_file(path: Path) -> None:
    """Delete a server's pid file unless its pid is a running process that was started with this file."""
    try:
        process = psutil.Process(int(path.read_text()))
        if process.status() != psutil.STATUS_ZOMBIE and str(path) in process.cmdline():
            return
    except (FileNotFoundError, ValueError, psutil.Error):
        pass
    path.unlink(missing_ok=True)


def stop(process: psutil.Process, grace_seconds: float) -> None:
    """Send SIGTERM, and SIGKILL after `grace_seconds`. Reaps a child of ours."""
    with suppress(psutil.NoSuchProcess):
        process.terminate()
        # A paused process gets its SIGTERM only once it resumes.
        process.resume()
        try:
            process.wait(grace_seconds)
        except psutil.TimeoutExpired:
            kill(process)


def kill(process: psutil.Process) -> None:
    """Send SIGKILL and wait for the end."""
    with suppress(psutil.NoSuchProcess):
        process.kill()
        process.wait(KILL_SECONDS)


def listens(process: psutil.Process, port: int) -> bool:
    with suppress(psutil.Error):
        return any(
            connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            for connection in process.net_connections(kind="tcp4")
        )
    return False


def family(leaders: Iterable[ProcessRef]) -> list[psutil.Process]:
    """All running members of the leaders' sessions, including orphans of a dead leader."""
    # The kernel reserves a pid while its session has members, so only reused pids have to be excluded.
    sessions = {ref.pid for ref in leaders if not ref.recycled()}
    members = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getsid(process.pid) in sessions and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
    return members


def _restore_sigint() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
