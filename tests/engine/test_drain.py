"""The drain over a source with a script: what it settles, what it counts, when it leaves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from regworkers_core.domain.reasons import PermanentFailure, Reason, UsageError
from regworkers_core.engine.drain import DrainLimits, Post, Settlement
from regworkers_core.engine.drain_report import OUTCOMES, DrainReport
from regworkers_core.engine.stop import StopSignal
from tests.engine.fakes import FakeSource, all_done, run_fake, unavailable
from tests.support.waiting import Clock, wait_until

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


@settings(max_examples=60)
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
            moves.append(unavailable())
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

    source = FakeSource(moves)
    source.acknowledge_failure = unavailable if acknowledging_fails else None
    with capture_logs():
        report = run_fake(source, work)
    assert report.adds_up and report.as_dict()["addsUp"] is True
    assert report.counts["received"] == sum(items for _, items in filter(None, fates.values())) + sum(
        fate is None for fate in fates.values()
    )
    back = {delivery for delivery, fate in fates.items() if fate is None or fate[0] == "returned"}
    assert report.acknowledged == (0 if acknowledging_fails else len(fates) - len(back))
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


@dataclass(frozen=True)
class Message:
    message_id: str


def test_each_batch_is_one_line_with_its_time_and_the_messages_that_failed() -> None:
    good, bad, late = (Message(f"m{number}") for number in range(3))

    def work(batch: Sequence[Message]) -> Settlement[Message]:
        settlement = Settlement[Message]()
        for each in batch:
            settlement.counts.update({"received": 1, "returned" if each is late else "sent": 1})
            if each is late:
                settlement.again.append((each, 1.0))
            else:
                settlement.done.append(each)
        settlement.failed.extend(each.message_id for each in batch if each is bad)
        return settlement

    moves: Any = [[good], [good, bad, late]]
    source = FakeSource(moves)
    with capture_logs() as logs:
        run_fake(source, work)  # type: ignore[arg-type]
    lines = [line for line in logs if line["event"] == "batch settled"]
    lines.sort(key=lambda line: int(line["items"]))
    # Both queries of the operations manual count the second line alone: `like /.+/`, and `!= "[]"`.
    assert [line.get("batchItemFailures") for line in lines] == [None, '["m1", "m2"]']
    assert [line["items"] for line in lines] == [1, 3]
    assert all(isinstance(line["durationMs"], int) for line in lines)


def test_nothing_is_acknowledged_before_its_work_returned() -> None:
    returned = set[int]()
    source = FakeSource(ENDLESS)
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
    run_fake(source, work)
    assert sorted(source.of("acknowledged")) == list(range(len(ENDLESS)))
    assert too_early == []


@pytest.mark.parametrize(("concurrency", "prefetch"), [(1, 0), (2, 1), (4, 3)])
def test_batches_in_memory_are_bounded_whatever_the_backlog(concurrency: int, prefetch: int) -> None:
    lock = threading.Lock()
    source = FakeSource(ENDLESS)
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
    report = run_fake(source, work, limits=limits)
    assert report.counts["applied"] == len(ENDLESS)
    assert most == {"held": concurrency + prefetch, "running": concurrency}


def test_a_work_that_raises_gives_its_batch_back_and_the_drain_goes_on() -> None:
    source = FakeSource([[1, 2], [3], [4]])

    def work(batch: Sequence[int]) -> Settlement[int]:
        if 3 in batch:
            raise PermanentFailure(Reason.INVALID_BODY, "not settled by the work")
        return all_done(batch)

    report = run_fake(source, work)
    assert source.of("given back") == [3]
    assert sorted(source.of("acknowledged")) == [1, 2, 4]
    assert (report.ended, report.counts["returned"], report.counts["applied"]) == ("idle", 1, 3)


def test_defects_that_pile_up_end_the_drain_so_that_its_run_is_seen_to_fail() -> None:
    source = FakeSource([[number] for number in range(50)])

    def work(batch: Sequence[int]) -> Settlement[int]:
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        run_fake(source, work)
    assert 5 <= len(source.of("given back")) < 50
    assert source.asked[-1] == ("closed", 0) and source.of("acknowledged") == []


def test_refused_access_ends_the_drain_at_once_and_everything_goes_back() -> None:
    source = FakeSource([[number] for number in range(50)])

    def work(batch: Sequence[int]) -> Settlement[int]:
        raise UsageError("AWS refuses BatchGetItem: check the role")

    with pytest.raises(UsageError, match="check the role"):
        run_fake(source, work)
    assert len(source.of("given back")) < 20 and source.of("acknowledged") == []


def test_an_exception_in_the_main_thread_still_settles_what_is_in_flight_and_closes_the_source() -> None:
    interrupted = threading.Event()
    source = FakeSource([[1], KeyboardInterrupt()])
    source.on_receive = lambda number: interrupted.set() if number == 2 else None

    def work(batch: Sequence[int]) -> Settlement[int]:
        assert interrupted.wait(10)
        return all_done(batch)

    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        run_fake(source, work, on_progress=lambda report: seen.append(report.counts["applied"]))
    assert source.asked == [("acknowledged", 1), ("closed", 0)]
    assert seen[-1] == 1


def test_a_usage_error_of_a_receive_ends_the_drain_and_closes_the_source() -> None:
    source = FakeSource([[1], UsageError("queue q does not exist")])
    with pytest.raises(UsageError):
        run_fake(source)
    assert source.asked == [("acknowledged", 1), ("closed", 0)]


@pytest.mark.parametrize("failure", [unavailable, RuntimeError], ids=["unavailable", "defect"])
def test_heartbeats_go_on_after_a_failed_one_and_the_drain_as_well(failure: Callable[[], Exception]) -> None:
    source = FakeSource([[1]])
    source.heartbeat_failure = failure

    def work(batch: Sequence[int]) -> Settlement[int]:
        wait_until(lambda: source.heartbeats >= 3, what="the third heartbeat")
        return all_done(batch)

    limits = DrainLimits(idle_seconds=3, max_seconds=1e9, heartbeat_seconds=0.005)
    report = run_fake(source, work, limits=limits)
    assert (report.ended, source.of("acknowledged")) == ("idle", [1])


def test_a_source_that_cannot_close_does_not_spoil_the_report() -> None:
    source = FakeSource([[1]])
    source.close_failure = unavailable
    report = run_fake(source)
    assert (report.ended, report.counts["applied"], report.counts["source_trouble"]) == ("idle", 1, 1)


# How a drain ends


def test_it_leaves_after_the_idle_time_and_work_starts_that_time_again() -> None:
    source = FakeSource([[], [], [1], [], []])
    start = source.clock.now
    report = run_fake(source)
    assert report.ended == "idle"
    # Two idle seconds, then work, then the full three; the first look at the clock is a receive later.
    assert source.clock.now - start >= 2 + 3
    assert report.seconds == source.clock.now - start


def test_an_empty_receive_is_no_idleness_while_others_hold_the_work() -> None:
    source = FakeSource()
    source.busy_elsewhere = 20
    start = source.clock.now
    assert run_fake(source).ended == "idle"
    assert source.clock.now - start >= 20 + 3


def test_it_is_not_idle_while_work_is_in_flight() -> None:
    source = FakeSource([[1]])

    def work(batch: Sequence[int]) -> Settlement[int]:
        wait_until(lambda: source.receives > 20, what="many empty receives")
        return all_done(batch)

    assert run_fake(source, work).ended == "idle"
    assert source.of("acknowledged") == [1]


def test_it_leaves_at_the_time_limit_though_there_is_more() -> None:
    source = FakeSource(ENDLESS)

    def look(_number: int) -> None:
        source.clock.now += 1.0

    source.on_receive = look
    limits = DrainLimits(idle_seconds=3, max_seconds=10, heartbeat_seconds=3600)
    report = run_fake(source, limits=limits)
    assert report.ended == "time_limit"
    assert source.receives == 10 == report.counts["applied"]


def test_it_leaves_at_the_stop_signal_and_acknowledges_what_is_in_flight() -> None:
    stop = StopSignal()
    source = FakeSource(ENDLESS)
    source.on_receive = lambda number: stop.set() if number == 5 else None
    report = run_fake(source, stop=stop)
    assert report.ended == "stopped"
    assert sorted(source.of("acknowledged")) == [0, 1, 2, 3, 4]


def test_it_leaves_when_a_dependency_goes_down_and_names_it() -> None:
    source = FakeSource(ENDLESS)
    report = run_fake(source, down=lambda: "mongo" if source.receives >= 3 else None)
    assert (report.ended, report.dependency) == ("dependency_down", "mongo")
    assert source.receives == 3 and sorted(source.of("acknowledged")) == [0, 1, 2]
    assert report.began


def test_it_receives_nothing_when_the_probe_finds_a_dependency_unavailable() -> None:
    source = FakeSource(ENDLESS)
    report = run_fake(source, probe=lambda: "mongo")
    assert (report.ended, report.dependency, source.receives) == ("dependency_down", "mongo", 0)
    assert report.adds_up and not report.began


class Outage:
    """MongoDB is unavailable between two receives for `seconds` of the clock. It is asked by name, and its breaker
    closes with the first answer.
    """

    def __init__(self, source: FakeSource, seconds: float, *, from_receive: int = 3) -> None:
        self._source = source
        self._over, self._from = seconds, from_receive
        self._open = False
        self.asked: list[tuple[str, ...]] = []

    def probe(self, *names: str) -> str | None:
        self.asked.append(names)
        self._source.clock.now += 1.0
        self._over -= 1.0 if self._source.receives >= self._from else 0.0
        lasts = self._source.receives >= self._from and self._over > 0
        self._open = lasts
        return "mongo" if lasts else None

    def down(self) -> str | None:
        if self._source.receives == self._from and self._over > 0:
            self._open = True
        return "mongo" if self._open else None


def outage_limits(seconds: float) -> DrainLimits:
    return DrainLimits(
        idle_seconds=3, max_seconds=1e9, heartbeat_seconds=0.01, pause_seconds=0, outage_seconds=seconds
    )


def test_an_election_pauses_the_drain_which_keeps_what_it_holds_and_goes_on() -> None:
    source = FakeSource([[1], [2], [3], [4], [5]])
    outage = Outage(source, 12.0)
    with capture_logs() as logs:
        report = run_fake(source, limits=outage_limits(30.0), probe=outage.probe, down=outage.down)
    assert (report.ended, report.dependency, report.failure) == ("idle", None, None)
    assert sorted(source.of("acknowledged")) == [1, 2, 3, 4, 5] and report.adds_up
    # Nothing is received meanwhile, and only the unavailable one is asked.
    assert outage.asked == [(), *[("mongo",)] * 12]
    lines = [line for line in logs if line["event"].startswith("the drain ")]
    assert [line["event"] for line in lines] == ["the drain pauses", "the drain goes on"]
    assert lines[1]["pausedSeconds"] == 12.0


def test_an_outage_that_lasts_ends_the_drain() -> None:
    source = FakeSource(ENDLESS)
    outage = Outage(source, 1e9)
    with capture_logs():
        report = run_fake(source, limits=outage_limits(30.0), probe=outage.probe, down=outage.down)
    assert (report.ended, report.dependency, report.began) == ("dependency_down", "mongo", True)
    assert source.receives == 3 and report.seconds == 31.0


def test_a_drain_that_starts_in_an_election_waits_for_its_end() -> None:
    source = FakeSource([[1]])
    outage = Outage(source, 12.0, from_receive=0)
    with capture_logs():
        report = run_fake(source, limits=outage_limits(30.0), probe=outage.probe)
    assert (report.ended, report.began) == ("idle", True) and source.of("acknowledged") == [1]


@pytest.mark.parametrize("began", [True, False])
def test_a_stop_signal_ends_a_drain_that_pauses(began: bool) -> None:
    stop = StopSignal()
    source = FakeSource(ENDLESS)
    outage = Outage(source, 1e9, from_receive=3 if began else 0)

    def probe(*names: str) -> str | None:
        if len(outage.asked) == 5:
            stop.set()
        return outage.probe(*names)

    with capture_logs():
        report = run_fake(source, limits=outage_limits(1e6), stop=stop, probe=probe, down=outage.down)
    assert (report.ended, report.began) == ("stopped" if began else "dependency_down", began)


def test_a_source_that_cannot_be_read_is_asked_again() -> None:
    source = FakeSource([unavailable(), unavailable(), [1]])
    assert run_fake(source).counts["applied"] == 1


# What raises for one delivery


def test_a_delivery_that_raises_alone_goes_back_and_those_beside_it_are_done() -> None:
    source = FakeSource([[1, 2, 3, 4, 5], [6]])

    def work(batch: Sequence[int]) -> Settlement[int]:
        if 3 in batch:
            raise ValueError("a defect")
        return all_done(batch)

    with capture_logs():
        report = run_fake(source, work)
    assert source.of("given back") == [3]
    assert sorted(source.of("acknowledged")) == [1, 2, 4, 5, 6]
    assert report.adds_up and report.counts["applied"] == 5


@pytest.mark.parametrize("error", [MemoryError, OSError, ImportError])
def test_what_can_be_no_deliverys_fault_gives_the_whole_batch_back(error: type[Exception]) -> None:
    source = FakeSource([[1, 2, 3]])
    calls: list[Sequence[int]] = []

    def work(batch: Sequence[int]) -> Settlement[int]:
        calls.append(batch)
        raise error

    with capture_logs():
        report = run_fake(source, work)
    assert source.of("given back") == [1, 2, 3] and len(calls) == 1
    assert report.adds_up


def test_a_blown_fuse_ends_the_drain_and_fails_it() -> None:
    source = FakeSource(ENDLESS)

    def work(batch: Sequence[int]) -> Settlement[int]:
        if batch[0] < 3:
            return all_done(batch)
        settlement = Settlement[int](again=[(delivery, 1.0) for delivery in batch])
        settlement.counts.update(received=len(batch), returned=len(batch))
        settlement.blown = PermanentFailure(Reason.DEFECT, "ValueError at save/saver.py:1")
        return settlement

    report = run_fake(source, work)
    assert report.ended == "fuse_blown" and report.adds_up
    assert report.counts["returned"] <= 4, "only what it held already"
    assert report.failure is not None and "ValueError at save/saver.py:1" in report.failure
    assert "regworkers drain resume fake" in report.failure
    assert report.as_dict()["failure"] == report.failure


# Drains that see nothing


def seconds_pass(source: FakeSource, seconds: float = 1.0) -> None:
    def pass_(_receive: int) -> None:
        source.clock.now += seconds

    source.on_receive = pass_


@pytest.mark.parametrize("successes", [0, 5])
def test_a_drain_whose_last_two_minutes_brought_no_successful_receive_has_failed(successes: int) -> None:
    moves = [*([number] for number in range(successes)), *(unavailable() for _ in range(500))]
    source = FakeSource(moves)
    seconds_pass(source)
    limits = DrainLimits(idle_seconds=3, max_seconds=300, heartbeat_seconds=3600, pause_seconds=0)
    with capture_logs():
        report = run_fake(source, limits=limits)
    assert (report.ended, report.blind) == ("time_limit", "fake")
    assert report.failure is not None and report.failure.startswith("fake did not answer")


def test_it_has_failed_however_it_ends() -> None:
    stop = StopSignal()
    source = FakeSource(unavailable() for _ in range(500))

    def look(receives: int) -> None:
        source.clock.now += 1.0
        if receives == 130:
            stop.set()

    source.on_receive = look
    with capture_logs():
        report = run_fake(source, stop=stop)
    assert (report.ended, report.blind) == ("stopped", "fake")


@pytest.mark.parametrize("last", [[], [7]], ids=["nothing there", "work"])
def test_one_successful_receive_among_the_last_is_enough(last: list[int]) -> None:
    moves: list[Sequence[int] | BaseException] = [unavailable() for _ in range(150)]
    moves += [last, *(unavailable() for _ in range(100))]
    source = FakeSource(moves)
    seconds_pass(source)
    limits = DrainLimits(idle_seconds=3, max_seconds=240, heartbeat_seconds=3600, pause_seconds=0)
    with capture_logs():
        report = run_fake(source, limits=limits)
    assert (report.ended, report.failure) == ("time_limit", None)


def test_a_drain_that_was_too_busy_to_receive_is_not_blind_for_that() -> None:
    stop = StopSignal()
    source = FakeSource([[1], unavailable()])
    source.on_receive = lambda number: stop.set() if number == 2 else None
    rounds = 0

    def down() -> None:
        nonlocal rounds
        rounds += 1

    def work(batch: Sequence[int]) -> Settlement[int]:
        wait_until(lambda: rounds >= 2, what="a round without room for more")
        source.clock.now += 1000.0
        return all_done(batch)

    limits = DrainLimits(
        idle_seconds=3, max_seconds=1e9, concurrency=1, prefetch=0, heartbeat_seconds=3600, pause_seconds=0
    )
    with capture_logs():
        report = run_fake(source, work, limits=limits, stop=stop, down=down)
    assert (report.ended, report.failure) == ("stopped", None)


class Place(Post):
    """Stands by for some turns, each a second on the clock, and keeps the drain until `over`."""

    def __init__(self, clock: Clock, *, stand_by: int = 0, over: float = 0.0) -> None:
        super().__init__()
        self.clock, self.stand_by, self.over = clock, stand_by, over
        self.asked: list[str] = []

    def works(self) -> bool:
        self.stand_by -= 1
        self.clock.now += float(self.stand_by >= 0)
        return self.stand_by < 0

    def may_end(self, why: str) -> bool:
        self.asked.append(why)
        return self.clock.now >= self.over


def test_a_drain_that_stands_by_receives_nothing_until_it_is_to_work() -> None:
    source = FakeSource([[1], [2]])
    place = Place(source.clock, stand_by=100, over=2000.0)
    seen: list[int] = []
    source.on_receive = lambda _number: seen.append(place.stand_by)
    report = run_fake(source, post=place)
    assert seen[0] < 0, "the first receive came after the last turn of standing by"
    assert source.of("acknowledged") == [1, 2] and report.ended == "idle"


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        (DrainLimits(idle_seconds=3, max_seconds=1e9, pause_seconds=0), "idle"),
        (DrainLimits(idle_seconds=1e9, max_seconds=3, pause_seconds=0), "time_limit"),
    ],
)
def test_a_drain_stays_beyond_its_limits_until_its_post_lets_it_go(limits: DrainLimits, why: str) -> None:
    source = FakeSource()
    place = Place(source.clock, over=source.clock.now + 500.0)
    report = run_fake(source, limits=limits, post=place)
    assert report.ended == why and report.seconds >= 500.0
    assert why in place.asked


def test_a_drain_that_has_to_stay_waits_for_a_dependency_however_long_that_takes() -> None:
    source = FakeSource([[1]])
    place = Place(source.clock, over=source.clock.now + 500.0)

    def unavailable_for_a_while(*_names: str) -> str | None:
        source.clock.now += 1.0
        return "mongo" if source.clock.now < 1400.0 else None

    limits = DrainLimits(idle_seconds=3, max_seconds=1e9, pause_seconds=0, outage_seconds=30)
    report = run_fake(source, limits=limits, probe=unavailable_for_a_while, post=place)
    assert (report.ended, report.counts["applied"]) == ("idle", 1)


class GivesWay(Post):
    """Works until `gone`, then another one does; `blind`: also what is in flight is to be given back."""

    def __init__(self, *, blind: bool = True) -> None:
        super().__init__()
        self.gone, self.blind = threading.Event(), blind

    def works(self) -> bool:
        return not self.gone.is_set()

    def gives_way(self, *, busy: bool) -> bool:
        return self.gone.is_set() and (self.blind or not busy)


def runs_until(
    source: FakeSource,
    post: Post,
    over: Callable[[], object],
    work: Callable[[Sequence[int]], Settlement[int]],
) -> None:
    """A resident: it does not idle out."""
    stop = StopSignal()
    ending = threading.Thread(target=lambda: (wait_until(over), stop.set()))
    ending.start()
    limits = DrainLimits(idle_seconds=1e9, max_seconds=1e9, heartbeat_seconds=3600, pause_seconds=0.01)
    with capture_logs():
        run_fake(source, work, limits=limits, post=post, stop=stop)
    ending.join()


def test_a_drain_that_gives_way_lets_go_although_a_thread_of_it_hangs() -> None:
    post, hanging = GivesWay(), threading.Event()
    source = FakeSource([[1]])

    def hang(batch: Sequence[int]) -> Settlement[int]:
        post.gone.set()
        wait_until(lambda: source.of("let go"), what="the source lets go")
        assert post.steps.still_seconds() > 0.0
        hanging.set()
        return all_done(batch)

    runs_until(source, post, hanging.is_set, hang)
    assert source.of("let go") == [0], "once"


def test_a_drain_that_gives_way_and_can_work_ends_what_is_in_flight_first() -> None:
    post = GivesWay(blind=False)
    source = FakeSource([[1]])

    def work(batch: Sequence[int]) -> Settlement[int]:
        post.gone.set()
        threading.Event().wait(0.8)
        return all_done(batch)

    runs_until(source, post, lambda: source.of("let go"), work)
    assert [verb for verb, _ in source.asked if verb != "given back"] == ["acknowledged", "let go", "closed"]


def test_what_could_not_be_let_go_is_let_go_later() -> None:
    post = GivesWay()
    source = FakeSource([[1]])
    source.let_go_failures = [unavailable()]
    source.on_receive = lambda number: post.gone.set() if number == 2 else None
    runs_until(source, post, lambda: len(source.of("let go")) == 2, all_done)


def test_a_drain_on_its_own_never_lets_go() -> None:
    source = FakeSource([[1], [2]])
    run_fake(source)
    assert not source.of("let go")
