"""The plan of a market: which winner gets which code, or which message, laid down once before the first is given.

A plan is a Parquet file with a row `i` from 1 for everybody in it. The one of a market is written once, so a
retry lands on the same codes, whatever became of the codes meanwhile; the one of `-` is a function of the result.
"""

from __future__ import annotations

import io
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from regworkers_core.adapters.aws.objects import ObjectStore
from regworkers_core.adapters.mongo.code_claims import Position
from regworkers_core.domain.reasons import PermanentFailure, Reason
from regworkers_core.domain.selection import NON_WINNERS, MarketPhase, NoticeType, Planned
from regworkers_core.selection.assign.committed import Committed
from regworkers_core.selection.draw.artefacts import pipeline_key

# A chunk reads the row groups that it touches, so they are small.
_GROUP_ROWS = 10_000
_OPEN_PLANS = 64
_SEATS_FIELDS: list[pa.Field[Any]] = [
    pa.field("i", pa.int64()),
    pa.field("ref", pa.string()),
    pa.field("entry_id", pa.string()),
    pa.field("rank", pa.int64()),
    pa.field("code", pa.string()),
    pa.field("position", pa.int64()),
]
_SEATS = pa.schema(_SEATS_FIELDS)
_OTHERS = pa.schema([*_SEATS_FIELDS[:3], pa.field("type", pa.string())])


def plan_key(market: MarketPhase) -> str:
    return pipeline_key(market.campaign_id, market.phase, f"plan/{market.market_id}.parquet")


@dataclass(frozen=True, slots=True)
class PlanHead:
    """What a plan says of itself. `last_position` is the highest position planned in the market in all phases."""

    market: MarketPhase
    result_hash: str
    rows: int
    last_position: int

    def metadata(self) -> dict[str, str]:
        return {
            "campaignId": self.market.campaign_id,
            "marketId": self.market.market_id,
            "phase": str(self.market.phase),
            "resultHash": self.result_hash,
            "lastPosition": str(self.last_position),
        }

    def check(self, market: MarketPhase, result_hash: str, rows: int | None = None) -> None:
        """Raises PermanentFailure KEY_CONFLICT unless it is the plan of this market and result."""
        same = (self.market, self.result_hash) == (market, result_hash) and rows in (None, self.rows)
        if not same:
            raise PermanentFailure(
                Reason.KEY_CONFLICT,
                f"the plan that stands under {plan_key(market)} is of {self.rows} rows and result"
                f" {self.result_hash[:12]}, not of {rows} rows and result {result_hash[:12]}",
            )


def write_seats(
    objects: ObjectStore,
    head: PlanHead,
    winners: Sequence[tuple[str, str, int]],
    codes: Sequence[Position],
) -> PlanHead:
    """Lay down winner i with code i, once; returns the head of the plan that stands, ours or an earlier one."""
    columns: dict[str, list[Any]] = {
        "i": list(range(1, len(winners) + 1)),
        "ref": [ref for ref, _, _ in winners],
        "entry_id": [entry_id for _, entry_id, _ in winners],
        "rank": [rank for _, _, rank in winners],
        "code": [code.code for code in codes],
        "position": [code.position for code in codes],
    }
    table = pa.Table.from_pydict(columns, schema=_SEATS.with_metadata(head.metadata()))
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=_GROUP_ROWS, compression="zstd")
    return _head(pq.read_metadata(io.BytesIO(objects.put_once(plan_key(head.market), sink.getvalue()))))


def write_others(objects: ObjectStore, head: PlanHead, result: Committed) -> PlanHead:
    """Lay down who of the others is told what, by ref."""
    with tempfile.TemporaryDirectory(prefix="regworkers-plan-") as folder:
        path, rows = Path(folder) / "plan.parquet", 0
        schema = _OTHERS.with_metadata(head.metadata())
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for batch in result.others():
                numbers = pa.array(range(rows + 1, rows + batch.num_rows + 1), pa.int64())
                parts = [numbers, *(batch.column(name) for name in ("ref", "entry_id", "type"))]
                writer.write_table(pa.table(parts, schema=schema), row_group_size=_GROUP_ROWS)
                rows += batch.num_rows
        objects.put_file(plan_key(head.market), path)
    return PlanHead(head.market, head.result_hash, rows, 0)


def read_head(objects: ObjectStore, market: MarketPhase) -> PlanHead:
    """Raises MissingObject when there is no plan."""
    return _head(pq.read_metadata(io.BytesIO(objects.get_bytes(plan_key(market)))))


def _head(metadata: pq.FileMetaData) -> PlanHead:
    told = {name.decode(): value.decode() for name, value in (metadata.metadata or {}).items()}
    market = MarketPhase(told["campaignId"], told["marketId"], int(told["phase"]))
    return PlanHead(market, told["resultHash"], metadata.num_rows, int(told["lastPosition"]))


class Plans:
    """Plans of a drain, fetched once each. Safe to share between threads.

    A fetched file is unlinked at once and read through its mapping: nothing of it stays behind, however the
    process ends.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._lock = threading.Lock()
        self._fetching: dict[MarketPhase, threading.Lock] = {}
        self._open: OrderedDict[MarketPhase, tuple[pa.Buffer, pq.FileMetaData]] = OrderedDict()

    def rows(self, market: MarketPhase, result_hash: str, first: int, last: int) -> list[Planned]:
        """Rows `first` to `last`, counted from 1. Raises MissingObject, or PermanentFailure KEY_CONFLICT when
        the plan is of another result or has no such rows.
        """
        buffer, metadata = self._plan(market)
        head = _head(metadata)
        head.check(market, result_hash)
        if last > head.rows:
            raise PermanentFailure(
                Reason.KEY_CONFLICT, f"the plan of {market} has {head.rows} rows, none number {last}"
            )
        groups: list[int] = []
        before = start = 0
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            if before + rows >= first and before < last:
                start = before if not groups else start
                groups.append(group)
            before += rows
        table = pq.ParquetFile(pa.BufferReader(buffer), metadata=metadata).read_row_groups(
            groups, use_threads=False
        )
        wanted = table.slice(first - 1 - start, last - first + 1).to_pylist()
        return [_planned(row, market) for row in wanted]

    def _plan(self, market: MarketPhase) -> tuple[pa.Buffer, pq.FileMetaData]:
        with self._lock:
            if market in self._open:
                self._open.move_to_end(market)
                return self._open[market]
            fetching = self._fetching.setdefault(market, threading.Lock())
        with fetching:
            with self._lock:
                if market in self._open:
                    return self._open[market]
            plan = self._fetch(market)
            with self._lock:
                self._open[market] = plan
                self._fetching.pop(market, None)
                while len(self._open) > _OPEN_PLANS:
                    self._open.popitem(last=False)
            return plan

    def _fetch(self, market: MarketPhase) -> tuple[pa.Buffer, pq.FileMetaData]:
        with tempfile.TemporaryDirectory(prefix="regworkers-plan-") as folder:
            path = Path(folder) / "plan.parquet"
            self._objects.get_file(plan_key(market), path)
            buffer = pa.memory_map(str(path)).read_buffer()
        return buffer, pq.read_metadata(pa.BufferReader(buffer))


def _planned(row: dict[str, Any], market: MarketPhase) -> Planned:
    if market.market_id == NON_WINNERS:
        return Planned(row["ref"], row["entry_id"], NoticeType(row["type"]))
    return Planned(row["ref"], row["entry_id"], NoticeType.WINNER, row["rank"], row["code"], row["position"])
