"""The registration in a receipt on the page: forgeries fail there as they do in Python, with the same words."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairdraw.maths.files import canonical_bytes
from tests.fairdraw.proof.test_registered import STEP, Draw, Receipt, changed, withdrawn_and_drawn
from tests.fairdraw.proof.test_registered import draw as draw
from tests.fairdraw.verifier.agreement import Compared, Question, compare
from tests.fairdraw.verifier.node import Node


def _compared(javascript: Node, *receipts: Receipt) -> Compared:
    found = compare(javascript, [Question(canonical_bytes(each)) for each in receipts], curves=False)
    assert not found.differing, found.differing[0]
    return found


def test_registrations_of_drawn_and_excluded_entries_hold_on_the_page(javascript: Node, draw: Draw) -> None:
    own, other = (draw.receipt(each.ref or "") for each in (draw.moved, draw.excluded))
    assert _compared(javascript, own, other).states[STEP, "passed"] == 2


@pytest.mark.parametrize("forged", ["salt", "proof", "ended"])
def test_a_forged_registration_fails_on_the_page(
    javascript: Node, draw: Draw, tmp_path: Path, forged: str
) -> None:
    receipt = draw.receipt(draw.moved.ref or "")
    if forged == "salt":
        receipt = changed(receipt, salt="0" * 32)
    elif forged == "proof":
        receipt = changed(receipt, proof=[*receipt[STEP]["proof"][:-1], "ab" * 32])
    else:
        receipt = withdrawn_and_drawn(tmp_path)
    assert _compared(javascript, receipt).states[STEP, "failed"] == 1
