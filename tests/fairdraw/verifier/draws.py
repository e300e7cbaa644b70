"""Random draws on disk, drawn by the oracle, with a public log; and the receipts of their entries."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from random import Random
from typing import Any

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from fairdraw import bls
from fairdraw.large.receipts import RegistrationSource, build_receipt
from fairdraw.log.leaves import Kind, LogLeaf
from fairdraw.log.note import (
    COSIGNATURE,
    MLDSA_COSIGNATURE,
    Checkpoint,
    Signature,
    SignerKey,
    VerifierKey,
    signed,
)
from fairdraw.maths.beside import (
    ACCEPTED,
    ANNULLED,
    NOTICE,
    AcceptedFinding,
    Annulled,
    NoticeFile,
    ReplacedManifest,
    accepted_bytes,
    codes_name,
    replaced_name,
)
from fairdraw.maths.codes import PlannedLine
from fairdraw.maths.files import SUMMARY, file_hash, sha256_hex
from fairdraw.maths.leaves import unit_of
from fairdraw.maths.manifest import Manifest, ManifestSeedSource, MarketTerms, ReserveTerms
from fairdraw.maths.opened import Amended, IssuerKey, Opened, opened_name
from fairdraw.maths.plain import PlainEngine
from fairdraw.proof.beacon import DOMAIN, round_message
from fairdraw.terms import CHAIN_FILE, QUICKNET, Chain, Outcome, iso
from tests.fairdraw.maths import oracle
from tests.fairdraw.maths.draws import outcomes_of, taken_seats
from tests.fairdraw.maths.oracle import OracleLeaf
from tests.fairdraw.proof.draws import BEACON, ROUND, SIGNATURE, UNIT_KEY, Terms, write_inputs
from tests.fairdraw.proof.registering import Registered, registered

ROUND_AT = QUICKNET.due(ROUND)
SECRET = bytes(31) + b"\x07"
# A chain of our own, whose round is signed at the same time.
LOCAL = Chain(bls.public_key(SECRET), hashlib.sha256(b"local").hexdigest(), "local", ROUND_AT - ROUND + 1, 1)
OURS = ManifestSeedSource(LOCAL.hash, ROUND)
OUR_SIGNATURE = bls.sign(SECRET, round_message(ROUND), DOMAIN)
MARKETS = ("East", "east", "north_2", "w-1")
SEGMENTS = ("fan", "loyal", "z")
ALPHABET = "ABCxyz019_-"
REASONS = ("more seats", "", "a “better” list \u2028 é 😀", "one\nline | more", "<b>'\"</b>")
LOG = SignerKey("log.example/draws", hashlib.sha256(b"log").digest())
OTHER_LOG = SignerKey("other.example/log", hashlib.sha256(b"other").digest())
FORMER = SignerKey(LOG.name, hashlib.sha256(b"former").digest())
WITNESSES: list[SignerKey | MldsaWitness] = [
    SignerKey(f"witness-{each}.example", hashlib.sha256(each.encode()).digest()) for each in "abcé"
]


@dataclass(frozen=True)
class MldsaWitness:
    """A witness with ML-DSA-44, which signs as C2SP tlog-cosignature says."""

    name: str

    @property
    def _key(self) -> MLDSA44PrivateKey:
        return MLDSA44PrivateKey.from_seed_bytes(hashlib.sha256(self.name.encode()).digest())

    def verifier(self, _kind: int = MLDSA_COSIGNATURE) -> VerifierKey:
        return VerifierKey(self.name, MLDSA_COSIGNATURE, self._key.public_key().public_bytes_raw())

    def cosign(self, text: str, at: int) -> Signature:
        checkpoint, time = Checkpoint.parse(text), at.to_bytes(8, "big")
        name, origin = (
            bytes([len(each)]) + each for each in (self.name.encode(), checkpoint.origin.encode())
        )
        tree = bytes(8) + checkpoint.size.to_bytes(8, "big") + checkpoint.root
        value = self._key.sign(b"subtree/v1\n\0" + name + time + origin + tree)
        return Signature(self.name, self.verifier().key_id, time + value)


WITNESSES.append(MldsaWitness("witness-d.example"))
# One key under a second name.
ALIAS = SignerKey("alias.example", hashlib.sha256(b"a").digest())


@dataclass
class RandomDraw:
    """A draw in a folder, and the leaves that the log has of it, in their order."""

    folder: Path
    campaign_id: str
    refs: list[str]
    logged: list[LogLeaf] = field(default_factory=list)
    # Its list of registrations; None: it logs none.
    listed: Registered | None = None

    def registrations(self, rng: Random) -> RegistrationSource | None:
        """For a receipt: mostly what is true, else nothing or the registration of another entry."""
        if self.listed is None or rng.random() < 0.1:
            return None
        source = self.listed.source(self.folder / "registrations")
        known = [*self.listed.opened.values()]
        return replace(source, opened=lambda _ref: rng.choice(known)) if rng.random() < 0.05 else source


def random_receipts(rng: Random, folder: Path, count: int, most: int = 4) -> Iterator[dict[str, Any]]:
    """At most `most` receipts of each draw, of entries that were in it and of others."""
    number = 0
    while count > 0:
        number += 1
        draw = random_draw(rng, folder / str(number))
        log = random_log(rng, draw) if rng.random() < 0.8 else None
        strangers = [text(rng, 20), rng.choice(draw.refs or ["xy"])[:-1] + "_"]
        if draw.listed is not None:
            strangers += [
                each.ref for each in draw.listed.opened.values() if each.class_ == "excluded" and each.ref
            ]
        for ref in rng.sample([*draw.refs, *strangers], min(most, len(draw.refs) + 2, count)):
            receipt = build_receipt(
                draw.folder,
                ref,
                index=draw.folder / "leaves.index" if rng.random() < 0.3 else None,
                reasons=lambda _ref: sorted(rng.sample(["NO_MARKET", "BOT", "AGE"], rng.randint(1, 3))),
                registrations=draw.registrations(rng),
            )
            receipt["log"] = log
            count -= 1
            yield receipt


def text(rng: Random, length: int) -> str:
    return "".join(rng.choices(ALPHABET, k=length))


def random_draw(rng: Random, folder: Path) -> RandomDraw:
    campaign_id = text(rng, rng.choice((1, 8, 64)))
    source, signature = (BEACON, SIGNATURE) if rng.random() < 0.6 else (OURS, OUR_SIGNATURE)
    as_of = iso(ROUND_AT - rng.choice((600, 1200.25, 86_400)))
    leaves = random_leaves(rng)
    draw = RandomDraw(folder, campaign_id, [leaf[0] for leaf in leaves])
    if rng.random() < 0.5:
        draw.listed = registered(rng, campaign_id, {leaf[0]: leaf[1] for leaf in leaves})
    folder.mkdir(parents=True)
    if source is OURS:
        (folder / CHAIN_FILE).write_bytes(LOCAL.to_bytes())
    wins, size = rng.choice((1, 1, 2, 3)), rng.choice((None, 0, 2, 5))
    strikes: dict[str, str] = {}
    phases = [random_markets(rng)]
    if rng.random() < 0.7:
        random_record(rng, draw, Terms(phases[0], {}, size, wins), source.chain, as_of)
    before: Path | None = None
    last = rng.choice((1, 1, 2, 3))
    planned = Counter[str]() if rng.random() < 0.4 else None
    for phase in range(1, last + 1):
        winners = [] if before is None else won(before)
        for ref in rng.sample(draw.refs, min(len(leaves), rng.choice((0, 0, 1, 3)))):
            reasons = ("BOT", "DUPLICATE_ACCOUNT", *([Outcome.UNCLAIMED] * 3 if ref in winners else []))
            strikes.setdefault(ref, str(rng.choice(reasons)))
        if before is not None:
            phases.append(later_markets(rng, phases, taken_seats(before, strikes)))
        terms = Terms(phases[-1], dict(strikes), size, wins)
        place, lines = folder / f"phase-{phase}", map(oracle.leaf_line, leaves)
        given = {"source": source, "signature": signature, "campaign_id": campaign_id, "as_of": as_of}
        counted = None if draw.listed is None else draw.listed.counted(len(leaves))
        manifest = write_inputs(place, lines, terms, before, **given, registrations=counted)
        PlainEngine(folder).compute(place, before, place)
        files = random_beside(rng, draw, manifest, len(strikes))
        at = draw.logged[-1].time
        draw.logged.append(LogLeaf(campaign_id, file_hash(place / SUMMARY), Kind.RESULT, phase, at))
        if phase == last and rng.random() < 0.1:
            files[ANNULLED] = Annulled(
                at, campaign_id, manifest.hash, phase, rng.choice(("x", "é", " y "))
            ).to_bytes()
            draw.logged.append(LogLeaf(campaign_id, sha256_hex(files[ANNULLED]), Kind.ANNULLED, phase, at))
        if planned is not None:
            files |= random_codes(rng, place, planned)
        for name, data in files.items():
            (place / name).write_bytes(data)
        before = place
    return draw


def random_codes(rng: Random, place: Path, behind: Counter[str]) -> dict[str, bytes]:
    """The lists of planned codes of a phase, the second one with a code more. `behind` are the last positions, by
    market.
    """
    found: list[PlannedLine] = []
    files: dict[str, bytes] = {}
    markets = json.loads((place / SUMMARY).read_bytes())["markets"]
    for number in (1, 2):
        for market, counts in markets.items() if number == 1 else [(rng.choice(MARKETS), {"new": 1})]:
            for _ in range(counts["new"]):
                # Void codes are not planned.
                behind[market] += rng.choice((1, 1, 2, 90))
                digest = sha256_hex(f"{market} {behind[market]}".encode())
                found.append(PlannedLine(market, behind[market], digest))
        files[codes_name(number)] = "".join(f"{line}\n" for line in sorted(found)).encode()
    return files if rng.random() < 0.5 else {codes_name(1): files[codes_name(1)]}


def won(folder: Path) -> list[str]:
    return [ref for ref, (market, _, _) in outcomes_of(folder).items() if market]


def random_record(rng: Random, draw: RandomDraw, terms: Terms, chain: str, as_of: str) -> None:
    """opened.json, and perhaps amendments, on disk and in the log; mostly as the first phase is then drawn."""
    found: Opened = Opened(
        campaign_id=draw.campaign_id,
        caseless=rng.random() < 0.5,
        chain=chain,
        closes_at=as_of if rng.random() < 0.8 else "2030-01-01T00:00:00.000Z",
        code_key=rng.choice((None, bls.public_key(SECRET))),
        eligibility={"é": [1, {"x": None}]} if rng.random() < 0.3 else {},
        event_id=rng.choice((None, "event-1")),
        issuer_keys=rng.choice(((), (IssuerKey("a", "ab" * 32), IssuerKey("b", "cd" * 32)))),
        markets=tuple(map(oracle.market_terms, terms.markets)),
        name=rng.choice(("Summer", "Été “2026” 😀", "<b>x</b>")),
        opens_at="2020-01-01T00:00:00.000Z",
        registration=draw.listed is not None,
        unit_key_hash=sha256_hex(UNIT_KEY),
        waitlist_size=terms.waitlist_size,
        wins_per_unit=terms.wins_per_unit,
    )
    for number in range(rng.choice((1, 1, 2, 3))):
        if number:
            terms_now = {each.name: getattr(found, each.name) for each in fields(Opened)}
            terms_now |= rng.choice(({}, {"name": "Other"}, {"wins_per_unit": 4}, {"waitlist_size": 77}))
            terms_now |= rng.choice(
                ({}, {"eligibility": {"x": number}}, {"opens_at": "2020-02-01T00:00:00.000Z"})
            )
            market, *others = terms_now["markets"]
            if rng.random() < 0.3:
                terms_now["markets"] = (replace(market, capacity=market.capacity + 1), *others)
            reason = rng.choice(("fewer seats", "é"))
            found = Amended(**terms_now, previous=found.hash, reason=reason)
        (draw.folder / opened_name(number)).write_bytes(found.to_bytes())
        kind = Kind.AMENDED if number else Kind.OPENED
        draw.logged.append(LogLeaf(draw.campaign_id, found.hash, kind, number, "2020-01-01T00:00:00.000Z"))


def random_leaves(rng: Random) -> list[OracleLeaf]:
    count = rng.choice((0, 1, 2, 7, 16, 25))
    refs = sorted({text(rng, rng.choice((4, 32, 64))) for _ in range(count)})
    units = [unit_of(UNIT_KEY, "x", text(rng, 6)) for _ in range(max(1, count // 3))]
    weights = {unit: rng.choice((1, 1, 2, 64)) for unit in units}
    leaves = []
    for ref in refs:
        unit = rng.choice([ref, rng.choice(units)])
        segments = tuple(sorted(rng.sample(SEGMENTS, rng.randint(0, 2))))
        preferences = tuple(rng.sample(MARKETS, rng.randint(1, 3)))
        leaves.append((ref, unit, weights.get(unit, 1), segments, preferences))
    return leaves


def random_markets(rng: Random) -> list[MarketTerms]:
    made: list[MarketTerms] = []
    for market in MARKETS:
        left = seats = rng.choice((0, 1, 2, 4))
        reserves = []
        for segment in rng.sample(SEGMENTS, rng.choice((0, 0, 1, 2))):
            size = rng.randint(0, left)
            reserves.append(ReserveTerms(segment, size))
            left -= size
        later = [
            ReserveTerms(each, rng.randint(0, 3)) for each in rng.sample(SEGMENTS, rng.choice((0, 1, 2)))
        ]
        made.append(MarketTerms(market, seats, tuple(reserves), tuple(later)))
    return made


def later_markets(
    rng: Random, phases: list[list[MarketTerms]], taken: Mapping[str, int]
) -> list[MarketTerms]:
    """The terms of a later phase, within what the first one declares."""
    made = []
    for number, market in enumerate(phases[-1]):
        capacity = market.capacity + rng.choice((0, 1, 2))
        left = capacity - taken.get(market.market_id, 0)
        reserves = []
        for each in market.later_reserves:
            used = sum(r.seats for p in phases[1:] for r in p[number].reserves if r.segment == each.segment)
            if rng.random() < 0.6:
                size = rng.randint(0, min(left, each.seats - used))
                reserves.append(ReserveTerms(each.segment, size))
                left -= size
        made.append(replace(market, capacity=capacity, reserves=tuple(reserves)))
    return made


def random_beside(rng: Random, draw: RandomDraw, manifest: Manifest, strikes: int) -> dict[str, bytes]:
    """Notice, replaced manifests and accepted findings of a phase. Their leaves, and the manifest's, go to the log."""
    files: dict[str, bytes] = {}
    leaves: list[tuple[Kind, str]] = []
    public = ROUND_AT - rng.choice((600, 700.5, 701.5, 12_345.678, 599.999, 30, 0, -59.5))
    if manifest.phase == 1:
        for number in range(1, rng.choice((0, 0, 1, 2)) + 1):
            old = replace(
                manifest, seed_source=ManifestSeedSource(manifest.seed_source.chain, ROUND - 100 * number)
            )
            replaced = ReplacedManifest(
                iso(public - 900),
                old.to_bytes().decode(),
                rng.choice((None, iso(public - 800))),
                iso(rng.choice((public - 700, public - 100, ROUND_AT - 300 * number))),
            )
            files[replaced_name(number)] = replaced.to_bytes()
            leaves += [(Kind.MANIFEST, old.hash), (Kind.REPLACED, sha256_hex(replaced.to_bytes()))]
    size = None if draw.listed is None else draw.listed.size
    # The log has another size now and then, or none.
    if manifest.phase == 1 and size is not None and rng.random() < 0.9:
        at_last = size.hash if rng.random() < 0.9 else replace(size, size=size.size + 1).hash
        leaves.append((Kind.REGISTRATIONS, at_last))
    leaves.append((Kind.MANIFEST, manifest.hash))
    if rng.random() < 0.8:
        reason = rng.choice(REASONS) if manifest.phase > 1 else ""
        times = {"committed_at": iso(public - 1), "published_at": iso(public)}
        files[NOTICE] = NoticeFile.of(manifest, strikes=strikes, reason=reason, **times).to_bytes()
        leaves.append((Kind.NOTICE, sha256_hex(files[NOTICE])))
    if rng.random() < 0.3:
        found = [
            AcceptedFinding(iso(public), "late_commit", rng.choice(REASONS).strip() or "it is fine")
            for _ in range(rng.randint(0, 2))
        ]
        files[ACCEPTED] = accepted_bytes(found)
    # Too late, now and then: a step then fails.
    at = iso(min(public, ROUND_AT - 600) if rng.random() < 0.9 else public + 1)
    for kind, hash_ in leaves:
        phase = 0 if kind is Kind.REGISTRATIONS else manifest.phase
        draw.logged.append(LogLeaf(draw.campaign_id, hash_, kind, phase, at))
    return files


