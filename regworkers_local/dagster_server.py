"""Dagster for an instance of the embedded stack: code server, web application and daemon as detached children.

A code server of our own, as in production: the daemon would start one for itself every minute, which takes a quarter of
a core, and the web application a second one. A run can outlive its parent for a while, so a stop ends the whole
session. `<instance folder>/dagster.json` has the processes, and the id with which the web application answers.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Self

import orjson
import psutil
import yaml

from regworkers_core.adapters.files import open_private, private_folder, write_private
from regworkers_core.adapters.local_instance import DAGSTER_HEADER
from regworkers_core.domain.reasons import UsageError
from regworkers_core.settings.documents import dagster_home
from regworkers_local import processes
from regworkers_local.processes import ProcessRef
from regworkers_local.servers import HOST
from regworkers_local.stack import StartFailed, local_dir
from regworkers_local.state import listen, process_refs, read_json, user_folder, write_json

WEBSERVER_PORT = 3000
READY_SECONDS = 120.0
POLL_SECONDS = 0.1
# After SIGTERM, a run finishes what is in flight.
STOP_SECONDS = 20.0
RUN_STOP_SECONDS = 30.0
# Lines of a dead child's output that its parent shows.
LAST_LINES = 12

# Opening an instance creates its three stores if they are missing.
CREATE_STORAGE = """from dagster import DagsterInstance
with DagsterInstance.get() as instance:
    instance.run_storage, instance.event_log_storage, instance.schedule_storage
