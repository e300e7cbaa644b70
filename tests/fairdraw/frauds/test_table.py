"""Every fraud has tests that exist, unless nothing catches it, and every test is of a fraud."""

from __future__ import annotations

import re
from pathlib import Path

from tests.fairdraw.frauds.table import FRAUDS, Answer

# What is forged elsewhere holds before.
HONEST = "test_an_honest_receipt_holds"
HERE = Path(__file__).parent
EXISTING = {
    name
    for path in HERE.glob("test_*.py")
    if path.name != Path(__file__).name
    for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
}


def test_tests_of_frauds_exist_and_belong_to_one() -> None:
    assert {test for fraud in FRAUDS for test in fraud.tests} == EXISTING - {HONEST}


def test_what_is_caught_is_tested() -> None:
    assert [fraud.name for fraud in FRAUDS if not fraud.tests and fraud.answer is not Answer.MISSED] == []
    assert len({fraud.name for fraud in FRAUDS}) == len(FRAUDS)
