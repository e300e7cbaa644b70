"""Child processes that outlive the command that started them, told apart from strangers by pid and birth."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

ProcessState = Literal["running", "paused", "dead"]

# A create time is computed from the time of boot, which moves a little when the clock is corrected.
SAME_BIRTH_SECONDS = 2.0
# SIGKILL needs no consent, but the kernel may be busy.
KILL_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class ProcessRef:
    """A process by pid and create time (epoch seconds), so that a recycled pid is never taken for it."""

    pid: int
    started: float

    def find(self) -> psutil.Process | None:
        """The living process, or None. Reaps it if it is a dead child of ours."""
        try:
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.started) > SAME_BIRTH_SECONDS:
                return None
            if process.status() == psutil.STATUS_ZOMBIE:
                with suppress(psutil.TimeoutExpired):
                    process.wait(timeout=0)
                return None
            return process
        except psutil.NoSuchProcess:
            return None

    def state(self) -> ProcessState:
        process = self.find()
        try:
            if process is None:
                return "dead"
            return "paused" if process.status() == psutil.STATUS_STOPPED else "running"
        except psutil.NoSuchProcess:
            return "dead"


def spawn(command: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path) -> ProcessRef:
    """Start `command` in a session of its own, output appended to `log`, and let go of it."""
    with log.open("ab") as out:
        child = subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # A shell's background job ignores SIGINT, and children inherit that.
            preexec_fn=_restore_signals,  # noqa: PLW1509
        )
    # From here on it is watched by its pid; without this, Popen complains that it is still running.
    child.returncode = 0
    return ProcessRef(child.pid, psutil.Process(child.pid).create_time())


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
    """All living members of the leaders' sessions and trees, orphans of a dead leader included."""
    refs = list(leaders)
    # The session id of a dead leader cannot be handed out again while a member of the session lives.
    sessions = {ref.pid: ref.started for ref in refs}
    members: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError, PermissionError):
            born = sessions.get(os.getsid(process.pid))
            if born is None or process.create_time() < born - SAME_BIRTH_SECONDS:
                continue
            if process.pid in sessions and abs(process.create_time() - born) > SAME_BIRTH_SECONDS:
                continue
            members[process.pid] = process
    for ref in refs:
        if leader := ref.find():
            with suppress(psutil.NoSuchProcess):
                members.update((child.pid, child) for child in leader.children(recursive=True))
    return [process for process in members.values() if _living(process)]


def _living(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def _restore_signals() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
