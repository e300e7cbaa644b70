"""The drain over a source with a script: what it settles, what it counts, when it leaves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from regworkers_core.domain.reasons import PermanentFailure, Reason, UsageError
from regworkers_core.engine.drain import OUTCOMES, DrainLimits, DrainReport, Settlement
from regworkers_core.engine.stop import StopSignal
from tests.engine.fakes import Clock, FakeSource, all_done, away, run_fake
from tests.support.waiting import wait_until

ENDLESS = [[number] for number in range(400)]

# What the work makes of a delivery: `returned` goes back, everything else is done; an item or several.
FATES = st.tuples(st.sampled_from(OUTCOMES), st.integers(1, 3))
BATCHES = st.lists(
    st.one_of(
        st.lists(FATES, min_size=1, max_size=4),
        st.sampled_from(["receive fails", "work raises"]),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(BATCHES, st.booleans())
def test_the_counters_add_up_whatever_becomes_of_the_items(
    script: list[list[tuple[str, int]] | str], acknowledging_fails: bool
) -> None:
    # More defects end the drain with the last of them: see below.
    assume(script.count("work raises") < 5)
    moves: list[Sequence[int] | BaseException] = []
    fates: dict[int, tuple[str, int] | None] = {}
    for step in script:
        if step == "receive fails":
            moves.append(away())
            continue
        batch = [None] if isinstance(step, str) else step
        moves.append(range(len(fates), len(fates) + len(batch)))
        fates.update(zip(range(len(fates), len(fates) + len(batch)), batch, strict=True))

    def work(batch: Sequence[int]) -> Settlement[int]:
        settlement = Settlement[int]()
        for delivery in batch:
            fate = fates[delivery]
            if fate is None:
                raise ValueError("a defect of the work")
            outcome, items = fate
            settlement.counts.update({"received": items, outcome: items})
            if outcome == "returned":
                settlement.again.append((delivery, 1.0))
            else:
                settlement.done.append(delivery)
        return settlement

    clock = Clock()
    source = FakeSource(clock, moves)
    source.acknowledge_failure = away if acknowledging_fails else None
    with capture_logs():
        report = run_fake(source, work, clock=clock)
    assert report.adds_up and report.as_dict()["addsUp"] is True
    assert report.counts["received"] == sum(items for _, items in filter(None, fates.values())) + sum(
        fate is None for fate in fates.values()
    )
    back = {delivery for delivery, fate in fates.items() if fate is None or fate[0] == "returned"}
    assert set(source.of("given back")) == back
    assert sorted(source.of("acknowledged")) == sorted(set(fates) - back)
    assert report.deliveries["received"] == len(fates)
    assert source.asked[-1] == ("closed", 0) and source.of("closed") == [0]


def test_a_report_that_forgets_an_item_or_a_delivery_does_not_add_up() -> None:
    report = DrainReport("fake")
    report.counts.update(received=2, applied=2)
    report.deliveries.update(received=1, acknowledged=1)
    assert report.adds_up
    report.counts["received"] = 3
    assert not report.adds_up
    report.counts["returned"] = 1
    assert report.adds_up
    report.deliveries["received"] = 2
    assert not report.adds_up


def test_nothing_is_acknowledged_before_its_work_returned() -> None:
    clock, returned = Clock(), set[int]()
    source = FakeSource(clock, ENDLESS)
    too_early: list[int] = []
    acknowledge = source.acknowledge

    def watch(done: Sequence[int]) -> None:
        too_early.extend(delivery for delivery in done if delivery not in returned)
        acknowledge(done)

    def work(batch: Sequence[int]) -> Settlement[int]:
        settlement = all_done(batch)
        returned.update(batch)
        return settlement

    source.acknowledge = watch  # type: ignore[method-assign]
    run_fake(source, work, clock=clock)
    assert sorted(source.of("acknowledged")) == list(range(len(ENDLESS)))
    assert too_early == []


@pytest.mark.parametrize(("concurrency", "prefetch"), [(1, 0), (2, 1), (4, 3)])
def test_batches_in_memory_are_bounded_whatever_the_backlog(concurrency: int, prefetch: int) -> None:
    clock, lock = Clock(), threading.Lock()
    source = FakeSource(clock, ENDLESS)
    most = {"held": 0, "running": 0}
    running = settled = 0

    def look(receives: int) -> None:
        if receives <= len(ENDLESS):
            with lock:
                most["held"] = max(most["held"], receives - settled)

    def work(batch: Sequence[int]) -> Settlement[int]:
        nonlocal running, settled
        with lock:
            running += 1
            most["running"] = max(most["running"], running)
        # The first batches wait until as much as possible has been received.
        if batch[0] < concurrency:
            wait_until(lambda: source.receives >= concurrency + prefetch, what="receiving ahead")
        with lock:
            running -= 1
            settled += 1
        return all_done(batch)

    source.on_receive = look
    limits = DrainLimits(
        idle_seconds=3, max_seconds=1e9, concurrency=concurrency, prefetch=prefetch, heartbeat_seconds=3600
    )
    report = run_fake(source, work, clock=clock, limits=limits)
    assert report.counts["applied"] == len(ENDLESS)
    assert most == {"held": concurrency + prefetch, "running": concurrency}


def test_a_work_that_raises_gives_its_batch_back_and_the_drain_goes_on() -> None:
    clock = Clock()
    source = FakeSource(clock, [[1, 2], [3], [4]])

    def work(batch: Sequence[int]) -> Settlement[int]:
        if 3 in batch:
            raise PermanentFailure(Reason.INVALID_BODY, "not settled by the work")
        return all_done(batch)

    report = run_fake(source, work, clock=clock)
    assert source.of("given back") == [3]
    assert sorted(source.of("acknowledged")) == [1, 2, 4]
    assert (report.ended, report.counts["returned"], report.counts["applied"]) == ("idle", 1, 3)


def test_defects_that_pile_up_end_the_drain_so_that_its_run_is_seen_to_fail() -> None:
    clock = Clock()
    source = FakeSource(clock, [[number] for number in range(50)])

    def work(batch: Sequence[int]) -> Settlement[int]:
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        run_fake(source, work, clock=clock)
    assert 5 <= len(source.of("given back")) < 50
    assert source.asked[-1] == ("closed", 0) and source.of("acknowledged") == []


def test_refused_access_ends_the_drain_at_once_and_everything_goes_back() -> None:
    clock = Clock()
    source = FakeSource(clock, [[number] for number in range(50)])

    def work(batch: Sequence[int]) -> Settlement[int]:
        raise UsageError("AWS refuses BatchGetItem: check the role")

    with pytest.raises(UsageError, match="check the role"):
        run_fake(source, work, clock=clock)
    assert len(source.of("given back")) < 20 and source.of("acknowledged") == []


def test_an_exception_in_the_main_thread_still_settles_what_is_in_flight_and_closes_the_source() -> None:
    clock, interrupted = Clock(), threading.Event()
    source = FakeSource(clock, [[1], KeyboardInterrupt()])
    source.on_receive = lambda number: interrupted.set() if number == 2 else None

    def work(batch: Sequence[int]) -> Settlement[int]:
        assert interrupted.wait(10)
        return all_done(batch)

    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        run_fake(source, work, clock=clock, on_progress=lambda report: seen.append(report.counts["applied"]))
    assert source.asked == [("acknowledged", 1), ("closed", 0)]
    assert seen[-1] == 1


def test_a_usage_error_of_a_receive_ends_the_drain_and_closes_the_source() -> None:
    clock = Clock()
    source = FakeSource(clock, [[1], UsageError("queue q does not exist")])
    with pytest.raises(UsageError):
        run_fake(source, clock=clock)
    assert source.asked == [("acknowledged", 1), ("closed", 0)]


@pytest.mark.parametrize("failure", [away, RuntimeError], ids=["away", "defect"])
def test_heartbeats_go_on_after_a_failed_one_and_the_drain_as_well(failure: Callable[[], Exception]) -> None:
    clock = Clock()
    source = FakeSource(clock, [[1]])
    source.heartbeat_failure = failure

    def work(batch: Sequence[int]) -> Settlement[int]:
        wait_until(lambda: source.heartbeats >= 3, what="the third heartbeat")
        return all_done(batch)

    limits = DrainLimits(idle_seconds=3, max_seconds=1e9, heartbeat_seconds=0.005)
    report = run_fake(source, work, clock=clock, limits=limits)
    assert (report.ended, source.of("acknowledged")) == ("idle", [1])


def test_a_source_that_cannot_close_does_not_spoil_the_report() -> None:
    clock = Clock()
    source = FakeSource(clock, [[1]])
    source.close_failure = away
    report = run_fake(source, clock=clock)
    assert (report.ended, report.counts["applied"], report.counts["source_trouble"]) == ("idle", 1, 1)


# How a drain ends


def test_it_leaves_after_the_idle_time_and_work_starts_that_time_anew() -> None:
    clock = Clock()
    source = FakeSource(clock, [[], [], [1], [], []])
    start = clock.now
    report = run_fake(source, clock=clock)
    assert report.ended == "idle"
    # Two idle seconds, then work, then the full three; the first look at the clock is a receive later.
    assert clock.now - start >= 2 + 3
    assert report.seconds == clock.now - start


def test_an_empty_receive_is_no_idleness_while_others_hold_the_work() -> None:
    clock = Clock()
    source = FakeSource(clock)
    source.busy_elsewhere = 20
    start = clock.now
    assert run_fake(source, clock=clock).ended == "idle"
    assert clock.now - start >= 20 + 3


def test_it_is_not_idle_while_work_is_in_flight() -> None:
    clock = Clock()
    source = FakeSource(clock, [[1]])

    def work(batch: Sequence[int]) -> Settlement[int]:
        wait_until(lambda: source.receives > 20, what="many empty receives")
        return all_done(batch)

    assert run_fake(source, work, clock=clock).ended == "idle"
    assert source.of("acknowledged") == [1]


def test_it_leaves_at_the_time_limit_though_there_is_more() -> None:
    clock = Clock()
    source = FakeSource(clock, ENDLESS)

    def look(_number: int) -> None:
        clock.now += 1.0

    source.on_receive = look
    limits = DrainLimits(idle_seconds=3, max_seconds=10, heartbeat_seconds=3600)
    report = run_fake(source, clock=clock, limits=limits)
    assert report.ended == "time_limit"
    assert source.receives == 10 == report.counts["applied"]


def test_it_leaves_at_the_stop_signal_and_acknowledges_what_is_in_flight() -> None:
    clock, stop = Clock(), StopSignal()
    source = FakeSource(clock, ENDLESS)
    source.on_receive = lambda number: stop.set() if number == 5 else None
    report = run_fake(source, clock=clock, stop=stop)
    assert report.ended == "stopped"
    assert sorted(source.of("acknowledged")) == [0, 1, 2, 3, 4]


def test_it_leaves_when_a_dependency_goes_down_and_names_it() -> None:
    clock = Clock()
    source = FakeSource(clock, ENDLESS)
    report = run_fake(source, clock=clock, down=lambda: "mongo" if source.receives >= 3 else None)
    assert (report.ended, report.dependency) == ("dependency_down", "mongo")
    assert source.receives == 3 and sorted(source.of("acknowledged")) == [0, 1, 2]
    assert report.began


def test_it_receives_nothing_when_the_probe_finds_a_dependency_away() -> None:
    clock = Clock()
    source = FakeSource(clock, ENDLESS)
    report = run_fake(source, clock=clock, probe=lambda: "mongo")
    assert (report.ended, report.dependency, source.receives) == ("dependency_down", "mongo", 0)
    assert report.adds_up and not report.began


def test_a_source_that_cannot_be_read_is_asked_again() -> None:
    clock = Clock()
    source = FakeSource(clock, [away(), away(), [1]])
    assert run_fake(source, clock=clock).counts["applied"] == 1
