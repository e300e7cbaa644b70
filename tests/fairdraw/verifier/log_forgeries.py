"""What a forger would change in the part of a receipt that is about the public log."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from fairdraw.log.note import COSIGNATURE, Note, Signature
from fairdraw.maths.files import sha256_hex
from fairdraw.terms import iso
from tests.fairdraw.verifier.draws import ALIAS, FORMER, LOG, OTHER_LOG, ROUND_AT, WITNESSES, log_of
from tests.fairdraw.verifier.forgeries import (
    DRAW_FORGERIES,
    HASH,
    LATEST,
    Forgery,
    Place,
    Receipt,
    at,
    canonical,
)


def checkpoints(receipt: Receipt, others: Sequence[Receipt]) -> Iterator[Forgery]:
    yield from notes(receipt, ("log", "checkpoint"))
    for number in range(len(receipt["log"]["kept"])):
        yield from notes(receipt, ("log", "kept", number, "checkpoint"))


def notes(receipt: Receipt, place: Place) -> Iterator[Forgery]:
    text = at(receipt, place)
    lines = text.split("\n")
    for number, values in {
        0: ("", "log.example", OTHER_LOG.name, "é"),
        1: ("0", "1", str(2**53), "9" * 19, "9" * 20, "01", "-1", "٣", ""),
        2: ("", "AAAA", lines[2].lower(), lines[2][:-2] + "B=", lines[2] + "\x00"),
        3: ("extension", "\t"),
        4: (
            "— x AAAAAAA=",
            "— x y z",
            "- x AAAAAAAA",
            "— é",
            "—  AAAAAAAA",
            "— x AAAAAA==",
            "— a+b AAAAAAAA",
            "x" * 200,
        ),
    }.items():
        for value in values:
            yield {place: "\n".join((*lines[:number], value, *lines[number + 1 :]))}
    last = lines[-2]
    for value in (
        last[:-8] + "AAAAAAA=",
        last + "=",
        last[:-3] + "B==",
        last[:-2] + "B=",
        last.replace("A", "B"),
        last[:-4],
    ):
        yield {place: "\n".join((*lines[:-2], value, ""))}
    for other in (
        text + "\n",
        text[:-1],
        "\n" + text,
        text + "\n" + text,
        text + text.split("\n\n")[1] * 100,
        "",
        "\n\n",
        7,
    ):
        yield {place: other}
    note = Note.parse(text)
    for each in note.signatures:
        wrong = [
            Signature(each.name, each.key_id, value)
            for value in (b"\xff" * 72, each.value[:-1], each.value * 2)
        ]
        wrong += [Signature(each.name, b"0000", each.value), Signature("x", each.key_id, each.value)]
        yield from ({place: str(note.with_signatures(one))} for one in wrong)
        yield {place: str(Note(note.text, (*note.signatures, wrong[0])))}


def kept(receipt: Receipt, others: Sequence[Receipt]) -> Iterator[Forgery]:
    """The checkpoints that give times, taken from elsewhere, seen at other times, or with other proofs."""
    found, entries = receipt["log"]["kept"], receipt["log"]["entries"]
    for value in ([], found[1:], found[::-1], found * 2, [7], {}, None, [{}]):
        yield {("log", "kept"): value}
    yield from ({("log", "kept"): other["log"]["kept"]} for other in others[:5] if other.get("log"))
    newest = receipt["log"]["checkpoint"]
    witnesses = [str(each.verifier(COSIGNATURE)) for each in WITNESSES]
    # The newest checkpoint has as many witnesses as are needed.
    top = Note.parse(newest)
    top = top.with_signatures(*(each.cosign(top.text, int(ROUND_AT)) for each in WITNESSES))
    for number, each in enumerate(found):
        place: Place = ("log", "kept", number)
        yield from (
            {place: value} for value in ({}, 7, each | {"x": 1}, each | {"index": 0}, each | {"index": 99})
        )
        yield from (
            {place: each | {"checkpoint": newest, "proof": entry["proof"]}} for entry in (each, *entries)
        )
        for proof in ([], each["proof"][1:], [*each["proof"], HASH], [HASH], [7], 7):
            yield {(*place, "proof"): proof}
        note = Note.parse(each["checkpoint"])
        never, late, in_time = (
            [one.cosign(note.text, int(ROUND_AT) - before) for one in WITNESSES]
            for before in (-(2**62), 599, 600)
        )
        far = [one.cosign(note.text, 10**11) for one in WITNESSES]
        for need in (0, 1, 3, 5):
            asked: Forgery = {("log", "keys", "witnesses"): witnesses, ("log", "keys", "need"): need}
            asked[("log", "checkpoint")] = str(top)
            for seen in (
                late, in_time, in_time[:1] + late[1:], in_time[:3] + late[3:], [*in_time, *late], [*late, *in_time],
                never, far, [],
            ):  # fmt: skip
                yield asked | {(*place, "checkpoint"): str(Note(note.text, (*note.signatures[:1], *seen)))}
            yield asked | {("log", "kept"): [*found[:number], *found[number + 1 :]]}


def keys(receipt: Receipt, others: Sequence[Receipt]) -> Iterator[Forgery]:
    place: Place = ("log", "keys")
    witnesses = [str(each.verifier(COSIGNATURE)) for each in WITNESSES]
    log = str(LOG.verifier())
    for value in (
        [], [log], [log, log], [str(FORMER.verifier())], [str(OTHER_LOG.verifier())], [str(LOG.verifier(COSIGNATURE))],
        ["a+b"], [log[:-1]], [log.replace("+", " ", 1)], [log[:-5] + "AAAA="], [7], ["a b+12345678+AQ=="],
        ["x+12345678+CQ=="], 7,
    ):  # fmt: skip
        yield {(*place, "log"): value}
    for need in (0, 1, 2, 3, 4, 5, -1, True, None):
        yield {(*place, "need"): need, (*place, "witnesses"): witnesses}
        yield {
            (*place, "need"): need,
            (*place, "witnesses"): [*witnesses[:1], str(ALIAS.verifier(COSIGNATURE))],
        }
        yield {(*place, "need"): need}


def logs(receipt: Receipt, others: Sequence[Receipt]) -> Iterator[Forgery]:
    """Leaves that were changed, dropped, added or moved, under a checkpoint that is right for them."""
    leaves = [json.loads(each["leaf"]) for each in receipt["log"]["entries"]]

    def signed(made: list[Receipt], keys: Any = (LOG,), witnesses: Any = (), need: int = 0) -> Forgery:
        lines = [canonical(leaf).decode() for leaf in made]
        return {("log",): log_of(lines, list(range(len(lines))), list(keys), list(witnesses), need)}

    yield signed(leaves)
    yield signed(leaves[::-1])
    yield signed([])
    yield signed(leaves, [OTHER_LOG])
    yield signed(leaves, [FORMER, LOG], WITNESSES, 4)
    yield signed(leaves, witnesses=[WITNESSES[0], ALIAS], need=2)
    yield signed(leaves, witnesses=[WITNESSES[0], ALIAS], need=1)
    for place, leaf in enumerate(leaves):
        yield signed(leaves[:place] + leaves[place + 1 :])
        for change in (
            *({"hash": value} for value in (HASH, sha256_hex(b""), "x")),
            *({"time": value} for value in (LATEST, iso(ROUND_AT - 599.999), iso(ROUND_AT), "x")),
            *(
                {"kind": value}
                for value in (
                    "manifest",
                    "result",
                    "annulled",
                    "codes",
                    "key",
                    "notice",
                    "opened",
                    "amended",
                    "registrations",
                    "x",
                )
            ),
            *({"phase": value} for value in (0, 1, 2, 3)),
            *(
                {"kind": "key", "campaignId": value, "phase": phase}
                for value in ("", "x")
                for phase in (0, 1)
            ),
            {"kind": "opened", "phase": 0},
            {"kind": "registrations", "phase": 0},
            {"campaignId": "other"},
            {"x": 1},
        ):
            yield signed([*leaves[:place], leaf | change, *leaves[place + 1 :]])
            yield signed([*leaves[: place + 1], leaf | change, *leaves[place + 1 :]])
    entries = receipt["log"]["entries"]
    for other in (
        entries[::-1],
        entries[1:],
        entries * 2,
        [],
        [7],
        7,
        [entries[0] | {"index": entries[0]["index"] + 1}],
    ):
        yield {("log", "entries"): other}
    yield from ({("log",): value} for value in (None, {}, 7))


FORGERIES = (*DRAW_FORGERIES, checkpoints, kept, keys, logs)
