"""Codes of fans who were struck after they had won: listed for the issuer, and marked once it has blocked them."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from regworkers_core.adapters.mongo.codes import NewCode
from regworkers_core.domain.selection import MarketPhase, Notice, NoticeType, Planned
from regworkers_core.runtime import Runtime
from regworkers_core.selection.codes.given import mark_blocked, struck_codes
from tests.support.campaigns import create
from tests.support.faces import Face
from tests.support.terminal import regworkers

pytestmark = pytest.mark.namespace("module")

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
