"""Adopts a draw that a version before 1.0 committed: records the hashes that every later step checks.

Such a draw has no hashes of its files and of its plans in the `draws` document. Each file is compared with what the
draw has committed to before its hash counts. The commitment does not cover the exclusions, nor which entry a ref of
the pool belongs to: these are accepted as the bucket has them, so adopt before others can write there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq

from fairdraw.errors import DrawError
from fairdraw.large.columns import write_leaves
from fairdraw.large.engine import Engine
from fairdraw.maths.files import (
    CUTOFFS,
    LEAVES,
    MANIFEST,
    OUTCOMES,
    RESULT,
    SEED,
    STRIKES,
    SUMMARY,
    file_hash,
    sha256_hex,
)
from fairdraw.maths.manifest import Manifest
from fairdraw.maths.merkle import root_of
from regworkers_core.adapters.mongo.draws import DrawRecord, MarketStatus, PhaseRecord, PhaseStatus
from regworkers_core.domain.keys import quoted
from regworkers_core.domain.reasons import RequestError
from regworkers_core.domain.selection import NON_WINNERS, MarketPhase
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.committed import Committed, committed
from regworkers_core.selection.assign.plan import Plan
from regworkers_core.selection.draw import allocation, freezing, seeding
from regworkers_core.selection.draw.artefacts import Workbench, pipeline_key, public_key, workbench
from regworkers_core.selection.draw.freezing import EXCLUSIONS, POOL
from regworkers_core.selection.draw.held import draw_lease

# Codes that are compared with the collection at once.
_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Adopted:
    """The phases that had no hashes, and the numbers of their files and plans. `applied` once they are recorded."""

    campaign_id: str
    phases: tuple[int, ...] = ()
    files: int = 0
    plans: int = 0
    applied: bool = False

    def as_dict(self) -> dict[str, Any]:
        numbers = {"phases": list(self.phases), "files": self.files, "plans": self.plans}
        return {"campaignId": self.campaign_id, **numbers, "applied": self.applied}


def adopt(runtime: Runtime, campaign_id: str, *, run_id: str, apply: bool) -> Adopted:
    """Check all files of the draw, and record their hashes if `apply`. A repeat finds nothing to adopt.

    Raises RequestError for a campaign without a draw, InputDiffers, ResultDiffers and DrawError for a file that the
    draw has not committed to, DrawBusy, TransientFailure.
    """
    done = Adopted(campaign_id)
    with draw_lease(runtime, campaign_id, run_id) as lease, workbench(runtime.objects, campaign_id) as bench:
        record = runtime.draws.get(campaign_id)
        if record is None:
            raise RequestError(f"campaign {quoted(campaign_id)} was never drawn: there is no draw to adopt")
        settings = runtime.settings.selection
        engine = Engine(threads=settings.threads, memory_mib=settings.memory_mib, scratch=bench.scratch)
        for number, phase in record.phases.items() if record.needs_adoption else ():
            if not phase.needs_adoption:
                continue
            fields = _fields(runtime, record, phase, bench, engine)
            # The following phases build on it.
            known = PhaseRecord(number, {**phase.fields, **fields})
            record = replace(record, phases={**record.phases, number: known})
            if apply:
                if number == 1 and phase.reached(PhaseStatus.RANKED):
                    # Made again: the commitment covers the order, not the bytes of the file.
                    fields |= allocation.rank(bench, record, engine, lease.token)
                runtime.draws.decide(campaign_id, number, fields, token=lease.token)
            plans = sum(name.endswith(".plan") for name in fields)
            done = Adopted(
                campaign_id,
                (*done.phases, number),
                done.files + len(fields["hashes"]),
                done.plans + plans,
                apply,
            )
    return done


def _fields(
    runtime: Runtime, record: DrawRecord, phase: PhaseRecord, bench: Workbench, engine: Engine
) -> dict[str, Any]:
    """Return the fields that today's draws have and this phase lacks."""
    number, folder = phase.phase, bench.phase(phase.phase)
    hashes = _committed_hashes(phase)
    for name, expected in hashes.items():
        bench.fetch(public_key(record.campaign_id, number, name), folder / name, expected)
    if number == 1:
        hashes |= _frozen(runtime, record, bench, engine)
    else:
        hashes[LEAVES] = record.phases[1].hashes[LEAVES]
    fields: dict[str, Any] = {"hashes": hashes}
    if phase.result_hash:
        bench.fetch(public_key(record.campaign_id, number, LEAVES), folder / LEAVES, hashes[LEAVES])
        key = pipeline_key(record.campaign_id, number, OUTCOMES)
        with committed(runtime, record.campaign_id, number, phase.fields) as result:
            hashes[OUTCOMES] = _taken(runtime, key, folder / OUTCOMES)
            fields |= _plans(runtime, record, phase, result, folder)
    if phase.reached(PhaseStatus.PUBLISHED) and not phase.notice:
        # The time that a published phase had under another name.
        fields["releasedAt"] = phase.fields["publishedAt"]
    return fields


