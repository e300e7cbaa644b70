"""What a campaign's status shows, and what it says needs a hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from fairdraw.terms import ALGORITHM
from regworkers_core.adapters.mongo.codes import NewCode
from regworkers_core.adapters.mongo.draws import SENDER
from regworkers_core.domain.campaign import CampaignStatus
from regworkers_core.engine.leases import LeaseHolder
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.registry import advance
from regworkers_core.selection.status import CampaignReport, read_campaign_status
from tests.support.campaigns import advance_to, create
from tests.support.waiting import sleeping

pytestmark = pytest.mark.namespace("module")

PAST, FUTURE = "2026-02-01T00:00:00.000Z", "2999-01-01T00:00:00.000Z"


def status(runtime: Runtime, sleep: Callable[[float], object] = time.sleep) -> CampaignReport:
    with sleeping(sleep):
        return read_campaign_status(runtime, runtime.campaigns.require("summer"))


def commands(report: CampaignReport) -> list[str]:
    assert report.fine is (report.findings == [])
    return [finding.command for finding in report.findings]


def add_codes(runtime: Runtime, **markets: int) -> None:
    for market, count in markets.items():
        new = [NewCode(f"{market}-{number}", market) for number in range(count)]
        runtime.codes.add("summer", new, import_id="i", at="", highest={})


def draw(runtime: Runtime, phase_status: str, markets: dict[str, Any] | None = None, **fields: Any) -> None:
    """The draw's record as far as the status reads it."""
    terms = {"algorithm": ALGORITHM}
    phase = {"phase": 1, "status": phase_status, "terms": terms, "markets": markets or {}, **fields}
    runtime.database["draws"].delete_many({})
    runtime.database["draws"].insert_one(
        {"_id": "summer", "campaignId": "summer", "drawId": "summer", "token": 1, "phases": {"1": phase}}
    )


def test_a_campaign_that_runs_needs_no_hand(runtime: Runtime) -> None:
    create(runtime, closesAt=FUTURE)
    advance_to(runtime, "summer", CampaignStatus.OPEN)
    for number in range(3):
        runtime.database["entries"].insert_one(
            {"_id": f"summer:{number}", "campaignId": "summer", "entryId": str(number)}
        )
    gone = {"_id": "summer:gone", "campaignId": "summer", "entryId": "gone", "deletedAt": PAST}
    runtime.database["entries"].insert_one(gone)
    runtime.database["entries"].insert_one({"_id": "w:1", "campaignId": "w", "entryId": "1"})
    report = status(runtime)
    assert commands(report) == []
    document = report.as_dict()
    assert (document["status"], document["entries"], document["draw"]) == ("OPEN", 3, None)
    assert document["tombstones"] == 1
    assert document["since"] == runtime.campaigns.require("summer").transitions[-1].at


def test_a_date_that_has_passed_names_the_step_that_is_due(runtime: Runtime) -> None:
    create(runtime, closesAt=PAST)
    assert commands(status(runtime)) == ["regworkers campaign open summer"]
    advance_to(runtime, "summer", CampaignStatus.OPEN)
    assert commands(status(runtime)) == ["regworkers campaign close summer"]


def test_a_campaign_that_was_closed_early_shows_its_true_end_and_why(runtime: Runtime) -> None:
    create(runtime, closesAt=FUTURE)
    advance_to(runtime, "summer", CampaignStatus.OPEN)
    before = status(runtime).as_dict()
    assert (before["closesAt"], before["closedEarly"]) == (FUTURE, None)
    done = advance(runtime, "summer", CampaignStatus.CLOSED, reason="sold out", run_id="r")
    document = status(runtime).as_dict()
    assert document["closesAt"] == done.at
    assert document["closedEarly"] == f"sold out (it was to close at {FUTURE})"


def test_a_closed_campaign_waits_for_its_draw_and_for_missing_codes(runtime: Runtime) -> None:
    create(runtime)
    advance_to(runtime, "summer", CampaignStatus.CLOSED)
    add_codes(runtime, berlin=3, paris=1)
    report = status(runtime)
    assert commands(report) == [
        "regworkers draw run summer",
        "regworkers codes import <csv> --campaign summer --market paris",
    ]
    assert "codes for 1 of 2 seats are missing" in report.findings[1].text


