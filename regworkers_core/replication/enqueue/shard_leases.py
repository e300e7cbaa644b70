"""Sharing the shards of a stream: each consumer shows that it lives and takes its part of what is free."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import structlog

from regworkers_core.adapters.aws.streams import Shard, Streams, Trimmed
from regworkers_core.engine.leases import Lease, LeaseHolder, LeaseRow, LeaseTable
from regworkers_core.replication.enqueue import shards

log = structlog.get_logger(__name__)

# DescribeStream is limited to ten calls a second for the whole account.
DISCOVER_SECONDS = 10.0
# How soon a consumer that waits for shards looks again whether one became free.
WAITING_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Balance:
    """What a look at the table brought: new leases, this consumer's share, whether others hold shards."""

    stream_arn: str
    taken: list[Lease] = field(default_factory=list)
    share: int = 0
    others_hold: bool = False


class ShardLeases:
    """One consumer's view of the shards. `balance` belongs to one thread, `show_life` may run in another."""

    def __init__(
        self,
        streams: Streams,
        table: LeaseTable,
        *,
        owner: str,
        lease_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._streams, self._table, self._clock = streams, table, clock
        self._holder = LeaseHolder(table, owner, lease_seconds=lease_seconds, clock=clock)
        self._lease_seconds = lease_seconds
        self._presence: Lease | None = None
        self._arn = ""
        self._listing: list[Shard] = []
        self._discover_at = self._balance_at = clock()
        self.counts: Counter[str] = Counter()

    @property
    def balance_at(self) -> float:
        """When the next look at the table is due, on the clock."""
        return self._balance_at

    def look_again(self) -> None:
        """A shard ended: list the shards and share them again at the next opportunity."""
        self._discover_at = self._balance_at = self._clock()

    def show_life(self) -> None:
        """Move the counter of this consumer's own row, which others may have cleared away during a pause."""
        if self._presence is None or not self._presence.renew():
            key = shards.consumer_key(self._streams.table_name, self._holder.owner)
            self._presence = self._holder.take(key, None)

    def balance(self, held: Collection[str]) -> Balance:
        """Look at the table and take free or expired shards up to the fair share. `held` are the shards
        that this consumer holds already. No live lease is ever taken from its owner.
        """
        if self._presence is None:
            self.show_life()
        rows, consumers = shards.split_rows(self._table.rows(shards.partition(self._streams.table_name)))
        # All rows are looked at each time: how long a counter stands still is seen only from two looks.
        live = {shard_id for shard_id, row in rows.items() if self._holder.is_live(row)}
        self._discover(rows, live)
        ready = shards.workable(self._arn, self._listing, rows)
        share = shards.fair_share(len(ready), self._living(consumers))
        taken: list[Lease] = []
        for shard_id in ready:
            if len(held) + len(taken) >= share:
                break
            if shard_id in live or shard_id in held:
                continue
            key = shards.shard_key(self._streams.table_name, shard_id)
            lease = self._holder.take(key, rows.get(shard_id), self._arn)
            if lease is not None:
                taken.append(lease)
        waits = len(held) + len(taken) < share
        self._balance_at = self._clock() + min(
            WAITING_SECONDS if waits else self._lease_seconds, self._lease_seconds / 3
        )
        mine = {lease.key for lease in taken}
        others = any(
            rows[shard_id].owner not in ("", self._holder.owner) and rows[shard_id].key not in mine
            for shard_id in ready
            if shard_id in rows
        )
        return Balance(self._arn, taken, share, others)

    def leave(self) -> None:
        """Take this consumer's row away, so that the others share its shards at once."""
        if self._presence is not None:
            row = self._table.get(self._presence.key)
            if row is not None:
                self._table.remove(row)
            self._presence = None

    def _living(self, consumers: Collection[LeaseRow]) -> int:
        living = 1
        for row in consumers:
            if row.owner == self._holder.owner:
                continue
            if self._holder.is_live(row):
                living += 1
            else:
                self._table.remove(row)
        return living

    def _discover(self, rows: Mapping[str, LeaseRow], live: Collection[str]) -> None:
        """List the shards anew when that is due, after `rows` were read."""
        if self._clock() < self._discover_at:
            return
        arn = self._streams.latest_stream()
        try:
            self._listing = self._streams.shards(arn)
        except Trimmed:
            self._listing = []
        left_behind = any(row.scope != arn and not shards.is_finished(row) for row in rows.values())
        if arn != self._arn and left_behind:
            self.counts["trimmed"] += 1
            log.error(
                "the table has a new stream; changes that were not read from the old one are lost to this"
                " worker: run `regworkers reconcile --repair`",
                table=self._streams.table_name,
            )
        self._arn = arn
        for shard_id in shards.obsolete(arn, self._listing, rows):
            if shard_id not in live:
                self._table.remove(rows[shard_id])
        self._discover_at = self._clock() + DISCOVER_SECONDS
