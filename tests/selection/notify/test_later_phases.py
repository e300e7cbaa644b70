"""No fan gets a message that a later phase made wrong: messages wait, continue or are superseded, on real servers."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from regworkers_core.adapters.mongo.draws import lease_name
from regworkers_core.adapters.mongo.outbox import RowStatus
from regworkers_core.domain.selection import NON_WINNERS, MarketPhase, Outcome
from regworkers_core.engine.leases import LeaseHolder, held_lease
from regworkers_core.engine.queue import Outgoing
from regworkers_core.operations.health.snapshot import read_campaigns
from regworkers_core.runtime import Runtime
from regworkers_core.selection.drains import NOTIFICATIONS, SELECTIONS
from regworkers_core.selection.notify import counts, outbox
from regworkers_core.selection.notify.operations import message_counts
from regworkers_core.selection.notify.outbox import due_units, settle
from regworkers_core.selection.notify.source import OutboxSource
from regworkers_core.selection.promises import counts_match
from tests.selection.notify.test_sending import notified, patient
from tests.support.drains import run
from tests.support.draws import (
    CAMPAIGN,
    CONFIRMED_AT,
    Row,
    add_codes,
    confirmed,
    next_phase,
    publish,
    published,
    record_of,
    result,
)
from tests.support.terminal import regworkers

ROWS = result({"berlin": 3}, waiting=2, unselected=1)
STRUCK, PINNED = ROWS[0], ROWS[1]
PROMOTED, LOWERED = [row for row in ROWS if row.outcome is Outcome.WAITLIST]
CHANGES = {
    STRUCK.ref: Row(STRUCK.ref, Outcome.STRUCK, "", STRUCK.rank),
    PROMOTED.ref: Row(PROMOTED.ref, Outcome.WINNER, "berlin", PROMOTED.rank),
    LOWERED.ref: Row(LOWERED.ref, Outcome.UNSELECTED, "", LOWERED.rank),
}


@pytest.fixture
def world(runtime: Runtime) -> Runtime:
    """The rows of phase 1 are in the outbox, none is sent."""
    made = patient(runtime, canary_messages=0)
    published(made, ROWS, ["berlin"], codes=6)
    run(made, SELECTIONS)
    return made


def draw_second(runtime: Runtime) -> None:
    """Phase 2 is drawn, as its run leaves it: what it changes is not held yet."""
    confirmed(runtime, next_phase(ROWS, CHANGES), ["berlin"], phase=2, only_drawn=True)


def under_the_lease(runtime: Runtime, *, confirm: bool) -> None:
    """The end of the step `allocate`, and with `confirm` that of `publish`, as a run of the draw makes them."""
    with held_lease(runtime.leases, lease_name(CAMPAIGN), "draw-run", lease_seconds=10.0) as lease:
        if confirm:
            at = "2026-03-02T12:00:00.000Z"
            runtime.draws.decide(CAMPAIGN, 2, {"confirmedAt": at}, token=lease.token, once="confirmedAt")
        settle(runtime, CAMPAIGN, token=lease.token)


def statuses(runtime: Runtime, phase: int = 1) -> dict[str, str]:
    return {each["ref"]: each["status"] for each in runtime.database["outbox"].find({"phase": phase})}


def refs(items: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return sorted((item["ref"], item["type"]) for item in items)


def test_a_winner_who_is_struck_while_messages_are_paused_gets_no_winner_message(world: Runtime) -> None:
    outbox.pause(world, CAMPAIGN, reason="bots", by="ann")
    draw_second(world)
    under_the_lease(world, confirm=True)
    publish(world, 2)
    run(world, SELECTIONS)
    outbox.resume(world, CAMPAIGN, reason="bots are struck", by="ann")
    report = run(world, NOTIFICATIONS)
    unchanged = [row for row in ROWS if row.ref not in CHANGES]
    expected = [(row.ref, "winner" if row.market else "unselected") for row in unchanged]
    assert refs(notified(world)) == sorted([*expected, (PROMOTED.ref, "winner"), (LOWERED.ref, "unselected")])
    assert report.counts["markets_delivered"] == 4 and due_units(world) == []
    row = world.database["outbox"].find_one({"ref": STRUCK.ref})
    assert row is not None and (row["status"], row["why"]) == ("SUPERSEDED", "phase 2")
    markets = message_counts(world, CAMPAIGN)["campaigns"][CAMPAIGN]["phases"]["1"]["markets"]
    assert [(markets[name]["sent"], markets[name]["superseded"]) for name in ("berlin", NON_WINNERS)] == [
        (2, 1),
        (1, 2),
    ]


def test_only_what_a_drawn_phase_changes_waits_for_its_confirmation(world: Runtime) -> None:
    draw_second(world)
    run(world, NOTIFICATIONS)
    assert {ref for ref, status in statuses(world).items() if status == RowStatus.HELD} == set(CHANGES)
    assert {item["ref"] for item in notified(world)} == {row.ref for row in ROWS} - set(CHANGES)
    state = message_counts(world, CAMPAIGN)["campaigns"][CAMPAIGN]
    assert state["waitsFor"] == 2 and state["phases"]["1"]["markets"][NON_WINNERS]["waiting"] == 2
    assert due_units(world) == [], "a sensor starts no sender for what waits"
    (seen,) = read_campaigns(world)
    assert seen.held_since == CONFIRMED_AT and seen.failed_messages == 0
    under_the_lease(world, confirm=True)
    assert read_campaigns(world)[0].held_since is None
    assert {ref for ref, each in statuses(world).items() if each == RowStatus.SUPERSEDED} == set(CHANGES)
    assert run(world, NOTIFICATIONS).counts["markets_delivered"] == 2 and notified(world) == []


def test_a_confirmation_waits_for_the_current_page_and_sent_messages_stay_sent(world: Runtime) -> None:
    draw_second(world)
    world.database["draws"].update_one({"_id": CAMPAIGN}, {"$unset": {"phases.2": ""}})
    seen: list[tuple[str, bool]] = []
    waiting: list[threading.Thread] = []

    def on_step(step: str) -> None:
        if step != "notifications.after_send" or waiting:
            return
        # The page is with the mailer and not marked yet: now the whole of phase 2 comes about.
        draw_second(world)
        confirming = threading.Thread(target=lambda: under_the_lease(world, confirm=True))
        confirming.start()
        waiting.append(confirming)
        confirming.join(1.0)
        seen.append((step, confirming.is_alive()))

    run(world, NOTIFICATIONS, on_step=on_step)
    waiting[0].join(30)
    assert seen == [("notifications.after_send", True)], "the confirmation waited"
    items = notified(world)
    sent = {ref for ref, status in statuses(world).items() if status == RowStatus.SENT}
    assert {item["ref"] for item in items} == sent and STRUCK.ref in sent
    assert PROMOTED.ref not in sent and statuses(world)[PROMOTED.ref] == RowStatus.SUPERSEDED


def test_a_confirmation_that_ended_before_its_rows_were_superseded_sends_none_of_them(world: Runtime) -> None:
    draw_second(world)
    with held_lease(world.leases, lease_name(CAMPAIGN), "draw-run", lease_seconds=10.0) as lease:
        world.draws.decide(CAMPAIGN, 2, {"confirmedAt": "2026-03-02T12:00:00.000Z"}, token=lease.token)
        source = OutboxSource(world, owner="me", sleep=lambda _seconds: None)
        assert source.receive() == [] and not source.may_idle()
        source.close()
    # The run died here. The next sender supersedes first.
    run(world, NOTIFICATIONS)
    assert {item["ref"] for item in notified(world)} == {row.ref for row in ROWS} - set(CHANGES)
    assert {ref for ref, each in statuses(world).items() if each == RowStatus.SUPERSEDED} == set(CHANGES)


def test_a_sender_leaves_the_lease_of_the_draw_to_others_in_time(world: Runtime) -> None:
    now = [100.0]
    source = OutboxSource(world, owner="me", sleep=lambda _seconds: None, page_rows=1, clock=lambda: now[0])
    other = LeaseHolder(world.leases, "draw-run", lease_seconds=10.0)
    (parcel,) = source.receive()
    assert source.may_send() and other.acquire(lease_name(CAMPAIGN)) is None
    now[0] += world.settings.selection.lease_seconds * 0.5
    world.outbox.mark_sent([notice.key for notice in parcel.notices], at="now", run_id="r")
    source.acknowledge([parcel])
    assert source.receive() == []
    lease = other.acquire(lease_name(CAMPAIGN))
    assert lease is not None
    lease.release()
    now[0] += world.settings.selection.lease_seconds * 0.1
    assert source.receive() != []
    source.close()


def test_a_heartbeat_renews_both_leases_and_a_page_of_a_lost_one_is_not_sent(world: Runtime) -> None:
    now = [100.0]
    lease_seconds = world.settings.selection.lease_seconds
    source = OutboxSource(world, owner="me", sleep=lambda _seconds: None, clock=lambda: now[0])
    assert source.receive()
    for _ in range(2):
        now[0] += 0.6 * lease_seconds
        source.heartbeat()
    assert source.may_send()
    late = [0.0]
    other = LeaseHolder(world.leases, "draw-run", lease_seconds=lease_seconds, clock=lambda: late[0])
    assert other.acquire(lease_name(CAMPAIGN)) is None
    late[0] += lease_seconds
    assert other.acquire(lease_name(CAMPAIGN)) is not None
    source.heartbeat()
    assert not source.may_send(), "the sender's own lease is not enough"
    source.close()


@pytest.mark.parametrize("now", [{"deletedAt": "2026-03-01T12:00:00.000Z"}, {"ref": "another-ref"}])
def test_a_fan_whose_data_were_erased_gets_no_message_whenever_the_row_was_written(
    world: Runtime, now: dict[str, str]
) -> None:
    """Not even one who has registered again: what was drawn is another registration."""
    key = {"_id": f"{CAMPAIGN}:{PINNED.entry_id}", "campaignId": CAMPAIGN, "entryId": PINNED.entry_id}
    world.database["entries"].insert_one({**key, "erasedAt": "2026-03-01T12:00:00.000Z", **now})
    report = run(world, NOTIFICATIONS)
    assert report.counts["superseded"] == 1 and report.counts["markets_delivered"] == 2
    assert PINNED.ref not in {item["ref"] for item in notified(world)}
    row = world.database["outbox"].find_one({"ref": PINNED.ref})
    assert row is not None and (row["status"], row["why"]) == ("SUPERSEDED", "erased")
    assert not counts.differences(counts.compare(world, CAMPAIGN, 1)), "an erased ref is left aside"


def test_the_count_lock_leaves_struck_refs_aside_and_holds_in_every_phase(world: Runtime) -> None:
    draw_second(world)
    under_the_lease(world, confirm=True)
    publish(world, 2)
    run(world, SELECTIONS)
    numbers = counts.compare(world, CAMPAIGN, 2)
    assert not counts.differences(numbers)
    assert (numbers["won"], numbers["coded"], numbers["aside"]) == (3, 4, 1)
    assert counts_match(world, CAMPAIGN).passed
    run(world, NOTIFICATIONS)
    assert "countsLockedAt" in record_of(world).phases[2].fields


@pytest.mark.parametrize(
    ("collection", "query", "change", "wrong"),
    [
        ("codes", {"ref": PINNED.ref}, {"ref": PROMOTED.ref}, "wonWithoutCode 1, codeWithoutWin 1"),
        ("outbox", {"ref": PINNED.ref}, {"ref": PROMOTED.ref}, "wonNotNotified 1, notifiedWithoutWin 1"),
        ("outbox", {"ref": PINNED.ref}, {"status": "SUPERSEDED", "why": "phase 2"}, "wonNotNotified 1"),
    ],
)
def test_winners_codes_and_messages_that_are_not_of_the_same_refs_stop_the_campaign(
    world: Runtime, collection: str, query: dict[str, str], change: dict[str, str], wrong: str
) -> None:
    world.database[collection].update_one(query, {"$set": change})
    report = run(world, NOTIFICATIONS)
    assert report.counts["sent"] == 0 and report.counts["campaigns_paused"] == 1
    assert wrong in world.draw_markets.switch(CAMPAIGN)["reason"] and notified(world) == []
    verdict = counts_match(world, CAMPAIGN)
    assert not verdict.passed and wrong in verdict.description


def test_a_winner_who_gets_another_message_too_stops_the_campaign(world: Runtime) -> None:
    others = MarketPhase(CAMPAIGN, NON_WINNERS, 1)
    row = world.database["outbox"].find_one_and_delete({"ref": LOWERED.ref})
    assert row is not None
    world.database["outbox"].insert_one({**row, "_id": others.key(PINNED.ref), "ref": PINNED.ref})
    assert run(world, NOTIFICATIONS).counts["campaigns_paused"] == 1
    assert "notifiedTwice 1" in world.draw_markets.switch(CAMPAIGN)["reason"] and notified(world) == []


def test_a_dead_letter_of_the_mailer_is_superseded_by_the_phase_that_changes_it(world: Runtime) -> None:
    run(world, NOTIFICATIONS)
    dead = world.queue(world.names.dead_letter_queue(world.names.notification_queue))
    queue = world.queue(world.names.notification_queue)
    for message in queue.receive(10, 0, 30):
        dead.send([Outgoing(message.body.encode(), {"reason": "SERVICE_REFUSED", "error": "refused"})])
    draw_second(world)
    under_the_lease(world, confirm=True)
    listed = regworkers(world, "dlq", "list", dead.name, "--format", "json").document
    found = listed["letters"]
    items = [item for each in found for item in each["items"]]
    verdicts = {item["id"].rpartition(":")[2]: item["verdict"] for item in items}
    assert {ref for ref, verdict in verdicts.items() if verdict == "superseded"} == set(CHANGES)
    assert set(verdicts) == {row.ref for row in ROWS}


def test_no_message_of_an_annulled_draw_is_sent_whenever_it_was_written(world: Runtime) -> None:
    with held_lease(world.leases, lease_name(CAMPAIGN), "draw-run", lease_seconds=10.0) as lease:
        world.draws.annul(
            CAMPAIGN, {"annulledAt": CONFIRMED_AT, "phase": 1, "reason": "wrong"}, token=lease.token
        )
    report = run(world, NOTIFICATIONS)
    assert notified(world) == [] and set(statuses(world).values()) == {RowStatus.SUPERSEDED}
    assert report.counts["superseded"] == len(ROWS) and report.counts["markets_delivered"] == 2
    assert {row["why"] for row in world.database["outbox"].find()} == {"annulled"}


@pytest.mark.parametrize("data", [b"no table", None])
@pytest.mark.parametrize("second", [True, False])
def test_a_result_that_is_not_the_draws_pauses_only_its_campaign(
    world: Runtime, data: bytes | None, second: bool
) -> None:
    confirmed(world, ROWS, ["berlin"], campaign_id="winter")
    add_codes(world, "paris", 3, campaign_id="winter", marketId="berlin")
    publish(world, campaign_id="winter")
    run(world, SELECTIONS)
    if second:
        # Drawn by a run that died before what it changes was held: the count lock of the first phase remains.
        at = {"phases.1.countsLockedAt": CONFIRMED_AT}
        world.database["draws"].update_one({"_id": CAMPAIGN}, {"$set": at})
        draw_second(world)
    key = f"pipeline/{CAMPAIGN}/phase-{2 if second else 1}/outcomes.parquet"
    right = world.objects.get_bytes(key)
    world.objects.delete(key)
    if data is not None:
        world.objects.put_bytes(key, data)
    report = run(world, NOTIFICATIONS)
    assert (report.counts["campaigns_paused"], report.counts["sent"]) == (1, len(ROWS))
    assert {item["campaignId"] for item in notified(world)} == {"winter"}
    assert "restore the file" in world.draw_markets.switch(CAMPAIGN)["reason"]
    world.objects.put_bytes(key, right)
    outbox.resume(world, CAMPAIGN, reason="it is back", by="ann")
    assert run(world, NOTIFICATIONS).counts["campaigns_paused"] == 0 and notified(world)
