"""Dead letters as the flows make them, on the run's servers, and fakes for what these cannot do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from regworkers_core.analytics.publishing import refusal
from regworkers_core.domain.messages import MessageType, Op, ReplicationItem, encode
from regworkers_core.engine.queue import Outgoing, Received
from regworkers_core.operations.dead_letters.model import DeadQueue, dead_queue
from regworkers_core.operations.dead_letters.verdict import Assessor
from regworkers_core.runtime import Runtime
from tests.support.drains import replicate_all, run
from tests.support.entries import key, put
from tests.support.shared import purge

FAST = {
    "look_wait_seconds": 0,
    "lease_seconds": 1.0,
    "outcome_seconds": 10.0,
    "redrive_items_per_second": 10_000.0,
}


def without_messages(runtime: Runtime) -> Runtime:
    for source in runtime.names.queues:
        for name in (source, runtime.names.dead_letter_queue(source)):
            if runtime.queue(name).depth().total:
                purge(runtime, name)
    return runtime


def replication(runtime: Runtime) -> DeadQueue:
    return dead_queue(runtime.names, "replication")


def assessor(runtime: Runtime) -> Assessor:
    return Assessor(runtime, refusal)


def refuse(runtime: Runtime, *entries: str, **changes: Any) -> None:
    """Put entries without a mail address: the save drain dead-letters them."""
    for entry in entries:
        put(runtime, key(entry), **{"email": None, **changes})
    replicate_all(runtime)


def correct(runtime: Runtime, *entries: str) -> None:
    """Make the same state valid under the order that was refused, without a stream event: only a redrive
    replicates it.
    """
    for entry in entries:
        put(runtime, key(entry), needsReplication=False)


def depths(runtime: Runtime, queue: DeadQueue | None = None) -> tuple[int, int]:
    """Messages of the source queue and of its dead letters."""
    queue = queue or replication(runtime)
    return runtime.queue(queue.source).depth().total, runtime.queue(queue.name).depth().total


def recorded(runtime: Runtime, **query: Any) -> list[dict[str, Any]]:
    return [dict(each) for each in runtime.database["dead_letters"].find(query)]


def body(*entries: str) -> bytes:
    items = [ReplicationItem(key(entry), Op.UPSERT).as_json() for entry in entries]
    return encode(MessageType.REPLICATE, "corr-1", items)


def send_dead(runtime: Runtime, queue: DeadQueue, messages: Sequence[Outgoing]) -> None:
    assert runtime.queue(queue.name).send(messages) == []


def everything(runtime: Runtime, queue_name: str) -> list[Received]:
    """All messages of a queue, received for good."""
    found: list[Received] = []
    while batch := runtime.queue(queue_name).receive(10, 0, 30):
        found += batch
    return found


@contextmanager
def saving(runtime: Runtime) -> Iterator[None]:
    """A save drain at work beside the block, as one that a sensor started."""
    over = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        own = Runtime(runtime.settings)
        try:
            while not over.is_set():
                run(own, "save", idle_seconds=0.05)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(30)
    assert not failures, failures


def interrupted(at: str) -> Callable[[str], None]:
    """A step that raises where a kill would end the process."""

    def step(name: str) -> None:
        if name == at:
            raise KeyboardInterrupt

    return step
