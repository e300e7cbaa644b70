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
    for place in (("log", "checkpoint"), ("log", "committed", "checkpoint")):
        yield from notes(receipt, place)


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


def commits(receipt: Receipt, others: Sequence[Receipt]) -> Iterator[Forgery]:
    """The checkpoint of the commit, taken from elsewhere, seen at another time, or with another proof."""
    place: Place = ("log", "committed")
    committed, entries = receipt["log"]["committed"], receipt["log"]["entries"]
    yield from ({place: value} for value in (None, {}, 7, committed | {"x": 1}))
    newest = receipt["log"]["checkpoint"]
    yield from (
        {place: {"checkpoint": newest, "proof": proof}}
        for proof in (committed["proof"], *(each["proof"] for each in entries))
    )
    for proof in ([], committed["proof"][1:], [*committed["proof"], HASH], [HASH], [7], 7):
        yield {(*place, "proof"): proof}
    yield from ({place: other["log"]["committed"]} for other in others if other.get("log"))
    note = Note.parse(committed["checkpoint"])
    late, in_time = (
        [each.cosign(note.text, int(ROUND_AT) - before) for each in WITNESSES] for before in (599, 600)
    )
    witnesses = [str(each.verifier(COSIGNATURE)) for each in WITNESSES]
    for need in (0, 1, 2, 4):
        asked: Forgery = {("log", "keys", "witnesses"): witnesses, ("log", "keys", "need"): need}
        # The newest checkpoint has as many witnesses as are needed.
        top = Note.parse(newest)
        top = top.with_signatures(*(each.cosign(top.text, int(ROUND_AT)) for each in WITNESSES))
        asked[("log", "checkpoint")] = str(top)
        for seen in (late, in_time, in_time[:1] + late[1:], [*in_time, *late], [*late, *in_time], []):
            yield asked | {(*place, "checkpoint"): str(Note(note.text, (*note.signatures[:1], *seen)))}
        yield asked | {place: None}


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
                for value in ("manifest", "result", "annulled", "codes", "key", "notice", "commitment", "x")
            ),
            *({"phase": value} for value in (0, 1, 2, 3)),
            *(
                {"kind": "key", "campaignId": value, "phase": phase}
                for value in ("", "x")
                for phase in (0, 1)
            ),
            {"kind": "commitment", "phase": 2},
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


FORGERIES = (*DRAW_FORGERIES, checkpoints, commits, keys, logs)
