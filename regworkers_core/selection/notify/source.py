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
from regworkers_core.adapters.mongo.draws import lease_name
from regworkers_core.adapters.mongo.outbox import ANNULLED, ERASED, RowStatus
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import MAX_ITEMS
from regworkers_core.domain.reasons import PermanentFailure
from regworkers_core.domain.selection import MarketPhase, Notice, NoticeType
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.leases import PATIENCE_LEASES, POLL_SHARE, Lease, LeaseHolder
from regworkers_core.runtime import Runtime
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
# After a read that found nothing, and longer after each further one.
_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 1.0
# How long a page may keep the lease of its draw, so that a run of that draw gets it while it waits, and how long the
# lease is then left to others, which is longer than their polling interval; both as shares of the lease time.
_HOLD_LEASES = 0.5
_LEAVE_LEASES = 2 * POLL_SHARE


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
        self._runtime, self._sleep, self._page_rows, self._clock = runtime, sleep, page_rows, clock
        self._lease_seconds = runtime.settings.selection.lease_seconds
        self._holder = LeaseHolder(runtime.leases, owner, lease_seconds=self._lease_seconds, clock=clock)
        self._lease: Lease | None = None
        # Since when (monotonic seconds) another holder of the lease has been observed, and when the last check began.
        self._refused_since: float | None = None
        self._checked_at = 0.0
        # The lease of the draw whose page is handed out, since when, and until when draws are left to others.
        self._draw: Lease | None = None
        self._draw_of, self._draw_since = "", 0.0
        self._leave_until: dict[str, float] = {}
        self._waits_for_draw = False
        self._lock = scheduling.lock()
        self._ready: deque[Parcel] = deque()
        self._in_flight = 0
        self._pause_seconds = _PAUSE_SECONDS
        # Until when a market whose rows were given back is skipped.
        self._rest_until: dict[MarketPhase, float] = {}
        self._counts: Counter[str] = Counter()

    def receive(self) -> list[Parcel]:
        if not self._leads():
            return self._nothing()
        if self._ready and (self._kept_too_long() or self._stopped(self._ready[0].market.campaign_id)):
            # The rows are read again when they may be sent.
            self._ready.clear()
        if not self._ready:
            with self._lock:
                busy = self._in_flight > 0
            if busy or not self._refill():
                return self._nothing()
        self._pause_seconds = _PAUSE_SECONDS
        batch = [self._ready.popleft() for _ in range(min(PARCELS, len(self._ready)))]
        with self._lock:
            self._in_flight += len(batch)
        return batch

    def may_send(self) -> bool:
        """Return whether both leases are still held; the drain's threads ask right before a send."""
        return not any(lease is None or lease.lost for lease in (self._lease, self._draw))

    def _leads(self) -> bool:
        if self._lease is None or self._lease.lost:
            self._ready.clear()
            self._checked_at = self._clock()
            self._lease = self._holder.acquire(LEASE)
        if self._lease is not None:
            self._refused_since = None
        elif self._refused_since is None:
            self._refused_since = self._clock()
        return self._lease is not None

    def _nothing(self) -> list[Parcel]:
        self._sleep(self._pause_seconds)
        self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)
        return []

    def _stopped(self, campaign_id: str) -> bool:
        markets = self._runtime.draw_markets
        return bool(markets.all_switch().get("paused") or markets.switch(campaign_id).get("paused"))

    # The lease of a draw

    def _take_draw(self, campaign_id: str) -> bool:
        """Take the lease of a draw. Returns False while a run of that draw works, or may be waiting for it."""
        if self._draw_of == campaign_id and not self._kept_too_long():
            return True
        self._free_draw()
        if self._leave_until.get(campaign_id, 0.0) > self._clock():
            return False
        self._draw = self._holder.acquire(lease_name(campaign_id))
        self._draw_of, self._draw_since = campaign_id, self._clock()
        return self._draw is not None

    def _kept_too_long(self) -> bool:
        kept = self._clock() - self._draw_since
        return self._draw is None or self._draw.lost or kept >= self._lease_seconds * _HOLD_LEASES

    def _free_draw(self) -> None:
        lease, self._draw = self._draw, None
        if lease is None:
            return
        if self._clock() - self._draw_since >= self._lease_seconds * _HOLD_LEASES:
            self._leave_until[self._draw_of] = self._clock() + self._lease_seconds * _LEAVE_LEASES
        lease.release()

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
            elif not self._take_draw(campaign_id):
                self._waits_for_draw = True
                refused.add(campaign_id)
            elif self._read(unit, now):
                return True
        self._free_draw()
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
                self._free_draw()
                return lock_counts(self._runtime, unit.record)
        except PermanentFailure as failure:
            self._pause(unit, failure.error)
            return False
        return True

    def _read(self, unit: Unit, now: float) -> bool:
        """Read the rows that may be sent now, under the draw's lease."""
        canary = canary_left(self._runtime, unit)
        record = self._runtime.draws.light(unit.market.campaign_id)
        if record is None or self._draw is None:
            return False
        if record.annulled:
            # Also rows that were written after that: none is sent.
            at = iso(now)
            self._counts["superseded"] += self._runtime.outbox.supersede(unit.market, why=ANNULLED, at=at)
        if not is_settled(record):
            try:
                settle(self._runtime, record.campaign_id, token=self._draw.token)
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
        for lease in (self._lease, self._draw):
            if lease is not None:
                lease.renew()

    def may_idle(self) -> bool:
        """Return whether the drain may count as idle. It waits until a dead sender's lease has expired; a lease that is
        held longer has a live sender. While a run of a draw works, its messages wait for the end of its step.
        """
        if self._refused_since is None:
            return not self._waits_for_draw
        return self._checked_at - self._refused_since > self._lease_seconds * PATIENCE_LEASES

    def let_go(self) -> None:
        self._free_draw()
        if self._lease is not None:
            self._lease.release()

    close = let_go

    def counts(self) -> Counter[str]:
        return self._counts
