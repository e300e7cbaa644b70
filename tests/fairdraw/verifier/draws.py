"""Random draws on disk, drawn by the oracle, with a public log; and the receipts of their entries."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from fairdraw.large.receipts import build_receipt
from fairdraw.log.leaves import Kind, LogLeaf
from fairdraw.log.note import COSIGNATURE, Checkpoint, SignerKey, signed
from fairdraw.maths.beside import (
    ACCEPTED,
    ANNULLED,
    NOTICE,
    AcceptedFinding,
    Annulled,
    NoticeFile,
    ReplacedManifest,
    accepted_bytes,
    replaced_name,
)
from fairdraw.maths.files import CUTOFFS, RESULT, file_hash, sha256_hex
from fairdraw.maths.manifest import Manifest
from fairdraw.maths.plain import PlainEngine
from fairdraw.terms import QUICKNET, iso
from tests.fairdraw.maths import oracle
from tests.fairdraw.maths.draws import taken_seats
from tests.fairdraw.maths.oracle import OracleLeaf, OracleMarket
from tests.fairdraw.proof.draws import BEACON, REVEAL, ROUND, Terms, write_inputs

ROUND_AT = QUICKNET.due(ROUND)
MARKETS = ("East", "east", "north_2", "w-1")
SEGMENTS = ("fan", "loyal", "z")
ALPHABET = "ABCxyz019_-"
REASONS = ("more seats", "", "a “better” list \u2028 é 😀", "one\nline | more", "<b>'\"</b>")
LOG = SignerKey("log.example/draws", hashlib.sha256(b"log").digest())
OTHER_LOG = SignerKey("other.example/log", hashlib.sha256(b"other").digest())
FORMER = SignerKey(LOG.name, hashlib.sha256(b"former").digest())
WITNESSES = [SignerKey(f"witness-{each}.example", hashlib.sha256(each.encode()).digest()) for each in "abcé"]
# One key under a second name.
ALIAS = SignerKey("alias.example", WITNESSES[0].seed)


@dataclass
class RandomDraw:
    """A draw in a folder, and the leaves that the log has of it, in their order."""

    folder: Path
    campaign_id: str
    refs: list[str]
    logged: list[LogLeaf] = field(default_factory=list)


def random_receipts(rng: Random, folder: Path, count: int, most: int = 4) -> Iterator[dict[str, Any]]:
    """At most `most` receipts of each draw, of entries that were in it and of others."""
    number = 0
    while count > 0:
        number += 1
        draw = random_draw(rng, folder / str(number))
        log = random_log(rng, draw) if rng.random() < 0.8 else None
        strangers = [text(rng, 20), rng.choice(draw.refs or ["xy"])[:-1] + "_"]
        for ref in rng.sample([*draw.refs, *strangers], min(most, len(draw.refs) + 2, count)):
            receipt = build_receipt(
                draw.folder,
                ref,
                index=draw.folder / "leaves.index" if rng.random() < 0.3 else None,
                reasons=lambda _ref: sorted(rng.sample(["NO_MARKET", "BOT", "AGE"], rng.randint(1, 3))),
                commitment_late=rng.choice((None, True, False)),
            )
            receipt["log"] = log
            if log is None and rng.random() < 0.4:
                del receipt["log"]
                receipt["version"] = 2
            count -= 1
            yield receipt


def text(rng: Random, length: int) -> str:
    return "".join(rng.choices(ALPHABET, k=length))


def random_draw(rng: Random, folder: Path) -> RandomDraw:
    campaign_id = text(rng, rng.choice((1, 8, 64)))
    source = BEACON if rng.random() < 0.4 else REVEAL
    as_of = iso(ROUND_AT - rng.choice((600, 1200.25, 86_400)))
    leaves = random_leaves(rng)
    draw = RandomDraw(folder, campaign_id, [leaf[0] for leaf in leaves])
    if source is REVEAL:
        draw.logged.append(LogLeaf(campaign_id, str(source["commitment"]), Kind.COMMITMENT, 1, as_of))
    wins = rng.choice((1, 1, 2, 3))
    strikes: dict[str, str] = {}
    before: Path | None = None
    last = rng.choice((1, 1, 2, 3))
    for phase in range(1, last + 1):
        for leaf in rng.sample(leaves, min(len(leaves), rng.choice((0, 0, 1, 3)))):
            strikes.setdefault(leaf[0], rng.choice(("BOT", "DUPLICATE_ACCOUNT")))
        markets = random_markets(rng, {} if before is None else taken_seats(before, strikes))
        terms = Terms(markets, dict(strikes), rng.choice((None, 0, 2, 5)), wins)
        place, lines = folder / f"phase-{phase}", map(oracle.leaf_line, leaves)
        manifest = write_inputs(
            place, lines, terms, before, source=source, campaign_id=campaign_id, as_of=as_of
        )
        PlainEngine(folder).compute(place, before, place)
        files = random_beside(rng, draw, manifest, len(strikes))
        at = draw.logged[-1].time
        draw.logged += [
            LogLeaf(campaign_id, file_hash(place / name), Kind.RESULT, phase, at)
            for name in (RESULT, CUTOFFS)
        ]
        if phase == last and rng.random() < 0.1:
            files[ANNULLED] = Annulled(
                at, campaign_id, manifest.hash, phase, rng.choice(("x", "é", " y "))
            ).to_bytes()
            draw.logged.append(LogLeaf(campaign_id, sha256_hex(files[ANNULLED]), Kind.ANNULLED, phase, at))
        for name, data in files.items():
            (place / name).write_bytes(data)
        before = place
    return draw


def random_leaves(rng: Random) -> list[OracleLeaf]:
    count = rng.choice((0, 1, 2, 7, 16, 25))
    refs = sorted({text(rng, rng.choice((4, 32, 64))) for _ in range(count)})
    units = [text(rng, 6) for _ in range(max(1, count // 3))]
    weights = {unit: rng.choice((1, 1, 2, 64)) for unit in units}
    leaves = []
    for ref in refs:
        unit = rng.choice([ref, rng.choice(units)])
        segments = tuple(sorted(rng.sample(SEGMENTS, rng.randint(0, 2))))
        preferences = tuple(rng.sample(MARKETS, rng.randint(1, 3)))
        leaves.append((ref, unit, weights.get(unit, 1), segments, preferences))
    return leaves


def random_markets(rng: Random, taken: Mapping[str, int]) -> list[OracleMarket]:
    made: list[OracleMarket] = []
    for market in MARKETS:
        left = seats = rng.choice((0, 1, 2, 4))
        reserves = []
        for segment in rng.sample(SEGMENTS, rng.choice((0, 0, 1, 2))):
            size = rng.randint(0, left)
            reserves.append((segment, size))
            left -= size
        made.append((market, taken.get(market, 0) + seats, reserves))
    return made


def random_beside(rng: Random, draw: RandomDraw, manifest: Manifest, strikes: int) -> dict[str, bytes]:
    """Notice, replaced manifests and accepted findings of a phase. Their leaves, and the manifest's, go to the log."""
    files: dict[str, bytes] = {}
    leaves: list[tuple[Kind, str]] = []
    public = ROUND_AT - rng.choice((600, 700.5, 701.5, 12_345.678, 599.999, 30, 0, -59.5))
    if manifest.phase == 1 and "round" in manifest.seed_source:
        for number in range(1, rng.choice((0, 0, 1, 2)) + 1):
            old = replace(manifest, seed_source={**manifest.seed_source, "round": ROUND - 100 * number})
            replaced = ReplacedManifest(
                iso(public - 900),
                old.to_bytes().decode(),
                rng.choice((None, iso(public - 800))),
                iso(rng.choice((public - 700, public - 100, ROUND_AT - 300 * number))),
            )
            files[replaced_name(number)] = replaced.to_bytes()
            leaves += [(Kind.MANIFEST, old.hash), (Kind.REPLACED, sha256_hex(replaced.to_bytes()))]
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
    draw.logged += [LogLeaf(draw.campaign_id, hash_, kind, manifest.phase, at) for kind, hash_ in leaves]
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
    need = rng.randint(0, len(witnesses))
    keys = [LOG] if rng.random() < 0.8 else [FORMER, LOG]
    # Missing, or seen too late, now and then.
    seen_at = rng.choice((*(ROUND_AT - each for each in (599, 600, 700, 700, 700, 700)), None))
    return log_of(lines, own, keys, witnesses, need, seen_at=seen_at, more=rng.choice((0, 0, 1, 100)))


