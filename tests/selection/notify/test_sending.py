"""From the outbox to the mailer's queue, on the real servers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson
import pytest

from regworkers_core.domain.selection import NOTICES, MarketPhase, Notice
from regworkers_core.engine.leases import LeaseHolder
from regworkers_core.engine.queue import Outgoing
from regworkers_core.operations.health.snapshot import read_system
from regworkers_core.runtime import Runtime
from regworkers_core.selection.drains import NOTIFICATIONS, SELECTIONS
from regworkers_core.selection.notify import outbox, source
from regworkers_core.selection.notify.operations import message_counts
from regworkers_core.selection.notify.outbox import due_units
from tests.faults.story import take_events
from tests.operations.health.test_reading import no_scheduler
from tests.support.drains import run
from tests.support.draws import (
    CAMPAIGN,
    CONFIRMED_AT,
    Row,
    published,
    record_of,
    result,
)

ROWS = result({"berlin": 5, "paris": 3}, waiting=4, unselected=3, limited=2)
MARKETS = ("berlin", "paris")


@pytest.fixture
def assigned(runtime: Runtime) -> Runtime:
    """Everybody's row is in the outbox, nothing is sent, no event is left."""
    published(runtime, ROWS, MARKETS, codes=8)
    run(runtime, SELECTIONS)
    take_events(runtime)
    return runtime


def patient(runtime: Runtime, **changes: Any) -> Runtime:
    """The same namespace with other settings of selection."""
    selection = runtime.settings.selection.model_copy(update=changes)
    return Runtime(runtime.settings.model_copy(update={"selection": selection}), clock=runtime.clock)


def notified(runtime: Runtime) -> list[dict[str, Any]]:
    """All items off the mailer's queue in the order of their messages."""
    queue, found = runtime.queue(runtime.names.notification_queue), list[dict[str, Any]]()
    while messages := queue.receive(10, 0, 30):
        found += [item for message in messages for item in orjson.loads(message.body)["items"]]
        queue.delete(messages)
    return found


def expected(rows: list[Row], result_hash: str) -> list[dict[str, Any]]:
    """From the result alone: the message that every fan must get."""
    notices = [
        Notice(
            MarketPhase(CAMPAIGN, row.market or "-", 1),
            row.ref,
            row.entry_id,
            NOTICES[row.outcome],
            result_hash,
            CONFIRMED_AT,
        ).as_json()
        for row in rows
        if row.outcome in NOTICES
    ]
    return sorted(notices, key=str)


def test_every_fan_gets_the_message_of_the_committed_result_once(assigned: Runtime) -> None:
    report = run(assigned, NOTIFICATIONS)
    assert report.counts["sent"] == len(ROWS) and report.counts["markets_delivered"] == 3
    items = notified(assigned)
    assert sorted(items, key=str) == expected(ROWS, record_of(assigned).phases[1].result_hash)
    assert "BERLIN" not in str(items) and "@" not in str(items)
    assert run(assigned, NOTIFICATIONS).counts["received"] == 0 and notified(assigned) == []
    assert all(entry["sent"] == entry["planned"] for entry in record_markets(assigned).values())


def record_markets(runtime: Runtime) -> dict[str, Any]:
    return dict(record_of(runtime).phases[1].markets)


def test_winners_are_notified_before_the_others(assigned: Runtime) -> None:
    run(patient(assigned, canary_messages=0, concurrency=1), NOTIFICATIONS)
    kinds = [item["type"] == "winner" for item in notified(assigned)]
    assert kinds == sorted(kinds, reverse=True)


def test_there_is_one_event_for_each_message_that_is_queued(assigned: Runtime) -> None:
    run(assigned, NOTIFICATIONS)
    events = take_events(assigned)
    assert {event["type"] for event in events} == {"notification.queued"}
    assert len({event["id"] for event in events}) == len(events) == len(ROWS)


