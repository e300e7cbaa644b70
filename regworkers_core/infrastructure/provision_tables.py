"""DynamoDB's tables: created, corrected, or only checked where another team owns one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from fairdraw import scheduling
from regworkers_core.adapters.aws.answers import AwsRefusal
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.infrastructure.desired import DesiredTable
from regworkers_core.infrastructure.provision_aws import Call, Provisioned, ProvisionOutcome, found_or_none
from regworkers_core.runtime import Runtime

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