def _committed_hashes(phase: PhaseRecord) -> dict[str, str]:
    """Return the hashes of the public files that follow from the record alone."""
    found = {MANIFEST: phase.manifest_hash, STRIKES: Manifest.parse(phase.manifest).strikes_hash}
    if seed := seeding.seed_bytes(phase):
        found[SEED] = sha256_hex(seed)
    if phase.result_hash:
        summary = str(phase.fields["summary"])
        found |= {RESULT: phase.result_hash, CUTOFFS: orjson.loads(summary)["cutoffsHash"]}
        found[SUMMARY] = sha256_hex(summary.encode("ascii"))
    return found


def _frozen(runtime: Runtime, record: DrawRecord, bench: Workbench, engine: Engine) -> dict[str, str]:
    """Return the hashes of the freeze: leaves with the committed root, and the pool that makes these leaves."""
    first = record.phases[1]
    hashes = {
        name: _taken(runtime, freezing.key_of(record.campaign_id, first, name), bench.root / name)
        for name in (POOL, EXCLUSIONS, LEAVES)
    }
    if root_of(bench.root / LEAVES) != (first.freeze["root"], first.freeze["count"]):
        raise DrawError(LEAVES, "the frozen leaves do not have the committed root: restore the file")
    made = bench.scratch / LEAVES
    write_leaves(bench.root / POOL, made, engine=engine)
    if file_hash(made) != hashes[LEAVES]:
        raise DrawError(POOL, "the pool does not make the committed leaves: restore the file")
    return hashes


def _plans(
    runtime: Runtime, record: DrawRecord, phase: PhaseRecord, result: Committed, folder: Path
) -> Mapping[str, Any]:
    """Return the field `markets.<market>.plan` of each market that was planned."""
    fields: dict[str, Any] = {}
    for market_id, entry in phase.markets.items():
        if entry["status"] not in (MarketStatus.ASSIGNING, MarketStatus.COMPLETED) or "plan" in entry:
            continue
        market = MarketPhase(record.campaign_id, market_id, phase.phase)
        name = f"plan/{market_id}.parquet"
        key, path = pipeline_key(record.campaign_id, phase.phase, name), folder / "plan.parquet"
        sha256 = _taken(runtime, key, path)
        plan = pq.ParquetFile(path)
        wrong = result.differences(market_id, path)
        last = int((plan.schema_arrow.metadata or {}).get(b"lastPosition", b"0"))
        if market_id != NON_WINNERS:
            for batch in plan.iter_batches(_BATCH, columns=["position", "code"]):
                planned = dict(zip(*(column.to_pylist() for column in batch.columns), strict=True))
                stored = runtime.codes.at(record.campaign_id, market_id, list(planned))
                wrong += sum(stored[each].code != code for each, code in planned.items() if each in stored)
                last = max(last, *planned)
        if wrong or plan.metadata.num_rows != int(entry["planned"]):
            raise DrawError(name, f"{wrong} rows of {key} are not of the committed result: restore the file")
        fields[f"markets.{market_id}.plan"] = Plan(
            market, key, sha256, plan.metadata.num_rows, last
        ).as_fields()
    return fields


def _taken(runtime: Runtime, key: str, path: Path) -> str:
    """Download a file without a recorded hash, and return its hash."""
    runtime.objects.get_file(key, path)
    return file_hash(path)
