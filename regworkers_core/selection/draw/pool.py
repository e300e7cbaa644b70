"""The pool of a draw: every live entry of the campaign in the replica, judged once at one moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.keys import EntryKey, is_selection_id
from regworkers_core.runtime import Runtime

POOL = "pool.parquet"
EXCLUSIONS = "exclusions.parquet"
MAX_WEIGHT = 64
# Rows that are held before they are written: some 20 MB.
_ROWS = 50_000
_TEXTS: pa.DataType = pa.list_(pa.string())
_POOL_FIELDS: list[pa.Field[Any]] = [
    pa.field("ref", pa.string()),
    pa.field("unit", pa.string()),
    pa.field("weight", pa.int32()),
    pa.field("segments", _TEXTS),
    pa.field("preferences", _TEXTS),
    pa.field("entry_id", pa.string()),
    pa.field("created_at", pa.string()),
    pa.field("mail_domain", pa.string()),
]
POOL_SCHEMA = pa.schema(_POOL_FIELDS)
_EXCLUSION_SCHEMA = pa.schema({"entry_id": pa.string(), "ref": pa.string(), "reason": pa.string()})

Fields = Mapping[str, Any]


@dataclass(slots=True)
class PoolCounts:
    """`entries` = `eligible` + the sum of `excluded` (reason: number). `dropped_preferences`: unknown or
    repeated markets that were left out of an entry's list.
    """

    entries: int = 0
    eligible: int = 0
    excluded: Counter[str] = field(default_factory=Counter)
    dropped_preferences: int = 0

    def as_dict(self) -> dict[str, Any]:
        return {
            "entries": self.entries,
            "eligible": self.eligible,
            "excluded": dict(sorted(self.excluded.items())),
            "droppedPreferences": self.dropped_preferences,
        }


def read_pool(
    runtime: Runtime,
    campaign: Campaign,
    folder: Path,
    on_progress: Callable[[int], None] = lambda _done: None,
) -> PoolCounts:
    """Write `pool.parquet` and `exclusions.parquet` into `folder`, at constant memory.

    Raises TransientFailure when MongoDB cannot answer.
    """
    live = (
        (key, stored.fields)
        for key, stored in runtime.replica.scan(campaign.campaign_id)
        if stored.fields is not None
    )
    markets = frozenset(market.market_id for market in campaign.markets)
    return write_pool(live, markets, folder, on_progress)


def write_pool(
    entries: Iterable[tuple[EntryKey, Fields]],
    markets: frozenset[str],
    folder: Path,
    on_progress: Callable[[int], None] = lambda _done: None,
) -> PoolCounts:
    """The same over any entries."""
    counts = PoolCounts()
    with (
        pq.ParquetWriter(folder / POOL, POOL_SCHEMA, compression="zstd") as pool,
        pq.ParquetWriter(folder / EXCLUSIONS, _EXCLUSION_SCHEMA, compression="zstd") as exclusions,
    ):
        rows: list[dict[str, Any]] = []
        out: list[dict[str, Any]] = []
        for key, fields in entries:
            counts.entries += 1
            preferences = _preferences(fields.get("markets", ()), markets)
            reason = excluded_for(fields, preferences)
            if reason is None:
                counts.eligible += 1
                counts.dropped_preferences += len(fields["markets"]) - len(preferences)
                rows.append(_row(key, fields, preferences))
            else:
                counts.excluded[reason] += 1
                out.append({"entry_id": key.entry_id, "ref": fields.get("ref"), "reason": reason})
            if len(rows) + len(out) >= _ROWS:
                _flush(pool, POOL_SCHEMA, rows)
                _flush(exclusions, _EXCLUSION_SCHEMA, out)
                on_progress(counts.entries)
        _flush(pool, POOL_SCHEMA, rows)
        _flush(exclusions, _EXCLUSION_SCHEMA, out)
    on_progress(counts.entries)
    return counts


def excluded_for(fields: Fields, preferences: list[str]) -> str | None:
    """Why an entry cannot take part, the first reason that holds, or None."""
    ref = fields.get("ref")
    if not isinstance(ref, str) or not is_selection_id(ref):
        return "INVALID_REF"
    if not is_selection_id(fields.get("unit", ref)):
        return "INVALID_UNIT"
    if not 1 <= fields.get("weight", 1) <= MAX_WEIGHT:
        return "INVALID_WEIGHT"
    if not all(is_selection_id(segment) for segment in fields.get("segments", ())):
        return "INVALID_SEGMENT"
    return None if preferences else "NO_MARKET"


def _preferences(wanted: Iterable[str], markets: frozenset[str]) -> list[str]:
    """Known markets in the fan's order, each once."""
    return list(dict.fromkeys(market for market in wanted if market in markets))


def _row(key: EntryKey, fields: Fields, preferences: list[str]) -> dict[str, Any]:
    return {
        "ref": fields["ref"],
        "unit": fields.get("unit", fields["ref"]),
        "weight": fields.get("weight", 1),
        "segments": sorted(set(fields.get("segments", ()))),
        "preferences": preferences,
        "entry_id": key.entry_id,
        "created_at": fields.get("createdAt", ""),
        # For the bias audit, which shows a domain only where many share it.
        "mail_domain": str(fields.get("email", "")).rpartition("@")[2].lower(),
    }


def _flush(writer: pq.ParquetWriter, schema: pa.Schema, rows: list[dict[str, Any]]) -> None:
    if rows:
        writer.write_table(pa.Table.from_pylist(rows, schema=schema))
        rows.clear()
