"""The offline check of one receipt, and what became of it."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairdraw.documents import as_document
from fairdraw.errors import DrawError, UsageError
from fairdraw.log.place import Place
from fairdraw.log.trust import Trust, TrustedKey
from fairdraw.maths.beside import Annulled
from fairdraw.maths.files import LEAVES, MANIFEST, RESULT, SUMMARY, Fields, parse_any_layout, short
from fairdraw.proof.checker import DRAWN, EXCLUDED, VERSION, CheckResult, Excluded, Result, State, taken
from fairdraw.proof.confirmation import CONFIRMATION, Confirmation, ConfirmationChecker
from fairdraw.proof.drawn import Drawn
from fairdraw.proof.parts import RECEIPT
from fairdraw.proof.planned import CODE
from fairdraw.proof.registered import REGISTRATION

HOLDS, FAILS, INCOMPLETE = "holds", "fails", "incomplete"
_COMMON = (
    "annulled",
    "campaignId",
    "chain",
    "guarantee",
    "kind",
    "log",
    "opened",
    "ref",
    "registration",
    "roundAt",
    "version",
)
_DRAWN = (
    "entryKey",
    "inclusion",
    "key",
    "market",
    "outcome",
    "phases",
    "rank",
    "seed",
    "siblings",
    "together",
)
_EXCLUDED = ("after", "before", "manifest", "phases", "published", "reasons")


@dataclass(frozen=True, slots=True)
class ReceiptChecked:
    """What became of the checks of a receipt."""

    # Their order is that in which they were made.
    checks: tuple[CheckResult, ...]
    # Whether a trust file names the keys of log and witnesses: else they are those in the receipt.
    trusted: bool
    # What a receipt cannot prove alone.
    limits: tuple[str, ...] = ()
    # What it relies on.
    keys: tuple[TrustedKey, ...] = ()
    # Where the draw differs from what the campaign opened with.
    findings: tuple[str, ...] = ()
    # The operator's statement that the draw does not count.
    annulled: Annulled | None = None
    # None for what cannot be read.
    result: Result | None = None

    @property
    def verdict(self) -> str:
        """`fails` if a step failed, `incomplete` if one is unchecked or no key is trusted, else `holds`."""
        if self.is_in(State.FAILED):
            return FAILS
        return INCOMPLETE if self.is_in(State.UNCHECKED) or not self.trusted else HOLDS

    @property
    def is_fine(self) -> bool:
        """Whether it holds and nothing was found: any other answer is exit code 1."""
        return self.verdict == HOLDS and not self.findings

    def is_in(self, state: State) -> bool:
        """Whether a step ended so."""
        return any(check.state is state for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        return as_document(self, "annulled", "verdict", "trusted", "checks", "findings", "limits", "keys")


def check_receipt(
    data: bytes, trust: Trust | None = None, opened: str | None = None, codes: bytes | None = None
) -> ReceiptChecked:
    """Check a receipt in JSON, in any layout, with trusted keys where given, else with those in the receipt. `opened`
    is the hash of a text of the campaign's opening that the reader has from elsewhere, `codes` the list of planned
    codes, for a receipt with a code.

    Never raises for its content: an error in it is a failed check.
    """
    trust = trust or Trust()
    try:
        document = _parsed(data)
        drawn, version = _kind(document) == DRAWN, document.get("version")
        # `True` and 4.0 equal numbers.
        if version != VERSION or type(version) is not int:
            raise DrawError(RECEIPT, f"version: expected {VERSION}, found {short(version)}")
        own = (*_DRAWN, *({CODE} & document.keys())) if drawn else _EXCLUDED
        fields = Fields(RECEIPT, "", document, (*_COMMON, *own))
        checker = Drawn(fields, trust, opened, codes) if drawn else Excluded(fields, trust, opened)
    except DrawError as error:
        return ReceiptChecked((CheckResult("receipt", State.FAILED, str(error)),), trust.vouches)
    checker.run()
    return ReceiptChecked(
        checks=tuple(checker.checks),
        trusted=trust.vouches,
        limits=checker.all_limits(),
        keys=checker.keys(),
        findings=tuple(checker.findings),
        annulled=checker.annulled,
        result=checker.result(),
    )


def check_confirmation(
    data: bytes, place: Place, trust: Trust | None = None, *, whole: bool = False
) -> ReceiptChecked:
    """Check a confirmation in JSON, in any layout, against the published files at `place`. `whole`: notices about its
    entry are looked for in every later one.

    Never raises for its content: an error in it is a failed check. Raises UsageError for a place that cannot be read.
    """
    trust = trust or Trust()
    try:
        fields = Fields(CONFIRMATION, "", _parsed(data, CONFIRMATION), Confirmation.keys())
        checker = ConfirmationChecker(Confirmation.read(fields), place, trust, whole=whole)
    except DrawError as error:
        return ReceiptChecked((CheckResult(CONFIRMATION, State.FAILED, str(error)),), trust.vouches)
    return ReceiptChecked(
        checks=tuple(taken(name, step, named=True) for name, step in checker.steps()),
        trusted=trust.vouches,
        limits=checker.limits(),
        keys=checker.keys(),
        findings=tuple(checker.findings),
        result=checker.result(),
    )


def is_confirmation(data: bytes) -> bool:
    """Whether this is a confirmation of a registration, and no receipt, as far as its kind says. Raises UsageError if
    it is neither: there is nothing to check.
    """
    try:
        kind = _parsed(data).get("kind")
    except DrawError:
        kind = None
    if kind not in (DRAWN, EXCLUDED, REGISTRATION):
        raise UsageError(
            "this is no receipt or confirmation: give the whole file that the fan got, a page or JSON"
        )
    return bool(kind == REGISTRATION)


def _parsed(data: bytes, what: str = RECEIPT) -> Mapping[str, Any]:
    try:
        # The input is not trusted. Editors on Windows write a mark of the byte order (BOM) before a text.
        document = parse_any_layout(data.removeprefix(codecs.BOM_UTF8))
    except ValueError:
        raise DrawError(what, f"not a JSON document: give the {what} in its JSON format") from None
    if not isinstance(document, dict):
        raise DrawError(what, "expected a JSON object")
    return document


def _kind(document: Mapping[str, Any]) -> str:
    kind = document.get("kind")
    if kind not in (DRAWN, EXCLUDED):
        raise DrawError(RECEIPT, f"kind: expected {DRAWN} or {EXCLUDED}, found {short(kind)}")
    return str(kind)


def differences(data: bytes, folder: Path) -> Iterator[str]:
    """Where a receipt differs from the files of its draw: its texts and lines, and the number of its unit's other
    entries, which no step can show. `folder` has `phase-1`, `phase-2` and so on, as they were replayed.
    """
    checked, document = check_receipt(data), _parsed(data)
    if checked.result is None:
        yield checked.checks[0].detail
        return
    leaf = document["inclusion"]["leaf"] if document["kind"] == DRAWN else ""
    ref, others, found = document["ref"], -1, False
    for line in _lines(folder / "phase-1" / LEAVES):
        of, unit, _ = line.split("|", 2)
        others += bool(leaf) and unit == leaf.split("|", 2)[1]
        found = found or (line == leaf if leaf else of == ref)
    if found != bool(leaf):
        yield f"{ref} is {'not ' if leaf else ''}in {LEAVES} as the receipt says"
    if leaf and others != document["together"]:
        yield f"together: {others} other entries of the unit are in {LEAVES}, the receipt says {document['together']}"
    for number, phase in enumerate(document["phases"], 1 if leaf else 2):
        place = folder / f"phase-{number}"
        for name in (MANIFEST, SUMMARY):
            if not (place / name).is_file() or (place / name).read_text() != phase[name.partition(".")[0]]:
                yield f"phase-{number}/{name}: not that of the receipt"
        if leaf and phase["result"]["line"] not in _lines(place / RESULT):
            yield f"phase-{number}/{RESULT}: does not have the line of the receipt"


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="ascii", errors="replace") as file:
        for line in file:
            yield line.rstrip("\n")
