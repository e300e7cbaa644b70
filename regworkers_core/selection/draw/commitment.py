"""Commit: the manifest's bytes are decided in the `draws` document, and published from there before the seed exists.

A manifest of phase 1 that became public under ten minutes before its round may have been fitted to it. As long as the
round is not signed, one that differs in the round alone takes its place. Once it is signed, that happens only where
nothing had been published before it; the manifest that was replaced then has a result of its own, and it is published
how many outcomes differ from it. Each replaced manifest stays public as `replaced-<k>.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from regworkers_core.adapters.aws.objects import ObjectStore, Tagged
from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseRecord
from regworkers_core.domain.beacon import LEAD_SECONDS, QUICKNET_HASH
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.events import EventType, draw_event
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.secrets import ensure_commitment
from regworkers_core.selection.draw import seeding
from regworkers_core.selection.draw.artefacts import InputDiffers, public_key, publish_once
from regworkers_core.selection.draw.terms import Terms
from regworkers_core.selection.maths.beside import NOTICE, Notice, Replaced, replaced_name
from regworkers_core.selection.maths.files import LEAVES, MANIFEST, STRIKES, sha256_hex
from regworkers_core.selection.maths.manifest import (
    COMMIT_REVEAL,
    DRAND,
    Manifest,
    MarketTerms,
    ReserveTerms,
    strikes_bytes,
)

Fields = dict[str, Any]


def decide(
    runtime: Runtime,
    campaign: Campaign,
    record: DrawRecord,
    phase: PhaseRecord,
    patience: seeding.Patience,
) -> Fields | None:
    """`manifest`, `manifestHash`, `seedSource`, `committedAt` and `hashes` of a phase; None after a stop.

    Raises TransientFailure when the beacon is away, UsageError for a clock that is behind it.
    """
    terms = Terms.parse(phase.fields["terms"])
    first = record.phases[1]
    late: bool | None = False
    previous = None
    if phase.phase > 1:
        before = record.phases[phase.phase - 1]
        source = first.fields["seedSource"]
        previous = {"manifestHash": before.manifest_hash, "resultHash": before.result_hash}
    elif runtime.settings.selection.seed_source == DRAND:
        number = seeding.choose(runtime, patience)
        if number is None:
            return None
        source = {"chain": QUICKNET_HASH, "kind": DRAND, "round": number}
    else:
        commitment, late = ensure_commitment(runtime, campaign)
        source = {"commitment": commitment, "kind": COMMIT_REVEAL}
    manifest = Manifest(
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
    )
    hashes = {**phase.hashes, LEAVES: first.hashes.get(LEAVES, ""), STRIKES: manifest.strikes_hash}
    return {"commitmentLate": late, **_committed(runtime, manifest, hashes)}


def _committed(runtime: Runtime, manifest: Manifest, hashes: Mapping[str, str]) -> Fields:
    data = manifest.to_bytes()
    return {
        "manifest": data.decode("ascii"),
        "manifestHash": sha256_hex(data),
        "seedSource": dict(manifest.seed_source),
        "committedAt": iso(runtime.clock()),
        "hashes": {**hashes, MANIFEST: sha256_hex(data)},
    }


def needs_another_round(phase: PhaseRecord, now: float) -> bool:
    """Whether the manifest has to be replaced by one with a later round: see above."""
    due = phase.round_due
    if due is None:
        return False
    published = seconds(phase.published_at or "")
    if published is None:
        return now > due - LEAD_SECONDS
    return published > due - LEAD_SECONDS and (now < due or published >= due)


def another_round(runtime: Runtime, phase: PhaseRecord, patience: seeding.Patience) -> Fields | None:
    """The manifest with a later round, and `replaced` with the one before; None after a stop. Raises as `decide`."""
    number = seeding.choose(runtime, patience, after=seconds(phase.published_at or "") or 0.0)
    if number is None:
        return None
    before = Manifest.parse(phase.manifest)
    manifest = replace(before, seed_source={**before.seed_source, "round": number})
    decided = _committed(runtime, manifest, phase.hashes)
    replaced = {
        "manifest": phase.manifest.decode("ascii"),
        "committedAt": phase.fields["committedAt"],
        "publishedAt": phase.published_at,
        "replacedAt": decided["committedAt"],
    }
    return {**decided, "replaced": [*phase.replaced, replaced]}


def confirmed_at(runtime: Runtime, campaign_id: str, phase: PhaseRecord) -> str | None:
    """When the store took this manifest, if it has it: by an attempt that died before its draw knew."""
    stands = runtime.objects.get_tagged(public_key(campaign_id, phase.phase, MANIFEST))
    if stands is None or stands.data != phase.manifest:
        return None
    # The store's clock counts whole seconds. It is not ours, which may be slow, or set back.
    return max(iso(stands.at), str(phase.fields["committedAt"]))


def publish_manifest(
    runtime: Runtime, campaign_id: str, phase: PhaseRecord, on_step: OnStep = no_step
) -> str:
    """Put the manifests that were replaced, the strikes and the manifest where everybody sees them; when the store
    confirmed the last, by its clock or ours, whichever is later: with a slow one nothing becomes public in time that
    did not. Raises InputDiffers where something else stands.
    """
    objects, strikes = runtime.objects, strikes_bytes(dict(Terms.parse(phase.fields["terms"]).strikes))
    for k, each in enumerate(phase.replaced, 1):
        kept = Replaced(each["committedAt"], each["manifest"], each["publishedAt"], each["replacedAt"])
        publish_once(objects, public_key(campaign_id, phase.phase, replaced_name(k)), kept.to_bytes())
    if phase.replaced:
        on_step("draw.after_replaced")
    publish_once(objects, public_key(campaign_id, phase.phase, STRIKES), strikes)
    earlier = [str(each["manifest"]).encode("ascii") for each in phase.replaced]
    _put_over(objects, public_key(campaign_id, phase.phase, MANIFEST), phase.manifest, earlier)
    at = iso(runtime.clock())
    return max(at, confirmed_at(runtime, campaign_id, phase) or at)


def notice(phase: PhaseRecord, published_at: str) -> bytes:
    """`notice.json`: what is drawn, and when that became public."""
    terms = Terms.parse(phase.fields["terms"])
    return Notice.of(
        Manifest.parse(phase.manifest),
        strikes=len(terms.strikes),
        committed_at=phase.fields["committedAt"],
        published_at=published_at,
        reason=terms.reason,
    ).to_bytes()


def announce_manifest(runtime: Runtime, campaign_id: str, phase: PhaseRecord) -> None:
    """Put `notice.json`, and tell Kafka's readers. Raises InputDiffers where something else stands."""
    # A manifest that has to make way does so before it has a notice, so none is ever written over.
    publish_once(runtime.objects, public_key(campaign_id, phase.phase, NOTICE), phase.notice)
    data = {
        "manifestHash": phase.manifest_hash,
        "seedSource": phase.fields["seedSource"],
        "publishedAt": phase.published_at,
    }
    at, replaced = phase.fields["committedAt"], len(phase.replaced)
    event = draw_event(campaign_id, phase.phase, EventType.DRAW_COMMITTED, data, at, replaced=replaced)
    runtime.event_queue.send_all([event])


def _put_over(objects: ObjectStore, key: str, data: bytes, earlier: list[bytes]) -> None:
    """Store `data` where nothing stands, or one of the `earlier` bytes. Raises InputDiffers where other bytes do."""
    stands: Tagged | None = objects.get_tagged(key)
    while stands is None or stands.data != data:
        if stands is not None and stands.data not in earlier:
            raise InputDiffers(key, sha256_hex(data), sha256_hex(stands.data))
        if objects.put_over(key, data, None if stands is None else stands.tag) is not None:
            return
        # Somebody wrote between the look and the write: what stands now decides.
        stands = objects.get_tagged(key)


def facts(phase: PhaseRecord) -> Fields:
    """For people: what was committed to, and when that was public."""
    due = phase.round_due
    return {
        "phase": phase.phase,
        "manifestHash": phase.manifest_hash,
        "seedSource": phase.fields["seedSource"],
        "committedAt": phase.fields["committedAt"],
        "publishedAt": phase.published_at,
        "dueAt": None if due is None else iso(due),
        "commitmentLate": phase.commitment_late,
        "replaced": len(phase.replaced),
    }
