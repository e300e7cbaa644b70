"""Receipts of a small draw, in a public log of their own with two witnesses, and the page with one of them."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from fairdraw.large.receipts import build_receipt
from fairdraw.log.leaves import Kind, LogLeaf
from fairdraw.log.note import COSIGNATURE, Checkpoint, SignerKey, signed
from fairdraw.log.tree import root_over
from fairdraw.maths.files import canonical_bytes, sha256_hex
from fairdraw.maths.merkle import levels_of, path_up
from regworkers_core.domain.selection import QUICKNET
from regworkers_core.domain.timestamps import iso
from tests.fairdraw.proof.draws import (
    BEACON,
    CAMPAIGN,
    REVEAL,
    ROUND,
    outcomes,
    publish_beside,
    refs,
    two_phases,
)

LOG = SignerKey("log.tickets.example", hashlib.sha256(b"log").digest())
WITNESSES = tuple(
    SignerKey(name, hashlib.sha256(name.encode()).digest())
    for name in ("witness.newspaper.example", "witness.consumers.example")
)
TRUST = {
    "beacon": {},
    "log": [str(LOG.verifier())],
    "witnesses": [str(each.verifier(COSIGNATURE)) for each in WITNESSES],
    "need": 2,
}


@cache
def draw(kind: str) -> Path:
    """The folder of a draw of two phases, from the `beacon` or from a `secret`."""
    folder = Path(mkdtemp(prefix="regworkers-browser-"))
    if kind == "secret":
        return two_phases(folder, source=REVEAL)
    return publish_beside(two_phases(folder, source=BEACON))


def receipt(outcome: str, *, kind: str = "beacon", logged: bool = True) -> dict[str, Any]:
    """The receipt of an entry with this outcome in phase 2, or of one that was not in the draw (`excluded`)."""
    folder = draw(kind)
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
    phases = made.get("phases") or [made]
    at = iso(QUICKNET.due(ROUND) - 700)
    leaves = [LogLeaf("", sha256_hex(str(LOG.verifier()).encode()), Kind.KEY, 0, at)]

    def add(kind: Kind, phase: int, text: str) -> None:
        leaves.append(LogLeaf(CAMPAIGN, sha256_hex(text.encode()), kind, phase, at))

    for number, phase in enumerate(phases, 1):
        published = phase["published"]
        for text in published["replaced"]:
            add(Kind.MANIFEST, number, json.loads(text)["manifest"])
            add(Kind.REPLACED, number, text)
        add(Kind.MANIFEST, number, phase["manifest"])
        if published["notice"]:
            add(Kind.NOTICE, number, published["notice"])
        for name in ("resultHash", "cutoffsHash"):
            hash_ = phase.get(name, sha256_hex(name.encode()))
            leaves.append(LogLeaf(CAMPAIGN, hash_, Kind.RESULT, number, at))
    lines = [leaf.to_bytes() for leaf in leaves]
    nodes = [hashlib.sha256(b"\0" + line).digest() for line in lines]

    def checkpoint(size: int, at: int) -> str:
        text = Checkpoint(LOG.name, size, root_over(nodes[:size])).text
        return str(signed(text, LOG).with_signatures(*(each.cosign(text, at) for each in WITNESSES)))

    manifest = max(at for at, leaf in enumerate(leaves) if (leaf.kind, leaf.phase) == (Kind.MANIFEST, 1))
    committed = {
        "checkpoint": checkpoint(manifest + 1, int(QUICKNET.due(ROUND)) - 690),
        "proof": [node.hex() for node in path_up(manifest, levels_of(nodes[: manifest + 1]))],
    }
    levels = levels_of(nodes)
    entries = [
        {"leaf": lines[each].decode(), "index": each, "proof": [node.hex() for node in path_up(each, levels)]}
        for each in range(1, len(lines))
    ]
    keys = {name: TRUST[name] for name in ("log", "witnesses", "need")}
    newest = checkpoint(len(nodes), 1_692_805_000)
    made["log"] = {"checkpoint": newest, "committed": committed, "entries": entries, "keys": keys}