def log_of(
    lines: list[str],
    own: list[int],
    keys: list[SignerKey],
    witnesses: list[SignerKey],
    need: int,
    *,
    seen_at: int | None = ROUND_AT - 700,
    more: int = 0,
) -> dict[str, Any]:
    """The key `log` of a receipt with these leaves of its `own`. The witnesses saw the manifest at `seen_at`, with
    `more` leaves behind it; None: no checkpoint was kept.
    """
    data = [line.encode() for line in lines]

    def checkpoint(size: int, at: int) -> str:
        text = Checkpoint(keys[0].name, size, bytes.fromhex(oracle.tree_hash(data[:size]))).text
        return str(signed(text, *keys).with_signatures(*(each.cosign(text, at) for each in witnesses)))

    manifests = [at for at in own if '"kind":"manifest","phase":1,' in lines[at]]
    committed = None
    if manifests and seen_at is not None:
        size = min(manifests[-1] + 1 + more, len(lines))
        proof = oracle.audit_path(manifests[-1], data[:size])
        committed = {"checkpoint": checkpoint(size, seen_at), "proof": proof}
    return {
        "checkpoint": checkpoint(len(lines), ROUND_AT + 60),
        "committed": committed,
        "entries": [
            {"index": index, "leaf": lines[index], "proof": oracle.audit_path(index, data)} for index in own
        ],
        "keys": {
            "log": [str(key.verifier()) for key in keys],
            "need": need,
            "witnesses": [str(each.verifier(COSIGNATURE)) for each in witnesses],
        },
    }
