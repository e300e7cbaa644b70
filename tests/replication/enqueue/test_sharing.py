"""Parents and children, shares, takeovers, fencing."""

from __future__ import annotations

import pytest

from regworkers_core.engine.leases import LeaseKey
from regworkers_core.replication.enqueue.shard_rows import consumer_key, fair_share, shard_key
from regworkers_core.replication.enqueue.stream_source import StreamSource
from tests.replication.enqueue.fakes import TABLE
from tests.replication.enqueue.world import LEASE_SECONDS, World, receive, sequences, work_off
from tests.support.in_memory import MemoryLeaseTable


def test_children_are_read_only_after_their_parent_is_finished() -> None:
    world = World("parent")
    source = world.consumer()
    old = world.service.write("parent", 3)
    world.service.split("parent", "left", "right")
    new = world.service.write("left", 2) + world.service.write("right", 2)
    batch = receive(source)
    assert sequences(batch) == old
    source.acknowledge(batch[1:])
    assert receive(source) == []
    source.acknowledge(batch[:1])
    assert sorted(work_off(source), key=int) == new
    assert world.finished("parent")


def test_children_wait_for_a_parent_that_another_consumer_is_still_reading() -> None:
    world = World("parent")
    world.service.write("parent", 3)
    world.service.split("parent", "child")
    new = world.service.write("child", 2)
    first, second = world.consumer("a"), world.consumer("b")
    batch = receive(first, rounds=2)
    assert receive(second) == []
    first.acknowledge(batch)
    first.close()
    assert work_off(second) == new


def test_children_of_a_parent_that_left_the_listing_are_read() -> None:
    world = World()
    world.service.add("child", parent="trimmed-long-ago")
    new = world.service.write("child", 2)
    assert work_off(world.consumer()) == new


def test_an_unfinished_shard_that_left_the_listing_is_a_loss_and_sets_its_children_free() -> None:
    world = World("parent")
    source = world.consumer("a")
    world.service.write("parent", 3)
    work_off(source)
    source.close()
    world.service.write("parent", 3)
    world.service.split("parent", "child")
    world.service.forget("parent")
    new = world.service.write("child", 2)
    after = world.consumer("b")
    assert work_off(after, rounds=30) == new
    assert after.counts()["trimmed"] >= 1


def test_a_stream_created_again_is_read_from_its_start_and_the_loss_is_counted(world: World) -> None:
    source = world.consumer("a")
    world.service.write("s1", 500)
    work_off(source)
    source.close()
    world.service.recreate("s1")
    world.service._numbers = 0
    new = world.service.write("s1", 3)
    after = world.consumer("b")
    assert work_off(after) == new
    assert world.checkpoint("s1") == new[-1]
    assert after.counts()["trimmed"] == 1


def test_two_consumers_share_the_shards_and_each_record_goes_to_one_of_them() -> None:
    world = World("s1", "s2", "s3", "s4")
    first, second = world.consumer("a"), world.consumer("b")
    both = (first, second)
    work_off(first)
    assert {world.owner(shard) for shard in world.service.shards} == {"a"}
    for _ in range(10):
        world.pass_time(1, *both)
        work_off(first, rounds=2)
        work_off(second, rounds=2)
    owners = [world.owner(shard) for shard in world.service.shards]
    assert sorted(owners) == ["a", "a", "b", "b"]
    written = [number for shard in world.service.shards for number in world.service.write(shard, 5)]
    assert sorted(work_off(first) + work_off(second), key=int) == written


def test_a_surplus_shard_is_given_back_only_after_what_is_in_flight_of_it() -> None:
    world = World("s1", "s2")
    for shard in world.service.shards:
        world.service.write(shard, 2)
    first, second = world.consumer("a"), world.consumer("b")
    batch = receive(first, rounds=3)
    for _ in range(10):
        world.pass_time(1, first, second)
        receive(first, rounds=2)
        receive(second, rounds=2)
    assert [world.owner(shard) for shard in world.service.shards] == ["a", "a"]
    first.acknowledge(batch)
    assert work_off(second) == []
    assert sorted(world.owner(shard) for shard in world.service.shards) == ["a", "b"]


def test_a_consumer_that_leaves_hands_its_shards_to_its_successor_at_once() -> None:
    world = World("s1", "s2")
    first, second = world.consumer("a"), world.consumer("b")
    for _ in range(6):
        world.pass_time(1, first, second)
        work_off(first, rounds=2)
        work_off(second, rounds=2)
    assert sorted(world.owner(shard) for shard in world.service.shards) == ["a", "b"]
    first.close()
    assert consumer_key(TABLE, "a") not in world.table.stored
    left_at = world.clock.now
    while world.clock.now < left_at + 0.2:
        work_off(second, rounds=1)
    assert [world.owner(shard) for shard in world.service.shards] == ["b", "b"]


def test_the_shards_of_a_dead_consumer_are_taken_over_only_after_one_lease_time() -> None:
    world = World("s1", "s2")
    dead, alive = world.consumer("dead"), world.consumer("b")
    written = world.service.write("s1", 2) + world.service.write("s2", 2)
    receive(dead, rounds=2)
    work_off(alive, rounds=2)
    world.pass_time(LEASE_SECONDS - 2, alive)
    assert work_off(alive, rounds=2) == []
    seen: list[str] = []
    for _ in range(4):
        world.pass_time(1, alive)
        seen += work_off(alive, rounds=2)
    assert sorted(seen, key=int) == written
    assert consumer_key(TABLE, "dead") not in world.table.stored


