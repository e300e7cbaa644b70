"""A drain of the stream that sees nothing of it has failed, and says of whom."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from regworkers_core.adapters.aws.streams import StreamRecord
from regworkers_core.engine.drain import DrainLimits, Settlement, drain
from regworkers_core.engine.drain_report import DrainReport
from regworkers_core.engine.stop import StopSignal
from tests.replication.enqueue.world import World


def done(batch: Sequence[StreamRecord]) -> Settlement[StreamRecord]:
    settlement = Settlement(done=list(batch))
    settlement.counts.update(received=len(batch), sent=len(batch))
    return settlement


def run(world: World, *, from_second: float, calls: tuple[str, ...]) -> DrainReport:
    """A drain of five minutes during which these calls fail from a moment on."""
    source = world.consumer()
    receive, began = source.receive, world.clock.now

    def failing_later() -> list[StreamRecord]:
        world.clock.now += 1.0
        if world.clock.now - began >= from_second:
            for call in calls:
                world.service.disconnect(call)
        source.heartbeat()
        return receive()

    source.receive = failing_later  # type: ignore[method-assign]
    limits = DrainLimits(
        idle_seconds=1e9, max_seconds=300, concurrency=1, prefetch=0, heartbeat_seconds=3600, pause_seconds=0
    )
    with capture_logs():
        return drain(
            "enqueue",
            source,
            done,
            limits,
            probe=lambda: None,
            down=lambda: None,
            stop=StopSignal(),
            clock=world.clock,
        )


@pytest.mark.parametrize(("from_second", "blind"), [(100, True), (290, False)])
def test_reads_that_fail_for_two_minutes_fail_the_drain_and_shorter_ones_do_not(
    from_second: float, blind: bool
) -> None:
    world = World("s1")
    world.service.write("s1", 3)
    report = run(world, from_second=from_second, calls=("get_records", "get_shard_iterator") * 20)
    assert report.ended == "time_limit" and report.counts["sent"] == 3
    assert (report.failure is not None) is blind
    if report.failure is not None:
        assert "streams did not answer" in report.failure


def test_a_stream_that_was_never_listed_fails_the_drain() -> None:
    report = run(World("s1"), from_second=0, calls=("describe_stream",) * 20)
    assert report.failure is not None and "stream-listing did not answer" in report.failure


def test_a_stream_whose_held_shards_are_read_while_it_cannot_be_listed_is_fine() -> None:
    world = World("s1")
    world.service.write("s1", 3)
    report = run(world, from_second=30, calls=("describe_stream",) * 20)
    assert report.failure is None and report.counts["sent"] == 3
