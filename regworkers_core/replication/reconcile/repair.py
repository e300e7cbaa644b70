"""Repair: the demand table is never written, keys are queued and the save drain does the rest.

The one write is the deletion of a tombstone that hides a live source entry, of exactly that tombstone and
after both sides were read again. A save drain that had read that entry may be held up between its read and its
write; if the source loses the entry meanwhile, no tombstone refuses that write any more. So the key goes out as a
removal of the tombstone's order, which becomes an upsert where the source still has the entry and puts the tombstone
back where it has not. It goes out twice: at once, and again when SQS has long handed the messages of a drain that is
held up to another one. The second one is queued before the tombstone is deleted, so a crash right after that loses
nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace

from regworkers_core.domain.messages import Op, ReplicationItem
from regworkers_core.domain.order import Order
from regworkers_core.engine.ports import Queue
from regworkers_core.engine.rate import TokenBucket
from regworkers_core.replication.reconcile.classify import REPAIRABLE, Kind, classify
from regworkers_core.replication.reconcile.compare import Comparison, Difference, Step
from regworkers_core.replication.reconcile.judge import Judge
from regworkers_core.replication.reconcile.reconcile_report import RepairReport
from regworkers_core.replication.reconcile.removals import Removals
from regworkers_core.replication.reconcile.scan import Tick
from regworkers_core.replication.reconcile.sides import Sides
from regworkers_core.replication.send import send_keys

# Twice the time after which SQS hands the messages of a drain that is held up to another one.
_SECOND_KEY_VISIBILITIES = 2
_LONGEST_DELAY_SECONDS = 900
_FIRST_POLL_SECONDS = 0.1
_LAST_POLL_SECONDS = 2.0


class Repair:
    """`patience_seconds` is how long the end waits without seeing any further entry heal; `visibility_seconds` is
    that of the save drain's messages.
    """

    def __init__(
        self,
        comparison: Comparison,
        sides: Sides,
        judge: Judge,
        queue: Queue,
        rate: TokenBucket,
        removals: Removals,
        *,
        patience_seconds: float,
        visibility_seconds: int,
        clock: Callable[[], float],
        sleep: Callable[[float], object],
        tick: Tick,
    ) -> None:
        self._comparison, self._sides, self._judge = comparison, sides, judge
        self._queue, self._rate, self._allowed = queue, rate, removals
        self._patience = patience_seconds
        self._second_delay = min(_SECOND_KEY_VISIBILITIES * visibility_seconds, _LONGEST_DELAY_SECONDS)
        self._clock, self._sleep, self._tick = clock, sleep, tick
        self._correlation_id = uuid.uuid4().hex
        self._sent = self._removals = self._withheld = self._tombstones = 0

    def run(self) -> RepairReport:
        """Queue what differs, then wait until it agrees or nothing moves any more. Raises TransientFailure."""
        began = self._clock()
        before = self._comparison.counts()
        for page in self._comparison.pages(Step.SETTLED, REPAIRABLE):
            self._send(page)
        self._await_all()
        remaining = self._comparison.counts()
        return RepairReport(
            sent=self._sent,
            removals=self._removals,
            withheld=self._withheld,
            withheld_because=self._allowed.reason or "the source lost entries while they were repaired",
            tombstones_deleted=self._tombstones,
            healed=sum(before.values()) - sum(remaining.values()),
            remaining=remaining,
            seconds=self._clock() - began,
        )

    def _send(self, page: list[Difference]) -> None:
        # Waits first: between the second look and the sending there should be no time.
        self._rate.take(len(page))
        looked = self._look(page)
        items = self._bring_back(looked)
        withheld: set[int] = set()
        for difference in looked:
            source, replica = difference.pair
            if difference.kind is Kind.ORPHANED and replica is not None:
                if self._removals >= self._allowed.allowed:
                    withheld.add(difference.n)
                    continue
                items.append(ReplicationItem(difference.key, Op.REMOVE, replica.order))
                self._removals += 1
            elif difference.kind in (Kind.MISSING, Kind.STALE):
                order = source.order if source is not None else Order()
                items.append(ReplicationItem(difference.key, Op.UPSERT, order))
        if items:
            send_keys(self._queue, items, self._correlation_id)
        self._sent += len(items)
        self._withheld += len(withheld)
        self._comparison.put(
            [
                replace(difference, step=Step.SENT)
                if difference.kind in REPAIRABLE and difference.n not in withheld
                else difference
                for difference in looked
            ]
        )
        self._tick(len(page))

    def _bring_back(self, looked: Sequence[Difference]) -> list[ReplicationItem]:
        """Queue the second keys of those that a tombstone hides, delete it, and return their first keys."""
        items = [
            ReplicationItem(each.key, Op.REMOVE, each.pair.replica.order)
            for each in looked
            if each.kind is Kind.RESURRECTED and each.pair.replica is not None
        ]
        if items:
            send_keys(self._queue, items, self._correlation_id, delay_seconds=self._second_delay)
        for item in items:
            self._tombstones += self._sides.replica.delete_tombstone(item.key, item.order)
        return items

    def _await_all(self) -> None:
        """Page by page, so that each key is read a few times, however many there are."""
        moved_at = self._clock()
        for page in self._comparison.pages(Step.SENT):
            waiting, poll = page, _FIRST_POLL_SECONDS
            while waiting:
                looked = self._look(waiting)
                self._comparison.put(looked)
                left = [difference for difference in looked if difference.kind in REPAIRABLE]
                if len(left) < len(waiting):
                    moved_at, poll = self._clock(), _FIRST_POLL_SECONDS
                    self._tick(len(waiting) - len(left))
                waiting = [replace(difference, step=Step.SENT) for difference in left]
                if not waiting or self._clock() - moved_at >= self._patience:
                    # Without patience each remaining page still gets its one look.
                    break
                self._sleep(poll)
                poll = min(poll * 2, _LAST_POLL_SECONDS)

    def _look(self, page: list[Difference]) -> list[Difference]:
        fresh = self._sides.read([difference.key for difference in page])
        return self._judge.with_rejected(
            replace(
                difference,
                pair=fresh[difference.key],
                kind=classify(*fresh[difference.key]),
                step=Step.SETTLED,
            )
            for difference in page
        )
