"""What a phase is computed from: manifest.json, which commits to everything else, strikes.txt and seed.json."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, Self

from fairdraw.documents import as_document
from fairdraw.errors import DrawError
from fairdraw.maths.files import (
    MANIFEST,
    SEED,
    STRIKES,
    Fields,
    JsonFile,
    is_hash,
    json_keys,
    sha256_hex,
    short,
)
from fairdraw.terms import is_market_id, is_selection_id

ALGORITHM = "vf1"
COMMIT_REVEAL = "commit-reveal"
DRAND = "drand"
# The allocation numbers markets in 16 bits.
MOST_MARKETS = 2**15 - 1
STRIKE_REASON = re.compile(r"[A-Z_]+")
_SIGNATURE = re.compile(r"(?:[0-9a-f]{2})+")


@dataclass(frozen=True, slots=True)
class ReserveTerms:
    """`seats` of a market that go to members of `segment` first."""

    segment: str
    seats: int


@dataclass(frozen=True, slots=True)
class MarketTerms:
    """The seats of one market. `capacity` is the total of all phases; reserves are in order of precedence, among the
    seats offered.
    """

    market_id: str
    capacity: int
    reserves: tuple[ReserveTerms, ...] = ()


@dataclass(frozen=True, slots=True)
class ManifestSeedSource:
    """The source of the randomness."""

    # `drand` or `commit-reveal`.
    kind: str
    # The hash of the chain, or the kind. It enters the seed.
    source: str
    # It enters the seed; 0 with commit-reveal.
    round: int
    # SHA-256 of the secret; None with drand.
    commitment: str | None

    @staticmethod
    def parse(document: object) -> ManifestSeedSource:
        """Read `{"commitment", "kind": "commit-reveal"}` or `{"chain", "kind": "drand", "round"}`. Raises DrawError."""
        kind = document.get("kind") if isinstance(document, Mapping) else None
        if kind == DRAND:
            fields = Fields(MANIFEST, "seedSource", document, ("chain", "kind", "round"))
            return ManifestSeedSource(DRAND, fields.hash("chain"), fields.integer("round", 1), None)
        if kind == COMMIT_REVEAL:
            fields = Fields(MANIFEST, "seedSource", document, ("commitment", "kind"))
            return ManifestSeedSource(COMMIT_REVEAL, COMMIT_REVEAL, 0, fields.hash("commitment"))
        raise DrawError(
            MANIFEST, f"seedSource.kind: {COMMIT_REVEAL} or {DRAND} is needed, found {short(kind)}"
        )


@dataclass(frozen=True, slots=True)
class Manifest(JsonFile):
    """manifest.json: one phase's commitment, published before the seed exists; its exact bytes are hashed."""

    FILE: ClassVar[str] = MANIFEST

    # When the entries were frozen.
    as_of: str
    campaign_id: str
    # The number of leaves.
    count: int
    draw_id: str
    # They are sorted by id.
    markets: tuple[MarketTerms, ...]
    phase: int
    # `{"manifestHash", "resultHash"}` of the phase before; None in phase 1.
    previous: Mapping[str, str] | None
    # The root over leaves.txt, in hex.
    root: str
    # It is as in the JSON: `ManifestSeedSource.parse` reads it.
    seed_source: Mapping[str, Any]
    strikes_hash: str
    # None: all that are left.
    waitlist_size: int | None
    wins_per_unit: int

    @property
    def hash(self) -> str:
        """The `manifestHash`."""
        return sha256_hex(self.to_bytes())

    def as_document(self) -> dict[str, Any]:
        return {"algorithm": ALGORITHM} | as_document(self)

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        return json_keys(cls, "algorithm")

    @classmethod
    def read(cls, fields: Fields) -> Self:
        fields.text("algorithm", lambda text: text == ALGORITHM, f'"{ALGORITHM}"')
        campaign_id = fields.id("campaignId")
        phase = fields.integer("phase", 1)
        source = fields.raw("seedSource")
        ManifestSeedSource.parse(source)
        return cls(
            as_of=fields.time("asOf"),
            campaign_id=campaign_id,
            count=fields.integer("count"),
            draw_id=fields.text("drawId", campaign_id.__eq__, f"the campaign's id ({campaign_id})"),
            markets=_markets(fields),
            phase=phase,
            previous=_previous(fields, phase),
            root=fields.hash("root"),
            seed_source=dict(source),
            strikes_hash=fields.hash("strikesHash"),
            waitlist_size=None if fields.raw("waitlistSize") is None else fields.integer("waitlistSize"),
            wins_per_unit=fields.integer("winsPerUnit", 1),
        )


