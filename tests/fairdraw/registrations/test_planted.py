"""Frauds on the list before the draw, planted in many campaigns: who sees them is what docs/fairness.md says."""

from __future__ import annotations

import pytest

from fairdraw.log.follow import FollowedLog, follow
from fairdraw.log.place import Place
from fairdraw.terms import iso
from tests.fairdraw.frauds.test_with_the_log import TRUSTED
from tests.fairdraw.registrations.campaigns import CLOSES, DUE, Operator
from tests.fairdraw.registrations.planted import PLANTED, Planted, Seer, seers

FEW = 4


def seen(fraud: Planted, campaigns: range) -> list[set[Seer]]:
    found = []
    for number in campaigns:
        operator = Operator(number)
        found.append(seers(operator, fraud.plant(operator)))
    return found


def test_an_honest_campaign_shows_nothing() -> None:
    for number in range(FEW):
        operator = Operator(number)
        for fan in operator.fans[number::12]:
            if not fan.gone:
                assert seers(operator, fan) == set(), (number, fan)


@pytest.mark.parametrize("fraud", PLANTED, ids=lambda fraud: fraud.name)
def test_a_fraud_is_seen_by_those_whom_the_page_names(fraud: Planted) -> None:
    for found in seen(fraud, range(FEW)):
        assert found - fraud.some == fraud.seen_by


def followed(operator: Operator) -> FollowedLog:
    return follow(Place.of(operator.files().get), now=DUE, trust=TRUSTED)


def rush(operator: Operator, number: int) -> None:
    """That number of fans more, in the last minute."""
    for _ in range(number):
        fan = operator.register(CLOSES - 60 * operator.random.random())
        operator.drawn[fan.ref] = fan.mine.unit


@pytest.mark.parametrize("campaign", range(20))
def test_a_rush_in_the_last_minute_is_no_finding_and_counted_as_late(campaign: int) -> None:
    operator = Operator(campaign)
    rush(operator, 300)
    # The drain is some minutes behind.
    for minute in range(1, 4):
        operator.sizes[len(operator.entries) - 300 + 100 * minute] = CLOSES + 60 * minute
    found = followed(operator)
    assert found.findings == ()
    assert [(each.minute, each.leaves) for each in found.late] == [
        (iso(CLOSES + 60 * minute)[:16], 100) for minute in range(1, 4)
    ]


@pytest.mark.parametrize("campaign", range(20))
def test_a_log_that_was_unavailable_over_the_close_is_a_finding_from_when_to_when(campaign: int) -> None:
    operator = Operator(campaign)
    back, (*_, last) = CLOSES + 3_000, sorted(operator.sizes.values())
    rush(operator, 100)
    operator.log(back)
    found = followed(operator)
    [finding] = found.findings
    assert (
        f"100 entries came into the list of registrations between {iso(int(last))} and {iso(back)}" in finding
    )
    assert sum(each.leaves for each in found.late) == 100
