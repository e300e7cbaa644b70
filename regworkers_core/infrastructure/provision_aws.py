"""Creates queues, the keys of events, the bucket and the log group on AWS, and corrects what differs from `desired`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import orjson

from regworkers_core.adapters.aws.answers import AwsRefusal
from regworkers_core.domain.events import ProducerRole, secret_name
from regworkers_core.domain.reasons import UsageError
from regworkers_core.infrastructure.declared import facts_of_policy
from regworkers_core.infrastructure.desired import DesiredQueue, LogGroup, bucket_policy, lifecycle_rules
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
    """One resource."""

    kind: str  # table, queue, secret, bucket, index, topic or log group
    name: str
    outcome: ProvisionOutcome
    note: str = ""  # what differs, what a change would do and who has to act, without a fan's data


def _differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """One text for each name whose values differ."""
    return [
        f"{name}: declared {_shown(wanted.get(name))}, found {_shown(found.get(name))}"
        for name in {**wanted, **found}
        if wanted.get(name) != found.get(name)
    ]


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return orjson.dumps(value).decode()
    return "nothing" if value in (None, "") else str(value)


def _provisioned(
    kind: str, name: str, differences: Sequence[str], *, created: bool, change: bool
) -> Provisioned:
    if created:
        return Provisioned(kind, name, ProvisionOutcome.CREATED)
    if not differences:
        return Provisioned(kind, name, ProvisionOutcome.EXISTED)
    outcome = ProvisionOutcome.CHANGED if change else ProvisionOutcome.DIFFERS
    return Provisioned(kind, name, outcome, "; ".join(differences))


def found_or_none(absent: Collection[str], call: Call, function: Any, **arguments: Any) -> Any:
    """The answer of a call; None if its error code is in `absent`."""
    try:
        return call(function, **arguments)
    except AwsRefusal as error:
        if error.code in absent:
            return None
        raise


def provision_queues(
    runtime: Runtime, wanted: Iterable[DesiredQueue], *, change: bool = True
) -> Iterator[Provisioned]:
    """The queues in the order given: a dead-letter queue comes before the queue that needs it."""
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
        made = _queue(runtime, queue.name, attributes, change)
        arns[queue.name] = made.arn
        yield made.done


# Every queue on AWS answers with them. A server without them (ElasticMQ) keeps no such limit, so that there is nothing
# to correct.
ALWAYS_ANSWERED = frozenset({"MessageRetentionPeriod", "MaximumMessageSize"})


class _Queue(NamedTuple):
    done: Provisioned
    arn: str


def _queue(runtime: Runtime, name: str, wanted: Mapping[str, str], change: bool) -> _Queue:
    """Create the queue, or with `change` set the attributes that differ."""
    client, call = runtime.sqs, runtime.dependency("sqs").call
    absent = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")
    found = found_or_none(absent, call, client.get_queue_url, QueueName=name)
    answer = found or call(client.create_queue, QueueName=name, Attributes=dict(wanted))
    url = answer["QueueUrl"]
    existing = call(client.get_queue_attributes, QueueUrl=url, AttributeNames=["All"])["Attributes"]
    differing = {
        key: value
        for key, value in wanted.items()
        if not _same(existing.get(key), value) and (key in existing or key not in ALWAYS_ANSWERED)
    }
    if differing and (change or found is None):
        call(client.set_queue_attributes, QueueUrl=url, Attributes=differing)
    differences = _differences(differing, {key: existing.get(key) for key in differing})
    done = _provisioned("queue", name, differences, created=found is None, change=change)
    return _Queue(done, existing["QueueArn"])


def _same(existing: str | None, wanted: str) -> bool:
    if not existing or not wanted.startswith("{"):
        return existing == wanted
    # SQS may return a policy with its numbers as strings, or in another order.
    left, right = orjson.loads(existing), orjson.loads(wanted)
    return {key: str(value) for key, value in left.items()} == {key: str(v) for key, v in right.items()}


def provision_producer_keys(runtime: Runtime) -> Iterator[Provisioned]:
    """Make the keys of those who send events. One that exists is neither read nor changed."""
    for role in ProducerRole:
        made = runtime.producer_keys.make(role)
        yield _provisioned("secret", runtime.names.prefix + secret_name(role), [], created=made, change=False)


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
    except AwsRefusal as error:
        raise UsageError(
            f"bucket {name} cannot be used ({error.code}): if it belongs to another account, set "
            "selection.bucket to another name"
        ) from None
    if created:
        region = runtime.settings.aws.region
        place: dict[str, Any] = {}
        if region != _DEFAULT_REGION:
            place["CreateBucketConfiguration"] = {"LocationConstraint": region}
        found_or_none({"BucketAlreadyOwnedByYou"}, call, client.create_bucket, Bucket=name, **place)
    differences = [
        text for part in _parts(client, name) for text in _adopt(part, call, name, change or created)
    ]
    return _provisioned("bucket", name, differences, created=created, change=change)


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the bucket's configuration."""

    wanted: Mapping[str, Any]  # as it should be
    read: Any  # the call that reads it
    found: Callable[[Mapping[str, Any]], Mapping[str, Any]]  # makes the answer of that call comparable
    write: Any  # the call that writes it
    given: Mapping[str, Any]  # arguments of that
    absent: str = ""  # the error code of a bucket without it: the answer is then empty


