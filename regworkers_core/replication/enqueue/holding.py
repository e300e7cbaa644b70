"""Who holds the shards of the stream: what bounds how many drains can read at once."""

from __future__ import annotations

from dataclasses import dataclass

from regworkers_core.adapters.aws.streams import Streams
from regworkers_core.engine.leases import LeaseTable
from regworkers_core.replication.enqueue import shards
from regworkers_core.replication.enqueue.peek import known_shards


@dataclass(frozen=True, slots=True)
class ShardCounts:
    """`workable` of the `known` shards may be read now, `held` of these have an owner, `consumers` of whom there are
    so many.
    """

    known: int
    workable: int
    held: int
    consumers: int


def shard_counts(streams: Streams, leases: LeaseTable) -> ShardCounts:
    """A few calls, nothing changed. Raises TransientFailure, UsageError without table or stream."""
    known = known_shards(streams, leases)
    workable = shards.workable(known.arn, known.rows)
    owners = [known.rows[name].owner for name in workable if known.rows[name].owner]
    return ShardCounts(len(known.rows), len(workable), len(owners), len(set(owners)))
