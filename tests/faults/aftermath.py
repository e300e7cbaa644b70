"""The world of a round before its faults and after them: what is put there, how it recovers, and all that it holds."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import orjson

from regworkers_core.adapters.aws.tables import attributes
from regworkers_core.analytics.publishing import refusal
from regworkers_core.domain.reasons import Failure, Reason, UsageError
from regworkers_core.domain.snapshot import BlownFuse
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.defects import hold_of, remove_hold
from regworkers_core.flows import DRAINS
from regworkers_core.operations.dead_letters.drop import DropOptions, drop
from regworkers_core.operations.dead_letters.model import Choice, dead_queues
from regworkers_core.operations.dead_letters.redrive import RedriveOptions, redrive
from regworkers_core.operations.dead_letters.verdict import Assessor
from regworkers_core.replication.enqueue.stream_probe import has_unread
from regworkers_core.replication.settled import settled
from regworkers_core.runtime import Runtime
from regworkers_core.selection.drains import NOTIFICATIONS
from regworkers_core.selection.draw_run import DrawOptions, DrawRun
from tests.faults.workers import DRAWN, judged
from tests.support import entries
from tests.support.drains import replicate_all, run
from tests.support.kafka import published

Line = dict[str, Any]
Tell = Callable[..., None]
MARKETS = ("berlin", "paris")
ENTRANTS, CAPACITY, CODES = 24, 6, 12
RECOVERY_SECONDS = 120.0
# Clocks are at most as much ahead.
AHEAD_SECONDS = 3600.0
# Of a phase of a draw: what is decided once.
_DECIDED = (
    "freeze",
    "manifest",
    "manifestHash",
    "publishedAt",
    "seedFile",
    "ranking",
    "resultHash",
    "outcomes",
    "confirmedAt",
)


def set_up(runtime: Runtime, tell: Tell, steps: int) -> None:
    """A closed campaign whose entrants are replicated, codes for those who win, and the first `steps` of its draw."""
    now = iso(time.time())
    for number in range(ENTRANTS):
        key = entries.key(f"e{number}", DRAWN)
        ref = hashlib.sha256(f"{runtime.names.prefix}{number}".encode()).hexdigest()[:32]
        wanted = list(MARKETS) if number % 2 else [MARKETS[number % 4 // 2]]
        # Campaigns count who entered while they were open.
        fields = {"ref": ref, "markets": wanted, "createdAt": "2026-01-15T08:00:00.000Z", "updatedAt": now}
        item = entries.item(key, firstName=f"n{number}", **fields)
        order = [item["createdAt"], item["version"], item["updatedAt"]]
        tell("ask", op="put", n=ref, key=key.document_id, order=order, content=item["firstName"])
        runtime.dynamodb.put_item(TableName=runtime.names.demand_table, Item=attributes(item))
        tell("answer", n=ref)
        tell("entrant", ref=ref)
    markets = [{"marketId": each, "name": each, "capacity": CAPACITY} for each in MARKETS]
    campaign = {"_id": DRAWN, "slug": DRAWN, "name": DRAWN, "status": "CLOSED", "markets": markets}
    dates = {"opensAt": "2026-01-01T00:00:00.000Z", "closesAt": "2026-02-01T00:00:00.000Z"}
    runtime.database["campaigns"].insert_one({**campaign, **dates})
    runtime.database["codes"].insert_many(
        {
            "_id": f"{market}-{position:04d}",
            "campaignId": DRAWN,
            "marketId": market,
            "position": position,
            "status": "AVAILABLE",
        }
        for market in MARKETS
        for position in range(1, CODES + 1)
    )
    # The load is replicated under fire; a draw that waits for it would get no further.
    replicate_all(runtime)
    for step in islice(_draw(runtime).steps(unasked=True), steps):
        tell("step", step=step.name, state=step.state, before=True)


def _draw(runtime: Runtime) -> DrawRun:
    return DrawRun(
        runtime,
        DRAWN,
        DrawOptions(
            run_id="supervisor",
            settled=lambda campaign: settled(runtime, campaign),
            judge=partial(judged, runtime),
        ),
    )


def recover(runtime: Runtime, tell: Tell) -> list[str]:
    """Healthy drains and a draw until nothing is open. Returns what still is after RECOVERY_SECONDS."""
    give_up = time.monotonic() + RECOVERY_SECONDS
    while True:
        trouble = list(_once(runtime, tell))
        waits = trouble or _open(runtime)
        if not waits or time.monotonic() > give_up:
            return waits
        # Leases and hidden messages of processes that died have to run out.
        time.sleep(0.2)


def _once(runtime: Runtime, tell: Tell) -> Iterator[str]:
    try:
        for step in _draw(runtime).steps(unasked=True):
            if not step.state.is_over:
                yield f"the draw is {step.state} at {step.name}"
    except (Failure, UsageError) as failure:
        yield f"the draw: {type(failure).__name__}: {failure}"
    work_off_killed(runtime, tell)
    # A draw that was confirmed by a clock ahead lets its messages wait for as long: they do, and are sent then.
    later = Runtime(runtime.settings, clock=lambda: time.time() + AHEAD_SECONDS)
    # After the draw, whose steps tell of themselves again.
    for spec in DRAINS:
        if (blown := hold_of(runtime.leases, BlownFuse, spec.name)) is not None:
            # As an operator does, once the cause is gone.
            tell("fuse", drain=spec.name, reason=blown.reason)
            remove_hold(runtime.leases, BlownFuse, spec.name)
        run(later if spec is NOTIFICATIONS else runtime, spec, idle_seconds=0.05)


def work_off_killed(runtime: Runtime, tell: Tell) -> None:
    """Processes died of none of these messages: send those again that are needed, and drop the others."""
    killed, assessor = Choice(reason=Reason.KILLED), Assessor(runtime, refusal)
    for queue in dead_queues(runtime.names):
        if not runtime.queue(queue.name).depth().total:
            continue
        sent = redrive(
            runtime, queue, assessor, RedriveOptions(killed, dry_run=False, at_once=True)
        ).sent.total()
        dropped = drop(runtime, queue, assessor, DropOptions(killed, dry_run=False)).dropped
        tell("worked off", queue=queue.name.removeprefix(runtime.names.prefix), sent=sent, dropped=dropped)


def _open(runtime: Runtime) -> list[str]:
    names = runtime.names
    waits = [
        f"{depth} messages on {name.removeprefix(names.prefix)}"
        for name in (names.replication_queue, names.selection_queue, names.analytics_queue)
        if (depth := runtime.queue(name).depth().total)
    ]
    record = runtime.draws.get(DRAWN)
    waits += ["no draw"] if record is None else []
    for market, entry in (record.phases[1].markets if record is not None else {}).items():
        waits += [f"market {market} is {entry['status']}"] if entry["status"] != "COMPLETED" else []
    unsent = runtime.database["outbox"].count_documents({"status": {"$ne": "SENT"}})
    waits += [f"{unsent} messages are not sent"] if unsent else []
    waits += ["unread records"] if has_unread(runtime.streams, runtime.leases, within_seconds=5.0) else []
    return waits


def look(runtime: Runtime, tell: Tell, known: dict[str, Any]) -> None:
    """Tell of every document and decision that differs from `known`, what the last look found."""
    for state in replica(runtime):
        if known.get(state["key"]) != state:
            known[state["key"]] = state
            tell("seen", **state)
    for draw in runtime.database["draws"].find():
        phase = draw.get("phases", {}).get("1", {})
        fields = {name: _hash(phase[name]) for name in _DECIDED if name in phase}
        if known.get(f"draw {draw['_id']}") != fields:
            known[f"draw {draw['_id']}"] = fields
            tell("decided", draw=draw["_id"], fields=fields)


def replica(runtime: Runtime) -> Iterator[Line]:
    for document in runtime.database["entries"].find():
        order = document["_replication"]
        yield {
            "key": document["_id"],
            "order": [order.get("createdAt", ""), order.get("version", 0), order.get("updatedAt", "")],
            "deleted": document.get("deletedAt") is not None,
            "content": document.get("firstName"),
        }


def tell_all(runtime: Runtime, tell: Tell) -> None:
    """All that the round has left, which takes the messages for fans off their queue."""
    database, names = runtime.database, runtime.names
    for page in runtime.dynamodb.get_paginator("scan").paginate(TableName=names.demand_table):
        for item in page["Items"]:
            if item.get("entityType", {}).get("S") != "ENTRY":
                continue
            version = item.get("replicatedVersion", {}).get("N")
            tell(
                "source",
                key=f"{item['campaignId']['S']}:{item['entryId']['S']}",
                order=[item["createdAt"]["S"], int(item["version"]["N"]), item["updatedAt"]["S"]],
                content=item["firstName"]["S"],
                flag="needsReplication" in item and item["needsReplication"].get("BOOL", True),
                replicatedVersion=None if version is None else int(version),
            )
    for state in replica(runtime):
        tell("replica", **state)
    for record in published(runtime):
        event = record.event
        order = [event["data"].get(name) for name in ("createdAt", "version", "updatedAt")]
        # Time and correlation id are those of the attempt and of the message that led to it: two attempts make one
        # event, which consumers drop by its id.
        event["data"].pop("replicatedAt", None)
        event.pop("time")
        event.pop("correlationid", None)
        facts = {"id": event["id"], "type": event["type"], "key": event["subject"], "order": order}
        tell("event", **facts, content=_hash(event))
    for name in (names.replication_queue, names.selection_queue, names.analytics_queue):
        tell("queue", name=name.removeprefix(names.prefix), depth=runtime.queue(name).depth().total)
    for name in names.queues:
        for body, attributes_ in _taken(runtime, names.dead_letter_queue(name)):
            short = name.removeprefix(names.prefix)
            reason = attributes_.get("reason", "")
            tell("dead", queue=short, reason=reason, error=str(attributes_.get("error", body))[:300])
    draw = runtime.draws.get(DRAWN)
    if draw is not None and draw.phases[1].result_hash:
        result = runtime.objects.get_bytes(f"draws/{DRAWN}/phase-1/result.txt")
        for line in result.decode().splitlines():
            tell("result", line=line)
    for each in database["codes"].find():
        facts = {"code": each["_id"], "market": each["marketId"], "status": each["status"]}
        tell("code", **facts, ref=each.get("ref"))
    for each in database["selections"].find():
        tell("selection", ref=each["ref"], code=each["code"], market=each["marketId"], rank=each["rank"])
    for each in database["outbox"].find():
        tell("outbox", key=each["_id"], ref=each["ref"], type=each["type"], status=each["status"])
    for body, _ in _taken(runtime, names.notification_queue):
        for item in body["items"]:
            facts = {"key": item["key"], "ref": item["ref"], "type": item["type"]}
            tell("notified", **facts, content=_hash(item))


def _taken(runtime: Runtime, name: str) -> Iterator[tuple[Any, dict[str, str]]]:
    queue = runtime.queue(name)
    while messages := queue.receive(10, 0, 60):
        for message in messages:
            yield orjson.loads(message.body), dict(message.attributes)
        queue.delete(messages)


def _hash(value: Any) -> str:
    content = orjson.dumps(value, option=orjson.OPT_SORT_KEYS, default=str)
    return hashlib.sha256(content).hexdigest()[:16]
