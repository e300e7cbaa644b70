"""Before a draw: codes for every seat, here and at the Code Service. A warning, never a hindrance."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from regworkers_core.adapters.mongo.codes import CodeStatus
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.reasons import Failure, TransientFailure, UsageError
from regworkers_core.selection.codes.stock import CodesPrecheck, check_codes
from tests.support.campaigns import definition

pytestmark = pytest.mark.namespace("module")

CAMPAIGN = Campaign.parse({**definition("summer", status="CLOSED"), "_id": "summer"})
SEATS = {market.market_id: market.capacity for market in CAMPAIGN.markets}


def checked(here: Mapping[str, int], answer: Mapping[str, int] | Exception | None = None) -> CodesPrecheck:
    """With this number of codes here, and a Code Service with this answer; without one, none is configured."""

    def available(_campaign_id: str) -> Mapping[str, int]:
        if isinstance(answer, Exception):
            raise answer
        return answer or {}

    runtime: Any = SimpleNamespace(
        codes=SimpleNamespace(
            count=lambda _id: {market: {CodeStatus.AVAILABLE: number} for market, number in here.items()}
        ),
        services=SimpleNamespace(code=SimpleNamespace(available=available)),
        settings=SimpleNamespace(
            services=SimpleNamespace(
                code=SimpleNamespace(base_url=None if answer is None else "http://codes")
            )
        ),
    )
    return check_codes(runtime, CAMPAIGN)


def test_with_a_code_for_every_seat_there_is_nothing_to_say() -> None:
    assert checked(SEATS).warnings == []
    assert checked(SEATS, SEATS).warnings == []


def test_a_market_with_too_few_codes_is_named_with_the_numbers() -> None:
    (warning,) = checked({**SEATS, "berlin": 0}).warnings
    assert "berlin: 0 available of" in warning and "codes import" in warning


def test_codes_that_the_service_lacks_are_reported() -> None:
    (warning,) = checked(SEATS, {**SEATS, "berlin": 0}).warnings
    assert "berlin" in warning and "0 at the Code Service" in warning


@pytest.mark.parametrize(
    "trouble", [TransientFailure("service-code", "no answer"), UsageError("the code service refuses us")]
)
def test_a_service_that_does_not_answer_is_said_and_stops_nothing(trouble: Failure | UsageError) -> None:
    found = checked(SEATS, trouble)
    assert found.warnings == [f"the Code Service did not answer: {trouble}"]
    assert found.as_facts()["codes"]["berlin"]["atService"] is None


def test_the_facts_hold_a_row_for_every_market() -> None:
    facts = checked(SEATS, SEATS).as_facts()
    assert facts["codes"] == {
        market: {"seats": seats, "available": seats, "atService": seats} for market, seats in SEATS.items()
    }
