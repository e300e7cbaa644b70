"""The figures of docs/fairness.md about registrations: exact chances are those of simulated campaigns, and the page has
what the code computes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random

import pytest

from fairdraw.maths.registration import RegistrationTree
from fairdraw.proof.opening_audit import chosen
from tests.fairdraw.maths.oracle import sha
from tests.fairdraw.registrations.planted import PLANTED, Seer
from tools.registration_log import (
    CROWDS,
    HONEST,
    INVENTED,
    SPREADS,
    chance_by_fans,
    chance_by_sample,
    expected,
    unlike,
)
from tools.write_tables import parts

CAMPAIGNS = 400


def is_within_chance(hits: int, campaigns: int, chance: float) -> bool:
    """Whether the hits are within five standard deviations, which one case in two million is not."""
    return abs(hits - campaigns * chance) <= 5 * math.sqrt(campaigns * chance * (1 - chance)) + 1e-9


@pytest.mark.parametrize("left_out", [1, 3, 10, 40, 100])
@pytest.mark.parametrize("sample", [1, 20, 90, 200])
def test_the_chance_of_a_sample_is_that_of_counting_all_samples(left_out: int, sample: int) -> None:
    missing = math.comb(200 - left_out, sample) / math.comb(200, sample)
    assert chance_by_sample(left_out, sample, 200) == pytest.approx(1 - missing)


@pytest.mark.parametrize(("left_out", "sample"), [(1, 30), (3, 30), (10, 30), (30, 10), (100, 5)])
def test_samples_that_the_beacon_chooses_find_what_was_left_out_as_often_as_computed(
    left_out: int, sample: int
) -> None:
    tree, random = RegistrationTree(), Random(left_out)
    for number in range(300):
        tree.add(sha(f"{number}").encode())
    # Some entries are no registrations.
    for number in range(40):
        tree.add(f"vfnote1|{number}|withdrawn|-".encode())
    hits = 0
    for campaign in range(CAMPAIGNS):
        lost = set(random.sample(range(300), left_out))
        found = chosen(sha(f"round {left_out} {campaign}"), tree, sample)
        assert len(found) == sample and max(found) < 300
        hits += bool(found & lost)
    assert is_within_chance(hits, CAMPAIGNS, chance_by_sample(left_out, sample, 300))


@pytest.mark.parametrize("share", [0.001, 0.01, 0.05])
@pytest.mark.parametrize("left_out", [1, 10, 100, 1_000])
def test_fans_who_look_find_what_was_left_out_as_often_as_computed(share: float, left_out: int) -> None:
    random = Random(left_out)
    looks: Iterator[bool] = (any(random.random() < share for _ in range(left_out)) for _ in range(CAMPAIGNS))
    assert is_within_chance(sum(looks), CAMPAIGNS, chance_by_fans(left_out, share))


def test_invented_entries_come_on_top_of_the_honest_ones() -> None:
    for spread in SPREADS:
        for entries in CROWDS:
            more = expected(entries, spread).sum() - expected(entries, HONEST).sum() * spread.market
            assert more == pytest.approx(INVENTED)


def test_the_page_has_the_arrivals_that_are_computed() -> None:
    _, rows = table("registrations, arrivals")
    assert [row[0] for row in rows] == [spread.name for spread in SPREADS]
    for row, spread in zip(rows, SPREADS, strict=True):
        entries = CROWDS[0]
        cells = {str(unlike(entries, spread, hours)) for hours in (1, 24)}
        assert row[1] in cells, "run `python -m tools.write_tables registrations`"


def test_the_page_says_who_sees_each_planted_fraud() -> None:
    columns, rows = table("registrations, planted")
    assert columns[1:] == list(Seer) and [row[0] for row in rows] == [fraud.name for fraud in PLANTED]
    for row, fraud in zip(rows, PLANTED, strict=True):
        for seer, cell in zip(Seer, row[1:], strict=True):
            if seer in fraud.some:
                # Half of the registrations are opened.
                assert is_within_chance(int(cell), 100, 0.5)
            else:
                assert int(cell) == 100 * (seer in fraud.seen_by)


def table(name: str) -> tuple[list[str], list[list[str]]]:
    """Column names and rows of a table on the page."""
    columns, _, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in parts("fairness.md", name)[1].splitlines()
    )
    return columns, rows