def random_log(rng: Random, draw: RandomDraw) -> dict[str, Any]:
    """The key `log` of a receipt: leaves of the draw among those of other campaigns."""
    lines: list[str] = []
    own: list[int] = []
    for leaf in draw.logged:
        for _ in range(rng.choice((0, 0, 1, 3))):
            other = LogLeaf(
                f"{draw.campaign_id[:40]}-x", text(rng, 4).encode().hex() * 8, Kind.RESULT, 1, leaf.time
            )
            lines.append(other.to_bytes().decode())
        own.append(len(lines))
        lines.append(leaf.to_bytes().decode())
    lines += [f"later {number}" for number in range(rng.choice((0, 1, 5)))]
    witnesses = rng.sample(WITNESSES, rng.choice((0, 1, 3)))
    need = rng.choice((rng.randint(0, len(witnesses)), len(witnesses)))
    keys = [LOG] if rng.random() < 0.8 else [FORMER, LOG]
    # Missing, or seen too late, now and then.
    seen_at = rng.choice((*(ROUND_AT - each for each in (599, 600, *[700] * 9)), None))
    return log_of(lines, own, keys, witnesses, need, seen_at=seen_at, more=rng.choice((0, 0, 1, 100)))


def log_of(
    lines: list[str],
    own: list[int],
    keys: list[SignerKey],
    witnesses: list[SignerKey | MldsaWitness],
    need: int,
    *,
    seen_at: int | None = ROUND_AT - 700,
    more: int = 0,
) -> dict[str, Any]:
    """The key `log` of a receipt with these leaves of its `own`. The witnesses saw the manifest at `seen_at`, with
    `more` leaves behind it, and the record of the campaign a day before; None: no checkpoint was kept.
    """
    data = [line.encode() for line in lines]

    def checkpoint(size: int, at: int) -> str:
        text = Checkpoint(keys[0].name, size, bytes.fromhex(oracle.tree_hash(data[:size]))).text
        return str(signed(text, *keys).with_signatures(*(each.cosign(text, at) for each in witnesses)))

    def kept(index: int, at: int) -> dict[str, Any]:
        size = min(index + 1 + more, len(lines))
        proof = oracle.audit_path(index, data[:size])
        return {"checkpoint": checkpoint(size, at), "index": index, "proof": proof}

    record = [at for at in own if '"kind":"opened"' in lines[at] or '"kind":"amended"' in lines[at]]
    manifests = [at for at in own if '"kind":"manifest","phase":1,' in lines[at]]
    timed: list[dict[str, Any]] = []
    if manifests and seen_at is not None:
        timed = [*(kept(each, seen_at - 86_400) for each in record), kept(manifests[-1], seen_at)]
    return {
        "checkpoint": checkpoint(len(lines), ROUND_AT + 60),
        "kept": timed,
        "entries": [
            {"index": index, "leaf": lines[index], "proof": oracle.audit_path(index, data)} for index in own
        ],
        "keys": {
            "log": [str(key.verifier()) for key in keys],
            "need": need,
            "witnesses": [str(each.verifier(COSIGNATURE)) for each in witnesses],
        },
    }
