"""Dagster for an instance of the embedded stack: code server, web application and daemon as detached children.

A code server of our own, as in production: the daemon would start one for itself every minute, which takes a quarter of
a core, and the web application a second one. A run can outlive its parent for a while, so a stop ends the whole
session. `<instance folder>/dagster.json` has the processes.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
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
from regworkers_local.processes import ProcessRef
from regworkers_local.servers import HOST
from regworkers_local.stack import StartFailed, local_dir
from regworkers_local.state import free_port, process_refs, read_json, write_json

WEBSERVER_PORT = 3000
READY_SECONDS = 120.0
POLL_SECONDS = 0.1
# After SIGTERM, a run finishes what is in flight.
STOP_SECONDS = 20.0
RUN_STOP_SECONDS = 30.0

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
        self.home = self.root if instance == "default" else self.folder / "dagster_home"
        self.log = self.folder / "dagster.log"
        self._state_file = self.folder / "dagster.json"
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
        self.stop()
        workspace = self.root / "workspace.yaml"
        if not workspace.exists():
            raise UsageError(f"{workspace} is missing: run this in the project")
        private_folder(self.folder)
        if self.home != self.root:
            write_home(self.root / "dagster.yaml", self.home)
        last = read_json(self._state_file).get("port")
        port = free_port(last or WEBSERVER_PORT, f"{self.folder}/dagster")
        module = yaml.safe_load(workspace.read_text(encoding="utf-8"))["load_from"][0]["python_module"]
        # Not a port: only this user may have code run. Not below the project: a socket's path has at most 107 bytes.
        code = Path(tempfile.mkdtemp(prefix="regworkers-"), "code.sock")
        server = {"socket": str(code), "location_name": module}
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
        shared = ["-w", str(self.folder / "workspace.yaml")]
        serve = ["-m", "dagster", "api", "grpc", "--lazy-load-user-code", "--socket", str(code)]
        commands = {
            "code": [*serve, "--module-name", module],
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
            state = {"port": port, "pids": pids, "started": started, "code": str(code)}
            write_json(self._state_file, state)
            if name == "code":
                self._wait_for_code(refs[name], code)

    def _wait_for_code(self, child: ProcessRef, code: Path) -> None:
        deadline = time.monotonic() + READY_SECONDS
        with socket.socket(socket.AF_UNIX) as client:
            while client.connect_ex(str(code)):
                if child.find() is None or time.monotonic() > deadline:
                    raise StartFailed(f"Dagster's code server does not answer; see {self.log}")
                self._sleep(POLL_SECONDS)

    def _create_storage(self, environment: dict[str, str]) -> None:
        """Create the tables first: if two children create them at the same time, one fails."""
        with open_private(self.log, append=True) as out, suppress(subprocess.SubprocessError):
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
        raise StartFailed(f"Dagster cannot create its storage; see {self.log}")

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Block until sensors tick and every code location is loaded. Raises StartFailed with the error of one that
        fails.
        """
        deadline = time.monotonic() + seconds
        while not self._loaded():
            if not self.running:
                raise StartFailed(f"Dagster ended while starting; see {self.log}")
            if time.monotonic() > deadline:
                raise StartFailed(f"Dagster was not ready within {seconds:g} s; see {self.log}")
            self._sleep(POLL_SECONDS)

    def stop(self) -> bool:
        """Send SIGINT to web application and daemon, SIGTERM to the code server and its runs, then SIGKILL; reap all.
        Returns whether anything ran.
        """
        refs = self._refs()
        leaders = [process for name, ref in refs.items() if name != "code" and (process := ref.find())]
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
            state = read_json(self._state_file)
            if code := state.get("code"):
                shutil.rmtree(Path(code).parent, ignore_errors=True)
            write_json(self._state_file, {"port": state.get("port")})
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
        """The `data` of an answer; None while there is no answer."""
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
