from __future__ import annotations

import threading
from typing import Any

import pytest

from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.replication.enqueue.stream_probe import (
    has_unread,
    oldest_unread,
    stream_lag,
    stream_state,
)
from regworkers_core.replication.enqueue.stream_source import StreamSource
from tests.adapters.fakes import client_error
from tests.replication.enqueue.fakes import shard_of
from tests.replication.enqueue.world import World, work_off

CREATED = 1_795_000_000


def worked_off(world: World) -> None:
    source = world.consumer(f"c{world.clock.now}")
    work_off(source)
    source.close()


def test_there_is_something_unread_exactly_when_a_record_lies_after_the_checkpoint() -> None:
    world = World("s1", "s2")
    assert not has_unread(world.streams, world.table)
    world.service.write("s2")
    assert has_unread(world.streams, world.table)
    worked_off(world)
    assert not has_unread(world.streams, world.table)
    world.service.write("s1")
    assert has_unread(world.streams, world.table)


def test_a_peek_changes_nothing(world: World) -> None:
    world.service.write("s1")
    before = world.table.stored
    has_unread(world.streams, world.table)
    assert world.table.stored == before


def many(count: int) -> World:
    """All shards known and read to their end."""
    world = World(*(f"s{number:03}" for number in range(count)))
    source = world.consumer()
    while not world.known().complete:
        source.receive()
    source.close()
    world.service.calls.clear()
    return world


def test_one_unread_shard_among_four_hundred_is_noticed_in_one_look_without_listing_any() -> None:
    world = many(400)
    assert not has_unread(world.streams, world.table)
    world.service.write("s399")
    assert has_unread(world.streams, world.table)
    assert oldest_unread(world.streams, world.table, now=CREATED + 9) == 9.0
    assert world.service.calls["describe_stream"] == world.service.calls["describe_table"] == 0


def test_a_probe_that_had_no_time_for_all_shards_says_so_and_is_not_taken_for_nothing_unread() -> None:
    world = many(3)
    with pytest.raises(TransientFailure, match=r"only 0 of 3 shards could be read in time"):
        has_unread(world.streams, world.table, within_seconds=0.0)
    with pytest.raises(TransientFailure, match="only 0 of 3"):
        oldest_unread(world.streams, world.table, now=CREATED, within_seconds=0.0)
    assert stream_lag(world.streams, world.table, now=CREATED, within_seconds=0.0) is None
    state = stream_state(world.streams, world.table, now=CREATED, within_seconds=0.0)
    assert (state.shards, state.iterator_age_seconds) == (3, None)


def test_a_shard_that_does_not_answer_ends_the_look_and_hides_nothing_of_the_others() -> None:
    world, silent = many(3), threading.Event()
    read = world.service.get_records

    def hangs(ShardIterator: str, Limit: int) -> dict[str, Any]:
        if shard_of(ShardIterator) == "s001":
            silent.wait(30)
        return read(ShardIterator, Limit)

    world.service.get_records = hangs  # type: ignore[method-assign]
    try:
        with pytest.raises(TransientFailure, match="only 2 of 3"):
            has_unread(world.streams, world.table, within_seconds=0.5)
        world.service.write("s002")
        assert has_unread(world.streams, world.table, within_seconds=0.5)
    finally:
        silent.set()


def test_a_shard_that_cannot_be_read_hides_nothing_of_the_others() -> None:
    world = many(40)
    read = world.service.get_records

    def refuses(ShardIterator: str, Limit: int) -> dict[str, Any]:
        if shard_of(ShardIterator) == "s001":
            raise client_error("InternalServerError")
        return read(ShardIterator, Limit)

    world.service.get_records = refuses  # type: ignore[method-assign]
    with pytest.raises(TransientFailure, match="InternalServerError"):
        oldest_unread(world.streams, world.table, now=CREATED)
    world.service.write("s039")
    for _ in range(10):
        assert has_unread(world.streams, world.table)
        assert oldest_unread(world.streams, world.table, now=CREATED + 9) == 9.0
    assert stream_lag(world.streams, world.table, now=CREATED) is None, "how much waits in s001 is not known"
    with pytest.raises(TransientFailure, match="InternalServerError"):
        stream_state(world.streams, world.table, now=CREATED)


def test_before_anyone_listed_the_shards_a_probe_lists_one_page_and_writes_nothing() -> None:
    world = World(*(f"s{number:03}" for number in range(101)))
    assert has_unread(world.streams, world.table), "there are more than it could see"
    assert world.service.calls["describe_stream"] == 1
    assert world.table.stored == {}


def test_a_finished_shard_whose_children_are_not_known_is_work(world: World, source: StreamSource) -> None:
    world.service.write("s1")
    work_off(source)
    world.service.split("s1", "s2")
    world.service.throttle("describe_stream")
    work_off(source, rounds=20)
    source.close()
    assert world.finished("s1")
    assert has_unread(world.streams, world.table)
    assert stream_lag(world.streams, world.table, now=CREATED) is None, "how much waits in s2 is not known"


def test_a_closed_shard_that_is_not_marked_finished_is_work(world: World) -> None:
    world.service.write("s1")
    worked_off(world)
    world.service.split("s1", "s2")
    assert has_unread(world.streams, world.table)
    worked_off(world)
    assert not has_unread(world.streams, world.table)


def test_a_trimmed_shard_is_work_until_a_drain_has_reported_the_loss(world: World) -> None:
    world.service.write("s1")
    worked_off(world)
    world.service.restart()
    assert has_unread(world.streams, world.table)
    worked_off(world)
    assert not has_unread(world.streams, world.table)


def test_could_not_read_is_not_empty(world: World) -> None:
    world.service.disconnect("describe_table", 3)
    with pytest.raises(TransientFailure):
        has_unread(world.streams, world.table)
    world.service.disconnect("get_records", 3)
    with pytest.raises(TransientFailure):
        has_unread(world.streams, world.table)


def test_the_lag_is_the_age_of_the_oldest_unread_record(world: World) -> None:
    assert stream_lag(world.streams, world.table, now=CREATED + 9) == 0.0
    world.service.write("s1", 3)
    assert stream_lag(world.streams, world.table, now=CREATED + 9) == 9.0


def test_a_lag_that_could_not_be_read_is_none(world: World) -> None:
    world.table.gate.down = True
    assert stream_lag(world.streams, world.table, now=CREATED) is None
