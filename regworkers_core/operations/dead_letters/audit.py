"""Who works on a queue: one command at a time, each recorded; and what the history says about messages that went.

An open document of `dead_letters` means that an entry's state is refused, and reconcile relies on it. The save drain
closes the documents of entries that it saves. The functions here close the others: entries that were removed, chunks
that are done, states that were saved in another way, and messages that were redriven or dropped and whose verdict can
never be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from regworkers_core.adapters.mongo.activity import operator
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import MessageType
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.leases import Lease, LeaseBusy, LeaseHolder, held_lease
from regworkers_core.operations.dead_letters.model import DeadMessage, DeadQueue
from regworkers_core.operations.dead_letters.verdict import PROVABLE, SETTLED, Assessor
from regworkers_core.runtime import Runtime

# The prefix of these commands in `operator_actions`.
DLQ = "dlq "
_LATEST_ACTIONS = 200
_RESOLVED = "resolved"


@dataclass(slots=True)
class Working:
    """The command at work."""

    action_id: str
    # The operator.
    who: str
    lease: Lease
    # Numbers, which the block sets.
    result: dict[str, Any] = field(default_factory=dict)
    # The block sets it if it is not `done`.
    outcome: str = "done"


@contextmanager
def working(
    runtime: Runtime, queue: DeadQueue, command: str, arguments: Mapping[str, Any], *, who: str = ""
) -> Iterator[Working]:
    """Hold the queue's lease and record the action. Raises UsageError, naming the holder, while another command works
    on the queue. Actions of this queue that never ended are recorded as killed: no other command can be at work.
    """
    name, who = f"dead-letters:{queue.source}", who or operator()
    actions = runtime.operator_actions
    try:
        with held_lease(
            runtime.leases, name, f"dlq-{command}", lease_seconds=runtime.settings.dead_letters.lease_seconds
        ) as lease:
            lease.save({"who": who, "what": command, "since": iso(runtime.clock())})
            for action in actions.history(what=DLQ, limit=_LATEST_ACTIONS):
                if action.target == queue.name and action.ended_at is None:
                    actions.ends(action.action_id, "killed", action.result)
            work = Working(actions.begins(DLQ + command, queue.name, arguments, who=who), who, lease)
            try:
                yield work
            except BaseException as error:
                failed = {**work.result, "error": type(error).__name__}
                actions.try_end(work.action_id, DLQ + command, "failed", failed)
                raise
            actions.try_end(work.action_id, DLQ + command, work.outcome, work.result)
    except LeaseBusy:
        row = runtime.leases.get(LeaseHolder.key_of(name))
        held = row.state if row is not None else {}
        what = f"{held.get('what', 'another run')} since {held.get('since', 'just now')}"
        raise UsageError(
            f"{queue.name} is being worked on by {held.get('who', 'another user')} ({what}): wait, or see "
            "`regworkers dlq history`"
        ) from None


def close_settled(runtime: Runtime, queue: DeadQueue, assessor: Assessor, *, by: str) -> int:
    """Close the open documents of a queue whose entry or chunk is settled. Returns their number."""
    if queue.kind not in PROVABLE:
        return 0
    closed = 0
    for page in runtime.dead_letters.open(queue.source):
        if queue.kind is MessageType.REPLICATE:
            settled = _settled_entries(page, assessor)
        else:
            settled = _done_chunks(runtime, page)
        closed += runtime.dead_letters.close(settled, _RESOLVED, at=iso(runtime.clock()), by=by)
    return closed


def _settled_entries(page: Sequence[dict[str, Any]], assessor: Assessor) -> list[dict[str, Any]]:
    keys = {
        document["_id"]: EntryKey(document["campaignId"], document["entryId"])
        for document in page
        if isinstance(document.get("campaignId"), str) and isinstance(document.get("entryId"), str)
    }
    known = assessor.entries(list(keys.values())) if keys else {}
    return [each for each in page if each["_id"] in keys and known[keys[each["_id"]]].verdict in SETTLED]


def _done_chunks(runtime: Runtime, page: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    names = ("campaignId", "marketId", "phase", "chunk")
    ids = {document["_id"]: ":".join(str(document.get(name)) for name in names) for document in page}
    rows = runtime.chunks.get(sorted(set(ids.values())))
    return [document for document in page if "doneAt" in rows.get(ids[document["_id"]], {})]


def close_moved(runtime: Runtime, messages: Sequence[DeadMessage], *, before: str, by: str) -> None:
    """After messages were redriven or dropped: close one document that failed before `before` for each item that no
    verdict will ever close.
    """
    at = iso(runtime.clock())
    for message in messages:
        if message.queue.kind in PROVABLE and message.unreadable is None:
            continue
        cause = {"queue": message.queue.source, "fingerprint": message.fingerprint}
        named: list[dict[str, Any]] = [{**cause, **item.fields} for item in message.items if item.fields]
        # A message that names nothing is identified by its correlation id.
        nameless = {**cause, "campaignId": None, "correlationId": message.received.correlation_id}
        for about in named or [nameless]:
            runtime.dead_letters.close_one(about, _RESOLVED, before=before, at=at, by=by)
