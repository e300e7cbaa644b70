"""Seed: the beacon round that a draw commits to, its signature once it is due, and the seed derived from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from fairdraw.errors import DrawError
from fairdraw.maths.files import SEED, sha256_hex
from fairdraw.maths.manifest import (
    Manifest,
    SeedFile,
)
from fairdraw.proof.beacon import verify_beacon
from fairdraw.terms import Chain
from regworkers_core.adapters.drand import RoundNotYet
from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseRecord
from regworkers_core.domain.reasons import RequestError, TransientFailure, UsageError
from regworkers_core.domain.selection import MOST_BEHIND_SECONDS, public_key
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw.held import publish_once

# The countdown makes no call; a beacon that is late, or unavailable, is asked again at these intervals.
_COUNT_SECONDS, _LATE_SECONDS, _UNAVAILABLE_SECONDS = 1.0, 5.0, 15.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a run waits for the beacon: `seconds` in all, or until the stop signal. `tell` reports progress."""

    stop: StopSignal
    tell: Callable[[str], None]
    seconds: float

    def ask(self, call: Callable[[], T], hint: str = "") -> T | None:
        """Return the result of `call`; None after a stop, or when its round is due after the patience ends. `hint` is
        the way out to show while the beacon is unavailable. Raises TransientFailure when that lasts longer than the
        patience.
        """
        waited = 0.0
        while not self.stop.is_set:
            try:
                return call()
            except RoundNotYet as not_yet:
                left = not_yet.seconds
                self.tell(f"round {not_yet.round_number} of the beacon is due in {countdown(left)}")
                pause = min(max(left, 0.5), _COUNT_SECONDS if left > _LATE_SECONDS else _LATE_SECONDS)
                if waited + max(pause, left) > self.seconds:
                    return None
            except TransientFailure as failure:
                pause = _UNAVAILABLE_SECONDS
                if waited + pause > self.seconds:
                    raise
                self.tell(f"the beacon does not answer, next attempt in {pause:.0f} s{hint} ({failure})")
            self.stop.wait(pause)
            waited += pause
        return None


