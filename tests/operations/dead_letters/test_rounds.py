"""How a redrive grows, when it stops a cause by itself, and a night of fifty causes on a simulated queue."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from types import SimpleNamespace
from typing import Any, cast

import boto3
import pytest
from botocore.stub import Stubber

from regworkers_core.adapters.aws.clients import classify_aws
from regworkers_core.adapters.aws.sqs import MessageMoves
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import MessageType, Op, ReplicationItem, encode, fingerprint
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.dependency import Dependency, RetryPolicy
from regworkers_core.engine.queue import Outgoing, QueueDepth, Received
from regworkers_core.operations.dead_letters.model import Choice, DeadMessage, DeadQueue, read_message
from regworkers_core.operations.dead_letters.redrive import Callbacks, RedriveOptions, redrive
from regworkers_core.operations.dead_letters.report import RedriveEnded, RedriveReport
from regworkers_core.operations.dead_letters.rounds import Growth, Outcome, Round
from regworkers_core.operations.dead_letters.verdict import Assessed, Assessor, DeadLetterVerdict, ItemVerdict
from regworkers_core.runtime import Runtime
from regworkers_core.settings.operations import DeadLettersSettings
from tests.support.in_memory import MemoryQueue, Switch

QUEUE = DeadQueue("replication-queue", "replication-queue-dlq", (MessageType.REPLICATE,))
BEGIN = 1_800_000_000.0


# The growth of one cause.


def test_a_healthy_cause_grows_by_four_or_five_with_each_whole_round() -> None:
    growth, sizes = Growth(), list[int]()
    for _ in range(7):
        sizes.append(growth.size)
        growth.judge(growth.size, 0)
    assert sizes == [1, 5, 20, 100, 400, 2000, 8000]
    growth.judge(growth.size, 0)
    assert growth.size == 10_000, "however large a cause is, a round of it is bounded"


def test_a_cause_that_is_still_broken_stops_after_four_messages() -> None:
    growth = Growth()
    while growth.goes_on:
        growth.judge(growth.size, growth.size)
    assert (growth.outcome, growth.sent, growth.failed) == (Outcome.FAILED_AGAIN, 4, 4)


def test_a_few_odd_messages_make_a_cause_slower_and_do_not_stop_it() -> None:
    growth = Growth()
    growth.judge(1, 1)
    assert growth.goes_on and growth.size == 1
    growth.judge(1, 0)
    growth.judge(5, 1)
    assert growth.size == 1, "one of five is more than a tenth"
    growth.judge(1, 0)
    growth.judge(5, 0)
    growth.judge(20, 1)
    assert growth.goes_on and growth.size == 100


def test_a_round_that_was_not_whole_proves_nothing_for_a_larger_one() -> None:
    growth = Growth()
    growth.judge(1, 0)
    growth.judge(2, 0)
    assert growth.size == 5


def test_a_cause_that_turns_bad_costs_no_more_than_went_well() -> None:
    """Its failures are seen while the round is still being sent."""
    growth = Growth()
    for _ in range(4):
        growth.judge(growth.size, 0)
    assert not growth.stops(15, 100) and growth.stops(30, 100)


# The outcome of what was sent.


class Failed:
    def __init__(self, *documents: Mapping[str, Any]) -> None:
        self.documents = list(documents)

    def failed_since(self, queue: str, since: str) -> list[Mapping[str, Any]]:
        return self.documents


def watched(
    failures: Failed,
    *,
    verdict: DeadLetterVerdict = DeadLetterVerdict.NEEDED,
    waiting: int = 1,
    kind: MessageType = MessageType.REPLICATE,
    item: Mapping[str, object] | None = None,
) -> str:
    """What became of one message, on a clock that moves a tenth of the limit with every poll."""
    queue, key, now = DeadQueue("q", "q-dlq", (kind,)), EntryKey("summer", "e1"), [0.0]
    raw = encode(kind, "", [dict(item) if item else {"pk": key.pk, "sk": key.sk}]).decode()
    message = read_message(queue, Received("m", "r", raw, {"correlationId": "corr-1"}, 1))

    def assess(_messages: object) -> list[Assessed]:
        return [Assessed(message, [ItemVerdict(verdict, "")], verdict)]

    def sleep(_seconds: float) -> None:
        now[0] += 6.0

    source = MemoryQueue("q")
    source.send([Outgoing(b"{}")] * waiting)
    made = Round(queue, source, failures, assess, iso(BEGIN))
    made.add([message])
    made.wait(limit_seconds=60.0, stopped=lambda: False, sleep=sleep, clock=lambda: now[0])
    return "failed" if made.failed.total() else "unanswered" if made.open else "passed"


def test_a_message_passes_once_it_is_settled_or_its_queue_stays_empty() -> None:
    settled = DeadLetterVerdict.SUPERSEDED
    assert watched(Failed(), verdict=settled) == "passed"
    assert watched(Failed(), waiting=0) == "passed"
    assert watched(Failed(), verdict=settled, kind=MessageType.PUBLISH) == "unanswered"
    assert watched(Failed()) == "unanswered", "no worker took it"


def test_a_failure_of_the_same_entry_is_the_messages_for_whichever_cause() -> None:
    own = {"campaignId": "summer", "entryId": "e1", "reason": "DUPLICATE_KEY", "correlationId": "other"}
    for waiting in (0, 1):
        assert watched(Failed(own), waiting=waiting, verdict=DeadLetterVerdict.SUPERSEDED) == "failed"
    other = {"campaignId": "summer", "entryId": "e2", "correlationId": "corr-1"}
    assert watched(Failed(other), waiting=0) == "passed", "another entry of the same cause says nothing of it"


def test_a_message_that_names_nothing_is_known_by_its_correlation_id() -> None:
    nameless = {"campaignId": None, "entryId": None, "correlationId": "corr-1"}
    item = {"pk": "nonsense", "sk": "ENTRY#e"}
    assert watched(Failed(nameless), waiting=0, item=item) == "failed"
    assert watched(Failed({**nameless, "correlationId": "corr-2"}), waiting=0, item=item) == "passed"


# A night of many causes.


@dataclass
class World:
    """A dead-letter queue and its source with a drain at work, on a clock that moves when the redrive waits. `broken`
    names the messages that fail again. What fails is recorded and comes back; what does not is saved.
    """

    messages: Sequence[Outgoing]
    broken: set[str]
    seed: int = 1
    now: float = BEGIN
    unrecorded: bool = False
    behind: float = 0.0
    failed: list[str] = field(default_factory=list)
    saved: set[str] = field(default_factory=set)
    documents: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        shuffled = list(self.messages)
        random.Random(self.seed).shuffle(shuffled)
        gate = Switch()
        gate.now = lambda: self.now  # type: ignore[method-assign]
        self.dead, self.source = MemoryQueue(QUEUE.name, gate), MemoryQueue(QUEUE.source, gate)
        self.now -= 3600.0
        self.dead.send(shuffled)
        self.now += 3600.0

    def work(self) -> None:
        """What the drain does in a moment."""
        messages = list(chain.from_iterable(iter(lambda: self.source.receive(10, 0, 60), [])))
        self.source.delete(messages)
        for message in messages:
            entry = message.body.split("ENTRY#")[1].split('"')[0]
            if entry not in self.broken:
                self.saved.add(entry)
                continue
            self.failed.append(entry)
            cause = entry.partition("-")[0]
            failure = {
                "reason": "DEFECT",
                "error": f"at {cause}",
                "fingerprint": fingerprint("DEFECT", f"at {cause}"),
            }
            if not self.unrecorded:
                self.documents.append(
                    {
                        "campaignId": "summer",
                        "entryId": entry,
                        "lastFailedAt": iso(self.now - self.behind),
                        "correlationId": "c",
                    }
                )
            # SQS moves a message with its attributes.
            kept = message.attributes if self.unrecorded else {**failure, "origin": message.origin}
            self.dead.send([Outgoing(message.body.encode(), kept)])

    # What a redrive calls of a runtime.

    @property
    def runtime(self) -> Runtime:
        return cast(
            Runtime,
            SimpleNamespace(
                settings=SimpleNamespace(dead_letters=DeadLettersSettings(look_wait_seconds=0)),
                clock=lambda: self.now,
                names=SimpleNamespace(prefix=""),
                queue={QUEUE.name: self.dead, QUEUE.source: self.source}.__getitem__,
                message_moves=SimpleNamespace(
                    has_redrive_policy=lambda _queue: False, moved_by_sqs=lambda _queue: None
                ),
                dead_letters=self,
                operator_actions=SimpleNamespace(
                    begins=lambda *_, **__: "a", history=lambda **_: [], try_end=lambda *_: None
                ),
                leases=Leases(),
            ),
        )

    def failed_since(self, _queue: str, since: str) -> list[Mapping[str, Any]]:
        return [each for each in self.documents if each["lastFailedAt"] >= since]

    def failures(self, *_: object) -> dict[str, Counter[str]]:
        return {}

    def named_causes(self, _fingerprints: object) -> dict[str, Any]:
        return {}

    def open(self, _queue: str) -> list[list[dict[str, Any]]]:
        return []

    def close_one(self, *_: object, **__: object) -> bool:
        raise AssertionError("a verdict closes the documents of entries")

    def assess(self, messages: Sequence[DeadMessage]) -> list[Assessed]:
        found = []
        for message in messages:
            verdict = (
                DeadLetterVerdict.SUPERSEDED
                if cast(EntryKey, message.items[0].subject).entry_id in self.saved
                else DeadLetterVerdict.NEEDED
            )
            found.append(Assessed(message, [ItemVerdict(verdict, "")], verdict))
        return found

    def redrive(self, **options: Any) -> RedriveReport:
        stop = Stop(self)
        return redrive(
            self.runtime,
            QUEUE,
            cast(Assessor, self.assess),
            RedriveOptions(dry_run=False, rate=1e9, **options),
            who="ada",
            callbacks=Callbacks(cast(Any, stop)),
        )


class Stop:
    """A stop signal that never comes; waiting for it moves the clock, and the drain works meanwhile."""

    is_set = False

    def __init__(self, world: World) -> None:
        self._world = world

    def wait(self, seconds: float) -> bool:
        self._world.now += seconds
        self._world.work()
        return False


class Leases:
    """One row that is free."""

    def get(self, _key: object) -> None:
        return None

    def swap(self, *_: object) -> bool:
        return True

    def renew(self, *_: object) -> bool:
        return True

    def release(self, *_: object) -> bool:
        return True


def messages_of(causes: int, each: int) -> list[Outgoing]:
    made = []
    for cause in range(causes):
        attributes = {
            "reason": "DEFECT",
            "error": f"at {cause}",
            "fingerprint": fingerprint("DEFECT", f"at {cause}"),
            "firstFailedAt": iso(BEGIN - 3600),
        }
        for number in range(each):
            item = ReplicationItem(EntryKey("summer", f"{cause}-{number}"), Op.UPSERT).as_json()
            made.append(Outgoing(encode(MessageType.REPLICATE, "c", [item]), attributes))
    return made


def night(each: int, seed: int) -> tuple[World, RedriveReport]:
    """Of 50 causes ten are still broken (0 to 9), five in 3 % only (10 to 14)."""
    rng = random.Random(seed)
    broken = {f"{cause}-{number}" for cause in range(10) for number in range(each)}
    broken |= {
        f"{cause}-{number}" for cause in range(10, 15) for number in rng.sample(range(each), each * 3 // 100)
    }
    world = World(messages_of(50, each), broken, seed)
    return world, world.redrive()


def check(world: World, report: RedriveReport, each: int) -> None:
    total = 50 * each
    assert len(world.failed) < total / 100
    assert len(world.failed) == len(set(world.failed)), "none is sent a second time after it failed again"
    assert report.failed == len(world.failed)
    saved = Counter(int(entry.partition("-")[0]) for entry in world.saved)
    assert all(saved[cause] == each for cause in range(15, 50)), (
        "every message of the healthy causes is through"
    )
    good = 5 * (each - each * 3 // 100)
    assert sum(saved[cause] for cause in range(10, 15)) >= 0.95 * good
    assert all(saved[cause] == 0 for cause in range(10))
    assert len(report.stopped_causes) >= 10 and report.ended is RedriveEnded.DONE and not report.finished
    assert world.dead.depth() == QueueDepth(total - len(world.saved), 0, 0), "nothing is lost"
    assert not world.source.depth().total


def test_of_fifty_causes_the_healthy_ones_get_through_by_themselves() -> None:
    check(*night(200, 1), 200)


@pytest.mark.slow
def test_of_a_hundred_thousand_under_one_percent_fail_again() -> None:
    check(*night(2000, 2), 2000)


def test_messages_that_come_back_without_a_record_stop_their_cause_too() -> None:
    """Workers die on them, and SQS moves them back: the source queue reads empty, and the history has nothing."""
    unnamed = [replace(each, attributes={}) for each in messages_of(1, 300)]
    world = World(unnamed, {f"0-{number}" for number in range(300)}, unrecorded=True)
    report = world.redrive(outcome_seconds=0.2)
    assert list(report.stopped_causes.values()) == [Outcome.FAILED_AGAIN]
    assert len(world.failed) < 150 and world.dead.depth() == QueueDepth(300, 0, 0)


@pytest.mark.parametrize("how", [{"unrecorded": True}, {"behind": 3600.0}])
def test_failures_that_the_history_does_not_show_stop_the_cause_that_was_sent(how: dict[str, Any]) -> None:
    """Workers die on them, so that they come back as another cause; or the workers' clock is behind."""
    world = World(messages_of(2, 300), {f"0-{number}" for number in range(300)}, **how)
    choice = Choice(reason="DEFECT")
    report = world.redrive(outcome_seconds=0.2, choice=choice)
    assert report.stopped_causes == {fingerprint("DEFECT", "at 0"): Outcome.FAILED_AGAIN}
    assert (len(world.failed), report.failed, report.finished) == (4, 4, False)
    assert len(world.saved) == 300, "the other cause is through"


