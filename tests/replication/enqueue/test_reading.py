"""Iterators, trimming, pages and what is kept in memory."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import pytest

from regworkers_core.adapters.aws.streams import StreamPage
from regworkers_core.domain.reasons import DependencyDown, TransientFailure
from regworkers_core.engine.leases import LeaseHolder
from regworkers_core.replication.enqueue.held_shards import HeldShard
from regworkers_core.replication.enqueue.shard_rows import position_of
from regworkers_core.replication.enqueue.stream_source import RESEEK_SECONDS, StreamSource
from regworkers_core.settings import EnqueueSettings, StreamSettings
from tests.adapters.fakes import client_error
from tests.replication.enqueue.fakes import shard_of
from tests.replication.enqueue.world import LEASE_SECONDS, World, receive, sequences, work_off
from tests.support.in_memory import MemoryLeaseTable
from tests.support.waiting import wait_until


def test_a_new_shard_is_read_from_the_trim_horizon_and_a_known_one_after_its_checkpoint(world: World) -> None:
    written = world.service.write("s1", 3)
    first = world.consumer("a")
    assert work_off(first) == written
    first.close()
    later = world.service.write("s1", 2)
    assert work_off(world.consumer("b")) == later


def test_an_expired_iterator_is_renewed_from_the_last_read_position(
    world: World, source: StreamSource
) -> None:
    written = world.service.write("s1", 2)
    batch = receive(source)
    world.service.expire_iterators()
    later = world.service.write("s1", 2)
    assert sequences(batch) == written
    # Nothing was acknowledged yet: the position read, not the checkpoint, is where reading goes on.
    assert sequences(receive(source)) == later
    assert source.counts()["iterators_expired"] == 1


def test_an_iterator_that_went_silent_in_a_restart_is_sought_again_after_the_connection_error(
    world: World, source: StreamSource
) -> None:
    world.service.write("s1", 5)
    work_off(source)
    world.service.restart()
    world.service.disconnect("get_records")
    later = world.service.write("s1", 2)
    # The retry policy got over the error by itself, and still the old iterator is not used again.
    assert work_off(source) == later


def test_an_iterator_that_went_silent_without_any_error_is_sought_again_after_a_few_minutes(
    world: World, source: StreamSource
) -> None:
    world.service.write("s1", 5)
    work_off(source)
    world.service.restart()
    later = world.service.write("s1", 2)
    assert work_off(source) == []
    world.pass_time(RESEEK_SECONDS, source)
    assert work_off(source) == later


def test_an_error_of_the_lease_table_makes_iterators_suspect_too(world: World, source: StreamSource) -> None:
    world.service.write("s1", 5)
    work_off(source)
    world.service.restart()
    later = world.service.write("s1", 2)
    world.table.gate.down = True
    with pytest.raises(TransientFailure):
        source.heartbeat()
    world.table.gate.down = False
    assert work_off(source) == later


def test_trimmed_records_are_counted_as_loss_and_reading_goes_on_at_the_horizon(world: World) -> None:
    source = world.consumer("a")
    world.service.write("s1", 2)
    work_off(source)
    source.close()
    later = world.service.write("s1", 4)
    world.service.trim("s1", 4)
    after = world.consumer("b")
    assert work_off(after) == later[2:]
    assert after.counts()["trimmed"] == 1


def test_a_loss_is_counted_once_and_not_by_every_later_drain(world: World) -> None:
    source = world.consumer("a")
    world.service.write("s1", 2)
    work_off(source)
    source.close()
    world.service.restart()
    for owner, losses in (("b", 1), ("c", 0)):
        after = world.consumer(owner)
        work_off(after)
        after.close()
        assert after.counts()["trimmed"] == losses


def test_what_is_open_is_finished_before_a_trimmed_shard_is_read_from_the_horizon(
    world: World, source: StreamSource
) -> None:
    world.service.write("s1", 3)
    batch = receive(source)
    later = world.service.write("s1", 3)
    world.service.trim("s1", 4)
    world.service.expire_iterators()
    assert receive(source) == []
    source.give_back([(batch[0], 0.0)])
    source.acknowledge(batch[1:])
    assert sequences(receive(source)) == [batch[0].sequence]
    source.acknowledge(batch[:1])
    assert work_off(source) == later[1:]
    assert world.checkpoint("s1") == later[-1]


def test_throttling_hands_out_what_was_read_before_it_and_loses_nothing() -> None:
    world = World("s1", "s2")
    source = world.consumer()
    work_off(source)
    written = world.service.write("s1") + world.service.write("s2")
    world.service.calls.clear()
    # One shard is read, the other is throttled beyond the retry policy.
    ok_then_throttled = iter([None, *[client_error("LimitExceededException")] * 3])
    enter = world.service.enter

    def throttled(call: str) -> None:
        error = next(ok_then_throttled, None) if call == "get_records" else None
        if error is not None:
            raise error
        enter(call)

    world.service.enter = throttled  # type: ignore[method-assign]
    world.clock.now += 1.0
    assert len(source.receive()) == 1
    world.clock.now += 0.5
    assert len(receive(source)) == 1
    assert len(written) == 2


def test_a_stream_of_which_nothing_is_known_and_that_cannot_be_listed_is_a_failure_and_not_empty(
    world: World, source: StreamSource
) -> None:
    world.service.disconnect("describe_table", 3)
    with pytest.raises(TransientFailure):
        source.receive()
    assert not source.may_idle()
    written = world.service.write("s1")
    world.clock.now += 1.0
    assert work_off(source) == written


def test_a_shard_that_is_empty_is_not_read_more_often_than_its_pause_allows(
    world: World, source: StreamSource
) -> None:
    work_off(source)
    before, started = world.service.calls["get_records"], world.clock.now
    work_off(source, rounds=40)
    reads = world.service.calls["get_records"] - before
    assert reads <= (world.clock.now - started) / (1 / StreamSettings().reads_per_second) + 1


def test_a_batch_has_at_most_a_number_of_records_over_all_shards() -> None:
    world = World("s1", "s2", "s3")
    for shard in ("s1", "s2", "s3"):
        world.service.write(shard, 5)
    source = world.consumer(limits=EnqueueSettings(batch_records=7))
    batches = [source.receive() for _ in range(6)]
    assert [len(batch) for batch in batches if batch][:2] == [7, 7]
    assert sum(map(len, batches)) == 15


def test_reading_stops_while_too_much_is_unacknowledged_and_goes_on_afterwards(world: World) -> None:
    written = world.service.write("s1", 30)
    source = world.consumer(limits=EnqueueSettings(batch_records=4, max_unacknowledged=10))
    batch = receive(source)
    assert sequences(batch) == written[:10]
    # Acknowledged behind a gap: that does not make room, for the tracker has to remember it.
    source.acknowledge(batch[1:])
    assert receive(source) == []
    source.acknowledge(batch[:1])
    assert len(receive(source)) == 10


def test_what_is_given_back_comes_again_after_its_delay_from_memory(world: World) -> None:
    written = world.service.write("s1", 2)
    source = world.consumer()
    batch = receive(source)
    source.give_back([(batch[0], 5.0), (batch[1], 60.0)])
    assert receive(source, rounds=3) == []
    world.pass_time(5, source)
    assert sequences(receive(source, rounds=3)) == written[:1]
    assert not source.may_idle()


def test_more_than_a_hundred_shards_are_listed_page_by_page_and_all_read() -> None:
    world = World(*(f"s{number:03}" for number in range(250)))
    written = [number for shard in world.service.shards for number in world.service.write(shard)]
    source = world.consumer(limits=EnqueueSettings(batch_records=90))
    assert sorted(work_off(source, rounds=200), key=int) == written
    assert world.service.calls["describe_stream"] == 3
    source.close()
    assert all(world.checkpoint(shard) for shard in world.service.shards)


def test_shards_take_turns_so_that_a_busy_one_does_not_starve_the_others() -> None:
    world = World("s1", "s2")
    world.service.write("s1", 500)
    quiet = world.service.write("s2")
    source = world.consumer(limits=EnqueueSettings(batch_records=10))
    assert quiet[0] in work_off(source, rounds=3)


def test_a_shard_whose_checkpoint_is_held_up_does_not_hold_up_the_others() -> None:
    world = World("s1", "s2")
    source = world.consumer(limits=EnqueueSettings(batch_records=10, max_unacknowledged=20))
    stuck = world.service.write("s1", 100)
    assert {record.sequence for record in receive(source)} == set(stuck[:10]), "its part of the twenty"
    flowing = world.service.write("s2", 100)
    assert work_off(source, rounds=40) == flowing
    source.close()
    assert (world.checkpoint("s1"), world.checkpoint("s2")) == (None, flowing[-1])


def test_checkpoints_are_written_at_most_every_second(world: World, source: StreamSource) -> None:
    work_off(source, rounds=2)
    started = world.clock.now
    for _ in range(40):
        world.service.write("s1")
        work_off(source, rounds=1)
    written = world.steps.count("enqueue.before_checkpoint")
    assert 0 < written <= world.clock.now - started + 2


def test_reading_stops_while_what_is_open_takes_too_much_memory() -> None:
    world = World("s1", "s2")
    stuck = world.service.write("s1", 30)
    limits = EnqueueSettings(batch_records=4, max_unacknowledged_bytes=30_000)
    source = world.consumer(limits=limits)
    batch = receive(source)
    # Two shards share it, and each of these records takes more than four thousand bytes.
    assert sequences(batch) == stuck[:4]
    flowing = world.service.write("s2", 30)
    assert work_off(source, rounds=20) == flowing, "the other shard has its own part"
    source.acknowledge(batch)
    assert sequences(receive(source, rounds=1)) == stuck[4:8]


def test_a_checkpoint_moves_on_when_its_number_grows_by_a_digit_and_never_back(world: World) -> None:
    written = world.service.write("s1", 6)
    assert written == ["8", "9", "10", "98", "99", "100"]
    source = world.consumer()
    for record, expected in zip(receive(source, rounds=1), written, strict=True):
        source.acknowledge([record])
        world.pass_time(2, source)
        assert world.checkpoint("s1") == expected
    lease = source._held["s1"].lease
    assert not lease.save({"checkpoint": "99"}, position_of("99"))
    assert world.checkpoint("s1") == "100"


def test_close_writes_the_contiguous_checkpoint_and_what_is_open_is_read_again_by_the_next(
    world: World,
) -> None:
    written = world.service.write("s1", 4)
    source = world.consumer("a")
    batch = receive(source)
    source.acknowledge([batch[0], batch[1], batch[3]])
    source.close()
    assert (world.checkpoint("s1"), world.owner("s1")) == (written[1], "")
    assert work_off(world.consumer("b")) == written[2:]


def test_close_does_not_wait_for_the_next_second_to_write_the_last_checkpoint(
    world: World, source: StreamSource
) -> None:
    world.service.write("s1", 2)
    work_off(source, rounds=1)
    last = world.service.write("s1", 2)
    source.acknowledge(receive(source, rounds=3))
    source.close()
    assert world.checkpoint("s1") == last[-1]


def test_idle_time_counts_only_with_a_lease_or_when_no_one_holds_one(world: World) -> None:
    first, second = world.consumer("a"), world.consumer("b")
    assert not first.may_idle()
    receive(first, rounds=2)
    receive(second, rounds=2)
    assert first.may_idle()
    assert not second.may_idle()
    first.close()
    receive(second, rounds=8)
    assert second.may_idle()


def test_idle_time_counts_when_there_is_no_shard_at_all() -> None:
    source = World().consumer()
    source.receive()
    assert source.may_idle()


def test_a_lease_of_a_dead_consumer_keeps_the_next_one_from_idling_out_before_it_took_over(
    world: World,
) -> None:
    receive(world.consumer("dead"), rounds=2)
    source = world.consumer("b")
    receive(source, rounds=2)
    assert not source.may_idle()
    world.pass_time(LEASE_SECONDS, source)
    receive(source, rounds=3)
    assert world.owner("s1") == "b"


def test_a_shard_that_cannot_be_read_holds_up_no_other_and_is_not_taken_for_idle() -> None:
    names = [f"s{number:02}" for number in range(20)]
    world = World(*names)
    source = world.consumer()
    work_off(source, rounds=40)
    read = world.service.get_records

    def refuses(ShardIterator: str, Limit: int) -> dict[str, Any]:
        if shard_of(ShardIterator) == "s05":
            raise client_error("InternalServerError")
        return read(ShardIterator, Limit)

    world.service.get_records = refuses  # type: ignore[method-assign]
    waits = world.service.write("s05")
    for _ in range(30):
        world.clock.now += 1.0
        written = {number for name in names if name != "s05" for number in world.service.write(name)}
        # More shards than are read at once.
        arrived = set[str]()
        for _ in range(1_000):
            with suppress(TransientFailure):
                arrived.update(work_off(source, rounds=1))
            world.clock.now += 0.25
            if arrived >= written:
                break
        assert arrived == written
    world.clock.now += 1.0
    with pytest.raises(TransientFailure, match="InternalServerError"):
        work_off(source, rounds=100)
    world.service.get_records = read  # type: ignore[method-assign]
    world.clock.now += 16.0
    came: list[str] = []
    while not came:
        with suppress(TransientFailure):
            came = work_off(source, rounds=1)
    assert came == waits


def test_with_more_busy_shards_than_readers_the_one_that_waits_longest_is_read() -> None:
    names = [f"s{number:02}" for number in range(40)]
    world = World(*names)
    source = world.consumer(pace=StreamSettings(readers=4))
    work_off(source, rounds=60)
    written = {number for name in names for number in world.service.write(name)}
    arrived = set[str]()
    # Ten rounds would do; a read may take more than one on a busy machine.
    for _ in range(16):
        world.clock.now += 0.25
        arrived.update(work_off(source, rounds=1))
    assert arrived == written


def test_reading_waits_for_no_checkpoint(world: World, source: StreamSource) -> None:
    world.service.write("s1")
    work_off(source)
    world.clock.now += 2.0
    world.service.write("s1")
    work_off(source, rounds=1)
    (later,) = world.service.write("s1")
    world.clock.now += 0.5
    work_off(source, rounds=1)
    world.clock.now += 1.0
    source.receive()
    assert world.checkpoint("s1") != later
    source.heartbeat()
    assert world.checkpoint("s1") == later


def reads_a_second(shards: int, seconds: float = 30.0) -> float:
    """Reads of an idle stream, once it has been quiet for a while."""
    world = World(*(f"s{number:04}" for number in range(shards)))
    source = world.consumer()
    while world.clock.now < 1060.0 or not source.may_idle():
        source.receive()
        source.heartbeat()
    before, began = world.service.calls["get_records"], world.clock.now
    while world.clock.now - began < seconds:
        source.receive()
        source.heartbeat()
    return (world.service.calls["get_records"] - before) / (world.clock.now - began)


@pytest.mark.parametrize(
    ("shards", "least", "most"), [(1, 3.5, 4.1), (10, 35.0, 41.0), (40, 88.0, 101.0), (600, 350.0, 400.0)]
)
def test_an_idle_stream_is_read_often_if_it_is_small_and_never_more_than_400_times_a_second(
    shards: int, least: float, most: float
) -> None:
    assert least <= reads_a_second(shards) <= most


def test_full_pages_follow_each_other_up_to_the_reads_that_a_shard_allows(world: World) -> None:
    written = world.service.write("s1", 90)
    source = world.consumer(limits=EnqueueSettings(batch_records=10))
    work_off(source, rounds=1)
    began, reads, seen = world.clock.now, world.service.calls["get_records"], 10
    while seen < len(written):
        seen += len(work_off(source, rounds=1))
    reads = world.service.calls["get_records"] - reads
    assert reads / (world.clock.now - began) <= 4 * 1.5, "eight pages take more than a second"


def test_a_shard_that_is_read_too_often_is_left_alone_for_longer_and_longer() -> None:
    world = World("s1", "s2")
    source = world.consumer()
    work_off(source)
    world.service.throttle("get_records")
    before, began = world.service.calls["get_records"], world.clock.now
    while world.clock.now - began < 20.0:
        assert source.receive() == []
    assert world.service.calls["get_records"] - before <= 2 * 9, "0.5, 1, 2, then 4 s"
    assert source.counts()["reads_throttled"] >= 8
    assert not source.may_idle(), "nothing is known of its records"
    world.service.recover()
    written = world.service.write("s1") + world.service.write("s2")
    world.clock.now += 4.0
    assert work_off(source, rounds=3) == written
    world.service.throttle("get_records")
    world.clock.now += 0.25
    source.receive()
    world.service.recover()
    later = world.service.write("s1") + world.service.write("s2")
    world.clock.now += 0.5
    assert work_off(source, rounds=1) == later, "the pauses are short again after a read that went well"


def test_a_shard_whose_reads_fail_is_asked_ever_less_often_and_soon_again_after_one_that_went_well() -> None:
    lease = LeaseHolder(MemoryLeaseTable(), "a", lease_seconds=10.0).acquire("s1")
    assert lease is not None
    held, failure = HeldShard.of("s1", lease, 0.0, 4), TransientFailure("dynamodb-streams", "x")

    def pauses(times: int) -> list[float]:
        found = []
        for _ in range(times):
            held.failed(failure, 100.0)
            found.append(held.read_at - 100.0)
        return found

    assert pauses(7) == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 16.0]
    held.take_in(StreamPage([], "next"))
    assert held.failure is None and pauses(2) == [0.5, 1.0]


def test_a_shard_that_does_not_answer_holds_up_no_other() -> None:
    world, answers = World("s1", "s2"), threading.Event()
    source = world.consumer()
    work_off(source)
    read = world.service.get_records

    def hangs(ShardIterator: str, Limit: int) -> dict[str, Any]:
        if shard_of(ShardIterator) == "s1":
            answers.wait(20)
        return read(ShardIterator, Limit)

    world.service.get_records = hangs  # type: ignore[method-assign]
    late = world.service.write("s1")
    try:
        for _ in range(3):
            written = world.service.write("s2")
            world.clock.now += 1.0
            assert work_off(source, rounds=1) == written
        assert not source.may_idle()
    finally:
        answers.set()
    wait_until(lambda: work_off(source, rounds=1) == late, what="the records of the slow shard")


def test_a_read_under_way_is_no_sign_that_reads_succeed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world, answers = World("s1"), threading.Event()
    source = world.consumer()
    work_off(source)
    read, failures = world.streams.read, iter([DependencyDown("streams", "the circuit is open")])

    def fails_then_hangs(shard_id: str, iterator: str, limit: int) -> StreamPage:
        for failure in failures:
            raise failure
        answers.wait(20)
        return read(shard_id, iterator, limit)

    monkeypatch.setattr(world.streams, "read", fails_then_hangs)
    world.clock.now += 1.0
    try:
        for _ in range(3):
            with pytest.raises(DependencyDown):
                source.receive()
    finally:
        answers.set()
    wait_until(lambda: source.receive() == [] and source._unread is None, what="the end of that read")


def test_a_consumer_that_lets_go_frees_its_shards_at_once_and_may_take_them_again(world: World) -> None:
    written = world.service.write("s1", 4)
    first, second = world.consumer("a"), world.consumer("b")
    batch = receive(first)
    first.acknowledge(batch[:2])
    first.let_go()
    assert (world.checkpoint("s1"), world.owner("s1")) == (written[1], "")
    # It stands by: its heartbeat takes nothing and is no share of the shards.
    first.heartbeat()
    assert work_off(second) == written[2:]
    # A batch that was in flight ends late: its shard has another owner.
    first.acknowledge(batch[2:])
    second.let_go()
    later = world.service.write("s1", 2)
    assert work_off(first) == later
