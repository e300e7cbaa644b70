"""Checking one receipt with nothing else at hand: leaf, root, manifest, seed, keys, cut-offs, outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from regworkers_core.domain.reasons import UsageError
from regworkers_core.selection.maths.canonical import Fields, short
from regworkers_core.selection.maths.errors import DrawError
from regworkers_core.selection.proof.check_drawn import Drawn
from regworkers_core.selection.proof.check_excluded import Excluded
from regworkers_core.selection.proof.parts import RECEIPT, Check
from regworkers_core.selection.proof.receipt import DRAWN, EXCLUDED, VERSION

_COMMON = ("annulled", "campaignId", "guarantee", "kind", "ref", "roundAt", "version")
_DRAWN = ("entryKey", "inclusion", "key", "market", "outcome", "phases", "rank", "seed", "siblings")
_EXCLUDED = ("after", "before", "manifest", "published", "reasons")


@dataclass(frozen=True, slots=True)
class ReceiptChecked:
    """`limits` are what no receipt can prove alone."""

    checks: tuple[Check, ...]
    limits: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "checks": [
                {"name": each.name, "passed": each.passed, "detail": each.detail} for each in self.checks
            ],
            "limits": list(self.limits),
        }


def check_receipt(data: bytes) -> ReceiptChecked:
    """Check a receipt as `receipt_bytes` made it (or the same JSON laid out otherwise). Never raises for its
    content: whatever is wrong with it is a check that failed.
    """
    try:
        document = _parsed(data)
        fields = Fields(
            RECEIPT, "", document, (*_COMMON, *(_DRAWN if _kind(document) == DRAWN else _EXCLUDED))
        )
        if fields.raw("version") != VERSION:
            fields.refuse(
                "version", f"{VERSION} is what is understood here, found {short(fields.raw('version'))}"
            )
        checker = Drawn(fields) if _kind(document) == DRAWN else Excluded(fields)
    except DrawError as error:
        return ReceiptChecked((Check("receipt", False, str(error)),))
    for name, step in checker.steps():
        checker.run(name, step)
    return ReceiptChecked(tuple(checker.checks), checker.limits())


def require_receipt(data: bytes) -> None:
    """Raises UsageError for what is no receipt at all: then there is nothing that could be false."""
    try:
        _parsed(data)
    except DrawError as error:
        raise UsageError(f"this is not a receipt: {error.message}") from None


def _parsed(data: bytes) -> Mapping[str, Any]:
    try:
        # It comes from a stranger: this parser refuses a nest that is too deep, the standard one may crash.
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise DrawError(
            RECEIPT, "not a JSON document, and what is checked is the receipt in its JSON form"
        ) from None
    if not isinstance(document, dict):
        raise DrawError(RECEIPT, "a JSON object is needed")
    return document


def _kind(document: Mapping[str, Any]) -> str:
    kind = document.get("kind")
    if kind not in (DRAWN, EXCLUDED):
        raise DrawError(RECEIPT, f"kind: {DRAWN} or {EXCLUDED} is needed, found {short(kind)}")
    return str(kind)
