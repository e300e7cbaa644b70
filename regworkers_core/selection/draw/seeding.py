"""Seed: the randomness that the manifest names, verified, and what is derived from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from regworkers_core.adapters.drand import RoundNotYet
from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseRecord
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.secrets import reveal
from regworkers_core.selection.draw.artefacts import public_key
from regworkers_core.selection.maths.errors import DrawError
from regworkers_core.selection.maths.files import SEED
from regworkers_core.selection.maths.manifest import DRAND, SeedSource
from regworkers_core.selection.maths.seed import SeedFile, commitment_of
from regworkers_core.selection.proof.beacon import verify_beacon

# A late beacon is asked again this often: the same round, never another one.
_ASK_AGAIN_SECONDS = 5.0


def obtain(
    runtime: Runtime,
    record: DrawRecord,
    phase: PhaseRecord,
    stop: StopSignal,
    tell: Callable[[str], None],
    patience_seconds: float = math.inf,
) -> bytes | None:
    """The bytes of `seed.json`, or None when the beacon has not signed the round yet: after a stop, or when that
    takes longer than `patience_seconds`.

    Raises DrawError when the revealed secret is not the one that was committed to.
    """
    if phase.phase > 1:
        return seed_bytes(record.phases[1])
    source = SeedSource.parse(phase.fields["seedSource"])
    if source.kind == DRAND:
        signature = _beacon(runtime, source, stop, tell, patience_seconds)
        if signature is None:
            return None
        randomness = verify_beacon(source.source, source.round, signature)
    else:
        signature, randomness = None, reveal(runtime, record.campaign_id)
        if commitment_of(randomness) != source.commitment:
            raise DrawError(SEED, "the secret in the secret store is not the one that was committed to")
    made = SeedFile.of(phase.manifest_hash, source.kind, source.source, source.round, randomness, signature)
    return made.to_bytes()


def seed_bytes(phase: PhaseRecord) -> bytes:
    """`seed.json` as it was decided; empty before that."""
    return str(phase.fields.get("seedFile") or "").encode("ascii")


def _beacon(
    runtime: Runtime,
    source: SeedSource,
    stop: StopSignal,
    tell: Callable[[str], None],
    patience_seconds: float,
) -> str | None:
    def accept(signature: str) -> bool:
        try:
            verify_beacon(source.source, source.round, signature)
        except DrawError:
            return False
        return True

    waited = 0.0
    while not stop.is_set:
        try:
            return runtime.beacon.signature(source.round, accept=accept)
        except RoundNotYet as not_yet:
            tell(f"round {source.round} of the beacon is due in {not_yet.seconds:.0f} s")
            pause = min(max(not_yet.seconds, 0.5), _ASK_AGAIN_SECONDS)
            if waited + max(pause, not_yet.seconds) > patience_seconds:
                return None
            stop.wait(pause)
            waited += pause
    return None


def publish(runtime: Runtime, campaign_id: str, phase: PhaseRecord) -> None:
    """Put `seed.json` where everybody sees it."""
    runtime.objects.put_bytes(public_key(campaign_id, phase.phase, SEED), seed_bytes(phase))


def facts(phase: PhaseRecord) -> dict[str, Any]:
    """For people: the seed and where it came from."""
    seed = SeedFile.parse(seed_bytes(phase))
    return {"phase": phase.phase, "seedSource": phase.fields["seedSource"], **seed.as_fields()}
