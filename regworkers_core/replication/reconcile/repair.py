"""Repair: keys are queued and the save drain does the rest; the demand table is never written.

The one write is the deletion of a tombstone that hides a live source entry: of exactly that tombstone, after both sides
were read again. A save drain that has read the entry may be delayed between its read and its write; if the source loses
the entry meanwhile, no tombstone refuses that write any more. So the key is sent as a removal with the order of the
tombstone. It becomes an upsert if the source still has the entry, and puts the tombstone back if not. It is sent twice:
at once, and again when SQS has long handed the messages of a delayed drain to another one. The second key is queued
before the tombstone is deleted, so a crash after that loses nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

from fairdraw.documents import as_document
from regworkers_core.domain.entry import Order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import Op, ReplicationItem
from regworkers_core.engine.dependency import TokenBucket
from regworkers_core.engine.queue import Queue
from regworkers_core.replication.keys import send_keys
from regworkers_core.replication.reconcile.classify import (
    EXPLANATIONS,
    REPAIRABLE,
    WAITING,
    Kind,
    Sides,
    classify,
)
from regworkers_core.replication.reconcile.comparison import (
    Comparison,
    Difference,
    Orphans,
    PairProgress,
    Recheck,
    Tick,
)
from regworkers_core.runtime import Runtime

Counts = Mapping[Kind, int]


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What a repair did."""

    sent: int  # keys that were queued, after the tombstones were deleted
    removals: int  # those of them that remove orphans
    tombstones_deleted: int
    healed: int  # entries that agree again
    remaining: Counts  # what differs at the end, by kind, including what a repair cannot heal
    seconds: float
    withheld: int = 0  # orphans that were not removed because they are too many
    withheld_because: str = ""

    @property
    def in_words(self) -> str:
        """One line: what the repair did."""
        left = sum(number for kind, number in self.remaining.items() if kind not in WAITING)
        return (
            f"repair: queued {self.sent} keys ({self.removals} of them removals), deleted"
            f" {self.tombstones_deleted} tombstones; {self.healed} healed, {left} left after {self.seconds:.1f} s"
        )

    @property
    def advice(self) -> str:
        """What is left to do, empty when nothing is."""
        still = sum(self.remaining[kind] for kind in REPAIRABLE) - self.withheld
        parts = []
        if self.withheld:
            parts.append(
                f"{self.withheld} removals refused: {self.withheld_because}; if the source is the right one,"
                f" repeat with `--yes-remove {self.withheld}` (in Dagster `apply: true` and"
                f" `yes_remove: {self.withheld}`)"
            )
        if still:
            parts.append(
                f"{still} entries were queued and did not arrive yet: run `regworkers drain save` (or see that its"
                " sensor is on), then `regworkers reconcile` once more"
            )
        return "; ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        names = "sent removals withheld tombstones_deleted healed remaining seconds advice"
        return as_document(self, *names.split()) | {"seconds": round(self.seconds, 3)}


_NAMED = 3


@dataclass(frozen=True, slots=True)
class Removals:
    """A repair queues at most `allowed` removals. `reason`: why that is none."""

    allowed: int
    reason: str | None = None


def limit_removals(
    orphans: Sequence[Orphans], *, replica: int, share: float, always: int, confirmed: int | None
) -> Removals:
    """How many orphans a repair may remove: a source that is wrong, new or empty must not empty the replica.

    `replica` counts its live entries. Removals are refused from a campaign of which the source has no entry, and if
    they are more than `share` of the replica and more than `always`; unless an operator `confirmed` at least their
    number.
    """
    wanted = sum(each.entries for each in orphans)
    if confirmed is not None and wanted <= confirmed:
        return Removals(confirmed)
    limit = max(always, int(share * replica))
    reason = None
    if deserted := [each.campaign_id for each in orphans if not each.has_source]:
        more = f" and {len(deserted) - _NAMED} more" if len(deserted) > _NAMED else ""
        reason = f"the source holds no entry of {', '.join(deserted[:_NAMED])}{more}"
    elif wanted > limit:
        reason = (
            f"{wanted} of the replica's {replica} entries are more than {share:.0%} and more than {always}"
        )
    elif confirmed is not None:
        reason = f"{confirmed} were confirmed"
    return Removals(limit if reason is None else 0, reason)


# Twice the time after which SQS hands the messages of a drain that is held up to another one.
_SECOND_KEY_VISIBILITIES = 2
_LONGEST_DELAY_SECONDS = 900
_FIRST_POLL_SECONDS = 0.1
_LAST_POLL_SECONDS = 2.0


