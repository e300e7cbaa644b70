"""When a sensor starts a draw, takes one up again, or leaves it alone; and which markets it retries."""

from __future__ import annotations

from typing import Any

import pytest

from fairdraw.terms import ALGORITHM
from regworkers_core.adapters.mongo.draws import SENDER, DrawRecord, PhaseRecord
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.campaign_reader import read_campaign
from regworkers_core.domain.selection import MarketPhase
from regworkers_core.engine.leases import LeaseKey, LeaseRow
from regworkers_core.selection.assign.markets import StalledMarket
from regworkers_dagster.selection.campaigns import (
    MAX_FAILURES,
    CheckRuns,
    DrawRuns,
    LeaseMark,
    draw_due,
    is_over,
    observe_lease,
    retries,
    start_draw,
    to_check,
)


def _campaign(status: str, auto_draw: bool = False) -> Campaign:
    return read_campaign(
        {
            "_id": "summer",
            "status": status,
            "opensAt": "2026-01-01T00:00:00.000Z",
            "closesAt": "2026-02-01T00:00:00.000Z",
            "markets": [{"marketId": "berlin", "capacity": 1}],
            "autoDraw": auto_draw,
        }
    )


def _phase(status: str, number: int = 1, **fields: Any) -> PhaseRecord:
    return PhaseRecord(number, {"status": status, "terms": {"algorithm": ALGORITHM}, **fields})


REPORT = {"report": {"page": "s3://somewhere"}}


@pytest.mark.parametrize(
    ("status", "auto_draw", "phase", "due"),
    [
        ("OPEN", True, None, "draw"),
        ("CLOSED", True, None, "draw"),
        # Not automatic: a campaign manager launches it.
        ("CLOSED", False, None, None),
        # From here on it was begun, by whomever: it is brought to its end.
        ("PROCESSING", False, None, "resume"),
        ("PROCESSING", False, _phase("OPENED"), "resume"),
        ("PROCESSING", False, _phase("SEEDED"), "resume"),
        ("PROCESSING", False, _phase("DRAWN"), "resume"),
        ("PROCESSING", False, _phase("DRAWN", **REPORT), None),
        ("PROCESSING", False, _phase("DRAWN", **REPORT, confirmedAt="now"), "resume"),
        ("PROCESSING", False, _phase("PUBLISHED", **REPORT), None),
        ("COMPLETED", False, _phase("COMPLETED", **REPORT), None),
        ("COMPLETED", False, None, None),
        # A top-up.
        ("COMPLETED", False, _phase("COMMITTED", 2), "resume"),
        ("COMPLETED", False, _phase("DRAWN", 2, **REPORT), None),
    ],
)
def test_a_draw_is_due_when_it_was_asked_for_or_begun_and_needs_no_persons_word(
    status: str, auto_draw: bool, phase: PhaseRecord | None, due: str | None
) -> None:
    assert draw_due(_campaign(status, auto_draw), phase, auto_publish=False) == due


@pytest.mark.parametrize(
    ("status", "auto_draw", "now", "over"),
    [
        ("DRAFT", True, "2027-01-01T00:00:00.000Z", False),
        ("OPEN", True, "2026-01-31T23:59:59.999Z", False),
        ("OPEN", True, "2026-02-01T00:00:00.000Z", True),
        ("OPEN", False, "2027-01-01T00:00:00.000Z", False),
        ("CLOSED", False, "2026-01-31T00:00:00.000Z", True),
        ("COMPLETED", False, "2026-01-31T00:00:00.000Z", True),
    ],
)
def test_a_campaign_is_over_when_it_is_closed_or_its_time_has_passed_and_it_may_be_closed(
    status: str, auto_draw: bool, now: str, over: bool
) -> None:
    assert is_over(_campaign(status, auto_draw), now) is over


def test_where_no_confirmation_is_needed_a_drawn_phase_goes_on() -> None:
    campaign, phase = _campaign("PROCESSING"), _phase("DRAWN", **REPORT)
    assert draw_due(campaign, phase, auto_publish=True) == "resume"


@pytest.mark.parametrize(
    ("runs", "lease_alive", "start", "reason"),
    [
        (DrawRuns(), False, True, "its run died"),
        (DrawRuns(active=True), False, False, "a run is active"),
        (DrawRuns(), True, False, "holds its lease"),
        (DrawRuns(terminated=True), False, False, "terminated"),
        (DrawRuns(failed=1, seconds_since_failure=0.0), False, True, ""),
        (DrawRuns(failed=3, seconds_since_failure=1.0), False, False, "the next start is in 14 s"),
        (DrawRuns(failed=3, seconds_since_failure=16.0), False, True, ""),
        (
            DrawRuns(failed=MAX_FAILURES, seconds_since_failure=600.0),
            False,
            False,
            "the next start is in 300 s",
        ),
        (DrawRuns(failed=MAX_FAILURES, seconds_since_failure=901.0), False, True, ""),
    ],
)
def test_a_draw_is_resumed_when_no_run_works_on_it_and_slowly_when_it_fails_again_and_again(
    runs: DrawRuns, lease_alive: bool, start: bool, reason: str
) -> None:
    decision = start_draw("resume", runs=runs, lease_alive=lease_alive)
    assert decision.start is start
    assert reason in decision.reason


