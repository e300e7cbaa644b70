"""Every fraud has tests that exist, unless nothing catches it, and every test is of a fraud."""

from __future__ import annotations

import re
from pathlib import Path

from fairdraw.maths.files import ARTEFACTS
from tests.fairdraw.frauds.table import FRAUDS, Seer
from tests.fairdraw.verifier.node import ROOT

# What is forged elsewhere holds before.
HONEST = {"test_an_honest_receipt_holds", "test_the_list_of_an_honest_operator_holds"}
HERE = Path(__file__).parent
EXISTING = {
    name
    for path in HERE.glob("test_*.py")
    if path.name != Path(__file__).name
    for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
}


def test_tests_of_frauds_exist_and_belong_to_one() -> None:
    assert {test for fraud in FRAUDS for test in fraud.tests} == EXISTING - HONEST


def test_what_is_caught_is_tested_where_it_is_caught() -> None:
    caught = {Seer.FAN, Seer.LOG, Seer.REPLAY}
    for fraud in FRAUDS:
        if caught.intersection(fraud.seen_by):
            assert fraud.tests and caught.issuperset(fraud.seen_by), fraud.name
            # What witnesses refuse is no step.
            assert fraud.places or fraud.seen_by == (Seer.LOG,), fraud.name
        else:
            assert not fraud.places and len(fraud.seen_by) == 1, fraud.name
    assert len({fraud.name for fraud in FRAUDS}) == len(FRAUDS)


def test_each_step_is_one_of_the_rules() -> None:
    rules = (ROOT / "docs" / "draw-rules.md").read_text(encoding="utf-8")
    steps = {name.removesuffix("-<n>") for name in re.findall(r"`([\w<>-]+)`", _steps_of(rules))}
    for fraud in FRAUDS:
        for place in fraud.places:
            assert place in steps or " " in place or place in ARTEFACTS, (fraud.name, place)


def _steps_of(rules: str) -> str:
    """The first column of the table of the steps."""
    rows = rules.partition("| step | what is checked |")[2].partition("\n\n")[0].splitlines()
    return "\n".join(row.split("|")[1] for row in rows if row)