def paused_and_taken_over() -> tuple[World, StreamSource, StreamSource, list[str]]:
    """Consumer `a` read four records and acknowledged one; then it was paused and `b` took over."""
    world = World("s1")
    written = world.service.write("s1", 4)
    paused, other = world.consumer("a"), world.consumer("b")
    batch = receive(paused, rounds=2)
    world.clock.now += 2.0
    paused.acknowledge(batch[:1])
    receive(other, rounds=2)
    world.pass_time(LEASE_SECONDS, other)
    assert sequences(receive(other, rounds=3)) == written[1:]
    # What `a` still has in hand arrives late.
    paused.acknowledge(batch[1:])
    return world, paused, other, written


def test_a_late_acknowledgement_after_a_takeover_writes_no_checkpoint() -> None:
    world, paused, _, written = paused_and_taken_over()
    world.clock.now += 2.0
    paused.heartbeat()
    assert world.checkpoint("s1") == written[0]
    assert paused.counts()["leases_lost"] == 1
    paused.close()
    assert (world.checkpoint("s1"), world.owner("s1")) == (written[0], "b")


def test_a_consumer_that_was_paused_asks_for_its_lease_before_it_reads_on(world: World) -> None:
    paused, other = world.consumer("a"), world.consumer("b")
    receive(paused, rounds=2)
    receive(other, rounds=2)
    world.pass_time(LEASE_SECONDS, other)
    receive(other, rounds=2)
    assert world.owner("s1") == "b"
    world.service.write("s1", 5)
    world.service.reads.clear()
    assert receive(paused, rounds=3) == []
    assert world.service.reads == []


def test_a_delivery_from_before_the_lease_was_lost_is_not_given_out_again(world: World) -> None:
    world.service.write("s1", 2)
    source = world.consumer("a")
    old = receive(source, rounds=2)
    world.table.release(shard_key(TABLE, "s1"), "a", 1)
    source.heartbeat()
    again = receive(source, rounds=20)
    assert sequences(again) == sequences(old)
    source.give_back([(old[0], 0.0)])
    source.acknowledge([old[1]])
    assert receive(source, rounds=3) == []
    source.close()
    assert world.checkpoint("s1") is None


def test_a_checkpoint_write_that_is_cut_off_by_a_crash_repeats_records_and_loses_none() -> None:
    class Killed(Exception):
        pass

    def die(step: str) -> None:
        raise Killed

    world = World("s1")
    written = world.service.write("s1", 3)
    victim = world.consumer("a", on_step=die)
    batch = receive(victim, rounds=2)
    world.clock.now += 2.0
    with pytest.raises(Killed):
        victim.acknowledge(batch)
    survivor = world.consumer("b")
    seen: list[str] = []
    for _ in range(13):
        world.pass_time(1, survivor)
        seen += work_off(survivor, rounds=1)
    assert seen == written


def test_a_presence_removed_during_a_pause_is_shown_again(world: World) -> None:
    source = world.consumer("a")
    receive(source, rounds=1)
    assert world.table.remove(world.table.stored[consumer_key(TABLE, "a")])
    source.heartbeat()
    source.heartbeat()
    assert world.table.stored[consumer_key(TABLE, "a")].owner == "a"


def test_a_lease_released_on_purpose_is_not_counted_as_lost() -> None:
    class Beating(MemoryLeaseTable):
        """Lets the heartbeat come while a lease is being released."""

        def release(self, key: LeaseKey, owner: str, token: int) -> bool:
            source.heartbeat()
            return super().release(key, owner, token)

    world = World("s1")
    world.table = Beating()
    source = world.consumer("a")
    world.service.write("s1", 2)
    work_off(source)
    source.close()
    assert world.owner("s1") == ""
    assert source.counts()["leases_lost"] == 0


def test_a_fair_share_is_rounded_up() -> None:
    assert [fair_share(5, 2), fair_share(4, 2), fair_share(1, 3), fair_share(0, 2)] == [3, 2, 1, 0]


def test_a_heartbeat_is_one_write_however_many_shards_are_held() -> None:
    world = World(*(f"s{number}" for number in range(30)))
    source = world.consumer("a")
    work_off(source, rounds=30)
    assert {world.owner(shard) for shard in world.service.shards} == {"a"}
    counters = {key: row.counter for key, row in world.table.stored.items()}
    source.heartbeat()
    moved = [key for key, row in world.table.stored.items() if row.counter != counters[key]]
    assert moved == [consumer_key(TABLE, "a")]


def test_shards_without_a_record_stay_with_the_consumer_whose_row_moves() -> None:
    world = World("s1", "s2")
    first, second = world.consumer("a"), world.consumer("b")
    work_off(first)
    for _ in range(20):
        world.pass_time(1, first)
        # It asks for its share without showing life: its row is removed, and no shard is taken.
        second.receive()
    assert [world.owner(shard) for shard in world.service.shards].count("a") >= 1
    assert first.counts()["leases_lost"] == 0


def test_a_standby_takes_over_one_lease_time_after_the_last_beat() -> None:
    world = World("s1", "s2")
    dead, standby = world.consumer("dead"), world.consumer("b")
    work_off(dead)
    for _ in range(5):
        world.pass_time(1, dead, standby)
    assert consumer_key(TABLE, "b") not in world.table.stored, "it is no consumer yet"
    written = world.service.write("s1") + world.service.write("s2")
    world.pass_time(LEASE_SECONDS, standby)
    assert sorted(work_off(standby, rounds=6), key=int) == written
