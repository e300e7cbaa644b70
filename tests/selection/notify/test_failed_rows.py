"""A row of the outbox that raises: it alone is tried no more, is known of, and is brought back by a command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from regworkers_core.adapters.aws.sqs import EventQueue
from regworkers_core.domain.messages import DeadLetter
from regworkers_core.domain.reasons import PermanentFailure, TransientFailure
from regworkers_core.domain.selection import MarketPhase, Notice, NoticeType
from regworkers_core.engine.defects import MOST_DEFECTS, WINDOW_ITEMS, NotRepeatable, bisect
from regworkers_core.engine.drain import Settlement
from regworkers_core.operations.health.snapshot import read_campaigns
from regworkers_core.runtime import Runtime
from regworkers_core.selection.drains import NOTIFICATIONS, SELECTIONS
from regworkers_core.selection.notify import work
from regworkers_core.selection.notify.source import Parcel
from regworkers_core.selection.notify.work import NotifyWork
from regworkers_core.selection.status import ToDo, read_campaign_status
from tests.support.drains import run
from tests.support.draws import CAMPAIGN, published, raising_for, result
from tests.support.in_memory import MemoryQueue
from tests.support.terminal import regworkers
from tests.support.waiting import sleeping


def findings_of(runtime: Runtime) -> list[ToDo]:
    campaign = runtime.campaigns.require_id(CAMPAIGN)
    with sleeping(lambda _seconds: None):
        return read_campaign_status(runtime, campaign).findings


MARKET = MarketPhase("c1", "m1", 1)


class FakeOutbox:
    def __init__(self) -> None:
        self.sent: list[str] = []
        self.failed: dict[str, PermanentFailure] = {}

    def mark_sent(self, keys: Sequence[str], **_: Any) -> int:
        self.sent += keys
        return len(keys)

    def fail(self, key: str, failure: PermanentFailure, **_: Any) -> bool:
        self.failed[key] = failure
        return True


class FakeDeadLetters:
    def __init__(self) -> None:
        self.recorded: list[DeadLetter] = []
        self.unavailable = False

    def record(self, dead_letters: Sequence[DeadLetter], **_: Any) -> None:
        if self.unavailable:
            raise TransientFailure("mongo", "away")
        self.recorded += dead_letters


class World:
    """The work over fakes; rows whose ref begins with `bad` raise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mailer, self.outbox, self.dead_letters, self.may_send = (
            MemoryQueue(),
            FakeOutbox(),
            FakeDeadLetters(),
            True,
        )
        self.analytics = MemoryQueue()
        runtime: Any = SimpleNamespace(
            names=SimpleNamespace(notification_queue="n", analytics_queue="a"),
            queue={"n": self.mailer}.__getitem__,
            event_queue=lambda _role: EventQueue(self.analytics, sign=lambda _body: "signed"),
            clock=lambda: 0.0,
            outbox=self.outbox,
            dead_letters=self.dead_letters,
        )
        notification_queued = work.notification_queued

        def raising(notice: Notice, at: str, correlation_id: str) -> Any:
            if notice.ref.startswith("bad"):
                raise KeyError("a fan's secret")
            return notification_queued(notice, at, correlation_id)

        monkeypatch.setattr(work, "notification_queued", raising)
        self.work = NotifyWork(runtime, run_id="run", may_send=lambda: self.may_send)

    def notified(self) -> list[str]:
        return [item["ref"] for each in self.mailer.sent for item in orjson.loads(each.body)["items"]]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def parcel(*refs: str) -> Parcel:
    at = "2026-11-26T06:00:00.000Z"
    return Parcel(tuple(Notice(MARKET, ref, f"e-{ref}", NoticeType.WINNER, "hash", at) for ref in refs))


def test_a_row_that_raises_alone_twice_fails_alone_and_is_recorded_without_a_value(world: World) -> None:
    settlement = world.work([parcel("r1", "bad", "r2"), parcel("r3")])
    assert sorted(world.notified()) == ["r1", "r2", "r3"] and len(settlement.done) == 2
    assert dict(settlement.counts) == {"received": 4, "sent": 3, "unchanged": 0, "dead_lettered": 1}
    ((key, failure),) = world.outbox.failed.items()
    assert key == MARKET.key("bad") and str(failure).startswith("DEFECT: KeyError at ")
    (dead_letter,) = world.dead_letters.recorded
    assert dead_letter.queue == "outbox" and dead_letter.subject is not None
    assert dead_letter.subject.ids == {"campaignId": "c1", "marketId": "m1", "phase": 1, "entryId": "e-bad"}
    assert "secret" not in str((failure, dead_letter))


def test_a_row_whose_failure_cannot_be_recorded_is_given_back(world: World) -> None:
    world.dead_letters.unavailable = True
    settlement = world.work([parcel("r1", "bad")])
    assert world.notified() == ["r1"] and not world.outbox.failed
    assert settlement.counts["returned"] == 1 and len(settlement.again) == 1 and not settlement.defects


