"""Dagster for an instance of the embedded stack: the web application around it and the daemon as two children.

Two children and not `dagster dev`: ready in about 3 s instead of 5 s on two cores, one process and 95 MB less.
Either way a code server can outlive its parent for a while, so a stop sweeps the whole session. Like the servers
they live on by themselves; `<instance folder>/dagster.json` knows them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import orjson
import psutil
import yaml

from regworkers_core.adapters.files.private_files import open_private, private_folder, write_private
from regworkers_core.domain.reasons import UsageError
from regworkers_local import processes
from regworkers_local.ports import free_port
from regworkers_local.processes import ProcessRef
from regworkers_local.servers import HOST
from regworkers_local.stack import StartFailed, local_dir
from regworkers_local.state import process_refs, read_json, write_json

WEBSERVER_PORT = 3000
READY_SECONDS = 120.0
POLL_SECONDS = 0.1
# A run that gets SIGTERM finishes what is in flight first.
STOP_SECONDS = 20.0
RUN_STOP_SECONDS = 30.0

# Opening an instance creates what is missing of its three stores.
CREATE_STORAGE = """from dagster import DagsterInstance
with DagsterInstance.get() as instance:
    instance.run_storage, instance.event_log_storage, instance.schedule_storage
"""
CREATE_SECONDS = 60.0

LOCATIONS = """{ instance { daemonHealth { allDaemonStatuses { daemonType healthy } } } workspaceOrError { __typename
  ... on PythonError { message }
  ... on Workspace { locationEntries { name loadStatus locationOrLoadError { __typename
    ... on PythonError { message errorChain { error { message } } } } } } } }"""


class DagsterProcess:
    """Web application and daemon on `workspace.yaml` of the project. As a context manager they run inside only.

    The default instance has DAGSTER_HOME at the project root; any other one has a home of its own in its
    folder, so that several run side by side. A second object for the same instance finds what runs.
    """

    def __init__(
        self,
        root: Path,
        instance: str = "default",
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.root = root.absolute()
        self.instance = instance
        self.folder = local_dir(root) / instance
        self.home = self.root if instance == "default" else self.folder / "dagster_home"
        self.log = self.folder / "dagster.log"
        self._state_file = self.folder / "dagster.json"
        self._clock = clock
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
        """Of the UI. Raises UsageError before the first start."""
        port = read_json(self._state_file).get("port")
        if port is None:
            raise UsageError(f"Dagster of instance {self.instance} was never started")
        return f"http://{HOST}:{port}"

    @property
    def running(self) -> bool:
        """Whether both children live."""
        refs = self._refs()
        return bool(refs) and all(ref.find() is not None for ref in refs.values())

    def start(self) -> None:
        """Start both unless they run; a half of a pair is stopped first. Does not wait."""
        if self.running:
            return
        self.stop()
        workspace = self.root / "workspace.yaml"
        if not workspace.exists():
            raise UsageError(f"{workspace} is missing: run this in the project")
        private_folder(self.folder)
        if self.home != self.root:
            write_home(self.root / "dagster.yaml", self.home)
        last = read_json(self._state_file).get("port")
        port = free_port(last or WEBSERVER_PORT, f"{self.folder}/dagster")
        environment = {
            **os.environ,
            "DAGSTER_HOME": str(self.home),
            "REGWORKERS_INSTANCE": self.instance,
            "REGWORKERS_LOCAL_DIR": str(self.folder.parent),
        }
        if last is None:
            self._create_storage(environment)
        shared = ["-w", str(workspace)]
        commands = {
            "webserver": ["-m", "regworkers_dagster.web.serve", "--host", HOST, "--port", str(port), *shared],
            "daemon": ["-m", "dagster._daemon", "run", *shared],
        }
        refs: dict[str, ProcessRef] = {}
        for name, command in commands.items():
            refs[name] = processes.spawn(
                [sys.executable, *command], cwd=self.root, env=environment, log=self.log, interruptible=True
            )
            pids = {each: ref.pid for each, ref in refs.items()}
            started = {each: ref.started for each, ref in refs.items()}
            write_json(self._state_file, {"port": port, "pids": pids, "started": started})

    def _create_storage(self, environment: dict[str, str]) -> None:
        """Both children create missing tables when they start; at the same time one of them fails."""
        with open_private(self.log, append=True) as out, suppress(subprocess.SubprocessError):
            subprocess.run(
                [sys.executable, "-c", CREATE_STORAGE],
                cwd=self.root,
                env=environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                # Ctrl-C is ours to answer.
                start_new_session=True,
                umask=0o077,
                timeout=CREATE_SECONDS,
                check=True,
            )
            return
        raise StartFailed(f"Dagster cannot create its storage; see {self.log}")

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Until sensors tick and every code location is loaded; StartFailed has the error of one that fails."""
        deadline = self._clock() + seconds
        while not self._loaded():
            if not self.running:
                raise StartFailed(f"Dagster ended while starting; see {self.log}")
            if self._clock() > deadline:
                raise StartFailed(f"Dagster was not ready within {seconds:g} s; see {self.log}")
            self._sleep(POLL_SECONDS)

    def stop(self) -> bool:
        """SIGINT to both, SIGTERM to what they leave (runs, code servers), SIGKILL to the rest; all reaped.
        Whether there was anything to stop.
        """
        refs = self._refs()
        leaders = [process for ref in refs.values() if (process := ref.find())]
        for process in leaders:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGINT)
                process.resume()
        stopped = bool(leaders)
        psutil.wait_procs(leaders, timeout=STOP_SECONDS)
        for end, seconds in ((psutil.Process.terminate, RUN_STOP_SECONDS), (psutil.Process.kill, 10.0)):
            left = processes.family(refs.values())
            stopped |= bool(left)
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    end(process)
            psutil.wait_procs(left, timeout=seconds)
        if refs:
            write_json(self._state_file, {"port": read_json(self._state_file).get("port")})
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

    def _ask(self, query: str) -> dict[str, Any] | None:
        """The `data` of an answer; None while nobody answers."""
        request = urllib.request.Request(  # noqa: S310
            self.url + "/graphql", orjson.dumps({"query": query}), {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
                data: dict[str, Any] | None = orjson.loads(response.read()).get("data")
                return data
        except (OSError, orjson.JSONDecodeError):
            return None


def _cause(error: dict[str, Any]) -> str:
    """The innermost error: the outer ones only say that something could not be loaded."""
    chain = error.get("errorChain") or []
    innermost = chain[-1]["error"] if chain else error
    return " ".join(innermost["message"].split())


def write_home(source: Path, home: Path) -> None:
    """Write `<home>/dagster.yaml`: the one in `source`, with every `base_dir` moved under `home`, absolute."""
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
    """A relative folder keeps its name; one that is absolute or comes from a variable gets its section's."""
    if isinstance(value, str) and not Path(value).is_absolute() and ".." not in Path(value).parts:
        return home / value
    return home.joinpath(*path)