"""
CREATE_SECONDS = 60.0

LOCATIONS = """{ instance { daemonHealth { allDaemonStatuses { daemonType healthy } } } workspaceOrError { __typename
  ... on PythonError { message }
  ... on Workspace { locationEntries { name loadStatus locationOrLoadError { __typename
    ... on PythonError { message errorChain { error { message } } } } } } } }"""


# The last runs of a job that ended, the newest first.
FAILURES = """{ runsOrError(
  filter: {pipelineName: "%s", statuses: [SUCCESS, FAILURE, CANCELED]}, limit: 10
) { ... on Runs { results { runId status eventConnection { events {
  ... on ExecutionStepFailureEvent { message error { message } failureMetadata { description } }
  ... on RunFailureEvent { message error { message } }
} } } } } }"""


@dataclass(frozen=True, slots=True)
class RunFailure:
    """A run that failed."""

    job: str
    # Its error, in one line.
    why: str
    # The address of its page.
    page: str


class DagsterProcess:
    """Dagster on the module that the project's `workspace.yaml` names. As a context manager it runs only inside.

    The default instance has its DAGSTER_HOME at the project root, any other one in its folder, so that several run side
    by side. A second object for the same instance finds the running processes.
    """

    def __init__(
        self,
        root: Path,
        instance: str = "default",
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.root = root.absolute()
        self.instance = instance
        self.folder = local_dir(root) / instance
        self.home = dagster_home(self.root, self.folder)
        self._state_file = self.folder / "dagster.json"
        self._code_name = hashlib.sha256(str(self.folder).encode()).hexdigest()[:12]
        self._sleep = sleep

    def __enter__(self) -> Self:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *failure: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The address of the UI. Raises UsageError before the first start."""
        port = read_json(self._state_file).get("port")
        if port is None:
            raise UsageError(f"Dagster of instance {self.instance} was never started")
        return f"http://{HOST}:{port}"

    @property
    def storage(self) -> Path:
        """Runs, events, ticks, logs of runs, values between steps: what dagster.yaml has below a home."""
        return self.home / ".dagster"

    @property
    def _code(self) -> Path:
        # The same at every start, because Dagster knows schedules and their ticks by the address of their code. Not a
        # port: only this user may have code run. Not below the project: a socket's path has at most 107 bytes.
        return user_folder(self._code_name) / "code.sock"

    def log_of(self, child: str) -> Path:
        """The file with the output of all starts of a child (`code`, `webserver`, `daemon`)."""
        return self.folder / f"dagster-{child}.log"

    def why_ended(self) -> str | None:
        """What is missing, with its last lines; None while all children run."""
        if self.running:
            return None
        ended = sorted(self.ended)
        if not ended:
            return f"Dagster of instance {self.instance} was stopped"
        return "\n".join(
            line
            for child in ended
            for line in (
                f"Dagster's {child} ended; the last lines of {self.log_of(child)}:",
                *(f"  {line}" for line in last_lines(self.log_of(child), LAST_LINES)),
            )
        )

    @property
    def alive(self) -> bool:
        """Whether any child runs."""
        return any(ref.find() for ref in self._refs().values())

    def strangers(self) -> list[psutil.Process]:
        """Daemons on this instance's storage that it does not know: their ticks are beside its own."""
        known = {ref.pid for ref in self._refs().values()}
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                words = " ".join(process.cmdline()[:4])
                if process.pid in known or not (
                    "dagster-daemon run" in words or "dagster._daemon run" in words
                ):
                    continue
                if Path(process.environ().get("DAGSTER_HOME", "/")).resolve() == self.home.resolve():
                    found.append(process)
        return found

    def refuse_strangers(self) -> None:
        """Raises UsageError with the processes of daemons that were started elsewhere."""
        if daemons := self.strangers():
            pids = ", ".join(str(each.pid) for each in daemons)
            raise UsageError(
                f"a daemon that was started elsewhere runs on the storage of instance {self.instance}, process "
                f"{pids}: beside it schedules would tick twice; `regworkers local down` ends it"
            )

    @property
    def running(self) -> bool:
        """Whether all children run."""
        return bool(self._refs()) and not self.ended

    @property
    def ended(self) -> frozenset[str]:
        """The names of children (`code`, `webserver`, `daemon`) that were started and do not run."""
        return frozenset(name for name, ref in self._refs().items() if ref.find() is None)

    def start(self) -> None:
        """Start all unless they run; if only some run, stop them first. Waits for the code server only, which the
        others do not find again.
        """
        if self.running:
            return
        self.refuse_strangers()
        self.stop()
        workspace = self.root / "workspace.yaml"
        if not workspace.exists():
            raise UsageError(f"{workspace} is missing: run this in the project")
        private_folder(self.folder)
        if self.home != self.root:
            write_home(self.root / "dagster.yaml", self.home)
        last = read_json(self._state_file).get("port")
        module = yaml.safe_load(workspace.read_text(encoding="utf-8"))["load_from"][0]["python_module"]
        self._code.unlink(missing_ok=True)
        server = {"socket": str(self._code), "location_name": module}
        write_private(
            self.folder / "workspace.yaml", yaml.safe_dump({"load_from": [{"grpc_server": server}]})
        )
        environment = {
            **os.environ,
            "DAGSTER_HOME": str(self.home),
            "REGWORKERS_INSTANCE": self.instance,
            "REGWORKERS_LOCAL_DIR": str(self.folder.parent),
        }
        if last is None:
            self._create_storage(environment)
        # Bound here, so that no other program can have the port that is announced.
        with listen(last or WEBSERVER_PORT, f"{self.folder}/dagster") as listener:
            self._spawn(module, environment, listener)

    def _spawn(self, module: str, environment: dict[str, str], listener: socket.socket) -> None:
        identity = uuid.uuid4().hex
        port = listener.getsockname()[1]
        shared = ["-w", str(self.folder / "workspace.yaml")]
        serve = ["-m", "dagster", "api", "grpc", "--lazy-load-user-code", "--socket", str(self._code)]
        commands = {
            "code": [*serve, "--module-name", module],
            "webserver": [
                *("-m", "regworkers_dagster.web.serve", "--host", HOST, *shared),
                *("--listener", str(listener.fileno()), "--instance-id", identity),
            ],
            "daemon": ["-m", "dagster._daemon", "run", *shared],
        }
        refs: dict[str, ProcessRef] = {}
        for name, command in commands.items():
            refs[name] = processes.spawn(
                [sys.executable, *command],
                cwd=self.root,
                env=environment,
                log=self.log_of(name),
                interruptible=True,
                pass_fds=[listener.fileno()] if name == "webserver" else [],
            )
            pids = {each: ref.pid for each, ref in refs.items()}
            started = {each: ref.started for each, ref in refs.items()}
            write_json(self._state_file, {"port": port, "id": identity, "pids": pids, "started": started})
            if name == "code":
                self._wait_for_code(refs[name])

    def _wait_for_code(self, child: ProcessRef) -> None:
        deadline = time.monotonic() + READY_SECONDS
        with socket.socket(socket.AF_UNIX) as client:
            while client.connect_ex(str(self._code)):
                if child.find() is None:
                    raise StartFailed(self.why_ended() or "")
                if time.monotonic() > deadline:
                    raise StartFailed(f"Dagster's code server does not answer; see {self.log_of('code')}")
                self._sleep(POLL_SECONDS)

    def _create_storage(self, environment: dict[str, str]) -> None:
        """Create the tables first: if two children create them at the same time, one fails."""
        log = self.log_of("storage")
        with open_private(log, append=True) as out, suppress(subprocess.SubprocessError):
            subprocess.run(
                [sys.executable, "-c", CREATE_STORAGE],
                cwd=self.root,
                env=environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                # Ctrl-C is handled by this process.
                start_new_session=True,
                umask=0o077,
                timeout=CREATE_SECONDS,
                check=True,
            )
            return
        raise StartFailed(f"Dagster cannot create its storage; see {log}")

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Block until sensors tick and every code location is loaded, as this instance's own web application says.
        Raises StartFailed with the error of one that fails, and with the last lines of a child that ended.
        """
        deadline = time.monotonic() + seconds
        while True:
            loaded = self._loaded()
            if ended := self.why_ended():
                raise StartFailed(ended)
            if loaded:
                return
            if time.monotonic() > deadline:
                raise StartFailed(
                    f"Dagster was not ready within {seconds:g} s; see {self.log_of('webserver')}"
                )
            self._sleep(POLL_SECONDS)

    def stop(self) -> bool:
        """Send SIGINT to web application and daemons, SIGTERM to the code server and its runs, then SIGKILL; reap all.
        Returns whether anything ran.
        """
        refs = self._refs()
        strangers = self.strangers()
        leaders = [process for name, ref in refs.items() if name != "code" and (process := ref.find())]
        leaders += strangers
        for process in leaders:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGINT)
                process.resume()
        stopped = bool(leaders)
        psutil.wait_procs(leaders, timeout=STOP_SECONDS)
        for end, seconds in ((psutil.Process.terminate, RUN_STOP_SECONDS), (psutil.Process.kill, 10.0)):
            left = [*processes.family(refs.values()), *(each for each in strangers if each.is_running())]
            stopped |= bool(left)
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    end(process)
            psutil.wait_procs(left, timeout=seconds)
        if refs:
            write_json(self._state_file, {"port": read_json(self._state_file).get("port")})
            shutil.rmtree(self._code.parent, ignore_errors=True)
        return stopped

    def reset(self) -> bool:
        """Stop all and delete the instance's storage. Returns whether anything ran."""
        stopped = self.stop()
        shutil.rmtree(self.storage, ignore_errors=True)
        self._state_file.unlink(missing_ok=True)
        return stopped

    def _refs(self) -> dict[str, ProcessRef]:
        try:
            return process_refs(read_json(self._state_file))
        except (AttributeError, KeyError, TypeError, ValueError):
            return {}

    def _loaded(self) -> bool:
        answer = self._ask(LOCATIONS)
        if answer is None:
            return False
        workspace = answer["workspaceOrError"]
        entries = workspace.get("locationEntries", [])
        for name, found in [
            ("the workspace", workspace),
            *((entry["name"], entry["locationOrLoadError"] or {}) for entry in entries),
        ]:
            if found.get("__typename") == "PythonError":
                raise StartFailed(f"Dagster cannot load {name}: {_cause(found)}")
        daemons = answer["instance"]["daemonHealth"]["allDaemonStatuses"]
        sensing = any(each["daemonType"] == "SENSOR" and each["healthy"] for each in daemons)
        return sensing and bool(entries) and all(entry["loadStatus"] == "LOADED" for entry in entries)

    def failures(self, job: str) -> list[RunFailure]:
        """The runs of a job that failed since the last one that succeeded, the newest first, ten at most; none while
        Dagster does not answer.
        """
        answer = self._ask(FAILURES % job) or {}
        ended = (answer.get("runsOrError") or {}).get("results") or ()
        return [
            RunFailure(job, _why(run), f"{self.url}/runs/{run['runId']}")
            for run in takewhile(lambda run: run["status"] != "SUCCESS", ended)
            if run["status"] == "FAILURE"
        ]

    def _ask(self, query: str) -> dict[str, Any] | None:
        """The `data` of an answer; None while there is no answer of this instance."""
        request = urllib.request.Request(  # noqa: S310
            self.url + "/graphql", orjson.dumps({"query": query}), {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
                if response.headers.get(DAGSTER_HEADER) != read_json(self._state_file).get("id"):
                    return None
                data: dict[str, Any] | None = orjson.loads(response.read()).get("data")
                return data
        except (OSError, orjson.JSONDecodeError):
            return None


def last_lines(path: Path, lines: int) -> list[str]:
    """The last lines of a log; none if it does not exist."""
    with suppress(FileNotFoundError):
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    return []


def _why(run: dict[str, Any]) -> str:
    """The words of the step that failed first; of a run without one, its own."""
    for event in run["eventConnection"]["events"]:
        said = (event.get("failureMetadata") or {}).get("description")
        if text := said or (event.get("error") or event).get("message"):
            return " ".join(text.split())
    return "it says no reason"


def _cause(error: dict[str, Any]) -> str:
    """The innermost error, because the outer ones only say that something could not be loaded."""
    chain = error.get("errorChain") or []
    innermost = chain[-1]["error"] if chain else error
    return " ".join(innermost["message"].split())


def write_home(source: Path, home: Path) -> None:
    """Write `<home>/dagster.yaml`: a copy of `source` with every `base_dir` absolute, under `home`."""
    try:
        config = yaml.safe_load(source.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise UsageError(f"{source} is missing: run this in the project") from None
    private_folder(home)
    write_private(home / "dagster.yaml", yaml.safe_dump(_moved(config, home, ()), sort_keys=False))


def _moved(node: Any, home: Path, path: tuple[str, ...]) -> Any:
    if isinstance(node, list):
        return [_moved(item, home, path) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: str(_under(home, value, path)) if key == "base_dir" else _moved(value, home, (*path, str(key)))
        for key, value in node.items()
    }


def _under(home: Path, value: Any, path: tuple[str, ...]) -> Path:
    """A relative folder keeps its name; one that is absolute or a variable gets the name of its section."""
    if isinstance(value, str) and not Path(value).is_absolute() and ".." not in Path(value).parts:
        return home / value
    return home.joinpath(*path)