@dataclass(eq=False)
class Repair:
    """One repair of what a comparison found."""

    comparison: Comparison
    sides: Sides
    recheck: Recheck
    queue: Queue
    # The messages that it may send.
    rate: TokenBucket
    # Those that are allowed.
    allowed: Removals
    _: KW_ONLY
    # How long the end waits since the last entry healed.
    patience_seconds: float
    # That of the save drain's messages.
    visibility_seconds: int
    clock: Callable[[], float]
    # Waits for this number of seconds.
    sleep: Callable[[float], object]
    tick: Tick

    def __post_init__(self) -> None:
        self._second_delay = min(_SECOND_KEY_VISIBILITIES * self.visibility_seconds, _LONGEST_DELAY_SECONDS)
        self._correlation_id = uuid.uuid4().hex
        self._sent = self._removals = self._withheld = self._tombstones = 0

    def run(self) -> RepairReport:
        """Queue what differs, then block until it agrees or nothing changes any more. Raises TransientFailure."""
        began = self.clock()
        before = self.comparison.counts()
        for page in self.comparison.pages(PairProgress.SETTLED, REPAIRABLE):
            self._send(page)
        self._await_all()
        remaining = self.comparison.counts()
        return RepairReport(
            sent=self._sent,
            removals=self._removals,
            withheld=self._withheld,
            withheld_because=self.allowed.reason or "the source lost entries while they were repaired",
            tombstones_deleted=self._tombstones,
            healed=sum(before.values()) - sum(remaining.values()),
            remaining=remaining,
            seconds=self.clock() - began,
        )

    def _send(self, page: list[Difference]) -> None:
        # Waits first, so that no time passes between the second read and the send.
        self.rate.take(len(page))
        fresh = self._read_again(page)
        items = self._delete_tombstones(fresh)
        withheld: set[int] = set()
        for difference in fresh:
            source, replica = difference.pair
            if difference.kind is Kind.ORPHANED and replica is not None:
                if self._removals >= self.allowed.allowed:
                    withheld.add(difference.n)
                    continue
                items.append(ReplicationItem(difference.key, Op.REMOVE, replica.order))
                self._removals += 1
            elif difference.kind in (Kind.MISSING, Kind.STALE):
                order = source.order if source is not None else Order()
                items.append(ReplicationItem(difference.key, Op.UPSERT, order))
        if items:
            send_keys(self.queue, items, self._correlation_id)
        self._sent += len(items)
        self._withheld += len(withheld)
        self.comparison.put(
            [
                replace(difference, step=PairProgress.SENT)
                if difference.kind in REPAIRABLE and difference.n not in withheld
                else difference
                for difference in fresh
            ]
        )
        self.tick(len(page))

    def _delete_tombstones(self, fresh: Sequence[Difference]) -> list[ReplicationItem]:
        """Queue the second keys of entries that a tombstone hides, delete it, and return their first keys."""
        items = [
            ReplicationItem(each.key, Op.REMOVE, each.pair.replica.order)
            for each in fresh
            if each.kind is Kind.RESURRECTED and each.pair.replica is not None
        ]
        if items:
            send_keys(self.queue, items, self._correlation_id, delay_seconds=self._second_delay)
        for item in items:
            self._tombstones += self.sides.replica.delete_tombstone(item.key, item.order)
        return items

    def _await_all(self) -> None:
        """Page by page, so that each key is read a few times, however many there are."""
        moved_at = self.clock()
        for page in self.comparison.pages(PairProgress.SENT):
            waiting, poll = page, _FIRST_POLL_SECONDS
            while waiting:
                fresh = self._read_again(waiting)
                self.comparison.put(fresh)
                left = [difference for difference in fresh if difference.kind in REPAIRABLE]
                if len(left) < len(waiting):
                    moved_at, poll = self.clock(), _FIRST_POLL_SECONDS
                    self.tick(len(waiting) - len(left))
                waiting = [replace(difference, step=PairProgress.SENT) for difference in left]
                if not waiting or self.clock() - moved_at >= self.patience_seconds:
                    # After the patience each remaining page is still read once.
                    break
                self.sleep(poll)
                poll = min(poll * 2, _LAST_POLL_SECONDS)

    def _read_again(self, page: list[Difference]) -> list[Difference]:
        fresh = self.sides.read([difference.key for difference in page])
        return self.recheck.with_rejected(
            replace(
                difference,
                pair=fresh[difference.key],
                kind=classify(*fresh[difference.key]),
                step=PairProgress.SETTLED,
            )
            for difference in page
        )


def replicate(runtime: Runtime, key: EntryKey) -> dict[str, Any]:
    """Repair one entry: send its key after a consistent read, whatever its flag says. If the source has no such entry,
    a live one in the replica is removed, and otherwise nothing is sent.

    Returns a JSON document: `id`, `sent`, `op` (None unless sent), `correlationId`, `explanation`. Raises
    TransientFailure when a store cannot answer or SQS did not confirm.
    """
    source, replica = Sides(runtime.demand_table, runtime.replica, runtime.dead_letters).read([key])[key]
    kind = classify(source, replica)
    queue = runtime.queue(runtime.names.replication_queue)
    correlation_id = uuid.uuid4().hex
    item: ReplicationItem | None = None
    if source is not None and kind is not Kind.ERASED:
        item = ReplicationItem(key, Op.UPSERT, source.order)
    elif kind is Kind.ORPHANED and replica is not None:
        item = ReplicationItem(key, Op.REMOVE, replica.order)
    if item is not None:
        send_keys(queue, [item], correlation_id)
    return {
        "id": key.document_id,
        "sent": item is not None,
        "op": item.op.value if item else None,
        "correlationId": correlation_id if item else None,
        "explanation": _explain(item, kind, known=replica is not None),
    }


def _explain(item: ReplicationItem | None, kind: Kind | None, *, known: bool) -> str:
    if kind is Kind.ERASED:
        return f"Nothing sent. {EXPLANATIONS[kind]}"
    if item is None and known:
        return "Nothing sent: the entry was removed from the source, and the replica has its tombstone."
    if item is None:
        return "Nothing sent: neither the source nor the replica knows this entry. Check the ids."
    if kind is Kind.RESURRECTED or kind is Kind.AHEAD:
        repair = " Run `regworkers reconcile --repair --apply`." if kind is Kind.RESURRECTED else ""
        return f"Sent, but it will change nothing. {EXPLANATIONS[kind]}{repair}"
    if item.op is Op.REMOVE:
        return "Sent as a removal: the source no longer has the entry. `regworkers drain save` removes it."
    return "Sent: `regworkers drain save` (or its sensor) saves the source's current state."