def countdown(seconds: float) -> str:
    """`9 min 43 s`."""
    minutes, rest = divmod(max(round(seconds), 0), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def choose(runtime: Runtime, patience: Patience, phase: PhaseRecord, *, after: float) -> int | None:
    """Return a round at least `selection.beacon.leadSeconds` after a commit that is made now, and after the moment
    `after` (epoch seconds, by another clock); None after a stop. It asks for the beacon's latest round first, so
    that a wrong clock cannot commit to a round that is already signed. `phase` is phase 1: before its first manifest
    the chain is that of the settings.

    Raises UsageError for a clock that is behind the beacon, TransientFailure when the beacon is unavailable.
    """
    beacon = runtime.settings.selection.beacon
    chain = phase.chain if phase.manifest_hash else beacon.chain
    latest = patience.ask(lambda: runtime.beacon.latest(chain, accept=partial(verified, chain)))
    if latest is None:
        return None
    now = runtime.clock()
    if (behind := chain.due(latest) - now) > MOST_BEHIND_SECONDS:
        raise UsageError(
            f"this machine's clock is {countdown(behind)} behind the beacon, which has signed round {latest}: correct"
            " the clock; nothing is committed yet"
        )
    # Never below the lead of the draw, which settings may not have any more.
    lead = max(beacon.lead_seconds, phase.lead) if phase.manifest_hash else beacon.lead_seconds
    return chain.round_after(max(now, chain.due(latest), after) + beacon.write_seconds, lead)


def verified(chain: Chain, number: int, signature: str) -> bool:
    """Whether this is the chain's signature of the round."""
    try:
        verify_beacon(chain, number, signature)
    except DrawError:
        return False
    return True


Fields = dict[str, Any]


def signatures(
    runtime: Runtime, phase: PhaseRecord, patience: Patience, known: Callable[[], Mapping[str, str]]
) -> dict[str, str] | None:
    """Return the verified signatures that the phase needs, by round; None as `Patience.ask`. `known` reads those that
    the draw has: an operator may supply one while this waits. Raises TransientFailure when the beacon is unavailable.
    """
    found: dict[str, str] = {}
    for number in awaited(phase):
        signature = patience.ask(
            partial(_signature_of, runtime, phase.chain, number, known),
            hint="; `regworkers draw seed` takes its signature as an argument",
        )
        if signature is None:
            return None
        found[str(number)] = signature
    return found


def _signature_of(
    runtime: Runtime, chain: Chain, number: int, known: Callable[[], Mapping[str, str]]
) -> str | None:
    accept = partial(verified, chain, number)
    return known().get(str(number)) or runtime.beacon.signature(chain, number, accept=accept)


def obtain(runtime: Runtime, record: DrawRecord, phase: PhaseRecord, signatures: Mapping[str, str]) -> Fields:
    """Return the fields `seedFile`, `hashes` and, in phase 1, `signatures`. Raises DrawError for an invalid one."""
    if phase.phase > 1:
        return _made(phase, seed_bytes(record.phases[1]))
    for number in awaited(phase):
        verify_beacon(phase.chain, number, signatures.get(str(number), ""))
    own = signatures[str(phase.fields["seedSource"]["round"])]
    return {**_made(phase, seed_of(phase.manifest, own)), "signatures": dict(signatures)}


def awaited(phase: PhaseRecord) -> list[int]:
    """Return the rounds that the phase needs: the manifest's own, and those of manifests that were replaced after their
    round was due. Empty in later phases, which use the seed of the first.
    """
    if phase.phase > 1:
        return []
    rounds = [Manifest.parse(phase.manifest), *(manifest for _k, manifest in replaced_when_due(phase))]
    return [manifest.seed_source.round for manifest in rounds]


def replaced_when_due(phase: PhaseRecord) -> Iterator[tuple[int, Manifest]]:
    """Return (number, manifest) of each manifest that was replaced after its round was signed."""
    for k, each in enumerate(phase.replaced, 1):
        manifest = Manifest.parse(str(each["manifest"]).encode("ascii"))
        if iso(phase.chain.due(manifest.seed_source.round)) <= each["replacedAt"]:
            yield k, manifest


def seed_of(manifest: bytes, signature: str) -> bytes:
    """Return the bytes of `seed.json` for a manifest of phase 1."""
    return SeedFile.of(sha256_hex(manifest), Manifest.parse(manifest).seed_source, signature).to_bytes()


def by_hand(phase: PhaseRecord, signature: str) -> Fields:
    """Return the field `signatures` with one that an operator supplied. Raises RequestError unless it is valid for
    a round that the draw waits for.
    """
    chain = phase.chain
    if phase.phase > 1:
        raise RequestError(f"phase {phase.phase} waits for no round of the beacon")
    wanted, why = awaited(phase), ""
    for number in wanted:
        try:
            verify_beacon(chain, number, signature)
        except DrawError as error:
            why = error.message
        else:
            return {"signatures": {**phase.signatures, str(number): signature}}
    named = ", ".join(f"{number} (due {iso(chain.due(number))})" for number in wanted)
    raise RequestError(f"--signature: {why}; it must be that of round {named} of chain {chain.hash}")


def seed_bytes(phase: PhaseRecord) -> bytes:
    """Return the decided bytes of `seed.json`; empty before the decision."""
    return str(phase.fields.get("seedFile") or "").encode("ascii")


def publish(runtime: Runtime, campaign_id: str, phase: PhaseRecord) -> None:
    """Publish `seed.json`. Raises InputDiffers if the key has other bytes."""
    publish_once(runtime.objects, public_key(campaign_id, phase.phase, SEED), seed_bytes(phase))


def facts(phase: PhaseRecord) -> Fields:
    """Return the seed and its source, for people."""
    seed = SeedFile.parse(seed_bytes(phase))
    return {"phase": phase.phase, "seedSource": phase.fields["seedSource"], **seed.as_document()}


def _made(phase: PhaseRecord, data: bytes) -> Fields:
    return {"seedFile": data.decode("ascii"), "hashes": {**phase.hashes, SEED: sha256_hex(data)}}
