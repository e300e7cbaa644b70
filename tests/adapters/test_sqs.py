"""The SQS adapter over a client that fails partly."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from regworkers_core.adapters.aws.clients import classify_aws
from regworkers_core.adapters.aws.sqs import SqsQueue
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.queue import Outgoing, QueueDepth, Received, SendFailure
from tests.adapters.fakes import FakeClient, client_error, dependency

UNAVAILABLE = EndpointConnectionError(endpoint_url="http://x")
LIMIT = 1000


def queue(attempts: int = 1, **answers: Any) -> tuple[SqsQueue, FakeClient]:
    client = FakeClient(get_queue_url=lambda QueueName: {"QueueUrl": f"http://sqs/{QueueName}"}, **answers)
    made = dependency("sqs", classify_aws("sqs"), attempts)
    return SqsQueue(client, made, "replication-queue", batch_bytes=LIMIT), client


def received(count: int) -> list[Received]:
    return [Received(f"m{n}", f"receipt-{n}", "{}", {}, 1) for n in range(count)]


def outgoing(count: int, size: int = 10, **attributes: str) -> list[Outgoing]:
    return [Outgoing(b"x" * size, attributes) for _ in range(count)]


def accepted(QueueUrl: str, Entries: list[Any]) -> dict[str, Any]:
    return {"Successful": Entries}


def accepted_but(entries: list[Any], failed: list[dict[str, Any]]) -> dict[str, Any]:
    others = {each["Id"] for each in failed}
    return {"Successful": [each for each in entries if each["Id"] not in others]}


def batches(client: FakeClient, method: str = "send_message_batch") -> list[int]:
    return [len(call["Entries"]) for call in client.of(method)]


def test_the_retention_is_the_declared_one_where_the_server_has_no_such_attribute() -> None:
    found = {"ApproximateNumberOfMessages": "3"}
    made, _ = queue(get_queue_attributes=lambda **_: {"Attributes": found})
    assert made.state() == (QueueDepth(3, 0, 0), 4 * 86_400)
    found["MessageRetentionPeriod"] = "60"
    assert made.state()[1] == 60


# Sending


def test_a_batch_is_cut_at_ten_messages() -> None:
    made, client = queue(send_message_batch=accepted)
    assert made.send(outgoing(25)) == []
    assert batches(client) == [10, 10, 5]


def test_a_message_is_hidden_at_first_only_where_it_says_so() -> None:
    made, client = queue(send_message_batch=accepted)
    made.send([Outgoing(b"{}"), Outgoing(b"{}", delay_seconds=120)])
    now, later = client.of("send_message_batch")[0]["Entries"]
    assert "DelaySeconds" not in now and later["DelaySeconds"] == 120


def test_a_batch_is_cut_at_the_byte_limit() -> None:
    made, client = queue(send_message_batch=accepted)
    made.send(outgoing(5, size=400))
    made.send(outgoing(2, size=500))
    made.send(outgoing(2, size=501))
    assert batches(client) == [2, 2, 1, 2, 1, 1]


def test_attributes_count_against_the_byte_limit_with_name_type_and_value() -> None:
    made, client = queue(send_message_batch=accepted)
    # 400 + len("é" in bytes) + len("a") + len("String") are 500 each, then one byte more.
    made.send(outgoing(2, size=400, a="é" * 46 + "x"))
    made.send(outgoing(2, size=401, a="é" * 46 + "x"))
    assert batches(client) == [2, 1, 1]


def test_a_message_above_the_limit_goes_alone_so_that_the_service_judges_it() -> None:
    made, client = queue(send_message_batch=accepted)
    made.send([*outgoing(1), *outgoing(1, size=LIMIT * 2), *outgoing(1)])
    assert batches(client) == [1, 1, 1]


def test_without_time_there_is_one_attempt_and_no_second_call() -> None:
    made, client = queue(attempts=3, send_message_batch=[UNAVAILABLE] * 9)
    failures = made.send(outgoing(25), within_seconds=0.0)
    assert batches(client) == [10]
    assert [(each.index, each.permanent) for each in failures] == [(index, False) for index in range(25)]
    again, client = queue(attempts=3, send_message_batch=[UNAVAILABLE, accepted, accepted, accepted])
    assert again.send(outgoing(25), within_seconds=60.0) == [] and batches(client) == [10, 10, 10, 5]


def test_every_failed_message_is_reported_by_its_index_among_all() -> None:
    def some_fail(QueueUrl: str, Entries: list[Any]) -> dict[str, Any]:
        failed = [
            {"Id": each["Id"], "Code": "InternalError", "SenderFault": False}
            if each["Id"] == "3"
            else {"Id": each["Id"], "Code": "InvalidMessageContents", "SenderFault": True}
            for each in Entries
            if each["Id"] in ("3", "14")
        ]
        return {**accepted_but(Entries, failed), "Failed": failed}

    made, _ = queue(send_message_batch=some_fail)
    assert made.send(outgoing(25)) == [
        SendFailure(3, "InternalError", False),
        SendFailure(14, "InvalidMessageContents", True),
    ]


def test_a_call_that_fails_as_a_whole_fails_its_own_messages_only() -> None:
    made, client = queue(send_message_batch=[accepted, UNAVAILABLE, accepted])
    failures = made.send(outgoing(25))
    assert [failure.index for failure in failures] == list(range(10, 20))
    assert not any(failure.permanent for failure in failures)
    assert len(client.of("send_message_batch")) == 3


def test_a_call_that_fails_once_is_repeated() -> None:
    made, client = queue(attempts=2, send_message_batch=[client_error("RequestThrottled"), accepted])
    assert made.send(outgoing(1)) == []
    assert len(client.of("send_message_batch")) == 2


def busy_for(*indexes: str, code: str, times: int) -> Any:
    """Refuses these messages with `code`, `times` times."""

    def answer(QueueUrl: str, Entries: list[Any]) -> dict[str, Any]:
        nonlocal times
        times -= 1
        fault = {"Code": code, "SenderFault": code.startswith("K")}
        failed = [{"Id": each["Id"], **fault} for each in Entries if times >= 0 and each["Id"] in indexes]
        return {**accepted_but(Entries, failed), "Failed": failed}

    return answer


@pytest.mark.parametrize("code", ["RequestThrottled", "ServiceUnavailable", "InternalError"])
def test_throttled_messages_are_sent_again_alone(code: str) -> None:
    made, client = queue(send_message_batch=busy_for("3", "12", "17", code=code, times=4))
    assert made.send(outgoing(20)) == []
    assert batches(client) == [10, 10, 3, 3, 3]


def test_messages_throttled_fifteen_times_are_a_transient_failure() -> None:
    made, client = queue(send_message_batch=busy_for("3", code="RequestThrottled", times=99))
    assert made.send(outgoing(5)) == [SendFailure(3, "RequestThrottled", False)]
    assert batches(client) == [5, *[1] * 14]
    assert made._dependency.throttles == 15


def test_a_throttled_delete_is_repeated() -> None:
    made, client = queue(delete_message_batch=busy_for("0", code="RequestThrottled", times=2))
    assert made.delete(received(2)) == []
    assert batches(client, "delete_message_batch") == [2, 1, 1]


def test_access_that_is_refused_for_one_message_is_the_operators() -> None:
    made, _ = queue(send_message_batch=busy_for("1", code="AccessDenied", times=9))
    with pytest.raises(UsageError, match="check the role"):
        made.send(outgoing(3))


def test_a_message_that_an_answer_does_not_call_successful_is_not_confirmed() -> None:
    made, _ = queue(send_message_batch=lambda QueueUrl, Entries: {"Successful": Entries[:3]})
    assert made.send(outgoing(4)) == [SendFailure(3, "not confirmed", False)]


def test_a_message_that_an_answer_names_in_both_lists_is_not_confirmed() -> None:
    failed = [{"Id": "1", "Code": "InternalError"}]
    made, _ = queue(send_message_batch=lambda QueueUrl, Entries: {"Successful": Entries, "Failed": failed})
    assert made.send(outgoing(2)) == [SendFailure(1, "InternalError", False)]


@pytest.mark.parametrize("nothing", [{}, {"Successful": []}, {"Successful": [], "Failed": []}])
def test_an_answer_without_any_of_the_messages_is_a_failed_attempt(nothing: dict[str, Any]) -> None:
    made, client = queue(attempts=2, send_message_batch=[nothing, accepted, nothing, nothing])
    assert made.send(outgoing(2)) == []
    assert made.send(outgoing(2)) == [SendFailure(index, "UnreadableAnswer", False) for index in (0, 1)]
    assert len(client.of("send_message_batch")) == 4


def test_empty_attributes_are_left_out() -> None:
    made, client = queue(send_message_batch=accepted)
    made.send([Outgoing(b"{}", {"correlationId": "", "attempt": "2"})])
    (entry,) = client.of("send_message_batch")[0]["Entries"]
    assert entry == {
        "Id": "0",
        "MessageBody": "{}",
        "MessageAttributes": {"attempt": {"DataType": "String", "StringValue": "2"}},
    }


# Deleting and hiding


def test_a_message_that_could_not_be_deleted_is_returned() -> None:
    def one_fails(QueueUrl: str, Entries: list[Any]) -> dict[str, Any]:
        failed = [{"Id": "1", "Code": "Whatever"}] if len(Entries) == 2 else []
        return {**accepted_but(Entries, failed), "Failed": failed}

    made, client = queue(delete_message_batch=one_fails)
    messages = received(12)
    assert made.delete(messages) == [messages[11]]
    assert batches(client, "delete_message_batch") == [10, 2]


@pytest.mark.parametrize("code", ["ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue"])
def test_a_stale_receipt_is_benign(code: str) -> None:
    made, _ = queue(delete_message_batch=[{"Failed": [{"Id": "0", "Code": code, "SenderFault": True}]}])
    assert made.delete(received(1)) == []


def test_only_what_an_answer_calls_successful_is_deleted() -> None:
    made, _ = queue(delete_message_batch=lambda QueueUrl, Entries: {"Successful": Entries[1:]})
    messages = received(3)
    assert made.delete(messages) == [messages[0]]
    silent, _ = queue(delete_message_batch=[{}])
    with pytest.raises(TransientFailure):
        silent.delete(messages)


def test_hiding_returns_what_is_lost_and_what_failed() -> None:
    def some(QueueUrl: str, Entries: list[Any]) -> dict[str, Any]:
        failed = [
            {"Id": "0", "Code": "ReceiptHandleIsInvalid"},
            {"Id": "1", "Code": "MessageNotInflight"},
            {"Id": "2", "Code": "InternalError"},
        ]
        return {"Failed": failed, "Successful": Entries[4:]}

    made, _ = queue(change_message_visibility_batch=some)
    messages = received(6)
    lost, failed = made.change_visibility([(message, 30) for message in messages])
    assert (lost, failed) == (messages[:2], messages[2:4])


def test_hiding_goes_in_batches() -> None:
    made, client = queue(change_message_visibility_batch=accepted)
    assert made.change_visibility([(message, 30) for message in received(11)]) == ([], [])
    assert batches(client, "change_message_visibility_batch") == [10, 1]
    assert client.of("change_message_visibility_batch")[0]["Entries"][4] == {
        "Id": "4",
        "ReceiptHandle": "receipt-4",
        "VisibilityTimeout": 30,
    }


def test_deleting_from_an_unavailable_queue_is_transient() -> None:
    made, _ = queue(delete_message_batch=[UNAVAILABLE])
    with pytest.raises(TransientFailure):
        made.delete(received(1))


# Receiving


def test_a_message_is_read_with_its_attributes_and_its_count() -> None:
    raw = {
        "MessageId": "m",
        "ReceiptHandle": "r",
        "Body": "{}",
        "MessageAttributes": {"attempt": {"StringValue": "2"}, "blob": {"BinaryValue": b"x"}},
        "Attributes": {"ApproximateReceiveCount": "3"},
    }
    bare = {"MessageId": "n", "ReceiptHandle": "s", "Body": ""}
    made, client = queue(receive_message=[{"Messages": [raw, bare]}, {}])
    assert made.receive(50, 1.6, 30) == [
        Received("m", "r", "{}", {"attempt": "2"}, 3),
        Received("n", "s", "", {}, 1),
    ]
    assert made.receive(10, 0, 30) == []
    call = client.of("receive_message")[0]
    assert (call["MaxNumberOfMessages"], call["WaitTimeSeconds"], call["VisibilityTimeout"]) == (10, 2, 30)


def test_the_depth_counts_what_is_visible_in_flight_and_delayed() -> None:
    values = {
        "ApproximateNumberOfMessages": "1",
        "ApproximateNumberOfMessagesNotVisible": "2",
        "ApproximateNumberOfMessagesDelayed": "4",
    }
    made, _ = queue(get_queue_attributes=[{"Attributes": values}])
    depth = made.depth()
    assert depth == QueueDepth(1, 2, 4) and depth.total == 7


@pytest.mark.parametrize("code", ["AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"])
def test_a_missing_queue_says_what_to_do(code: str) -> None:
    made, _ = queue(receive_message=[client_error(code)])
    with pytest.raises(UsageError, match="replication-queue does not exist: run `regworkers provision`"):
        made.receive(1, 0, 1)


def test_refused_access_names_the_call_and_the_role() -> None:
    made, _ = queue(receive_message=[client_error("AccessDenied", 403)])
    with pytest.raises(UsageError, match="check the role"):
        made.receive(1, 0, 1)


def test_the_address_is_looked_up_once_and_again_if_that_failed() -> None:
    client = FakeClient(
        get_queue_url=[UNAVAILABLE, {"QueueUrl": "http://sqs/q"}], receive_message=lambda **_: {}
    )
    made = SqsQueue(client, dependency("sqs", classify_aws("sqs"), 1), "q", batch_bytes=LIMIT)
    with pytest.raises(TransientFailure):
        made.receive(1, 0, 1)
    made.receive(1, 0, 1)
    made.receive(1, 0, 1)
    assert len(client.of("get_queue_url")) == 2
