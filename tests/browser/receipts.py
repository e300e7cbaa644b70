"""Receipts of a small draw, in a public log of their own with two witnesses, and the page with one of them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from fairdraw.large.receipts import build_receipt
from fairdraw.log.leaves import Kind, LogLeaf
from fairdraw.log.note import COSIGNATURE, SignerKey
from fairdraw.maths.files import SUMMARY, canonical_bytes, sha256_hex
from fairdraw.maths.opened import Amended, Opened, opened_name
from fairdraw.terms import QUICKNET, iso
from tests.fairdraw.proof.draws import (
    AS_OF,
    BEACON,
    CAMPAIGN,
    FIRST,
    ROUND,
    UNIT_KEY,
    outcomes,
    publish_beside,
    refs,
    two_phases,
)
from tests.fairdraw.verifier.draws import MldsaWitness, log_of

LOG = SignerKey("log.tickets.example", hashlib.sha256(b"log").digest())
WITNESSES = (
    *(
        SignerKey(name, hashlib.sha256(name.encode()).digest())
        for name in ("witness.newspaper.example", "witness.consumers.example")
    ),
    MldsaWitness("witness.university.example"),
)
TRUST = {
    "beacon": {},
    "log": [str(LOG.verifier())],
    "witnesses": [str(each.verifier(COSIGNATURE)) for each in WITNESSES],
    "need": 2,
}


@cache
def draw() -> Path:
    """The folder of a draw of two phases, from the public beacon, with the record of its campaign."""
    folder = publish_beside(two_phases(Path(mkdtemp(prefix="regworkers-browser-"))))
    opened = Opened(
        campaign_id=CAMPAIGN,
        caseless=False,
        chain=BEACON.chain,
        closes_at=AS_OF,
        code_key=None,
        eligibility={},
        event_id="summer-nights",
        issuer_keys=(),
        markets=FIRST,
        name="Summer Nights 2026",
        opens_at="2023-08-22T15:45:00.000Z",
        registration=False,
        unit_key_hash=sha256_hex(UNIT_KEY),
        waitlist_size=8,
        wins_per_unit=1,
    )
    (folder / opened_name(0)).write_bytes(opened.to_bytes())
    terms = {each.name: getattr(opened, each.name) for each in fields(Opened)}
    more = Amended(**terms | {"name": "Summer Nights"}, previous=opened.hash, reason="a shorter name")
    (folder / opened_name(1)).write_bytes(more.to_bytes())
    return folder


def receipt(outcome: str, *, logged: bool = True) -> dict[str, Any]:
    """The receipt of an entry with this outcome in phase 2, or of one that was not in the draw (`excluded`)."""
    folder = draw()
    if outcome == "excluded":
        ref = hashlib.sha256(b"not in the draw").hexdigest()[:32]
    else:
        ref = next(ref for ref in refs(36) if outcomes(folder / "phase-2")[ref] == outcome)
    made = build_receipt(folder, ref, reasons=lambda _ref: ["NO_MARKET"])
    if logged:
        in_the_log(made)
    document: dict[str, Any] = json.loads(canonical_bytes(made))
    return document


def in_the_log(made: dict[str, Any]) -> None:
    """Give a receipt its key `log`, with all that the operator states in it."""
    phases = made["phases"] if made["kind"] == "draw" else [made, *made["phases"]]
    at, a_day_before = (iso(QUICKNET.due(ROUND) - each) for each in (700, 700 + 86_400))
    leaves = [LogLeaf("", sha256_hex(str(LOG.verifier()).encode()), Kind.KEY, 0, at)]

    def add(kind: Kind, phase: int, text: str, at: str = at) -> None:
        leaves.append(LogLeaf(CAMPAIGN, sha256_hex(text.encode()), kind, phase, at))

    for number, text in enumerate(made["opened"]):
        add(Kind.AMENDED if number else Kind.OPENED, number, text, a_day_before)
    for number, phase in enumerate(phases, 1):
        published = phase.get("published") or {"replaced": [], "notice": None}
        for text in published["replaced"]:
            add(Kind.MANIFEST, number, json.loads(text)["manifest"])
            add(Kind.REPLACED, number, text)
        add(Kind.MANIFEST, number, phase["manifest"])
        if published["notice"]:
            add(Kind.NOTICE, number, published["notice"])
        add(Kind.RESULT, number, phase.get("summary") or (draw() / "phase-1" / SUMMARY).read_text())
    lines = [leaf.to_bytes().decode() for leaf in leaves]
    made["log"] = log_of(lines, [*range(1, len(lines))], [LOG], [*WITNESSES], 2)
