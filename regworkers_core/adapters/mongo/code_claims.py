"""The `codes` collection as the assignment sees it: codes by position, and the claim of a planned code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pymongo import UpdateOne
from pymongo.collection import Collection

from regworkers_core.adapters.mongo.batches import in_batches_of
from regworkers_core.adapters.mongo.client import find_all
from regworkers_core.adapters.mongo.counting import count
from regworkers_core.domain.reasons import PermanentFailure, Reason, TransientFailure
from regworkers_core.domain.selection import MarketPhase, Planned
from regworkers_core.engine.dependency import Dependency

Document = dict[str, Any]
_TAKEN = ("ASSIGNED", "REDEEMED")
_IS_VOID = "it is VOID"
_IS_GIVEN = "it is given to somebody else"
_PAGE = 10_000


class Position(NamedTuple):
    """A code at its place in the order of import."""

    position: int
    code: str


class PlacedCode(NamedTuple):
    """A code and its status."""

    code: str
    status: str


class CodeClaims:
    """Every method raises TransientFailure when MongoDB cannot answer."""

    def __init__(self, collection: Collection[Document], dependency: Dependency) -> None:
        self._collection = collection
        self._dependency = dependency

    def behind(self, campaign_id: str, market_id: str, position: int, limit: int) -> Iterator[Position]:
        """Up to `limit` codes behind a position, by position, those that are VOID left out; a page at a time."""
        while limit > 0:
            query = _not_void(campaign_id, market_id, position)
            page = min(limit, _PAGE)
            found = self._dependency.call(
                find_all, self._collection, query, {"position": 1}, sort=[("position", 1)], limit=page
            )
            for document in found:
                position = document["position"]
                yield Position(position, document["_id"])
            if len(found) < page:
                return
            limit -= page

    def count_behind(self, campaign_id: str, market_id: str, position: int, limit: int) -> int:
        """How many there are, at most `limit`."""
        if not limit:
            return 0
        query = _not_void(campaign_id, market_id, position)
        return count(self._collection, self._dependency, query, limit)

    def first_given(self, campaign_id: str, market_id: str, position: int, limit: int) -> int | None:
        """The first position among the `limit` codes behind `position` whose code is given already; None when there is
        none: then a plan can be made of them.
        """
        query = {**_not_void(campaign_id, market_id, position), "status": {"$in": list(_TAKEN)}}
        first = self._dependency.call(
            self._collection.find_one, query, {"position": 1}, sort=[("position", 1)]
        )
        if first is None or not limit:
            return None
        before = _not_void(campaign_id, market_id, position)
        before["position"] = {"$gt": position, "$lt": first["position"]}
        ahead = count(self._collection, self._dependency, before, limit)
        return int(first["position"]) if ahead < limit else None

    def at(self, campaign_id: str, market_id: str, positions: Sequence[int]) -> dict[int, PlacedCode]:
        """The codes at these positions, by position; one that is gone is absent."""
        query = {"campaignId": campaign_id, "marketId": market_id, "position": {"$in": list(positions)}}
        found = self._dependency.call(find_all, self._collection, query, {"position": 1, "status": 1})
        return {each["position"]: PlacedCode(each["_id"], str(each.get("status"))) for each in found}

    def claim(self, market: MarketPhase, winners: Sequence[Planned], *, at: str, run_id: str) -> int:
        """Give every winner the planned code: AVAILABLE becomes ASSIGNED. How many were given just now; the
        others had theirs before.

        Raises PermanentFailure CODE_CONFLICT when a code is neither available nor theirs.
        """
        operations = [_claim(market, winner, at, run_id) for winner in winners]
        if not operations:
            return 0
        answer = self._dependency.call(self._collection.bulk_write, list(operations), ordered=False)
        if answer.matched_count < len(winners):
            # Repeats, other processors, or strangers: the bulk does not say which, a look does.
            self._judge(market, winners)
        return answer.matched_count

    def _judge(self, market: MarketPhase, winners: Sequence[Planned]) -> None:
        query = {"_id": {"$in": [winner.code for winner in winners]}}
        found = self._dependency.call(find_all, self._collection, query)
        stored = {document["_id"]: document for document in found}
        strange, free = [], 0
        for winner in winners:
            code = stored.get(winner.code)
            if code is not None and code.get("status") == "AVAILABLE" and _belongs(code, market):
                free += 1
            elif code is None or not _is_theirs(code, market, winner):
                strange.append((winner.position, _what(code, market)))
        if strange:
            position, what = min(strange)
            raise PermanentFailure(
                Reason.CODE_CONFLICT,
                f"{len(strange)} of {len(winners)} planned codes of {market} cannot be given, "
                f"first position {position}: {what}; {_help(market, what)}",
            )
        if free:
            raise TransientFailure(self._dependency.name, "codes became available while they were claimed")

    def count_held(self, campaign_id: str) -> int:
        """How many codes fans hold that are not noted as refused by their issuer."""
        query = {"campaignId": campaign_id, "status": {"$in": list(_TAKEN)}, "blockedAt": {"$exists": False}}
        return count(self._collection, self._dependency, query)

    def of_campaign(self, campaign_id: str, size: int = 10_000) -> Iterator[list[Document]]:
        """Market, position, holder and phase of every code that was given, in no order, `size` at a time."""
        query = {"campaignId": campaign_id, "status": {"$in": list(_TAKEN)}}
        fields = {"marketId": 1, "position": 1, "ref": 1, "phase": 1}
        return in_batches_of(self._dependency, lambda: self._collection.find(query, fields), size)


def _not_void(campaign_id: str, market_id: str, position: int) -> Document:
    return {
        "campaignId": campaign_id,
        "marketId": market_id,
        "position": {"$gt": position},
        "status": {"$ne": "VOID"},
    }


def _claim(market: MarketPhase, winner: Planned, at: str, run_id: str) -> UpdateOne:
    free = {
        "_id": winner.code,
        "status": "AVAILABLE",
        "campaignId": market.campaign_id,
        "marketId": market.market_id,
    }
    given = {
        "status": "ASSIGNED",
        "ref": winner.ref,
        "entryId": winner.entry_id,
        "phase": market.phase,
        "assignedAt": at,
        "runId": run_id,
    }
    return UpdateOne(free, {"$set": given})


def _belongs(code: Document, market: MarketPhase) -> bool:
    return (code.get("campaignId"), code.get("marketId")) == (market.campaign_id, market.market_id)


def _is_theirs(code: Document, market: MarketPhase, winner: Planned) -> bool:
    return code.get("status") in _TAKEN and _belongs(code, market) and code.get("ref") == winner.ref


def _help(market: MarketPhase, what: str) -> str:
    command = f"`regworkers draw replan-code {market.campaign_id} {market.market_id}`"
    if what == _IS_VOID:
        return f"{command} gives the winners of void codes the next positions"
    if what == _IS_GIVEN:
        return f"find out who has it; {command} then makes it void and gives its winner the next position"
    return "set right what happened to it, then retry the market"


def _what(code: Document | None, market: MarketPhase) -> str:
    if code is None:
        return "it is gone"
    if not _belongs(code, market):
        return "it belongs to another market"
    return _IS_GIVEN if code.get("status") in _TAKEN else f"it is {code.get('status')}"
