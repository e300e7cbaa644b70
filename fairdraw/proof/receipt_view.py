"""A checked receipt for people, as plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from fairdraw.maths.beside import ACCEPTED, NOTICE, Annulled, replaced_name
from fairdraw.maths.files import CUTOFFS, parse_canonical
from fairdraw.maths.leaves import parse_leaf
from fairdraw.maths.rules import Cutoff, parse_cutoffs
from fairdraw.proof.check import FAILS, HOLDS, INCOMPLETE, ReceiptChecked
from fairdraw.proof.checker import DRAWN, State
from fairdraw.proof.logged import NO_WITNESS

# Columns of the plain text.
_WIDTH = 100
_HEADLINES = {
    "WINNER": "Selected",
    "WAITLIST": "On the waiting list",
    "UNSELECTED": "Not selected",
    "HOUSEHOLD_LIMIT": "Not selected: the household's limit was reached",
    "STRUCK": "Removed from the draw",
}
# Titles of the checks.
STEPS = {
    "receipt": "The receipt is readable",
    "leaf": "The entry as it took part",
    "inclusion": "The entry is in the committed list",
    "manifest": "The commitments, one for each phase",
    "published": "Statements that the operator published",
    "randomness": "The source of the randomness",
    "seed": "The seed follows from the commitment and the randomness",
    "key": "The key of the unit follows from the seed",
    "entryKey": "The key of the entry follows from the seed",
    "candidate": "The number of entries of the unit that may win",
    "rank": "The rank agrees with the cut-offs",
    "stated": "The receipt states the actual outcome",
    "absence": "The entry was not in the draw",
    "reason": "The reason for the exclusion",
    "log": "The statements are in the public log",
    "witnesses": "Witnesses saw the same log",
}
_VERDICTS = {
    HOLDS: "Every check passed",
    INCOMPLETE: "No check failed, but not everything could be checked",
    FAILS: "THIS RECEIPT IS NOT VALID",
}
_MARKS = {State.PASSED: "x", State.FAILED: "!", State.UNCHECKED: "?"}
_ANNULLED = "This draw was annulled: its outcomes do not count"
_GIVEN = {"operator": "Keys as the operator gave them", "trust": "Keys as the trust file gives them"}


def receipt_text(receipt: Mapping[str, Any], checked: ReceiptChecked) -> str:
    """The outcome, the checks, what the seed guarantees, what needs a replay, and the values, as text."""
    lines = [headline(receipt), ""]
    lines += [f"{name:<12}{value}" for name, value in essentials(receipt)]
    lines += ["", "What the randomness guarantees", *_wrapped(receipt["guarantee"], "  "), ""]
    lines += _checked(checked)
    lines += ["", "Values"]
    lines += [f"  {name}: {value}" for name, value in values(receipt)]
    return "\n".join(lines) + "\n"


def checked_text(checked: ReceiptChecked) -> str:
    """The checks and what needs a replay, as text; first that the draw was annulled."""
    lines = _checked(checked)
    if (annulled := checked.annulled) is not None:
        lines = [_ANNULLED, *_wrapped(f"{annulled.annulled_at}: {annulled.reason}", "  "), "", *lines]
    return "\n".join(lines) + "\n"


def _checked(checked: ReceiptChecked) -> list[str]:
    lines = [_VERDICTS[checked.verdict]]
    for each in checked.checks:
        # Where no witness is named, there is nothing that could have passed.
        named = (each.name, each.detail) != ("witnesses", NO_WITNESS)
        title = step(each.name) if named else f"{step(each.name)}: not applicable"
        lines.append(f"  [{_MARKS[each.state] if named else '-'}] {title}")
        for line in each.detail.splitlines():
            lines += _wrapped(line, "      ")
    for title, keys in trusted(checked):
        lines += ["", title, *(f"  {name}: {fingerprint}" for name, fingerprint in keys)]
    if checked.limits:
        lines += ["", "What a receipt cannot prove alone"]
        for limit in checked.limits:
            lines += _wrapped(limit, "  ")
    return lines


def trusted(checked: ReceiptChecked) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The keys that the check relied on, by who gave them: names and fingerprints."""
    for given, title in _GIVEN.items():
        keys = [(f"{key.what} {key.name}", key.fingerprint) for key in checked.keys if key.given == given]
        if keys:
            yield title, keys


