"""What Dagster costs while residents stand ready and no entry arrives, beside bare instances of Dagster that run in the
same minutes: `dagster.yaml` of the project, one asset, no sensor.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.figures import spread
from benchmarks.replication.data import system
from regworkers_core.drains.heartbeat import beats
from regworkers_core.drains.residency import STANDBY, WORKING
from regworkers_core.settings import PROJECT_ROOT
from regworkers_local import processes
from regworkers_local.dagster_server import write_home
from regworkers_local.servers import HOST
from regworkers_local.state import process_refs, read_json
from tests.support.fault_proxy import free_port
from tests.support.waiting import wait_until

_RESIDENTS = ("enqueue", "save", "publish")
_SETTLE_SECONDS = 60.0
_BARE = (
    "import dagster as dg\n\n\n@dg.asset\ndef one() -> None: ...\n\n\ndefs = dg.Definitions(assets=[one])\n"
)

Family = dict[str, psutil.Process]


def measure(minutes: int, say: Callable[[str], None]) -> dict[str, Any]:
    """CPU in percent of a core, each minute a round. `bare` has a code server of its own like ours, the daemon and the
    webserver of `bareDefault` start theirs.
    """
    with ExitStack() as scene:
        families = {"product": scene.enter_context(_product())}
        families["bare"] = scene.enter_context(_bare(own_code_server=True))
        families["bareDefault"] = scene.enter_context(_bare(own_code_server=False))
        say("all run")
        time.sleep(_SETTLE_SECONDS)
        looks = [(time.monotonic(), _cpu(families))]
        for _ in range(minutes):
            time.sleep(60)
            looks.append((time.monotonic(), _cpu(families)))
    percent = [
        {
            name: {each: 100 * (now[name][each] - before[name][each]) / (at - since) for each in now[name]}
            for name in now
        }
        for (since, before), (at, now) in pairwise(looks)
    ]
    found: dict[str, Any] = {
        name: {
            "all": spread(sum(each[name].values()) for each in percent),
            **{part: spread(each[name][part] for each in percent) for part in percent[0][name]},
        }
        for name in families
    }
    for bare, above in (("bare", "aboveBare"), ("bareDefault", "aboveBareDefault")):
        found[above] = spread(sum(each["product"].values()) - sum(each[bare].values()) for each in percent)
    return found


@contextmanager
def _product() -> Iterator[Family]:
    """With two residents of each kind."""
    with system("idle") as (runtime, dagster):
        wait_until(
            lambda: all(
                {beat.role for beat in beats(runtime.heartbeats, drain)} == {WORKING, STANDBY}
                for drain in _RESIDENTS
            ),
            seconds=180,
            what="two residents of each kind",
        )
        refs = process_refs(read_json(dagster.folder / "dagster.json"))
        yield {name: psutil.Process(ref.pid) for name, ref in refs.items()}


@contextmanager
def _bare(*, own_code_server: bool) -> Iterator[Family]:
    with tempfile.TemporaryDirectory(prefix="bare-") as name:
        folder = Path(name)
        home, code, log = folder / "home", folder / "code.sock", folder / "log"
        write_home(PROJECT_ROOT / "dagster.yaml", home)
        (folder / "bare.py").write_text(_BARE)
        location = {"grpc_server": {"socket": str(code)}} if own_code_server else {"python_module": "bare"}
        workspace = folder / "workspace.yaml"
        workspace.write_text(yaml.safe_dump({"load_from": [location]}))
        shared = ["-w", str(workspace)]
        port = str(free_port(str(folder)))
        commands = {
            "code": ["-m", "dagster", "api", "grpc", "--socket", str(code), "--module-name", "bare"],
            "webserver": ["-m", "dagster_webserver", "--host", HOST, "--port", port, *shared],
            "daemon": ["-m", "dagster._daemon", "run", *shared],
        }
        if not own_code_server:
            del commands["code"]
        refs = {}
        environment = {"PATH": "/usr/bin:/bin", "HOME": name, "DAGSTER_HOME": str(home)}
        try:
            for each, command in commands.items():
                refs[each] = processes.spawn(
                    [sys.executable, *command], cwd=folder, env=environment, log=log, interruptible=True
                )
                if each == "code":
                    wait_until(code.exists, seconds=60, what="the bare code server")
            yield {each: psutil.Process(ref.pid) for each, ref in refs.items()}
        finally:
            for process in processes.family(refs.values()):
                process.kill()


def _cpu(families: dict[str, Family]) -> dict[str, dict[str, float]]:
    """Seconds so far. Children count, alive or not, but for runs, which are those of the code server."""
    return {
        name: {
            part: sum(process.cpu_times()[:2]) if part == "code" else _with_children(process)
            for part, process in family.items()
        }
        for name, family in families.items()
    }


def _with_children(process: psutil.Process) -> float:
    """Of itself, of its children that ended, and of the others with theirs."""
    try:
        children = process.children()
        return sum(_with_children(child) for child in children) + sum(process.cpu_times()[:4])
    except psutil.NoSuchProcess:
        # It ended just now: its parent's times have it.
        return 0.0
