"""The processes of a campaign: `python -m tests.faults.workers <variant>` forks one for each line on its
standard input. `variant` names what is broken on purpose (see victim.py).

A line is JSON: a `Job` to be forked, or `{"pid": 1, "signal": 9}` for one of its children. It writes the history of
all of them to standard output, a JSON line of fewer than PIPE_BUF bytes each, so that the lines of processes that are
killed stay whole and in order.
"""

from __future__ import annotations

import gc
import importlib
import json
import logging
import os
import random
import resource
import select
import sys
import time
import traceback
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from botocore.exceptions import HTTPClientError

from fairdraw import scheduling
from regworkers_core.adapters.aws.tables import attributes
from regworkers_core.adapters.judged_entries import Judgement, ReplicationProgress, Tell
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.drains.runner import drain_limits, run_drain
from regworkers_core.eligibility.judging import judge_entries
from regworkers_core.engine.stop import StopSignal
from regworkers_core.flows import DRAINS
from regworkers_core.observability.logs import describe
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw_run import DrawOptions, DrawRun
from tests.faults.victim import VARIANTS
from tests.support import entries
from tests.support.figures import leave_blank
from tests.support.runtimes import ADDRESSES, test_settings

_PIPE_BYTES = 4096
# Small batches and short waits: a process dies between others that are done, waiting or in flight.
SECTIONS: dict[str, Any] = {
    "enqueue": {"batch_records": 10, "concurrency": 2},
    "save": {"batch_messages": 2, "concurrency": 2},
    "analytics": {"batch_messages": 2, "concurrency": 2},
    "selection": {"chunk_winners": 3, "batch_messages": 2, "concurrency": 2},
}
# Of processes under fire only: the one who provisions, recovers and looks is more patient.
SHORT_TIMEOUTS: dict[str, Any] = {
    **SECTIONS,
    "aws": {"connect_timeout_seconds": 0.5, "read_timeout_seconds": 1.0},
    "mongo": {
        "connect_timeout_seconds": 0.5,
        "socket_timeout_seconds": 1.0,
        "server_selection_timeout_seconds": 1.0,
    },
    "retry": {"attempts": 3, "total_seconds": 2.0, "breaker_failures": 5, "breaker_reset_seconds": 0.3},
}
_SECOND = len("2026-11-26T10:00:00")
LOAD, DRAWN = "load", "drawn"
# Of a draw, each a call of its own, as the jobs make them.
STEPS = ("judge", "freeze", "commit", "seed", "rank", "allocate", "report", "publish")
KEYS = 40


@dataclass(frozen=True, slots=True)
class Job:
    """One process. `offset` is how many seconds its clock is off; `file_bytes` the longest file that it may write (0:
    any); `first` and `steps` are the step of a draw at which it begins, and after how many it ends.
    """

    name: str
    role: str
    prefix: str
    addresses: dict[str, str]
    seed: int
    seconds: float
    offset: float = 0.0
    file_bytes: int = 0
    first: int = 0
    steps: int = 9

    def line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


class Teller:
    """Writes lines of the history as the process `name`."""

    def __init__(self, name: str, descriptor: int) -> None:
        self._name, self._descriptor = name, descriptor

    def __call__(self, kind: str, **facts: Any) -> None:
        line = json.dumps({"k": kind, "t": round(time.monotonic(), 4), "p": self._name, **facts}).encode()
        if len(line) >= _PIPE_BYTES:
            line = json.dumps(
                {"k": kind, "t": round(time.monotonic(), 4), "p": self._name, "cut": True}
            ).encode()
        os.write(self._descriptor, line + b"\n")


def shift_clock(offset: float) -> Callable[[], float]:
    """The clock that everything in this process reads, `offset` seconds off. Monotonic clocks stay."""
    true = time.time

    def shifted() -> float:
        return true() + offset

    time.time = shifted

    class World(scheduling.RealWorld):
        now = staticmethod(shifted)

    scheduling.install(World)
    return shifted


def work(job: Job, tell: Teller) -> None:
    clock = shift_clock(job.offset) if job.offset else time.time
    if job.file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job.file_bytes, job.file_bytes))
    runtime = Runtime(test_settings(job.prefix, job.addresses, **SHORT_TIMEOUTS), clock=clock)
    try:
        ROLES[job.role](runtime, job, tell)
    except UsageError as refusal:
        tell("refused", role=job.role, error=type(refusal).__name__, text=str(refusal)[:300])
    except Failure as failure:
        tell("failed", role=job.role, error=type(failure).__name__, text=str(failure)[:300])
    except Exception as error:
        if job.file_bytes and "the disk is full" in describe(error):
            tell("failed", role=job.role, error=type(error).__name__, text=str(error)[:300])
            return
        where = "".join(traceback.format_exception(error))[-2500:]
        tell("raised", role=job.role, error=type(error).__name__, text=str(error)[:300], where=where)


