"""The outbox as a drain's source: one sender at a time hands out due rows, in parcels of one message each.

A page is read, handed out and marked under the lease of its campaign's draw. A phase is drawn and confirmed only under
that lease, so what is true when the page is read is true when its messages are sent. Every send of ten messages costs 6
calls (two switches, the send, its events, its marks), and a page 8 more: two to take the lease and one to free it, the
draw, its rows, the tombstones of erased fans, whether rows are due at all, and the dead letters of the mailer.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from fairdraw import scheduling
from regworkers_core.adapters.mongo.outbox import ANNULLED, ERASED, RowStatus
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import MAX_ITEMS
from regworkers_core.domain.reasons import PermanentFailure
from regworkers_core.domain.selection import MarketPhase, Notice, NoticeType
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.leading import Leader
from regworkers_core.selection.notify.outbox import (
    Unit,
    canary_left,
    held_until,
    is_due,
    is_settled,
    lock,
    settle,
    to_lock,
    undelivered,
)

log = structlog.get_logger(__name__)
LEASE = "notifications"
SENDER = "send_notifications"
# Rows that are read at once and held in memory. All handed-out rows end before the next page.
_PAGE_ROWS = 10_000
# One send of the queue: ten messages.
PARCELS = 10


@dataclass(frozen=True, slots=True)
class Parcel:
    """The rows of one message, all of one market."""

    notices: tuple[Notice, ...]

    @property
    def market(self) -> MarketPhase:
        return self.notices[0].market


class OutboxSource:
    """An `engine.drain.Source[Parcel]`. Without the lease it hands out nothing and stays idle."""

    def __init__(
        self,
        runtime: Runtime,
        *,
        owner: str,
        sleep: Callable[[float], object],
        page_rows: int = _PAGE_ROWS,
        clock: Callable[[], float] = scheduling.monotonic,
    ) -> None:
        self._runtime, self._page_rows = runtime, page_rows
        # The lease of a draw is held while rows of its page are handed out.
        self._leader = Leader(runtime, LEASE, owner=owner, sleep=sleep, clock=clock)
        self._waits_for_draw = False
        self._lock = scheduling.lock()
        self._ready: deque[Parcel] = deque()
        self._in_flight = 0
        # Until when a market whose rows were given back is skipped.
        self._rest_until: dict[MarketPhase, float] = {}
        self._counts: Counter[str] = Counter()

    def receive(self) -> list[Parcel]:
        if not self._leads():
            return self._nothing()
        if self._ready and (self._leader.kept_too_long or self._stopped(self._ready[0].market.campaign_id)):
            # The rows are read again when they may be sent.
            self._ready.clear()
        if not self._ready:
            with self._lock:
                busy = self._in_flight > 0
            if busy or not self._refill():
                return self._nothing()
        self._leader.found_work()
        batch = [self._ready.popleft() for _ in range(min(PARCELS, len(self._ready)))]
        with self._lock:
            self._in_flight += len(batch)
        return batch

    def may_send(self) -> bool:
        """Return whether both leases are still held; the drain's threads ask right before a send."""
        return self._leader.holds()

    def _leads(self) -> bool:
        lease = self._leader.lease
        if lease is None or lease.lost:
            self._ready.clear()
        return self._leader.leads()

    def _nothing(self) -> list[Parcel]:
        self._leader.found_nothing()
        return []

    def _stopped(self, campaign_id: str) -> bool:
        markets = self._runtime.draw_markets
        return bool(markets.all_switch().get("paused") or markets.switch(campaign_id).get("paused"))

    # Pages

    def _refill(self) -> bool:
        """Read the next page of the first unit that has one. Nothing is in flight here, so PENDING rows were not handed
        out, or were given back.
        """
        now = self._runtime.clock()
        self._waits_for_draw = False
        refused: set[str] = set()
        for unit in undelivered(self._runtime):
            campaign_id = unit.market.campaign_id
            if campaign_id in refused or self._rest_until.get(unit.market, 0.0) > now:
                continue
            if not is_due(self._runtime, unit, now):
                continue
            if not self._counts_fit(unit):
                refused.add(campaign_id)
            elif not self._leader.take_draw(campaign_id):
                self._waits_for_draw = True
                refused.add(campaign_id)
            elif self._read(unit, now):
                return True
        self._leader.free_draw()
        return False

    def _counts_fit(self, unit: Unit) -> bool:
        """Check the counts of a unit; pause the campaign if they are wrong."""
        if unit.record.annulled:
            return True
        try:
            lock(self._runtime, unit)
            if to_lock(unit.record) is not None:
                # A late import: it loads pyarrow and DuckDB, which most callers do not need.
                from regworkers_core.selection.notify.counts import lock_counts

                # It takes long, and is repeated if a phase is confirmed meanwhile.
                self._leader.free_draw()
                return lock_counts(self._runtime, unit.record)
        except PermanentFailure as failure:
            self._pause(unit, failure.error)
            return False
        return True

    def _read(self, unit: Unit, now: float) -> bool:
        """Read the rows that may be sent now, under the draw's lease."""
        canary = canary_left(self._runtime, unit)
        record = self._runtime.draws.light(unit.market.campaign_id)
        draw = self._leader.draw
        if record is None or draw is None:
            return False
        if record.annulled:
            # Also rows that were written after that: none is sent.
            at = iso(now)
            self._counts["superseded"] += self._runtime.outbox.supersede(unit.market, why=ANNULLED, at=at)
        if not is_settled(record):
            try:
                settle(self._runtime, record.campaign_id, token=draw.token)
            except PermanentFailure as failure:
                # Only this draw fails; the messages of others continue.
                if not record.notifications.get("paused"):
                    self._pause(unit, failure.error)
                return False
        if record.notifications.get("paused"):
            return False
        rows = self._without_erased(self._rows(Unit(unit.market, record), canary, now), now)
        self._ready.extend(
            Parcel(tuple(rows[start : start + MAX_ITEMS])) for start in range(0, len(rows), MAX_ITEMS)
        )
        if not rows:
            self._end(unit)
        return bool(rows)

    def _rows(self, unit: Unit, canary: Mapping[NoticeType, int], now: float) -> list[Notice]:
        """Return the canary's rows of each type; once they are sent without new dead letters, a page of the others."""
        pending, at = self._runtime.outbox.pending, iso(now)
        rows: list[Notice] = []
        for kind, left in canary.items():
            rows += pending(unit.market, now=at, limit=min(left, self._page_rows), kind=kind)
        if rows or held_until(self._runtime, unit) > now:
            return rows
        dead, tolerated = self._dead_letters(), int(unit.record.notifications.get("tolerated", 0))
        if dead > tolerated:
            self._pause(unit, f"{dead} dead letters of the mailer's queue, {tolerated} of them known")
            return []
        return pending(unit.market, now=at, limit=self._page_rows)

    def _without_erased(self, rows: list[Notice], now: float) -> list[Notice]:
        """Supersede the rows of fans whose data were erased, and return the others."""
        keys = {notice.key: EntryKey(notice.market.campaign_id, notice.entry_id) for notice in rows}
        refs = {keys[notice.key]: notice.ref for notice in rows}
        erased = self._runtime.replica.erased(refs) if refs else set()
        if not erased:
            return rows
        gone = [key for key, entry in keys.items() if entry in erased]
        self._counts["superseded"] += self._runtime.outbox.supersede(gone, why=ERASED, at=iso(now))
        return [notice for notice in rows if keys[notice.key] not in erased]

    def _end(self, unit: Unit) -> None:
        """Mark a unit without due rows as delivered if all its rows are SENT or SUPERSEDED."""
        if self._runtime.outbox.open(unit.market):
            return
        rows = self._runtime.outbox.count_by(unit.market, "status")
        sent, superseded = rows[RowStatus.SENT], rows[RowStatus.SUPERSEDED]
        if sent + superseded == int(unit.entry["planned"]):
            at = iso(self._runtime.clock())
            self._runtime.draw_markets.delivered(unit.market, sent=sent, superseded=superseded, at=at)
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
        """Renew the leases. Once one is lost, nothing more is handed out."""
        self._leader.renew()

    def may_idle(self) -> bool:
        """Return whether the drain may count as idle. It waits until a dead sender's lease has expired; a lease that is
        held longer has a live sender. While a run of a draw works, its messages wait for the end of its step.
        """
        behind = self._leader.is_behind_another
        return not self._waits_for_draw if behind is None else behind

    def let_go(self) -> None:
        self._leader.let_go()

    close = let_go

    def counts(self) -> Counter[str]:
        return self._counts
