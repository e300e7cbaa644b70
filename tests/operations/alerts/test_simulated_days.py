"""Planted incidents are found, blips do not page: the conditions over simulated days of `drain_log`."""

from __future__ import annotations

import pytest

from regworkers_core.domain.snapshot import DELIVERY, FRESHNESS, Severity
from tools.simulated_days import Result, simulated
from tools.write_tables import ON_REQUEST, parts


def missed(result: Result) -> list[str]:
    return [each.planted.what for each in result.outcomes if each.minutes["both"] is None]


def test_four_days_with_incidents_and_blips_have_a_page_for_each_incident_and_no_other() -> None:
    result = simulated(days=4)
    assert {each.planted.objective for each in result.outcomes} == {DELIVERY, FRESHNESS}
    assert not missed(result) and not result.false_pages["both"] and result.blips == 8


@pytest.mark.slow
def test_of_thirty_days_no_incident_is_missed_and_at_most_one_page_is_false() -> None:
    result = simulated()
    assert not missed(result) and result.blips > 60
    assert len(result.false_pages["both"]) <= 1 < len(result.false_pages["threshold"])


@pytest.mark.slow
def test_what_only_warns_does_not_page_and_both_ways_are_as_fast_as_the_budget_allows() -> None:
    for each in simulated().outcomes:
        if each.planted.expects is Severity.WARNING:
            assert each.pages["both"] == 0, each.planted.what
        else:
            seen = [each.minutes[way] for way in ("threshold", "burn rate") if each.minutes[way] is not None]
            assert each.minutes["both"] in seen, each.planted.what


@pytest.mark.slow
def test_the_page_shows_what_the_simulation_finds() -> None:
    for (page, name), table in ON_REQUEST["pages"].items():
        assert parts(page, name)[1] == table(), "run `python -m tools.write_tables pages`"
