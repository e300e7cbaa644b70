"""DynamoDB and its streams are two endpoints: what is said of the one says nothing of the other. A drain that sees
nothing of the stream has failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from structlog.testing import capture_logs

from regworkers_core.adapters.aws.streams import StreamRecord, known_stream
from regworkers_core.engine.drain import Drain, DrainLimits, Settlement
from regworkers_core.engine.drain_report import DrainReport
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime
from tests.adapters.fakes import client_error
from tests.replication.enqueue.world import World
from tests.support.drains import run
from tests.support.entries import key, put


class Endpoint:
    """A client whose `failing` operations raise, all of them when none are named; it notes what it was asked."""

    def __init__(self, client: Any, error: Exception, *failing: str) -> None:
        self._client, self._error, self._failing = client, error, failing
        self.asked: list[str] = []

    def __getattr__(self, operation: str) -> Any:
        def call(**arguments: Any) -> Any:
            self.asked.append(operation)
            if not self._failing or operation in self._failing:
                raise self._error
            return getattr(self._client, operation)(**arguments)

        return call


def replaced(runtime: Runtime, error: Exception, *failing: str) -> Endpoint:
    endpoint = Endpoint(runtime.streams._streams, error, *failing)
    runtime.streams._streams = endpoint
    return endpoint


UNAVAILABLE = EndpointConnectionError(endpoint_url="http://127.0.0.1:9")


@pytest.mark.parametrize("known", [False, True])
def test_a_streams_endpoint_that_is_unavailable_is_named_while_dynamodb_answers(
    runtime: Runtime, known: bool
) -> None:
    if known:
        run(runtime, "enqueue")
    replaced(runtime, UNAVAILABLE)
    assert runtime.probe("dynamodb", "streams", "sqs") == "streams"
    report = run(runtime, "enqueue")
    assert (report.ended, report.dependency) == ("dependency_down", "streams")


def test_the_probe_asks_as_a_reader_does_and_reads_no_record(runtime: Runtime) -> None:
    put(runtime, key("e1"))
    run(runtime, "enqueue")
    endpoint = replaced(runtime, UNAVAILABLE, "none")
    assert runtime.probe("streams") is None
    assert endpoint.asked == ["get_shard_iterator", "get_records"]
    known = known_stream(runtime.leases, runtime.names.demand_table)
    assert known is not None and known.shard_id and known.complete and known.answered_at


def test_a_listing_that_is_refused_is_no_streams_endpoint_unavailable_and_opens_no_breaker_of_the_reads(
    runtime: Runtime,
) -> None:
    run(runtime, "enqueue")
    endpoint = replaced(runtime, client_error("LimitExceededException"), "describe_stream")
    put(runtime, key("e1"))
    # A new lister waits for a second before it asks.
    report = run(runtime, "enqueue", idle_seconds=1.5)
    assert report.counts["sent"] == 1
    assert "describe_stream" in endpoint.asked
    assert runtime.probe("streams") is None


def test_the_breaker_of_the_streams_opens_although_dynamodb_answers_in_between(runtime: Runtime) -> None:
    run(runtime, "enqueue")
    replaced(runtime, UNAVAILABLE, "get_shard_iterator", "get_records")
    for _ in range(runtime.settings.retry.breaker_failures):
        assert runtime.probe("streams") == "streams"
        assert runtime.probe("dynamodb") is None
        assert runtime.streams.latest_stream()
    assert runtime.dependencies.down("dynamodb", "streams") == "streams"


def test_a_failing_describe_table_counts_for_dynamodb_and_not_for_its_streams(runtime: Runtime) -> None:
    runtime.streams._dynamodb = Endpoint(
        runtime.dynamodb, client_error("InternalServerError"), "describe_table"
    )
    for _ in range(runtime.settings.retry.breaker_failures):
        with pytest.raises(Exception, match="dynamodb: InternalServerError"):
            runtime.streams.latest_stream()
    assert runtime.dependencies.down("streams") is None
    assert runtime.dependencies.down("dynamodb") == "dynamodb"


def test_a_shard_that_is_long_gone_does_not_make_the_endpoint_look_unavailable(runtime: Runtime) -> None:
    run(runtime, "enqueue")
    gone = ClientError(
        {"Error": {"Code": "ResourceNotFoundException"}, "ResponseMetadata": {}}, "GetShardIterator"
    )
    replaced(runtime, gone, "get_shard_iterator")
    assert runtime.probe("streams") is None


def done(batch: Sequence[StreamRecord]) -> Settlement[StreamRecord]:
    settlement = Settlement(done=list(batch))
    settlement.counts.update(received=len(batch), sent=len(batch))
    return settlement


def blinded(world: World, *, from_second: float, calls: tuple[str, ...]) -> DrainReport:
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
        return Drain(
            "enqueue",
            source,
            done,
            limits,
            probe=lambda: None,
            down=lambda: None,
            stop=StopSignal(),
            clock=world.clock,
        ).run()


@pytest.mark.parametrize(("from_second", "blind"), [(100, True), (290, False)])
def test_reads_that_fail_for_two_minutes_fail_the_drain_and_shorter_ones_do_not(
    world: World, from_second: float, blind: bool
) -> None:
    world.service.write("s1", 3)
    report = blinded(world, from_second=from_second, calls=("get_records", "get_shard_iterator") * 20)
    assert report.ended == "time_limit" and report.counts["sent"] == 3
    assert (report.failure is not None) is blind
    if report.failure is not None:
        assert "streams did not answer" in report.failure


def test_a_stream_that_was_never_listed_fails_the_drain() -> None:
    report = blinded(World("s1"), from_second=0, calls=("describe_stream",) * 20)
    assert report.failure is not None and "stream-listing did not answer" in report.failure


def test_a_stream_whose_held_shards_are_read_while_it_cannot_be_listed_is_fine(world: World) -> None:
    world.service.write("s1", 3)
    report = blinded(world, from_second=30, calls=("describe_stream",) * 20)
    assert report.failure is None and report.counts["sent"] == 3
