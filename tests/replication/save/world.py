"""What a save drain talks to, in memory and on a virtual clock; the saver and its adapters are the real ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import orjson

from regworkers_core.adapters.aws.clients import classify_aws
from regworkers_core.adapters.aws.demand_table import DemandTable
from regworkers_core.adapters.aws.sqs import EventQueue
from regworkers_core.adapters.mongo.client import classify_mongo
from regworkers_core.adapters.mongo.replica import Replica
from regworkers_core.domain.entry import lenient_order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import Op, ReplicationItem
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.dependency import CircuitBreaker, Classify, Dependency, RetryPolicy
from regworkers_core.engine.drain import Settlement
from regworkers_core.engine.marks import Marks
from regworkers_core.engine.message_work import MessageWork
from regworkers_core.engine.queue import QueueSource, Received
from regworkers_core.engine.settling import DeadLetterPublisher
from regworkers_core.replication.keys import send_keys
from regworkers_core.replication.saver import Saver
from tests.simulation.gate import OpenGate
from tests.simulation.servers.mongo import Mongo
from tests.support.entries import item
from tests.support.in_memory import MemoryItems, MemoryLeaseTable, MemoryQueue, Switch

VISIBILITY_SECONDS = 60.0
BATCH_MESSAGES = 5


class Crash(BaseException):
    """The process is gone: nothing catches it."""


class _Table(OpenGate):
    """The way of a world's drains to DynamoDB."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def before(self, server: str, operation: str, request: Any) -> None:
        self._statements = request.get("Statements", ())

    def fails(self, server: str, operation: str, number: int) -> Sequence[int]:
        self._world.now += 0.0002 * len(self._statements)
        # Version, time and both keys come before the conditions.
        keys = [each["Parameters"][3]["S"] for each in self._statements]
        return [index for index, sk in enumerate(keys) if self._world.refuse(sk)]

    def after(self, server: str, operation: str, request: Any) -> None:
        if operation == "BatchGetItem":
            self._world.on_read()


class World:
    """`on_read` and `on_step` (step by name) are called where a drain can be paused; both may crash it. `refuse` is
    asked whether the flag of an entry, by its sort key, cannot be cleared now.
    """

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.items = MemoryItems()
        self.on_read: Callable[[], None] = lambda: None
        self.on_step: Callable[[str], None] = lambda _step: None
        self.refuse: Callable[[str], bool] = lambda _sk: False
        gate = Switch()
        gate.now = lambda: self.now  # type: ignore[method-assign]
        self.replication, self.analytics, self.dead = (
            MemoryQueue(name, gate) for name in ("replication", "analytics", "replication-dlq")
        )
        self.collection = Mongo().client(OpenGate())["replica"]["entries"]
        self.dynamodb, self.mongo = self._dependency("dynamodb"), self._dependency("mongo", classify_mongo)
        policy = RetryPolicy()
        client = self.items.client(_Table(self))
        table = DemandTable(client, self.dynamodb, self.items.name, policy=policy, sleep=self.sleep)
        self.replica = Replica(self.collection, self.mongo)
        self.saver = Saver(
            table,
            self.replica,
            self,
            self.replication,
            EventQueue(self.analytics, sign=lambda _body: "signed"),
            run_id="run",
            clock=lambda: self.now,
            on_step=lambda step: self.on_step(step),
        )
        publisher = DeadLetterPublisher(
            self.replication, self.dead, self, run_id="run", clock=lambda: self.now
        )
        marks = Marks(MemoryLeaseTable(), self.replication.name)

        def process() -> MessageWork[ReplicationItem]:
            return MessageWork(
                "save",
                self.saver,
                publisher,
                marks,
                max_attempts=20,
                on_step=lambda step: self.on_step(step),
            )

        # Each batch is that of a process of its own: a drain that is paused holds up no other.
        self._process = process
        self.counts: Counter[str] = Counter()

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def _dependency(self, name: str, classify: Classify | None = None) -> Dependency:
        def clock() -> float:
            return self.now

        breaker = CircuitBreaker(name, failures=2, reset_seconds=15.0, clock=clock)
        made = classify or classify_aws(name)
        return Dependency(name, made, policy=RetryPolicy(), breaker=breaker, clock=clock)

    # The writers
    def put(self, key: EntryKey, *, flag: bool = True, **changes: Any) -> dict[str, Any]:
        """A state in the source, of which a message tells; without the flag an operator sent its key."""
        self.now += 1.0
        self.items[key] = item(key, **{"ref": "r", "needsReplication": flag, **changes})
        self.send(ReplicationItem(key, Op.UPSERT, lenient_order(self.items[key])))
        return self.items[key]

    def remove(self, key: EntryKey) -> None:
        image = self.items.pop(key)
        self.send(ReplicationItem(key, Op.REMOVE, lenient_order(image)))

    def send(self, *wishes: ReplicationItem) -> None:
        send_keys(self.replication, wishes)

    # The drain
    def batch(self) -> Settlement[Received] | None:
        """Receive, work, settle; None when nothing is visible."""
        source = QueueSource(
            self.replication,
            batch_messages=BATCH_MESSAGES,
            wait_seconds=0.0,
            visibility_seconds=round(VISIBILITY_SECONDS),
            clock=lambda: self.now,
        )
        messages = source.receive()
        if not messages:
            return None
        settlement = self._process()(messages)
        with suppress(TransientFailure):
            source.acknowledge(settlement.done)
        source.give_back(settlement.again)
        self.counts.update(settlement.counts)
        return settlement

    def drain(self, batches: int = 10_000) -> int:
        """Until the queue is empty, hidden messages included; how many batches that took."""
        for number in range(batches):
            if self.batch() is None:
                if not self.replication.depth().total:
                    return number
                self.now += 1.0
        raise AssertionError("the queue does not become empty")

    def drain_visible(self) -> None:
        """What others do meanwhile: all that is visible."""
        while self.batch() is not None:
            pass

    def dies(self, at: str) -> None:
        """One batch of a drain that is killed at a step."""

        def die(step: str) -> None:
            if step == at:
                raise Crash

        before, self.on_step = self.on_step, die
        try:
            self.batch()
        except Crash:
            return
        finally:
            self.on_step = before
        raise AssertionError(f"it never came to {at}")

    # What came of it
    def events(self) -> list[dict[str, Any]]:
        return [event for sent in self.analytics.sent for event in orjson.loads(sent.body)["items"]]

    def document(self, key: EntryKey) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.collection.find_one({"_id": key.document_id})
        return found

    # What the saver asks of the campaigns and of the dead letters' history
    def known(self, ids: set[str]) -> set[str]:
        return ids

    def record(self, dead_letters: Sequence[Any], *, at: str, run_id: str) -> None:
        pass
