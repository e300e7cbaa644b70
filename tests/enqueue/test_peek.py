from __future__ import annotations

from collections.abc import Sequence

import pytest

from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.replication.enqueue.peek import has_unread, stream_lag
from tests.enqueue.world import World, work_off

CREATED = 1_795_000_000


def first(ids: Sequence[str], count: int) -> Sequence[str]:
    return ids[:count]


def last(ids: Sequence[str], count: int) -> Sequence[str]:
    return ids[-count:]


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


def test_a_peek_changes_nothing() -> None:
    world = World("s1")
    world.service.write("s1")
    before = dict(world.table.stored)
    has_unread(world.streams, world.table)
    assert world.table.stored == before


def test_a_peek_looks_at_so_many_shards_at_most() -> None:
    world = World(*(f"s{number:02}" for number in range(50)))
    world.service.calls.clear()
    has_unread(world.streams, world.table, max_shards=20)
    assert world.service.calls["get_shard_iterator"] == 20
    assert world.service.calls.total() <= 2 + 20 * 6


def test_which_shards_are_looked_at_changes_so_that_none_is_overlooked_for_ever() -> None:
    world = World(*(f"s{number:02}" for number in range(50)))
    world.service.write("s49")
    assert not has_unread(world.streams, world.table, choose=first)
    assert has_unread(world.streams, world.table, choose=last)
    assert any(has_unread(world.streams, world.table) for _ in range(200))


def test_a_closed_shard_that_is_not_marked_finished_is_work() -> None:
    world = World("s1")
    world.service.write("s1")
    worked_off(world)
    world.service.split("s1", "s2")
    assert has_unread(world.streams, world.table)
    worked_off(world)
    assert not has_unread(world.streams, world.table)


def test_a_trimmed_shard_is_work_until_a_drain_has_reported_the_loss() -> None:
    world = World("s1")
    world.service.write("s1")
    worked_off(world)
    world.service.restart()
    assert has_unread(world.streams, world.table)
    worked_off(world)
    assert not has_unread(world.streams, world.table)


def test_could_not_read_is_not_empty() -> None:
    world = World("s1")
    world.service.disconnect("describe_table", 3)
    with pytest.raises(TransientFailure):
        has_unread(world.streams, world.table)
    world.service.disconnect("get_records", 3)
    with pytest.raises(TransientFailure):
        has_unread(world.streams, world.table)


def test_the_lag_is_the_age_of_the_oldest_unread_record() -> None:
    world = World("s1")
    assert stream_lag(world.streams, world.table, now=CREATED + 9) == 0.0
    world.service.write("s1", 3)
    assert stream_lag(world.streams, world.table, now=CREATED + 9) == 9.0


def test_a_lag_that_could_not_be_read_is_none() -> None:
    world = World("s1")
    world.table.down = True
    assert stream_lag(world.streams, world.table, now=CREATED) is None
