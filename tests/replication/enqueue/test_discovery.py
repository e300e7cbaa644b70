"""Who lists the shards, how often, and what becomes of the reading while listing fails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.deadline import Background
from regworkers_core.engine.leases import LeaseRow
from regworkers_core.replication.enqueue import stream_source
from regworkers_core.replication.enqueue.discovery import ShardDiscovery
from regworkers_core.replication.enqueue.shard_rows import (
    Obsolete,
    obsolete,
    parent_of,
    partition,
    shard_key,
    split_rows,
)
from regworkers_core.replication.enqueue.stream_source import StreamSource
from regworkers_core.settings import EnqueueSettings, StreamSettings
from tests.adapters.fakes import client_error
from tests.replication.enqueue.fakes import TABLE
from tests.replication.enqueue.world import LEASE_SECONDS, World, receive, sequences, work_off
from tests.support.waiting import wait_until

HOUR = 3600.0
PATIENT = EnqueueSettings(lease_seconds=30.0)


class Listings:
    """When each DescribeStream came, and where each page of a listing went on; `broken` raises instead of answering."""

    def __init__(self, world: World) -> None:
        self.times: list[float] = []
        self.after: list[str | None] = []
        self.broken: Callable[[], Exception | None] = lambda: None
        describe = world.service.describe_stream

        def noted(StreamArn: str, **more: Any) -> dict[str, Any]:
            self.times.append(world.clock.now)
            if "ShardFilter" not in more:
                self.after.append(more.get("ExclusiveStartShardId"))
            if error := self.broken():
                world.service.calls["describe_stream"] += 1
                raise error
            return describe(StreamArn, **more)

        world.service.describe_stream = noted  # type: ignore[method-assign]

    @property
    def most_in_a_second(self) -> int:
        times = self.times
        return max((sum(start <= each < start + 1.0 for each in times) for start in times), default=0)


class Crowd:
    """Consumers that only discover: what they do besides costs no DescribeStream."""

    def __init__(self, world: World, consumers: int) -> None:
        self.world = world
        self.listings = Listings(world)
        self.all = [
            ShardDiscovery(
                world.streams, world.table, owner=f"c{number}", lease_seconds=LEASE_SECONDS, clock=world.clock
            )
            for number in range(consumers)
        ]

    def live(self, seconds: float, *, until: Callable[[], bool] = lambda: False) -> float:
        """So long at most; how long it took."""
        began, ticks = self.world.clock.now, 0
        while self.world.clock.now < began + seconds:
            if ticks % 4 == 0 and until():
                break
            # As often as a heartbeat of this lease.
            if ticks % 12 == 0:
                rows, _ = split_rows(self.world.table.rows(partition(TABLE)))
                for each in self.all:
                    each.seen(rows)
            for each in self.all:
                if each.due:
                    each.step()
            self.world.clock.now += 0.25
            ticks += 1
        return self.world.clock.now - began

    def finish(self, *shard_ids: str) -> None:
        """As a reader marks them."""
        for shard_id in shard_ids:
            row = self.world.table.get(shard_key(TABLE, shard_id))
            assert row is not None
            state = {**row.state, "finished": "true"}
            finished = type(row)(row.key, scope=row.scope, counter=row.counter + 1, state=state)
            assert self.world.table.swap(finished, row)


def world_of(shards: int) -> World:
    return World(*(f"s{number:05}" for number in range(shards)))


# The data path waits for no listing


BREAKS: dict[str, Callable[[], Exception]] = {
    "throttled": lambda: client_error("LimitExceededException"),
    "dead": lambda: EndpointConnectionError(endpoint_url="http://127.0.0.1"),
    "refused": lambda: client_error("AccessDeniedException"),
}


@pytest.mark.parametrize(("what", "hours"), [("throttled", 6), ("dead", 6), ("refused", 1)])
def test_hours_without_a_listing_cost_no_record_no_delay_and_thirty_seconds_for_children(
    monkeypatch: pytest.MonkeyPatch, what: str, hours: int
) -> None:
    # These shards answer at once, but the threads that read them may have to wait for a processor.
    monkeypatch.setattr(stream_source, "_ROUND_SECONDS", 60.0)
    world = World("s1", "s2", "s3")
    listings = Listings(world)
    source = world.consumer(limits=PATIENT)
    work_off(source)
    end = world.clock.now + hours * HOUR
    listings.broken = BREAKS[what]
    world.service.throttle("describe_table")
    written: list[str] = []
    read: list[str] = []
    late: list[str] = []
    while world.clock.now < end:
        world.clock.now += 10.0
        source.heartbeat()
        shards = [
            name
            for name, shard in world.service.shards.items()
            if shard.closed_at is None and not shard.parent
        ]
        new = [number for name in shards for number in world.service.write(name)]
        batch = source.receive()
        late += sorted(set(new) - set(sequences(batch)))
        source.acknowledge(batch)
        written += new
        read += sequences(batch)
        if len(shards) > 1 and world.clock.now > end - HOUR / 2:
            for parent in shards[:2]:
                world.service.split(parent, parent + "a", parent + "b")
    assert late == []
    assert sorted(read, key=int) == written
    # Children keep what came since their parents closed; it is read from the start.
    children = [name for name, shard in world.service.shards.items() if shard.parent]
    waiting = [number for name in children for number in world.service.write(name, 3)]
    listings.broken = lambda: None
    world.service.recover()
    healed = world.clock.now
    after: list[str] = []
    while world.clock.now < healed + 30.0:
        after += work_off(source, rounds=1)
    assert sorted(after, key=int) == waiting
    assert source.counts()["trimmed"] == source.counts()["leases_lost"] == 0


def test_a_listing_that_does_not_answer_holds_up_no_read_and_no_end() -> None:
    world, asked, silent, over = World("s1"), threading.Event(), threading.Event(), threading.Event()
    known = world.consumer("before")
    receive(known)
    known.close()

    def hangs(**_: Any) -> dict[str, Any]:
        asked.set()
        silent.wait(20)
        over.set()
        raise client_error("LimitExceededException")

    world.service.describe_stream = hangs  # type: ignore[method-assign]
    limits, pace = EnqueueSettings(lease_seconds=LEASE_SECONDS), StreamSettings(reads_per_second=1000)
    source = StreamSource(
        world.streams,
        world.table,
        limits,
        pace,
        owner="a",
        clock=world.clock,
        sleep=world.clock.sleep,
        background=Background("shard-discovery"),
    )
    try:
        wait_until(lambda: source.receive() == [] and asked.is_set(), what="a listing that hangs")
        for _ in range(5):
            written = world.service.write("s1")
            world.clock.now += 0.01
            assert sequences(source.receive()) == written
        assert not over.is_set(), "the listing still hangs"
    finally:
        silent.set()
    source.close()
    assert world.owner("s1") == ""


def test_a_drain_that_cannot_receive_for_a_while_keeps_listing_by_its_heartbeat(
    world: World, source: StreamSource
) -> None:
    work_off(source)
    before = world.service.calls["describe_stream"]
    world.service.split("s1", "s2")
    world.pass_time(30, source)
    assert world.service.calls["describe_stream"] > before
    assert world.rows() == {"s1", "s2"}


def test_a_lease_table_that_cannot_be_queried_holds_up_no_read_of_held_shards(
    world: World, source: StreamSource
) -> None:
    work_off(source)
    query = world.table.rows

    queries: list[float] = []

    def throttled(pk: str) -> list[Any]:
        queries.append(world.clock.now)
        raise TransientFailure("dynamodb", "ThrottlingException", throttled=True)

    world.table.rows = throttled  # type: ignore[method-assign]
    seen: list[str] = []
    written: list[str] = []
    for _ in range(20):
        written += world.service.write("s1")
        world.pass_time(1, source)
        batch = source.receive()
        seen += sequences(batch)
        source.acknowledge(batch)
    assert seen == written
    world.clock.now += 1.0
    with pytest.raises(TransientFailure):
        # It is said when there is nothing to read.
        receive(source)
    asked = len(queries)
    for _ in range(5):
        with suppress(TransientFailure):
            assert source.receive() == []
    assert len(queries) <= asked + 2, "and the table is left alone for a second"
    world.table.rows = query  # type: ignore[method-assign]
    world.clock.now += 1.0
    assert receive(source) == []


# The budget


@pytest.mark.slow
@pytest.mark.parametrize(
    ("drains", "shards", "closing"), [(1, 700, 3), (8, 700, 100), (1, 10_000, 3), (8, 10_000, 100)]
)
def test_a_table_costs_one_describe_stream_a_second_at_most_and_children_are_known_in_time(
    drains: int, shards: int, closing: int
) -> None:
    world = world_of(shards)
    crowd = Crowd(world, drains)
    crowd.live(shards / 100 + 5, until=lambda: world.known().complete)
    assert len(world.rows()) == shards
    # Some close, the lister dies, and the next one asks for their children.
    names = [f"s{number:05}" for number in range(0, shards, shards // closing)][:closing]
    for name in names:
        # Listed behind all others, as what is younger is.
        world.service.split(name, f"t{name}a", f"t{name}b")
    crowd.finish(*names)
    crowd.all = [each for each in crowd.all if each._lease is None] or crowd.all
    children = {f"t{name}{side}" for name in names for side in "ab"}
    assert crowd.live(40, until=lambda: children <= world.rows()) < LEASE_SECONDS + 15
    assert crowd.listings.most_in_a_second == 1


def test_a_failing_endpoint_is_asked_ever_less_often_and_each_second_at_most_once() -> None:
    world = world_of(3)
    crowd = Crowd(world, 8)
    crowd.listings.broken = lambda: client_error("LimitExceededException")
    crowd.live(600)
    assert crowd.listings.most_in_a_second == 1
    assert len(crowd.listings.times) <= 600 / 2


def test_an_endpoint_that_answered_in_between_is_asked_again_soon() -> None:
    world = world_of(3)
    crowd = Crowd(world, 1)
    crowd.listings.broken = lambda: client_error("LimitExceededException")
    crowd.live(60)
    crowd.listings.broken = lambda: None
    crowd.live(60, until=lambda: crowd.all[0].failure is None)
    crowd.listings.broken = lambda: client_error("LimitExceededException")
    crowd.live(60, until=lambda: crowd.all[0].failure is not None)
    asked = len(crowd.listings.times)
    crowd.live(3.75)
    assert len(crowd.listings.times) - asked >= 2


def test_children_that_do_not_come_are_asked_for_ever_less_often() -> None:
    world = world_of(2)
    crowd = Crowd(world, 1)
    crowd.live(5)
    world.service.split("s00001")
    crowd.finish("s00001")
    crowd.live(60)
    assert 4 <= len(world.service.filtered) <= 12


def test_the_children_of_one_closed_shard_are_asked_for_before_all_are_listed_again() -> None:
    world = world_of(700)
    crowd = Crowd(world, 1)
    crowd.live(12)
    listed = len(crowd.listings.times)
    world.service.split("s00650", "left", "right")
    crowd.finish("s00650")
    took = crowd.live(20, until=lambda: {"left", "right"} <= world.rows())
    assert took <= 3.0
    assert world.service.filtered == ["s00650"]
    assert len(crowd.listings.times) - listed <= 2


def test_the_listing_has_its_half_of_the_calls_however_many_shards_close() -> None:
    world = world_of(700)
    crowd = Crowd(world, 1)
    crowd.live(9)
    begun = crowd.listings.after.count(None)
    for number in range(30):
        name = f"s{number:05}"
        world.service.split(name, "t" + name)
        crowd.finish(name)
        crowd.live(1)
    assert crowd.listings.after.count(None) - begun >= 2
    assert {f"ts{number:05}" for number in range(29)} <= world.rows()


def test_children_that_are_not_on_the_last_pages_are_found_all_the_same() -> None:
    world = world_of(300)
    crowd = Crowd(world, 1)
    crowd.live(8)
    closing = ["s00010", "s00020", "s00030"]
    for name in closing:
        # Listed before all others.
        world.service.split(name, "a" + name)
    crowd.finish(*closing)
    assert crowd.live(30, until=lambda: {"a" + name for name in closing} <= world.rows()) < 15


@pytest.mark.parametrize("what", ["ignores", "refuses"])
def test_an_endpoint_without_the_filter_is_asked_for_children_once_and_then_lists_all(what: str) -> None:
    world = world_of(150)
    world.service.filter = what
    crowd = Crowd(world, 1)
    crowd.live(5)
    for name in ("s00001", "s00002", "s00003"):
        world.service.split(name, name + "a")
        crowd.finish(name)
        assert crowd.live(30, until=lambda: name + "a" in world.rows()) < 15  # noqa: B023
    assert crowd.all[0]._asks_for_children is False
    assert crowd.listings.most_in_a_second == 1


def test_a_page_that_is_throttled_is_asked_again_and_not_the_whole_listing() -> None:
    world = world_of(350)
    crowd = Crowd(world, 1)
    answers = iter([None, None, *[client_error("LimitExceededException")] * 4, *[None] * 100])
    crowd.listings.broken = lambda: next(answers)
    crowd.live(60, until=lambda: world.known().complete)
    assert crowd.listings.after == [None, "s00099", *["s00199"] * 5, "s00299"]


# One lister, and rows for all


def test_each_shard_has_a_row_with_its_parent_and_when_it_was_seen(
    world: World, source: StreamSource
) -> None:
    world.service.split("s1", "s2")
    work_off(source)
    source.close()
    row = world.table.stored[shard_key(TABLE, "s2")]
    assert parent_of(row) == "s1"
    assert row.state["seenAt"].endswith("Z")
    assert row.scope == world.service.arn


def test_only_the_holder_of_the_lease_lists_and_the_others_read_its_rows() -> None:
    world = World("s1", "s2")
    first, second = world.consumer("a"), world.consumer("b")
    for _ in range(6):
        world.pass_time(1, first, second)
        work_off(first, rounds=2)
        work_off(second, rounds=2)
    asked = world.service.calls["describe_stream"]
    assert sorted(world.owner(name) for name in ("s1", "s2")) == ["a", "b"]
    listings = Listings(world)
    world.pass_time(40, first, second)
    assert asked <= 2
    assert listings.most_in_a_second == 1


def test_another_one_lists_once_the_lease_of_the_lister_did_not_move_for_one_lease_time(world: World) -> None:
    dead, alive = world.consumer("dead"), world.consumer("b")
    work_off(dead)
    work_off(alive, rounds=2)
    world.service.split("s1", "s2")
    world.pass_time(LEASE_SECONDS - 3, alive)
    assert world.rows() == {"s1"}
    world.pass_time(LEASE_SECONDS, alive)
    assert world.rows() == {"s1", "s2"}


def test_a_lister_that_fails_again_and_again_lets_another_one_try(world: World) -> None:
    crowd = Crowd(world, 2)
    crowd.live(3)
    (lister,) = [each for each in crowd.all if each._lease is not None]
    # Its machine does not reach the endpoint.
    crowd.listings.broken = lambda: EndpointConnectionError(endpoint_url="x") if lister._lease else None
    world.service.split("s1", "s2")
    crowd.live(40, until=lambda: world.rows() == {"s1", "s2"})
    assert world.rows() == {"s1", "s2"}
    assert lister._lease is None


def test_a_lister_that_was_overtaken_while_it_asked_writes_nothing(world: World) -> None:
    crowd = Crowd(world, 2)
    first, second = crowd.all
    describe = world.service.describe_stream

    def slow(StreamArn: str, **more: Any) -> dict[str, Any]:
        world.service.describe_stream = describe  # type: ignore[method-assign]
        answer = describe(StreamArn, **more)
        second.step()
        world.clock.now += LEASE_SECONDS
        second.step()
        world.clock.now += 1.0
        world.service.split("s1", "s2")
        second.step()
        return answer

    world.service.describe_stream = slow  # type: ignore[method-assign]
    first.step()
    before = world.table.stored
    assert world.rows() == {"s1", "s2"}
    assert first._lease is None
    first.step()
    assert world.table.stored == before


def test_two_listers_at_once_make_the_same_rows() -> None:
    world = world_of(20)
    crowd = Crowd(world, 2)
    first, second = crowd.all
    first.step()
    rows = {name: world.table.stored[shard_key(TABLE, name)] for name in world.rows()}
    # Both believe to be the one.
    world.clock.now += LEASE_SECONDS
    second._step_at = 0.0
    second._holder.is_live = lambda row: False  # type: ignore[method-assign]
    second.step()
    world.clock.now += 1.0
    second.step()
    assert {name: world.table.stored[shard_key(TABLE, name)] for name in world.rows()} == rows


def test_a_child_is_not_read_before_its_parent_is_known_on_whatever_page_that_comes() -> None:
    world = World("child", *(f"s{number:03}" for number in range(120)), "the-parent")
    world.service.shards["child"].parent = "the-parent"
    world.service.close("the-parent")
    young, old = world.service.write("child", 2), world.service.write("the-parent", 2)
    source = world.consumer(limits=EnqueueSettings(batch_records=50))
    seen: list[str] = []
    for _ in range(40):
        seen += work_off(source, rounds=1)
    assert seen == [*old, *young]


def test_a_new_stream_whose_shard_is_named_like_a_held_one_is_read_soon_after_that_was_let_go(
    world: World, source: StreamSource
) -> None:
    world.service.write("s1", 2)
    work_off(source)
    world.service.recreate("s1")
    while world.known().arn != world.service.arn:
        assert work_off(source, rounds=1) == []
    heard_at = world.clock.now
    assert not world.known().complete
    new = world.service.write("s1", 3)
    seen: list[str] = []
    while not seen:
        seen += work_off(source, rounds=1)
    assert seen == new
    assert world.clock.now - heard_at < 5.0
    assert source.counts()["trimmed"] == 1


# When a row goes


def test_a_row_stays_while_that_of_its_parent_does() -> None:
    def row(name: str, parent: str) -> LeaseRow:
        state = {"finished": "true", "parent": parent}
        return LeaseRow(shard_key(TABLE, name), scope="arn", state=state)

    rows = {"s1": row("s1", "s0"), "s2": row("s2", "s1"), "s3": row("s3", "s2")}
    assert obsolete("arn", {"s1": "s0", "s3": "s2"}, rows) == []
    assert obsolete("arn", {"s3": "s2"}, rows) == [Obsolete(rows["s1"], False), Obsolete(rows["s2"], False)]


def test_a_row_stays_until_its_shard_is_finished_its_children_are_known_and_it_is_not_listed() -> None:
    world = World("parent")
    crowd = Crowd(world, 1)
    crowd.live(2)
    world.service.split("parent", "child")
    crowd.live(25)
    assert world.rows() == {"parent", "child"}
    world.service.forget("parent")
    crowd.live(25)
    assert "parent" in world.rows(), "its reader has not seen yet that it is gone"
    crowd.finish("parent")
    crowd.live(25)
    assert world.rows() == {"child"}
    assert not crowd.all[0].counts["trimmed"]


def test_rows_go_parents_first_and_one_that_cannot_go_keeps_its_children(world: World) -> None:
    crowd = Crowd(world, 1)
    crowd.live(2)
    world.service.split("s1", "s2")
    world.service.split("s2", "s3")
    crowd.live(25)
    crowd.finish("s1", "s2")
    world.service.forget("s1")
    world.service.forget("s2")
    remove, removed = world.table.remove, []

    def refused_once(seen: Any) -> bool:
        removed.append(seen.key.sk)
        return len(removed) > 1 and remove(seen)

    world.table.remove = refused_once  # type: ignore[method-assign]
    crowd.live(11)
    assert world.rows() == {"s1", "s2", "s3"}
    crowd.live(20)
    assert world.rows() == {"s3"}
    assert removed == ["SHARD#s1", "SHARD#s1", "SHARD#s2"]


def test_children_that_were_trimmed_before_anyone_saw_them_are_reported_as_loss_once() -> None:
    world = World("s1", "other")
    crowd = Crowd(world, 1)
    crowd.live(2)
    world.service.split("s1", "s2")
    world.service.forget("s1")
    world.service.forget("s2")
    crowd.finish("s1")
    crowd.live(40)
    assert world.rows() == {"other"}
    assert crowd.all[0].counts["trimmed"] == 1


def test_a_shard_that_was_trimmed_before_it_was_read_is_reported_once_and_its_row_goes() -> None:
    world = World("s1", "other")
    Crowd(world, 1).live(2)
    world.service.write("s1", 3)
    world.service.forget("s1")
    source = world.consumer("a")
    for _ in range(60):
        world.pass_time(1, source)
        work_off(source, rounds=1)
    assert world.rows() == {"other"}
    assert source.counts()["trimmed"] == 1


def test_a_drain_does_not_idle_out_while_the_children_of_a_finished_shard_are_not_known(
    world: World, source: StreamSource
) -> None:
    work_off(source)
    assert source.may_idle()
    world.service.split("s1", "s2")
    world.service.throttle("describe_stream")
    work_off(source, rounds=20)
    assert world.finished("s1")
    assert not source.may_idle()
    world.service.throttle()
    work_off(source, rounds=80)
    assert world.owner("s2") == "a"
    assert source.may_idle()


def test_a_stream_that_cannot_be_listed_is_reported_by_the_counts_of_the_drain(
    world: World, source: StreamSource
) -> None:
    work_off(source)
    world.service.throttle("describe_stream")
    world.pass_time(60, source)
    assert source.counts()["discovery_failures"] > 3
