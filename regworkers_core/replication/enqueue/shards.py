"""Which shards may be worked on, and how many of them are one consumer's part: rules without I/O.

Rows in `worker-leases`, all under `PK=STREAM#<table>`: `SK=SHARD#<shard>` for each known shard, with its parent, when
it was first seen, lease and checkpoint; `SK=CONSUMER#<owner>` as a consumer's sign of life.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from regworkers_core.engine.leases import LeaseKey, LeaseRow

_SHARD = "SHARD#"
_CONSUMER = "CONSUMER#"
_CHECKPOINT = "checkpoint"
_FINISHED = "finished"
_LOST = "lost"
_PARENT = "parent"
_SEEN_AT = "seenAt"
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


def state_of_new(parent_id: str | None, seen_at: str) -> dict[str, str]:
    """What the row of a shard stores before its first reader; `seen_at` is an ISO time."""
    return {_SEEN_AT: seen_at, **({_PARENT: parent_id} if parent_id else {})}


def state_of(
    before: Mapping[str, str], checkpoint: str | None, *, finished: bool = False, lost: bool = False
) -> dict[str, str]:
    """What it stores after the state `before`; without a checkpoint its reader starts at TRIM_HORIZON. `lost`: it is
    finished because it is gone, which was reported.
    """
    state = {name: before[name] for name in (_PARENT, _SEEN_AT) if name in before}
    if checkpoint is not None:
        state[_CHECKPOINT] = checkpoint
    if finished:
        state[_FINISHED] = _LOST if lost else "true"
    return state


def parent_of(row: LeaseRow) -> str | None:
    return row.state.get(_PARENT)


def checkpoint_of(state: Mapping[str, str]) -> str | None:
    return state.get(_CHECKPOINT)


def is_finished(row: LeaseRow) -> bool:
    return _FINISHED in row.state


def position_of(checkpoint: str | None) -> str:
    """A form of a sequence number that compares as text like the integer; empty for None."""
    return "" if checkpoint is None else f"{int(checkpoint):0{_DIGITS}d}"


def of_stream(stream_arn: str, rows: ShardRows) -> dict[str, LeaseRow]:
    """The rows of this stream; a table that got a new one may still have some of the former."""
    return {shard_id: row for shard_id, row in rows.items() if row.scope == stream_arn}


def workable(stream_arn: str, rows: ShardRows) -> list[str]:
    """Known shards with something left to read whose parent is finished, or no longer known."""
    known = of_stream(stream_arn, rows)

    def parent_done(row: LeaseRow) -> bool:
        parent = known.get(parent_of(row) or "")
        return parent is None or is_finished(parent)

    return [shard_id for shard_id, row in known.items() if not is_finished(row) and parent_done(row)]


def childless(stream_arn: str, rows: ShardRows) -> list[str]:
    """Finished shards none of whose children is known: a shard is closed only when it has some."""
    known = of_stream(stream_arn, rows)
    parents = {parent_of(row) for row in known.values()}
    return [shard_id for shard_id, row in known.items() if is_finished(row) and shard_id not in parents]


@dataclass(frozen=True, slots=True)
class Obsolete:
    """A row that may go. `loss`: records behind it were dropped before they were read, and that was not reported."""

    row: LeaseRow
    loss: bool


def obsolete(stream_arn: str, listed: Mapping[str, str | None], rows: ShardRows) -> list[Obsolete]:
    """Rows of shards that a whole listing (shards with their parents), begun after the first of `rows` were read, does
    not have: those of another stream, and those that are finished, each after its parent, so that it is known for as
    long as its parent is whether its children are.
    """
    known = of_stream(stream_arn, rows)
    without_child = set(childless(stream_arn, rows)) - set(listed.values())
    found: dict[str, Obsolete] = {}
    for shard_id, row in sorted(rows.items()):
        if shard_id in listed:
            continue
        parent = parent_of(row)
        if row.scope != stream_arn:
            found[shard_id] = Obsolete(row, not is_finished(row))
        elif is_finished(row) and (parent not in known or parent in found):
            # Its children were trimmed, too, before they were seen.
            unseen = shard_id in without_child and row.state[_FINISHED] != _LOST
            found[shard_id] = Obsolete(row, unseen)
    return list(found.values())


def fair_share(shards: int, consumers: int) -> int:
    """How many shards one consumer holds at most."""
    return -(-shards // max(1, consumers))
