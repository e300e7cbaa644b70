"""Rank and allocate: the maths on the frozen files, and their result published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseRecord
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw import freezing
from regworkers_core.selection.draw.announce import DRAWN, announce
from regworkers_core.selection.draw.artefacts import RANKED, Workbench, pipeline_key
from regworkers_core.selection.draw.pool import POOL
from regworkers_core.selection.draw.sealing import entries_hash
from regworkers_core.selection.maths.allocate import allocate as allocate_seats
from regworkers_core.selection.maths.engine import Engine
from regworkers_core.selection.maths.files import (
    ARTEFACTS,
    CUTOFFS,
    LEAVES,
    MANIFEST,
    OUTCOMES,
    RESULT,
    SEED,
    STRIKES,
    SUMMARY,
)
from regworkers_core.selection.maths.rank import rank as rank_leaves


def rank(bench: Workbench, record: DrawRecord, engine: Engine) -> None:
    """Put `ranked.parquet` of phase 1 beside the pool. The order never changes afterwards."""
    folder = _inputs(bench, record, record.phases[1])
    rank_leaves(folder, bench.root / RANKED, engine=engine)
    bench.put(pipeline_key(record.campaign_id, 1, RANKED), bench.root / RANKED)


def allocate(bench: Workbench, record: DrawRecord, phase: PhaseRecord, engine: Engine) -> dict[str, Any]:
    """Publish result, cut-offs, summary and leaves; returns `resultHash`, `entriesHash`, `outcomes` and
    `summary`.

    Raises DrawError for artefacts that do not fit.
    """
    number = phase.phase
    folder = _inputs(bench, record, phase)
    previous = bench.fetch_public(number - 1, *ARTEFACTS) if number > 1 else None
    ranked = bench.fetch(pipeline_key(record.campaign_id, 1, RANKED), bench.root / RANKED)
    summary = allocate_seats(folder, previous, ranked, folder, engine=engine)
    entries = _with_entries(bench, record, number, folder / OUTCOMES, engine)
    bench.put_public(number, RESULT, CUTOFFS, SUMMARY, LEAVES)
    return {
        "resultHash": summary.result_hash,
        "entriesHash": entries,
        "outcomes": dict(summary.outcomes),
        "summary": (folder / SUMMARY).read_text("ascii"),
    }


def _inputs(bench: Workbench, record: DrawRecord, phase: PhaseRecord) -> Path:
    """The phase's folder with what the maths reads."""
    folder = bench.fetch_public(phase.phase, MANIFEST, STRIKES, SEED)
    bench.fetch(freezing.key_of(record.campaign_id, record.phases[1], LEAVES), folder / LEAVES)
    return folder


def _with_entries(bench: Workbench, record: DrawRecord, number: int, outcomes: Path, engine: Engine) -> str:
    """Put `outcomes.parquet`: the maths' outcomes with the entry of each ref and its outcome before, whose hash is
    returned. It is a hash of rows: a repeat may write them into other bytes.
    """
    campaign_id = record.campaign_id
    pool = bench.fetch(freezing.key_of(campaign_id, record.phases[1], POOL), bench.root / POOL)
    target = bench.scratch / OUTCOMES
    before, join = "'' AS previous, '' AS previous_market", ""
    if number > 1:
        earlier = bench.fetch(
            pipeline_key(campaign_id, number - 1, OUTCOMES), bench.scratch / "before.parquet"
        )
        before = "b.outcome AS previous, b.market AS previous_market"
        join = f"JOIN read_parquet('{earlier}') b USING (ref)"
    with engine.connection() as connection:
        connection.execute(
            f"""
            COPY (
                SELECT o.ref, p.entry_id, o.market, o.rank, o.outcome, {before}
                FROM read_parquet('{outcomes}') o JOIN read_parquet('{pool}') p USING (ref) {join}
                ORDER BY o.ref
            ) TO '{target}' (FORMAT parquet, COMPRESSION zstd)
            """
        )
        entries = entries_hash(connection, f"read_parquet('{target}')", bench.scratch)
    bench.put(pipeline_key(campaign_id, number, OUTCOMES), target)
    return entries


def announce_result(runtime: Runtime, campaign_id: str, phase: PhaseRecord) -> None:
    """Tell Kafka's readers the hash of the result."""
    data = {"manifestHash": phase.manifest_hash, "resultHash": phase.result_hash}
    announce(
        runtime,
        campaign_id,
        phase.phase,
        DRAWN,
        data | {"outcomes": dict(phase.outcomes)},
        at=phase.fields["drawnAt"],
    )


def facts(phase: PhaseRecord) -> dict[str, Any]:
    """For people: the outcomes and the hash of the result."""
    return {
        "phase": phase.phase,
        "manifestHash": phase.manifest_hash,
        "resultHash": phase.result_hash,
        "outcomes": dict(phase.outcomes),
    }
