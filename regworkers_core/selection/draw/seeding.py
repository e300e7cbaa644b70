"""Seed: the randomness that the manifest names, verified, and what is derived from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseRecord
from regworkers_core.domain.beacon import QUICKNET
from regworkers_core.domain.reasons import RequestError
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.secrets import reveal
from regworkers_core.selection.draw.artefacts import public_key, publish_once
from regworkers_core.selection.draw.rounds import Patience, signature_of
from regworkers_core.selection.maths.errors import DrawError
from regworkers_core.selection.maths.files import SEED, sha256_hex
from regworkers_core.selection.maths.manifest import DRAND, Manifest, SeedSource
from regworkers_core.selection.maths.seed import SeedFile, commitment_of
from regworkers_core.selection.proof.beacon import verify_beacon

Fields = dict[str, Any]


def signatures(
    runtime: Runtime, phase: PhaseRecord, patience: Patience, known: Callable[[], Mapping[str, str]]
) -> dict[str, str] | None:
    """The verified signatures by round that the phase needs; `known` looks up those that the draw has, which a person
    may bring while this waits. None when the beacon has not signed a round yet, after a stop or when that takes longer
    than patience lasts.

    Raises TransientFailure when the beacon is away.
    """
    found: dict[str, str] = {}
    for number in awaited(phase):
        brought = partial(_brought, known, number)
        signature = signature_of(runtime, phase.fields["seedSource"]["chain"], number, patience, brought)
        if signature is None:
            return None
        found[str(number)] = signature
    return found


def _brought(known: Callable[[], Mapping[str, str]], number: int) -> str | None:
    return known().get(str(number))


def obtain(runtime: Runtime, record: DrawRecord, phase: PhaseRecord, signatures: Mapping[str, str]) -> Fields:
    """`seedFile` and `hashes`, and the `signatures` that it took.

    Raises DrawError for a signature that is not the chain's, and when the revealed secret is not the one that was
    committed to.
    """
    if phase.phase > 1:
        return _made(phase, seed_bytes(record.phases[1]))
    source = SeedSource.parse(phase.fields["seedSource"])
    if source.kind != DRAND:
        randomness = reveal(runtime, record.campaign_id)
        if commitment_of(randomness) != source.commitment:
            raise DrawError(SEED, "the secret in the secret store is not the one that was committed to")
        return _made(phase, seed_of(phase.manifest, randomness, None))
    for number in awaited(phase):
        verify_beacon(source.source, number, signatures.get(str(number), ""))
    own = signatures[str(source.round)]
    made = seed_of(phase.manifest, sha256_hex(bytes.fromhex(own)), own)
    return {**_made(phase, made), "signatures": dict(signatures)}


def awaited(phase: PhaseRecord) -> list[int]:
    """The rounds that are needed: the manifest's own, and those of manifests that were replaced when they were due.
    None with an own secret, and in later phases, whose seed is that of the first.
    """
    if phase.phase > 1 or phase.fields["seedSource"]["kind"] != DRAND:
        return []
    rounds = [Manifest.parse(phase.manifest), *(manifest for _k, manifest in replaced_when_due(phase))]
    return [int(manifest.seed_source["round"]) for manifest in rounds]


def replaced_when_due(phase: PhaseRecord) -> list[tuple[int, Manifest]]:
    """The replaced manifests, by their number, whose round was signed when another one took their place."""
    found = []
    for k, each in enumerate(phase.replaced, 1):
        manifest = Manifest.parse(str(each["manifest"]).encode("ascii"))
        if iso(QUICKNET.due(manifest.seed_source["round"])) <= each["replacedAt"]:
            found.append((k, manifest))
    return found


def seed_of(manifest: bytes, randomness: str, signature: str | None) -> bytes:
    """`seed.json` of a manifest of phase 1."""
    source = SeedSource.parse(Manifest.parse(manifest).seed_source)
    made = SeedFile.of(sha256_hex(manifest), source.kind, source.source, source.round, randomness, signature)
    return made.to_bytes()


def by_hand(phase: PhaseRecord, signature: str) -> Fields:
    """`signatures` with one that a person brought, of a round that the draw waits for.

    Raises RequestError for one that is not the chain's for any of them. Takes about 0.7 s a round.
    """
    source = phase.fields["seedSource"]
    if phase.phase > 1 or source["kind"] != DRAND:
        raise RequestError(f"phase {phase.phase} waits for no round of the beacon")
    wanted, why = awaited(phase), ""
    for number in wanted:
        try:
            verify_beacon(source["chain"], number, signature)
        except DrawError as error:
            why = error.message
        else:
            return {"signatures": {**phase.signatures, str(number): signature}}
    named = ", ".join(f"{number} (due {iso(QUICKNET.due(number))})" for number in wanted)
    raise RequestError(f"--signature: {why}; needed is the one of round {named} of chain {source['chain']}")


def seed_bytes(phase: PhaseRecord) -> bytes:
    """`seed.json` as it was decided; empty before that."""
    return str(phase.fields.get("seedFile") or "").encode("ascii")


def publish(runtime: Runtime, campaign_id: str, phase: PhaseRecord) -> None:
    """Put `seed.json` where everybody sees it. Raises InputDiffers where something else stands."""
    publish_once(runtime.objects, public_key(campaign_id, phase.phase, SEED), seed_bytes(phase))


def facts(phase: PhaseRecord) -> Fields:
    """For people: the seed and where it came from."""
    seed = SeedFile.parse(seed_bytes(phase))
    return {"phase": phase.phase, "seedSource": phase.fields["seedSource"], **seed.as_fields()}


def _made(phase: PhaseRecord, data: bytes) -> Fields:
    return {"seedFile": data.decode("ascii"), "hashes": {**phase.hashes, SEED: sha256_hex(data)}}
