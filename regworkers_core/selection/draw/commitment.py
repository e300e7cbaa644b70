"""Commit: the manifest's bytes are decided once, in the `draws` document, and published from there."""

from __future__ import annotations

from typing import Any

from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseRecord
from regworkers_core.domain.beacon import QUICKNET_HASH, round_after
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.secrets import ensure_commitment
from regworkers_core.selection.draw.announce import COMMITTED, announce
from regworkers_core.selection.draw.artefacts import public_key
from regworkers_core.selection.draw.terms import Terms
from regworkers_core.selection.maths.files import MANIFEST, STRIKES, sha256_hex
from regworkers_core.selection.maths.manifest import (
    COMMIT_REVEAL,
    DRAND,
    Manifest,
    MarketTerms,
    ReserveTerms,
)
from regworkers_core.selection.maths.strikes import strikes_bytes

# From choosing the round to the write that makes the commit: a pause of this length is allowed for, on top of
# what has to lie between commit and round. Time-outs and retries of one write stay well below it.
_WRITE_SECONDS = 60


def decide(runtime: Runtime, campaign: Campaign, record: DrawRecord, phase: PhaseRecord) -> dict[str, Any]:
    """`manifest`, `manifestHash`, `seedSource` and `committedAt` of a phase."""
    terms = Terms.parse(phase.fields["terms"])
    first = record.phases[1]
    late: bool | None = False
    previous = None
    if phase.phase == 1:
        source, late = _source(runtime, campaign)
    else:
        before = record.phases[phase.phase - 1]
        source = first.fields["seedSource"]
        previous = {"manifestHash": before.manifest_hash, "resultHash": before.result_hash}
    data = Manifest(
        as_of=first.as_of,
        campaign_id=record.campaign_id,
        count=first.freeze["count"],
        draw_id=record.draw_id,
        markets=tuple(
            MarketTerms(
                market.market_id,
                market.capacity,
                tuple(ReserveTerms(reserve.segment, reserve.seats) for reserve in market.reserves),
            )
            for market in terms.markets
        ),
        phase=phase.phase,
        previous=previous,
        root=first.freeze["root"],
        seed_source=source,
        strikes_hash=sha256_hex(strikes_bytes(dict(terms.strikes))),
        waitlist_size=terms.waitlist_size,
        wins_per_unit=terms.wins_per_unit,
    ).to_bytes()
    return {
        "manifest": data.decode("ascii"),
        "manifestHash": sha256_hex(data),
        "seedSource": source,
        "committedAt": iso(runtime.clock()),
        "commitmentLate": late,
    }


def _source(runtime: Runtime, campaign: Campaign) -> tuple[dict[str, Any], bool | None]:
    """Where the seed will come from, and whether its commitment came late (None: nobody knows)."""
    settings = runtime.settings.selection
    if settings.seed_source == "drand":
        number = round_after(runtime.clock() + _WRITE_SECONDS, settings.seed_delay_seconds)
        return {"chain": QUICKNET_HASH, "kind": DRAND, "round": number}, False
    commitment, late = ensure_commitment(runtime, campaign)
    return {"commitment": commitment, "kind": COMMIT_REVEAL}, late


def publish(runtime: Runtime, campaign_id: str, phase: PhaseRecord) -> None:
    """Put manifest and strikes where everybody sees them, and tell Kafka's readers. The bytes come from the
    document, so a repeat publishes the same.
    """
    strikes = strikes_bytes(dict(Terms.parse(phase.fields["terms"]).strikes))
    runtime.objects.put_bytes(public_key(campaign_id, phase.phase, STRIKES), strikes)
    runtime.objects.put_bytes(public_key(campaign_id, phase.phase, MANIFEST), phase.manifest)
    announce(
        runtime,
        campaign_id,
        phase.phase,
        COMMITTED,
        {"manifestHash": phase.manifest_hash, "seedSource": phase.fields["seedSource"]},
        at=phase.fields["committedAt"],
    )


def facts(phase: PhaseRecord) -> dict[str, Any]:
    """For people: what was committed to, and when."""
    return {
        "phase": phase.phase,
        "manifestHash": phase.manifest_hash,
        "seedSource": phase.fields["seedSource"],
        "committedAt": phase.fields["committedAt"],
        "commitmentLate": phase.commitment_late,
    }
