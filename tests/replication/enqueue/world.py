"""A stream, a lease table and consumers on one clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from regworkers_core.adapters.aws.streams import KnownStream, StreamRecord, known_stream
from regworkers_core.replication.enqueue.shard_rows import (
    checkpoint_of,
    is_finished,
    partition,
    shard_key,
    shard_of,
)
from regworkers_core.replication.enqueue.stream_source import StreamSource
from regworkers_core.settings import EnqueueSettings, StreamSettings
from tests.replication.enqueue.fakes import TABLE, Inline, StreamsService, streams_of
from tests.support.in_memory import MemoryLeaseTable
from tests.support.waiting import Clock

LEASE_SECONDS = 10.0
LIMITS = EnqueueSettings(lease_seconds=LEASE_SECONDS)
PACE = StreamSettings()


class World:
    def __init__(self, *shards: str) -> None:
        self.clock = Clock()
        self.service = StreamsService()
        self.streams = streams_of(self.service)
        self.table = MemoryLeaseTable()
        self.steps: list[str] = []
        for shard in shards:
            self.service.add(shard)

    def consumer(
        self,
        owner: str = "a",
        limits: EnqueueSettings = LIMITS,
        on_step: Callable[[str], None] | None = None,
        pace: StreamSettings = PACE,
    ) -> StreamSource:
        return StreamSource(
            self.streams,
            self.table,
            limits,
            pace,
            owner=owner,
            clock=self.clock,
            sleep=self.clock.sleep,
            on_step=on_step or self.steps.append,
            background=Inline(),
        )

    def known(self) -> KnownStream:
        """What the lister tells; nothing is complete before its first word."""
        return known_stream(self.table, TABLE) or KnownStream("")

    def rows(self) -> set[str]:
        """The shards that have a row."""
        keys = self.table.keys(partition(TABLE))
        return {shard_of(key) for key in keys if shard_key(TABLE, shard_of(key)) == key}

    def checkpoint(self, shard: str) -> str | None:
        row = self.table.get(shard_key(TABLE, shard))
        return None if row is None else checkpoint_of(row.state)

    def finished(self, shard: str) -> bool:
        row = self.table.get(shard_key(TABLE, shard))
        return row is not None and is_finished(row)

    def owner(self, shard: str) -> str:
        row = self.table.get(shard_key(TABLE, shard))
        return "" if row is None else row.owner

    def pass_time(self, seconds: float, *alive: StreamSource) -> None:
        """Let time pass in small steps during which the living consumers' heartbeats go on."""
        for _ in range(int(seconds)):
            self.clock.now += 1.0
            for source in alive:
                source.heartbeat()


def sequences(records: Sequence[StreamRecord]) -> list[str]:
    return [record.sequence for record in records]


def receive(source: StreamSource, rounds: int = 12) -> list[StreamRecord]:
    """What a few receives bring together; they rest in between on the clock."""
    return [record for _ in range(rounds) for record in source.receive()]


def work_off(source: StreamSource, rounds: int = 12) -> list[str]:
    """Receive and acknowledge for a few rounds; the sequence numbers in the order of arrival."""
    seen: list[str] = []
    for _ in range(rounds):
        batch = source.receive()
        seen.extend(sequences(batch))
        source.acknowledge(batch)
    return seen
