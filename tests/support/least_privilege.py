"""A guard over all AWS calls of the suite: a call that no worker's policy allows fails the test that made it.

The stack tells who called. Calls of the product must fit a policy; while a drain or a command of a known worker runs,
they must fit that worker's. While a job of Dagster runs, they must also fit the role of its duty. Tests, their fixtures
and the demo data of the embedded stack are exempt, whether they call an adapter or a client of their own. Provisioning
has a policy that no other caller may use.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from types import FrameType
from typing import Any

import dagster as dg

from regworkers_core.acts import added_operations
from regworkers_core.adapters.aws.clients import AwsClients
from regworkers_core.engine.drain import Drain
from regworkers_core.infrastructure.policies.platform import ROLES, WORKERS
from regworkers_core.settings import PROJECT_ROOT
from regworkers_dagster.definitions import duty_of, tags_of_jobs
from tests.infrastructure.deploy.policies import Call, action_of, resources, statements_of

_PRODUCT = tuple(str(PROJECT_ROOT / name) for name in ("regworkers_core", "regworkers_dagster"))
# Means in whosever hands: an adapter that a test takes up is that test's.
_TOOLS = tuple(str(PROJECT_ROOT / "regworkers_core" / name) for name in ("adapters", "engine", "runtime.py"))
# What is not a worker: tests with their fixtures, benchmarks, demo data.
EXEMPT = tuple(str(PROJECT_ROOT / name) for name in ("tests", "benchmarks", "tools", "regworkers_local"))
# On the stack of every call, and not the caller: the wrapper of a guard, and simulated clients.
_BETWEEN = tuple(
    str(PROJECT_ROOT / "tests" / name) for name in ("support/declared.py", "simulation/servers/client.py")
)
PROVISION = "provision"
# Flows whose every call, in whatever thread, is one worker's: a package, modules that begin so, or one function.
_FLOWS = {
    "regworkers_core.infrastructure.provision": PROVISION,
    "regworkers_core.infrastructure.found": "discovery",
    "regworkers_core.operations.cloudwatch:look_up": "logs",
    "regworkers_core.operations.dead_letters": "dead-letters",
    "regworkers_core.analytics.archive": "archive",
    "regworkers_core.analytics.funnel": "funnel",
    "regworkers_core.eligibility.invites": "invites",
    "regworkers_core.replication.backfill": "reconcile",
    "regworkers_core.operations.erasure": "erasure",
    "regworkers_core.replication.cut_over": "cut-over",
    "regworkers_core.replication.shadow": "shadow",
    "regworkers_core.operations.table_check": "shadow",
}


def _place(name: str) -> tuple[str, str]:
    """How the names of a flow's files begin, and its function, empty: any. Raises AttributeError for no such flow."""
    module, _, function = name.partition(":")
    if function:
        getattr(import_module(module), function)
    origin: Any = find_spec(module).origin  # type: ignore[union-attr]
    return origin.removesuffix("__init__.py").removesuffix(".py"), function


FLOWS = {_place(name): worker for name, worker in _FLOWS.items()}
# The save drain that rebuilds the replica under another role is known by the key that it signs with.
_OF_REBUILDING = "producer-key/provision"
_running: ContextVar[str] = ContextVar("worker of the guard", default="")


@dataclass(slots=True)
class _Acting:
    """A role while one of its jobs or sensors runs; `active` until it ends."""

    role: str
    active: bool = True


_duty: ContextVar[_Acting | None] = ContextVar("duty of the guard", default=None)
# What a thread has in place of a context: who acted when it was started.
_STARTED_BY = "_acting_of_the_guard"


@dataclass(frozen=True, slots=True)
class Made:
    """One call and the worker that made it, empty: not known which; `duty` is the role of the job that runs."""

    worker: str
    call: Call
    duty: str = ""


# The web application reads MongoDB as `desk`, and has the AWS role of its service account.
_ROLES = {**ROLES, "desk": ROLES["web"]}
# No role has the jobs of the embedded stack.
DUTIES = {job: duty_of(job) for job in tags_of_jobs().keys() - {each.job for each in added_operations()}}
Policies = Mapping[str, tuple[tuple[frozenset[str], tuple[str, ...]], ...]]


def policies(without: tuple[str, str] | None = None) -> Policies:
    """Actions and patterns of resources by worker; `without` is a worker (`*`: each) and an action that it shall
    lack. A prefix may be any: every test has its own.
    """
    return {
        worker.name: tuple(
            (
                frozenset(
                    action
                    for action in statement["Action"]
                    if without not in ((worker.name, action), ("*", action))
                ),
                tuple(resource.replace("PREFIX", "*") for resource in statement["Resource"]),
            )
            for statement in statements_of(worker)
        )
        for worker in WORKERS
    }


