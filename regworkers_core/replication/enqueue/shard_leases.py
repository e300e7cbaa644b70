"""Sharing the shards of a stream: each consumer shows that it lives and takes its part of what is free."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from regworkers_core.engine.leases import Lease, LeaseHolder, LeaseRow, LeaseTable
from regworkers_core.replication.enqueue import shards
from regworkers_core.replication.enqueue.discovery import ShardDiscovery

# How soon a consumer that waits for shards looks again whether one became free.
WAITING_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Balance:
    """What reading the table brought: new leases, this consumer's share, whether others hold shards, and whether
    every shard is known, those that follow a finished one among them.
    """

    stream_arn: str
    taken: list[Lease] = field(default_factory=list)
    share: int = 0
    others_hold: bool = False
    all_known: bool = False


class ShardLeases:
    """One consumer's view of the shards. `balance` belongs to one thread, `show_life` may run in another."""

    def __init__(
        self,
        table_name: str,
        table: LeaseTable,
        discovery: ShardDiscovery,
        *,
        owner: str,
        lease_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._table_name, self._table, self._clock = table_name, table, clock
        self._discovery = discovery
        self._holder = LeaseHolder(table, owner, lease_seconds=lease_seconds, clock=clock)
        self._lease_seconds = lease_seconds
        self._presence: Lease | None = None
        self._balance_at, self._changes = clock(), 0

    @property
    def balance_at(self) -> float:
        """When the next look at the table is due, on the clock: long ago where there is news."""
        return self._balance_at if self._changes == self._discovery.changes else -math.inf

    def look_again(self) -> None:
        """A shard ended: share them again at the next opportunity."""
        self._balance_at = self._clock()

    def look_later(self) -> None:
        """The table did not answer; what is held is worked on meanwhile."""
        self._balance_at = self._clock() + WAITING_SECONDS

    def show_life(self) -> None:
        """Move the counter of this consumer's own row, which others may have cleared away during a pause."""
        if self._presence is None or not self._presence.renew():
            key = shards.consumer_key(self._table_name, self._holder.owner)
            self._presence = self._holder.take(key, None)

    def balance(self, held: Collection[str]) -> Balance:
        """Look at the table and take free or expired shards up to the fair share. `held` are the shards
        that this consumer holds already. No live lease is ever taken from its owner.
        """
        if self._presence is None:
            self.show_life()
        changes = self._discovery.changes
        rows, consumers = shards.split_rows(self._table.rows(shards.partition(self._table_name)))
        self._discovery.seen(rows)
        arn, complete = self._discovery.stream_arn, self._discovery.complete
        # All rows are looked at each time: how long a counter stands still is seen only from two looks.
        live = {shard_id for shard_id, row in rows.items() if self._holder.is_live(row)}
        ready = shards.workable(arn, rows)
        share = shards.fair_share(len(ready), self._living(consumers))
        taken: list[Lease] = []
        for shard_id in ready:
            if len(held) + len(taken) >= share:
                break
            if shard_id in live or shard_id in held:
                continue
            key = shards.shard_key(self._table_name, shard_id)
            lease = self._holder.take(key, rows[shard_id], arn)
            if lease is not None:
                taken.append(lease)
        all_known = complete and not shards.childless(arn, rows)
        waits = not all_known or len(held) + len(taken) < share
        self._changes = changes
        self._balance_at = self._clock() + min(
            WAITING_SECONDS if waits else self._lease_seconds, self._lease_seconds / 3
        )
        mine = {lease.key for lease in taken}
        others = any(
            rows[shard_id].owner not in ("", self._holder.owner) and rows[shard_id].key not in mine
            for shard_id in ready
        )
        return Balance(arn, taken, share, others, all_known)

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