def test_an_abandoned_draw_is_distinguished_from_one_in_progress(runtime: Runtime) -> None:
    create(runtime)
    advance_to(runtime, "summer", CampaignStatus.PROCESSING)
    add_codes(runtime, berlin=3, paris=2)
    assert commands(status(runtime)) == ["regworkers draw run summer"]
    draw(runtime, "SEEDED")
    lease = LeaseHolder(runtime.leases, "run", lease_seconds=1.0).acquire("draw-summer")
    assert lease is not None
    looks: list[float] = []
    assert commands(status(runtime, sleep=looks.append)) == ["regworkers draw run summer"]
    assert 0.3 < sum(looks) < 1.0
    looks.clear()
    assert commands(status(runtime, sleep=lambda _seconds: lease.renew())) == []
    lease.release()
    report = status(runtime)
    assert "phase 1 is SEEDED and no run works on it" in report.findings[0].text
    sender = LeaseHolder(runtime.leases, f"{SENDER}run", lease_seconds=1.0).acquire("draw-summer")
    assert sender is not None
    sending = commands(status(runtime, sleep=looks.append))
    assert sending == ["regworkers draw run summer"], "who sends messages does not work on the draw"
    assert looks == [], "and is not waited for"
    sender.release()
    lease = LeaseHolder(runtime.leases, "run", lease_seconds=1.0).acquire("draw-summer")
    assert lease is not None

    def is_taken_over(_seconds: float) -> None:
        lease.release()
        LeaseHolder(runtime.leases, f"{SENDER}run", lease_seconds=1.0).acquire("draw-summer")

    assert commands(status(runtime, sleep=is_taken_over)) == ["regworkers draw run summer"]


def test_a_drawn_phase_waits_for_its_confirmation(runtime: Runtime) -> None:
    create(runtime)
    advance_to(runtime, "summer", CampaignStatus.PROCESSING)
    add_codes(runtime, berlin=3, paris=2)
    draw(runtime, "DRAWN", report={})
    report = status(runtime)
    assert "waits for the confirmation" in report.findings[0].text
    assert commands(report) == ["regworkers draw run summer"]


def test_codes_that_a_top_up_misses_are_named_before_its_publication_is_confirmed(runtime: Runtime) -> None:
    create(runtime)
    advance_to(runtime, "summer", CampaignStatus.COMPLETED)
    add_codes(runtime, berlin=1)
    terms = {"markets": [{"marketId": "berlin", "capacity": 9, "reserves": []}]}
    draw(runtime, "DRAWN", report={"newWinners": {"berlin": 4}}, terms=terms)
    report = status(runtime)
    assert "codes for 3 of 4 winners are missing" in report.findings[0].text
    assert commands(report)[0] == "regworkers codes import <csv> --campaign summer --market berlin"
    assert (report.codes[0].capacity, report.codes[0].missing) == (9, 3)


def test_markets_that_stand_still_name_their_command(runtime: Runtime) -> None:
    create(runtime)
    advance_to(runtime, "summer", CampaignStatus.PROCESSING)
    markets = {
        "berlin": {"status": "BLOCKED", "needed": 3, "available": 1},
        "paris": {"status": "ASSIGNING", "planned": 2, "chunks": 2},
        "-": {"status": "COMPLETED", "planned": 0},
    }
    draw(runtime, "PUBLISHED", markets)
    for chunk, extra in ((1, {"failedAt": "now", "failure": "CODE_CONFLICT"}), (2, {"doneAt": "now"})):
        runtime.database["selection_chunks"].insert_one(
            {
                "_id": f"summer:paris:1:{chunk}",
                "campaignId": "summer",
                "marketId": "paris",
                "phase": 1,
                "chunk": chunk,
                **extra,
            }
        )
    report = status(runtime)
    assert commands(report) == [
        "regworkers codes import <csv> --campaign summer --market berlin",
        'regworkers invoke enqueueMarketSelections \'{"campaignId": "summer", "marketId": "paris"}\'',
    ]
    assert "needs 3 codes and has 1" in report.findings[0].text
    assert "failed chunks 1, the first with: CODE_CONFLICT" in report.findings[1].text
    assert report.as_dict()["draw"]["1"]["markets"]["berlin"]["status"] == "BLOCKED"


@pytest.mark.parametrize("everyone", [False, True])
def test_paused_messages_that_wait_are_counted(runtime: Runtime, everyone: bool) -> None:
    create(runtime)
    advance_to(runtime, "summer", CampaignStatus.COMPLETED)
    draw(runtime, "COMPLETED", {"berlin": {"status": "COMPLETED"}})
    for number, state in enumerate(("PENDING", "PENDING", "SENT")):
        runtime.database["outbox"].insert_one(
            {
                "_id": f"summer:berlin:1:r{number}",
                "campaignId": "summer",
                "marketId": "berlin",
                "phase": 1,
                "status": state,
            }
        )
    assert commands(status(runtime)) == []
    if everyone:
        runtime.draw_markets.switch_all(paused=True, reason="wrong text", by="me", at="now")
    else:
        runtime.draw_markets.pause("summer", reason="wrong text", by="me", at="now")
    report = status(runtime)
    whose = "--all" if everyone else "summer"
    assert commands(report) == [f"regworkers notifications resume {whose}"]
    assert report.findings[0].text == "2 messages wait while notifications are paused: wrong text"
    assert report.outbox == {"1": {"berlin": {"PENDING": 2, "SENT": 1}}}
