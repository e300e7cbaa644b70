"""The check of a confirmation on the page and the one in Python: one verdict, one failing step, the same words."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from random import Random

import pytest

from fairdraw.maths.files import canonical_bytes
from fairdraw.proof.confirmation import LOOKED_THROUGH
from tests.fairdraw.verifier.confirmations import (
    PublishedList,
    changed,
    page_says,
    python_says,
    random_list,
    witnessed_list,
)
from tests.fairdraw.verifier.node import BUNDLE, Node

pytestmark = pytest.mark.skipif(not BUNDLE.exists(), reason="run `make verifier`")


@pytest.mark.parametrize("lists", [5, pytest.param(60, marks=pytest.mark.slow)])
def test_confirmations_get_the_same_answer_from_both(
    javascript: Node, tmp_path: Path, record_property: Callable[[str, object], None], lists: int
) -> None:
    rng, states = Random(lists), Counter[str]()
    copy = tmp_path / "changed"
    for number in range(lists):
        made = random_list(rng, tmp_path / str(number))
        for confirmation in rng.sample(made.confirmations, min(3, len(made.confirmations))):
            data, trust = (
                canonical_bytes(confirmation.as_document()),
                rng.choice((made.trust, made.trust, None)),
            )
            for change in range(6):
                shutil.copytree(made.folder, copy)
                given = changed(rng, copy, confirmation) if change else data
                ours, theirs = python_says(given, copy, trust), page_says(javascript, given, copy, trust)
                assert ours == theirs, (number, given)
                states.update(f"{name} {state}" for name, state, _ in ours["steps"])
                shutil.rmtree(copy)
    record_property("shown", f"{lists} lists: {dict(states)}")
    for name in ("registration", "log", "witnesses"):
        assert states[f"{name} passed"] and states[f"{name} failed"]
    assert states["witnesses unchecked"] and states["confirmation failed"]


def test_notices_are_looked_for_in_the_newest_entries_or_in_all_by_both(
    javascript: Node, tmp_path: Path
) -> None:
    rng = Random(4)
    made = random_list(rng, tmp_path, counts=(9000, LOOKED_THROUGH))
    looked, read, folder = Counter[bool](), Counter[bool](), made.folder
    moved = [
        each
        for each in made.confirmations
        if each.index < 9000 and each.unit not in (None, "", "home-1", "é 😀|")
    ]
    for confirmation in (*rng.sample(made.confirmations, 6), *moved[:2]):
        data = canonical_bytes(confirmation.as_document())
        for whole in (False, True):
            ours = python_says(data, folder, made.trust, whole=whole)
            assert ours == page_says(javascript, data, folder, made.trust, whole=whole), (confirmation, whole)
            read[whole] += ours["steps"][0][1] == "passed"
            looked[whole] += "--whole" in str(ours["limits"])
    assert moved and looked[False] and not looked[True]
    assert read == {False: 8, True: 8}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> PublishedList:
    return witnessed_list(tmp_path_factory.mktemp("lists"))


def _copied(made: PublishedList, folder: Path) -> Path:
    shutil.copytree(made.folder, folder / "copy")
    return folder / "copy"


@pytest.mark.slow
def test_a_missing_file_leaves_the_page_without_a_verdict_and_is_named(
    javascript: Node, published: PublishedList, tmp_path: Path
) -> None:
    copy = _copied(published, tmp_path)
    for path in sorted(each for each in copy.rglob("*") if each.is_file()):
        data = path.read_bytes()
        path.unlink()
        found = page_says(javascript, published.text(0), copy, published.trust)
        assert found["verdict"] in ("holds", "incomplete") or "checkpoints/" in str(path), path
        path.write_bytes(data)
    shutil.rmtree(copy / "log")
    found = page_says(javascript, published.text(0), copy, published.trust)
    assert {each[2] for each in found["steps"]} == {"log/checkpoint is missing"}


@pytest.mark.slow
def test_what_only_the_page_reads_of_the_log_leads_to_no_other_claim(
    javascript: Node, published: PublishedList, tmp_path: Path
) -> None:
    copy, data = _copied(published, tmp_path), published.text(0)
    honest = page_says(javascript, data, copy, published.trust)
    for folder in ("log/facts", "log/tile"):
        for path in sorted(each for each in (copy / folder).rglob("*") if each.is_file()):
            before = path.read_bytes()
            path.write_bytes(b"0" if folder == "log/facts" else bytes([before[0] ^ 1]) + before[1:])
            found = page_says(javascript, data, copy, published.trust)
            assert found == honest or found["verdict"] in ("fails", "incomplete"), path
            path.write_bytes(before)


def test_a_notice_that_the_fan_may_not_know_is_a_finding_on_the_page(
    javascript: Node, tmp_path: Path
) -> None:
    for seed in count(1):
        made = random_list(Random(seed), tmp_path / str(seed))
        for number in range(len(made.confirmations)):
            found = page_says(javascript, made.text(number), made.folder, made.trust)
            if found["findings"]:
                assert found["findings"][0] in found["steps"][0][2]
                return
