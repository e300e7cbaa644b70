"""Freeze: the pool, its leaves and their root, kept under a name of this run's own.

The files of a run that lost its lease in the midst stay behind unreferenced: only the `draws` document says
which freeze is the draw's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from regworkers_core.adapters.draws import PhaseRecord
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw.artefacts import Workbench, pipeline_key
from regworkers_core.selection.draw.pool import EXCLUSIONS, POOL, read_pool
from regworkers_core.selection.maths.engine import Engine
from regworkers_core.selection.maths.files import LEAVES
from regworkers_core.selection.maths.leaves import write_leaves
from regworkers_core.selection.maths.merkle import root_of


def freeze(
    runtime: Runtime,
    campaign: Campaign,
    bench: Workbench,
    engine: Engine,
    token: int,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """The `freeze` part of phase 1. Raises DrawError for a repeated ref."""
    tell("reading the entries")
    counts = read_pool(runtime, campaign, bench.root, lambda done: tell(f"{done:,} entries judged"))
    tell("writing the leaves")
    write_leaves(bench.root / POOL, bench.root / LEAVES, engine=engine)
    tell("hashing the leaves")
    root, count = root_of(bench.root / LEAVES)
    prefix = f"freeze-{token}"
    for name in (POOL, EXCLUSIONS, LEAVES):
        runtime.objects.put_file(pipeline_key(campaign.campaign_id, 1, f"{prefix}/{name}"), bench.root / name)
    return {
        "prefix": prefix,
        **counts.as_dict(),
        "root": root,
        "count": count,
        "at": iso(runtime.clock()),
    }


def key_of(campaign_id: str, first: PhaseRecord, name: str) -> str:
    """Where a file of the freeze lies."""
    return pipeline_key(campaign_id, 1, f"{first.freeze['prefix']}/{name}")


def facts(first: PhaseRecord) -> dict[str, Any]:
    """For people: the numbers of the pool."""
    shown = ("entries", "eligible", "excluded", "droppedPreferences", "count", "root")
    return {"asOf": first.as_of, **{name: first.freeze[name] for name in shown}}