def _wrapped(text: str, indent: str) -> list[str]:
    # Hashes are not broken, so that they can be copied.
    return textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False
    )


def headline(receipt: Mapping[str, Any]) -> str:
    """The outcome in a few words."""
    if receipt["annulled"]:
        return _ANNULLED
    if receipt["kind"] != DRAWN:
        return "Not in the draw"
    text = _HEADLINES[receipt["outcome"]]
    return f"{text}: {receipt['market']}" if receipt["market"] else text


def step(name: str) -> str:
    """The title of a check."""
    if name.startswith("outcome-"):
        return f"The outcome of phase {name.removeprefix('outcome-')} follows from key and cut-offs"
    return STEPS.get(name, name)


def essentials(receipt: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values of the outcome."""
    lines = [("campaign", receipt["campaignId"]), ("reference", receipt["ref"])]
    if receipt["kind"] == DRAWN:
        rank = receipt["rank"]
        lines += [
            ("outcome", receipt["outcome"]),
            ("market", receipt["market"] or "none"),
            ("rank", "none" if rank is None else f"{rank:,}"),
        ]
    else:
        lines.append(("reasons", ", ".join(receipt["reasons"])))
    if receipt["annulled"]:
        annulled = Annulled.parse(receipt["annulled"].encode())
        lines.append(("annulled", f"{annulled.annulled_at}: {annulled.reason}"))
    if receipt["roundAt"]:
        lines.append(("beacon", f"round signed at {receipt['roundAt']} (UTC)"))
    return lines


def values(receipt: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values to recompute the outcome."""
    if receipt["kind"] != DRAWN:
        lines = [("manifest", receipt["manifest"]), *_texts("", receipt["published"])]
        for side in ("before", "after"):
            if receipt[side]:
                lines.append((f"neighbour {side}", receipt[side]["leaf"]))
        return lines
    own = receipt["inclusion"]
    lines = [
        ("leaf", own["leaf"]),
        ("leaf number (from 0)", str(own["index"])),
        *((f"proof {number}", each) for number, each in enumerate(own["proof"], 1)),
        ("seed.json", receipt["seed"]),
        ("key", receipt["key"]),
        ("entryKey", receipt["entryKey"]),
    ]
    lines += [("of the same unit, ahead", each["leaf"]) for each in receipt["siblings"]]
    for number, phase in enumerate(receipt["phases"], 1):
        lines += [
            (f"phase {number} manifest", phase["manifest"]),
            (f"phase {number} manifestHash", phase["manifestHash"]),
            (f"phase {number} resultHash", phase["resultHash"]),
            (f"phase {number} cutoffsHash", phase["cutoffsHash"]),
            *_cutoffs(number, phase, own["leaf"]),
            (f"phase {number} cut-offs", phase["cutoffs"]),
            (f"phase {number} strike", phase["strike"] or "none"),
            (f"phase {number} result", phase["result"] or "none"),
            *_texts(f"phase {number} ", phase["published"]),
        ]
    return lines


def _cutoffs(number: int, phase: Mapping[str, Any], line: str) -> Iterator[tuple[str, str]]:
    """The cut-offs of the markets and segments that the entry lists."""
    leaf = parse_leaf(line)
    cutoffs = parse_cutoffs(parse_canonical(phase["cutoffs"].encode(), CUTOFFS))
    for market in leaf.preferences:
        groups = cutoffs[market]
        own = [(segment, cutoff) for segment, cutoff in groups.reserves if segment in leaf.segments]
        for name, cutoff in [
            ("open seats", groups.open),
            *((f"reserve for {each}", found) for each, found in own),
        ]:
            yield f"phase {number} cut-off of {market}, {name}", _cutoff(cutoff)


def _cutoff(cutoff: Cutoff | None) -> str:
    if cutoff is None:
        return "null: seats were left, so it is met"
    if not cutoff.rank:
        return "no seats, so it is not met"
    return f"rank {cutoff.rank:,}, key {cutoff.key}, entryKey {cutoff.entry_key}"


def _texts(prefix: str, published: Mapping[str, Any]) -> list[tuple[str, str]]:
    named = [(NOTICE, published["notice"]), (ACCEPTED, published["accepted"])]
    named += [(replaced_name(number), text) for number, text in enumerate(published["replaced"], 1)]
    return [(prefix + name, text) for name, text in named if text]
