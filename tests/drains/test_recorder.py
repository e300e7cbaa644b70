"""What a drain writes down by the minute, and that it never suffers from it."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from structlog.testing import capture_logs

from regworkers_core.domain.activity import DrainMinute
from regworkers_core.drains.recorder import DependencyUsage, MinuteCounters, Recorder
from regworkers_core.engine.drain_report import DrainReport
from tests.engine.fakes import unavailable
from tests.support.waiting import wait_until


class World:
    """A clock in epoch seconds and counters that only move when the test says so."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.calls: Counter[str] = Counter(mongo=5)
        self.waited: dict[str, float] = {"mongo": 2.0}
        self.throttles: Counter[str] = Counter(dynamodb=3)
        self.tally = MinuteCounters(
            "save",
            "run",
            limit_seconds=60.0,
            clock=lambda: self.now,
            late_seconds=60.0,
            usage=lambda: DependencyUsage(dict(self.calls), dict(self.waited), dict(self.throttles)),
        )

    def batch(self, seconds: float, **counts: int) -> None:
        self.calls["mongo"] += 1
        self.waited["mongo"] += seconds
        self.tally.batch(counts, seconds, {}, {})


def test_the_numbers_of_a_minute_are_put_again_and_again_until_it_is_over() -> None:
    world = World()
    world.batch(0.5, received=3, applied=2, dead_lettered=1)
    (first,) = world.tally.take()
    assert (first.minute, first.counts["received"], first.failed, first.batches) == (
        "2027-01-15T08:00Z",
        3,
        1,
        1,
    )
    assert first.batch_max_seconds == 0.5 and first.batch_limit_seconds == 60.0
    assert (first.calls, first.waited_seconds, first.ended) == ({"mongo": 1}, {"mongo": 0.5}, "")
    world.now += 30
    world.batch(2.0, received=1, applied=1)
    (second,) = world.tally.take()
    assert (second.minute, second.counts["received"], second.batches) == (first.minute, 4, 2)
    assert second.batch_p95_seconds == pytest.approx(2.0, rel=0.03)


def test_a_batch_counts_in_the_minute_in_which_it_ended_and_what_was_before_is_put_once_more() -> None:
    world = World()
    world.batch(1.0, received=1, applied=1)
    world.now += 60
    world.batch(3.0, received=2, applied=2)
    before, now = world.tally.take()
    assert (before.minute, before.counts, before.batches) == (
        "2027-01-15T08:00Z",
        {"received": 1, "applied": 1},
        1,
    )
    assert (now.minute, now.counts["received"], now.batch_max_seconds) == ("2027-01-15T08:01Z", 2, 3.0)
    # The second call was made before the end of the minute was noticed.
    assert before.calls["mongo"] + now.calls.get("mongo", 0) == 2
    assert [minute.minute for minute in world.tally.take()] == ["2027-01-15T08:01Z"]


def test_a_minute_without_work_is_written_too_and_a_clock_that_goes_back_reopens_none() -> None:
    world = World()
    world.now += 60
    empty = world.tally.take()[-1]
    assert (empty.minute, empty.counts, empty.batches) == ("2027-01-15T08:01Z", {}, 0)
    assert empty.batch_p95_seconds is None and empty.batch_max_seconds is None
    world.now -= 120
    assert [minute.minute for minute in world.tally.take()] == ["2027-01-15T08:01Z"]


def test_the_end_brings_what_no_batch_counted_and_how_it_ended() -> None:
    world = World()
    world.batch(0.1, received=1, sent=1)
    report = DrainReport("save", Counter(received=1, sent=1, trimmed=2), ended="idle")
    report.lag.add(7.0)
    (last,) = world.tally.end(report)
    assert (last.counts["received"], last.counts["trimmed"], last.ended) == (1, 2, "idle")
    assert last.lag_p95_seconds == pytest.approx(7.0, rel=0.03)
    assert world.tally.end(None)[-1].ended == "failed"


def test_a_drain_is_seen_before_its_first_batch_and_while_it_has_none() -> None:
    written: list[DrainMinute] = []
    with Recorder(World().tally, written.append, flush_seconds=0.01) as recorder:
        wait_until(lambda: len(written) > 2)
        recorder.report = DrainReport("save", ended="idle")
    assert {minute.ended for minute in written[:-1]} == {""} and written[-1].ended == "idle"


def test_a_log_that_cannot_be_written_is_reported_once_and_harmless() -> None:
    tries = []

    def refuse(minute: DrainMinute) -> None:
        tries.append(minute)
        raise unavailable() if len(tries) % 2 else RuntimeError("a driver's text with a fan's name")

    with capture_logs() as lines, Recorder(World().tally, refuse, flush_seconds=0.01):
        wait_until(lambda: len(tries) > 3)
    assert [line["event"] for line in lines] == ["drain log not written"]
    assert "a fan's name" not in str(lines)


def test_a_log_that_hangs_does_not_hold_up_the_end_of_a_drain() -> None:
    hangs, let_go = threading.Event(), threading.Event()

    def hang(_minute: DrainMinute) -> None:
        hangs.set()
        assert let_go.wait(60)

    with Recorder(World().tally, hang, last_write_seconds=0.05):
        assert hangs.wait(10)
    # Here while it still hangs.
    assert not let_go.is_set()
    let_go.set()


def test_throttled_calls_are_those_of_the_minute() -> None:
    world = World()
    world.batch(0.5, received=1)
    assert world.tally.take()[0].throttles == {}
    world.throttles["dynamodb"] += 2
    assert world.tally.take()[0].throttles == {"dynamodb": 2}
    world.now += 60
    assert [minute.throttles for minute in world.tally.take()] == [{"dynamodb": 2}, {}]


def test_a_minute_counts_its_own_lags_and_how_many_were_late() -> None:
    world, report = World(), DrainReport("save")
    report.lag.add_all([1.0, 2.0, 59.0, 90.0])
    world.tally.progress(report)
    assert [(each.measured, each.late) for each in world.tally.take()] == [(4, 1)]
    world.now += 60
    report.lag.add_all([61.5, 5.0])
    world.tally.progress(report)
    assert [(each.measured, each.late) for each in world.tally.take()] == [(4, 1), (2, 1)]
    report.lag.add(3600.0)
    assert [(each.measured, each.late) for each in world.tally.end(report)] == [(3, 2)]
