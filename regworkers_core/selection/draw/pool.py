"""The pool of a draw: the entries that were judged eligible and can take part, and why the others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from regworkers_core.adapters.files.judged_entries import JudgedEntry
from regworkers_core.domain.keys import is_selection_id

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
_EXCLUSION_SCHEMA = pa.schema(
    {"entry_id": pa.string(), "ref": pa.string(), "reason": pa.string(), "reasons": _TEXTS}
)


@dataclass(slots=True)
class PoolCounts:
    """`entries` = `eligible` + the sum of `excluded` (primary reason: number). `dropped_preferences`: unknown or
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


def write_pool(
    judged: Iterable[JudgedEntry],
    markets: frozenset[str],
    folder: Path,
    on_progress: Callable[[int], None] = lambda _done: None,
) -> PoolCounts:
    """Write `pool.parquet` and `exclusions.parquet` into `folder`, at constant memory."""
    counts = PoolCounts()
    with (
        pq.ParquetWriter(folder / POOL, POOL_SCHEMA, compression="zstd") as pool,
        pq.ParquetWriter(folder / EXCLUSIONS, _EXCLUSION_SCHEMA, compression="zstd") as exclusions,
    ):
        rows: list[dict[str, Any]] = []
        out: list[dict[str, Any]] = []
        for entry in judged:
            counts.entries += 1
            preferences = _preferences(entry.markets, markets)
            reasons = [*entry.reasons, *_unfit(entry, preferences)]
            if not reasons:
                counts.eligible += 1
                counts.dropped_preferences += len(entry.markets) - len(preferences)
                rows.append(_row(entry, preferences))
            else:
                counts.excluded[reasons[0]] += 1
                out.append(
                    {
                        "entry_id": entry.entry_id,
                        "ref": entry.ref,
                        "reason": reasons[0],
                        "reasons": reasons,
                    }
                )
            if len(rows) + len(out) >= _ROWS:
                _flush(pool, POOL_SCHEMA, rows)
                _flush(exclusions, _EXCLUSION_SCHEMA, out)
                on_progress(counts.entries)
        _flush(pool, POOL_SCHEMA, rows)
        _flush(exclusions, _EXCLUSION_SCHEMA, out)
    on_progress(counts.entries)
    return counts


def _unfit(entry: JudgedEntry, preferences: list[str]) -> list[str]:
    """Why an entry cannot be in a draw, whoever it belongs to."""
    ref, unit = entry.ref, entry.unit
    found = {
        "REJECTED": entry.is_rejected,
        "INVALID_REF": ref is None or not is_selection_id(ref),
        "INVALID_UNIT": unit is not None and not is_selection_id(unit),
        "INVALID_WEIGHT": not 1 <= entry.weight <= MAX_WEIGHT,
        "INVALID_SEGMENT": not all(is_selection_id(segment) for segment in entry.segments),
        "NO_MARKET": not preferences,
    }
    return [reason for reason, holds in found.items() if holds]


def _preferences(wanted: Iterable[str], markets: frozenset[str]) -> list[str]:
    """Known markets in the fan's order, each once."""
    return list(dict.fromkeys(market for market in wanted if market in markets))


def _row(entry: JudgedEntry, preferences: list[str]) -> dict[str, Any]:
    return {
        "ref": entry.ref,
        "unit": entry.ref if entry.unit is None else entry.unit,
        "weight": entry.weight,
        "segments": sorted(set(entry.segments)),
        "preferences": preferences,
        "entry_id": entry.entry_id,
        "created_at": entry.created_at,
        # For the bias audit, which shows a domain only where many share it.
        "mail_domain": entry.mail_domain,
    }


def _flush(writer: pq.ParquetWriter, schema: pa.Schema, rows: list[dict[str, Any]]) -> None:
    if rows:
        writer.write_table(pa.Table.from_pylist(rows, schema=schema))
        rows.clear()