def test_no_message_is_sent_before_its_time(runtime: Runtime) -> None:
    later = patient(runtime, notify_delay_seconds=10**9)
    published(later, ROWS, MARKETS, codes=8)
    run(later, SELECTIONS)
    assert run(later, NOTIFICATIONS).counts["received"] == 0 and due_units(later) == []
    assert read_system(later, no_scheduler).messages_due is False
    early = Runtime(later.settings, clock=lambda: later.clock() + 10**9)
    assert read_system(early, no_scheduler).messages_due is True
    assert due_units(early) and run(early, NOTIFICATIONS).counts["sent"] == len(ROWS)


def test_the_canary_has_a_message_of_every_type_and_delays_the_others(assigned: Runtime) -> None:
    holding = patient(assigned, canary_messages=3, canary_hold_seconds=3600)
    assert run(holding, NOTIFICATIONS).counts["sent"] == 3
    assert sorted(item["type"] for item in notified(assigned)) == ["unselected", "waitlisted", "winner"]
    # Another sender finds the canary out already.
    assert run(holding, NOTIFICATIONS).counts["received"] == 0 and due_units(holding) == []
    assert message_counts(holding, CAMPAIGN)["campaigns"][CAMPAIGN]["phases"]["1"]["markets"]["-"][
        "heldUntil"
    ]
    after = Runtime(holding.settings, clock=lambda: assigned.clock() + 3600)
    assert due_units(after) and run(after, NOTIFICATIONS).counts["sent"] == len(ROWS) - 3
    assert len(notified(assigned)) == len(ROWS) - 3


def test_a_canary_is_out_when_all_of_its_messages_but_the_withdrawn_are(assigned: Runtime) -> None:
    holding = patient(assigned, canary_messages=1000, canary_hold_seconds=3600)
    unit = next(each for each in outbox.undelivered(holding) if each.market.market_id == "paris")
    winners = assigned.database["outbox"].find({"type": "winner"}, sort=[("marketId", 1)])
    keys = [row["_id"] for row in winners]
    assigned.outbox.mark_sent(keys[:1], at=CONFIRMED_AT, run_id="r")
    assigned.outbox.supersede(MarketPhase(CAMPAIGN, "berlin", 1), why="phase 2", at=CONFIRMED_AT)
    for sent, left in ((keys[5:7], 1), (keys[7:], 0)):
        assigned.outbox.mark_sent(sent, at=CONFIRMED_AT, run_id="r")
        assert bool(outbox.canary_left(holding, unit)) is bool(left)
    assert assigned.draw_markets.switch(CAMPAIGN)["canary"]["1"]["winner"]


def test_messages_that_are_given_back_rest_market_by_market_for_as_long_as_it_was_said(
    assigned: Runtime,
) -> None:
    now = [assigned.clock()]
    runtime = Runtime(patient(assigned, canary_messages=0).settings, clock=lambda: now[0])
    sender = source.OutboxSource(runtime, owner="me", sleep=lambda _seconds: None, clock=lambda: 0.0)

    def given_back(wait_seconds: float) -> list[str]:
        parcels = sender.receive()
        sender.give_back([(parcel, wait_seconds) for parcel in parcels])
        return sorted({parcel.market.market_id for parcel in parcels})

    assert [given_back(seconds) for seconds in (60.0, 30.0, 90.0, 1.0)] == [["berlin"], ["paris"], ["-"], []]
    now[0] += 31
    assert [given_back(60.0), given_back(60.0)] == [["paris"], []]
    now[0] += 30
    assert [given_back(60.0), given_back(60.0)] == [["berlin"], []]
    sender.close()


def test_a_dead_letter_of_the_mailer_pauses_the_campaign_until_it_is_resumed(assigned: Runtime) -> None:
    names = assigned.names
    dead = assigned.queue(names.dead_letter_queue(names.notification_queue))
    dead.send([Outgoing(b"{}")])
    report = run(assigned, NOTIFICATIONS)
    assert report.counts["sent"] == 3 and report.counts["campaigns_paused"] == 1
    paused = assigned.draw_markets.switch(CAMPAIGN)
    assert paused["paused"] and "1 dead letters" in paused["reason"] and due_units(assigned) == []
    assert outbox.resume(assigned, CAMPAIGN, reason="a typo, known", by="ann")["toleratedDeadLetters"] == 1
    assert run(assigned, NOTIFICATIONS).counts["sent"] == len(ROWS) - 3


