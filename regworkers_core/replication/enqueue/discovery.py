"""Shard discovery: keeps one row for each shard of the stream, beside the reading.

The holder of the lease `discovery:<table>` lists for all consumers; every reader works from the rows. A listing only
adds rows, so a failing DescribeStream delays new shards and never the reading of known ones.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from fairdraw import scheduling
from regworkers_core.adapters.aws.streams import KnownStream, Shard, Streams, Trimmed, lister_key
from regworkers_core.domain.reasons import DependencyDown, TransientFailure, UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.leases import Lease, LeaseHolder, LeaseTable
from regworkers_core.observability.logs import describe
from regworkers_core.replication.enqueue import shard_rows
from regworkers_core.replication.enqueue.shard_rows import ListedRows, Listing

log = structlog.get_logger(__name__)

# DescribeStream is limited to ten calls a second for the whole account: one per table leaves room for others.
CALL_SECONDS = 1.0
# From the begin of one listing to that of the next, unless its pages take longer.
LISTING_SECONDS = 10.0
# Children are listed within seconds after their parent ended. After an outage, the children of shards that ended
# during it should be known within half a minute, so the pause stays below that.
_LONGEST_PAUSE_SECONDS = 8.0
# Then another consumer tries: perhaps only this machine cannot reach the endpoint.
_FAILURES_OF_ONE = 3
_SHARDS_OF_A_PAGE = 100


class ShardDiscovery:
    """One consumer's part in discovery.

    `step` runs in one thread at a time, beside the reader's; fields that others read are replaced as a whole. It never
    raises: `failure` is why the last attempt to list failed. `changes` grows with each row that it adds. `now` is in
    epoch seconds, `clock` is monotonic.
    """

    def __init__(
        self,
        streams: Streams,
        table: LeaseTable,
        *,
        owner: str,
        lease_seconds: float,
        clock: Callable[[], float] = scheduling.monotonic,
    ) -> None:
        self._streams, self._table, self._clock = streams, table, clock
        self._holder = LeaseHolder(table, owner, lease_seconds=lease_seconds, clock=clock)
        self._lease_seconds = lease_seconds
        self._key = lister_key(streams.table_name)
        self._lease: Lease | None = None
        # The listing of all shards, and one of the newest.
        self._listing: Listing | None = None
        self._tail: Listing | None = None
        self._step_at = self._call_at = self._listing_at = clock()
        # For each shard: when to ask again for its children, and how often they were asked for.
        self._asked: dict[str, tuple[float, int]] = {}
        self._asks_for_children, self._asked_last = True, False
        self._failures, self._urged, self._left = 0, False, False
        self._last_token = 0
        self._learned = 0
        self.known: KnownStream | None = None
        self.failure: TransientFailure | UsageError | None = None
        self.counts: Counter[str] = Counter()
        self._shards = ListedRows(table, streams.table_name, self._holder, self.counts, scheduling.now)

    @property
    def due(self) -> bool:
        return not self._left and (self._urged or self._clock() >= self._step_at)

    @property
    def changes(self) -> int:
        return self._learned + self._shards.changes

    @property
    def stream_arn(self) -> str:
        """Empty before the first listing."""
        return "" if self.known is None else self.known.arn

    @property
    def complete(self) -> bool:
        """Whether all shards of the stream were listed once, by any consumer."""
        return self.known is not None and self.known.complete

    @property
    def blindness(self) -> TransientFailure | UsageError | None:
        """Why no shard is known; None when one is, or the listing did not fail."""
        knows = any(row.scope == self.stream_arn for row in self._shards.rows.values())
        return None if knows else self.failure

    def seen(self, rows: shard_rows.ShardRows) -> None:
        """Take over the rows that the reader has just read. The children of a finished shard are listed soon."""
        self._shards.rows = rows
        if self._lease is not None and self._wanted():
            self._urged = True

    def step(self) -> None:
        """Renew or take the lease, and list a page if that is due: at most one DescribeStream. Blocks for it."""
        self._urged = False
        try:
            self._step_at = self._clock() + self._step()
        except DependencyDown:
            # The breaker is open, so no call was made: try again soon.
            self._step_at = self._clock() + CALL_SECONDS
        except (TransientFailure, UsageError) as failure:
            self._failed(failure)
        except Exception as error:
            log.error("the shards could not be listed", exc_info=True)
            # The cause may be the position of this listing, so the next one starts from the beginning.
            self._listing = self._tail = None
            self._failed(TransientFailure("stream-listing", describe(error)))

    def join(self) -> None:
        """Take part in the listing, again after `leave`."""
        self._left = False

    def leave(self) -> None:
        """Leave the listing to another consumer. A running step writes no more. Raises TransientFailure."""
        self._left = True
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()

    def _step(self) -> float:
        """Returns after how many seconds the next one is due."""
        if not self._holds():
            return self._lease_seconds / 3 if self.complete else CALL_SECONDS
        if self._clock() >= self._call_at:
            self._list()
            self._failures, self.failure = 0, None
        next_at = [self._clock() + self._lease_seconds / 3, max(self._call_at, self._listing_at)]
        if self._listing is not None or self._tail is not None:
            next_at.append(self._call_at)
        if wanted := min((at for at, _ in self._asked.values()), default=None):
            next_at.append(max(self._call_at, wanted))
        return max(0.0, min(next_at) - self._clock())

    def _holds(self) -> bool:
        """Whether this consumer lists. A step that hangs does not renew the lease, so another consumer takes over."""
        if self._lease is not None:
            if self._lease.renew():
                return True
            self._lease = None
        row = self._table.get(self._key)
        if row is not None:
            self._learn(KnownStream.of(row.state))
        lease = None if self._left else self._holder.take(self._key, row)
        if lease is None:
            # Another consumer lists and reports its failures.
            self.failure = None
            return False
        self._lease = lease
        if row is None or row.token != self._last_token:
            self._listing = self._tail = None
        self._last_token = lease.token
        if row is not None:
            # The former holder may have called just now. The stream that it listed may have been replaced.
            self._call_at = self._clock() + CALL_SECONDS
            if self.known is not None and (arn := self._latest_stream()) != self.known.arn:
                self._learn(KnownStream(arn))
        return True

    def _learn(self, known: KnownStream | None) -> None:
        if known is not None:
            if self.known is None or (known.arn, known.complete) != (self.known.arn, self.known.complete):
                self._learned += 1
            self.known = known

    # Which page to list

    def _list(self) -> None:
        self._forget_answered()
        listing, known, wanted = self._listing, self.known, self._wanted()
        due = listing is not None or self._clock() >= self._listing_at
        pages = math.ceil(len(self._shards.rows) / _SHARDS_OF_A_PAGE) - (
            listing.pages if listing is not None else 0
        )
        fresh = sum(shard_id not in self._asked for shard_id in wanted)
        if fresh > 1 and self._tail is None and known is not None and known.complete and known.shard_id:
            # The service lists shards in the order of their creation, so the children of several are on the last pages.
            # It does not promise that: if they are not found there, the whole listing finds them.
            self._note_asked(wanted)
            self._tail = Listing(known.arn, self._clock(), whole=False, after=known.shard_id)
        # The listing of all shards gets every second call, however many shards end.
        if due and self._asked_last:
            self._list_page(listing or self._begun())
        elif self._tail is not None:
            self._list_page(self._tail)
        elif wanted and known is not None and self._asks_for_children and len(wanted) <= max(1, pages):
            # One call finds the children of one shard, a page may have those of many.
            self._note_asked(wanted[:1])
            self._list_children(known, wanted[0])
        elif due or wanted:
            self._note_asked(wanted)
            self._list_page(listing or self._begun())

    def _forget_answered(self) -> None:
        childless = set(shard_rows.childless(self.stream_arn, self._shards.rows)) - set(
            self._shards.put.values()
        )
        self._asked = {shard_id: again for shard_id, again in self._asked.items() if shard_id in childless}

    def _wanted(self) -> list[str]:
        """Finished shards whose children are to be listed now."""
        now, put = self._clock(), set(self._shards.put.values())
        return [
            shard_id
            for shard_id in shard_rows.childless(self.stream_arn, self._shards.rows)
            if shard_id not in put and self._asked.get(shard_id, (now, 0))[0] <= now
        ]

    def _note_asked(self, shard_ids: Sequence[str]) -> None:
        for shard_id in shard_ids:
            times = self._asked.get(shard_id, (0.0, 0))[1] + 1
            self._asked[shard_id] = (self._clock() + _pause_seconds(times), times)

    def _list_children(self, known: KnownStream, shard_id: str) -> None:
        self._asked_last = True
        self._spend()
        try:
            children = self._streams.children(known.arn, shard_id)
        except Trimmed:
            children = []
        if children is None:
            self._asks_for_children = False
            self._asked.pop(shard_id, None)
            log.info("the endpoint cannot list the children of one shard: all are listed instead")
        elif children and self._answered(known):
            self._shards.add(known.arn, children)

    def _begun(self) -> Listing:
        self._shards.put = {}
        self._listing = Listing(self._latest_stream(), self._clock(), frozenset(self._shards.rows))
        return self._listing

    def _latest_stream(self) -> str:
        try:
            return self._streams.latest_stream()
        except TransientFailure:
            # The stream's ARN comes from another endpoint than its shards.
            if not self.stream_arn:
                raise
            return self.stream_arn

    def _list_page(self, listing: Listing) -> None:
        self._asked_last = not listing.whole
        self._spend()
        try:
            page = self._streams.listing(listing.arn, listing.after)
            found, last = page.shards, page.last
        except Trimmed:
            # The stream is gone, or the shard after which this page begins. The next listing shows which.
            found, last = [], None
            listing.whole = listing.whole and listing.after is None
        known = self._known_after(listing, found, last)
        if not self._answered(known):
            return
        listing.parents.update((shard.shard_id, shard.parent_id) for shard in found)
        at_end = last is None and listing.whole
        listing.waiting = self._shards.add(listing.arn, [*listing.waiting, *found], listing, at_end=at_end)
        listing.after, listing.pages = last, listing.pages + 1
        if last is None:
            self._end(listing, known)

    def _known_after(self, listing: Listing, found: Sequence[Shard], last: str | None) -> KnownStream:
        """The position for the next listing of new shards: the last shard of the last complete listing."""
        before = (
            self.known
            if self.known is not None and self.known.arn == listing.arn
            else KnownStream(listing.arn)
        )
        if found and (last is None or not before.shard_id):
            return replace(before, shard_id=found[-1].shard_id)
        return before

    def _spend(self) -> None:
        # Counted from before the call, because the service counts when it arrives.
        self._call_at = self._clock() + CALL_SECONDS

    def _answered(self, known: KnownStream) -> bool:
        """Store the state for all consumers. False when another consumer lists by now: then nothing is written."""
        lease, known = self._lease, replace(known, answered_at=iso(scheduling.now()))
        if lease is None or not lease.save(known.as_state()):
            self._lease = self._listing = self._tail = None
            return False
        self._learn(known)
        return True

    # The end of a listing

    def _end(self, listing: Listing, known: KnownStream) -> None:
        if listing is self._tail:
            self._tail = None
            return
        self._listing = None
        if not listing.whole:
            return
        if listing.taken:
            # Their holders release them as soon as they see the new stream.
            self._listing_at = self._clock() + 2 * CALL_SECONDS
            return
        self._listing_at = max(self._clock(), listing.began + LISTING_SECONDS)
        self._shards.remove_obsolete(listing)
        if not known.complete:
            self._answered(replace(known, complete=True))

    def _failed(self, failure: TransientFailure | UsageError) -> None:
        self.failure = failure
        self._failures += 1
        self.counts["discovery_failures"] += 1
        pause = _pause_seconds(self._failures)
        self._step_at = self._clock() + max(CALL_SECONDS, random.uniform(pause / 2, pause))
        # Logged for failure 1, 2, 4, 8 and so on: an outage of hours must not fill the log.
        if self._failures & (self._failures - 1) == 0:
            log.warning(
                "the shards could not be listed; reading of known ones continues",
                error=str(failure),
                failures=self._failures,
                table=self._streams.table_name,
            )
        if self._failures % _FAILURES_OF_ONE == 0:
            self._pass_on()

    def _pass_on(self) -> None:
        lease, self._lease = self._lease, None
        try:
            if lease is not None:
                lease.release()
        except (TransientFailure, UsageError):
            # It expires by itself.
            pass


def _pause_seconds(times: int) -> float:
    """The pause after `times` attempts without success."""
    return min(_LONGEST_PAUSE_SECONDS, CALL_SECONDS * 2.0 ** min(times - 1, 10))
