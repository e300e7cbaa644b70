"""Who holds the shards of the stream: what bounds how many drains can read at once."""

from __future__ import annotations

from dataclasses import dataclass

from regworkers_core.adapters.aws.streams import Streams, Trimmed
from regworkers_core.engine.leases import LeaseTable
from regworkers_core.replication.enqueue import shards


@dataclass(frozen=True, slots=True)
class ShardCounts:
    """`workable` of the `listed` shards may be read now, `held` of these have an owner, `consumers` of whom there are
    so many.
    """

    listed: int
    workable: int
    held: int
    consumers: int


def shard_counts(streams: Streams, leases: LeaseTable) -> ShardCounts:
    """A few calls, nothing changed. Raises TransientFailure, UsageError without table or stream."""
    arn = streams.latest_stream()
    rows, _ = shards.split_rows(leases.rows(shards.partition(streams.table_name)))
    try:
        listing = streams.shards(arn)
    except Trimmed:
        listing = []
    workable = shards.workable(arn, listing, rows)
    owners = [rows[name].owner for name in workable if name in rows and rows[name].owner]
    return ShardCounts(len(listing), len(workable), len(owners), len(set(owners)))
