"""The outbox as a drain's source: one sender at a time hands out due rows, a message's worth at a time."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from regworkers_core.domain.messages import MAX_ITEMS
from regworkers_core.domain.reasons import PermanentFailure
from regworkers_core.domain.selection import MarketPhase, Notice
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.held_lease import PATIENCE_LEASES
from regworkers_core.engine.leases import Lease, LeaseHolder
from regworkers_core.runtime import Runtime
from regworkers_core.selection.notify.units import Unit, canary_left, held_until, lock, undelivered

log = structlog.get_logger(__name__)
LEASE = "notifications"
SENDER = "send_notifications"
# Rows that are read at once and held in memory. Between two pages all that was handed out comes to its end.
_PAGE_ROWS = 5_000
# One send of the queue: ten messages.
_PARCELS = 10
_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Parcel:
    """The rows of one message, all of one market."""

    notices: tuple[Notice, ...]

    @property
    def market(self) -> MarketPhase:
        return self.notices[0].market


class OutboxSource:
    """Implements `engine.drain.Source[Parcel]`. Without the lease it hands out nothing and idles away."""

    def __init__(
        self, runtime: Runtime, *, owner: str, sleep: Callable[[float], object], page_rows: int = _PAGE_ROWS
    ) -> None:
        self._runtime, self._sleep, self._page_rows = runtime, sleep, page_rows
        lease_seconds = runtime.settings.selection.lease_seconds
        self._holder = LeaseHolder(runtime.leases, owner, lease_seconds=lease_seconds)
        self._patience_seconds = lease_seconds * PATIENCE_LEASES
        self._lease: Lease | None = None
        # Since when (monotonic seconds) somebody else holds the lease before our eyes.
        self._refused_since: float | None = None
        self._lock = threading.Lock()
        self._ready: deque[Parcel] = deque()
        self._in_flight = 0
        # Until when a market whose rows came back is left alone.
        self._rest_until: dict[MarketPhase, float] = {}
        self._counts: Counter[str] = Counter()

    def receive(self) -> list[Parcel]:
        if not self._leads():
            return self._nothing()
        if not self._ready:
            with self._lock:
                busy = self._in_flight > 0
            if busy or not self._refill():
                return self._nothing()
        elif self._stopped(self._ready[0].market.campaign_id):
            # What was read is read again when it may go.
            self._ready.clear()
            return self._nothing()
        batch = [self._ready.popleft() for _ in range(min(_PARCELS, len(self._ready)))]
        with self._lock:
            self._in_flight += len(batch)
        return batch

    def _leads(self) -> bool:
        if self._lease is None or self._lease.lost:
            self._ready.clear()
            self._lease = self._holder.acquire(LEASE)
        if self._lease is not None:
            self._refused_since = None
        elif self._refused_since is None:
            self._refused_since = time.monotonic()
        return self._lease is not None

    def _nothing(self) -> list[Parcel]:
        self._sleep(_PAUSE_SECONDS)
        return []

    def _stopped(self, campaign_id: str) -> bool:
        markets = self._runtime.draw_markets
        return bool(markets.all_switch().get("paused") or markets.switch(campaign_id).get("paused"))

    def _refill(self) -> bool:
        """Read the next page of the first unit that has one. Nothing is in flight here, so what is PENDING was
        not handed out, or came back.
        """
        now = self._runtime.clock()
        refused: set[str] = set()
        for unit in undelivered(self._runtime):
            campaign_id = unit.market.campaign_id
            if campaign_id in refused or self._rest_until.get(unit.market, 0.0) > now:
                continue
            if unit.phase.fields["notBefore"] > iso(now):
                continue
            if not self._may_go(unit, now):
                refused.add(campaign_id)
                continue
            if self._read(unit, now):
                return True
        return False

    def _may_go(self, unit: Unit, now: float) -> bool:
        """Counts, canary and dead letters of a unit; what is wrong with them pauses its campaign."""
        try:
            lock(self._runtime, unit)
        except PermanentFailure as failure:
            self._pause(unit, failure.error)
            return False
        if canary_left(self._runtime, unit) is not None:
            return True
        if held_until(self._runtime, unit) > now:
            return False
        dead = self._dead_letters()
        tolerated = int(self._runtime.draw_markets.switch(unit.market.campaign_id).get("tolerated", 0))
        if dead > tolerated:
            self._pause(unit, f"{dead} dead letters of the mailer's queue, {tolerated} of them known")
            return False
        return True

    def _read(self, unit: Unit, now: float) -> bool:
        left = canary_left(self._runtime, unit)
        limit = self._page_rows if left is None else min(left, self._page_rows)
        rows = self._runtime.outbox.pending(unit.market, now=iso(now), limit=limit)
        if not rows:
            self._end(unit)
            return False
        self._ready.extend(
            Parcel(tuple(rows[start : start + MAX_ITEMS])) for start in range(0, len(rows), MAX_ITEMS)
        )
        return True

    def _end(self, unit: Unit) -> None:
        """Nothing of it is left to send: note it when that means that all of it is sent."""
        planned = int(unit.entry["planned"])
        sent = self._runtime.outbox.count_sent(unit.market, planned + 1) if planned else 0
        if sent == planned:
            self._runtime.draw_markets.delivered(unit.market, sent=sent, at=iso(self._runtime.clock()))
            self._counts["markets_delivered"] += 1

    def _pause(self, unit: Unit, reason: str) -> None:
        self._runtime.draw_markets.pause(
            unit.market.campaign_id, reason=reason, by=SENDER, at=iso(self._runtime.clock())
        )
        self._counts["campaigns_paused"] += 1
        log.error("notifications paused", campaignId=unit.market.campaign_id, reason=reason)

    def _dead_letters(self) -> int:
        names = self._runtime.names
        return self._runtime.queue(names.dead_letter_queue(names.notification_queue)).depth().total

    def acknowledge(self, done: Sequence[Parcel]) -> None:
        with self._lock:
            self._in_flight -= len(done)

    def give_back(self, again: Sequence[tuple[Parcel, float]]) -> None:
        now = self._runtime.clock()
        with self._lock:
            self._in_flight -= len(again)
            for parcel, wait_seconds in again:
                self._rest_until[parcel.market] = now + wait_seconds

    def heartbeat(self) -> None:
        """Keep the lease. Once it is lost nothing more is handed out."""
        if self._lease is not None:
            self._lease.renew()

    def may_idle(self) -> bool:
        """A dead sender's lease is waited out; one that is still held after that has a living sender."""
        waited = 0.0 if self._refused_since is None else time.monotonic() - self._refused_since
        return self._refused_since is None or waited > self._patience_seconds

    def close(self) -> None:
        if self._lease is not None:
            self._lease.release()

    def counts(self) -> Counter[str]:
        return self._counts
