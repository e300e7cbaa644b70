"""The beacon's rounds: which one a draw commits to, and its signature, however long the beacon is away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from regworkers_core.adapters.drand import RoundNotYet
from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseRecord
from regworkers_core.domain.beacon import QUICKNET, QUICKNET_HASH, round_after
from regworkers_core.domain.reasons import RequestError, TransientFailure, UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.secrets import reveal
from regworkers_core.selection.draw.artefacts import public_key, publish_once
from regworkers_core.selection.maths.files import SEED, DrawError, sha256_hex
from regworkers_core.selection.maths.manifest import DRAND, Manifest, SeedFile, SeedSource, commitment_of
from regworkers_core.selection.proof.beacon import verify_beacon

# From choosing the round to the store's confirmation of the manifest: a pause of this length is allowed for, on top of
# what has to lie between the two. Time-outs and retries of these writes stay well below it.
WRITE_SECONDS = 60
# A clock that is further behind the beacon would make every time of this draw wrong. A signature is on its way for a
# second or two, and clocks that are kept by NTP differ by less.
_MOST_BEHIND_SECONDS = 15
# A countdown by the second, which makes no call; a beacon that is late, or away, is asked again this often.
_COUNT_SECONDS, _LATE_SECONDS, _AWAY_SECONDS = 1.0, 5.0, 15.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a run waits for the beacon: `seconds` in all, or until the stop signal. `tell` hears what for."""

    stop: StopSignal
    tell: Callable[[str], None]
    seconds: float

    def ask(self, call: Callable[[], T], hint: str = "") -> T | None:
        """What `call` returns; None after a stop, or when its round comes later than patience lasts. `hint` says what
        helps while the beacon is away.

        Raises TransientFailure when the beacon is away for all that time.
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
                pause = _AWAY_SECONDS
                if waited + pause > self.seconds:
                    raise
                self.tell(f"the beacon does not answer and is asked again in {pause:.0f} s{hint} ({failure})")
            self.stop.wait(pause)
            waited += pause
        return None


def countdown(seconds: float) -> str:
    """`9 min 43 s`."""
    minutes, rest = divmod(max(round(seconds), 0), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def choose(runtime: Runtime, patience: Patience, *, after: float = 0.0) -> int | None:
    """A round that comes `selection.seedDelaySeconds` or more after a commit that is made now, and after the moment
    `after` (epoch seconds, by the store's clock). The beacon's latest one is asked for first, so that a clock that is
    wrong commits to none that is out. None after a stop.

    Raises UsageError for a clock that is behind the beacon, TransientFailure when it is away.
    """

    def is_signed(number: int, signature: str) -> bool:
        return _verified(QUICKNET_HASH, number, signature)

    latest = patience.ask(lambda: runtime.beacon.latest(accept=is_signed))
    if latest is None:
        return None
    now = runtime.clock()
    if (behind := QUICKNET.due(latest) - now) > _MOST_BEHIND_SECONDS:
        raise UsageError(
            f"this machine's clock is {countdown(behind)} behind the beacon, which has signed round {latest}: set the"
            " clock right; nothing is committed to yet"
        )
    return round_after(
        max(now, QUICKNET.due(latest), after) + WRITE_SECONDS, runtime.settings.selection.seed_delay_seconds
    )


def signature_of(
    runtime: Runtime, chain: str, number: int, patience: Patience, known: Callable[[], str | None]
) -> str | None:
    """The verified signature of a round, or the one that is `known` by now; None as `Patience.ask`. Raises
    TransientFailure when the beacon is away.
    """

    def accept(signature: str) -> bool:
        return _verified(chain, number, signature)

    return patience.ask(
        lambda: known() or runtime.beacon.signature(number, accept=accept),
        hint="; `regworkers draw seed` takes its signature by hand",
    )


def _verified(chain: str, number: int, signature: str) -> bool:
    try:
        verify_beacon(chain, number, signature)
    except DrawError:
        return False
    return True


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
    return {"phase": phase.phase, "seedSource": phase.fields["seedSource"], **seed.as_document()}


def _made(phase: PhaseRecord, data: bytes) -> Fields:
    return {"seedFile": data.decode("ascii"), "hashes": {**phase.hashes, SEED: sha256_hex(data)}}