def test_at_once_sends_everything_in_one_round() -> None:
    world = World(messages_of(3, 50), set())
    report = world.redrive(at_once=True)
    assert report.finished and report.sent.total() == 150 and world.now == BEGIN


# A move of SQS's own.


def moves(answer: Mapping[str, Any] | None) -> MessageMoves:
    client: Any = boto3.client("sqs", "us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    stub = Stubber(client)
    arn = "arn:aws:sqs:us-east-1:1:q-dlq"
    stub.add_response("get_queue_url", {"QueueUrl": "https://sqs/q-dlq"}, {"QueueName": "q-dlq"})
    asked = {"QueueUrl": "https://sqs/q-dlq", "AttributeNames": ["QueueArn", "RedrivePolicy"]}
    stub.add_response("get_queue_attributes", {"Attributes": {"QueueArn": arn}}, asked)
    if answer is None:
        stub.add_client_error("list_message_move_tasks", "InvalidAction", http_status_code=400)
    else:
        tasks = {"Results": [dict(answer)] if answer else []}
        stub.add_response("list_message_move_tasks", tasks, {"SourceArn": arn, "MaxResults": 1})
    stub.activate()
    return MessageMoves(client, Dependency("sqs", classify_aws("sqs"), policy=RetryPolicy(attempts=1)))


def test_a_move_that_began_in_the_console_is_seen_where_the_endpoint_knows_moves() -> None:
    running = {"Status": "RUNNING", "TaskHandle": "h", "ApproximateNumberOfMessagesMoved": 12}
    assert moves(running).moved_by_sqs("q-dlq") == 12
    assert (
        moves({"Status": "COMPLETED", "ApproximateNumberOfMessagesMoved": 90}).moved_by_sqs("q-dlq") is None
    )
    assert moves({}).moved_by_sqs("q-dlq") is None and moves(None).moved_by_sqs("q-dlq") is None
