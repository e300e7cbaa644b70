"""How many codes there are and will be needed, taking leaked ones out of use, and what issuers block."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fairdraw.terms import ALGORITHM
from regworkers_core.adapters.mongo.codes import CodeStatus, NewCode
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.campaign_reader import read_campaign
from regworkers_core.domain.reasons import Failure, TransientFailure, UsageError
from regworkers_core.domain.selection import MarketPhase, Notice, NoticeType, Planned
from regworkers_core.runtime import Runtime
from regworkers_core.selection.codes.stock import (
    CodesPrecheck,
    check_codes,
    mark_blocked,
    read_stock,
    seats_of,
    struck_codes,
    void_codes,
)
from tests.support.campaigns import create, definition
from tests.support.faces import Face
from tests.support.terminal import regworkers

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


def test_after_the_draw_codes_are_missing_for_winners_not_for_empty_seats(runtime: Runtime) -> None:
    campaign = stocked(runtime, {"A1": "ASSIGNED"})

    def missing(*phases: dict[str, Any]) -> list[int]:
        stored = {str(number): {"phase": number, **each} for number, each in enumerate(phases, 1)}
        runtime.database["draws"].delete_many({})
        runtime.database["draws"].insert_one(
            {"_id": "summer", "campaignId": "summer", "drawId": "summer", "token": 1, "phases": stored}
        )
        record = runtime.draws.get("summer")
        return [stock.missing for stock in read_stock(runtime, campaign, record)]

    first: dict[str, Any] = {"status": "RANKED", "terms": {"algorithm": ALGORITHM}, "markets": {}}
    assert missing(first) == [2, 2], "there are no winners yet: all three and two seats may be won"
    first |= {"status": "DRAWN", "report": {"newWinners": {"berlin": 1, "paris": 1}}}
    assert missing(first) == [1, 1]
    published = {"berlin": {"status": "COMPLETED"}, "paris": {"status": "BLOCKED", "needed": 1}}
    first |= {"status": "PUBLISHED", "markets": published}
    assert missing(first) == [0, 1]
    published["paris"] = {"status": "ASSIGNING"}
    second = {"status": "DRAWN", "markets": {}, "report": {"newWinners": {"berlin": 2, "paris": 0}}}
    assert missing(first) == [0, 0] and missing(first, second) == [2, 0]


def test_seats_and_missing_codes_follow_the_latest_phase(runtime: Runtime) -> None:
    campaign = stocked(runtime, {"A1": "ASSIGNED", "A2": "AVAILABLE"})
    terms = {"markets": [{"marketId": "berlin", "capacity": 5, "reserves": []}]}
    first: dict[str, Any] = {"phase": 1, "status": "COMPLETED", "markets": {}, "report": {"newWinners": {}}}
    first["terms"] = {"algorithm": ALGORITHM}
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


AT = "2026-03-01T12:00:00.000Z"
BERLIN = MarketPhase("summer", "berlin", 1)


def won(runtime: Runtime, market: MarketPhase, ref: str, code: str, status: str, notified: bool) -> None:
    winner = Planned(ref, f"e-{ref}", NoticeType.WINNER, 1, code, 1)
    runtime.codes.add("summer", [NewCode(code, market.market_id)], import_id="i", at="", highest={})
    runtime.database["codes"].update_one({"_id": code}, {"$set": {"status": status, "ref": ref}})
    runtime.selections.write(market, [winner], "a" * 64, at=AT, run_id="r")
    runtime.outbox.write([Notice.of(market, winner, "a" * 64, AT)], at=AT, run_id="r")
    if notified:
        runtime.outbox.mark_sent([market.key(ref)], at=AT, run_id="r")


@pytest.fixture
def struck(runtime: Runtime) -> Runtime:
    """Phase 2 has struck `bot-1`, who was notified, `bot-2`, who has redeemed, and `bot-3`, who never won, and
    `bot-4`, whose code was void before anything was sent. Phase 3, which strikes `fan`, is not confirmed.
    """
    create(runtime)
    won(runtime, BERLIN, "bot-1", "AAAA-1111", "ASSIGNED", True)
    won(runtime, MarketPhase("summer", "paris", 1), "bot-2", "BBBB-2222", "REDEEMED", False)
    won(runtime, BERLIN, "fan", "CCCC-3333", "ASSIGNED", True)
    won(runtime, BERLIN, "bot-4", "DDDD-4444", "VOID", False)
    bots = [[f"bot-{number}", "BOT"] for number in (1, 2, 3, 4)]

    def phase(number: int, strikes: list[list[str]], **fields: Any) -> dict[str, Any]:
        terms = {"markets": [], "winsPerUnit": 1, "waitlistSize": None, "strikes": strikes, "reason": ""}
        return {"phase": number, "status": "DRAWN", "terms": terms, **fields}

    phases = {
        "1": phase(1, [], confirmedAt=AT),
        "2": phase(2, bots, confirmedAt=AT),
        "3": phase(3, [*bots, ["fan", "BOT"]]),
    }
    document = {"_id": "summer", "campaignId": "summer", "drawId": "summer", "token": 1, "phases": phases}
    runtime.database["draws"].insert_one(document)
    return runtime


def test_codes_that_struck_refs_hold_are_listed_with_whether_their_fans_were_notified(
    struck: Runtime,
) -> None:
    found = struck_codes(struck, "summer")
    assert [(each.ref, each.status, each.notified, each.to_block) for each in found] == [
        ("bot-1", "ASSIGNED", True, True),
        ("bot-2", "REDEEMED", False, True),
    ]
    assert struck_codes(struck, "winter") == []


def test_the_issuer_gets_a_file_with_the_codes_and_neither_face_shows_one(
    struck: Runtime, face: Face
) -> None:
    answer = face.does("codes block", campaign_id="summer")
    assert not answer.fine and "2 codes have to be blocked by their issuer" in answer.text
    assert "AAAA-1111" not in answer.text
    assert answer.files["struck-codes.csv"].decode().splitlines() == [
        "code,marketId,status,ref,told,blocked",
        "AAAA-1111,berlin,ASSIGNED,bot-1,yes,no",
        "BBBB-2222,paris,REDEEMED,bot-2,no,no",
    ]
    assert not any(each.get("blocked") for each in struck.database["codes"].find())


def test_the_file_at_the_terminal_is_private_and_one_that_cannot_be_written_is_named(
    struck: Runtime, tmp_path: Path
) -> None:
    file = tmp_path / "struck-codes.csv"
    file.write_text("of yesterday\n" * 1000)
    file.chmod(0o644)
    words = ("codes", "block", "summer", "--save", str(tmp_path), "--format", "json")
    assert regworkers(struck, *words).code == 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and len(file.read_text().splitlines()) == 3
    nowhere = regworkers(struck, "codes", "block", "summer", "--save", str(file / "no"))
    assert nowhere.code == 2 and "struck-codes.csv/no" in nowhere.stderr and "Traceback" not in nowhere.stderr


def test_blocked_codes_are_marked_and_keep_their_status(struck: Runtime, face: Face) -> None:
    assert face.does("codes block", campaign_id="summer", reason="bots", apply=True).fine
    codes = {each["_id"]: each for each in struck.database["codes"].find()}
    assert [bool(codes[name].get("blocked")) for name in sorted(codes)] == [True, True, False, False]
    assert codes["BBBB-2222"]["status"] == "REDEEMED" and codes["BBBB-2222"]["blockedReason"] == "bots"
    assert mark_blocked(struck, "summer", reason="again", run_id="r") == 0
    (action,) = struck.operator_actions.history()
    assert (action.what, action.target, action.result["blocked"]) == ("codes block", "summer", 2)
    assert face.does("codes block", campaign_id="summer").fine


CAMPAIGN = read_campaign({**definition("summer", status="CLOSED"), "_id": "summer"})
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
