"""SQS's own move task, with answers of the documented shapes: when it may be used, progress, cancel."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from regworkers_core.adapters.aws.clients import classify_aws
from regworkers_core.adapters.aws.sqs import MessageMoves, MoveTask, Unsupported
from regworkers_core.domain.messages import MessageType
from regworkers_core.domain.reasons import UsageError
from regworkers_core.engine.dependency import Dependency, RetryPolicy
from regworkers_core.engine.queue import Received
from regworkers_core.operations.dead_letters.model import Choice, DeadQueue, read_message
from regworkers_core.operations.dead_letters.redrive import move_whole_queue
from regworkers_core.operations.dead_letters.report import CanaryOutcome, Causes, RedriveReport
from regworkers_core.operations.dead_letters.verdict import Assessed, DeadLetterVerdict, ItemVerdict
from tests.operations.dead_letters.world import body

QUEUE = DeadQueue("replication-queue", "replication-queue-dlq", MessageType.REPLICATE)
ARNS = {name: f"arn:aws:sqs:us-east-1:1:{name}" for name in (QUEUE.source, QUEUE.name)}
LIST = {"SourceArn": ARNS[QUEUE.name], "MaxResults": 1}
START = {
    "SourceArn": ARNS[QUEUE.name],
    "DestinationArn": ARNS[QUEUE.source],
    "MaxNumberOfMessagesPerSecond": 100,
}


class Stubbed:
    """A real client whose answers are given, in order."""

    def __init__(self) -> None:
        self.client: Any = boto3.client("sqs", "us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
        self.stub = Stubber(self.client)
        self.stub.activate()
        dependency = Dependency("sqs", classify_aws("sqs"), policy=RetryPolicy(attempts=1))
        self.moves = MessageMoves(self.client, dependency)

    def knows(self, name: str) -> None:
        url = f"https://sqs/{name}"
        self.stub.add_response("get_queue_url", {"QueueUrl": url}, {"QueueName": name})
        asked = {"QueueUrl": url, "AttributeNames": ["QueueArn", "RedrivePolicy"]}
        self.stub.add_response("get_queue_attributes", {"Attributes": {"QueueArn": ARNS[name]}}, asked)

    def lists(self, *tasks: dict[str, Any]) -> None:
        self.stub.add_response("list_message_move_tasks", {"Results": list(tasks)}, LIST)

    def starts(self) -> None:
        self.stub.add_response("start_message_move_task", {"TaskHandle": "handle"}, START)


def task(status: str, moved: int, **more: Any) -> dict[str, Any]:
    return {
        "Status": status,
        "ApproximateNumberOfMessagesMoved": moved,
        "SourceArn": ARNS[QUEUE.name],
        **more,
    }


def move(stubbed: Stubbed, *, stopped: bool = False) -> tuple[MoveTask | None, list[int]]:
    progress: list[int] = []
    done = move_whole_queue(
        stubbed.moves,
        QUEUE,
        per_second=100,
        stopped=lambda: stopped,
        on_progress=progress.append,
        sleep=lambda _seconds: None,
    )
    stubbed.stub.assert_no_pending_responses()
    return done, progress


def test_a_move_task_is_started_and_followed_to_its_end() -> None:
    stubbed = Stubbed()
    stubbed.knows(QUEUE.name)
    stubbed.lists(task("COMPLETED", 7))
    stubbed.knows(QUEUE.source)
    stubbed.starts()
    stubbed.lists(task("RUNNING", 40, TaskHandle="handle", ApproximateNumberOfMessagesToMove=90))
    stubbed.lists(task("COMPLETED", 90))
    assert move(stubbed) == (MoveTask("COMPLETED", "", 90, None, ""), [40, 90])


def test_a_stop_cancels_the_task_and_what_is_moved_stays_moved() -> None:
    stubbed = Stubbed()
    stubbed.knows(QUEUE.name)
    stubbed.lists()
    stubbed.knows(QUEUE.source)
    stubbed.starts()
    stubbed.lists(task("RUNNING", 40, TaskHandle="handle"))
    stubbed.stub.add_response("cancel_message_move_task", {}, {"TaskHandle": "handle"})
    stubbed.lists(task("CANCELLING", 45, TaskHandle="handle"))
    stubbed.lists(task("CANCELLED", 50))
    assert move(stubbed, stopped=True) == (MoveTask("CANCELLED", "", 50, None, ""), [40, 45, 50])


def test_a_failed_task_reports_why() -> None:
    stubbed = Stubbed()
    stubbed.knows(QUEUE.name)
    stubbed.lists()
    stubbed.knows(QUEUE.source)
    stubbed.starts()
    stubbed.lists(task("FAILED", 3, FailureReason="AccessDenied"))
    assert move(stubbed)[0] == MoveTask("FAILED", "", 3, None, "AccessDenied")


def test_a_running_task_is_left_alone() -> None:
    stubbed = Stubbed()
    stubbed.knows(QUEUE.name)
    stubbed.lists(task("RUNNING", 12, TaskHandle="other"))
    with pytest.raises(UsageError, match="moves replication-queue-dlq already, 12 messages so far"):
        move(stubbed)


def test_an_endpoint_without_move_tasks_leaves_it_to_our_own_mover() -> None:
    stubbed = Stubbed()
    stubbed.knows(QUEUE.name)
    stubbed.stub.add_client_error("list_message_move_tasks", "InvalidAction", http_status_code=400)
    assert move(stubbed) == (None, [])
    with pytest.raises(Unsupported):
        stubbed.stub.add_client_error("list_message_move_tasks", "UnsupportedOperation")
        stubbed.moves.latest(QUEUE.name)


def test_a_task_as_listed_by_sqs_is_read_leniently() -> None:
    stubbed = Stubbed()
    stubbed.knows(QUEUE.name)
    stubbed.lists({"Status": "RUNNING", "TaskHandle": "h"})
    assert stubbed.moves.latest(QUEUE.name) == MoveTask("RUNNING", "h", 0, None, "")


def report(*verdicts: DeadLetterVerdict, attempt: str = "1", text: str | None = None) -> RedriveReport:
    made = RedriveReport(QUEUE, dry_run=False, groups=Causes())
    for number, verdict in enumerate(verdicts):
        attributes = {"attempt": attempt, "reason": "INVALID_ENTRY"}
        message = read_message(QUEUE, Received(f"m{number}", "r", text or body("e1").decode(), attributes, 1))
        made.groups.add(message, Assessed(message, [ItemVerdict(verdict, "")], verdict))
    return made


def test_sqs_moves_a_queue_only_if_every_message_goes_unchanged() -> None:
    everything = Choice()
    assert report(DeadLetterVerdict.NEEDED, DeadLetterVerdict.UNKNOWN).can_move_whole(everything)
    assert not report(DeadLetterVerdict.NEEDED).can_move_whole(Choice(reason="INVALID_ENTRY")), (
        "it cannot choose"
    )
    assert not report(DeadLetterVerdict.NEEDED, DeadLetterVerdict.GONE).can_move_whole(everything), (
        "it cannot leave anything out"
    )
    assert not report(DeadLetterVerdict.NEEDED, attempt="20").can_move_whole(everything), (
        "it does not set attempts back"
    )
    assert not report(DeadLetterVerdict.UNKNOWN, text="{}").can_move_whole(everything), (
        "what cannot be read would go along"
    )
    hidden = report(DeadLetterVerdict.NEEDED)
    hidden.seen.hidden = 1
    assert not hidden.can_move_whole(everything), "what is in flight elsewhere is unknown"
    stopped = report(DeadLetterVerdict.NEEDED)
    stopped.canaries = {group.fingerprint: CanaryOutcome.FAILED_AGAIN for group in stopped.groups}
    assert not stopped.can_move_whole(everything)
