"""Rows of the outbox and what becomes of them, and the records of draws, on the real server."""

from __future__ import annotations

import pytest

from regworkers_core.adapters.mongo import outbox
from regworkers_core.adapters.mongo.outbox import RowStatus
from regworkers_core.domain.selection import MarketPhase, Notice, NoticeType
from regworkers_core.runtime import Runtime

pytestmark = pytest.mark.namespace("module")

AT = "2026-03-01T12:00:00.000Z"
BERLIN, PARIS = MarketPhase("summer", "berlin", 1), MarketPhase("summer", "paris", 1)


def write(runtime: Runtime, market: MarketPhase, number: int) -> list[str]:
    notices = [
        Notice(market, f"r{each}", f"e{each}", NoticeType.WINNER, "a" * 64, AT) for each in range(number)
    ]
    runtime.outbox.write(notices, at=AT, run_id="run")
    return [notice.key for notice in notices]


def test_rows_of_a_market_are_superseded_but_for_those_that_are_sent(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_PAGE", 2)
    keys, others = write(runtime, BERLIN, 6), write(runtime, PARIS, 2)
    runtime.outbox.mark_sent(keys[:1], at=AT, run_id="run")
    assert runtime.outbox.supersede(BERLIN, why="phase 2", at=AT) == 5
    assert runtime.outbox.supersede(BERLIN, why="annulled", at=AT) == 0
    statuses = runtime.outbox.statuses([*keys, *others])
    assert [statuses[key] for key in keys] == [RowStatus.SENT, *[RowStatus.SUPERSEDED] * 5]
    assert {statuses[key] for key in others} == {RowStatus.PENDING}
    row = runtime.database["outbox"].find_one({"_id": keys[1]})
    assert row is not None and (row["why"], row["supersededAt"]) == ("phase 2", AT)
    assert runtime.outbox.pending(BERLIN, now=AT, limit=10) == []


def test_rows_are_superseded_by_their_keys(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "_PAGE", 2)
    keys = write(runtime, BERLIN, 5)
    assert runtime.outbox.supersede([*keys[:3], "none:there:1:x"], why="erased", at=AT) == 3
    assert runtime.outbox.supersede(keys, why="erased", at=AT) == 2


def test_a_message_that_was_sent_is_not_superseded_by_its_key(runtime: Runtime) -> None:
    keys = write(runtime, BERLIN, 2)
    runtime.outbox.mark_sent(keys[:1], at=AT, run_id="run")
    assert runtime.outbox.supersede(keys, why="erased", at=AT) == 1
    assert runtime.outbox.statuses(keys) == {keys[0]: RowStatus.SENT, keys[1]: RowStatus.SUPERSEDED}


def test_only_rows_whose_time_has_come_are_to_be_sent(runtime: Runtime) -> None:
    write(runtime, BERLIN, 1)
    later = Notice(BERLIN, "later", "e-later", NoticeType.WINNER, "a" * 64, "2026-03-01T12:00:01.000Z")
    runtime.outbox.write([later], at=AT, run_id="run")
    assert [notice.ref for notice in runtime.outbox.pending(BERLIN, now=AT, limit=10)] == ["r0"]
    assert len(runtime.outbox.pending(BERLIN, now=later.not_before, limit=10)) == 2


def test_a_repeat_of_the_writing_brings_no_superseded_row_back(runtime: Runtime) -> None:
    keys = write(runtime, BERLIN, 2)
    runtime.outbox.supersede(keys, why="erased", at=AT)
    write(runtime, BERLIN, 3)
    assert [notice.ref for notice in runtime.outbox.pending(BERLIN, now=AT, limit=10)] == ["r2"]


def test_what_was_under_way_while_it_was_superseded_counts_as_sent(runtime: Runtime) -> None:
    keys = write(runtime, BERLIN, 1)
    runtime.outbox.supersede(keys, why="erased", at=AT)
    assert runtime.outbox.mark_sent(keys, at=AT, run_id="run") == 1
    assert runtime.outbox.statuses(keys) == {keys[0]: RowStatus.SENT}


_LARGE = ("manifest", "seedFile", "summary", "freeze", "eligibility")


def test_reading_all_draws_leaves_out_large_fields(runtime: Runtime) -> None:
    kept = {
        "status": "PUBLISHED",
        "publishedAt": "2026-03-01T12:00:00.000Z",
        "releasedAt": "2026-03-01T13:00:00.000Z",
        "notBefore": "2026-03-01T12:00:00.000Z",
        "confirmedAt": "2026-03-01T12:00:00.000Z",
        "resultHash": "a" * 64,
        "outcomes": {"WINNER": 3},
        "markets": {"berlin": {"status": "PENDING", "planned": 3}},
        # The seats that count now are asked of all campaigns at once.
        "terms": {"markets": [{"marketId": "berlin", "capacity": 3, "reserves": []}]},
    }
    large = {name: {"strikes": ["x"] * 10} for name in _LARGE}
    report = {"page": "s3://bucket/page", "findings": ["x"], "warnings": ["x"], "funnel": {"x": 1}}
    terms = {**kept["terms"], "strikes": ["x"] * 10}  # type: ignore[dict-item]
    phases = {str(number): {**kept, **large, "terms": terms, "report": report} for number in (1, 2, 10)}
    runtime.database["draws"].insert_one(
        {"_id": "summer", "drawId": "summer", "token": 7, "phases": phases, "notifications": {"paused": True}}
    )
    (record,) = runtime.draws.all()
    assert (record.campaign_id, record.token, list(record.phases)) == ("summer", 7, [1, 2, 10])
    assert record.notifications == {"paused": True}
    for phase in record.phases.values():
        # That there is a report is what the decision about a confirmation asks.
        assert phase.fields == {**kept, "report": {"page": "s3://bucket/page"}}
    whole = runtime.draws.get("summer")
    assert whole is not None and whole.latest.fields == phases["10"]


@pytest.mark.parametrize("token", [1, 2])
def test_what_was_decided_once_stays_for_every_later_run(runtime: Runtime, token: int) -> None:
    runtime.draws.open("summer", 1, {"asOf": "2026-03-01T12:00:00.000Z"}, token=1)
    first = {"manifest": "first", "manifestHash": "a" * 64}
    assert runtime.draws.decide("summer", 1, first, token=1, once="manifestHash")
    other = {"manifest": "other", "manifestHash": "b" * 64}
    assert not runtime.draws.decide("summer", 1, other, token=token, once="manifestHash")
    record = runtime.draws.get("summer")
    assert record is not None and first.items() <= record.latest.fields.items()
