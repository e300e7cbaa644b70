"""The check of a receipt in JavaScript and the one in Python: one verdict, one failing step, the same words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from tests.selection.verifier.agreement import compare, receipts_to_compare
from tests.selection.verifier.node import BUNDLE, Node

RECEIPTS = 200
STEPS = {"leaf", "inclusion", "manifest", "published", "randomness", "seed", "key", "entryKey", "candidate", "outcome",
         "rank", "stated", "absence", "reason", "log", "witnesses"}  # fmt: skip


@pytest.mark.parametrize("curves", [False, True], ids=["without curves", "with curves"])
def test_random_and_changed_receipts_get_the_same_answer_from_both(
    tmp_path: Path, javascript: Node, record_property: Callable[[str, object], None], curves: bool
) -> None:
    if curves and not BUNDLE.exists():
        pytest.skip("the bundle of `make verifier` is not there: JavaScript verifies no signature")
    random, changed = receipts_to_compare(Random(17), tmp_path, RECEIPTS)
    for name, questions in (("random", random), ("changed", changed)):
        found = compare(javascript, questions, curves=curves)
        with_curves = "with" if curves else "without"
        record_property("shown", f"{len(questions)} {name} receipts, {with_curves} curves: {found}")
        for data, trust, ours, theirs in found.differing[:1]:
            assert ours == theirs, (data, trust)
        seen = {step for step, _ in found.states}
        assert seen >= STEPS, STEPS - seen
        if name == "changed":
            failed = {step for step, state in found.states if state == "failed"}
            assert failed >= STEPS | {"receipt"}, STEPS - failed
        else:
            assert found.verdicts["holds" if curves else "incomplete"] > RECEIPTS / 4
