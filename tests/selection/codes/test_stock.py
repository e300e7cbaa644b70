"""How many codes there are, and taking leaked ones out of use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from regworkers_core.adapters.mongo.codes import NewCode
from regworkers_core.domain.campaign import Campaign
from regworkers_core.runtime import Runtime
from regworkers_core.selection.codes.stock import read_stock, seats_of, void_codes
from tests.support.campaigns import create

pytestmark = pytest.mark.namespace("module")


def stocked(runtime: Runtime, statuses: Mapping[str, str]) -> Campaign:
    """The campaign with a code of each name in berlin, in that status."""
    campaign = create(runtime)
    runtime.codes.add(
        "summer", [NewCode(code, "berlin") for code in statuses], import_id="i", at="", highest={}
    )
    for code, status in statuses.items():
        runtime.database["codes"].update_one({"_id": code}, {"$set": {"status": status}})
    return campaign


def outcomes(runtime: Runtime, campaign: Campaign, *codes: str) -> list[tuple[bool, str]]:
    done = void_codes(runtime, campaign, codes, reason="leaked", run_id="r")
    return [(each.done, each.outcome) for each in done]


def test_codes_are_counted_by_market_and_status_against_the_seats(runtime: Runtime) -> None:
    campaign = stocked(
        runtime, {"A1": "AVAILABLE", "A2": "AVAILABLE", "B1": "ASSIGNED", "C1": "REDEEMED", "D1": "VOID"}
    )
    runtime.codes.add("summer", [NewCode("E1", "rome")], import_id="i", at="", highest={})
    runtime.codes.add("winter", [NewCode("F1", "berlin")], import_id="i", at="", highest={})
    berlin, paris, rome = read_stock(runtime, campaign)
    assert berlin.as_dict() == {
        "marketId": "berlin",
        "capacity": 3,
        "available": 2,
        "assigned": 1,
        "redeemed": 1,
        "void": 1,
        "wanted": None,
        "missing": 0,
    }
    assert (paris.market_id, paris.available, paris.missing) == ("paris", 0, 2)
    assert (rome.market_id, rome.capacity, rome.available) == ("rome", None, 1)


def test_a_void_code_makes_room_for_a_missing_one(runtime: Runtime) -> None:
    campaign = stocked(runtime, {"A1": "AVAILABLE", "A2": "VOID", "A3": "AVAILABLE"})
    assert read_stock(runtime, campaign)[0].missing == 1


def test_after_the_draw_codes_are_missing_for_winners_not_for_empty_seats(
    runtime: Runtime,
) -> None:
    campaign = stocked(runtime, {"A1": "ASSIGNED"})

    def missing(*phases: dict[str, Any]) -> list[int]:
        stored = {str(number): {"phase": number, **each} for number, each in enumerate(phases, 1)}
        runtime.database["draws"].delete_many({})
        runtime.database["draws"].insert_one(
            {"_id": "summer", "campaignId": "summer", "drawId": "summer", "token": 1, "phases": stored}
        )
        record = runtime.draws.get("summer")
        return [stock.missing for stock in read_stock(runtime, campaign, record)]

    first: dict[str, Any] = {"status": "RANKED", "markets": {}}
    assert missing(first) == [2, 2], "there are no winners yet: all three and two seats may be won"
    first |= {"status": "DRAWN", "report": {"newWinners": {"berlin": 1, "paris": 1}}}
    assert missing(first) == [1, 1]
    published = {"berlin": {"status": "COMPLETED"}, "paris": {"status": "BLOCKED", "needed": 1}}
    first |= {"status": "PUBLISHED", "markets": published}
    assert missing(first) == [0, 1]
    published["paris"] = {"status": "ASSIGNING"}
    second = {"status": "DRAWN", "markets": {}, "report": {"newWinners": {"berlin": 2, "paris": 0}}}
    assert missing(first) == [0, 0] and missing(first, second) == [2, 0]


def test_seats_and_missing_codes_follow_the_latest_phase(
    runtime: Runtime,
) -> None:
    campaign = stocked(runtime, {"A1": "ASSIGNED", "A2": "AVAILABLE"})
    terms = {"markets": [{"marketId": "berlin", "capacity": 5, "reserves": []}]}
    first: dict[str, Any] = {"phase": 1, "status": "COMPLETED", "markets": {}, "report": {"newWinners": {}}}
    second: dict[str, Any] = {"phase": 2, "status": "OPENED", "terms": terms}

    def berlin() -> tuple[int | None, int]:
        runtime.database["draws"].delete_many({})
        phases = {"1": first, "2": second}
        runtime.database["draws"].insert_one(
            {"_id": "summer", "drawId": "summer", "token": 1, "phases": phases}
        )
        stock = read_stock(runtime, campaign, runtime.draws.get("summer"))[0]
        (light,) = runtime.draws.all()
        assert seats_of(campaign, light) == {"berlin": stock.capacity, "paris": 2}
        return stock.capacity, stock.missing

    assert berlin() == (5, 3), "five seats, one code is given and one is free"
    second |= {"status": "DRAWN", "report": {"newWinners": {"berlin": 2}}}
    assert berlin() == (5, 1)


def test_only_codes_that_no_fan_holds_are_voided_and_they_keep_their_position(runtime: Runtime) -> None:
    campaign = stocked(runtime, {"AAAA1111": "AVAILABLE", "BBBB1111": "ASSIGNED", "CCCC1111": "REDEEMED"})
    runtime.codes.add("winter", [NewCode("DDDD1111", "berlin")], import_id="i", at="", highest={})
    found = outcomes(runtime, campaign, "AAAA1111", "BBBB1111", "CCCC1111", "DDDD1111", "EEEE1111")
    assert found == [
        (True, "is void now"),
        (False, "is ASSIGNED: a fan holds it, so its issuer has to block it"),
        (False, "is REDEEMED: a fan holds it, so its issuer has to block it"),
        (False, "is not a code of summer"),
        (False, "is not a code of summer"),
    ]
    codes = runtime.codes.get(["AAAA1111", "BBBB1111", "DDDD1111"])
    assert [codes[code].status for code in sorted(codes)] == ["VOID", "ASSIGNED", "AVAILABLE"]
    assert codes["AAAA1111"].position == 1
    stored = runtime.database["codes"].find_one({"_id": "AAAA1111"})
    assert stored is not None and stored["voidReason"] == "leaked" and stored["voidedAt"]


def test_a_code_that_was_given_between_look_and_write_is_not_voided(runtime: Runtime) -> None:
    stocked(runtime, {"AAAA1111": "ASSIGNED"})
    assert not runtime.codes.void("summer", "AAAA1111", at="now", reason="leaked", run_id="r")
    assert not runtime.codes.void("winter", "AAAA1111", at="now", reason="leaked", run_id="r")
    assert runtime.codes.get(["AAAA1111"])["AAAA1111"].status == "ASSIGNED"


def test_voiding_twice_is_fine_and_says_so(runtime: Runtime) -> None:
    campaign = stocked(runtime, {"AAAA1111": "AVAILABLE"})
    assert outcomes(runtime, campaign, "AAAA1111", "AAAA1111") == [(True, "is void now")]
    assert outcomes(runtime, campaign, "AAAA1111") == [(True, "was void already")]


def test_a_code_that_may_be_in_a_plan_is_not_voided_before_its_market_is_complete(runtime: Runtime) -> None:
    campaign = stocked(runtime, {"AAAA1111": "AVAILABLE"})
    draws = runtime.database["draws"]

    def market(status: str) -> Any:
        markets = {"berlin": {"status": status}}
        phases = {"1": {"phase": 1, "status": "PUBLISHED", "markets": markets}}
        draws.delete_many({})
        draws.insert_one({"_id": "summer", "drawId": "summer", "token": 1, "phases": phases})

    for busy in ("PENDING", "ASSIGNING"):
        market(busy)
        ((done, why),) = outcomes(runtime, campaign, "AAAA1111")
        assert not done and "when market berlin is complete" in why
    for idle in ("BLOCKED", "COMPLETED"):
        market(idle)
        assert outcomes(runtime, campaign, "AAAA1111")[0][0]
