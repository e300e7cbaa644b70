"""IAM statements and policies, the resources that they name, and statements that several workers share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from regworkers_core.domain.events import ProducerRole, secret_name
from regworkers_core.domain.messages import QUEUES
from regworkers_core.settings import InvitesSettings, Names, Settings


@dataclass(frozen=True, slots=True)
class PolicyPlace:
    """Names and account that complete an ARN."""

    names: Names
    region: str
    account: str  # 12 digits
    namespace: str  # of our metrics
    log_bucket: str  # of Dagster's compute logs
    invites: str = InvitesSettings().prefix  # the folder with lists of invites


# The files for Terraform have these, which it replaces for each environment.
PLACEHOLDERS = PolicyPlace(
    Names("PREFIX", bucket="PREFIXregworkers-artefacts"), "REGION", "ACCOUNT", "regworkers", "LOG_BUCKET"
)


def place_of(settings: Settings, *, account: str, log_bucket: str) -> PolicyPlace:
    """The place that the settings name. They have neither account nor log bucket."""
    return PolicyPlace(
        settings.names,
        settings.aws.region,
        account,
        settings.observability.cloudwatch_namespace,
        log_bucket,
        settings.invites.prefix,
    )


# The ARN of a resource, once it is known where.
Resource = Callable[[PolicyPlace], str]
Condition = Callable[[PolicyPlace], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Statement:
    """An IAM statement that allows actions on resources."""

    sid: str  # its id in the policy
    actions: tuple[str, ...]  # without wildcards
    resources: tuple[Resource, ...]  # what they may be done to
    condition: Condition | None = None  # of IAM, None: none


def allow(sid: str, actions: str, *resources: Resource, when: Condition | None = None) -> Statement:
    """A statement. A service holds for the actions that follow it: `sqs:GetQueueUrl SendMessage kms:Decrypt`."""
    service, named = "", list[str]()
    for action in actions.split():
        before, _, name = action.rpartition(":")
        service = before or service
        named.append(f"{service}:{name}")
    return Statement(sid, tuple(named), resources, when)


def merged(allowed_by: Iterable[Statement], place: PolicyPlace) -> dict[str, Any]:
    """One short document that allows the same and nothing else: resources with the same actions share a statement."""
    allowed: dict[tuple[str, str], set[str]] = {}
    for each in allowed_by:
        condition = orjson.dumps(each.condition(place) if each.condition else {}, option=orjson.OPT_SORT_KEYS)
        for resource in each.resources:
            allowed.setdefault((condition.decode(), resource(place)), set()).update(each.actions)
    together: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (condition_text, resource_name), actions in sorted(allowed.items()):
        together.setdefault((condition_text, tuple(sorted(actions))), []).append(resource_name)
    statements = [
        {"Effect": "Allow", "Action": list(names), "Resource": resources}
        | ({"Condition": orjson.loads(text)} if text != "{}" else {})
        for (text, names), resources in together.items()
    ]
    return {"Version": "2012-10-17", "Statement": statements}


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker and what it may do."""

    name: str
    does: str
    statements: tuple[Statement, ...]


def table(place: PolicyPlace) -> str:
    return _arn(place, "dynamodb", f"table/{place.names.demand_table}")


def leases(place: PolicyPlace) -> str:
    return _arn(place, "dynamodb", f"table/{place.names.lease_table}")


def stream(place: PolicyPlace) -> str:
    return table(place) + "/stream/*"


def queue(name: str) -> Resource:
    """A queue by its name without the prefix."""
    return lambda place: _arn(place, "sqs", place.names.prefix + name)


def bucket(place: PolicyPlace) -> str:
    return f"arn:aws:s3:::{place.names.bucket}"


def objects(*folders: str) -> tuple[Resource, ...]:
    """All objects in these folders of the artefacts' bucket."""

    def below(folder: str) -> Resource:
        return lambda place: f"{bucket(place)}/{folder}/*"

    return tuple(below(folder) for folder in folders)


def lists_of_invites(place: PolicyPlace) -> str:
    return f"{bucket(place)}/{place.invites}*"


def secret(pattern: str) -> Resource:
    return lambda place: _arn(place, "secretsmanager", f"secret:{place.names.prefix}{pattern}")


def log_group(place: PolicyPlace) -> str:
    return _arn(place, "logs", f"log-group:{place.names.log_group}")


def log_streams(place: PolicyPlace) -> str:
    """The streams of our group, and the group itself in the form that older calls are checked with."""
    return log_group(place) + ":*"


def of_service(service: str, resource: str) -> Resource:
    """Any resource of a service: `of_service("logs", "log-group:*")`."""
    return lambda place: _arn(place, service, resource)


def prefixed(service: str, kind: str, *, regional: bool = True) -> Resource:
    """Every resource of a kind under our prefix: `alarm:PREFIXregworkers-*`."""
    return lambda place: _arn(
        place, service, f"{kind}{place.names.prefix}regworkers-*", region=place.region if regional else ""
    )