def _markets(fields: Fields) -> tuple[MarketTerms, ...]:
    markets = tuple(_market(each) for each in fields.objects("markets", json_keys(MarketTerms)))
    if len(markets) > MOST_MARKETS:
        fields.refuse("markets", f"{len(markets)}, at most {MOST_MARKETS} can be drawn together")
    for before, after in pairwise(market.market_id for market in markets):
        if before >= after:
            fields.refuse("markets", f"ids must increase strictly: {after} follows {before}")
    return markets


def _market(fields: Fields) -> MarketTerms:
    market_id, capacity = fields.text("marketId", is_market_id, "an id, not -"), fields.integer("capacity")
    reserves: dict[str, ReserveTerms] = {}
    for each in fields.objects("reserves", json_keys(ReserveTerms)):
        segment = each.id("segment")
        if segment in reserves:
            fields.refuse("reserves", f"duplicate segment {segment} in market {market_id}")
        reserves[segment] = ReserveTerms(segment, each.integer("seats"))
    seats = sum(reserve.seats for reserve in reserves.values())
    if seats > capacity:
        fields.refuse(
            "reserves", f"{seats} reserved seats in market {market_id}, whose capacity is {capacity}"
        )
    return MarketTerms(market_id, capacity, tuple(reserves.values()))


def _previous(fields: Fields, phase: int) -> dict[str, str] | None:
    document = fields.raw("previous")
    if (document is None) != (phase == 1):
        fields.refuse("previous", f"null in phase 1 and only there, found {short(document)} in phase {phase}")
    if document is None:
        return None
    hashes = fields.nested("previous", ("manifestHash", "resultHash"))
    return {key: hashes.hash(key) for key in ("manifestHash", "resultHash")}


def strikes_bytes(strikes: Mapping[str, str]) -> bytes:
    """Return strikes.txt: a line `ref|REASON` per strike, by ref, cumulative over the phases.

    Raises DrawError when `parse_strikes` would reject it.
    """
    data = "".join(f"{ref}|{reason}\n" for ref, reason in sorted(strikes.items())).encode()
    parse_strikes(data)
    return data


def parse_strikes(data: bytes) -> dict[str, str]:
    """Read strikes.txt as ref -> reason. Raises DrawError with the line."""
    if not data:
        return {}
    if not data.isascii() or not data.endswith(b"\n"):
        raise DrawError(STRIKES, "ASCII with a line feed after every line is needed")
    strikes: dict[str, str] = {}
    before = ""
    for number, line in enumerate(data.decode("ascii")[:-1].split("\n"), 1):
        ref, _, reason = line.partition("|")
        if not is_selection_id(ref) or not STRIKE_REASON.fullmatch(reason):
            raise DrawError(STRIKES, f"line {number}: ref|REASON is needed, found {short(line)}")
        if ref <= before:
            raise DrawError(STRIKES, f"line {number}: refs must increase strictly, {ref} follows {before}")
        strikes[ref] = reason
        before = ref
    return strikes