def test_too_many_rows_with_one_cause_blow_the_fuse_and_the_rest_stay_as_they_are(world: World) -> None:
    parcels = [parcel(*(f"bad{number}-{each}" for each in range(10))) for number in range(4)]
    settlement = world.work(parcels)
    assert len(world.outbox.failed) == MOST_DEFECTS and settlement.blown is not None
    assert settlement.counts["dead_lettered"] == MOST_DEFECTS
    assert settlement.counts["received"] == 40 == MOST_DEFECTS + settlement.counts["returned"]
    after = world.work([parcel("r1")])
    assert world.notified() == [] and after.counts["returned"] == 1


def test_rows_that_are_sent_in_between_keep_a_rare_defect_from_blowing_the_fuse(world: World) -> None:
    for number in range(MOST_DEFECTS + 1):
        world.work([parcel(f"bad{number}")])
        sent = (f"r{number}-{each}" for each in range(WINDOW_ITEMS // MOST_DEFECTS))
        assert world.work([parcel(*sent)]).blown is None
    assert len(world.outbox.failed) == MOST_DEFECTS + 1


@pytest.mark.parametrize("permanent", [False, True])
def test_a_message_that_the_mailers_queue_refuses_stays_owed_and_is_sent_later(
    world: World, permanent: bool
) -> None:
    parcels = [parcel("r1"), parcel("r2"), parcel("r3")]
    world.mailer.fail = {1: permanent}
    settlement = world.work(parcels)
    assert settlement.counts == {"received": 3, "sent": 2, "unchanged": 0, "returned": 1}
    assert [each for each, _ in settlement.again] == [parcels[1]]
    assert world.outbox.sent == [MARKET.key("r1"), MARKET.key("r3")] and len(world.analytics.sent) == 1
    assert world.work([parcels[1]]).done == [parcels[1]]
    assert sorted(world.notified()) == ["r1", "r2", "r3"] and MARKET.key("r2") in world.outbox.sent


@pytest.mark.parametrize("permanent", [False, True])
def test_messages_whose_events_are_refused_stay_owed_and_the_events_come_later(
    world: World, permanent: bool
) -> None:
    world.analytics.fail = {0: permanent}
    settlement = world.work([parcel("r1")])
    assert settlement.done == [] and settlement.counts == {"received": 1, "returned": 1}
    assert world.outbox.sent == [] and world.analytics.sent == []
    assert world.work([parcel("r1")]).counts["sent"] == 1
    assert world.outbox.sent == [MARKET.key("r1")] and len(world.analytics.sent) == 1


def test_nothing_is_sent_once_a_lease_is_lost(world: World) -> None:
    world.may_send = False
    settlement = world.work([parcel("r1")])
    assert world.notified() == [] and settlement.counts == {"received": 1, "returned": 1}


def test_a_failed_message_shows_and_is_tried_again_by_command(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = result({"berlin": 2})
    published(runtime, rows, ["berlin"], codes=2)
    run(runtime, SELECTIONS)
    monkeypatch.setattr(work, "notification_queued", raising_for(rows[0].ref))
    report = run(runtime, NOTIFICATIONS)
    assert (report.counts["sent"], report.counts["dead_lettered"]) == (1, 1) and report.adds_up
    monkeypatch.undo()
    assert run(runtime, NOTIFICATIONS).counts["received"] == 0, "it is not tried again by itself"
    shown = regworkers(runtime, "notifications", "status", CAMPAIGN)
    assert shown.code == 1 and f"regworkers notifications retry {CAMPAIGN}" in shown.stdout
    assert read_campaigns(runtime)[0].failed_messages == 1
    assert any("1 messages failed" in each.text for each in findings_of(runtime))
    (dead_letter,) = runtime.database["dead_letters"].find()
    assert dead_letter["reason"] == "DEFECT" and dead_letter["error"].startswith("KeyError at ")
    done = regworkers(runtime, "notifications", "retry", CAMPAIGN, "--format", "json")
    assert (done.code, done.document["messages"], done.document["deadLettersClosed"]) == (0, 1, 1)
    assert run(runtime, NOTIFICATIONS).counts["sent"] == 1
    assert regworkers(runtime, "notifications", "status", CAMPAIGN).code == 0


def test_an_exception_after_the_sending_tells_no_fan_twice_in_one_batch(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mark_sent(*_: object, **__: object) -> int:
        raise RuntimeError("an answer that is none")

    monkeypatch.setattr(world.outbox, "mark_sent", mark_sent)
    with capture_logs(), pytest.raises(NotRepeatable):
        bisect(
            [parcel(f"r{number}") for number in range(10)], world.work, lambda _parcel, _error: Settlement()
        )
    by_ref = Counter(world.notified())
    assert set(by_ref.values()) == {1} and len(by_ref) == 10