@pytest.mark.parametrize(
    ("seconds_to_round", "start", "reason"),
    [
        (600.0, False, "waits for its round of the beacon, due in 600 s"),
        (0.0, True, "its round of the beacon is due"),
        (-5.0, True, "its round of the beacon is due"),
        (None, True, "its run died"),
    ],
)
def test_a_draw_that_waits_for_its_round_is_taken_up_when_it_is_due(
    seconds_to_round: float | None, start: bool, reason: str
) -> None:
    decision = start_draw("resume", runs=DrawRuns(), lease_alive=False, seconds_to_round=seconds_to_round)
    assert (decision.start, decision.reason) == (start, reason)


def _row(owner: str = "run-1", counter: int = 7) -> LeaseRow:
    return LeaseRow(LeaseKey("LEASE#draw-summer", "LEASE"), owner=owner, token=3, counter=counter)


def test_a_lease_counts_as_alive_until_its_counter_is_unchanged_for_one_lease_time() -> None:
    alive, mark = observe_lease(_row(), None, now=100.0, lease_seconds=15.0)
    assert alive and mark == LeaseMark("run-1/3/7", 100.0)
    alive, mark = observe_lease(_row(), mark, now=114.0, lease_seconds=15.0)
    assert alive
    assert observe_lease(_row(), mark, now=115.0, lease_seconds=15.0) == (False, mark)
    moved, again = observe_lease(_row(counter=8), mark, now=115.0, lease_seconds=15.0)
    assert moved and again == LeaseMark("run-1/3/8", 115.0)


def test_a_lease_without_an_owner_is_not_alive() -> None:
    assert observe_lease(None, None, now=0.0, lease_seconds=15.0) == (False, None)
    assert observe_lease(_row(owner=""), None, now=0.0, lease_seconds=15.0) == (False, None)


def test_a_sender_that_holds_the_lease_keeps_no_draw_from_being_resumed() -> None:
    assert observe_lease(_row(owner=f"{SENDER}run-1"), None, now=0.0, lease_seconds=15.0) == (False, None)


BLOCKED = StalledMarket(MarketPhase("summer", "berlin", 1), "codes")
LOST = StalledMarket(MarketPhase("summer", "paris", 1), "chunks")
DONE = StalledMarket(MarketPhase("summer", "-", 1), "completion")


def _retries(**changes: Any) -> list[StalledMarket]:
    options: dict[str, Any] = {"queued": 0, "active": frozenset(), "pauses": {}, "limit": 5}
    return retries([BLOCKED, LOST, DONE], **{**options, **changes})


def test_every_stalled_market_is_retried_and_only_once_at_a_time() -> None:
    assert _retries() == [BLOCKED, LOST, DONE]
    assert _retries(active=frozenset({"summer:paris:1"})) == [BLOCKED, DONE]
    assert _retries(limit=1) == [BLOCKED]


def test_chunks_that_may_still_lie_on_the_queue_are_left_to_it() -> None:
    assert _retries(queued=1) == [BLOCKED, DONE]


def test_a_market_whose_retries_failed_waits() -> None:
    assert _retries(pauses={"summer:berlin:1": 12.0, "summer:paris:1": 0.0}) == [LOST, DONE]


def _draw(name: str, *phases: PhaseRecord, **more: Any) -> DrawRecord:
    numbered = dict(enumerate(phases, 1))
    return DrawRecord(name, name, 1, numbered, {}, more.pop("expired", {}), **more)


def test_every_phase_that_completed_is_checked_until_its_record_says_that_it_was_judged() -> None:
    judged = _phase("COMPLETED", judged={"at": "2026-01-01T00:00:00.000Z", "passed": False})
    complete = _phase("COMPLETED")
    draws = [
        _draw("old", complete),
        _draw("judged", judged),
        _draw("topped-up", judged, complete),
        _draw("open", _phase("PUBLISHED")),
        _draw("annulled", complete, annulled={"reason": "a test"}),
        _draw("deleted", complete, expired={"codes": {"at": ""}}),
        _draw("claims-deleted", complete, expired={"claims": {"at": ""}}),
    ]
    assert to_check(draws, lambda _: CheckRuns()) == ["old", "topped-up", "claims-deleted"]


def test_a_check_that_runs_or_crashed_lately_is_not_started_again() -> None:
    runs = {
        "runs": CheckRuns(active=True),
        "crashed": CheckRuns(False, 3, 1.0),
        "pause-over": CheckRuns(False, 3, 1e6),
    }
    assert to_check([_draw(name, _phase("COMPLETED")) for name in runs], runs.__getitem__) == ["pause-over"]