def everything(_place: PolicyPlace) -> str:
    """For the few actions without resource-level permissions."""
    return "*"


def _arn(place: PolicyPlace, service: str, resource: str, *, region: str | None = None) -> str:
    return f"arn:aws:{service}:{place.region if region is None else region}:{place.account}:{resource}"


WORK_QUEUES = tuple(queue(name) for name in QUEUES)
DEAD_LETTER_QUEUES = tuple(queue(f"{name}-dlq") for name in QUEUES)
ALL_QUEUES = tuple(each for pair in zip(WORK_QUEUES, DEAD_LETTER_QUEUES, strict=True) for each in pair)


def _own_namespace(place: PolicyPlace) -> Mapping[str, Any]:
    # PutMetricData has no resource-level permissions; the namespace restricts it.
    return {"StringEquals": {"cloudwatch:namespace": place.namespace}}


PUT_METRICS = allow("PublishMetrics", "cloudwatch:PutMetricData", everything, when=_own_namespace)
OLDEST_MESSAGE = allow("ReadTheAgeOfTheOldestMessage", "cloudwatch:GetMetricStatistics", everything)
# Queried by prefix, for which IAM has no resource.
FIND_ALARMS = allow("FindAlarms", "cloudwatch:DescribeAlarms", of_service("cloudwatch", "alarm:*"))
DYNAMODB_ANSWERS = allow("CheckThatDynamoDbAnswers", "dynamodb:DescribeTable", table)
READ_THE_STREAM = "dynamodb:DescribeStream GetRecords GetShardIterator"
PEEK = allow("PeekIntoTheStream", READ_THE_STREAM, stream)
# Without it, S3 refuses to read a missing object instead of saying that it does not exist.
MISSING_OBJECTS = allow("RecogniseMissingObjects", "s3:ListBucket", bucket)


def hold_leases(sid: str, more: str = "") -> Statement:
    """Acquire, renew and release one lease at a time."""
    return allow(sid, f"dynamodb:GetItem PutItem UpdateItem {more}", leases)


def _rows_of(*kinds: str) -> Condition:
    return rows_like(*(f"{kind}#*" for kind in kinds))


def rows_like(*patterns: str) -> Condition:
    """The condition that all partition keys of a request match one of the patterns."""
    # `ForAllValues` also holds for a request without keys, but the actions below all name one.
    return lambda _place: {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": [*patterns]}}


# GetItem reads fuse and pause at every start and beat; marks are for messages that were received too often.
KEEP_DRAIN_ROWS = allow(
    "ShowLifeMarkMessagesAndKeepTheFuse",
    "dynamodb:DeleteItem GetItem PutItem",
    leases,
    when=_rows_of("DRAIN", "FUSE", "MARK"),
)
REMOVE_DEAD_HEARTBEATS = allow(
    "RemoveTheHeartbeatsOfDeadDrains", "dynamodb:DeleteItem", leases, when=_rows_of("DRAIN")
)
PAUSE_DRAINS = allow(
    "PauseDrainsAndRemoveFuses", "dynamodb:DeleteItem GetItem PutItem", leases, when=_rows_of("FUSE")
)
# While MongoDB is unavailable.
REMEMBER_OUTAGES = allow(
    "RememberWhoWasNotified", "dynamodb:DeleteItem PutItem", leases, when=_rows_of("OUTAGE")
)


def send(sid: str, *names: str) -> Statement:
    return allow(sid, "sqs:GetQueueUrl SendMessage", *map(queue, names))


def sign_events(*roles: ProducerRole) -> Statement:
    """Read the keys of these roles."""
    return allow(
        "ReadTheKeysOfEvents",
        "secretsmanager:GetSecretValue",
        *tuple(secret(f"{secret_name(role)}*") for role in roles),
    )


def depth(sid: str, *names: str) -> Statement:
    return allow(sid, "sqs:GetQueueAttributes GetQueueUrl", *map(queue, names))


def work_on(name: str, more: str = "") -> Statement:
    """Receive, hide, delete, and send failed items again."""
    actions = "sqs:GetQueueUrl SendMessage ChangeMessageVisibility DeleteMessage ReceiveMessage"
    return allow("WorkOnTheQueue", f"{actions} {more}", queue(name))


def kafka(sid: str, actions: str) -> Statement:
    """Connect and use our topics, at an MSK cluster with IAM access control. Each action concerns one kind of these
    resources.
    """
    named = f"kafka-cluster:Connect DescribeTopic {actions}"
    return allow(sid, named, of_service("kafka", "cluster/*"), _topics, _reader)


# The cluster's name and id are in no setting.
def _topics(place: PolicyPlace) -> str:
    return _arn(place, "kafka", f"topic/*/{place.names.prefix}regworkers.*")


def _reader(place: PolicyPlace) -> str:
    """The group that readers name and never join."""
    return _arn(place, "kafka", f"group/*/{place.names.prefix}event-archive")


# Readers name a group, whose coordinator the client looks up.
READ_EVENTS = "ReadData DescribeGroup"
