"""Which shards may be worked on, and how many of them are one consumer's part: rules without I/O.

Rows in `worker-leases`, all under `PK=STREAM#<table>`: `SK=SHARD#<shard>` with the lease and checkpoint,
`SK=CONSUMER#<owner>` as a consumer's sign of life.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from regworkers_core.adapters.aws.streams import Shard
from regworkers_core.engine.leases import LeaseKey, LeaseRow

_SHARD = "SHARD#"
_CONSUMER = "CONSUMER#"
_CHECKPOINT = "checkpoint"
_FINISHED = "finished"
# Sequence numbers have up to 40 digits; padded, they sort as text like the integers that they are.
_DIGITS = 40

ShardRows = Mapping[str, LeaseRow]


def partition(table_name: str) -> str:
    return f"STREAM#{table_name}"


def shard_key(table_name: str, shard_id: str) -> LeaseKey:
    return LeaseKey(partition(table_name), _SHARD + shard_id)


def shard_of(key: LeaseKey) -> str:
    return key.sk.removeprefix(_SHARD)


def consumer_key(table_name: str, owner: str) -> LeaseKey:
    return LeaseKey(partition(table_name), _CONSUMER + owner)


def split_rows(rows: Sequence[LeaseRow]) -> tuple[dict[str, LeaseRow], list[LeaseRow]]:
    """The rows of shards by shard id, and those of consumers."""
    shards = {shard_of(row.key): row for row in rows if row.key.sk.startswith(_SHARD)}
    return shards, [row for row in rows if row.key.sk.startswith(_CONSUMER)]


def state_of(checkpoint: str | None, *, finished: bool = False) -> dict[str, str]:
    """What a shard's row stores; without a checkpoint its reader starts at TRIM_HORIZON."""
    state = {} if checkpoint is None else {_CHECKPOINT: checkpoint}
    return state | {_FINISHED: "true"} if finished else state


def checkpoint_of(state: Mapping[str, str]) -> str | None:
    return state.get(_CHECKPOINT)


def is_finished(row: LeaseRow) -> bool:
    return _FINISHED in row.state


def position_of(checkpoint: str | None) -> str:
    """A form of a sequence number that compares as text like the integer; empty for None."""
    return "" if checkpoint is None else f"{int(checkpoint):0{_DIGITS}d}"


def workable(stream_arn: str, listing: Sequence[Shard], rows: ShardRows) -> list[str]:
    """Shards with something left to read whose parent is finished, or gone and not left unfinished.

    A shard that left the listing before it was finished comes first: its children wait until somebody
    has seen that it is gone.
    """
    listed = {shard.shard_id for shard in listing}

    def finished(shard_id: str) -> bool:
        row = rows.get(shard_id)
        return row is not None and row.scope == stream_arn and is_finished(row)

    def parent_done(shard_id: str | None) -> bool:
        if shard_id is None or finished(shard_id):
            return True
        return shard_id not in listed and not (shard_id in rows and rows[shard_id].scope == stream_arn)

    left_behind = [
        shard_id
        for shard_id, row in rows.items()
        if shard_id not in listed and row.scope == stream_arn and not finished(shard_id)
    ]
    ready = [
        shard.shard_id for shard in listing if not finished(shard.shard_id) and parent_done(shard.parent_id)
    ]
    return left_behind + ready


def obsolete(stream_arn: str, listing: Sequence[Shard], rows: ShardRows) -> list[str]:
    """Shards whose row is of no use: finished or another stream's, and no longer listed.

    `rows` must have been read before `listing`, else a new shard's row looks like one of these.
    """
    listed = {shard.shard_id for shard in listing}
    return [
        shard_id
        for shard_id, row in rows.items()
        if shard_id not in listed and (row.scope != stream_arn or is_finished(row))
    ]


def fair_share(shards: int, consumers: int) -> int:
    """How many shards one consumer holds at most."""
    return -(-shards // max(1, consumers))
