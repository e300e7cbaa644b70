"""Creates what the workers need, and adopts what exists: tables, queues, keys of events, the bucket, indexes, topics,
log groups. Tables that another team owns are only checked.

Idempotent: the outcome of each resource says whether it was created, existed or differs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fairdraw import scheduling
from regworkers_core.adapters.aws.answers import AwsRefusal
from regworkers_core.adapters.kafka.admin import TopicState
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.infrastructure.desired import DesiredTable, desired
from regworkers_core.infrastructure.indexes import provision_indexes
from regworkers_core.infrastructure.provision_aws import (
    Call,
    OnLine,
    Provisioned,
    ProvisionOutcome,
    found_or_none,
    provision_bucket,
    provision_log_group,
    provision_producer_keys,
    provision_queues,
)
from regworkers_core.runtime import Runtime
from regworkers_core.settings import KafkaSettings

_READY_SECONDS = 60.0
_POLL_SECONDS = 0.5
_KEYS = {"PK": "HASH", "SK": "RANGE"}
# Emulators answer unknown calls with these. Provisioning skips what they do not support.
_UNKNOWN_CALL = frozenset({"UnknownOperationException", "NotImplemented", "InternalFailure"})
# One hour of provisioned capacity, charged once for each unit that is added: list price of us-east-1, November 2026.
WARM_WRITE_UNIT, WARM_READ_UNIT = 0.00065, 0.00013


@dataclass(frozen=True, slots=True)
class _Step:
    """One difference. `act` removes it and so does the owner with `command`; both are empty where the table has to be
    replaced or something has to happen first, as `difference` says.
    """

    difference: str
    command: str = ""
    act: Callable[[], object] | None = None


def provision_table(runtime: Runtime, wanted: DesiredTable, *, change: bool = True) -> Provisioned:
    """Create a missing table; with `change` correct one that differs. One that is `external` is only read. Raises
    TransientFailure if the table does not become active.
    """
    client, call, name = runtime.dynamodb, runtime.dependency("dynamodb").call, wanted.name
    found = found_or_none({"ResourceNotFoundException"}, call, client.describe_table, TableName=name)
    if found is None and wanted.external:
        wished = "; ".join(f"{fact}: {value}" for fact, value in wanted.facts.items())
        text = f"does not exist: its owner creates it ({wished})"
        return Provisioned("table", name, ProvisionOutcome.BLOCKED, text)
    if found is None:
        _create(client, call, wanted)
    table = _await_active(client, call, name)
    steps = list(_steps(client, call, wanted, table))
    stuck = [step for step in steps if step.act is None]
    if wanted.external:
        note = "; ".join(f"{each.difference}: {each.command or 'its owner decides'}" for each in steps)
        outcome = ProvisionOutcome.BLOCKED if steps else ProvisionOutcome.EXISTED
        return Provisioned("table", name, outcome, f"external. {note}" if note else "external")
    if found is None or change:
        for step in steps:
            if step.act is not None:
                step.act()
                _await_active(client, call, name)
    if found is None:
        return Provisioned("table", name, ProvisionOutcome.CREATED)
    note = "; ".join(each.difference for each in steps)
    if stuck:
        return Provisioned("table", name, ProvisionOutcome.BLOCKED, note)
    changed = ProvisionOutcome.CHANGED if change else ProvisionOutcome.DIFFERS
    return Provisioned("table", name, changed if steps else ProvisionOutcome.EXISTED, note)


def _create(client: Any, call: Call, wanted: DesiredTable) -> None:
    stream = {"StreamSpecification": _stream(wanted)} if wanted.stream_view else {}
    # It exists where another run has created it meanwhile, or an attempt whose answer was lost.
    found_or_none(
        {"ResourceInUseException"},
        call,
        client.create_table,
        TableName=wanted.name,
        KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in _KEYS.items()],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in _KEYS],
        BillingMode="PAY_PER_REQUEST",
        DeletionProtectionEnabled=wanted.deletion_protection,
        **stream,
    )


def _stream(wanted: DesiredTable) -> dict[str, Any]:
    return {"StreamEnabled": True, "StreamViewType": wanted.stream_view}


def _await_active(client: Any, call: Call, name: str) -> Mapping[str, Any]:
    """The description of the table once it can be changed. Warm throughput is raised for hours beside everything."""
    give_up = scheduling.monotonic() + _READY_SECONDS
    while True:
        # A new table may be missing at first.
        found = found_or_none({"ResourceNotFoundException"}, call, client.describe_table, TableName=name)
        table: Mapping[str, Any] = (found or {"Table": {"TableStatus": "CREATING"}})["Table"]
        if table["TableStatus"] == "ACTIVE" or table.get("WarmThroughput", {}).get("Status") == "UPDATING":
            return table
        if scheduling.monotonic() > give_up:
            raise TransientFailure("dynamodb", f"table {name} did not become active")
        scheduling.sleep(_POLL_SECONDS)


def _steps(client: Any, call: Call, wanted: DesiredTable, table: Mapping[str, Any]) -> Iterator[_Step]:
    name = wanted.name
    keys = {key["AttributeName"]: key["KeyType"] for key in table["KeySchema"]}
    types = {each["AttributeName"]: each["AttributeType"] for each in table["AttributeDefinitions"]}
    if keys != _KEYS or {types[key] for key in keys} != {"S"}:
        found = ", ".join(f"{key} {kind} ({types[key]})" for key, kind in keys.items())
        yield _Step(f"keys: declared PK HASH (S), SK RANGE (S), found {found}. They cannot be changed")
    if wanted.stream_view:
        yield from _stream_step(client, call, wanted, table)
    if wanted.ttl_attribute:
        yield from _time_to_live_step(client, call, wanted)
    if wanted.deletion_protection and not table.get("DeletionProtectionEnabled"):
        yield _Step(
            "deletionProtection: declared on, found off",
            f"aws dynamodb update-table --table-name {name} --deletion-protection-enabled",
            partial(call, client.update_table, TableName=name, DeletionProtectionEnabled=True),
        )
    recovery = found_or_none(_UNKNOWN_CALL, call, client.describe_continuous_backups, TableName=name)
    if recovery is not None and not _recovers(recovery):
        command = "--point-in-time-recovery-specification PointInTimeRecoveryEnabled=true"
        yield _Step(
            "pointInTimeRecovery: declared on, found off",
            f"aws dynamodb update-continuous-backups --table-name {name} {command}",
            partial(_enable_recovery, client, call, name),
        )
    yield from _warm_step(client, call, wanted, table)


def _stream_step(client: Any, call: Call, wanted: DesiredTable, table: Mapping[str, Any]) -> Iterator[_Step]:
    stream = table.get("StreamSpecification") or {}
    found = stream.get("StreamViewType") if stream.get("StreamEnabled") else None
    text = f"stream: declared {wanted.stream_view}, found {found or 'off'}"
    specification = f"StreamEnabled=true,StreamViewType={wanted.stream_view}"
    command = f"aws dynamodb update-table --table-name {wanted.name} --stream-specification {specification}"
    if found is None:
        act = partial(call, client.update_table, TableName=wanted.name, StreamSpecification=_stream(wanted))
        yield _Step(text, command, act)
    elif found != wanted.stream_view:
        # Switching it drops unread records, which an operator has to decide.
        yield _Step(
            f"{text}. Unread records are lost by a switch: switch it off, then {command}, then "
            "`regworkers reconcile --repair --apply`"
        )


def _time_to_live_step(client: Any, call: Call, wanted: DesiredTable) -> Iterator[_Step]:
    found = call(client.describe_time_to_live, TableName=wanted.name)["TimeToLiveDescription"]
    on = found.get("TimeToLiveStatus") in ("ENABLED", "ENABLING")
    attribute = found.get("AttributeName") if on else None
    text = f"ttl: declared {wanted.ttl_attribute}, found {attribute or 'off'}"
    if attribute is None:
        specification = {"Enabled": True, "AttributeName": wanted.ttl_attribute}
        flags = f"--time-to-live-specification Enabled=true,AttributeName={wanted.ttl_attribute}"
        yield _Step(
            text,
            f"aws dynamodb update-time-to-live --table-name {wanted.name} {flags}",
            partial(
                call, client.update_time_to_live, TableName=wanted.name, TimeToLiveSpecification=specification
            ),
        )
    elif attribute != wanted.ttl_attribute:
        yield _Step(f"{text}. Switch it off first, which takes DynamoDB up to an hour")


def _recovers(answer: Mapping[str, Any]) -> bool:
    recovery = answer["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
    return bool(recovery.get("PointInTimeRecoveryStatus") == "ENABLED")


def _enable_recovery(client: Any, call: Call, name: str) -> None:
    """A new table is not ready for it at once. Raises TransientFailure."""
    give_up = scheduling.monotonic() + _READY_SECONDS
    specification = {"PointInTimeRecoveryEnabled": True}
    while True:
        try:
            call(
                client.update_continuous_backups,
                TableName=name,
                PointInTimeRecoverySpecification=specification,
            )
            return
        except AwsRefusal as error:
            if error.code != "ContinuousBackupsUnavailableException":
                raise
        if scheduling.monotonic() > give_up:
            raise TransientFailure("dynamodb", f"point-in-time recovery of table {name} is not available yet")
        scheduling.sleep(_POLL_SECONDS)


def _warm_step(client: Any, call: Call, wanted: DesiredTable, table: Mapping[str, Any]) -> Iterator[_Step]:
    """Warm throughput can only be raised. Emulators have none, or 0 whatever is set."""
    found = table.get("WarmThroughput") or {}
    if not found.get("WriteUnitsPerSecond") or found.get("Status") == "UPDATING":
        return
    writes, reads = int(found["WriteUnitsPerSecond"]), int(found["ReadUnitsPerSecond"])
    more_writes = max(0, (wanted.warm_write_units or 0) - writes)
    more_reads = max(0, (wanted.warm_read_units or 0) - reads)
    if not more_writes and not more_reads:
        return
    units = {"ReadUnitsPerSecond": reads + more_reads, "WriteUnitsPerSecond": writes + more_writes}
    price = more_writes * WARM_WRITE_UNIT + more_reads * WARM_READ_UNIT
    flags = ",".join(f"{key}={value}" for key, value in units.items())
    yield _Step(
        f"warm throughput: declared {writes + more_writes} writes and {reads + more_reads} reads a second, "
        f"found {writes} and {reads}; raising it costs {price:.2f} dollars once, and it stays",
        f"aws dynamodb update-table --table-name {wanted.name} --warm-throughput {flags}",
        partial(call, client.update_table, TableName=wanted.name, WarmThroughput=units),
    )


_RETENTION = "retention.ms"
# Kafka's defaults. With others it deletes events before they are old enough.
_KEEPS_EVENTS = {"cleanup.policy": "delete", "retention.bytes": "-1"}


@dataclass(slots=True)
class TopicDifference:
    """What a topic lacks."""

    config: dict[str, str] = field(default_factory=dict)  # settings to set
    partitions: int = 0  # to add, 0: none
    notes: list[str] = field(default_factory=list)  # what differs, in words
    by_hand: list[str] = field(default_factory=list)  # what only an operator can change


def difference(state: TopicState, config: Mapping[str, str], wanted: KafkaSettings) -> TopicDifference:
    """Pure. More partitions, more replicas and a longer retention than wanted are no difference: partitions and
    retention cannot be reduced without losing events or their order.
    """
    found = TopicDifference()
    for name, value in (_KEEPS_EVENTS | wanted.topic_config).items():
        has = config.get(name, _KEEPS_EVENTS.get(name))
        if has != value and not (name == _RETENTION and _is_longer(has, value)):
            found.config[name] = value
            found.notes.append(f"{name} {has or 'from the brokers'}, wanted {value}")
    if state.partitions < wanted.partitions:
        found.partitions = wanted.partitions
        found.notes.append(
            f"{state.partitions} partitions, wanted {wanted.partitions}: later events of an entry then go to another "
            "partition than earlier ones"
        )
    if state.replicas < wanted.replication_factor:
        found.by_hand.append(
            f"replication factor {state.replicas}, wanted {wanted.replication_factor}: an operator moves the "
            "partitions with kafka-reassign-partitions"
        )
    return found


def _is_longer(has: str | None, wanted: str) -> bool:
    """-1 keeps events for ever."""
    return has is not None and (int(has) < 0 or int(has) > int(wanted))


def provision_topics(runtime: Runtime, *, change: bool) -> Iterator[Provisioned]:
    """Raises TransientFailure, and UsageError where a topic cannot be created."""
    admin, names = runtime.kafka_admin, runtime.names.topics
    created = set(admin.create(names))
    yield from (Provisioned("topic", name, ProvisionOutcome.CREATED) for name in names if name in created)
    # One that another process has just created may be missing here, and has the settings.
    topics = admin.cluster().topics if len(created) < len(names) else {}
    for name in (each for each in names if each in topics and each not in created):
        found = TopicDifference()
        try:
            found = difference(topics[name], admin.configs([name])[name], runtime.settings.kafka)
            if change and found.config:
                admin.set_config(name, found.config)
            if change and found.partitions:
                admin.grow(name, found.partitions)
        except UsageError as error:
            found.by_hand.append(str(error))
        outcome = ProvisionOutcome.EXISTED
        if found.by_hand:
            outcome = ProvisionOutcome.BLOCKED
        elif found.notes:
            outcome = ProvisionOutcome.CHANGED if change else ProvisionOutcome.DIFFERS
        yield Provisioned("topic", name, outcome, "; ".join((*found.notes, *found.by_hand)))


def provision(
    runtime: Runtime,
    *,
    change: bool = True,
    keep: Collection[str] = (),
    on_line: OnLine = lambda _line: None,
) -> Iterator[Provisioned]:
    """Yield each resource once it is ready. Without `change` only create what is missing, and report what differs.
    Indexes named in `keep` (`entries.byMail`) stay as they are; `on_line` gets the progress of long builds.

    Raises TransientFailure when a service does not answer.
    """
    wanted = desired(runtime.settings)
    for table in wanted.tables:
        yield provision_table(runtime, table, change=change)
    yield from provision_queues(runtime, wanted.queues, change=change)
    yield from provision_producer_keys(runtime)
    yield provision_bucket(runtime, change=change)
    yield from provision_indexes(runtime, change=change, keep=keep, on_line=on_line)
    yield from provision_topics(runtime, change=change)
    yield provision_log_group(runtime, wanted.log_group, change=change)
