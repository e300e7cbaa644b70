"""A fan who is everywhere: entry, invites, claims, former versions, dead dead_messages, messages of a draw."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from fairdraw.terms import ALGORITHM
from regworkers_core.adapters.aws.tables import attributes
from regworkers_core.adapters.mongo.store import Documents
from regworkers_core.domain.claim import Claim, Invite, InviteType
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import MessageType, Op, RefusedRecord, ReplicationItem, encode
from regworkers_core.domain.selection import NON_WINNERS, MarketPhase
from regworkers_core.eligibility.case import Identity
from regworkers_core.eligibility.identity import IdentitySecret
from regworkers_core.engine.queue import Outgoing, Received
from regworkers_core.operations.erasure.erase import ErasureReport, erase
from regworkers_core.replication.scratch_database import Scratch
from regworkers_core.runtime import Runtime
from tests.support.drains import replicate_all
from tests.support.entries import put

FAN = {
    "email": "Planted.Fan+1@Quixilla-Mail.example",
    "firstName": "Quixilla-Ženevièva",
    "lastName": "Zandervögtsson",
    "globalUserId": "gu-planted-7f3c",
    "memberId": "m-planted-91c4",
    "unit": "household-planted-55",
}
COMPARABLE = FAN["email"].lower()
OTHER = EntryKey("summer", "other")
REF = "ref-of-the-fan"
OLD = "2026-01-01T00:00:00.000Z"
# Ids of what the fan has in a draw.
MARKET, CODE = MarketPhase("summer", "berlin", 1), "CODE-OF-THE-FAN"
LATER = MarketPhase("summer", NON_WINNERS, 2)
# The attributes of every dead letter.
SENT_WITH = {"reason": "DEFECT", "correlationId": "corr-1"}
MAIL_ONCE = "before.planted@quixilla-mail.example"


class Killed(BaseException):
    pass


def killed_at(step: str) -> Callable[[str], None]:
    def on_step(name: str) -> None:
        if name == step:
            raise Killed

    return on_step


def enter(runtime: Runtime, key: EntryKey, **changes: Any) -> dict[str, Any]:
    """As a writer puts it, with everything that names the fan."""
    return put(
        runtime,
        key,
        **{**FAN, "ref": REF, "createdAt": OLD, "updatedAt": OLD, "attributes": {"x": 1}, **changes},
    )


def plant(runtime: Runtime, key: EntryKey) -> None:
    """All that there can be of one fan; beside it an entry and an invite of another fan."""
    enter(runtime, key)
    put(runtime, OTHER, createdAt=OLD, updatedAt=OLD)
    replicate_all(runtime)
    invite(runtime, InviteType.EMAIL, COMPARABLE)
    invite(runtime, InviteType.GLOBAL_USER_ID, FAN["globalUserId"])
    invite(runtime, InviteType.EMAIL, "other@example.com")
    for kind, value in (
        (Identity.EMAIL, COMPARABLE),
        (Identity.GLOBAL_USER_ID, FAN["globalUserId"]),
        (Identity.MEMBER_ID, FAN["memberId"]),
    ):
        claim(runtime, key, kind, value)
    former = dict(runtime.database["entries"].find_one({"_id": key.document_id}) or {})
    runtime.database["superseded_entries"].insert_one(
        {
            "_id": f"{key.document_id}@1",
            "campaignId": key.campaign_id,
            "entryId": key.entry_id,
            "acceptance": "20260101T000000000Z-abcdef",
            "order": {"createdAt": OLD, "version": 1, "updatedAt": OLD},
            "former": {**former, "email": MAIL_ONCE},
        }
    )
    invite(runtime, InviteType.EMAIL, MAIL_ONCE)
    runtime.database["dead_letters"].insert_many(
        [
            {"_id": f"{name}@{kind}", "queue": "q", "campaignId": name.campaign_id, "entryId": name.entry_id}
            for kind in ("a", "b")
            for name in (key, OTHER)
        ]
    )


def invite(runtime: Runtime, kind: InviteType, value: str) -> None:
    runtime.invites.write([Invite("summer", kind, value, int(time.time()) + 86_400)])


def claim(runtime: Runtime, key: EntryKey, kind: Identity, value: str, age: float = 3600.0) -> Claim:
    table_key = IdentitySecret(runtime.secrets).hash().claim_key(key.campaign_id, kind, value)
    made = Claim(table_key, key.entry_id, time.time() - age, f"token-{kind.value}")
    runtime.dynamodb.put_item(TableName=runtime.names.demand_table, Item=attributes(made.as_item()))
    return made


def draw(runtime: Runtime, key: EntryKey, *, status: str = "PENDING") -> None:
    """The fan has won: a code, a selection and a row of the outbox; another row of the next phase waits."""
    database = runtime.database
    markets = {"berlin": {"status": "ASSIGNING"}}
    fields = {"status": "PUBLISHED", "terms": {"algorithm": ALGORITHM}, "markets": markets}
    phases = {str(phase): {"phase": phase, **fields} for phase in (1, 2)}
    database["draws"].insert_one(
        {"_id": "summer", "campaignId": "summer", "drawId": "summer", "token": 0, "phases": phases}
    )
    named = {"campaignId": "summer", "marketId": "berlin", "phase": 1, "ref": REF, "entryId": key.entry_id}
    database["codes"].insert_one({"_id": CODE, **named, "position": 7, "status": "ASSIGNED"})
    database["selections"].insert_one(
        {"_id": MARKET.key(REF), **named, "code": CODE, "position": 7, "rank": 1}
    )
    row = {"type": "winner", "resultHash": "0" * 64, "notBefore": OLD, "status": status}
    database["outbox"].insert_one({"_id": MARKET.key(REF), **named, **row})
    other = {**named, "ref": "other", "entryId": "other"}
    database["outbox"].insert_one({"_id": MARKET.key("other"), **other, **row, "status": "PENDING"})
    later = {**named, "marketId": NON_WINNERS, "phase": 2}
    database["outbox"].insert_one({"_id": LATER.key(REF), **later, **row, "status": "PENDING"})


def drills(runtime: Runtime, key: EntryKey) -> list[Documents]:
    """The databases of two drills that were killed, a minute and two days ago, with rows of the fan and of another."""
    made = []
    for age in (60.0, 172_800.0):
        at = datetime.fromtimestamp(time.time() - age, UTC)
        scratch = Scratch(runtime, f"{runtime.names.prefix}drill-{at:%Y%m%d%H%M%S}").make()
        scratch.insert_many([{"_id": each.document_id, **FAN} for each in (key, OTHER)])
        made.append(scratch)
    return made


def dead_letters(runtime: Runtime, key: EntryKey) -> None:
    """One alone, one among others, one that cannot be read, and one of another fan; a refused record of each; and
    copies on S3.
    """
    items = [ReplicationItem(each, Op.UPSERT).as_json() for each in (OTHER, key)]
    refused = [RefusedRecord("shard", "7", each.pk, each.sk).as_json() for each in (OTHER, key)]
    bodies = {
        "replication-queue": [
            encode(MessageType.REPLICATE, "corr-1", items[1:]),
            encode(MessageType.REPLICATE, "corr-1", items),
            encode(MessageType.REPLICATE, "corr-1", items[:1]),
            orjson.dumps({"email": FAN["email"]}),
            *(encode(MessageType.REPLICATE, "corr-1", [record]) for record in refused),
        ],
        "notification-queue": [
            encode(
                MessageType.NOTIFY,
                "corr-1",
                [{"key": MARKET.key(REF), "campaignId": key.campaign_id, "entryId": key.entry_id}],
            )
        ],
        "analytics-queue": [
            encode(
                MessageType.PUBLISH,
                "corr-1",
                [{"data": {"campaignId": key.campaign_id, "entryId": key.entry_id, "ref": REF}}],
            )
        ],
    }
    lines = []
    for name, messages in bodies.items():
        queue = runtime.names.dead_letter_queue(runtime.names.prefix + name)
        assert runtime.queue(queue).send([Outgoing(body, SENT_WITH) for body in messages]) == []
        lines += [orjson.dumps({"queue": queue, "body": body.decode()}) + b"\n" for body in messages]
    runtime.objects.put_bytes("dead-letters/exports/all.jsonl", b"".join(lines))
    runtime.objects.put_bytes("dead-letters/exports/own.jsonl", lines[0])


def erased(runtime: Runtime, key: EntryKey, **options: Any) -> ErasureReport:
    def no_sleep(_seconds: float) -> None:
        raise AssertionError("nothing to wait for")

    return erase(runtime, key, dry_run=False, **{"sleep": no_sleep, **options})


def items(runtime: Runtime) -> list[Mapping[str, Any]]:
    """Every item of the demand table, raw."""
    return list(runtime.dynamodb.scan(TableName=runtime.names.demand_table)["Items"])


def sort_keys(runtime: Runtime) -> set[str]:
    return {each["SK"]["S"] for each in items(runtime)}


def dead_messages(runtime: Runtime, queue: str) -> list[Received]:
    """All messages of a dead-letter queue, which get them back."""
    found: list[Received] = []
    dead = runtime.queue(runtime.names.dead_letter_queue(runtime.names.prefix + queue))
    while batch := dead.receive(10, 0, 30):
        found += batch
    dead.change_visibility([(message, 0) for message in found])
    return found


def bodies(runtime: Runtime, queue: str) -> list[str]:
    return [message.body for message in dead_messages(runtime, queue)]
