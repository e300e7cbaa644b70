from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from regworkers_core.adapters.aws.clients import classify_aws
from regworkers_core.adapters.aws.streams import stream_record
from regworkers_core.domain.messages import fit_correlation_id
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.dependency import Dependency, RetryPolicy
from regworkers_core.replication.enqueue.stream_source import StreamSource
from regworkers_core.settings import EnqueueSettings, StreamSettings
from tests.adapters.fakes import client_error
from tests.replication.enqueue.fakes import Inline, StreamsService, change, entry, streams_of
from tests.support.in_memory import MemoryLeaseTable
from tests.support.waiting import Clock


def one_shard() -> StreamsService:
    service = StreamsService()
    service.add("s1")
    return service


def test_listings_that_fail_leave_the_breaker_of_the_reads_closed() -> None:
    service = one_shard()
    streams = streams_of(service)
    streams._reads = Dependency("streams", classify_aws("streams"), policy=RetryPolicy(attempts=1))
    service.fail("describe_stream", *[client_error("InternalServerError")] * 20)
    for _ in range(20):
        with pytest.raises(TransientFailure):
            streams.listing(service.arn)
    assert streams.read("s1", streams.iterator(service.arn, "s1", None), 10).records == []


def test_a_shard_that_is_read_too_often_does_not_count_as_empty_and_opens_no_breaker() -> None:
    service = one_shard()
    streams = streams_of(service)
    iterator = streams.iterator(service.arn, "s1", None)
    service.write("s1", 2)
    service.fail("get_records", *[client_error("LimitExceededException")] * 20)
    for _ in range(20):
        page = streams.read("s1", iterator, 10)
        assert (page.throttled, page.records, page.next_iterator) == (True, [], iterator)
    assert len(streams.read("s1", iterator, 10).records) == 2


def test_a_missing_table_and_a_stream_without_images_name_the_way_out() -> None:
    service = one_shard()
    service.view = "KEYS_ONLY"
    with pytest.raises(UsageError, match=r"NEW_AND_OLD_IMAGES.*regworkers provision"):
        streams_of(service).latest_stream()
    service.fail("describe_table", client_error("ResourceNotFoundException"))
    with pytest.raises(UsageError, match=r"demand-table does not exist.*regworkers provision"):
        streams_of(service).latest_stream()


@pytest.mark.parametrize("name", ["PrincipalId", "principalId"])
def test_a_removal_by_ttl_is_reported_from_an_explicit_one(name: str) -> None:
    raw = change("REMOVE", old=entry())
    identity = {name: "dynamodb.amazonaws.com", "Type": "Service"}
    assert not stream_record(raw, "s1").expired
    assert stream_record({**raw, "userIdentity": identity}, "s1").expired


def test_the_creation_time_is_epoch_seconds_from_both_kinds_of_event() -> None:
    raw = change("INSERT", new=entry())
    assert stream_record(raw, "s1").created_at == 1_795_000_000
    raw["dynamodb"]["ApproximateCreationDateTime"] = datetime(2026, 11, 25, tzinfo=UTC)
    assert stream_record(raw, "s1").created_at == datetime(2026, 11, 25, tzinfo=UTC).timestamp()


def test_a_record_keeps_keys_order_and_flag_and_nothing_else_of_a_fan_or_of_a_large_item() -> None:
    fan: dict[str, Any] = {
        "email": {"S": "fan@example.org"},
        "attributes": {"M": {"note": {"S": "x" * 300_000}}},
    }
    order = {"createdAt", "version", "updatedAt", "needsReplication", "entityType", "correlationId"}
    record = stream_record(
        change("MODIFY", new=entry(correlationId={"S": "c-1"}, **fan), old=entry(**fan)), "s1"
    )
    assert set(record.new_image or {}) == order
    assert set(record.old_image or {}) == order - {"correlationId"}
    assert record.size_bytes < 5_000


def test_what_is_too_long_or_of_another_type_stays_invalid_without_its_content() -> None:
    odd: dict[str, Any] = {
        "correlationId": {"S": "c" * 300_000},
        "updatedAt": {"L": [{"S": "x" * 300_000}]},
        "needsReplication": "true",
    }
    record = stream_record(change("INSERT", new={**entry(), **odd}), "s1")
    image = record.new_image or {}
    assert image["updatedAt"] == {"L": None}
    assert "needsReplication" not in image
    assert fit_correlation_id(image["correlationId"]["S"]) == fit_correlation_id("c" * 300_000)
    assert record.size_bytes < 5_000


class CutShort(StreamsService):
    """Gives two records a page and says how many bytes it sent."""

    def __init__(self, content_length: int) -> None:
        super().__init__()
        self._headers = {"content-length": str(content_length)}

    def get_records(self, ShardIterator: str, Limit: int) -> dict[str, Any]:
        answer = super().get_records(ShardIterator, min(Limit, 2))
        return {**answer, "ResponseMetadata": {"HTTPHeaders": self._headers}}


def rested_while_reading(content_length: int) -> float:
    service, clock = CutShort(content_length), Clock()
    service.add("s1")
    service.write("s1", 6)
    source = StreamSource(
        streams_of(service),
        MemoryLeaseTable(),
        EnqueueSettings(),
        StreamSettings(),
        owner="a",
        clock=clock,
        sleep=clock.sleep,
        background=Inline(),
    )
    started, read = clock.now, 0
    while read < 6:
        read += len(source.receive())
    return clock.now - started


def test_a_page_that_its_size_cut_short_is_followed_at_once() -> None:
    assert rested_while_reading(content_length=1024 * 1024) == 0.0


def test_after_a_short_page_the_shard_is_left_alone_for_a_while() -> None:
    assert rested_while_reading(content_length=2_000) >= 1 / StreamSettings().reads_per_second
