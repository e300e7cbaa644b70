"""A closed campaign with entries in the replica, and draws of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from regworkers_core.adapters.judged_entries import (
    JudgedEntry,
    JudgedWriter,
    Judgement,
    ReplicationProgress,
    Tell,
)
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.selection import StepResult
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw_run import DrawOptions, DrawRun

CAMPAIGN = "summer"
STEPS = ("judge", "freeze", "commit", "seed", "rank", "allocate", "report")
MARKETS = (
    {"marketId": "berlin", "name": "Berlin", "capacity": 4, "reserves": [{"segment": "loyal", "seats": 2}]},
    {"marketId": "paris", "name": "Paris", "capacity": 3},
)


def ref_of(number: int) -> str:
    """Random to look at, the same in every run."""
    return hashlib.sha256(f"ref-{number}".encode()).hexdigest()[:32]


def entry(number: int, **changes: Any) -> dict[str, Any]:
    """A live entry as the replica holds it; `field=None` leaves the field out."""
    now = iso(1_790_000_000 + number)
    fields = {
        "_id": f"{CAMPAIGN}:e{number}",
        "campaignId": CAMPAIGN,
        "entryId": f"e{number}",
        "ref": ref_of(number),
        "email": f"fan{number}@example.com",
        "markets": ["berlin", "paris"] if number % 2 else ["paris"],
        "segments": ["loyal"] if number % 3 == 0 else [],
        "createdAt": now,
        "version": 1,
        "updatedAt": now,
        "_replication": {"createdAt": now, "version": 1, "updatedAt": now},
        **changes,
    }
    return {name: value for name, value in fields.items() if value is not None}


def close_campaign(
    runtime: Runtime,
    entries: Sequence[Mapping[str, Any]] = tuple(entry(number) for number in range(20)),
    *,
    codes: int = 10,
    **changes: Any,
) -> None:
    """The campaign, CLOSED, with these entries and this number of codes for each market."""
    runtime.database["campaigns"].insert_one(
        {
            "_id": CAMPAIGN,
            "slug": CAMPAIGN,
            "name": "Summer",
            "status": "CLOSED",
            "opensAt": "2026-01-01T00:00:00.000Z",
            "closesAt": "2026-02-01T00:00:00.000Z",
            "markets": [dict(market) for market in MARKETS],
            **changes,
        }
    )
    if entries:
        runtime.database["entries"].insert_many([dict(each) for each in entries])
    made = [
        {
            "_id": f"{market['marketId']}-{position:04d}",
            "campaignId": CAMPAIGN,
            "marketId": market["marketId"],
            "position": position,
            "status": "AVAILABLE",
        }
        for market in MARKETS
        for position in range(1, codes + 1)
    ]
    if made:
        runtime.database["codes"].insert_many(made)


def everybody(runtime: Runtime, campaign: Campaign, *, as_of: str, folder: Path, tell: Tell) -> Judgement:
    """A judge to whom every live entry is eligible."""
    with JudgedWriter(folder) as writer:
        for key, stored in runtime.replica.entries(campaign.campaign_id):
            if stored.fields is not None:
                writer.add(JudgedEntry.of(key, stored.fields))
    return Judgement()


def draw(runtime: Runtime, **options: Any) -> DrawRun:
    """A run over a campaign whose replication is taken for settled, and whose entries are all eligible."""
    given = {
        "run_id": "test-run",
        "settled": lambda _campaign: ReplicationProgress(),
        "judge": partial(everybody, runtime),
    }
    return DrawRun(runtime, CAMPAIGN, DrawOptions(**{**given, **options}))


def done_to(last: str, run: DrawRun) -> DrawRun:
    """The run after its steps up to this one."""
    for name in STEPS[: STEPS.index(last) + 1]:
        getattr(run, name)()
    return run


def drawn(runtime: Runtime, **options: Any) -> dict[str, StepResult]:
    """All steps to the publication, by name."""
    return {step.name: step for step in draw(runtime, **options).steps(unasked=True)}


def artefact(runtime: Runtime, name: str, phase: int = 1) -> bytes:
    """A published file."""
    found: bytes = runtime.objects.get_bytes(f"draws/{CAMPAIGN}/phase-{phase}/{name}")
    return found
