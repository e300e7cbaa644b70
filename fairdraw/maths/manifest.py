"""What a phase is computed from: manifest.json, which commits to everything else, strikes.txt and seed.json."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    parse_canonical,
    sha256_hex,
    short,
)
from fairdraw.terms import ALGORITHM, Outcome, is_market_id, is_selection_id

DRAND = "drand"
# It goes with the settings that name it.
# The allocation numbers markets in 16 bits.
MOST_MARKETS = 2**15 - 1
STRIKE_REASON = re.compile(r"[A-Z_]+")
# A signature in G1, compressed.
_SIGNATURE = re.compile(r"[0-9a-f]{96}")


class FormerRules(DrawError):
    """A manifest of the rules `vf1`, by which nothing is drawn or verified any more."""


@dataclass(frozen=True, slots=True)
class ReserveTerms:
    """`seats` of a market that go to members of `segment` first."""

    segment: str
    seats: int


@dataclass(frozen=True, slots=True)
class MarketTerms:
    """The seats of one market."""

    market_id: str
    # The total of all phases.
    capacity: int
    # They are in order of precedence, among the seats that the phase offers.
    reserves: tuple[ReserveTerms, ...] = ()
    # What the reserves of phases 2, 3, ... may take in all, in order of precedence; the same in all phases.
    later_reserves: tuple[ReserveTerms, ...] = ()


@dataclass(frozen=True, slots=True)
class ManifestSeedSource:
    """The source of the randomness: a round of a chain with this hash."""

    chain: str
    round: int

    def as_document(self) -> dict[str, Any]:
        return {"chain": self.chain, "kind": DRAND, "round": self.round}

    @staticmethod
    def read(fields: Fields) -> ManifestSeedSource:
        """Read `{"chain", "kind": "drand", "round"}`. Raises DrawError."""
        fields.text("kind", DRAND.__eq__, f'"{DRAND}"')
        return ManifestSeedSource(fields.hash("chain"), fields.integer("round", 1))


@dataclass(frozen=True, slots=True)
class Registrations:
    """What became of the entries of the tree of registrations, each in one class."""

    # Entries whose data was erased before the freeze.
    erased: int
    # Registered entries without a leaf for any other reason.
    excluded: int
    # Entries of the tree that are notices about earlier ones.
    notices: int
    # That of the tree, in hex.
    root: str
    # The number of all entries of the tree.
    size: int
    # Entries that their fans took back before the freeze.
    withdrawn: int

    @staticmethod
    def read(fields: Fields, count: int) -> Registrations:
        """Read the object. `count` is the number of leaves. Raises DrawError unless the classes sum to the size."""
        made = Registrations(
            erased=fields.integer("erased"),
            excluded=fields.integer("excluded"),
            notices=fields.integer("notices"),
            root=fields.hash("root"),
            size=fields.integer("size"),
            withdrawn=fields.integer("withdrawn"),
        )
        classed = made.notices + count + made.excluded + made.withdrawn + made.erased
        if made.size != classed:
            fields.refuse(
                "size",
                f"{made.size} entries, but notices, count, excluded, withdrawn and erased are {classed}",
            )
        return made


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
    # None for a campaign that logged no registrations.
    registrations: Registrations | None
    # The root over leaves.txt, in hex.
    root: str
    seed_source: ManifestSeedSource
    strikes_hash: str
    # The root over the lines of strikes.txt, in hex.
    strikes_root: str
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
    def parse(cls, data: bytes, artefact: str = "") -> Self:
        """Read exactly these bytes. Raises DrawError; FormerRules for a manifest of `vf1`."""
        document = parse_canonical(data, artefact or MANIFEST)
        if document.get("algorithm") == "vf1":
            raise FormerRules(
                artefact or MANIFEST,
                f"this draw follows the rules vf1, which are gone, so it can only be annulled: {ALGORITHM} is read",
            )
        return cls.read(Fields(artefact or MANIFEST, "", document, cls.keys()))

    @classmethod
    def read(cls, fields: Fields) -> Self:
        fields.text("algorithm", ALGORITHM.__eq__, f'"{ALGORITHM}"')
        campaign_id = fields.id("campaignId")
        count = fields.integer("count")
        phase = fields.integer("phase", 1)
        registrations = None
        if fields.raw("registrations") is not None:
            registrations = Registrations.read(
                fields.nested("registrations", json_keys(Registrations)), count
            )
        return cls(
            as_of=fields.time("asOf"),
            campaign_id=campaign_id,
            count=count,
            draw_id=fields.text("drawId", campaign_id.__eq__, f"the campaign's id ({campaign_id})"),
            markets=markets_of(fields, phase),
            phase=phase,
            previous=_previous(fields, phase),
            registrations=registrations,
            root=fields.hash("root"),
            seed_source=ManifestSeedSource.read(fields.nested("seedSource", ("chain", "kind", "round"))),
            strikes_hash=fields.hash("strikesHash"),
            strikes_root=fields.hash("strikesRoot"),
            waitlist_size=None if fields.raw("waitlistSize") is None else fields.integer("waitlistSize"),
            wins_per_unit=fields.integer("winsPerUnit", 1),
        )


def markets_of(fields: Fields, phase: int = 1) -> tuple[MarketTerms, ...]:
    """Read the list under `markets`. Raises DrawError."""
    markets = tuple(market_terms(each) for each in fields.objects("markets", json_keys(MarketTerms)))
    if len(markets) > MOST_MARKETS:
        fields.refuse("markets", f"{len(markets)}, at most {MOST_MARKETS} can be drawn together")
    for before, after in pairwise(market.market_id for market in markets):
        if before >= after:
            fields.refuse("markets", f"ids must increase strictly: {after} follows {before}")
    for number, market in enumerate(markets):
        if phase > 1 and (wrong := undeclared(market)):
            fields.refuse(f"markets[{number}].reserves", wrong)
    return markets


def market_terms(fields: Fields) -> MarketTerms:
    """Read `{"capacity", "laterReserves", "marketId", "reserves"}`. Raises DrawError."""
    market_id, capacity = fields.text("marketId", is_market_id, "an id, not -"), fields.integer("capacity")
    reserves, later = _reserves(fields, "reserves"), _reserves(fields, "laterReserves")
    seats = sum(reserve.seats for reserve in reserves)
    if seats > capacity:
        fields.refuse(
            "reserves", f"{seats} reserved seats in market {market_id}, whose capacity is {capacity}"
        )
    return MarketTerms(market_id, capacity, reserves, later)


def _reserves(fields: Fields, key: str) -> tuple[ReserveTerms, ...]:
    found: dict[str, ReserveTerms] = {}
    for each in fields.objects(key, json_keys(ReserveTerms)):
        segment = each.id("segment")
        if segment in found:
            fields.refuse(key, f"duplicate segment {segment}")
        found[segment] = ReserveTerms(segment, each.integer("seats"))
    return tuple(found.values())


def undeclared(market: MarketTerms, before: Iterable[MarketTerms] = ()) -> str:
    """Return what `reserves` of a later phase take that `laterReserves` do not declare; empty if nothing. `before` are
    the terms of the same market in the phases from 2 on before this one, whose reserves count, filled or not.
    """
    declared = iter(market.later_reserves)
    used = Counter[str]()
    for each in before:
        used.update({reserve.segment: reserve.seats for reserve in each.reserves})
    for reserve in market.reserves:
        own = next((each for each in declared if each.segment == reserve.segment), None)
        if own is None:
            return f"segment {reserve.segment} is not next in laterReserves of market {market.market_id}"
        taken = used[reserve.segment] + reserve.seats
        if taken > own.seats:
            return (
                f"{taken} seats for {reserve.segment} since phase 2, laterReserves of market {market.market_id}"
                f" have {own.seats}"
            )
    return ""


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


def newly_unclaimed(before: Mapping[str, str] | None, now: Mapping[str, str]) -> frozenset[str]:
    """Return the refs that are UNCLAIMED for the first time, each of which must be a winner of the phase before.
    `before` are the strikes of that phase, None in phase 1.

    Raises DrawError if one of them is missing now or has another reason, and for a seat that lapses in phase 1.
    """
    for ref, reason in (before or {}).items():
        if now.get(ref) != reason:
            found = now.get(ref, "no strike")
            raise DrawError(STRIKES, f"{ref} was struck ({reason}) in the phase before: found {found}")
    new = frozenset(
        ref for ref, reason in now.items() if reason == Outcome.UNCLAIMED and ref not in (before or {})
    )
    if before is None and new:
        raise DrawError(STRIKES, f"{min(new)} is UNCLAIMED in phase 1, in which no one has won yet")
    return new


def struck_outcome(reason: str) -> Outcome:
    """Return the outcome of an entry that is struck for this reason."""
    return Outcome.UNCLAIMED if reason == Outcome.UNCLAIMED else Outcome.STRUCK


def derive_seed(manifest_hash: str, source: ManifestSeedSource, randomness: str) -> str:
    """Return `SHA256("vfseed2|" + manifestHash of phase 1 + "|" + chain hash + "|" + round + "|" + randomness)` in hex.

    Raises DrawError unless `randomness` is exactly 64 lower-case hex digits.
    """
    if not is_hash(randomness):
        raise DrawError(SEED, f"randomness: 64 lower-case hex digits are needed, found {randomness!r}")
    return sha256_hex(f"vfseed2|{manifest_hash}|{source.chain}|{source.round}|{randomness}".encode())


def changed_terms(earlier: Sequence[Manifest], later: Manifest) -> Iterator[DrawError]:
    """Errors of a later manifest that changes more than phase, previous, strikes, capacities upwards, and reserves
    within laterReserves. `earlier` are those of the phases before that are known, at least the last one, in order.
    """
    before = earlier[-1]
    if [each.market_id for each in later.markets] != [each.market_id for each in before.markets]:
        yield DrawError(MANIFEST, "markets: the phase before has others")
    else:
        for number, (then, now) in enumerate(zip(before.markets, later.markets, strict=True)):
            if now.later_reserves != then.later_reserves:
                yield DrawError(MANIFEST, f"markets[{number}].laterReserves: not those of the phase before")
            elif wrong := undeclared(now, (each.markets[number] for each in earlier if each.phase > 1)):
                yield DrawError(MANIFEST, f"markets[{number}].reserves: {wrong}")
            if now.capacity < then.capacity:
                yield DrawError(
                    MANIFEST, f"markets[{number}].capacity: {now.capacity}, less than {then.capacity} before"
                )
    same = replace(
        later,
        phase=before.phase,
        previous=before.previous,
        strikes_hash=before.strikes_hash,
        strikes_root=before.strikes_root,
        markets=before.markets,
    )
    expected, found = before.as_document(), same.as_document()
    for key, value in expected.items():
        if found[key] != value:
            yield DrawError(MANIFEST, f"{key}: the phase before has {value!r}, found {found[key]!r}")


@dataclass(frozen=True, slots=True)
class SeedFile(JsonFile):
    """seed.json."""

    FILE: ClassVar[str] = SEED

    # The SHA-256 of the signature's bytes, in hex.
    randomness: str
    # That of the beacon, from 1.
    round: int
    seed: str
    # The beacon's signature of the round, in hex.
    signature: str

    @staticmethod
    def of(manifest_hash: str, source: ManifestSeedSource, signature: str) -> SeedFile:
        """Derive the seed from the manifest hash of phase 1 and the signature of the round, 96 hex digits."""
        randomness = sha256_hex(bytes.fromhex(signature))
        return SeedFile(randomness, source.round, derive_seed(manifest_hash, source, randomness), signature)

    def as_document(self) -> dict[str, Any]:
        return {"kind": DRAND} | as_document(self)

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        return json_keys(cls, "kind")

    @classmethod
    def read(cls, fields: Fields) -> Self:
        fields.text("kind", DRAND.__eq__, f'"{DRAND}"')
        return cls(
            randomness=fields.hash("randomness"),
            round=fields.integer("round", 1),
            seed=fields.hash("seed"),
            signature=fields.text("signature", _SIGNATURE.fullmatch, "96 lower-case hex digits"),
        )

    def check(self, manifest_hash: str, source: ManifestSeedSource) -> None:
        """Raise DrawError unless this follows from the seed source and the manifest hash of phase 1.

        It does not verify the beacon's BLS signature, only that the randomness is its SHA-256.
        """
        if self.round != source.round:
            raise DrawError(SEED, f"round {source.round} was committed to, found {self.round}")
        if sha256_hex(bytes.fromhex(self.signature)) != self.randomness:
            raise DrawError(SEED, "randomness: not the SHA-256 of the signature")
        if derive_seed(manifest_hash, source, self.randomness) != self.seed:
            raise DrawError(SEED, "seed: does not follow from the manifest of phase 1 and the randomness")
