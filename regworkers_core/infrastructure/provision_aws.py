"""Creates queues, the bucket and the log group on AWS, and corrects what differs from `desired`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson
from botocore.exceptions import ClientError

from regworkers_core.adapters.aws.clients import error_code
from regworkers_core.domain.reasons import UsageError
from regworkers_core.infrastructure.desired import DesiredQueue, LogGroup, lifecycle_rules
from regworkers_core.infrastructure.policies.bucket import bucket_policy
from regworkers_core.runtime import Runtime

Call = Callable[..., Any]
# Gets one line of progress at a time.
OnLine = Callable[[str], None]
# Buckets of this region are created without naming it.
_DEFAULT_REGION = "us-east-1"
_PRIVATE = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}
# Emulators and S3-compatible stores answer unknown calls with these. Provisioning skips what they do not support.
_UNKNOWN_S3_CALL = frozenset({"NotImplemented", "MethodNotAllowed", "501", "405"})


class ProvisionOutcome(StrEnum):
    """DIFFERS: left as it is, and `change` would change it. BLOCKED: it differs or is missing, and an operator or its
    owner has to act first.
    """

    CREATED = "created"
    CHANGED = "changed"
    DIFFERS = "differs"
    BLOCKED = "blocked"
    EXISTED = "existed"


@dataclass(frozen=True, slots=True)
class Provisioned:
    """One resource: `kind` is table, queue, bucket, index, topic or log group. `note` says what differs, what a change
    would do and who has to act; it holds no fan's data.
    """

    kind: str
    name: str
    outcome: ProvisionOutcome
    note: str = ""


def _outcome(*, created: bool, differs: bool, change: bool) -> ProvisionOutcome:
    if created:
        return ProvisionOutcome.CREATED
    if not differs:
        return ProvisionOutcome.EXISTED
    return ProvisionOutcome.CHANGED if change else ProvisionOutcome.DIFFERS


def found_or_none(absent: Collection[str], call: Call, function: Any, **arguments: Any) -> Any:
    """The answer of a call; None if its error code is in `absent`."""
    try:
        return call(function, **arguments)
    except ClientError as error:
        if error_code(error) in absent:
            return None
        raise


def provision_queues(
    runtime: Runtime, wanted: Iterable[DesiredQueue], *, change: bool = True
) -> Iterator[Provisioned]:
    """In the order given: a dead-letter queue comes before the queue that needs it."""
    arns: dict[str, str] = {}
    for queue in wanted:
        attributes = {
            "MessageRetentionPeriod": str(queue.retention_seconds),
            "MaximumMessageSize": str(queue.max_message_bytes),
        }
        if queue.dead_letter_queue:
            redrive = {
                "deadLetterTargetArn": arns[queue.dead_letter_queue],
                "maxReceiveCount": queue.max_receives,
            }
            attributes["VisibilityTimeout"] = str(queue.visibility_seconds)
            attributes["RedrivePolicy"] = orjson.dumps(redrive).decode()
        outcome, arns[queue.name] = _queue(runtime, queue.name, attributes, change)
        yield Provisioned("queue", queue.name, outcome)


def _queue(
    runtime: Runtime, name: str, wanted: Mapping[str, str], change: bool
) -> tuple[ProvisionOutcome, str]:
    """Create the queue, or with `change` set the attributes that differ. Also returns its ARN."""
    client, call = runtime.sqs, runtime.dependency("sqs").call
    absent = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")
    found = found_or_none(absent, call, client.get_queue_url, QueueName=name)
    answer = found or call(client.create_queue, QueueName=name, Attributes=dict(wanted))
    url = answer["QueueUrl"]
    existing = call(client.get_queue_attributes, QueueUrl=url, AttributeNames=["All"])["Attributes"]
    differing = {key: value for key, value in wanted.items() if not _same(existing.get(key), value)}
    if differing and (change or found is None):
        call(client.set_queue_attributes, QueueUrl=url, Attributes=differing)
    outcome = _outcome(created=found is None, differs=bool(differing), change=change)
    return outcome, existing["QueueArn"]


def _same(existing: str | None, wanted: str) -> bool:
    if existing is None or not wanted.startswith("{"):
        return existing == wanted
    # SQS may return a policy with its numbers as strings, or in another order.
    left, right = orjson.loads(existing), orjson.loads(wanted)
    return {key: str(value) for key, value in left.items()} == {key: str(v) for key, v in right.items()}


def provision_bucket(runtime: Runtime, *, change: bool = True) -> Provisioned:
    """The private, versioned bucket of the artefacts, with the rules of `desired.LIFECYCLES`. Raises UsageError if the
    bucket belongs to another account.
    """
    name = runtime.names.bucket
    client, call = runtime.aws.client("s3"), runtime.dependency("s3").call
    try:
        created = (
            found_or_none(("404", "NoSuchBucket", "NotFound"), call, client.head_bucket, Bucket=name) is None
        )
    except ClientError as error:
        raise UsageError(
            f"bucket {name} cannot be used ({error_code(error)}): if it belongs to another account, set "
            "selection.bucket to another name"
        ) from None
    if created:
        region = runtime.settings.aws.region
        place: dict[str, Any] = {}
        if region != _DEFAULT_REGION:
            place["CreateBucketConfiguration"] = {"LocationConstraint": region}
        call(client.create_bucket, Bucket=name, **place)
    steps = (_block_public_access, _enable_versions, _set_lifecycle, _set_policy, _enable_object_lock)
    differing = [step for step in steps if step(client, call, name, change or created)]
    outcome = _outcome(created=created, differs=bool(differing), change=change)
    return Provisioned("bucket", name, outcome)


def _block_public_access(client: Any, call: Call, name: str, change: bool) -> bool:
    try:
        found = found_or_none(
            {"NoSuchPublicAccessBlockConfiguration"}, call, client.get_public_access_block, Bucket=name
        )
    except ClientError as error:
        return _unsupported(error)
    if found is not None and found["PublicAccessBlockConfiguration"] == _PRIVATE:
        return False
    if change:
        call(client.put_public_access_block, Bucket=name, PublicAccessBlockConfiguration=_PRIVATE)
    return True


def _enable_versions(client: Any, call: Call, name: str, change: bool) -> bool:
    """An overwritten artefact can be restored, and its history shows who overwrote it."""
    try:
        if call(client.get_bucket_versioning, Bucket=name).get("Status") == "Enabled":
            return False
        if change:
            call(client.put_bucket_versioning, Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    except ClientError as error:
        return _unsupported(error)
    return True


def _set_lifecycle(client: Any, call: Call, name: str, change: bool) -> bool:
    """S3 itself deletes what is not needed any more."""
    try:
        found = found_or_none(
            {"NoSuchLifecycleConfiguration"}, call, client.get_bucket_lifecycle_configuration, Bucket=name
        )
    except ClientError as error:
        return _unsupported(error)
    if found is not None and found["Rules"] == lifecycle_rules():
        return False
    rules = {"Rules": lifecycle_rules()}
    if change:
        call(client.put_bucket_lifecycle_configuration, Bucket=name, LifecycleConfiguration=rules)
    return True


def _set_policy(client: Any, call: Call, name: str, change: bool) -> bool:
    wanted = bucket_policy(name)
    try:
        found = found_or_none({"NoSuchBucketPolicy"}, call, client.get_bucket_policy, Bucket=name)
        if found is not None and orjson.loads(found["Policy"]) == wanted:
            return False
        if change:
            call(client.put_bucket_policy, Bucket=name, Policy=orjson.dumps(wanted).decode())
    except ClientError as error:
        return _unsupported(error)
    return True


def _enable_object_lock(client: Any, call: Call, name: str, change: bool) -> bool:
    """Without a default retention: the draw locks each of its own files."""
    absent = {"ObjectLockConfigurationNotFoundError"}
    wanted = {"ObjectLockEnabled": "Enabled"}
    try:
        found = found_or_none(absent, call, client.get_object_lock_configuration, Bucket=name) or {}
        if found.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled":
            return False
        if change:
            call(client.put_object_lock_configuration, Bucket=name, ObjectLockConfiguration=wanted)
    except ClientError as error:
        return _unsupported(error)
    return True


def _unsupported(error: ClientError) -> bool:
    """False (nothing changed) if the store does not know the call; raises any other error again."""
    if error_code(error) not in _UNKNOWN_S3_CALL:
        raise error
    return False


def provision_log_group(runtime: Runtime, wanted: LogGroup, *, change: bool = True) -> Provisioned:
    name, days = wanted.name, wanted.retention_days
    client, call = runtime.aws.client("logs"), runtime.dependency("logs").call
    groups = call(client.describe_log_groups, logGroupNamePrefix=name)["logGroups"]
    group = next((group for group in groups if group["logGroupName"] == name), None)
    if group is None:
        call(client.create_log_group, logGroupName=name)
    differs = group is None or group.get("retentionInDays") != days
    if differs and (change or group is None):
        call(client.put_retention_policy, logGroupName=name, retentionInDays=days)
    outcome = _outcome(created=group is None, differs=differs, change=change)
    return Provisioned("log group", name, outcome)
