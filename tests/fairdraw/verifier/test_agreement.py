"""The check of a receipt in JavaScript and the one in Python: one verdict, one failing step, the same words."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from tests.fairdraw.proof.draws import CAMPAIGN, publish_beside, two_phases
from tests.fairdraw.verifier.agreement import Question, compare, receipts_to_compare
from tests.fairdraw.verifier.draws import LOCAL
from tests.fairdraw.verifier.folders import any_signature, compare_folders, follow, judgements
from tests.fairdraw.verifier.forgeries import canonical
from tests.fairdraw.verifier.node import BUNDLE, Node

RECEIPTS = 100
STEPS = {"leaf", "inclusion", "manifest", "published", "opened", "randomness", "seed", "key", "entryKey", "candidate",
         "result", "strike", "outcome", "rank", "stated", "absence", "reason", "registration", "log",
         "witnesses"}  # fmt: skip

# How findings begin: what a draw has otherwise than its campaign opened with.
FINDINGS = {"asOf", "seats", "waiting", "wins"}


@pytest.mark.parametrize(
    "curves",
    [pytest.param(False, id="without curves"), pytest.param(True, id="with curves", marks=pytest.mark.slow)],
)
def test_random_and_changed_receipts_get_the_same_answer_from_both(
    tmp_path: Path, javascript: Node, record_property: Callable[[str, object], None], curves: bool
) -> None:
    if curves and not BUNDLE.exists():
        pytest.skip("the bundle of `make verifier` is not there: JavaScript verifies no signature")
    random, changed = receipts_to_compare(Random(18), tmp_path, RECEIPTS)
    for name, questions in (("random", random), ("changed", changed)):
        found = compare(javascript, questions, curves=curves)
        with_curves = "with" if curves else "without"
        record_property("shown", f"{len(questions)} {name} receipts, {with_curves} curves: {found}")
        for question, ours, theirs in found.differing[:1]:
            assert ours == theirs, question
        seen = {step for step, _ in found.states}
        assert seen >= STEPS, STEPS - seen
        assert {*found.findings} >= FINDINGS, FINDINGS - {*found.findings}
        if name == "changed":
            failed = {step for step, state in found.states if state == "failed"}
            assert failed >= STEPS | {"receipt"}, STEPS - failed
        else:
            assert (
                found.verdicts["holds"] > RECEIPTS / 40
                if curves
                else found.verdicts["incomplete"] > RECEIPTS / 2
            )


NO_RECEIPTS = [
    b"", b" ", b"[]", b"null", b"7", b'"x"', b"{}", b"{", b"\xff", b"\xed\xa0\x80", b"{}\x00", b"{} {}",
    b'{"kind": "draw"}', b'{"kind": ["draw"]}', b'{"kind": "draw", "version": 4, "kind": "draw"}', b'{"__proto__": {}}',
    b'{"kind": "draw", "version": 3}', b'{"kind": "excluded", "version": 4}', b'{"kind": "excluded", "version": 4.0}',
    b'{"kind": "draw", "version": 1}', b'{"kind": "draw", "version": true}', b'{"kind": "draw", "version": 1e400}',
    "\ufeff{}".encode(), "\ufeff\ufeff{}".encode(), "\u00a0{}".encode(), b"{}\r\n\t ", b"\x0b{}", "{}\u00a0".encode(),
    b'{"a": "\\ud83d"}', b'{"a": "\\udc00\\ud83d"}',
    b"[" * 100_000, b'{"a":' * 64 + b"1" + b"}" * 64, b'{"a":' * 65 + b"1" + b"}" * 65,
]  # fmt: skip


def test_what_is_no_receipt_is_refused_alike(javascript: Node) -> None:
    found = compare(javascript, [*map(Question, NO_RECEIPTS)], curves=True)
    assert not found.differing and found.states == {("receipt", "failed"): len(NO_RECEIPTS)}


@pytest.mark.parametrize("folders", [60, pytest.param(300, marks=pytest.mark.slow)])
def test_random_and_forged_folders_get_the_same_verdict_from_all(
    tmp_path: Path, record_property: Callable[[str, object], None], folders: int
) -> None:
    found = compare_folders(Random(folders), tmp_path, folders)
    record_property("shown", f"{folders} folders: {dict(found.verdicts)}")
    assert not found.differing, found.differing[0]
    # Six draws may have no annulment that is as it should be: those below do.
    assert {*found.verdicts} >= {"holds", "fails", *(["annulled"] if folders > 60 else [])}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two phases, with what the operator publishes beside them."""
    root = publish_beside(two_phases(tmp_path_factory.mktemp("published")))
    shutil.rmtree(root / "scratch", ignore_errors=True)
    return root


def _annulment(_data: bytes, phase: int = 2) -> bytes:
    """A valid one, but for the hash of a manifest that the test does not know."""
    return canonical({"annulledAt": "2026-01-01T00:00:00.000Z", "campaignId": CAMPAIGN, "manifestHash": None,
                      "phase": phase, "reason": "the wrong list"})  # fmt: skip


def _of(phase: int, name: str) -> Callable[[Path], Path]:
    return lambda folder: folder / f"phase-{phase}" / name


@pytest.mark.parametrize(
    ("file", "change", "verdict"),
    [
        pytest.param(_of(2, "strikes.txt"), lambda data: data[:-1], "fails", id="no last line feed"),
        pytest.param(
            _of(1, "notice.json"),
            lambda data: data.replace(b'"east":4', b'"east":5'),
            "fails",
            id="capacities",
        ),
        pytest.param(_of(1, "notice.json"), lambda _: b"garbage", "fails", id="no notice"),
        pytest.param(
            _of(1, "notice.json"),
            lambda data: data.replace(b'"strikes":1', b'"strikes":2'),
            "fails",
            id="strikes",
        ),
        pytest.param(
            _of(2, "notice.json"), lambda data: data.replace(b"more", b"m\xff"), "fails", id="no UTF-8"
        ),
        pytest.param(_of(1, "accepted.json"), lambda _: b"[7]", "fails", id="accepted"),
        pytest.param(_of(1, "replaced-1.json"), lambda data: data[:-1], "fails", id="replaced"),
        pytest.param(_of(1, "replaced-3.json"), lambda _: b"{}", "fails", id="a gap"),
        pytest.param(_of(2, "annulled.json"), lambda _: b"{}", "fails", id="no annulment"),
        pytest.param(_of(2, "annulled.json"), _annulment, "annulled", id="annulled"),
        pytest.param(
            _of(1, "annulled.json"), lambda _: _annulment(b"", 1), "annulled", id="a phase after it"
        ),
        pytest.param(lambda folder: folder / "chain.json", lambda _: LOCAL.to_bytes(), "fails", id="a chain"),
        pytest.param(lambda folder: folder / "opened.json", lambda _: b"{}", "fails", id="opened"),
        pytest.param(lambda folder: folder / "amended-1.json", lambda _: b"{}", "fails", id="amended"),
    ],
)
def test_a_file_that_one_refuses_all_refuse(
    published: Path,
    tmp_path: Path,
    file: Callable[[Path], Path],
    change: Callable[[bytes], bytes],
    verdict: str,
) -> None:
    folder = tmp_path / "draw"
    shutil.copytree(published, folder)
    with any_signature():
        assert {each.verdict for each in judgements(folder).values()} == {"holds"}
        path = file(folder)
        path.write_bytes(change(path.read_bytes() if path.exists() else b""))
        if path.name == "strikes.txt":
            follow(folder)
        assert {each.verdict for each in judgements(folder).values()} == {verdict}