def _parts(client: Any, name: str) -> Iterator[_Part]:
    yield _Part(
        _PRIVATE,
        client.get_public_access_block,
        lambda answer: answer.get("PublicAccessBlockConfiguration", {}),
        client.put_public_access_block,
        {"PublicAccessBlockConfiguration": _PRIVATE},
        "NoSuchPublicAccessBlockConfiguration",
    )
    # An overwritten artefact can be restored, and its history shows who overwrote it.
    yield _Part(
        {"versioning": "Enabled"},
        client.get_bucket_versioning,
        lambda answer: {"versioning": answer.get("Status")},
        client.put_bucket_versioning,
        {"VersioningConfiguration": {"Status": "Enabled"}},
    )
    # S3 itself deletes what is not needed any more.
    yield _Part(
        _by_id(lifecycle_rules()),
        client.get_bucket_lifecycle_configuration,
        lambda answer: _by_id(answer.get("Rules", ())),
        client.put_bucket_lifecycle_configuration,
        {"LifecycleConfiguration": {"Rules": lifecycle_rules()}},
        "NoSuchLifecycleConfiguration",
    )
    policy = bucket_policy(name)
    yield _Part(
        facts_of_policy(policy),
        client.get_bucket_policy,
        lambda answer: facts_of_policy(orjson.loads(answer.get("Policy", "{}"))),
        client.put_bucket_policy,
        {"Policy": orjson.dumps(policy).decode()},
        "NoSuchBucketPolicy",
    )
    # Without a default retention: the draw locks each of its own files.
    yield _Part(
        {"objectLock": "Enabled"},
        client.get_object_lock_configuration,
        lambda answer: {"objectLock": answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled")},
        client.put_object_lock_configuration,
        {"ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled"}},
        "ObjectLockConfigurationNotFoundError",
    )


def _by_id(rules: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    return {f"lifecycle {rule.get('ID')}": rule for rule in rules}


def _adopt(part: _Part, call: Call, name: str, change: bool) -> list[str]:
    """What differs, and with `change` set. Nothing if the store does not know the call."""
    try:
        found = found_or_none({part.absent}, call, part.read, Bucket=name) or {}
        differences = _differences(part.wanted, part.found(found))
        if differences and change:
            call(part.write, Bucket=name, **part.given)
    except AwsRefusal as error:
        if error.code not in _UNKNOWN_S3_CALL:
            raise
        return []
    return differences


def provision_log_group(runtime: Runtime, wanted: LogGroup, *, change: bool = True) -> Provisioned:
    name, days = wanted.name, wanted.retention_days
    client, call = runtime.aws.client("logs"), runtime.dependency("logs").call
    groups = call(client.describe_log_groups, logGroupNamePrefix=name)["logGroups"]
    group = next((group for group in groups if group["logGroupName"] == name), None)
    if group is None:
        found_or_none({"ResourceAlreadyExistsException"}, call, client.create_log_group, logGroupName=name)
    found = {"retentionInDays": (group or {}).get("retentionInDays")}
    differences = _differences({"retentionInDays": days}, found)
    if differences and (change or group is None):
        call(client.put_retention_policy, logGroupName=name, retentionInDays=days)
    return _provisioned("log group", name, differences, created=group is None, change=change)
