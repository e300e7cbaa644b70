"""The rows of a stream's shards in `worker-leases`: which may be worked on, and how a listing adds and removes them.

All rows are under `PK=STREAM#<table>`: `SK=SHARD#<shard>` for each known shard, with its parent, when it was first
seen, lease and checkpoint; `SK=CONSUMER#<owner>` as a consumer's heartbeat.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import structlog

from regworkers_core.adapters.aws.streams import Shard
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.leases import LeaseHolder, LeaseKey, LeaseRow, LeaseTable

log = structlog.get_logger(__name__)
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


class SplitRows(NamedTuple):
    shards: dict[str, LeaseRow]  # by shard id
    consumers: list[LeaseRow]


def split_rows(rows: Sequence[LeaseRow]) -> SplitRows:
    shards = {shard_of(row.key): row for row in rows if row.key.sk.startswith(_SHARD)}
    return SplitRows(shards, [row for row in rows if row.key.sk.startswith(_CONSUMER)])


def state_of_new(parent_id: str | None, seen_at: str) -> dict[str, str]:
    """The state of a row before its first reader; `seen_at` is an ISO time."""
    return {_SEEN_AT: seen_at, **({_PARENT: parent_id} if parent_id else {})}


def state_of(
    before: Mapping[str, str], checkpoint: str | None, *, finished: bool = False, lost: bool = False
) -> dict[str, str]:
    """The state after `before`. Without a checkpoint its reader starts at TRIM_HORIZON. `lost`: it is finished because
    it is gone, which was reported.
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
    """The rows of this stream. A table with a new stream may still have rows of the former one."""
    return {shard_id: row for shard_id, row in rows.items() if row.scope == stream_arn}


def workable(stream_arn: str, rows: ShardRows) -> list[str]:
    """Known shards with something left to read whose parent is finished, or no longer known."""
    known = of_stream(stream_arn, rows)

    def parent_done(row: LeaseRow) -> bool:
        parent = known.get(parent_of(row) or "")
        return parent is None or is_finished(parent)

    return [shard_id for shard_id, row in known.items() if not is_finished(row) and parent_done(row)]


def childless(stream_arn: str, rows: ShardRows) -> list[str]:
    """Finished shards without a known child. A closed shard has children, so they are not listed yet."""
    known = of_stream(stream_arn, rows)
    parents = {parent_of(row) for row in known.values()}
    return [shard_id for shard_id, row in known.items() if is_finished(row) and shard_id not in parents]


def fair_share(shards: int, consumers: int) -> int:
    """How many shards one consumer holds at most."""
    return -(-shards // max(1, consumers))


@dataclass(frozen=True, slots=True)
class Obsolete:
    """A row to remove. `loss`: records behind it were dropped before they were read, and that was not reported."""

    row: LeaseRow
    loss: bool


def obsolete(stream_arn: str, listed: Mapping[str, str | None], rows: ShardRows) -> list[Obsolete]:
    """Rows of shards that are missing in a complete listing (shards with their parents) which began after `rows` were
    read: those of another stream, and those that are finished. Each comes after its parent, so that while a parent is
    known, it is known whether its children are.
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


@dataclass(slots=True)
class Listing:
    """A listing of shards, page by page."""

    arn: str  # of the stream
    began: float  # seconds on the lister's clock
    before: frozenset[str] = frozenset()  # the rows at its begin
    whole: bool = True  # all shards, else those after the last one that was listed
    after: str | None = None  # the last shard of the page before
    pages: int = 0
    # The parent of each shard, None: it has none.
    parents: dict[str, str | None] = field(default_factory=dict)
    waiting: list[Shard] = field(default_factory=list)  # shards whose parent may come on a later page
    # Shards of the former stream that another consumer still holds.
    taken: int = 0


class ListedRows:
    """The rows as a lister knows them: `rows` as last read by the consumer, and `put`, the shards (with their parents)
    that it added since. `changes` grows with each addition; `counts` gets `trimmed`, the number of shards that lost
    records. `now` is in epoch seconds. Methods that write block for a call per row and raise TransientFailure.
    """

    def __init__(
        self,
        table: LeaseTable,
        table_name: str,
        holder: LeaseHolder,
        counts: Counter[str],
        now: Callable[[], float],
    ) -> None:
        self._table, self._table_name, self._holder = table, table_name, holder
        self._counts, self._now = counts, now
        self.rows: ShardRows = {}
        self.put: dict[str, str | None] = {}
        self.changes = 0

    def add(
        self, arn: str, found: Sequence[Shard], listing: Listing | None = None, *, at_end: bool = False
    ) -> list[Shard]:
        """Put rows, parents first. A child whose parent is not known counts as one whose parent was trimmed. Returns
        the shards whose parent may still come.
        """
        waiting = list(found)
        while True:
            known = of_stream(arn, self.rows).keys() | self.put.keys()
            later: list[Shard] = []
            for shard in waiting:
                listed = listing is not None and (not at_end or shard.parent_id in listing.parents)
                if shard.parent_id is None or shard.parent_id in known or not listed:
                    self._put_row(arn, shard, listing)
                else:
                    later.append(shard)
            if not later or len(later) == len(waiting):
                return later
            waiting = later

    def _put_row(self, arn: str, shard: Shard, listing: Listing | None) -> None:
        row = self.rows.get(shard.shard_id)
        if shard.shard_id in self.put:
            return
        if row is None:
            state = state_of_new(shard.parent_id, iso(self._now()))
            key = shard_key(self._table_name, shard.shard_id)
            # Refused if another consumer has put the same row.
            self.changes += self._table.swap(LeaseRow(key, scope=arn, state=state), None)
        elif row.scope != arn and not self._replace_row(row, arn, shard):
            if listing is not None:
                listing.taken += 1
            return
        self.put[shard.shard_id] = shard.parent_id

    def _replace_row(self, row: LeaseRow, arn: str, shard: Shard) -> bool:
        """The table's new stream uses the name of a shard of the former one."""
        if self._holder.is_live(row):
            return False
        state = state_of_new(shard.parent_id, iso(self._now()))
        fresh = replace(row, owner="", counter=row.counter + 1, scope=arn, state=state, position="")
        if not self._table.swap(fresh, row):
            return False
        self.changes += 1
        if not is_finished(row):
            self._lost(shard.shard_id)
        return True

    def remove_obsolete(self, listing: Listing) -> None:
        """Remove rows that existed when a listing of all shards began and that it does not have."""
        rows = {name: row for name, row in self.rows.items() if name in listing.before}
        kept: set[str | None] = set()
        for each in obsolete(listing.arn, listing.parents, rows):
            name = shard_of(each.row.key)
            stays = parent_of(each.row) in kept or self._holder.is_live(each.row)
            if stays or not self._table.remove(each.row):
                kept.add(name)
            elif each.loss:
                self._lost(name)

    def _lost(self, shard_id: str) -> None:
        self._counts["trimmed"] += 1
        log.error(
            "changes that were not read are gone from the stream: run `regworkers reconcile --repair --apply`",
            shard=shard_id,
            table=self._table_name,
        )
