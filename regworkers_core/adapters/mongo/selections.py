"""The assignment of codes: `selections` (one document per winner, written once), `selection_chunks` (the plan of each
market), and the progress of markets in `draws`.

A chunk's row is written before its message is sent, so what has no `doneAt` can always be sent again. The writes to
`draws` are conditional on the state that they follow, move forward only and may be repeated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict, cast

from regworkers_core.adapters.mongo.draws import MarketStatus, PhaseStatus
from regworkers_core.adapters.mongo.store import (
    Document,
    Documents,
    Inserted,
    Store,
    bulk_update,
    by_prefix,
    insert_once,
    scan,
)
from regworkers_core.domain.selection import Chunk, MarketPhase, NoticeType, Planned
from regworkers_core.engine.dependency import Dependency

_WINNER_PARAMETERS = ("entryId", "code", "position", "rank", "resultHash")


class Selection(TypedDict):
    """A document of `selections`."""

    _id: str  # of its market and phase, with the ref
    campaignId: str
    marketId: str
    phase: int
    ref: str  # the winner's reference
    entryId: str
    code: str  # what the winner buys with
    position: int
    rank: int  # in the order of the draw, from 1
    resultHash: str
    selectedAt: str
    runId: str


class Selections(Store):
    """Every method raises TransientFailure when MongoDB cannot answer."""

    def write(
        self, market: MarketPhase, winners: Sequence[Planned], result_hash: str, *, at: str, run_id: str
    ) -> Inserted:
        """One document per winner under the key (campaign, market, phase, ref)."""
        documents = [
            Selection(
                _id=market.key(winner.ref),
                campaignId=market.campaign_id,
                marketId=market.market_id,
                phase=market.phase,
                ref=winner.ref,
                entryId=winner.entry_id,
                code=winner.code,
                position=winner.position,
                rank=winner.rank,
                resultHash=result_hash,
                selectedAt=at,
                runId=run_id,
            )
            for winner in winners
        ]
        rows = cast("list[Document]", documents)
        return insert_once(self._collection, self._dependency, rows, _WINNER_PARAMETERS)

    def count(self, market: MarketPhase) -> int:
        return self._count(market.as_fields())

    def codes(self, keys: Sequence[str]) -> list[str]:
        """The codes of the winners with these keys; most keys have no winner."""
        found = self._find({"_id": {"$in": list(keys)}}, {"code": 1})
        return [row["code"] for row in found if row.get("code")]

    def of_entry(self, campaign_id: str, ref: str) -> list[Document]:
        """What one entry has won, in all phases; without its code, which is worth a ticket."""
        fields = ("marketId", "phase", "position", "selectedAt", "runId")
        query = {"campaignId": campaign_id, "ref": ref}
        return self._find(query, dict.fromkeys(fields, 1))

    def of_refs(self, campaign_id: str, refs: Sequence[str]) -> list[Document]:
        """What these refs have won, in all phases, with the codes. Reads all winners of the campaign."""
        fields = dict.fromkeys(("marketId", "phase", "ref", "code"), 1)
        query = {"campaignId": campaign_id, "ref": {"$in": list(refs)}}
        return self._find(query, fields)

    def count_by_market(self, campaign_id: str) -> Counter[str]:
        """Over all phases."""
        return self._count_by({"campaignId": campaign_id}, "marketId")

    def of_campaign(self, campaign_id: str, size: int = 10_000) -> Iterator[list[Document]]:
        """Market, ref, code and position of every winner, `size` at a time. For checks."""
        fields = ("marketId", "ref", "code", "position")
        query = {"campaignId": campaign_id}
        return scan(self._collection, self._dependency, query, fields, size=size, ordered=False)

    def entries(self, campaign_id: str) -> Iterator[Document]:
        """Entry, market and phase of every winner with a code, at constant memory."""
        fields = ("entryId", "marketId", "phase")
        return by_prefix(self._collection, self._dependency, f"{campaign_id}:", fields)


_CHUNK_PARAMETERS = ("first", "last", "resultHash")
_OPEN: Document = {"doneAt": {"$exists": False}}


class Chunks(Store):
    """Every method raises TransientFailure when MongoDB cannot answer."""

    def plan(self, chunks: Sequence[Chunk]) -> None:
        """Write the rows; raises PermanentFailure KEY_CONFLICT when one exists with other bounds."""
        documents = [{"_id": chunk.id, **chunk.as_json()} for chunk in chunks]
        insert_once(self._collection, self._dependency, documents, _CHUNK_PARAMETERS).raise_conflicts(
            "chunks"
        )

    def get(self, ids: Sequence[str]) -> dict[str, Document]:
        """The rows with these ids, as far as they exist."""
        return {row["_id"]: row for row in self._find({"_id": {"$in": list(ids)}})}

    def queued(self, chunks: Sequence[Chunk], at: str) -> None:
        """Their messages were sent; clears an earlier failure."""
        update = {"$set": {"queuedAt": at}, "$unset": {"failedAt": "", "failure": ""}}
        self._bulk([bulk_update({"_id": chunk.id}, update) for chunk in chunks])

    def failed(self, chunk: Chunk, failure: str, at: str) -> None:
        """It became a dead letter, so it is not sent again automatically."""
        update = {"$set": {"failedAt": at, "failure": failure}}
        self._update_one({"_id": chunk.id, **_OPEN}, update)

    def done(self, chunk: Chunk, *, written: int, enqueued: int, at: str, run_id: str) -> bool:
        """Its rows are durable. False when another processor was faster."""
        fields = {"written": written, "enqueued": enqueued, "doneAt": at, "runId": run_id}
        update = {"$set": fields, "$unset": {"failedAt": "", "failure": ""}}
        return self._update_one({"_id": chunk.id, **_OPEN}, update).matched_count == 1

    def is_open(self, chunk_id: str) -> bool:
        return self._first({"_id": chunk_id, **_OPEN}, {"_id": 1}) is not None

    def last_open(self, market: MarketPhase) -> str | None:
        """The id of the open chunk with the highest number, usually the one that is done last."""
        row = self._first({**market.as_fields(), **_OPEN}, {"_id": 1}, sort=[("chunk", -1)])
        return None if row is None else str(row["_id"])

    def open(self, market: MarketPhase) -> list[Document]:
        """The open rows of a market by number."""
        return self._find({**market.as_fields(), **_OPEN}, sort=[("chunk", 1)])

    def waits_since(self, market: MarketPhase, before: str) -> bool:
        """Whether an open chunk that is no dead letter was queued earlier than `before`, or never."""
        query = {
            **market.as_fields(),
            **_OPEN,
            "failedAt": {"$exists": False},
            # `$lt` would not match a row that was never queued and lacks the field.
            "$nor": [{"queuedAt": {"$gte": before}}],
        }
        return self._first(query, {"_id": 1}) is not None

    def last_done_at(self, market: MarketPhase) -> str:
        """When its latest chunk was done; empty without one."""
        query = {**market.as_fields(), "doneAt": {"$exists": True}}
        row = self._first(query, {"doneAt": 1}, sort=[("doneAt", -1)])
        return "" if row is None else str(row["doneAt"])

    def reopen(self, market: MarketPhase) -> int:
        """Open all of a market's chunks again, because their rows are missing. Returns how many."""
        update = {"$unset": {"doneAt": "", "written": "", "enqueued": ""}}
        return self._update_many(market.as_fields(), update).modified_count


