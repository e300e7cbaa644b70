"""After the seed: rank and allocate the frozen leaves, publish the result, and report on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import orjson

from fairdraw.documents import as_document
from fairdraw.large.allocate import allocate_seats, compute
from fairdraw.large.engine import Engine
from fairdraw.large.rank import RANKED, rank_leaves
from fairdraw.maths.files import (
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
from fairdraw.maths.manifest import Manifest
from regworkers_core.adapters.judged_entries import EXCLUSIONS, POOL
from regworkers_core.adapters.mongo.codes import CodeStatus
from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseRecord
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.events import EventType, ProducerRole, draw_event
from regworkers_core.domain.selection import pipeline_key, report_key
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw import freezing, seeding
from regworkers_core.selection.draw.held import (
    InputDiffers,
    Workbench,
    entries_hash,
    own_prefix,
    result_hash,
)
from regworkers_core.selection.draw.terms import PhaseTerms
from regworkers_core.selection.report.inputs import NUMBERS, PAGE, ReportContext, ReportFiles


def rank(bench: Workbench, record: DrawRecord, engine: Engine, token: int) -> dict[str, Any]:
    """Store `ranked.parquet` of phase 1, the order of all phases. Returns the field `ranking`: its key and SHA-256."""
    folder = _inputs(bench, record, record.phases[1])
    rank_leaves(folder, bench.root / RANKED, engine=engine)
    # Another attempt may write the same rows as other bytes.
    key = pipeline_key(record.campaign_id, 1, f"{own_prefix('rank', token)}/{RANKED}")
    return {"ranking": {"key": key, "sha256": bench.put(key, bench.root / RANKED)}}


def allocate(bench: Workbench, record: DrawRecord, phase: PhaseRecord, engine: Engine) -> dict[str, Any]:
    """Publish result, cut-offs, summary and leaves. Returns the fields `resultHash`, `entriesHash`, `outcomes`,
    `summary`, `hashes` and `recommitted`. Raises DrawError for artefacts that contradict each other, InputDiffers.
    """
    number = phase.phase
    folder = _inputs(bench, record, phase)
    previous = bench.fetch_public(record.phases[number - 1], *ARTEFACTS) if number > 1 else None
    ranking = record.phases[1].fields.get("ranking") or {}
    key = ranking.get("key", pipeline_key(record.campaign_id, 1, RANKED))
    ranked = bench.fetch(key, bench.root / RANKED, ranking.get("sha256", ""))
    summary = allocate_seats(folder, previous, ranked, folder, engine=engine)
    entries, outcomes = _with_entries(bench, record, phase, folder / OUTCOMES, engine, summary.result_hash)
    recommitted = [
        _other_result(bench.scratch, folder, phase, k, manifest, engine)
        for k, manifest in seeding.replaced_when_due(phase)
    ]
    hashes = bench.put_public(number, RESULT, CUTOFFS, SUMMARY, LEAVES)
    return {
        "resultHash": summary.result_hash,
        "entriesHash": entries,
        "outcomes": dict(summary.outcomes),
        "summary": (folder / SUMMARY).read_text("ascii"),
        "hashes": {**phase.hashes, **hashes, OUTCOMES: outcomes},
        "recommitted": recommitted,
    }


def _other_result(
    scratch: Path, folder: Path, phase: PhaseRecord, k: int, manifest: Manifest, engine: Engine
) -> dict[str, Any]:
    """Draw with the k-th replaced manifest, and count the entries that have another outcome in `folder`."""
    other, number = scratch / f"replaced-{k}", manifest.seed_source.round
    other.mkdir()
    signature = phase.signatures[str(number)]
    (other / MANIFEST).write_bytes(manifest.to_bytes())
    (other / SEED).write_bytes(seeding.seed_of(manifest.to_bytes(), signature))
    for name in (LEAVES, STRIKES):
        (other / name).symlink_to(folder / name)
    made = compute(other, None, other, engine=engine)
    return {
        "k": k,
        "round": number,
        "manifestHash": manifest.hash,
        "resultHash": made.result_hash,
        "differ": _differ(folder / RESULT, other / RESULT),
    }


def _differ(one: Path, other: Path) -> int:
    """Count the lines in which market or outcome differ; both files list the same entries in the same order."""
    with one.open("rb") as ours, other.open("rb") as theirs:
        pairs = ((a.split(b"|"), b.split(b"|")) for a, b in zip(ours, theirs, strict=True))
        return sum((a[1], a[3]) != (b[1], b[3]) for a, b in pairs)


def _inputs(bench: Workbench, record: DrawRecord, phase: PhaseRecord) -> Path:
    """Download the inputs of the maths into the phase's folder and return it. Raises InputDiffers."""
    folder = bench.fetch_public(phase, MANIFEST, STRIKES, SEED)
    freezing.fetch(bench, record, LEAVES, folder / LEAVES)
    return folder


class _Stored(NamedTuple):
    entries: str  # the hash of its rows beyond the result
    sha256: str


