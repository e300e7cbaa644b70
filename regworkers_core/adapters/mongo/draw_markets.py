"""The markets of a published phase in the `draws` document, and the stop switch of its messages.

Nobody who assigns codes holds the draw's lease, so every write here is conditional on what it builds on, moves
forward only, and says the same when it is repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymongo.collection import Collection

from regworkers_core.adapters.mongo.draws import MarketStatus, PhaseStatus
from regworkers_core.domain.selection import MarketPhase, NoticeType
from regworkers_core.engine.dependency import Dependency

Document = dict[str, Any]
_WAITING = [MarketStatus.PENDING.value, MarketStatus.BLOCKED.value]


class DrawMarkets:
    """Every method raises TransientFailure when MongoDB cannot answer."""

    def __init__(
        self, draws: Collection[Document], switches: Collection[Document], dependency: Dependency
    ) -> None:
        self._draws, self._switches, self._dependency = draws, switches, dependency

    def block(self, market: MarketPhase, *, needed: int, available: int) -> bool:
        """Too few codes, none given: it waits for an import. False when it goes on already."""
        fields = {"status": MarketStatus.BLOCKED.value, "needed": needed, "available": available}
        return self._move(market, _WAITING, fields)

    def begin(self, market: MarketPhase, *, planned: int, chunks: int, plan: Mapping[str, Any]) -> bool:
        """Its plan counts from here on, and its chunks stand. False when another plan did before."""
        fields = {
            "status": MarketStatus.ASSIGNING.value,
            "planned": planned,
            "chunks": chunks,
            "plan": dict(plan),
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

    def delivered(self, market: MarketPhase, *, sent: int, superseded: int, at: str) -> None:
        """All its messages are with the mailer's queue, but for those that hold no longer."""
        path = _path(market)
        fields = {f"{path}.sent": sent, f"{path}.superseded": superseded, f"{path}.deliveredAt": at}
        self._update({"_id": market.campaign_id, f"{path}.deliveredAt": {"$exists": False}}, {"$set": fields})

    def lock(self, market: MarketPhase, at: str) -> None:
        """The counts of its messages were found to be those of the committed result."""
        path = f"{_path(market)}.lockedAt"
        self._update({"_id": market.campaign_id, path: {"$exists": False}}, {"$set": {path: at}})

    def lock_counts(self, campaign_id: str, phase: int, at: str) -> None:
        """Those who won up to this phase are those who have a code and those whose last message says so."""
        path = f"phases.{phase}.countsLockedAt"
        self._update({"_id": campaign_id, path: {"$exists": False}}, {"$set": {path: at}})

    def canary_sent(self, campaign_id: str, phase: int, kind: NoticeType, at: str) -> None:
        """The canary of one type of message is with the mailer's queue; the first time counts."""
        path = f"notifications.canary.{phase}.{kind}"
        self._update({"_id": campaign_id, path: {"$exists": False}}, {"$set": {path: at}})

    def pause(self, campaign_id: str, *, reason: str, by: str, at: str) -> bool:
        """Nothing more goes out for this campaign. False when it has no draw."""
        fields = {"paused": True, "reason": reason, "by": by, "at": at}
        update = {"$set": {f"notifications.{name}": value for name, value in fields.items()}}
        return self._update({"_id": campaign_id}, update)

    def resume(self, campaign_id: str, *, reason: str, by: str, at: str, tolerated: int) -> bool:
        """Messages go on; `tolerated` dead letters of the mailer's queue are known and pause nothing again."""
        fields = {"paused": False, "reason": reason, "by": by, "at": at, "tolerated": tolerated}
        update = {"$set": {f"notifications.{name}": value for name, value in fields.items()}}
        return self._update({"_id": campaign_id}, update)

    def switch_all(self, *, paused: bool, reason: str, by: str, at: str) -> None:
        """The stop switch of all campaigns at once."""
        fields = {"paused": paused, "reason": reason, "by": by, "at": at}
        self._dependency.call(
            self._switches.update_one, {"_id": "notifications"}, {"$set": fields}, upsert=True
        )

    def all_switch(self) -> Mapping[str, Any]:
        """`{paused, reason, by, at}`, empty when nobody ever touched it."""
        return self._dependency.call(self._switches.find_one, {"_id": "notifications"}) or {}

    def switch(self, campaign_id: str) -> Mapping[str, Any]:
        """What `notifications` of the campaign's draw says."""
        found = self._dependency.call(self._draws.find_one, {"_id": campaign_id}, {"notifications": 1})
        return (found or {}).get("notifications") or {}

    def _move(self, market: MarketPhase, before: list[str], fields: Mapping[str, Any]) -> bool:
        path = _path(market)
        query = {"_id": market.campaign_id, f"{path}.status": {"$in": before}}
        return self._update(query, {"$set": {f"{path}.{name}": value for name, value in fields.items()}})

    def _update(self, query: Document, update: Document) -> bool:
        answer = self._dependency.call(self._draws.update_one, query, update)
        return answer.matched_count == 1


def _path(market: MarketPhase) -> str:
    return f"phases.{market.phase}.markets.{market.market_id}"
