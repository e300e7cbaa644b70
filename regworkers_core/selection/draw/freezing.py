"""Judge and freeze: every entry is judged, and those that can take part become the pool, its leaves and their root.

Each attempt stores its files under its own names. Those of a run that lost its lease remain unreferenced: the `draws`
document says which judgement and which freeze count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fairdraw.documents import as_document
from fairdraw.errors import DrawError
from fairdraw.large.columns import write_leaves
from fairdraw.large.engine import Engine
from fairdraw.maths.files import LEAVES
from fairdraw.maths.leaves import UNIT_LIKE, unit_of
from fairdraw.maths.merkle import root_of
from fairdraw.maths.rules import MAX_WEIGHT
from fairdraw.scheduling import Progress, no_progress
from regworkers_core.adapters.judged_entries import (
    EXCLUSION_SCHEMA,
    EXCLUSIONS,
    JUDGED,
    PAGE,
    POOL,
    POOL_SCHEMA,
    Judge,
    JudgedEntry,
    Judgement,
    Tell,
    read_judged,
)
from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseRecord
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.keys import is_selection_id
from regworkers_core.domain.selection import pipeline_key, report_key
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.keys import ensure_keys
from regworkers_core.selection.draw.held import Workbench, own_prefix

# Rows held before they are written: about 20 MB.
_ROWS = 50_000


def await_writers(
    campaign: Campaign,
    grace_seconds: float,
    *,
    clock: Callable[[], float],
    wait: Callable[[float], bool],
    tell: Callable[[str], None],
) -> bool:
    """Wait until `grace_seconds` after the closing, because an entry that was made before it may be written up to that
    much later, and its fan was promised that it counts. Return False when `wait` was interrupted.

    A closed campaign without a closing time counts as closed now.
    """
    since = seconds(campaign.takes_entries_until) or 0.0
    ends = min(since, clock()) + grace_seconds
    while (left := ends - clock()) > 0:
        tell(f"waiting {left:.0f} s for entries that were under way when registration closed")
        if wait(min(left, 5.0)):
            return False
    return True


def judge(
    runtime: Runtime, campaign: Campaign, judge: Judge, as_of: str, bench: Workbench, token: int, tell: Tell
) -> Judgement:
    """Judge all entries and store the result. The facts are the field `eligibility` of phase 1."""
    tell("judging the entries")
    made = judge(campaign, as_of=as_of, folder=bench.root, tell=tell)
    prefix = own_prefix("judged", token)
    sha256 = bench.put(pipeline_key(campaign.campaign_id, 1, f"{prefix}/{JUDGED}"), bench.root / JUDGED)
    facts: dict[str, Any] = {"prefix": prefix, "sha256": sha256, "at": iso(runtime.clock()), **made.facts}
    if (bench.root / PAGE).exists():
        key = report_key(campaign.campaign_id, 1, PAGE)
        # A repeated judgement replaces the page of the one before.
        runtime.objects.put_file(key, bench.root / PAGE)
        facts["page"] = f"s3://{runtime.names.bucket}/{key}"
    return replace(made, facts=facts)


@dataclass(slots=True)
class PoolCounts:
    """The numbers of a pool: all entries are eligible or excluded."""

    # All of them.
    entries: int = 0
    # Those in the draw.
    eligible: int = 0
    # The others, by primary reason.
    excluded: Counter[str] = field(default_factory=Counter)
    # Unknown and repeated markets of eligible entries.
    dropped_preferences: int = 0

    def as_dict(self) -> dict[str, Any]:
        return as_document(self) | {"excluded": dict(sorted(self.excluded.items()))}


def write_pool(
    judged: Iterable[JudgedEntry],
    markets: frozenset[str],
    folder: Path,
    published_unit: Callable[[str], str],
    on_progress: Progress = no_progress,
) -> PoolCounts:
    """Write `pool.parquet` and `exclusions.parquet` into `folder`, at constant memory. `published_unit` gives the unit
    in a leaf by that of the entry.
    """
    counts = PoolCounts()
    with (
        pq.ParquetWriter(folder / POOL, POOL_SCHEMA, compression="zstd") as pool,
        pq.ParquetWriter(folder / EXCLUSIONS, EXCLUSION_SCHEMA, compression="zstd") as exclusions,
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
                rows.append(_row(entry, preferences, published_unit))
            else:
                counts.excluded[reasons[0]] += 1
                why = {"reason": reasons[0], "reasons": reasons}
                out.append({"entry_id": entry.entry_id, "ref": entry.ref, **why})
            if len(rows) + len(out) >= _ROWS:
                _flush(pool, POOL_SCHEMA, rows)
                _flush(exclusions, EXCLUSION_SCHEMA, out)
                on_progress(counts.entries)
        _flush(pool, POOL_SCHEMA, rows)
        _flush(exclusions, EXCLUSION_SCHEMA, out)
    on_progress(counts.entries)
    return counts


def _unfit(entry: JudgedEntry, preferences: list[str]) -> list[str]:
    """Return the reasons for which an entry cannot take part in any draw."""
    ref, unit = entry.ref, entry.unit
    found = {
        "REJECTED": entry.is_rejected,
        "INVALID_REF": ref is None or not is_selection_id(ref) or bool(UNIT_LIKE.fullmatch(ref)),
        "INVALID_UNIT": unit is not None and not is_selection_id(unit),
        "INVALID_WEIGHT": not 1 <= entry.weight <= MAX_WEIGHT,
        "INVALID_SEGMENT": not all(is_selection_id(segment) for segment in entry.segments),
        "NO_MARKET": not preferences,
    }
    return [reason for reason, holds in found.items() if holds]


def _preferences(wanted: Iterable[str], markets: frozenset[str]) -> list[str]:
    """Return the known markets in the fan's order, without repeats."""
    return list(dict.fromkeys(market for market in wanted if market in markets))


