"""The rows of a stream's shards as a listing finds them: put for new shards, parents first, and removed for those that
are gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import structlog

from regworkers_core.adapters.aws.streams import Shard
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.leases import LeaseHolder, LeaseRow, LeaseTable
from regworkers_core.replication.enqueue import shards

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Listing:
    """A listing, page by page: `whole` of all shards, else of those behind the last one that was listed. `before` are
    the rows that there were at its begin; `waiting` are shards whose parent may come on a later page.
    """

    arn: str
    began: float
    before: frozenset[str] = frozenset()
    whole: bool = True
    after: str | None = None
    pages: int = 0
    parents: dict[str, str | None] = field(default_factory=dict)
    waiting: list[Shard] = field(default_factory=list)
    # Shards of the stream before this one that another consumer still holds.
    taken: int = 0


class ListedRows:
    """The rows as a lister knows them: `rows` as they were read last, elsewhere and a little earlier, and `put` what
    was put since, each shard with its parent. `changes` grows with what is added; `counts` gets `trimmed`, the shards
    of which something was lost. `now` is in epoch seconds.
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
        self.rows: shards.ShardRows = {}
        self.put: dict[str, str | None] = {}
        self.changes = 0

    def add(
        self, arn: str, found: Sequence[Shard], listing: Listing | None = None, *, at_end: bool = False
    ) -> list[Shard]:
        """Put rows, parents first: a child whose parent is not known counts as one whose parent was trimmed. Returns
        those whose parent may still come.
        """
        waiting = list(found)
        while True:
            known = shards.of_stream(arn, self.rows).keys() | self.put.keys()
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
            state = shards.state_of_new(shard.parent_id, iso(self._now()))
            key = shards.shard_key(self._table_name, shard.shard_id)
            # Refused where another one put the same.
            self.changes += self._table.swap(LeaseRow(key, scope=arn, state=state), None)
        elif row.scope != arn and not self._replace_row(row, arn, shard):
            if listing is not None:
                listing.taken += 1
            return
        self.put[shard.shard_id] = shard.parent_id

    def _replace_row(self, row: LeaseRow, arn: str, shard: Shard) -> bool:
        """The table has a new stream that uses the name of a shard of the former one."""
        if self._holder.is_live(row):
            return False
        state = shards.state_of_new(shard.parent_id, iso(self._now()))
        fresh = replace(row, owner="", counter=row.counter + 1, scope=arn, state=state, position="")
        if not self._table.swap(fresh, row):
            return False
        self.changes += 1
        if not shards.is_finished(row):
            self._lost(shard.shard_id)
        return True

    def remove_obsolete(self, listing: Listing) -> None:
        """Rows that there were at the begin of a listing of all shards, and that it does not have."""
        rows = {name: row for name, row in self.rows.items() if name in listing.before}
        kept: set[str | None] = set()
        for obsolete in shards.obsolete(listing.arn, listing.parents, rows):
            row = obsolete.row
            name = shards.shard_of(row.key)
            stays = shards.parent_of(row) in kept or self._holder.is_live(row)
            if stays or not self._table.remove(row):
                kept.add(name)
            elif obsolete.loss:
                self._lost(name)

    def _lost(self, shard_id: str) -> None:
        self._counts["trimmed"] += 1
        log.error(
            "changes that were not read are gone from the stream: run `regworkers reconcile --repair`",
            shard=shard_id,
            table=self._table_name,
        )
