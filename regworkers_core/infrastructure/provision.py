"""Creates what the workers need and mends what differs: tables, queues, the bucket, indexes, topics, log groups.

Idempotent: it says of each thing whether it was created, changed or stood already.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import orjson
from botocore.exceptions import ClientError
from pymongo import ASCENDING

from regworkers_core.adapters.aws.clients import error_code
from regworkers_core.adapters.mongo.activity import DRAIN_LOG_DAYS, RECONCILE_RESULTS_DAYS
from regworkers_core.adapters.mongo.entrants import FIELDS as ENTRANT_FIELDS
from regworkers_core.adapters.mongo.entry_documents import ERASED_AT
from regworkers_core.adapters.mongo.pages import EXPIRES_AT
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.infrastructure.desired import LogGroup, Queue, Table, desired
from regworkers_core.infrastructure.provision_bucket import provision_bucket
from regworkers_core.infrastructure.provision_history import keep_history
from regworkers_core.infrastructure.provisioned import Outcome, Provisioned
from regworkers_core.runtime import Runtime

_DAY_SECONDS = 24 * 3600
_TABLE_READY_SECONDS = 60.0

Index = tuple[list[tuple[str, int]], bool]
INDEXES: Mapping[str, list[Index]] = {
    "entries": [
        ([("campaignId", ASCENDING), ("entryId", ASCENDING)], False),
        # Who has entered already. Each value is one person's or household's, so it is selective without the campaign,
        # and a server without compound lookups finds it as fast.
        *(([(field, ASCENDING)], False) for field in ENTRANT_FIELDS),
        # Tombstones alone: how many of a campaign there are.
        ([("deletedAt", ASCENDING)], False),
        # Those of erased fans.
        ([(ERASED_AT, ASCENDING)], False),
    ],
    "campaigns": [([("slug", ASCENDING)], True), ([("status", ASCENDING)], False)],
    # The first is what keeps a position from being given twice, and what finds the highest.
    "codes": [
        ([("campaignId", ASCENDING), ("marketId", ASCENDING), ("position", ASCENDING)], True),
        ([("campaignId", ASCENDING), ("marketId", ASCENDING), ("status", ASCENDING)], False),
    ],
    # The open chunks of a market, by number.
    "selection_chunks": [
        (
            [("campaignId", ASCENDING), ("marketId", ASCENDING), ("phase", ASCENDING), ("chunk", ASCENDING)],
            False,
        )
    ],
    "selections": [
        ([("campaignId", ASCENDING), ("marketId", ASCENDING), ("phase", ASCENDING)], False),
    ],
    # What is held or failed at all; and the next rows of a market, which leave this order when they are sent.
    "outbox": [
        ([("status", ASCENDING), ("notBefore", ASCENDING)], False),
        (
            [
                ("campaignId", ASCENDING),
                ("marketId", ASCENDING),
                ("phase", ASCENDING),
                ("status", ASCENDING),
                ("type", ASCENDING),
                ("ref", ASCENDING),
            ],
            False,
        ),
    ],
    # What all drains did lately, and one of them last.
    "drain_log": [
        ([("minute", ASCENDING)], False),
        ([("drain", ASCENDING), ("minute", ASCENDING)], False),
    ],
    "alerts": [([("scope", ASCENDING)], False), ([("status", ASCENDING)], False)],
    "operator_actions": [([("startedAt", ASCENDING)], False)],
    # Those of an acceptance, the last one first; and those of a fan.
    "superseded_entries": [
        ([("acceptance", ASCENDING)], False),
        ([("campaignId", ASCENDING), ("entryId", ASCENDING)], False),
    ],
    "dead_letters": [
        ([("campaignId", ASCENDING), ("entryId", ASCENDING), ("status", ASCENDING)], False),
        ([("status", ASCENDING), ("fingerprint", ASCENDING)], False),
        # What failed within the last hours.
        ([("lastFailedAt", ASCENDING)], False),
    ],
}
# Optional fields: entries without one cost its index nothing.
_SPARSE = frozenset({*ENTRANT_FIELDS, "deletedAt", ERASED_AT})
# MongoDB deletes a document so many days after the time in this field.
EXPIRING: Mapping[str, tuple[str, int]] = {
    # Of `entries`, the tombstones of erased fans alone have the field.
    **dict.fromkeys(
        ("superseded_entries", "outbox", "selections", "selection_chunks", "codes"),
        (EXPIRES_AT, 0),
    ),
    "drain_log": ("at", DRAIN_LOG_DAYS),
    "reconcile_results": ("keptFrom", RECONCILE_RESULTS_DAYS),
}


def provision(runtime: Runtime) -> Iterator[Provisioned]:
    """Yields each thing once it is ready. Raises TransientFailure when a service does not answer."""
    names, wanted = runtime.names, desired(runtime.settings)
    for table in wanted.tables:
        yield _table(runtime, table)
    yield from _queues(runtime, wanted.queues)
    yield provision_bucket(runtime)
    yield from _indexes(runtime)
    created = set(runtime.kafka_admin.create(names.topics))
    for topic in names.topics:
        yield Provisioned("topic", topic, Outcome.CREATED if topic in created else Outcome.STOOD)
    yield _log_group(runtime, wanted.log_group)


def _table(runtime: Runtime, wanted: Table) -> Provisioned:
    name, stream = wanted.name, bool(wanted.stream_view)
    client, call = runtime.dynamodb, runtime.dependency("dynamodb").call
    specification = {"StreamEnabled": True, "StreamViewType": wanted.stream_view}
    outcome = Outcome.STOOD
    try:
        table = call(client.describe_table, TableName=name)["Table"]
    except ClientError as error:
        if error_code(error) != "ResourceNotFoundException":
            raise
        arguments: dict[str, Any] = {
            "TableName": name,
            "KeySchema": [
                {"AttributeName": "PK", "KeyType": "HASH"},
                {"AttributeName": "SK", "KeyType": "RANGE"},
            ],
            "AttributeDefinitions": [
                {"AttributeName": "PK", "AttributeType": "S"},
                {"AttributeName": "SK", "AttributeType": "S"},
            ],
            "BillingMode": "PAY_PER_REQUEST",
        }
        if stream:
            arguments["StreamSpecification"] = specification
        call(client.create_table, **arguments)
        outcome = Outcome.CREATED
    else:
        view = table.get("StreamSpecification", {}).get("StreamViewType")
        if stream and view not in (None, specification["StreamViewType"]):
            # Switching it drops what nobody has read yet: a decision for a person.
            raise UsageError(
                f"the stream of {name} carries {view}: switch it off, run this again, then "
                "`regworkers reconcile --repair`"
            )
        if stream and not table.get("StreamSpecification", {}).get("StreamEnabled"):
            call(client.update_table, TableName=name, StreamSpecification=specification)
            outcome = Outcome.CHANGED
    _until_active(client, call, name)
    changed = bool(wanted.ttl_attribute) and _switch_on_time_to_live(client, call, wanted)
    changed = keep_history(client, call, name, give_up=time.monotonic() + _TABLE_READY_SECONDS) or changed
    if changed and outcome is Outcome.STOOD:
        outcome = Outcome.CHANGED
    return Provisioned("table", name, outcome)


def _until_active(client: Any, call: Callable[..., Any], name: str) -> None:
    give_up = time.monotonic() + _TABLE_READY_SECONDS
    while call(client.describe_table, TableName=name)["Table"]["TableStatus"] != "ACTIVE":
        if time.monotonic() > give_up:
            raise TransientFailure("dynamodb", f"table {name} did not become active")
        time.sleep(0.5)


def _switch_on_time_to_live(client: Any, call: Callable[..., Any], wanted: Table) -> bool:
    name = wanted.name
    status = call(client.describe_time_to_live, TableName=name)["TimeToLiveDescription"]
    if status.get("TimeToLiveStatus") in ("ENABLED", "ENABLING"):
        return False
    call(
        client.update_time_to_live,
        TableName=name,
        TimeToLiveSpecification={"Enabled": True, "AttributeName": wanted.ttl_attribute},
    )
    return True


def _queues(runtime: Runtime, wanted: Iterable[Queue]) -> Iterator[Provisioned]:
    arns: dict[str, str] = {}
    for queue in wanted:
        attributes = {"MessageRetentionPeriod": str(queue.retention_seconds)}
        if queue.dead_letter_queue:
            redrive = {
                "deadLetterTargetArn": arns[queue.dead_letter_queue],
                "maxReceiveCount": queue.max_receives,
            }
            attributes["VisibilityTimeout"] = str(queue.visibility_seconds)
            attributes["RedrivePolicy"] = orjson.dumps(redrive).decode()
        outcome, arns[queue.name] = _queue(runtime, queue.name, attributes)
        yield Provisioned("queue", queue.name, outcome)


def _queue(runtime: Runtime, name: str, wanted: Mapping[str, str]) -> tuple[Outcome, str]:
    """Create the queue or set the attributes that differ; returns its ARN, too."""
    client, call = runtime.sqs, runtime.dependency("sqs").call
    outcome = Outcome.STOOD
    try:
        url = call(client.get_queue_url, QueueName=name)["QueueUrl"]
    except ClientError as error:
        if error_code(error) not in ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"):
            raise
        url = call(client.create_queue, QueueName=name, Attributes=dict(wanted))["QueueUrl"]
        outcome = Outcome.CREATED
    stands = call(client.get_queue_attributes, QueueUrl=url, AttributeNames=["All"])["Attributes"]
    differing = {key: value for key, value in wanted.items() if not _same(stands.get(key), value)}
    if differing:
        call(client.set_queue_attributes, QueueUrl=url, Attributes=differing)
        outcome = Outcome.CHANGED if outcome is Outcome.STOOD else outcome
    return outcome, stands["QueueArn"]


def _same(stands: str | None, wanted: str) -> bool:
    if stands is None or not wanted.startswith("{"):
        return stands == wanted
    # A policy comes back with its numbers as strings or in another order.
    left, right = orjson.loads(stands), orjson.loads(wanted)
    return {key: str(value) for key, value in left.items()} == {key: str(v) for key, v in right.items()}


def _indexes(runtime: Runtime) -> Iterator[Provisioned]:
    call = runtime.dependency("mongo").call
    for collection_name, indexes in INDEXES.items():
        collection = runtime.database[collection_name]
        stands = call(collection.index_information)
        # By their keys: servers name an index each in their own way.
        before = [list(index["key"]) for index in stands.values()]
        for keys, unique in indexes:
            sparse = len(keys) == 1 and keys[0][0] in _SPARSE
            made = call(collection.create_index, keys, unique=unique, sparse=sparse)
            outcome = Outcome.STOOD if keys in before else Outcome.CREATED
            yield Provisioned("index", f"{collection_name}.{made}", outcome)
    yield from _expiries(runtime)


def _expiries(runtime: Runtime) -> Iterator[Provisioned]:
    call = runtime.dependency("mongo").call
    for name, (field, days) in EXPIRING.items():
        collection = runtime.database[name]
        before = call(collection.index_information)
        made = call(collection.create_index, [(field, ASCENDING)], expireAfterSeconds=days * _DAY_SECONDS)
        stood = any(list(index["key"]) == [(field, ASCENDING)] for index in before.values())
        outcome = Outcome.STOOD if stood else Outcome.CREATED
        yield Provisioned("index", f"{name}.{made}", outcome)


def _log_group(runtime: Runtime, wanted: LogGroup) -> Provisioned:
    name, days = wanted.name, wanted.retention_days
    client, call = runtime.aws.client("logs"), runtime.dependency("logs").call
    outcome = Outcome.STOOD
    groups = call(client.describe_log_groups, logGroupNamePrefix=name)["logGroups"]
    group = next((group for group in groups if group["logGroupName"] == name), None)
    if group is None:
        call(client.create_log_group, logGroupName=name)
        outcome = Outcome.CREATED
    if group is None or group.get("retentionInDays") != days:
        call(client.put_retention_policy, logGroupName=name, retentionInDays=days)
        outcome = Outcome.CHANGED if outcome is Outcome.STOOD else outcome
    return Provisioned("log group", name, outcome)
