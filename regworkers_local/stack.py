"""The supervisor of the embedded stack: starts, checks and stops the servers of one instance.

Servers run detached, each in its own session: they continue after `up` returns. Only
`<project root>/.local/<instance>/state.json` connects them to an instance.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO, Self

import psutil

from regworkers_core.adapters.files import open_private, private_folder
from regworkers_core.domain.reasons import UsageError
from regworkers_core.settings import PROJECT_ROOT
from regworkers_local import processes
from regworkers_local.processes import ProcessRef, ProcessState
from regworkers_local.servers import SERVERS, Server, ServerPlace, environment
from regworkers_local.state import StackState, candidates, is_free, reserve

Progress = Callable[[str], None]

# A cold start compiles ministack's modules first, on a machine that may be busy.
START_SECONDS = 60.0
PORT_SECONDS = 2.0
POLL_SECONDS = 0.02
# This file is touched when a server has become ready.
READY_MARK = "ready"
# Attempts to start on a free port before giving up.
PORT_ATTEMPTS = 3


class PortTaken(UsageError):
    """Another program uses the port that a server had before."""

    def __init__(self, server: Server, port: int, instance: str) -> None:
        super().__init__(
            f"{server.name}: port {port} of instance {instance} is taken by another program; stop it, or "
            f"release the ports with `regworkers local reset` (deletes the instance's data)"
        )


class StartFailed(UsageError):
    """A server ended, or did not become ready in time."""

    def __init__(self, why: str) -> None:
        # A clone's commands run the code of another one where that is what is installed.
        super().__init__(f"{why}\nregworkers is imported from {PROJECT_ROOT}")


def local_dir(root: Path) -> Path:
    """The folder of all instances: `REGWORKERS_LOCAL_DIR`, else `<root>/.local`."""
    return Path(os.environ.get("REGWORKERS_LOCAL_DIR") or root / ".local").absolute()


class Stack:
    """One instance of the embedded servers. As a context manager it is up inside and down afterwards.

    `servers` selects some of them (and those that they need). Raises only UsageError and its subclasses.
    """

    def __init__(
        self,
        root: Path,
        instance: str | None = None,
        *,
        servers: Iterable[str] = tuple(SERVERS),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.root = root
        self.instance = instance or os.environ.get("REGWORKERS_INSTANCE") or "default"
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", self.instance):
            raise UsageError(f"instance {self.instance!r}: use 1 to 40 of A-Z, a-z, 0-9, - and _")
        self.folder = local_dir(root) / self.instance
        self.state_file = self.folder / "state.json"
        wanted = set(servers)
        wanted.update(need for name in tuple(wanted) for need in server_named(name).needs)
        self._servers = [server for server in SERVERS.values() if server.name in wanted]
        self._clock = clock
        self._sleep = sleep
        self._guard = threading.Lock()

    def __enter__(self) -> Self:
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *failure: object) -> None:
        self.down()

    @property
    def state(self) -> StackState:
        return StackState.load(self.state_file, self.instance)

    def up(self, progress: Progress = lambda line: None) -> StackState:
        """Start dead servers, resume paused ones, and return when all answer.

        Raises PortTaken, StartFailed, and UsageError when a wheel is missing.
        """
        with self._locked():
            return self._bring_up(self._servers, progress)

    def down(self, progress: Progress = lambda line: None) -> None:
        """Stop all servers, first those that need others. Ports and data stay."""
        if self.known:
            with self._locked():
                self._stop(self._servers, progress)

    def reset(self, progress: Progress = lambda line: None) -> None:
        """Stop all servers and delete their data and ports; with the last of the instance's, the whole folder."""
        with self._locked():
            self._stop(self._servers, progress)
            state = self.state
            for server in self._servers:
                shutil.rmtree(self.folder / server.name, ignore_errors=True)
                state.ports.pop(server.name, None)
            if state.ports:
                state.save(self.state_file)
            else:
                shutil.rmtree(self.folder)

    def own(self, purpose: str) -> BinaryIO:
        """Make this process the instance's only parent until the file is closed. Raises UsageError, with the
        `purpose` of the other one, while another process is.
        """
        # Beside the folder, which a reset deletes.
        path = self.folder.with_name(f"{self.instance}.owner")
        private_folder(path.parent)
        owner = open_private(path, append=True)
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner.close()
            raise UsageError(
                f"instance {self.instance} is in use by {path.read_text() or 'another process'}: stop that, or choose "
                "another instance with REGWORKERS_INSTANCE"
            ) from None
        owner.truncate(0)
        owner.write(f"`{purpose}`, process {os.getpid()}".encode())
        owner.flush()
        return owner

    def restart(self, name: str) -> StackState:
        """Stop a server gracefully and start it again on the same port."""
        with self._locked():
            self._stop([server_named(name)], lambda line: None)
            return self._bring_up([server_named(name)], lambda line: None)

    def status(self) -> dict[str, ProcessState]:
        """Each server's state by name."""
        refs = self.state.processes
        return {
            server.name: refs[server.name].state() if server.name in refs else "down"
            for server in self._servers
        }

    @property
    def known(self) -> bool:
        """Whether this instance was ever started (and not reset since)."""
        return self.state_file.exists()

    def instances(self) -> list[str]:
        """All known instances of the project."""
        return sorted(path.parent.name for path in self.folder.parent.glob("*/state.json"))

    def kill(self, name: str) -> None:
        """Send SIGKILL, like a crash."""
        processes.kill(self._process(name))

    def pause(self, name: str) -> None:
        """Send SIGSTOP: the server keeps its connections and does not answer."""
        self._process(name).suspend()
        self._await(lambda: self.status()[name] == "paused", f"{name} did not pause")

    def resume(self, name: str) -> None:
        """Send SIGCONT."""
        self._process(name).resume()
        self._await(lambda: self.status()[name] == "running", f"{name} did not resume")

    def log_file(self, name: str) -> Path:
        """The file with the output of all starts of a server."""
        return self.folder / server_named(name).name / "server.log"

    def logs(self, name: str, lines: int = 50) -> list[str]:
        """The last lines of a server's output; none if it never started."""
        try:
            text = self.log_file(name).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        return text.splitlines()[-lines:] if lines > 0 else []

    def _process(self, name: str) -> psutil.Process:
        ref = self.state.processes.get(server_named(name).name)
        process = ref.find() if ref else None
        if process is None:
            raise UsageError(f"{name} does not run: start it with `regworkers local up`")
        return process

    def _bring_up(self, servers: Sequence[Server], progress: Progress) -> StackState:
        state = self.state
        dead = [server for server in servers if not _alive(state, server)]
        remembered = {server.name for server in dead if server.name in state.ports}
        with ExitStack() as reserved:
            for server in dead:
                if server.name not in remembered:
                    self._choose_port(server, state, reserved)
                else:
                    reserved.enter_context(self._await_port(server, state.ports[server.name]))
            self._start_all(servers, dead, remembered, state, reserved, progress)
        return state

    def _start_all(
        self,
        servers: Sequence[Server],
        dead: Sequence[Server],
        remembered: Collection[str],
        state: StackState,
        reserved: ExitStack,
        progress: Progress,
    ) -> None:
        for server in dead:  # a missing wheel is found before anything is started
            server.command(self._place(server, state))
        state.save(self.state_file)
        started: dict[str, Future[None]] = {}

        def bring_up(server: Server) -> None:
            for need in server.needs:
                if need in started:
                    started[need].result()
            if server in dead:
                loss = self._loss(server)
                mark = self.folder / server.name / READY_MARK
                kept = ", with the data of its last run" if mark.exists() and not loss else ""
                self._start(server, state, reserved, keep_port=server.name in remembered)
                mark.touch(mode=0o600)
                if loss:
                    progress(loss)
                progress(f"{server.name}: {server.program} listens on {state.address(server.name)}{kept}")
            elif process := state.processes[server.name].find():
                process.resume()
                self._await_ready(server, state)

        with ThreadPoolExecutor(max(len(servers), 1)) as pool:
            for server in servers:
                started[server.name] = pool.submit(bring_up, server)
        for future in started.values():
            future.result()

    def _loss(self, server: Server) -> str | None:
        """The warning after a crash if the server was ready and has saved nothing since."""
        folder = self.folder / server.name
        if server.saved_on_stop is None or not (folder / READY_MARK).exists():
            return None
        # Both are file times, because a process's start time may be off by a second.
        saved_at = [file.stat().st_mtime for file in (folder / server.saved_on_stop).glob("*.json")]
        if max(saved_at, default=0.0) >= (folder / READY_MARK).stat().st_mtime:
            return None
        what = "WENT BACK TO ITS LAST CLEAN STOP" if saved_at else "STARTED EMPTY"
        return (
            f"{server.name}: {what} after a crash, because it keeps tables and queues in memory: run "
            "`regworkers provision`, then `regworkers load`"
        )

    def _start(self, server: Server, state: StackState, reserved: ExitStack, *, keep_port: bool) -> None:
        folder = self.folder / server.name
        private_folder(folder)
        for attempt in range(1, PORT_ATTEMPTS + 1):
            place = self._place(server, state)
            server.prepare(place)
            ref = processes.spawn(
                server.command(place),
                cwd=folder,
                env=environment(server.env(place), folder),
                log=self.log_file(server.name),
            )
            with self._guard:
                state.processes[server.name] = ref
                state.save(self.state_file)
            try:
                self._await_ready(server, state)
                return
            except StartFailed:
                lost_race = ref.find() is None and not is_free(state.ports[server.name])
                if keep_port or not lost_race or attempt == PORT_ATTEMPTS:
                    raise
            with self._guard:
                self._choose_port(server, state, reserved)
                state.save(self.state_file)

    def _await_ready(self, server: Server, state: StackState) -> None:
        ref, port = state.processes[server.name], state.ports[server.name]

        def ready() -> bool:
            process = ref.find()
            if process is None:
                last = self.logs(server.name, 1)
                said = f": {last[0].strip()}" if last else ""
                raise StartFailed(
                    f"{server.name}: {server.program} ended{said}; see {self.log_file(server.name)}"
                )
            # Another program on the port may answer too, so the port has to be the process's own.
            return processes.listens(process, port) and server.ready(port)

        self._await(
            ready, f"{server.name}: {server.program} does not answer; see {self.log_file(server.name)}"
        )
        # This instance's process answers. The mark distinguishes it from another instance's.
        server.mark(self._place(server, state))

    def _await_port(self, server: Server, port: int) -> BinaryIO:
        """Reserve the port when it is free: threads of a killed server hold it for a moment."""
        deadline = self._clock() + PORT_SECONDS
        while (held := reserve(port)) is None:
            if self._clock() > deadline:
                raise PortTaken(server, port, self.instance)
            self._sleep(POLL_SECONDS)
        return held

    def _await(self, condition: Callable[[], bool], failure: str) -> None:
        deadline = self._clock() + START_SECONDS
        while not condition():
            if self._clock() > deadline:
                raise StartFailed(failure)
            self._sleep(POLL_SECONDS)

    def _stop(self, servers: Sequence[Server], progress: Progress) -> None:
        state = self.state

        def stop(server: Server) -> None:
            process = state.processes[server.name].find()
            if process is not None:
                processes.stop(process, server.stop_seconds)
                progress(f"{server.name}: stopped")

        known = [server for server in servers if server.name in state.processes]
        for wave in ([s for s in known if s.needs], [s for s in known if not s.needs]):
            with ThreadPoolExecutor(max(len(wave), 1)) as pool:
                list(pool.map(stop, wave))
        for server in known:
            del state.processes[server.name]
        if known:
            state.save(self.state_file)

    def _choose_port(self, server: Server, state: StackState, reserved: ExitStack) -> None:
        for port in candidates(server.default_port, f"{self.folder}/{server.name}"):
            if port not in state.ports.values() and (held := reserve(port)):
                reserved.enter_context(held)
                state.ports[server.name] = port
                return
        raise StartFailed(f"{server.name}: no port is free")

    def _place(self, server: Server, state: StackState) -> ServerPlace:
        return ServerPlace(self.folder / server.name, state.ports, state.id)

    def _locked(self) -> BinaryIO:
        """Lock the instance: a second command waits until the file is closed."""
        path = self.folder / "lock"
        while True:
            private_folder(self.folder)
            # An older version may have created it with other permissions.
            self.folder.chmod(0o700)
            with suppress(FileNotFoundError):
                lock = open_private(path)
                fcntl.flock(lock, fcntl.LOCK_EX)
                # A reset may have deleted the file while this command waited for it.
                with suppress(FileNotFoundError):
                    if os.path.samestat(path.stat(), os.fstat(lock.fileno())):
                        return lock
                lock.close()


def server_named(name: str) -> Server:
    """The server of this name. Raises UsageError if there is none."""
    if name not in SERVERS:
        raise UsageError(f"{name!r} is not a server of the stack: choose one of {', '.join(SERVERS)}")
    return SERVERS[name]


def _alive(state: StackState, server: Server) -> bool:
    ref: ProcessRef | None = state.processes.get(server.name)
    return ref is not None and server.name in state.ports and ref.find() is not None
