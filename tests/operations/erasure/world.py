"""A fan who is everywhere: entry, invites, claims, former versions, dead letters, messages of a draw."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from regworkers_core.adapters.aws.tables import attributes
from regworkers_core.domain.claim import Claim
from regworkers_core.domain.invite import Invite, InviteType
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import MessageType, Op, ReplicationItem, encode
from regworkers_core.domain.selection import MarketPhase
from regworkers_core.eligibility.case import Identity
from regworkers_core.eligibility.identity import IdentitySecret
from regworkers_core.engine.queue import Outgoing
from regworkers_core.operations.erasure.erase import ErasureReport, erase
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
    """The fan has won: a code, a selection, a row of the outbox, and a row that waits in the next phase."""
    database = runtime.database
    phase = {"phase": 1, "status": "PUBLISHED", "markets": {"berlin": {"status": "ASSIGNING"}}}
    database["draws"].insert_one(
        {"_id": "summer", "campaignId": "summer", "drawId": "summer", "token": 0, "phases": {"1": phase}}
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


def dead_letters(runtime: Runtime, key: EntryKey) -> None:
    """One alone, one among others, one that cannot be read, and one of another fan; and copies on S3."""
    items = [ReplicationItem(each, Op.UPSERT).as_json() for each in (OTHER, key)]
    bodies = {
        "replication-queue": [
            encode(MessageType.REPLICATE, "corr-1", items[1:]),
            encode(MessageType.REPLICATE, "corr-1", items),
            encode(MessageType.REPLICATE, "corr-1", items[:1]),
            orjson.dumps({"email": FAN["email"]}),
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
        attributes_ = {"reason": "DEFECT", "correlationId": "corr-1"}
        assert runtime.queue(queue).send([Outgoing(body, attributes_) for body in messages]) == []
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


def bodies(runtime: Runtime, queue: str) -> list[str]:
    """Of all messages of a dead-letter queue; they are hidden afterwards."""
    found: list[str] = []
    name = runtime.names.dead_letter_queue(runtime.names.prefix + queue)
    while batch := runtime.queue(name).receive(10, 0, 30):
        found += [message.body for message in batch]
    return found
