"""Commit: the `draws` document decides the manifest's bytes, which are published before the seed exists.

A manifest of phase 1 that became public less than the lead (ten minutes) before its round could have been chosen to fit
it. Until the round is signed, it is replaced by a manifest that differs only in its round. After that, it is replaced
only if it was not public before the round was signed; then it has a result, too, and the number of outcomes that differ
is published. Each replaced manifest stays public as `replaced-<k>.json`.

The public log has the manifest before the bucket has it. A log that cannot be written stops the commit before its round
is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fairdraw.log.leaves import Kind
from fairdraw.maths.beside import NOTICE, NoticeFile, ReplacedManifest, replaced_name
from fairdraw.maths.files import LEAVES, MANIFEST, STRIKES, sha256_hex
from fairdraw.maths.manifest import Manifest, ManifestSeedSource, Registrations, strikes_bytes
from fairdraw.maths.merkle import root_over
from fairdraw.maths.opened import mismatches
from fairdraw.terms import CHAIN_FILE
from regworkers_core.adapters.aws.objects import ObjectStore, Tagged
from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseRecord
from regworkers_core.domain.events import EventType, ProducerRole, draw_event
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.selection import draw_key, public_key
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.opening import recorded
from regworkers_core.selection.campaigns.registry import published_terms
from regworkers_core.selection.draw import seeding
from regworkers_core.selection.draw.held import InputDiffers, publish_once
from regworkers_core.selection.draw.terms import PhaseTerms
from regworkers_core.selection.public.public_log import PublicLog, log_leaves

Fields = dict[str, Any]


def decide(
    runtime: Runtime,
    record: DrawRecord,
    phase: PhaseRecord,
    patience: seeding.Patience,
    registrations: Registrations | None = None,
) -> Fields | None:
    """Return the fields `manifest`, `manifestHash`, `seedSource`, `committedAt` and `hashes` of a phase; None after a
    stop. Phase 1 answers for these `registrations`, later ones for those of phase 1. Raises TransientFailure when the
    beacon is unavailable, or when the public log cannot be written or has too few witnesses; UsageError for a clock
    that is behind the beacon, and for a campaign that was logged otherwise.
    """
    terms = PhaseTerms.parse(phase.fields["terms"])
    first = record.phases[1]
    PublicLog.of(runtime).catch_up()
    beacon: Fields = {}
    previous = None
    if phase.phase > 1:
        before = record.phases[phase.phase - 1]
        committed = Manifest.parse(first.manifest)
        source, registrations = committed.seed_source, committed.registrations
        previous = {"manifestHash": before.manifest_hash, "resultHash": before.result_hash}
    else:
        # The host that judged may have had a clock that is ahead: the gate counts the lead from its `asOf`.
        number = seeding.choose(runtime, patience, first, after=seconds(first.as_of) or 0.0)
        if number is None:
            return None
        chosen = runtime.settings.selection.beacon
        source = ManifestSeedSource(chosen.chain.hash, number)
        if chosen.other_chain:
            beacon = {"beacon": {"chain": chosen.other_chain, "lead": chosen.lead_seconds}}
    strikes = strikes_bytes(dict(terms.strikes))
    manifest = Manifest(
        as_of=first.as_of,
        campaign_id=record.campaign_id,
        count=first.freeze["count"],
        draw_id=record.draw_id,
        markets=tuple(map(published_terms, terms.markets)),
        phase=phase.phase,
        previous=previous,
        root=first.freeze["root"],
        seed_source=source,
        registrations=registrations,
        strikes_hash=sha256_hex(strikes),
        strikes_root=root_over(strikes),
        waitlist_size=terms.waitlist_size,
        wins_per_unit=terms.wins_per_unit,
    )
    if phase.phase == 1:
        _require_as_recorded(runtime, manifest)
    hashes = {**phase.hashes, LEAVES: first.hashes.get(LEAVES, ""), STRIKES: manifest.strikes_hash}
    return {**beacon, **_committed(runtime, manifest, hashes)}


def _require_as_recorded(runtime: Runtime, manifest: Manifest) -> None:
    """Raise UsageError for a manifest with which no receipt would hold, because the campaign was logged otherwise."""
    for record in recorded(runtime.objects, manifest.campaign_id)[-1:]:
        for wrong in mismatches(record, manifest):
            raise UsageError(
                f"the draw of {manifest.campaign_id} would not verify, so it is not committed: {wrong.message}. Restore"
                " the campaign or the settings (selection.beacon), then launch a new draw run"
            )


def _committed(runtime: Runtime, manifest: Manifest, hashes: Mapping[str, str]) -> Fields:
    data = manifest.to_bytes()
    return {
        "manifest": data.decode("ascii"),
        "manifestHash": sha256_hex(data),
        "seedSource": manifest.seed_source.as_document(),
        "committedAt": iso(runtime.clock()),
        "hashes": {**hashes, MANIFEST: sha256_hex(data)},
    }


def needs_another_round(phase: PhaseRecord, now: float) -> bool:
    """Whether the manifest must be replaced by one with a later round, see above."""
    due = phase.round_due
    if due is None:
        return False
    published = seconds(phase.published_at or "")
    if published is None:
        return now > due - phase.lead
    return published > due - phase.lead and (now < due or published >= due)


def another_round(runtime: Runtime, phase: PhaseRecord, patience: seeding.Patience) -> Fields | None:
    """Return the fields of the manifest with a later round, and of the one that it replaces. Otherwise as `decide`."""
    PublicLog.of(runtime).catch_up()
    number = seeding.choose(runtime, patience, phase, after=seconds(phase.published_at or "") or 0.0)
    if number is None:
        return None
    before = Manifest.parse(phase.manifest)
    manifest = replace(before, seed_source=replace(before.seed_source, round=number))
    decided = _committed(runtime, manifest, phase.hashes)
    replaced = {
        "manifest": phase.manifest.decode("ascii"),
        "committedAt": phase.fields["committedAt"],
        "publishedAt": phase.published_at,
        "replacedAt": decided["committedAt"],
    }
    return {**decided, "replaced": [*phase.replaced, replaced]}


def confirmed_at(runtime: Runtime, campaign_id: str, phase: PhaseRecord) -> str | None:
    """Return when the store took this manifest, for an attempt that died before recording it; None if it has not."""
    stored = runtime.objects.get_tagged(public_key(campaign_id, phase.phase, MANIFEST))
    if stored is None or stored.data != phase.manifest:
        return None
    # The store's clock has whole seconds; ours may be slow, or set back.
    return max(iso(stored.at), str(phase.fields["committedAt"]))


def log_manifest(runtime: Runtime, campaign_id: str, phase: PhaseRecord) -> str:
    """Put the replaced manifests and the manifest into the public log, before they are published. Returns the time of
    the last leaf. Raises NotWitnessed while too few witnesses vouch for it.
    """
    replaced = [(Kind.REPLACED, sha256_hex(data)) for data in _replaced_files(phase)]
    placed = PublicLog.of(runtime).append_all(
        campaign_id, phase.phase, [*replaced, (Kind.MANIFEST, phase.manifest_hash)]
    )
    return placed[-1].require().time


def _replaced_files(phase: PhaseRecord) -> list[bytes]:
    """The bytes of each `replaced-<k>.json`."""
    return [
        ReplacedManifest(
            each["committedAt"], each["manifest"], each["publishedAt"], each["replacedAt"]
        ).to_bytes()
        for each in phase.replaced
    ]


def publish_manifest(
    runtime: Runtime, campaign_id: str, phase: PhaseRecord, on_step: OnStep = no_step
) -> str:
    """Publish the replaced manifests, the strikes and the manifest. Returns when the store confirmed the last, by the
    later of its clock and ours, so that a slow clock cannot make a late publication look timely. Raises InputDiffers
    if a key has other bytes.
    """
    objects, strikes = runtime.objects, strikes_bytes(dict(phase.strikes))
    for k, kept in enumerate(_replaced_files(phase), 1):
        publish_once(objects, public_key(campaign_id, phase.phase, replaced_name(k)), kept)
    if phase.replaced:
        on_step("draw.after_replaced")
    publish_once(objects, public_key(campaign_id, phase.phase, STRIKES), strikes)
    if phase.beacon:
        publish_once(objects, draw_key(campaign_id, CHAIN_FILE), str(phase.beacon["chain"]).encode())
    earlier = [str(each["manifest"]).encode("ascii") for each in phase.replaced]
    _put_over(objects, public_key(campaign_id, phase.phase, MANIFEST), phase.manifest, earlier)
    at = iso(runtime.clock())
    return max(at, confirmed_at(runtime, campaign_id, phase) or at)


def notice(phase: PhaseRecord, published_at: str) -> bytes:
    """Return the bytes of `notice.json`: what is drawn, and when that became public."""
    terms = PhaseTerms.parse(phase.fields["terms"])
    return NoticeFile.of(
        Manifest.parse(phase.manifest),
        strikes=len(terms.strikes),
        committed_at=phase.fields["committedAt"],
        published_at=published_at,
        reason=terms.reason,
    ).to_bytes()


def announce_manifest(runtime: Runtime, campaign_id: str, phase: PhaseRecord) -> None:
    """Publish `notice.json` and the event. Raises InputDiffers if the key has other bytes."""
    # A manifest is replaced only before it has a notice, so no notice is ever overwritten.
    publish_once(runtime.objects, public_key(campaign_id, phase.phase, NOTICE), phase.notice)
    noticed = sha256_hex(phase.notice)
    log_leaves(runtime, campaign_id, phase.phase, Kind.NOTICE, noticed)
    data = {
        "manifestHash": phase.manifest_hash,
        "seedSource": phase.fields["seedSource"],
        "publishedAt": phase.published_at,
    }
    at, replaced = phase.fields["committedAt"], len(phase.replaced)
    event = draw_event(campaign_id, phase.phase, EventType.DRAW_COMMITTED, data, at, replaced=replaced)
    runtime.event_queue(ProducerRole.SELECTION).send_all([event])


def _put_over(objects: ObjectStore, key: str, data: bytes, earlier: list[bytes]) -> None:
    """Store `data` under a new key, or over one of the `earlier` bytes. Raises InputDiffers over any others."""
    stored: Tagged | None = objects.get_tagged(key)
    while stored is None or stored.data != data:
        if stored is not None and stored.data not in earlier:
            raise InputDiffers(key, sha256_hex(data), sha256_hex(stored.data))
        if objects.put_over(key, data, None if stored is None else stored.tag) is not None:
            return
        # Another writer came between the read and the write: check again.
        stored = objects.get_tagged(key)


def facts(phase: PhaseRecord) -> Fields:
    """Return what was committed to and when it was public, for people."""
    due = phase.round_due
    return {
        "phase": phase.phase,
        "manifestHash": phase.manifest_hash,
        "seedSource": phase.fields["seedSource"],
        "committedAt": phase.fields["committedAt"],
        "publishedAt": phase.published_at,
        "round": phase.awaited_round,
        "dueAt": None if due is None else iso(due),
        "replaced": len(phase.replaced),
    }


def in_words(phase: int | str, facts: Mapping[str, Any]) -> str:
    """The commitment of a phase as a line. It is not in a table, so that the hash can be copied."""
    parts = [f"phase {phase}: manifestHash {facts['manifestHash']}"]
    parts.append(f"public since {facts['publishedAt']}" if facts["publishedAt"] else "not public yet")
    if facts.get("publishedLate"):
        parts.append("too short before its round")
    if facts["replaced"]:
        parts.append(f"{facts['replaced']} manifests were replaced")
    if facts["dueAt"]:
        parts.append(f"round {facts['round']} of the beacon is due at {facts['dueAt']}")
    return ", ".join(parts)