class Guard:
    """Judges calls; `broken` has those that no policy allowed. `keep` notes all others as well."""

    def __init__(self, held_to: Policies | None = None, *, keep: bool = False) -> None:
        self._policies = held_to or policies()
        self._lock = threading.Lock()
        self._keep = keep
        self.broken: set[Made] = set()
        self.made: set[Made] = set()
        # Most calls of a run are the same few.
        self.allowed = lru_cache(maxsize=10_000)(self._allowed)

    def note(self, made: Made) -> None:
        fine = self.allowed(made)
        with self._lock:
            if self._keep:
                self.made.add(made)
            if not fine:
                self.broken.add(made)

    def taken(self) -> set[Made]:
        """What was broken since the last time."""
        with self._lock:
            broken, self.broken = self.broken, set()
        return broken

    def _allowed(self, made: Made) -> bool:
        if made.duty and not any(self._allows(worker, made.call) for worker in _ROLES[made.duty]):
            return False
        if made.worker in self._policies:
            rebuilds = made.worker == "save" and made.call.resource.endswith(_OF_REBUILDING)
            return self._allows("rebuild" if rebuilds else made.worker, made.call)
        return any(self._allows(name, made.call) for name in self._policies if name != PROVISION)

    def _allows(self, worker: str, call: Call) -> bool:
        return any(
            call.action in actions and any(fnmatchcase(call.resource, pattern) for pattern in patterns)
            for actions, patterns in self._policies[worker]
        )


GUARD = Guard()
_watching = [GUARD]


def install() -> None:
    """From here on, every client that the project makes is watched, and every drain known by its name."""
    make = AwsClients.client

    def client(clients: AwsClients, service: str, **options: Any) -> Any:
        made = make(clients, service, **options)
        made.meta.events.register("before-parameter-build", _note)
        return made

    AwsClients.client = client  # type: ignore[method-assign]
    start = threading.Thread.start

    def started(thread: threading.Thread) -> None:
        setattr(thread, _STARTED_BY, _acting())
        start(thread)

    # What a job reads in parallel is the job's.
    threading.Thread.start = started  # type: ignore[method-assign]
    run = Drain.run

    def known(drain: Drain[Any]) -> Any:
        with running(drain.name):
            return run(drain)

    Drain.run = known  # type: ignore[method-assign]
    execute = dg.JobDefinition.execute_in_process

    def executed(job: dg.JobDefinition, *arguments: Any, **options: Any) -> Any:
        with acting_as(DUTIES.get(job.name, "")):
            return execute(job, *arguments, **options)

    dg.JobDefinition.execute_in_process = executed  # type: ignore[method-assign]


def role_of_the_job() -> str:
    """The role whose job or sensor runs in this context or started this thread; empty outside of any."""
    acting = _acting()
    return acting.role if acting is not None and acting.active else ""


def _acting() -> _Acting | None:
    return _duty.get() or getattr(threading.current_thread(), _STARTED_BY, None)


@contextmanager
def acting_as(role: str) -> Iterator[None]:
    """What this context does is the role's."""
    acting = _Acting(role)
    token = _duty.set(acting)
    try:
        yield
    finally:
        acting.active = False
        _duty.reset(token)


@contextmanager
def running(worker: str) -> Iterator[None]:
    """What this context and the threads of its drain call is the worker's."""
    token = _running.set(worker)
    try:
        yield
    finally:
        _running.reset(token)


@contextmanager
def watched(guard: Guard) -> Iterator[Guard]:
    """Another guard besides, for a moment."""
    _watching.append(guard)
    try:
        yield guard
    finally:
        _watching.remove(guard)


def _note(params: dict[str, Any], model: Any, **_: Any) -> None:
    worker = caller(sys._getframe(1))
    if worker is None:
        return
    service = model.service_model.service_name
    for resource in resources(service, model.name, params):
        made = Made(worker, Call(action_of(service, model.name), resource), role_of_the_job())
        for guard in tuple(_watching):
            guard.note(made)


def caller(frame: FrameType | None) -> str | None:
    """The worker whose code the call comes from, empty when that is not known, None for those who are exempt. The first
    file of ours above the adapters, on the way up the stack, says whether; what lies further up, which.
    """
    ours, decided, found = False, False, ""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(EXEMPT) and not file.startswith(_BETWEEN) and not decided:
            return None
        if file.startswith(_PRODUCT):
            ours = True
            decided = decided or not file.startswith(_TOOLS)
        if decided and not found:
            functions = ("", frame.f_code.co_name)
            here = (FLOWS[at] for at in FLOWS if file.startswith(at[0]) and at[1] in functions)
            found = next(here, "")
        frame = frame.f_back
    return found or (_running.get() if ours else None)


def explain(broken: Iterable[Made]) -> str:
    """The message of a failed test."""
    lines = sorted(
        f"{made.worker or 'some worker'}, {made.duty or 'no job'}: {made.call.action} on {made.call.resource}"
        for made in broken
    )
    return "AWS calls outside of the policies in regworkers_core/infrastructure/policies:\n" + "\n".join(
        lines
    )
