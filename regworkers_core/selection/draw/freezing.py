"""Judge and freeze: who is eligible, the pool of those, its leaves and their root, kept under names of this run's own.

The files of a run that lost its lease in the midst stay behind unreferenced: only the `draws` document says
which judgement and which freeze are the draw's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regworkers_core.adapters.files.judged_entries import JUDGED, PAGE, Judge, Judgement, Tell, read_judged
from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseRecord
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw.artefacts import Workbench, own_prefix, pipeline_key, report_key
from regworkers_core.selection.draw.pool import EXCLUSIONS, POOL, write_pool
from regworkers_core.selection.maths.engine import Engine
from regworkers_core.selection.maths.errors import DrawError
from regworkers_core.selection.maths.files import LEAVES
from regworkers_core.selection.maths.leaves import write_leaves
from regworkers_core.selection.maths.merkle import root_of


def judge(
    runtime: Runtime, campaign: Campaign, judge: Judge, as_of: str, bench: Workbench, token: int, tell: Tell
) -> tuple[dict[str, Any], Judgement]:
    """The `eligibility` part of phase 1, with the SHA-256 of the file of the judged, and the judge's tables."""
    tell("judging the entries")
    made = judge(campaign, as_of=as_of, folder=bench.root, tell=tell)
    prefix = own_prefix("judged", token)
    sha256 = bench.put(pipeline_key(campaign.campaign_id, 1, f"{prefix}/{JUDGED}"), bench.root / JUDGED)
    facts: dict[str, Any] = {"prefix": prefix, "sha256": sha256, "at": iso(runtime.clock()), **made.facts}
    if (bench.root / PAGE).exists():
        key = report_key(campaign.campaign_id, 1, PAGE)
        bench.put(key, bench.root / PAGE)
        facts["page"] = f"s3://{runtime.names.bucket}/{key}"
    return facts, made


def freeze(
    runtime: Runtime,
    campaign: Campaign,
    judged: Mapping[str, Any],
    bench: Workbench,
    engine: Engine,
    token: int,
    tell: Tell,
) -> tuple[dict[str, Any], dict[str, str]]:
    """The `freeze` part of phase 1, from the judged entries alone, and the SHA-256 of its files by name. Raises
    DrawError for a repeated ref.
    """
    key = pipeline_key(campaign.campaign_id, 1, f"{judged['prefix']}/{JUDGED}")
    bench.fetch(key, bench.root / JUDGED, judged["sha256"])
    counts = write_pool(
        read_judged(bench.root),
        frozenset(campaign.market_ids),
        bench.root,
        lambda done: tell(f"{done:,} entries taken up"),
    )
    tell("writing the leaves")
    try:
        write_leaves(bench.root / POOL, bench.root / LEAVES, engine=engine)
    except DrawError as error:
        # Nothing reads the entries again but a judgement.
        advice = "mend the entries, then launch the draw anew (executed again from the failure it would find the same)"
        raise DrawError(error.artefact, f"{error.message}; {advice}") from None
    tell("hashing the leaves")
    root, count = root_of(bench.root / LEAVES)
    prefix = own_prefix("freeze", token)
    hashes = {
        name: bench.put(pipeline_key(campaign.campaign_id, 1, f"{prefix}/{name}"), bench.root / name)
        for name in (POOL, EXCLUSIONS, LEAVES)
    }
    frozen = {
        "prefix": prefix,
        **counts.as_dict(),
        "root": root,
        "count": count,
        "at": iso(runtime.clock()),
    }
    return frozen, hashes


def key_of(campaign_id: str, first: PhaseRecord, name: str) -> str:
    """Where a file of the freeze lies."""
    return pipeline_key(campaign_id, 1, f"{first.freeze['prefix']}/{name}")


def fetch(bench: Workbench, record: DrawRecord, name: str, path: Path) -> Path:
    """Bring a file of the freeze to `path`. Raises InputDiffers unless it is the one that was frozen."""
    first = record.phases[1]
    return bench.fetch(key_of(record.campaign_id, first, name), path, first.hashes.get(name, ""))


def facts(first: PhaseRecord) -> dict[str, Any]:
    """For people: the numbers of the pool."""
    shown = ("entries", "eligible", "excluded", "droppedPreferences", "count", "root")
    return {"asOf": first.as_of, **{name: first.freeze[name] for name in shown}}
