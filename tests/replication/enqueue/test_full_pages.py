"""A page may be short because its megabyte is full: then more is there, and it is read without a pause."""

from __future__ import annotations

from typing import Any

from regworkers_core.replication.enqueue.stream_source import StreamSource
from regworkers_core.settings import EnqueueSettings, StreamSettings
from tests.replication.enqueue.fakes import FakeStreamsService, Inline, streams_of
from tests.support.in_memory import MemoryLeaseTable
from tests.support.waiting import Clock


class CutShort(FakeStreamsService):
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