def write(runtime: Runtime, job: Job, tell: Teller) -> None:
    """Puts, changes and removes entries of one campaign, alone, as long as it may."""
    chosen, end = random.Random(job.seed), time.monotonic() + job.seconds
    while time.monotonic() < end:
        # On a busy machine a call may get no answer: it may or may not have happened.
        with suppress(HTTPClientError):
            _change(runtime, chosen, tell)
        time.sleep(chosen.uniform(0.0, 0.06))


def _change(runtime: Runtime, chosen: random.Random, tell: Teller) -> None:
    key = entries.key(f"e{chosen.randrange(KEYS)}", LOAD)
    before = entries.source(runtime, key)
    number = uuid.uuid4().hex[:12]
    # The embedded MongoDB compares times by the second: two lives of an entry must not begin in the same one.
    of_age = before is not None and before["createdAt"][:_SECOND] < iso(time.time())[:_SECOND]
    if before is not None and of_age and chosen.random() < 0.15:
        order = [before["createdAt"], int(before["version"]), before["updatedAt"]]
        tell("ask", op="remove", n=number, key=key.document_id, order=order)
        entries.remove(runtime, key)
    else:
        _put(runtime, key, before, number, tell)
    tell("answer", n=number)


def _put(runtime: Runtime, key: EntryKey, before: dict[str, Any] | None, number: str, tell: Teller) -> None:
    now = iso(time.time())
    version, created = (1, now) if before is None else (int(before["version"]) + 1, before["createdAt"])
    item = entries.item(key, firstName=number, version=version, createdAt=created, updatedAt=now)
    tell("ask", op="put", n=number, key=key.document_id, order=[created, version, now], content=number)
    runtime.dynamodb.put_item(TableName=runtime.names.demand_table, Item=attributes(item))


def drain(name: str, runtime: Runtime, job: Job, tell: Teller) -> None:
    (spec,) = [spec for spec in DRAINS if spec.name == name]
    limits = drain_limits(runtime.settings, spec, idle_seconds=1.0, max_seconds=job.seconds)
    report = run_drain(runtime, spec, limits, stop=StopSignal(), run_id=job.name)
    tell("report", **report.as_dict())


def judged(runtime: Runtime, campaign: Campaign, *, as_of: str, folder: Path, tell: Tell) -> Judgement:
    """By the rules, without the page whose plots cost seconds."""
    judge_entries(runtime, campaign, as_of=as_of, folder=folder, tell=tell)
    return Judgement()


def draw(runtime: Runtime, job: Job, tell: Teller) -> None:
    run = DrawRun(
        runtime,
        DRAWN,
        DrawOptions(
            run_id=job.name,
            settled=lambda _campaign: ReplicationProgress(),
            judge=partial(judged, runtime),
            patience_seconds=1.0,
        ),
    )
    for name in STEPS[job.first :][: job.steps]:
        tell("step", step=name, state="begun")
        step = run.publish(run.word) if name == "publish" else getattr(run, name)()
        tell("step", step=name, state=step.state)
        if not step.state.is_over:
            return


ROLES: dict[str, Callable[[Runtime, Job, Teller], None]] = {
    "writer": write,
    "draw": draw,
    **{spec.name: partial(drain, spec.name) for spec in DRAINS},
}


def _forked(line: dict[str, Any], alive: dict[int, str], history: int) -> None:
    job = Job(**line)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            random.seed(job.seed)
            work(job, Teller(job.name, history))
            code = 0
        finally:
            # Threads of drivers and non-daemons have nothing left to do.
            os._exit(code)
    alive[child] = job.name
    facts = {"pid": child, "role": job.role, "offset": job.offset, "fileBytes": job.file_bytes}
    Teller(job.name, history)("born", **facts)


def _warm_up() -> None:
    """Read the descriptions of AWS' services once, which takes each process a second, and import what draws import
    late. Connects to nothing.
    """
    leave_blank()
    importlib.import_module("regworkers_core.selection.report.build")
    nowhere = dict.fromkeys(ADDRESSES, "http://127.0.0.1:1")
    clients = Runtime(test_settings("", nowhere)).aws
    for service in ("dynamodb", "dynamodbstreams", "sqs", "s3", "secretsmanager"):
        clients.client(service)
    gc.freeze()


def main(variant: str = "good") -> None:
    _warm_up()
    VARIANTS[variant]()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)
    history = os.dup(1)
    os.dup2(2, 1)
    alive: dict[int, str] = {}
    waiting = b""
    Teller("ancestor", history)("ready")
    while True:
        if select.select([0], [], [], 0.02)[0]:
            piece = os.read(0, 65536)
            if not piece:
                break
            *lines, waiting = (waiting + piece).split(b"\n")
            for line in map(json.loads, lines):
                if "signal" not in line:
                    _forked(line, alive, history)
                elif line["pid"] in alive:
                    os.kill(line["pid"], line["signal"])
        while alive and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            status = os.waitstatus_to_exitcode(ended[1])
            Teller(alive.pop(ended[0]), history)("ended", pid=ended[0], status=status)
    for pid in alive:
        os.kill(pid, 9)


if __name__ == "__main__":
    main(*sys.argv[1:])