_WAITING = [MarketStatus.PENDING.value, MarketStatus.BLOCKED.value]


class DrawMarkets(Store):
    """Every method raises TransientFailure when MongoDB cannot answer."""

    def __init__(self, draws: Documents, switches: Documents, dependency: Dependency) -> None:
        super().__init__(draws, dependency)
        self._switches = switches

    def block(self, market: MarketPhase, *, needed: int, available: int) -> bool:
        """Too few codes, none given: it waits for an import. False when it has begun already."""
        fields = {"status": MarketStatus.BLOCKED.value, "needed": needed, "available": available}
        return self._move(market, _WAITING, fields)

    def begin(
        self, market: MarketPhase, *, planned: int, chunks: int, plan: Mapping[str, Any], codes_expire_at: str
    ) -> bool:
        """Its plan is final and its chunks are written; its codes expire then (empty: never). False when another plan
        was final before.
        """
        fields = {
            "status": MarketStatus.ASSIGNING.value,
            "planned": planned,
            "chunks": chunks,
            "plan": dict(plan),
            **({"codesExpireAt": codes_expire_at} if codes_expire_at else {}),
        }
        return self._move(market, _WAITING, fields)

    def complete(self, market: MarketPhase, *, written: int, enqueued: int, at: str) -> bool:
        """Planned = written = enqueued. False when it was complete before."""
        fields = {
            "status": MarketStatus.COMPLETED.value,
            "written": written,
            "enqueued": enqueued,
            "completedAt": at,
        }
        return self._move(market, [MarketStatus.ASSIGNING.value], fields)

    def complete_phase(self, campaign_id: str, phase: int, *, at: str) -> bool:
        """False when it was complete before. The caller has seen all its markets complete."""
        path = f"phases.{phase}"
        fields = {f"{path}.status": PhaseStatus.COMPLETED.value, f"{path}.completedAt": at}
        query = {"_id": campaign_id, f"{path}.status": PhaseStatus.PUBLISHED.value}
        return self._update(query, {"$set": fields})

    def judge_phase(self, campaign_id: str, phase: int, *, passed: bool, at: str) -> None:
        """Its codes and messages were checked after it was complete."""
        path = f"phases.{phase}"
        query = {"_id": campaign_id, f"{path}.status": PhaseStatus.COMPLETED.value}
        self._update(query, {"$set": {f"{path}.judged": {"at": at, "passed": passed}}})

    def delivered(self, market: MarketPhase, *, sent: int, superseded: int, at: str) -> None:
        """All its messages are on the mailer's queue, except superseded ones."""
        path = _market_path(market)
        fields = {f"{path}.sent": sent, f"{path}.superseded": superseded, f"{path}.deliveredAt": at}
        self._update({"_id": market.campaign_id, f"{path}.deliveredAt": {"$exists": False}}, {"$set": fields})

    def lock(self, market: MarketPhase, at: str) -> None:
        """The counts of its messages equal those of the committed result."""
        path = f"{_market_path(market)}.lockedAt"
        self._update({"_id": market.campaign_id, path: {"$exists": False}}, {"$set": {path: at}})

    def lock_counts(self, campaign_id: str, phase: int, at: str) -> None:
        """Winners up to this phase, holders of codes and entries whose last message says so are the same."""
        path = f"phases.{phase}.countsLockedAt"
        self._update({"_id": campaign_id, path: {"$exists": False}}, {"$set": {path: at}})

    def canary_sent(self, campaign_id: str, phase: int, kind: NoticeType, at: str) -> None:
        """The canary of one type of message is on the mailer's queue; the first time counts."""
        path = f"notifications.canary.{phase}.{kind}"
        self._update({"_id": campaign_id, path: {"$exists": False}}, {"$set": {path: at}})

    def pause(self, campaign_id: str, *, reason: str, by: str, at: str) -> bool:
        """Stop the campaign's messages. False when it has no draw."""
        return self._switch(campaign_id, {"paused": True, "reason": reason, "by": by, "at": at})

    def resume(self, campaign_id: str, *, reason: str, by: str, at: str, tolerated: int) -> bool:
        """Send again; `tolerated` dead letters of the mailer's queue are known and do not pause again."""
        fields = {"paused": False, "reason": reason, "by": by, "at": at, "tolerated": tolerated}
        return self._switch(campaign_id, fields)

    def complete_to(self, campaign_id: str, to: str, at: str) -> bool:
        """The issuer of the codes has stated all redemptions up to `to`. False when it said so of that or of a later
        time before.
        """
        path = "redemptions.completeTo"
        query = {"_id": campaign_id, "$or": [{path: {"$exists": False}}, {path: {"$lt": to}}]}
        return self._update(query, {"$set": {"redemptions": {"completeTo": to, "statedAt": at}}})

    def issued(self, campaign_id: str, given: int, at: str) -> bool:
        """The issuer's file has all codes that were given so far, which are `given` (`DrawRecord.given`). False when
        that was known of as many or more.
        """
        path = "issued.given"
        query = {"_id": campaign_id, "$or": [{path: {"$exists": False}}, {path: {"$lt": given}}]}
        return self._update(query, {"$set": {"issued": {"given": given, "at": at}}})

    def _switch(self, campaign_id: str, fields: Mapping[str, Any]) -> bool:
        update = {"$set": {f"notifications.{name}": value for name, value in fields.items()}}
        return self._update({"_id": campaign_id}, update)

    def switch_all(self, *, paused: bool, reason: str, by: str, at: str) -> None:
        """Stop or start the messages of all campaigns."""
        fields = {"paused": paused, "reason": reason, "by": by, "at": at}
        self._dependency.call(
            self._switches.update_one, {"_id": "notifications"}, {"$set": fields}, upsert=True
        )

    def all_switch(self) -> Mapping[str, Any]:
        """`{paused, reason, by, at}`, empty when it was never used."""
        return self._dependency.call(self._switches.find_one, {"_id": "notifications"}) or {}

    def switch(self, campaign_id: str) -> Mapping[str, Any]:
        """The field `notifications` of the campaign's draw."""
        found = self._first({"_id": campaign_id}, {"notifications": 1})
        return (found or {}).get("notifications") or {}

    def _move(self, market: MarketPhase, before: list[str], fields: Mapping[str, Any]) -> bool:
        path = _market_path(market)
        query = {"_id": market.campaign_id, f"{path}.status": {"$in": before}}
        return self._update(query, {"$set": {f"{path}.{name}": value for name, value in fields.items()}})

    def _update(self, query: Document, update: Document) -> bool:
        return self._update_one(query, update).matched_count == 1


def _market_path(market: MarketPhase) -> str:
    return f"phases.{market.phase}.markets.{market.market_id}"