def check_cumulative(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise DrawError if a strike of the phase before is missing now or has another reason."""
    for ref, reason in before.items():
        if now.get(ref) != reason:
            found = now.get(ref, "no strike")
            raise DrawError(STRIKES, f"{ref} was struck ({reason}) in the phase before: found {found}")


def derive_seed(manifest_hash: str, source: str, round: int, randomness: str) -> str:
    """Return `SHA256("vfseed1|" + manifestHash of phase 1 + "|" + source + "|" + round + "|" + randomness)` in hex.

    `source` is `commit-reveal` with round 0, or drand's chain hash. Raises DrawError unless `randomness` is exactly 64
    lower-case hex digits.
    """
    if not is_hash(randomness):
        raise DrawError(SEED, f"randomness: 64 lower-case hex digits are needed, found {randomness!r}")
    return sha256_hex(f"vfseed1|{manifest_hash}|{source}|{round}|{randomness}".encode())


def changed_terms(first: Manifest, later: Manifest) -> Iterator[DrawError]:
    """Errors of a later manifest that changes more than phase, previous, strikes, waitlist, capacities and reserves."""
    markets = [market.market_id for market in first.markets]
    if [market.market_id for market in later.markets] != markets:
        yield DrawError(MANIFEST, f"markets: phase 1 has {', '.join(markets)}, found others")
    same = replace(
        later,
        phase=first.phase,
        previous=first.previous,
        strikes_hash=first.strikes_hash,
        waitlist_size=first.waitlist_size,
        markets=first.markets,
    )
    before, now = first.as_document(), same.as_document()
    for key, value in before.items():
        if now[key] != value:
            yield DrawError(MANIFEST, f"{key}: phase 1 has {value!r}, found {now[key]!r}")


def commitment_of(randomness: str) -> str:
    """Return the commitment to a secret: SHA-256 of its 32 bytes (not of their hex digits)."""
    if not is_hash(randomness):
        raise DrawError(SEED, "randomness: 64 lower-case hex digits are needed")
    return hashlib.sha256(bytes.fromhex(randomness)).hexdigest()


@dataclass(frozen=True, slots=True)
class SeedFile(JsonFile):
    """seed.json."""

    FILE: ClassVar[str] = SEED

    # That of the manifest's seed source.
    kind: str
    # 64 hex digits: the hash of drand's signature, or the secret.
    randomness: str
    # 0 with commit-reveal.
    round: int
    seed: str
    # Drand's, in hex; None with commit-reveal.
    signature: str | None

    @staticmethod
    def of(
        manifest_hash: str, kind: str, source: str, round: int, randomness: str, signature: str | None
    ) -> SeedFile:
        """Derive the seed from the manifest hash of phase 1. Raises DrawError for malformed randomness."""
        seed = derive_seed(manifest_hash, source, round, randomness)
        return SeedFile(kind, randomness, round, seed, signature)

    @classmethod
    def read(cls, fields: Fields) -> Self:
        kind = fields.text("kind", (COMMIT_REVEAL, DRAND).__contains__, f"{COMMIT_REVEAL} or {DRAND}")
        signature = None
        if kind == DRAND:
            signature = fields.text("signature", _SIGNATURE.fullmatch, "lower-case hex")
        elif fields.raw("signature") is not None or fields.integer("round") != 0:
            fields.refuse("", f"{COMMIT_REVEAL} has round 0 and no signature")
        return cls(
            kind=kind,
            randomness=fields.hash("randomness"),
            round=fields.integer("round"),
            seed=fields.hash("seed"),
            signature=signature,
        )

    def check(self, manifest_hash: str, seed_source: object) -> None:
        """Raise DrawError unless this follows from the `seedSource` and the manifest hash of phase 1.

        It does not verify drand's BLS signature, only that the randomness is its SHA-256.
        """
        source = ManifestSeedSource.parse(seed_source)
        if (self.kind, self.round) != (source.kind, source.round):
            raise DrawError(
                SEED,
                f"{source.kind} with round {source.round} was committed to, found {self.kind} with {self.round}",
            )
        if source.commitment is not None:
            if commitment_of(self.randomness) != source.commitment:
                raise DrawError(SEED, "randomness: its SHA-256 is not the commitment of the manifest")
        elif self.signature is None or sha256_hex(bytes.fromhex(self.signature)) != self.randomness:
            raise DrawError(SEED, "randomness: not the SHA-256 of the signature")
        if derive_seed(manifest_hash, source.source, source.round, self.randomness) != self.seed:
            raise DrawError(SEED, "seed: does not follow from the manifest of phase 1 and the randomness")
