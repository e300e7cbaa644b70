"""The segments of the comparison: ranges of entry ids of a campaign, each with when it was last verified and what was
found then.

Both sides have the entries of a campaign in the order of their bytes, so a segment is compared in one pass over both.
Its row in `worker-leases` (`PK=SEGMENTS`) says where it begins; it ends where the next one does. So a split is one new
row, and a crash never leaves a gap. A cycle takes the segments whose verification is oldest, under their leases, so it
goes on where a killed one stopped, and several workers share it.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest

import orjson

from fairdraw import scheduling
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.leases import (
    PATIENCE_LEASES,
    POLL_SHARE,
    Lease,
    LeaseHolder,
    LeaseKey,
    LeaseRow,
    LeaseTable,
)
from regworkers_core.replication.reconcile.classify import EntrySide, Pair, Sides, of_replica, of_source
from regworkers_core.replication.reconcile.comparison import Range

_SEGMENTS = "SEGMENTS"
# The entries of a new segment; one that was verified may grow to twice as many before it is split.
SEGMENT_ENTRIES = 50_000
# What a worker takes at a time: it waits once for the lag of all of it, and a kill repeats that much.
GROUP_ENTRIES = 1_000_000
_KEY_BYTES = 16


@dataclass(frozen=True, slots=True)
class Segment:
    """The entries of a campaign between two ids."""

    campaign_id: str
    first: str = ""  # the first id
    end: str | None = None  # the id behind the last, None: all the rest
    verified_at: str = ""  # the ISO time before which nothing of it had been read, empty if it never was
    numbers: Mapping[str, int] = field(default_factory=dict)  # totals and differences by kind, as found then
    row: LeaseRow | None = field(default=None, compare=False)

    @property
    def ids(self) -> Range:
        return Range(self.campaign_id, self.first, self.end)

    @property
    def key(self) -> LeaseKey:
        """The key of its row: ids may be longer than a key."""
        name = EntryKey(self.campaign_id, self.first).document_id.encode()
        return LeaseKey(_SEGMENTS, hashlib.blake2b(name, digest_size=_KEY_BYTES).hexdigest())

    @property
    def state(self) -> dict[str, str]:
        numbers = orjson.dumps(dict(self.numbers)).decode()
        return {
            "campaignId": self.campaign_id,
            "first": self.first,
            "verifiedAt": self.verified_at,
            "numbers": numbers,
        }


def read_pairs(sides: Sides, segment: Segment, since: str, pay: Callable[[float], object]) -> Iterator[Pair]:
    """Both sides of every entry of the segment, in the order of ids; with `since` without those that have not changed
    from that ISO time on. `pay` gets the read units of each page. Raises TransientFailure.
    """
    of = (*segment.ids, since)

    def read_source() -> Iterator[EntrySide]:
        for page in sides.source.entries(*of):
            pay(page.units)
            yield from (of_source(key, item) for key, item in page.items)

    replicas = (of_replica(key, stored) for key, stored in sides.replica.entries(*of))
    return merge(read_source(), replicas)


def merge(sources: Iterator[EntrySide], replicas: Iterator[EntrySide]) -> Iterator[Pair]:
    """The pairs of two sides that are in the order of their keys, in that order."""
    source, replica = next(sources, None), next(replicas, None)
    while source is not None or replica is not None:
        if replica is None or (source is not None and source.key < replica.key):
            yield Pair(source, None)
            source = next(sources, None)
        elif source is None or replica.key < source.key:
            yield Pair(None, replica)
            replica = next(replicas, None)
        else:
            yield Pair(source, replica)
            source, replica = next(sources, None), next(replicas, None)


class Segments:
    """The rows of all segments. Every method raises TransientFailure."""

    def __init__(
        self,
        table: LeaseTable,
        *,
        lease_seconds: float,
        monotonic: Callable[[], float] = scheduling.monotonic,
        sleep: Callable[[float], object] = scheduling.sleep,
    ) -> None:
        self._table, self._lease_seconds = table, lease_seconds
        self._monotonic, self._sleep = monotonic, sleep
        self._holder = LeaseHolder(table, uuid.uuid4().hex, lease_seconds=lease_seconds, clock=monotonic)
        # Those of `due`: what else runs takes none.
        self._leases: dict[LeaseKey, Lease] = {}

    def listed(self, campaign_id: str | None = None) -> list[Segment]:
        """All segments, or those of a campaign, in their order."""
        rows = [row for row in self._table.rows(_SEGMENTS) if row.state]
        found = sorted(map(_segment, rows), key=lambda each: (each.campaign_id, each.first))
        ended = (
            replace(each, end=after.first if after and after.campaign_id == each.campaign_id else None)
            for each, after in zip_longest(found, found[1:])
        )
        return [each for each in ended if campaign_id in (None, each.campaign_id)]

    def cover(self, campaign_ids: Collection[str], *, all_campaigns: bool) -> None:
        """See that each of these campaigns has segments, and no other one if these are all."""
        listed = self.listed()
        for each in listed:
            if all_campaigns and each.campaign_id not in campaign_ids and each.row is not None:
                self._table.remove(each.row)
        known = {each.campaign_id for each in listed}
        for campaign_id in campaign_ids:
            if campaign_id not in known:
                self.add(Segment(campaign_id))

    def due(self, before: str) -> Generator[list[Segment]]:
        """Groups of the segments that were not verified since the ISO time `before`, the oldest first, each under its
        lease; `verified` has to follow. What other workers hold is left to them, unless they are dead. Close it.
        """
        done = scheduling.event()
        renewing = scheduling.start(partial(self._renew, done), "segments")
        give_up: float | None = None
        try:
            while due := [each for each in self.listed() if each.verified_at < before]:
                checked_at = self._monotonic()
                if group := self._take(sorted(due, key=lambda each: each.verified_at)):
                    give_up = None
                    yield group
                    continue
                # The check may take long, as in `held_lease`.
                give_up = give_up or self._monotonic() + PATIENCE_LEASES * self._lease_seconds
                if checked_at >= give_up:
                    return
                self._sleep(POLL_SHARE * self._lease_seconds)
        finally:
            done.set()
            renewing.join()
            with suppress(TransientFailure):
                # Otherwise they expire.
                for lease in self._leases.values():
                    lease.release()

    def add(self, segment: Segment) -> None:
        """Add a segment, unless one begins there."""
        self._table.swap(LeaseRow(segment.key, state=segment.state), None)

    def verified(self, segment: Segment) -> None:
        """Store what was found of it, unless another worker holds it, and free it."""
        lease = self._leases.pop(segment.key, None)
        if lease is not None:
            lease.save(segment.state)
            lease.release()
            return
        seen = self._table.get(segment.key)
        if seen is None or not seen.owner:
            row = seen or LeaseRow(segment.key)
            self._table.swap(replace(row, counter=row.counter + 1, state=segment.state), seen)

    def _take(self, due: Iterable[Segment]) -> list[Segment]:
        group: list[Segment] = []
        entries = 0
        for segment in due:
            if entries >= GROUP_ENTRIES:
                break
            lease = self._holder.take(segment.key, segment.row)
            if lease is not None:
                self._leases[segment.key] = lease
                group.append(segment)
                entries += segment.numbers.get("source", GROUP_ENTRIES)
        return group

    def _renew(self, done: scheduling.Event) -> None:
        while not done.wait(self._lease_seconds / 3):
            for lease in list(self._leases.values()):
                # The next renewal may succeed; what another took over meanwhile is compared twice.
                with suppress(TransientFailure):
                    lease.renew()


def _segment(row: LeaseRow) -> Segment:
    state = row.state
    numbers = orjson.loads(state["numbers"])
    return Segment(state["campaignId"], state["first"], None, state["verifiedAt"], numbers, row)
