"""Every test of a fraud plants a defect in each program that catches the fraud, and catches it where the table says."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator

import pytest

from tests.fairdraw.frauds.forging import ASKED
from tests.fairdraw.frauds.table import FRAUDS
from tests.fairdraw.verifier.node import BUNDLE


@pytest.fixture(autouse=True)
def caught_as_the_table_says(request: pytest.FixtureRequest) -> Iterator[None]:
    ASKED.clear()
    yield
    for program in {each.program for each in ASKED}:
        answers: dict[Hashable, set[frozenset[str]]] = {}
        for each in ASKED:
            if each.program == program:
                answers.setdefault(each.what, set()).add(frozenset(each.said))
        caught = any(said for answer in answers.values() for said in answer)
        fewer = any(one < other for answer in answers.values() for one in answer for other in answer)
        # A page without the curves checks no signature, with the defect or without.
        blind = program == "page" and not BUNDLE.exists()
        assert fewer or not caught or blind, (
            f"no defect was planted in {program}: with one it says less of the fraud"
        )
    said = {re.sub(r"-\d+$", "", text) for each in ASKED for text in each.said}
    for fraud in FRAUDS:
        alone = len(fraud.tests) == 1
        # Of several tests one may show what else holds.
        if request.function.__name__ in fraud.tests and (said or alone):
            found = [place for place in fraud.places if any(place in text for text in said)]
            assert len(found) >= (len(fraud.places) if alone else 1), f"{fraud.name}: caught at {said}"
