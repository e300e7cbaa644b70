"""Peak memory of a drain: the same for 50,000 and for 500,000 entries. Each runs in its own process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import orjson

from benchmarks.figures import MIB, peak_mib
from benchmarks.replication.fakes import FakeCollection, FakeDynamo, FakeLeases, FakeSqs, FakeStreams
from regworkers_core.adapters.aws.clients import classify_aws
from regworkers_core.adapters.aws.demand_table import DemandTable
from regworkers_core.adapters.aws.sqs import EventQueue, SqsQueue
from regworkers_core.adapters.mongo.campaigns import Campaigns
from regworkers_core.adapters.mongo.dead_letters import DeadLetters
from regworkers_core.adapters.mongo.replica import Replica
from regworkers_core.domain.events import ProducerKey, ProducerRole
from regworkers_core.drains.runner import DrainSpec, drain_limits, relaxed_gc
from regworkers_core.engine.dependency import Dependency, RetryPolicy
from regworkers_core.engine.drain import Drain
from regworkers_core.engine.drain_report import DrainReport
from regworkers_core.engine.marks import Marks
from regworkers_core.engine.message_work import MessageWork
from regworkers_core.engine.queue import QueueSource
from regworkers_core.engine.settling import DeadLetterPublisher
from regworkers_core.engine.stop import StopSignal
from regworkers_core.observability.logs import configure_logging
from regworkers_core.replication.drains import ENQUEUE, SAVE
from regworkers_core.replication.enqueue.enqueue_work import EnqueueWork
from regworkers_core.replication.enqueue.stream_source import StreamSource
from regworkers_core.replication.saver import Saver
from regworkers_core.settings import PROJECT_ROOT, Settings, load_settings

SIZES = (50_000, 500_000)


def measure(say: Callable[[str], None]) -> dict[str, Any]:
    """MiB of both drains by number of entries, before they started and at the peak; and the most that the larger number
    takes of the smaller.
    """
    found: dict[str, Any] = {}
    for name in ("enqueue", "save"):
        for entries in SIZES:
            command = [sys.executable, "-m", __name__, name, str(entries)]
            answer = subprocess.run(command, cwd=PROJECT_ROOT, check=True, capture_output=True)
            one = orjson.loads(answer.stdout)
            say(f"memory {name} {entries}: {one['before']:.0f} MiB before, {one['peak']:.0f} MiB at the peak")
            found.setdefault(name, {})[str(entries)] = one
    few, many = map(str, SIZES)
    return found | {
        "growth": round(max(each[many]["peak"] / each[few]["peak"] for each in found.values()), 2)
    }


def run(name: str, entries: int) -> dict[str, float]:
    """In this process."""
    settings = load_settings()
    before = peak_mib()
    with relaxed_gc():
        report = (_enqueue if name == "enqueue" else _save)(settings, entries)
    done = report.counts["sent"] + report.counts["applied"]
    if done != entries or not report.adds_up:
        raise RuntimeError(f"the drain did not do all: {report.as_dict()}")
    return {"before": round(before, 1), "peak": round(peak_mib(), 1), "seconds": round(report.seconds, 1)}


def _enqueue(settings: Settings, entries: int) -> DrainReport:
    # A drain without idle time ends when its shard may not be read again yet.
    unpaced = settings.stream.model_copy(update={"reads_per_second": 1000.0})
    source = StreamSource(FakeStreams(entries), FakeLeases(), settings.enqueue, unpaced, owner="bench")
    return drained(settings, ENQUEUE, source, EnqueueWork(queue_of("fake", FakeSqs(0))))


def _save(settings: Settings, entries: int) -> DrainReport:
    queue, other = queue_of("fake", FakeSqs(entries)), queue_of("other", FakeSqs(0))
    mongo = _dependency("mongo")
    collection: Any = FakeCollection()
    saver = Saver(
        DemandTable(FakeDynamo(), _dependency("dynamodb"), "fake"),
        Replica(collection, mongo),
        Campaigns(collection, mongo),
        queue,
        EventQueue(other, ProducerKey.generate(ProducerRole.REPLICATION, 0.0).sign),
        run_id="bench",
    )
    publisher = DeadLetterPublisher(queue, other, DeadLetters(collection, collection, mongo), run_id="bench")
    source = QueueSource(
        queue, batch_messages=settings.save.batch_messages, wait_seconds=0, visibility_seconds=30
    )
    marks = Marks(FakeLeases(), "fake")
    work = MessageWork("save", saver, publisher, marks, max_attempts=3)
    return drained(settings, SAVE, source, work)


def drained(
    settings: Settings, spec: DrainSpec[Any], source: Any, work: Any, stop: StopSignal | None = None
) -> DrainReport:
    """One drain to its end: without a signal to stop until its source is empty."""
    limits = drain_limits(settings, spec, idle_seconds=0 if stop is None else 3600, max_seconds=3600)
    signal = StopSignal() if stop is None else stop
    return Drain(spec.name, source, work, limits, probe=lambda: None, down=lambda: None, stop=signal).run()


def queue_of(name: str, client: FakeSqs) -> SqsQueue:
    return SqsQueue(client, _dependency("sqs"), name, batch_bytes=MIB)


def _dependency(name: str) -> Dependency:
    return Dependency(name, classify_aws(name), policy=RetryPolicy())


if __name__ == "__main__":
    configure_logging("ERROR")
    print(orjson.dumps(run(sys.argv[1], int(sys.argv[2]))).decode())
