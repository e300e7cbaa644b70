"""The simulated SQS, S3 and Secrets Manager do what the real ones do."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.simulation.gates import START, HeldGate, refused
from tests.simulation.servers.aws import Aws
from tests.simulation.servers.queues import Chaos


class World:
    """A queue with a dead-letter queue, which takes what was received twice."""

    def __init__(self, **chaos: Any) -> None:
        self.gate = HeldGate()
        self.account = Aws(chaos=Chaos(Random(1), **chaos) if chaos else None)
        self.sqs = self.account.client("sqs", self.gate)
        self.sqs.create_queue(QueueName="dlq")
        target = self.account.queues.queues["dlq"].arn
        policy = json.dumps({"deadLetterTargetArn": target, "maxReceiveCount": 2})
        created = self.sqs.create_queue(QueueName="q", Attributes={"RedrivePolicy": policy})
        self.url = created["QueueUrl"]

    def send(self, *bodies: str) -> dict[str, Any]:
        entries = [{"Id": str(number), "MessageBody": body} for number, body in enumerate(bodies)]
        answer: dict[str, Any] = self.sqs.send_message_batch(QueueUrl=self.url, Entries=entries)
        return answer

    def receive(self, queue: str = "q", **more: Any) -> list[dict[str, Any]]:
        url = self.sqs.get_queue_url(QueueName=queue)["QueueUrl"]
        answer = self.sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=30, AttributeNames=["All"], **more
        )
        return list(answer.get("Messages", ()))

    def delete(self, message: dict[str, Any]) -> None:
        entries = [{"Id": "0", "ReceiptHandle": message["ReceiptHandle"]}]
        answer = self.sqs.delete_message_batch(QueueUrl=self.url, Entries=entries)
        assert [each["Id"] for each in answer["Successful"]] == ["0"]


@pytest.fixture
def world() -> World:
    return World()


def test_a_message_comes_back_after_its_time_and_goes_to_the_dead_letter_queue_after_two_receives(
    world: World,
) -> None:
    world.send("a")
    (first,) = world.receive()
    assert world.receive() == []
    world.gate.time += 31
    (second,) = world.receive()
    assert second["Attributes"]["ApproximateReceiveCount"] == "2"
    # Its receipt changed, so the first holder deletes nothing.
    world.delete(first)
    world.gate.time += 31
    assert world.receive() == []
    (dead,) = world.receive("dlq")
    assert (dead["MessageId"], dead["Attributes"]["SentTimestamp"]) == (
        first["MessageId"],
        str(int(START * 1000)),
    )


def test_a_long_poll_lasts_as_long_as_it_says_and_ends_with_the_first_message(world: World) -> None:
    assert world.receive(WaitTimeSeconds=20) == []
    assert world.gate.time == START + 20
    world.gate.meanwhile = lambda: world.send("a")
    assert [each["Body"] for each in world.receive(WaitTimeSeconds=20)] == ["a"]
    assert world.gate.time == START + 21


def test_parts_of_a_batch_fail_and_sizes_are_limited(world: World) -> None:
    world.gate.skipped = (1,)
    answer = world.send("a", "b", "c")
    assert [each["Id"] for each in answer["Successful"]] == ["0", "2"]
    assert [(each["Id"], each["SenderFault"]) for each in answer["Failed"]] == [("1", False)]
    world.gate.skipped = ()
    assert [each["SenderFault"] for each in world.send("a", "\x00")["Failed"]] == [True]
    half = "x" * (600 * 1024)
    with pytest.raises(ClientError, match="BatchRequestTooLong"):
        world.send(half, half)


def test_a_hidden_message_is_hidden_longer_and_one_that_came_back_is_not(world: World) -> None:
    world.send("a")
    (message,) = world.receive()
    entry = {"QueueUrl": world.url, "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 60}
    world.gate.time += 20
    world.sqs.change_message_visibility(**entry)
    world.gate.time += 59
    assert world.receive() == []
    world.gate.time += 1
    assert refused(world.sqs.change_message_visibility, **entry) == "InvalidParameterValue"
    assert len(world.receive()) == 1


def test_chaos_repeats_shuffles_and_brings_back_but_loses_nothing() -> None:
    world = World(duplicates=0.3, returns=0.3)
    for _ in range(5):
        world.send(*(f"{number}" for number in range(10)))
    counts: dict[str, int] = {}
    for _ in range(50):
        for message in world.receive():
            counts[message["MessageId"]] = counts.get(message["MessageId"], 0) + 1
            world.delete(message)
        world.gate.time += 31
    dead = world.receive("dlq")
    assert len({*counts} | {each["MessageId"] for each in dead}) == 50
    assert max(counts.values()) == 2


def test_objects_are_written_on_condition_and_locked_versions_stay() -> None:
    gate = HeldGate()
    s3 = Aws().client("s3", gate)
    s3.create_bucket(Bucket="b")
    s3.put_bucket_versioning(Bucket="b", VersioningConfiguration={"Status": "Enabled"})
    place = {"Bucket": "b", "Key": "k"}
    until = {
        "ObjectLockMode": "COMPLIANCE",
        "ObjectLockRetainUntilDate": datetime.fromtimestamp(START + 9, UTC),
    }
    assert refused(s3.put_object, **place, Body=b"1", **until) == "InvalidRequest"
    s3.put_object_lock_configuration(Bucket="b", ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
    first = s3.put_object(**place, Body=b"1", IfNoneMatch="*", **until)
    assert refused(s3.put_object, **place, Body=b"2", IfNoneMatch="*") == "PreconditionFailed"
    assert s3.put_object(**place, Body=b"2", IfMatch=first["ETag"])["ETag"] != first["ETag"]
    assert refused(s3.put_object, **place, Body=b"3", IfMatch=first["ETag"]) == "PreconditionFailed"
    s3.delete_object(**place)
    assert refused(s3.head_object, **place) == "404"
    assert refused(s3.put_object, **place, Body=b"3", IfMatch=first["ETag"]) == "NoSuchKey"
    version = {**place, "VersionId": first["VersionId"]}
    assert refused(s3.delete_object, **version) == "AccessDenied"
    gate.time += 10
    s3.delete_object(**version)
    rows = s3.list_object_versions(Bucket="b")
    assert (len(rows["Versions"]), len(rows["DeleteMarkers"])) == (1, 1)


def test_a_secret_has_its_previous_value_and_none_while_it_is_deleted() -> None:
    secrets = Aws().client("secretsmanager", HeldGate())
    secrets.create_secret(Name="s", SecretString="1")
    previous = {"SecretId": "s", "VersionStage": "AWSPREVIOUS"}
    assert refused(secrets.get_secret_value, **previous) == "ResourceNotFoundException"
    secrets.put_secret_value(SecretId="s", SecretString="2")
    assert secrets.get_secret_value(SecretId="s")["SecretString"] == "2"
    assert secrets.get_secret_value(**previous)["SecretString"] == "1"
    secrets.delete_secret(SecretId="s")
    assert refused(secrets.get_secret_value, SecretId="s") == "InvalidRequestException"
    assert refused(secrets.create_secret, Name="s", SecretString="3") == "InvalidRequestException"
