"""What idle shards cost a drain `enqueue`, and what they do to the first entry: one drain over services that store
nothing, whose reads take as long as those of AWS.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.figures import spread
from benchmarks.replication.fakes import FakeLeases, FakeSqs, FakeStreams
from benchmarks.replication.memory import drained, queue_of
from regworkers_core.adapters.aws.streams import ListingPage, Shard, StreamPage
from regworkers_core.engine.stop import StopSignal
from regworkers_core.replication.drains import ENQUEUE
from regworkers_core.replication.enqueue.enqueue_work import EnqueueWork
from regworkers_core.replication.enqueue.stream_source import QUIET_SECONDS, StreamSource
from regworkers_core.settings import load_settings
from tests.support.waiting import wait_until

SHARDS = (1, 40, 400, 4_000)
ENTRIES = 5
READ_SECONDS = 0.01
_PAGE = 100
_PATIENCE_SECONDS = 600.0


class IdleStreams(FakeStreams):
    """Shards with nothing in them, until one gets an entry; counts the reads."""

    def __init__(self, shards: int) -> None:
        super().__init__(entries=ENTRIES)
        self._shards = [Shard(f"shard-{number:05d}") for number in range(shards)]
        # Entries by the shard that they are in.
        self.written: dict[str, int] = {}
        self.reads, self.seen = 0, set[str]()

    def listing(self, stream_arn: str, after: str | None = None) -> ListingPage:
        start = int(after.partition("-")[2]) + 1 if after else 0
        page = self._shards[start : start + _PAGE]
        return ListingPage(page, page[-1].shard_id if start + _PAGE < len(self._shards) else None)

    def iterator(self, stream_arn: str, shard_id: str, after: str | None) -> str:
        return "0"

    def read(self, shard_id: str, iterator: str, limit: int) -> StreamPage:
        time.sleep(READ_SECONDS)
        self.reads += 1
        self.seen.add(shard_id)
        start, end = int(iterator), self.written.get(shard_id, 0)
        return StreamPage([self._record(shard_id, number) for number in range(start, end)], str(end))


class CountingSqs(FakeSqs):
    """Knows how many messages were sent."""

    sent = 0

    def send_message_batch(self, Entries: list[Any], **ignored: Any) -> dict[str, Any]:
        self.sent += len(Entries)
        return super().send_message_batch(Entries, **ignored)

    def has_more_than(self, number: int) -> bool:
        return self.sent > number


def measure(seconds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Reads and CPU in this time without an entry, once every shard was read and is idle; then single entries, each in
    a shard and at a moment chosen at random.
    """
    found = {}
    for shards in SHARDS:
        found[str(shards)] = one = _measure(shards, seconds)
        first = one["firstSeconds"]
        say(
            f"{shards} shards: {one['readsPerSecond']} reads/s, first entry {first['median']} to {first['high']} s"
        )
    return {"readSeconds": READ_SECONDS, "byShards": found}


def _measure(shards: int, seconds: int) -> dict[str, Any]:
    streams, sqs, stop, chosen = IdleStreams(shards), CountingSqs(0), StopSignal(), random.Random(7)
    settings = load_settings()
    source = StreamSource(streams, FakeLeases(), settings.enqueue, settings.stream, owner="bench")
    work = EnqueueWork(queue_of("fake", sqs))
    drain = threading.Thread(target=drained, args=(settings, ENQUEUE, source, work, stop), daemon=True)
    drain.start()
    wait_until(lambda: len(streams.seen) == shards, seconds=_PATIENCE_SECONDS, what="a read of every shard")
    time.sleep(QUIET_SECONDS)
    reads, cpu = streams.reads, time.process_time()
    time.sleep(seconds)
    reads, cpu = streams.reads - reads, time.process_time() - cpu
    took = []
    for number in range(ENTRIES):
        time.sleep(chosen.uniform(1, 3))
        shard_id, began = chosen.choice(sorted(streams.seen)), time.monotonic()
        streams.written[shard_id] = streams.written.get(shard_id, 0) + 1
        wait_until(partial(sqs.has_more_than, number), seconds=_PATIENCE_SECONDS, what="an entry")
        took.append(time.monotonic() - began)
    stop.set()
    drain.join()
    return {
        "readsPerSecond": round(reads / seconds, 1),
        "cpuPercent": round(100 * cpu / seconds, 1),
        "firstSeconds": spread(took),
    }
