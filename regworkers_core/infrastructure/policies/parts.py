"""Statements that several workers share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from regworkers_core.infrastructure.policies.statement import (
    Place,
    Resource,
    Statement,
    bucket,
    everything,
    leases,
    queue,
    stream,
    table,
)

QUEUES = ("replication-queue", "selection-queue", "notification-queue", "analytics-queue")
WORK_QUEUES = tuple(queue(name) for name in QUEUES)
DEAD_LETTER_QUEUES = tuple(queue(f"{name}-dlq") for name in QUEUES)
ALL_QUEUES = tuple(each for pair in zip(WORK_QUEUES, DEAD_LETTER_QUEUES, strict=True) for each in pair)


def _own_namespace(place: Place) -> Mapping[str, Any]:
    # PutMetricData knows no resources; its namespace stands for one.
    return {"StringEquals": {"cloudwatch:namespace": place.namespace}}


PUT_METRICS = Statement("PublishMetrics", ("cloudwatch:PutMetricData",), (everything,), _own_namespace)
OLDEST_MESSAGE = Statement("ReadTheAgeOfTheOldestMessage", ("cloudwatch:GetMetricStatistics",), (everything,))
DYNAMODB_ANSWERS = Statement("SeeWhetherDynamoDbAnswers", ("dynamodb:DescribeTable",), (table,))
READ_THE_STREAM = ("dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator")
PEEK = Statement("PeekIntoTheStream", READ_THE_STREAM, (stream,))
MISSING_OBJECTS = Statement("TellWhatIsMissing", ("s3:ListBucket",), (bucket,))
_SEND = ("sqs:GetQueueUrl", "sqs:SendMessage")
_DEPTH = ("sqs:GetQueueAttributes", "sqs:GetQueueUrl")
_WORK = (*_SEND, "sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:ReceiveMessage")


def hold_leases(sid: str, *more: str) -> Statement:
    """One lease at a time, taken, kept and released."""
    actions = ("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", *more)
    return Statement(sid, actions, (leases,))


def _rows_of(*kinds: str) -> Callable[[Place], Mapping[str, Any]]:
    # `ForAllValues` holds for a request without keys, too: the actions below all name one.
    return lambda _place: {
        "ForAllValues:StringLike": {"dynamodb:LeadingKeys": [f"{kind}#*" for kind in kinds]}
    }


# GetItem for the fuse at every start; marks are for messages that came too often.
KEEP_DRAIN_ROWS = Statement(
    "ShowLifeMarkMessagesAndKeepTheFuse",
    ("dynamodb:DeleteItem", "dynamodb:GetItem", "dynamodb:PutItem"),
    (leases,),
    _rows_of("DRAIN", "FUSE", "MARK"),
)
REMOVE_DEAD_HEARTBEATS = Statement(
    "RemoveTheHeartbeatsOfDeadDrains", ("dynamodb:DeleteItem",), (leases,), _rows_of("DRAIN")
)
REMOVE_FUSES = Statement(
    "RemoveABlownFuse", ("dynamodb:DeleteItem", "dynamodb:GetItem"), (leases,), _rows_of("FUSE")
)
# While MongoDB is away.
REMEMBER_OUTAGES = Statement(
    "RememberWhoWasTold", ("dynamodb:DeleteItem", "dynamodb:PutItem"), (leases,), _rows_of("OUTAGE")
)


def send(sid: str, *names: str) -> Statement:
    return Statement(sid, _SEND, _queues(names))


def depth(sid: str, *names: str) -> Statement:
    return Statement(sid, _DEPTH, _queues(names))


def work_on(name: str, *more: str) -> Statement:
    """Receive, keep, delete, and send on alone what failed alone."""
    return Statement("WorkOnTheQueue", (*_WORK, *more), (queue(name),))


def _queues(names: tuple[str, ...]) -> tuple[Resource, ...]:
    return tuple(queue(name) for name in names)
