"""The `codes` collection: access codes, each with its own position in its market.

A position is what a winner is matched to, so it is given once: a unique index on (campaignId, marketId,
position) refuses a second code there, whoever writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from regworkers_core.adapters.mongo.client import aggregate_all, find_all
from regworkers_core.adapters.mongo.replica import DUPLICATE_KEY
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.dependency import Dependency

Document = dict[str, Any]
# Between our look and our write another writer may take a position; one that does so every time is a defect.
_ROUNDS = 50


class CodeStatus(StrEnum):
    AVAILABLE = "AVAILABLE"
    ASSIGNED = "ASSIGNED"
    REDEEMED = "REDEEMED"
    VOID = "VOID"


@dataclass(frozen=True, slots=True)
class Code:
    """One code as stored. `ref` and `entry_id` are empty while it belongs to no winner; `blocked`: its issuer refuses
    it.
    """

    code: str
    campaign_id: str
    market_id: str
    position: int
    status: CodeStatus
    ref: str = ""
    entry_id: str = ""
    import_id: str = ""
    blocked: bool = False


@dataclass(frozen=True, slots=True)
class NewCode:
    code: str
    market_id: str


class Codes:
    """Every method raises TransientFailure when MongoDB cannot answer."""

    def __init__(self, collection: Collection[Document], dependency: Dependency) -> None:
        self._collection = collection
        self._dependency = dependency

    def get(self, codes: Sequence[str]) -> dict[str, Code]:
        """Those of `codes` that exist, in whatever campaign."""
        query = {"_id": {"$in": list(codes)}}
        found = self._dependency.call(find_all, self._collection, query)
        return {document["_id"]: _code(document) for document in found}

    def at(self, campaign_id: str, market_id: str, positions: Sequence[int]) -> dict[int, str]:
        """The codes at these positions of a market; those that there are."""
        query = {"campaignId": campaign_id, "marketId": market_id, "position": {"$in": list(positions)}}
        found = self._dependency.call(find_all, self._collection, query, {"position": 1})
        return {int(document["position"]): document["_id"] for document in found}

    def add(
        self, campaign_id: str, codes: Sequence[NewCode], *, import_id: str, at: str, highest: dict[str, int]
    ) -> dict[str, Code]:
        """Append codes that are new, in this order, behind the highest position of their market; returns what
        stands under each that was **not** added, because another writer was faster.

        `highest` is what the caller knows of the positions (market to highest given, absent where it knows
        nothing) and is kept up to date. Killed half way, the first so many codes are there: no gap.
        """
        refused: dict[str, Code] = {}
        rest = list(codes)
        for _ in range(_ROUNDS):
            for market_id in {new.market_id for new in rest} - highest.keys():
                highest[market_id] = self.highest(campaign_id, market_id)
            placed = _place(campaign_id, rest, import_id, at, highest)
            if self._insert(placed):
                highest.update({document["marketId"]: document["position"] for document in placed})
                return refused
            # A code or a position was taken meanwhile, or this very write went through and its answer was lost.
            highest.clear()
            stands = self.get([new.code for new in rest])
            ours = {code for code, found in stands.items() if found.import_id == import_id}
            refused.update({code: found for code, found in stands.items() if code not in ours})
            rest = [new for new in rest if new.code not in stands]
            if not rest:
                return refused
        raise TransientFailure(self._dependency.name, "positions stay contested by other writers")

    def _insert(self, documents: list[Document]) -> bool:
        """In order, up to the first that is refused: False then."""
        try:
            self._dependency.call(self._collection.insert_many, documents, ordered=True)
        except BulkWriteError as error:
            details = error.details
            if details.get("writeConcernErrors"):
                raise TransientFailure(self._dependency.name, "write concern not satisfied") from None
            codes = {problem.get("code") for problem in details.get("writeErrors", ())}
            if codes != {DUPLICATE_KEY}:
                # Disk full, quota, an election: never the code's fault.
                raise TransientFailure(self._dependency.name, f"write error {codes}") from None
            return False
        return True

    def highest(self, campaign_id: str, market_id: str) -> int:
        """The highest position ever given there, 0 when there is none."""
        query = {"campaignId": campaign_id, "marketId": market_id}
        found = self._dependency.call(
            self._collection.find_one, query, {"position": 1}, sort=[("position", -1)]
        )
        return 0 if found is None else int(found["position"])

    def count(self, campaign_id: str) -> dict[str, dict[CodeStatus, int]]:
        """Codes by market and status; a status without codes is absent."""
        counts: dict[str, dict[CodeStatus, int]] = {}
        of_campaign: Document = {"campaignId": campaign_id}
        for market_id in self._dependency.call(self._collection.distinct, "marketId", of_campaign):
            # One field a group: not every server that speaks the protocol groups by more.
            pipeline: list[Mapping[str, Any]] = [
                {"$match": {**of_campaign, "marketId": market_id}},
                {"$group": {"_id": "$status", "codes": {"$sum": 1}}},
            ]
            groups = self._dependency.call(aggregate_all, self._collection, pipeline)
            counts[market_id] = {CodeStatus(group["_id"]): group["codes"] for group in groups}
        return counts

    def void(self, campaign_id: str, code: str, *, at: str, reason: str, run_id: str) -> bool:
        """Take an AVAILABLE code out of use for good; False when it is not that any more. It keeps its position."""
        guard = {"_id": code, "campaignId": campaign_id, "status": CodeStatus.AVAILABLE.value}
        fields = {"status": CodeStatus.VOID.value, "voidedAt": at, "voidReason": reason, "voidRunId": run_id}
        answer = self._dependency.call(self._collection.update_one, guard, {"$set": fields})
        return bool(answer.matched_count)

    def void_given(self, code: Code, *, at: str, reason: str, run_id: str) -> bool:
        """Take a code out of use that was given outside of this system; False when it changed since it was read."""
        guard: Document = {"_id": code.code, "status": code.status.value, "ref": code.ref or None}
        fields = {"status": CodeStatus.VOID.value, "voidedAt": at, "voidReason": reason, "voidRunId": run_id}
        answer = self._dependency.call(self._collection.update_one, guard, {"$set": fields})
        return bool(answer.matched_count)

    def block(self, campaign_id: str, codes: Sequence[str], *, at: str, reason: str, run_id: str) -> int:
        """Note that their issuer refuses these, which fans hold; how many of them were not noted before."""
        guard = {
            "_id": {"$in": list(codes)},
            "campaignId": campaign_id,
            "status": {"$in": [CodeStatus.ASSIGNED.value, CodeStatus.REDEEMED.value]},
            "blockedAt": {"$exists": False},
        }
        fields = {"blocked": True, "blockedAt": at, "blockedReason": reason, "blockedRunId": run_id}
        answer = self._dependency.call(self._collection.update_many, guard, {"$set": fields})
        return answer.modified_count


def _place(
    campaign_id: str, codes: Sequence[NewCode], import_id: str, at: str, highest: Mapping[str, int]
) -> list[Document]:
    """The documents, each market counting on from its highest position."""
    counters = dict(highest)
    documents: list[Document] = []
    for new in codes:
        counters[new.market_id] += 1
        documents.append(
            {
                "_id": new.code,
                "campaignId": campaign_id,
                "marketId": new.market_id,
                "position": counters[new.market_id],
                "status": CodeStatus.AVAILABLE.value,
                "importId": import_id,
                "importedAt": at,
            }
        )
    return documents


def _code(document: Mapping[str, Any]) -> Code:
    return Code(
        code=document["_id"],
        campaign_id=document["campaignId"],
        market_id=document["marketId"],
        position=document["position"],
        status=CodeStatus(document["status"]),
        ref=document.get("ref") or "",
        entry_id=document.get("entryId") or "",
        import_id=document.get("importId") or "",
        # A server on SQLite gives a flag that was set by an update back as 0 or 1.
        blocked=bool(document.get("blocked")),
    )