@pytest.mark.parametrize("target", [CAMPAIGN, None])
def test_the_stop_switch_halts_a_running_drain_and_resume_continues_where_it_stopped(
    runtime: Runtime, target: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(runtime, result({"berlin": 25}), ["berlin"], codes=25)
    run(runtime, SELECTIONS)
    monkeypatch.setattr(source, "MAX_ITEMS", 1)
    one_by_one = patient(runtime, concurrency=1, prefetch=0, canary_messages=0)
    stopped: list[str] = []

    def stop(step: str) -> None:
        if not stopped:
            stopped.append(step)
            outbox.pause(runtime, target, reason="wrong text", by="ann")

    halted = run(one_by_one, NOTIFICATIONS, on_step=stop)
    # One send of ten messages was under way; the rest of the page was read and stays.
    assert halted.counts["sent"] == 10 and due_units(runtime) == []
    assert run(one_by_one, NOTIFICATIONS).counts["received"] == 0
    outbox.resume(runtime, target, reason="text corrected", by="ann")
    assert run(one_by_one, NOTIFICATIONS).counts["sent"] == 15
    keys = Counter(item["key"] for item in notified(runtime))
    assert len(keys) == 25 and set(keys.values()) == {1}


@pytest.mark.parametrize(
    ("query", "change"),
    [({"type": "unselected"}, {"type": "waitlisted"}), ({"type": "winner"}, {"resultHash": "0" * 64})],
)
def test_counts_that_differ_from_the_committed_result_stop_the_campaign_with_the_numbers(
    assigned: Runtime, query: dict[str, str], change: dict[str, str]
) -> None:
    assigned.database["outbox"].update_one(query, {"$set": change})
    report = run(assigned, NOTIFICATIONS)
    assert report.counts["campaigns_paused"] == 1
    reason = assigned.draw_markets.switch(CAMPAIGN)["reason"]
    assert "counts locked" in reason
    assert not any(item["marketId"] == "-" for item in notified(assigned))


def test_a_missing_row_stops_the_campaign_before_any_message_of_its_market(assigned: Runtime) -> None:
    assigned.database["outbox"].delete_one({"marketId": "berlin"})
    assert run(assigned, NOTIFICATIONS).counts["sent"] == 0
    assert "4 winner" in assigned.draw_markets.switch(CAMPAIGN)["reason"] and notified(assigned) == []


def test_only_one_sender_works_at_a_time(assigned: Runtime) -> None:
    other = LeaseHolder(assigned.leases, "other", lease_seconds=60)
    lease = other.acquire(source.LEASE)
    assert lease is not None
    beats: list[int] = []

    def sleep(_seconds: float) -> None:
        beats.append(1)
        lease.renew()

    outbox = source.OutboxSource(assigned, owner="me", sleep=sleep)
    assert outbox.receive() == [] and beats and not outbox.may_idle()
    lease.release()
    assert outbox.receive() and outbox.may_idle()
    outbox.close()


def test_many_rows_are_read_page_by_page_and_sent_once(assigned: Runtime) -> None:
    # On a fixed clock, a page never keeps the draw too long.
    paged = source.OutboxSource(
        assigned, owner="me", sleep=lambda _seconds: None, page_rows=2, clock=lambda: 0.0
    )
    seen: list[str] = []
    for _ in range(30):
        # Nothing in between: one type of message has its canary out, the next one follows.
        parcels = paged.receive()
        keys = [notice.key for parcel in parcels for notice in parcel.notices]
        assert len(keys) <= 2
        seen += keys
        assigned.outbox.mark_sent(keys, at="now", run_id="r")
        paged.acknowledge(parcels)
    paged.close()
    assert sorted(seen) == sorted(row["_id"] for row in assigned.database["outbox"].find())
