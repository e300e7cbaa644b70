"""One at a time at a queue, and every change on record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from regworkers_core.adapters.mongo.operator_actions import operator
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.held_lease import LeaseBusy, held_lease
from regworkers_core.engine.leases import Lease, LeaseHolder
from regworkers_core.operations.dead_letters.queues import DeadQueue
from regworkers_core.runtime import Runtime

# Actions of this part in `operator_actions` begin so.
DLQ = "dlq "
_LOOKED_AT = 200


@dataclass(slots=True)
class Working:
    """What is being done. The block puts its counts into `result`, and into `outcome` how it ended if not `done`."""

    action_id: str
    who: str
    lease: Lease
    result: dict[str, Any] = field(default_factory=dict)
    outcome: str = "done"


@contextmanager
def working(
    runtime: Runtime, queue: DeadQueue, command: str, arguments: Mapping[str, Any], *, who: str = ""
) -> Iterator[Working]:
    """Hold the queue's lease and keep an action around the block. Raises UsageError, which says who, while somebody
    else works on the queue. Actions of this queue that were killed get their end: nobody else can be at work.
    """
    name, who = f"dead-letters:{queue.source}", who or operator()
    try:
        with held_lease(
            runtime.leases, name, f"dlq-{command}", lease_seconds=runtime.settings.dead_letters.lease_seconds
        ) as lease:
            lease.save({"who": who, "what": command, "since": iso(runtime.clock())})
            _end_killed(runtime, queue)
            action_id = runtime.operator_actions.begins(DLQ + command, queue.name, arguments, who=who)
            work = Working(action_id, who, lease)
            try:
                yield work
            except BaseException as error:
                failed = {**work.result, "error": type(error).__name__}
                runtime.operator_actions.last_words(action_id, DLQ + command, "failed", failed)
                raise
            runtime.operator_actions.last_words(action_id, DLQ + command, work.outcome, work.result)
    except LeaseBusy:
        raise UsageError(_busy(runtime, queue, name)) from None


def _busy(runtime: Runtime, queue: DeadQueue, name: str) -> str:
    row = runtime.leases.get(LeaseHolder.key_of(name))
    state = row.state if row is not None else {}
    told = f"{state.get('who', 'somebody')} ({state.get('what', 'another run')} since {state.get('since', 'just now')})"
    return f"{queue.name} is being worked on by {told}: wait, or see `regworkers dlq history`"


def _end_killed(runtime: Runtime, queue: DeadQueue) -> None:
    for action in runtime.operator_actions.history(what=DLQ, limit=_LOOKED_AT):
        if action.target == queue.name and action.ended_at is None:
            runtime.operator_actions.ends(action.action_id, "killed", action.result)
