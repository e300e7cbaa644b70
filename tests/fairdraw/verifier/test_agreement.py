"""The check of a receipt in JavaScript and the one in Python: one verdict, one failing step, the same words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from tests.fairdraw.verifier.agreement import compare, receipts_to_compare
from tests.fairdraw.verifier.node import BUNDLE, Node

RECEIPTS = 200
STEPS = {"leaf", "inclusion", "manifest", "published", "randomness", "seed", "key", "entryKey", "candidate", "outcome",
         "rank", "stated", "absence", "reason", "log", "witnesses"}  # fmt: skip


@pytest.mark.parametrize(
    "curves",
    [pytest.param(False, id="without curves"), pytest.param(True, id="with curves", marks=pytest.mark.slow)],
)
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


NO_RECEIPTS = [
    b"", b" ", b"[]", b"null", b"7", b'"x"', b"{}", b"{", b"\xff", b"\xed\xa0\x80", b"{}\x00", b"{} {}",
    b'{"kind": "draw"}', b'{"kind": ["draw"]}', b'{"kind": "draw", "version": 3, "kind": "x"}', b'{"__proto__": {}}',
    b'{"kind": "draw", "version": 2}', b'{"kind": "excluded", "version": 3}', b'{"kind": "excluded", "version": 3.0}',
    b'{"kind": "draw", "version": 1}', b'{"kind": "draw", "version": true}', b'{"kind": "draw", "version": 1e400}',
    "\ufeff{}".encode(), "\ufeff\ufeff{}".encode(), "\u00a0{}".encode(), b"{}\r\n\t ", b"\x0b{}", "{}\u00a0".encode(),
    b'{"a": "\\ud83d"}', b'{"a": "\\udc00\\ud83d"}',
    b"[" * 100_000, b'{"a":' * 64 + b"1" + b"}" * 64, b'{"a":' * 65 + b"1" + b"}" * 65,
]  # fmt: skip


def test_what_is_no_receipt_is_refused_alike(javascript: Node) -> None:
    found = compare(javascript, [(data, None) for data in NO_RECEIPTS], curves=True)
    assert not found.differing and found.states == {("receipt", "failed"): len(NO_RECEIPTS)}
