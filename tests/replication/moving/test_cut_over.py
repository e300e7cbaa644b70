"""The cut-over: where enqueue starts, and what prevents it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from regworkers_core.domain.timestamps import iso
from regworkers_core.drains.heartbeat import Heartbeat
from regworkers_core.engine.leases import LeaseKey, LeaseRow
from regworkers_core.engine.stop import StopSignal
from regworkers_core.replication.cut_over import BACK_SECONDS, CutOver, cut_over
from regworkers_core.replication.enqueue.shard_rows import (
    checkpoint_of,
    partition,
    position_of,
    split_rows,
    workable,
)
from regworkers_core.replication.shadow import ShadowRows, shadow
from regworkers_core.runtime import Runtime
from tests.replication.moving.lambdas import Lambdas
from tests.support.drains import run
from tests.support.entries import document, key, put
from tests.support.runtimes import new_runtime, remove_namespace
from tests.support.terminal import regworkers
from tests.support.waiting import sleeping


@pytest.fixture
def world() -> Iterator[Runtime]:
    """Three entries that the old system saved and the shadow compared; its history has the time before and after."""
    runtime = new_runtime()
    for number in range(3):
        put(runtime, key(f"e{number}"))
    Lambdas(runtime).work()
    report, _ = shadow(runtime, stop=StopSignal(), max_seconds=30, idle_seconds=0.1)
    assert report.clean and report.compared == 3
    yield runtime
    remove_namespace(runtime)


def plan(runtime: Runtime, **options: Any) -> CutOver:
    with sleeping(lambda _seconds: None):
        return cut_over(runtime, **options)


def later(runtime: Runtime, seconds: float) -> Runtime:
    """The same at a later time."""
    now = runtime.clock()
    return Runtime(runtime.settings, clock=lambda: now + seconds)


def enqueue_rows(runtime: Runtime) -> dict[str, str | None]:
    rows, _ = split_rows(runtime.leases.rows(partition(runtime.names.demand_table)))
    return {shard_id: checkpoint_of(row.state) for shard_id, row in rows.items()}


def differ(runtime: Runtime) -> None:
    """The shadow compares an entry whose change the old system lost."""
    put(runtime, key("e1"), version=7)
    Lambdas(runtime, lambda _key, _fields: None).work()
    report, _ = shadow(runtime, stop=StopSignal(), max_seconds=30, idle_seconds=0.1)
    assert report.differences == 1


def keep_an_hour(runtime: Runtime) -> None:
    """The history has checkpoints of an hour ago and of now."""
    ShadowRows(runtime).keep(runtime.clock() - BACK_SECONDS)
    ShadowRows(runtime).keep(runtime.clock())


def test_without_checkpoints_of_an_hour_ago_it_would_start_at_the_horizon(world: Runtime) -> None:
    found = plan(world)
    assert found.obstacles == () and found.start is None and not found.applied
    assert enqueue_rows(world) == {}, "a dry run writes nothing"


def test_it_starts_at_the_newest_checkpoints_that_are_an_hour_older_than_the_last(world: Runtime) -> None:
    rows = ShadowRows(world)
    now, before = world.clock(), rows.history()
    for back in (BACK_SECONDS + 1200, BACK_SECONDS + 600, 1800, 0):
        rows.keep(now - back)
    start = plan(world).start
    assert start is not None and start.at == iso(now - BACK_SECONDS - 600)
    assert len(rows.history()) <= 15 and len(before) == 1


def test_differences_are_an_obstacle_until_their_number_is_given(world: Runtime) -> None:
    differ(world)
    assert "1 differences" in plan(world).obstacles[0]
    assert "1 differences" in plan(world, accept_differences=2).obstacles[0]
    assert plan(world, accept_differences=1).obstacles == ()


def test_checkpoints_older_than_the_stream_are_an_obstacle(world: Runtime) -> None:
    keep_an_hour(world)
    found = plan(later(world, 24 * 3600))
    assert len(found.obstacles) == 1 and "the stream keeps 24 hours" in found.obstacles[0]


def test_a_running_enqueue_drain_is_an_obstacle(world: Runtime) -> None:
    life = Heartbeat(lambda: world.leases, "enqueue", "run-1", started_at="", idle_seconds=1, max_seconds=1)
    life.beat()
    with sleeping(lambda _seconds: life.beat()):
        found = cut_over(world)
    life.remove()
    assert len(found.obstacles) == 1 and "an enqueue drain runs" in found.obstacles[0]


def test_applied_enqueue_reads_what_came_after_and_its_rows_are_then_an_obstacle(world: Runtime) -> None:
    differ(world)
    keep_an_hour(world)
    answer = regworkers(
        world, "migrate", "cut-over", "--accept-differences", "1", "--apply", "--format", "json"
    )
    assert answer.code == 0 and answer.document["applied"] and answer.document["shards"] == 1, answer
    assert None not in enqueue_rows(world).values()
    put(world, key("after"))
    assert run(world, "enqueue").counts["received"] == 1
    run(world, "save")
    assert (document(world, key("after")) or {})["_replication"]["version"] == 1

    again = regworkers(world, "migrate", "cut-over", "--accept-differences", "1", "--apply")
    assert again.code == 1 and "--replace" in again.stdout
    before = enqueue_rows(world)
    assert plan(world, accept_differences=1, replace=True, apply=True).applied
    assert enqueue_rows(world) != before
    # The entry comes once more, which does no harm.
    assert run(world, "enqueue").counts["received"] == 1
    assert run(world, "save").counts["unchanged"] == 1


def test_a_start_at_the_horizon_reads_everything_again_at_once(world: Runtime) -> None:
    found = plan(world, apply=True)
    assert found.applied and found.start is None
    # It does not idle out before the shards are listed.
    assert run(world, "enqueue").counts["upserts"] == 3


def test_rows_of_enqueue_become_those_of_the_shadow_an_hour_ago_finished_shards_included(
    world: Runtime,
) -> None:
    table, pk = ShadowRows(world).table, f"HISTORY#{world.names.demand_table}"
    shards = {
        "parent": {"checkpoint": "9", "finished": "true"},
        "child": {"parent": "parent", "checkpoint": "12"},
        "fresh": {"parent": "parent"},
    }
    for slot, back in (("00", BACK_SECONDS + 1), ("01", 0.0)):
        state = {
            "at": iso(world.clock() - back),
            "arn": world.streams.latest_stream(),
            "shards": orjson.dumps(shards).decode(),
        }
        key_ = LeaseKey(pk, slot)
        assert table.swap(LeaseRow(key_, state=state), table.get(key_))
    assert plan(world, apply=True).applied
    rows, _ = split_rows(world.leases.rows(partition(world.names.demand_table)))
    assert {name: dict(row.state) for name, row in rows.items()} == shards
    arn = world.streams.latest_stream()
    # A child is read once its parent is finished; without a checkpoint it is read from its first record.
    assert sorted(workable(arn, rows)) == ["child", "fresh"]
    assert rows["child"].position == position_of("12") and not any(row.owner for row in rows.values())


def test_without_a_shadow_there_is_nothing_to_start_from() -> None:
    runtime = new_runtime()
    try:
        answer = regworkers(runtime, "migrate", "cut-over", "--apply")
        assert answer.code == 1 and "no shadow has compared anything" in answer.stdout
        assert enqueue_rows(runtime) == {}
    finally:
        remove_namespace(runtime)
