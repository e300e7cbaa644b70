"""A receipt as plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from regworkers_core.selection.proof.check import ReceiptChecked
from regworkers_core.selection.proof.wording import essentials, headline, step, values

_WIDTH = 100


def receipt_text(receipt: Mapping[str, Any], checked: ReceiptChecked) -> str:
    """The outcome, what was checked, what the seed guarantees, what is left to a replay, and the values."""
    lines = [headline(receipt), ""]
    lines += [f"{name:<12}{value}" for name, value in essentials(receipt)]
    lines += ["", "What the randomness guarantees", *_wrapped(receipt["guarantee"], "  "), ""]
    lines += _checked(checked)
    lines += ["", "Values"]
    lines += [f"  {name}: {value}" for name, value in values(receipt)]
    return "\n".join(lines) + "\n"


def checked_text(checked: ReceiptChecked) -> str:
    """Each check, and what is left to a replay."""
    return "\n".join(_checked(checked)) + "\n"


def _checked(checked: ReceiptChecked) -> list[str]:
    lines = ["Every check holds" if checked.passed else "THIS RECEIPT DOES NOT HOLD"]
    for each in checked.checks:
        lines.append(f"  [{'x' if each.passed else '!'}] {step(each.name)}")
        for line in each.detail.splitlines():
            lines += _wrapped(line, "      ")
    if checked.limits:
        lines += ["", "What a receipt cannot prove alone"]
        for limit in checked.limits:
            lines += _wrapped(limit, "  ")
    return lines


def _wrapped(text: str, indent: str) -> list[str]:
    # Hashes stay whole, to be copied.
    return textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False
    )
