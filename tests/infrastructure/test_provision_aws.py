"""Queues, the bucket and the log group that exist: what differs is named with both values, and set with apply."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from regworkers_core.adapters.aws.clients import classify_aws
from regworkers_core.infrastructure.desired import DesiredQueue, LogGroup, bucket_policy, lifecycle_rules
from regworkers_core.infrastructure.provision_aws import (
    ALWAYS_ANSWERED,
    Provisioned,
    provision_bucket,
    provision_log_group,
    provision_queues,
)
from regworkers_core.runtime import Runtime
from tests.adapters.fakes import FakeClient, client_error, dependency

ARN = "arn:aws:sqs:us-east-1:000000000000:"
QUEUES = (DesiredQueue("q-dlq", 1_209_600, 262_144), DesiredQueue("q", 345_600, 262_144, 300, "q-dlq", 100))
PRIVATE = dict.fromkeys(
    ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
)


def runtime_on(client: FakeClient) -> Runtime:
    guard = dependency("aws", classify_aws("aws"))
    runtime: Any = SimpleNamespace(
        sqs=client,
        aws=SimpleNamespace(client=lambda _name: client),
        dependency=lambda _name: guard,
        names=SimpleNamespace(bucket="b"),
        settings=SimpleNamespace(aws=SimpleNamespace(region="us-east-1")),
    )
    return cast(Runtime, runtime)


def reported(done: Provisioned) -> tuple[str, str]:
    return done.outcome.value, done.note


def queues(**changes: str) -> FakeClient:
    """Both queues as declared, but for the attributes of `q` in `changes`."""
    redrive = {"deadLetterTargetArn": f"{ARN}q-dlq", "maxReceiveCount": "100"}
    attributes = {
        "q-dlq": {"MessageRetentionPeriod": "1209600"},
        "q": {
            "MessageRetentionPeriod": "345600",
            "VisibilityTimeout": "300",
            "RedrivePolicy": orjson.dumps(redrive).decode(),
            **changes,
        },
    }

    def read(QueueUrl: str, **_: Any) -> dict[str, Any]:
        own = {"QueueArn": ARN + QueueUrl, "MaximumMessageSize": "262144"}
        return {"Attributes": own | attributes[QueueUrl]}

    return FakeClient(
        get_queue_url=lambda QueueName: {"QueueUrl": QueueName},
        get_queue_attributes=read,
        set_queue_attributes=lambda **_: {},
    )


@pytest.mark.parametrize("change", [False, True])
def test_an_attribute_of_a_queue_that_differs_is_named_with_both_values(change: bool) -> None:
    client = queues(MessageRetentionPeriod="60", RedrivePolicy="")
    dead, queue = provision_queues(runtime_on(client), QUEUES, change=change)
    assert reported(dead) == ("existed", "")
    redrive = f'{{"deadLetterTargetArn":"{ARN}q-dlq","maxReceiveCount":100}}'
    assert reported(queue) == (
        "changed" if change else "differs",
        f"MessageRetentionPeriod: declared 345600, found 60; RedrivePolicy: declared {redrive}, found nothing",
    )
    written = [given["Attributes"].keys() for given in client.of("set_queue_attributes")]
    assert written == ([{"MessageRetentionPeriod", "RedrivePolicy"}] if change else [])


def test_a_queue_as_declared_is_not_touched_whatever_form_its_redrive_policy_has() -> None:
    client = queues()
    assert [reported(each) for each in provision_queues(runtime_on(client), QUEUES)] == [("existed", "")] * 2
    assert not client.of("set_queue_attributes")


def test_an_attribute_that_a_server_does_not_have_is_neither_named_nor_set() -> None:
    client = queues()
    answer = client.get_queue_attributes

    def without(**asked: Any) -> dict[str, Any]:
        found = answer(**asked)["Attributes"]
        return {"Attributes": {name: found[name] for name in found.keys() - ALWAYS_ANSWERED}}

    bare = FakeClient(
        get_queue_url=client.get_queue_url, get_queue_attributes=without, set_queue_attributes=lambda **_: {}
    )
    assert [reported(each) for each in provision_queues(runtime_on(bare), QUEUES)] == [("existed", "")] * 2
    assert not bare.of("set_queue_attributes")


def bucket(**changes: Any) -> FakeClient:
    answers: dict[str, Any] = {
        "head_bucket": {},
        "get_public_access_block": {"PublicAccessBlockConfiguration": PRIVATE},
        "get_bucket_versioning": {"Status": "Enabled"},
        "get_bucket_lifecycle_configuration": {"Rules": lifecycle_rules()},
        "get_bucket_policy": {"Policy": orjson.dumps(bucket_policy("b")).decode()},
        "get_object_lock_configuration": {"ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled"}},
        **changes,
    }

    def of(answer: Any) -> Any:
        def give(**_: Any) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        return give

    return FakeClient(**{name: of(answer) for name, answer in answers.items()})


def test_what_differs_in_the_bucket_is_named_with_both_values() -> None:
    policy = bucket_policy("b")
    policy["Statement"] = [*policy["Statement"][1:], {**policy["Statement"][0], "Sid": "Theirs"}]
    rules = [
        *lifecycle_rules()[:-1],
        {**lifecycle_rules()[-1], "Status": "Disabled"},
        {"ID": "theirs", "Status": "Enabled"},
    ]
    client = bucket(
        get_public_access_block={"PublicAccessBlockConfiguration": {**PRIVATE, "BlockPublicPolicy": False}},
        get_bucket_versioning={},
        get_bucket_lifecycle_configuration={"Rules": rules},
        get_bucket_policy={"Policy": orjson.dumps(policy).decode()},
        get_object_lock_configuration=client_error("ObjectLockConfigurationNotFoundError"),
    )
    outcome, note = reported(provision_bucket(runtime_on(client), change=False))
    assert outcome == "differs"
    for text in (
        "BlockPublicPolicy: declared True, found False",
        "versioning: declared Enabled, found nothing",
        'lifecycle downloads: declared {"ID":"downloads"',
        # `--apply` removes these two.
        'lifecycle theirs: declared nothing, found {"ID":"theirs","Status":"Enabled"}',
        "statement Theirs: declared nothing, found Deny s3:* on ",
        "statement RefuseAccessWithoutTls: declared Deny s3:* on ",
        "objectLock: declared Enabled, found nothing",
    ):
        assert text in note
    assert len(note.split("; ")) == 7


def test_a_bucket_as_declared_differs_in_nothing() -> None:
    assert reported(provision_bucket(runtime_on(bucket()), change=False)) == ("existed", "")


def test_the_retention_of_a_log_group_is_named_with_both_values() -> None:
    for days, found in (({"retentionInDays": 7}, "7"), ({}, "nothing")):
        groups = {"logGroups": [{"logGroupName": "/g", **days}]}
        client = FakeClient(describe_log_groups=[groups], put_retention_policy=lambda **_: {})
        done = provision_log_group(runtime_on(client), LogGroup("/g", 30), change=False)
        assert reported(done) == ("differs", f"retentionInDays: declared 30, found {found}")
        assert not client.of("put_retention_policy")


def test_what_another_run_creates_at_the_same_time_is_no_error() -> None:
    missing, there = client_error("NoSuchBucket", 404), client_error("BucketAlreadyOwnedByYou", 409)
    assert reported(provision_bucket(runtime_on(bucket(head_bucket=missing, create_bucket=there)))) == (
        "created",
        "",
    )
    client = FakeClient(
        describe_log_groups=[{"logGroups": []}],
        create_log_group=[client_error("ResourceAlreadyExistsException")],
        put_retention_policy=lambda **_: {},
    )
    assert reported(provision_log_group(runtime_on(client), LogGroup("/g", 30)))[0] == "created"