def _with_entries(
    bench: Workbench,
    record: DrawRecord,
    phase: PhaseRecord,
    outcomes: Path,
    engine: Engine,
    result: str,
) -> _Stored:
    """Store `outcomes.parquet` with the entry of each ref and its outcome in the phase before."""
    campaign_id, number = record.campaign_id, phase.phase
    pool = freezing.fetch(bench, record, POOL, bench.root / POOL)
    target = bench.scratch / OUTCOMES
    files = {"outcomes": outcomes, "pool": pool, "target": target}
    before, join = "'' AS previous, '' AS previous_market", ""
    if number > 1:
        earlier = bench.fetch(
            pipeline_key(campaign_id, number - 1, OUTCOMES),
            bench.scratch / "before.parquet",
            record.phases[number - 1].hashes.get(OUTCOMES, ""),
        )
        before = "b.outcome AS previous, b.market AS previous_market"
        join = "JOIN read_parquet($earlier) b USING (ref)"
        files["earlier"] = earlier
    with engine.connection() as connection:
        connection.execute(
            f"""
            COPY (
                SELECT o.ref, p.entry_id, o.market, o.rank, o.outcome, {before}
                FROM read_parquet($outcomes) o JOIN read_parquet($pool) p USING (ref) {join}
                ORDER BY o.ref
            ) TO $target (FORMAT parquet, COMPRESSION zstd)
            """,
            {name: str(path) for name, path in files.items()},
        )
        connection.read_parquet(str(target)).create_view("written")
        entries = entries_hash(connection, "written", bench.scratch)
        try:
            return _Stored(entries, bench.put(pipeline_key(campaign_id, number, OUTCOMES), target))
        except InputDiffers as differs:
            # An attempt that died before its decision may have written the same rows as other bytes.
            stored = bench.fetch(differs.key, bench.scratch / "stored.parquet", differs.found)
            if not _has_rows(connection, stored, bench.scratch, result, entries):
                raise
            return _Stored(entries, differs.found)


def _has_rows(
    connection: duckdb.DuckDBPyConnection, path: Path, scratch: Path, result: str, entries: str
) -> bool:
    try:
        connection.read_parquet(str(path)).create_view("stored")
        return (result, entries) == (
            result_hash(connection, "stored", scratch),
            entries_hash(connection, "stored", scratch),
        )
    except duckdb.Error:
        return False


def announce_result(runtime: Runtime, campaign_id: str, phase: PhaseRecord) -> None:
    data = as_document(phase, "manifest_hash", "result_hash", "outcomes")
    event = draw_event(campaign_id, phase.phase, EventType.DRAW_DRAWN, data, phase.fields["drawnAt"])
    runtime.event_queue(ProducerRole.SELECTION).send_all([event])


def facts(phase: PhaseRecord) -> dict[str, Any]:
    """Return the outcomes and the hash of the result, for people."""
    return as_document(phase, "phase", "manifest_hash", "result_hash", "outcomes")


@dataclass(frozen=True, slots=True)
class MadeReport:
    """A report that is stored. `record` is the field `report` of the phase; `markdown` has the overview and each plot
    by name.
    """

    record: Mapping[str, Any]
    markdown: Mapping[str, str]


def report(
    runtime: Runtime,
    campaign: Campaign,
    record: DrawRecord,
    phase: PhaseRecord,
    bench: Workbench,
    engine: Engine,
) -> MadeReport:
    """Build the report of a drawn phase and store it as a page and as JSON."""
    campaign_id, number = record.campaign_id, phase.phase
    folder = bench.fetch_public(phase, MANIFEST, CUTOFFS, SUMMARY, STRIKES)
    first = record.phases[1]
    outcomes = pipeline_key(campaign_id, number, OUTCOMES)
    files = ReportFiles(
        artefacts=folder,
        pool=freezing.fetch(bench, record, POOL, bench.root / POOL),
        exclusions=freezing.fetch(bench, record, EXCLUSIONS, bench.root / EXCLUSIONS),
        outcomes=bench.fetch(outcomes, bench.root / OUTCOMES, phase.hashes.get(OUTCOMES, "")),
        earlier=[
            bench.fetch_public(record.phases[before], MANIFEST, STRIKES, RESULT)
            for before in range(1, number)
        ],
    )
    codes = runtime.codes.count(campaign_id)
    context = ReportContext(
        campaign_name=campaign.name,
        market_names={market.market_id: market.name for market in campaign.markets},
        codes={
            market_id: codes.get(market_id, {}).get(CodeStatus.AVAILABLE, 0)
            for market_id in campaign.market_ids
        },
        dropped_preferences=first.freeze["droppedPreferences"],
        reason=PhaseTerms.parse(phase.fields["terms"]).reason,
        chain=first.chain,
        lead=first.lead,
        published_at=first.published_at,
        replaced=len(first.replaced),
        recommitted=first.recommitted,
        lost_registrations=first.lost_registrations,
    )
    # Imported late: plots and statistics take a second to import, and only a report needs them.
    from regworkers_core.selection.report.build import build_report, images, overview

    made = build_report(files, context, memory_mib=engine.memory_mib, scratch=engine.scratch)
    page = report_key(campaign_id, number, PAGE)
    runtime.objects.put_bytes(page, made.html.encode())
    runtime.objects.put_bytes(report_key(campaign_id, number, NUMBERS), orjson.dumps(made.numbers))
    return MadeReport(
        {
            "page": f"s3://{runtime.names.bucket}/{page}",
            "findings": list(made.findings),
            "warnings": list(made.warnings),
            # For the gate, which does not read the page.
            "biasAudit": list(made.numbers["audit"]["findings"]),
            "funnel": made.numbers["funnel"],
            "newWinners": {market["marketId"]: market["new"] for market in made.numbers["markets"]},
            "at": iso(runtime.clock()),
        },
        {"overview": overview(made)} | {f"plot_{name}": plot for name, plot in images(made).items()},
    )