def _row(entry: JudgedEntry, preferences: list[str], published_unit: Callable[[str], str]) -> dict[str, Any]:
    return {
        "ref": entry.ref,
        "unit": entry.ref if entry.unit is None else published_unit(entry.unit),
        "weight": entry.weight,
        "segments": sorted(set(entry.segments)),
        "preferences": preferences,
        "entry_id": entry.entry_id,
        "created_at": entry.created_at,
        # For the bias audit, which shows a domain only if many entries share it.
        "mail_domain": entry.mail_domain,
        "vouched_by": entry.vouched_by,
    }


def _flush(writer: pq.ParquetWriter, schema: pa.Schema, rows: list[dict[str, Any]]) -> None:
    if rows:
        writer.write_table(pa.Table.from_pylist(rows, schema=schema))
        rows.clear()


def freeze(
    runtime: Runtime,
    campaign: Campaign,
    judged: Mapping[str, Any],
    bench: Workbench,
    engine: Engine,
    token: int,
    tell: Tell,
) -> dict[str, Any]:
    """Build and store the pool from the judged entries alone. Returns the fields `freeze` and `hashes` (SHA-256 of its
    files) of phase 1. Raises DrawError for a duplicate ref, and as `ensure_keys`.
    """
    keys = ensure_keys(runtime, campaign)
    key = pipeline_key(campaign.campaign_id, 1, f"{judged['prefix']}/{JUDGED}")
    bench.fetch(key, bench.root / JUDGED, judged["sha256"])
    counts = write_pool(
        read_judged(bench.root),
        frozenset(campaign.market_ids),
        bench.root,
        partial(unit_of, keys.unit, campaign.campaign_id),
        lambda done, total=None, unit="": tell(f"{done:,} entries processed"),
    )
    tell("writing the leaves")
    try:
        write_leaves(bench.root / POOL, bench.root / LEAVES, engine=engine)
    except DrawError as error:
        # Only a judgement reads the entries again.
        advice = (
            "correct the entries, then launch a new draw run (a retry from the failed step would fail again)"
        )
        raise DrawError(error.artefact, f"{error.message}; {advice}") from None
    tell("hashing the leaves")
    root, count = root_of(bench.root / LEAVES)
    prefix = own_prefix("freeze", token)
    hashes = {
        name: bench.put(pipeline_key(campaign.campaign_id, 1, f"{prefix}/{name}"), bench.root / name)
        for name in (POOL, EXCLUSIONS, LEAVES)
    }
    numbers = {**counts.as_dict(), "root": root, "count": count}
    return {"freeze": {"prefix": prefix, **numbers, "at": iso(runtime.clock())}, "hashes": hashes}


def fetch(bench: Workbench, record: DrawRecord, name: str, path: Path) -> Path:
    """Download a file of the freeze to `path`. Raises InputDiffers unless it is the one that was frozen."""
    first = record.phases[1]
    return bench.fetch(record.frozen_key(name), path, first.hashes.get(name, ""))


def facts(first: PhaseRecord) -> dict[str, Any]:
    """Return the numbers of the pool, for people."""
    shown = ("entries", "eligible", "excluded", "droppedPreferences", "count", "root")
    return {"asOf": first.as_of, **{name: first.freeze[name] for name in shown}}
