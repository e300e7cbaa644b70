"""A checked receipt for people, as plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from fairdraw.answers import visible
from fairdraw.maths.beside import ACCEPTED, NOTICE, replaced_name
from fairdraw.maths.files import CUTOFFS, parse_canonical
from fairdraw.maths.leaves import parse_leaf
from fairdraw.maths.opened import opened_name
from fairdraw.maths.rules import Cutoff, parse_cutoffs
from fairdraw.proof.check import FAILS, HOLDS, ReceiptChecked
from fairdraw.proof.checker import DRAWN, EXCLUDED, NO_OPENED, Result, State
from fairdraw.proof.confirmation import NOT_YET
from fairdraw.proof.registered import NO_REGISTRATIONS, NOT_SHOWN, REGISTRATION
from fairdraw.terms import CHAIN_FILE

# Columns of the plain text.
_WIDTH = 100
_HEADLINES = {
    "WINNER": "Selected",
    "WAITLIST": "On the waiting list",
    "UNSELECTED": "Not selected",
    "HOUSEHOLD_LIMIT": "Not selected: the household's limit was reached",
    "STRUCK": "Removed from the draw",
    "UNCLAIMED": "Selected before, but the seat was not claimed in time",
    EXCLUDED: "Not in the draw",
    REGISTRATION: "Registered",
}
# Headlines of a confirmation whose first step found no list with the entry, and could not be taken.
_NOT_FOUND, _NOT_CHECKED = "Not found in the list", "Not checked: public files are missing"
# Titles of the checks.
STEPS = {
    "receipt": "The receipt is readable",
    "confirmation": "The confirmation is readable",
    "leaf": "The entry as it took part",
    "inclusion": "The entry is in the committed list",
    "manifest": "The commitments, one for each phase",
    "published": "Statements that the operator published",
    "opened": "The campaign as it opened, and what changed since",
    "randomness": "The source of the randomness",
    "seed": "The seed follows from the commitment and the randomness",
    "key": "The key of the unit follows from the seed",
    "entryKey": "The key of the entry follows from the seed",
    "candidate": "The number of entries of the unit that may win",
    "rank": "The rank agrees with the cut-offs",
    "stated": "The receipt states the actual outcome",
    "code": "The code has this salt and no other one",
    "planned": "The code was planned for one place",
    "absence": "The entry was not in the draw",
    "reason": "The reason for the exclusion",
    "registration": "The entry was in the list before the draw",
    "log": "The statements are in the public log",
    "witnesses": "Witnesses saw the same log",
}
# Steps of each phase, by how their names begin.
_OF_PHASE = {
    "result": "The line of the entry is in the result of phase {}",
    "strike": "The entry is in the list of strikes of phase {}",
    "outcome": "The outcome of phase {} follows from key and cut-offs",
}
_MARKS = {State.PASSED: "x", State.FAILED: "!", State.UNCHECKED: "?"}
_ANNULLED = "This draw was annulled: its outcomes do not count"
_GIVEN = {
    "receipt": "Keys as this receipt has them",
    "log": "Keys as the operator published them",
    "rules": "Keys as the rules of a draw have them",
    "trust": "Keys as the trust file gives them",
}
_BY_ITS_KEYS = (
    "Everything fits together, by {}. Compare their fingerprints below with a source that the"
    " operator cannot change, or give the keys that you trust in a file (--trust)."
)


def receipt_text(receipt: Mapping[str, Any], checked: ReceiptChecked) -> str:
    """The checked receipt, what the seed guarantees, and all values, as text."""
    lines = [checked_text(checked), "What the randomness guarantees", *_wrapped(receipt["guarantee"], "  ")]
    lines += ["", "Values", *(f"  {name}: {value}" for name, value in values(receipt))]
    return "\n".join(lines) + "\n"


def checked_text(checked: ReceiptChecked) -> str:
    """The result, what was checked, what is left to trust, then every step and key, as text; first an annulment."""
    lines = []
    if (annulled := checked.annulled) is not None:
        lines = [_ANNULLED, *_wrapped(f"{annulled.annulled_at}: {annulled.reason}", "  "), ""]
    if checked.result is not None:
        lines += [*_result(checked.result, checked), ""]
    lines += _wrapped(verdict(checked), "")
    for finding in checked.findings:
        lines += _wrapped(f"FINDING: {finding}", "")
    if checked.limits:
        lines += ["", "What is left to trust"]
        for limit in checked.limits:
            lines += textwrap.wrap(limit, _WIDTH, initial_indent="  - ", subsequent_indent="    ")
    lines += ["", "Steps"]
    for each in checked.checks:
        # Where the campaign logged nothing, or the receipt has nothing of it, there is nothing that could have passed.
        named = each.detail not in (NO_OPENED, NO_REGISTRATIONS, NOT_SHOWN)
        title = step(each.name) if named else f"{step(each.name)}: not applicable"
        lines.append(f"  [{_MARKS[each.state] if named else '-'}] {title}")
        for line in each.detail.splitlines():
            lines += _wrapped(line, "      ")
    for title, keys in trusted(checked):
        lines += ["", title, *(f"  {name}: {fingerprint}" for name, fingerprint in keys)]
    return "\n".join(lines) + "\n"


def verdict(checked: ReceiptChecked) -> str:
    """One sentence on what was checked."""
    registered = checked.result is not None and checked.result.outcome == REGISTRATION
    what = "confirmation" if registered or checked.checks[0].name == "confirmation" else "receipt"
    wrong = [step(each.name) for each in checked.checks if each.state is State.FAILED]
    if wrong:
        return f"THIS {what.upper()} IS NOT VALID. What failed: {'; '.join(wrong)}"
    if checked.verdict == HOLDS:
        passed = f"every check passed, {len(checked.checks)} of {len(checked.checks)}"
        if checked.findings:
            return f"{passed[0].upper()}{passed[1:]}, but read what else was found about this {what}:"
        return f"This {what} holds: {passed}."
    # Each says what is missing, then, behind a colon, what that means.
    missing = [each.detail.partition(":")[0] for each in checked.checks if each.state is State.UNCHECKED]
    if missing:
        return (
            f"Nothing failed, but not everything was checked. incomplete: {'; '.join(dict.fromkeys(missing))}"
        )
    keys = "the keys in this receipt" if what == "receipt" else "the keys that the operator published"
    return _BY_ITS_KEYS.format(keys)


def _result(result: Result, checked: ReceiptChecked) -> list[str]:
    """The outcome in words, and whose it is."""
    claimed = checked.verdict == FAILS
    said = _HEADLINES[result.outcome] + (f": {result.market}" if result.market else "")
    if result.outcome == REGISTRATION and not claimed and checked.checks[0].state is not State.PASSED:
        said = _NOT_FOUND if checked.checks[0].detail.startswith(NOT_YET) else _NOT_CHECKED
    if result.since:
        said += f"; {result.since}"
    if result.reasons:
        said += f" ({', '.join(result.reasons)})"
    named = f"{result.campaign} ({result.campaign_id})" if result.campaign else result.campaign_id
    rank = f", rank {int(result.rank):,}" if result.rank else ""
    lines = [f"It claims: {said}" if claimed else said, f"  {named}, reference {result.ref}{rank}"]
    # What is not valid may say anything, also in lines of its own.
    return [*map(visible, lines)]


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


def step(name: str) -> str:
    """The title of a check."""
    kind, _, phase = name.partition("-")
    return _OF_PHASE[kind].format(phase) if kind in _OF_PHASE else STEPS.get(name, name)


def values(receipt: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values to recompute the outcome."""
    lines = [(CHAIN_FILE, receipt["chain"])] if receipt["chain"] else []
    lines += [(opened_name(number), text) for number, text in enumerate(receipt["opened"])]
    lines += _registered(receipt["registration"] or {})
    if receipt["kind"] != DRAWN:
        lines += [("manifest", receipt["manifest"]), *_texts("", receipt["published"])]
        for side in ("before", "after"):
            if receipt[side]:
                lines.append((f"neighbour {side}", receipt[side]["leaf"]))
        for number, phase in enumerate(receipt["phases"], 2):
            lines += [(f"phase {number} {name}", phase[name]) for name in ("manifest", "summary")]
        return lines
    own = receipt["inclusion"]
    # Only the winner's own receipt has a code.
    lines += [(f"{name} of the code", str(value)) for name, value in receipt.get("code", {}).items()]
    lines += [
        ("leaf", own["leaf"]),
        ("leaf number (from 0)", str(own["index"])),
        *_proof("proof", own),
        ("seed.json", receipt["seed"]),
        ("key", receipt["key"]),
        ("entryKey", receipt["entryKey"]),
    ]
    lines += [("of the same unit, ahead", each["leaf"]) for each in receipt["siblings"]]
    for number, phase in enumerate(receipt["phases"], 1):
        result, strike = phase["result"], phase["strike"]
        lines += [
            (f"phase {number} manifest", phase["manifest"]),
            (f"phase {number} summary", phase["summary"]),
            *_cutoffs(number, phase, own["leaf"]),
            (f"phase {number} cut-offs", phase["cutoffs"]),
            (f"phase {number} result", result["line"]),
            *_proof(f"phase {number} result proof", result),
            (f"phase {number} strike", strike["line"] if strike else "none"),
        ]
        if strike:
            lines.append((f"phase {number} strike number (from 0)", f"{strike['index']} of {strike['size']}"))
            lines += _proof(f"phase {number} strike proof", strike)
        lines += _texts(f"phase {number} ", phase["published"])
    return lines


def _registered(registration: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What the list of registrations has of the entry."""
    for key, value in registration.items():
        if key not in ("notices", "proof"):
            yield f"registration {key}", str(value)
    if "proof" in registration:
        yield from _proof("registration proof", registration)
    for notice in registration.get("notices", ()):
        yield f"registration notice {notice['index']}", notice["text"]
        yield from _proof(f"registration notice {notice['index']} proof", notice)


def _proof(name: str, proven: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for number, each in enumerate(proven["proof"], 1):
        yield f"{name} {number}", each


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
