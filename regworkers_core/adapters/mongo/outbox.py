"""The `outbox` collection: every message that a draw owes to fans, written once, sent by one sender."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal, NotRequired, TypedDict

from regworkers_core.adapters.mongo.store import Document, Inserted, Store, by_prefix, insert_once
from regworkers_core.domain.reasons import PermanentFailure
from regworkers_core.domain.selection import MarketPhase, Notice, NoticeType

_PARAMETERS = ("ref", "entryId", "type", "resultHash", "notBefore")
# The queue in `dead_letters` of a row that failed: it has none.
SOURCE = "outbox"
# Keys of one query, or of one update.
_PAGE = 1_000


class RowStatus(StrEnum):
    """HELD: a later phase that is drawn and not confirmed changes the outcome (`heldFor` names it); the row is sent or
    SUPERSEDED when that phase is settled. FAILED: it raised alone, twice (`reason`, `error`, `failedAt`). SENT: the
    mailer's queue has it. SUPERSEDED: it is never sent (`why`: `phase <n>`, `annulled` or `erased`; `supersededAt`).
    """

    PENDING = "PENDING"
    HELD = "HELD"
    FAILED = "FAILED"
    SENT = "SENT"
    SUPERSEDED = "SUPERSEDED"


# The states of rows whose message may still go out.
OPEN = (RowStatus.PENDING, RowStatus.HELD, RowStatus.FAILED)
_OPEN_ROWS = {"status": {"$in": [status.value for status in OPEN]}}
ANNULLED = "annulled"
ERASED = "erased"


class OutboxRow(TypedDict):
    """A document of `outbox` as it is written; what happens to it later is in fields of its own."""

    _id: str  # that of the winner's selection
    campaignId: str
    marketId: str
    phase: int
    ref: str  # the fan's reference
    entryId: str
    type: str  # a NoticeType
    resultHash: str
    notBefore: str
    codeExpiresAt: NotRequired[str]
    status: str  # a RowStatus
    enqueuedAt: str
    runId: str


class Outbox(Store):
    """Every method raises TransientFailure when MongoDB cannot answer."""

    def write(self, notices: Sequence[Notice], *, at: str, run_id: str) -> Inserted:
        """One row per notice, PENDING. An existing row keeps its status."""
        documents = [
            {
                "_id": notice.key,
                **notice.as_fields(),
                "status": RowStatus.PENDING.value,
                "enqueuedAt": at,
                "runId": run_id,
            }
            for notice in notices
        ]
        return insert_once(self._collection, self._dependency, documents, _PARAMETERS)

    def pending(
        self, market: MarketPhase, *, now: str, limit: int, kind: NoticeType | None = None
    ) -> list[Notice]:
        """The first rows, by type and ref, that are PENDING and due; with `kind`, of that type."""
        query, order = _due(market, now, kind), [("type", 1), ("ref", 1)]
        found = self._find(query, sort=order, limit=limit)
        return [Notice.stored(document) for document in found]

    def mark_sent(self, keys: Sequence[str], *, at: str, run_id: str) -> int:
        """Returns how many were not SENT before. A row that was superseded while it was being sent becomes SENT,
        because the mailer has it.
        """
        update = {"$set": {"status": RowStatus.SENT.value, "sentAt": at, "sentBy": run_id}}
        return self._update(keys, {"status": {"$ne": RowStatus.SENT.value}}, update)

    def hold(self, keys: Sequence[str], phase: int) -> int:
        """`phase` changes what these rows say: those that are not sent wait until it is settled, the others record it
        (`heldFor`). Returns how many wait. Call it under the draw's lease.
        """
        held, noted = 0, {"heldFor": phase}
        for start in range(0, len(keys), _PAGE):
            page = keys[start : start + _PAGE]
            held += self._update_open(page, {"$set": {**noted, "status": RowStatus.HELD.value}})
            self._update(page, {"status": RowStatus.SENT.value}, {"$set": noted})
        return held

    def any_held(self, campaign_id: str) -> bool:
        """Whether any message of the campaign waits for a later phase."""
        return self._exists({"status": RowStatus.HELD.value, "campaignId": campaign_id})

    def failed(self) -> Counter[str]:
        """How many rows are FAILED, by campaign."""
        return self._count_by({"status": RowStatus.FAILED.value}, "campaignId")

    def fail(self, key: str, failure: PermanentFailure, *, at: str, run_id: str) -> bool:
        """Do not retry this row. False when it was not PENDING."""
        query = {"_id": key, "status": RowStatus.PENDING.value}
        fields = {
            "status": RowStatus.FAILED.value,
            "reason": failure.reason.value,
            "error": failure.error,
            "failedAt": at,
            "failedBy": run_id,
        }
        return self._update_one(query, {"$set": fields}).modified_count == 1

    def retry(self, market: MarketPhase) -> int:
        """Make FAILED rows PENDING again; returns how many."""
        query = {**market.as_fields(), "status": RowStatus.FAILED.value}
        update = {
            "$set": {"status": RowStatus.PENDING.value},
            "$unset": dict.fromkeys(("reason", "error", "failedAt", "failedBy"), ""),
        }
        return self._update_many(query, update).modified_count

    def supersede(
        self, rows: MarketPhase | Sequence[str], *, why: str, at: str, held_for: int | None = None
    ) -> int:
        """Never send these rows: all of a market and phase, or those with these keys, that are not SENT; returns how
        many. `why` is `phase <n>`, `annulled` or `erased`; with `held_for`, only those that wait for that phase.

        To supersede what a draw decided, hold the draw's lease, which the sender needs to send. Works a page of rows
        at a time, so that a repeat continues after a crash.
        """
        update = {"$set": {"status": RowStatus.SUPERSEDED.value, "why": why, "supersededAt": at}}
        if isinstance(rows, MarketPhase):
            held = {} if held_for is None else {"status": RowStatus.HELD.value, "heldFor": held_for}
            query = {**rows.as_fields(), **_OPEN_ROWS, **held}
            return sum(self._update_open(keys, update) for keys in self._open_keys(query))
        return sum(
            self._update_open(rows[start : start + _PAGE], update) for start in range(0, len(rows), _PAGE)
        )

    def _open_keys(self, query: Mapping[str, Any]) -> Iterator[list[str]]:
        """A page of keys at a time; the caller must change the rows of a page so that they no longer match."""
        while page := self._find(query, {"_id": 1}, limit=_PAGE):
            yield [str(row["_id"]) for row in page]

    def _update_open(self, keys: Sequence[str], update: Document) -> int:
        return self._update(keys, _OPEN_ROWS, update)

    def _update(self, keys: Sequence[str], rows: Mapping[str, Any], update: Document) -> int:
        """Update rows with these keys that match `rows`; returns how many changed."""
        query = {"_id": {"$in": list(keys)}, **rows}
        return self._update_many(query, update).modified_count

    def statuses(self, keys: Sequence[str]) -> dict[str, str]:
        """The status (`RowStatus`) by key, of rows that exist."""
        return {str(row["_id"]): str(row["status"]) for row in self.rows(keys)}

    def rows(self, keys: Sequence[str]) -> list[Document]:
        """Key (`_id`), campaign, status, and the later phase that changes it (`heldFor`), of rows that exist."""
        query, fields = {"_id": {"$in": list(keys)}}, dict.fromkeys(("campaignId", "status", "heldFor"), 1)
        return self._find(query, fields)

    def of_entry(self, campaign_id: str, ref: str) -> list[Document]:
        """The messages of one entry, sent or not."""
        fields = ("marketId", "phase", "type", "status", "notBefore", "sentAt", "sentBy", "enqueuedAt")
        query = {"campaignId": campaign_id, "ref": ref}
        return self._find(query, dict.fromkeys(fields, 1))

    def count(self, market: MarketPhase) -> int:
        return self._count(market.as_fields())

    def count_sent(self, market: MarketPhase, kind: NoticeType, limit: int) -> int:
        """How many rows of one type are SENT, at most `limit` (from 1)."""
        query = {**market.as_fields(), "status": RowStatus.SENT.value, "type": kind.value}
        return self._count(query, limit)

    def count_withdrawn(self, market: MarketPhase, kind: NoticeType) -> int:
        """How many rows of one type are HELD, FAILED or SUPERSEDED."""
        withdrawn = [RowStatus.HELD.value, RowStatus.FAILED.value, RowStatus.SUPERSEDED.value]
        query = {**market.as_fields(), "status": {"$in": withdrawn}, "type": kind.value}
        return self._count(query)

    def count_by(self, market: MarketPhase, field: Literal["type", "resultHash", "status"]) -> Counter[str]:
        """How many rows there are by the value of one field."""
        return self._count_by(market.as_fields(), field)

    def due(self, market: MarketPhase, now: str, kind: NoticeType | None = None) -> bool:
        """Whether any row (with `kind`, of that type) is PENDING and due. Cheap enough for a sensor."""
        return self._exists(_due(market, now, kind))

    def open(self, market: MarketPhase) -> bool:
        """Whether any row may still be sent, now or later. As cheap."""
        return self._exists({**market.as_fields(), **_OPEN_ROWS})

    def _exists(self, query: Document) -> bool:
        return self._first(query, {"_id": 1}) is not None

    def of_market(self, market: MarketPhase) -> Iterator[Document]:
        """Ref, type, status and `why` of every row, at constant memory."""
        fields = ("ref", "type", "status", "why")
        return by_prefix(self._collection, self._dependency, market.prefix, fields)

    def entries(self, campaign_id: str) -> Iterator[Document]:
        """Entry, market, phase, type and status of every row, at constant memory."""
        fields = ("entryId", "marketId", "phase", "type", "status")
        return by_prefix(self._collection, self._dependency, f"{campaign_id}:", fields)


def _due(market: MarketPhase, now: str, kind: NoticeType | None) -> Document:
    query = {**market.as_fields(), "status": RowStatus.PENDING.value, "notBefore": {"$lte": now}}
    return query if kind is None else {**query, "type": kind.value}
