"""Counts the calls to the services as the clients make them, and what AWS would bill for them."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import boto3
from pymongo import monitoring

from regworkers_core.adapters.aws.clients import AwsClients
from regworkers_core.operations.runbooks.cost import (
    DRAIN_SECOND,
    DYNAMODB_READ_UNIT,
    DYNAMODB_WRITE_UNIT,
    LAMBDA_GB_SECOND,
    LAMBDA_INVOCATION,
    SQS_REQUEST,
    STREAM_READ,
)
from regworkers_core.runtime import Runtime

_SQS_UNIT_BYTES = 64 * 1024
# The housekeeping of a MongoDB connection, not of the work.
_MONGO_HANDSHAKE = frozenset({"hello", "isMaster", "ismaster", "ping", "endSessions", "buildInfo"})


@dataclass(slots=True)
class Bill:
    """Calls by `service.Operation`, and billed units: SQS requests (64 KB each), DynamoDB read and write
    request units, GetRecords calls. Items of the benchmark are below 1 KB, so each is one unit.
    """

    calls: Counter[str] = field(default_factory=Counter)
    units: Counter[str] = field(default_factory=Counter)

    def __sub__(self, earlier: Bill) -> Bill:
        return Bill(self.calls - earlier.calls, self.units - earlier.units)

    def __add__(self, other: Bill) -> Bill:
        return Bill(self.calls + other.calls, self.units + other.units)


class CallCounter(monitoring.CommandListener):
    """Shared by all clients of one contestant; `last_call` is when each operation last ended (monotonic)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bill = Bill()
        self.last_call: dict[str, float] = {}

    def snapshot(self) -> Bill:
        with self._lock:
            return Bill(self._bill.calls.copy(), self._bill.units.copy())

    def attach(self, client: Any) -> Any:
        """Count the calls of a botocore client."""
        client.meta.events.register("before-parameter-build", self._asked)
        client.meta.events.register("after-call", self._answered)
        return client

    def _asked(self, params: Mapping[str, Any], model: Any, **_: Any) -> None:
        units = _units_asked(model.name, params)
        with self._lock:
            self._bill.units.update(units)

    def _answered(self, parsed: Mapping[str, Any], model: Any, **_: Any) -> None:
        name = f"{model.service_model.service_name}.{model.name}"
        with self._lock:
            self._bill.calls[name] += 1
            if model.name == "ReceiveMessage":
                self._bill.units["sqs"] += _sqs_units(parsed.get("Messages", ()), "Body")
            self.last_call[model.name] = time.monotonic()

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command_name not in _MONGO_HANDSHAKE:
            with self._lock:
                self._bill.calls[f"mongo.{event.command_name}"] += 1

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        with self._lock:
            self.last_call[event.command_name] = time.monotonic()

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        pass


class CountingAws(AwsClients):
    """The product's clients with the counter attached."""

    def __init__(self, runtime: Runtime, counter: CallCounter) -> None:
        super().__init__(runtime.settings.aws)
        self._counter = counter

    def client(self, service: str, *, read_timeout_seconds: float | None = None) -> Any:
        return self._counter.attach(super().client(service, read_timeout_seconds=read_timeout_seconds))


class BareClients:
    """boto3 clients with default settings."""

    def __init__(self, runtime: Runtime, counter: CallCounter) -> None:
        aws = runtime.settings.aws
        session = boto3.Session(
            region_name=aws.region, aws_access_key_id="test", aws_secret_access_key="test"
        )
        self.dynamodb, self.streams, self.sqs = (
            counter.attach(session.client(service, endpoint_url=aws.endpoint_url))
            for service in ("dynamodb", "dynamodbstreams", "sqs")
        )


def counted(runtime: Runtime) -> CallCounter:
    """Count every call of this runtime from now on; call it before the runtime's first use.

    MongoDB's client asks the driver's registry for listeners once, when it is made.
    """
    counter = CallCounter()
    runtime.__dict__["aws"] = CountingAws(runtime, counter)
    listeners = monitoring._LISTENERS.command_listeners
    listeners.append(counter)
    try:
        runtime.mongo.admin.command("ping")
    finally:
        listeners.remove(counter)
    return counter


def _units_asked(operation: str, params: Mapping[str, Any]) -> Counter[str]:
    units: Counter[str] = Counter()
    match operation:
        case "SendMessageBatch":
            units["sqs"] = _sqs_units(params["Entries"], "MessageBody")
        case "SendMessage":
            units["sqs"] = _sqs_units([params], "MessageBody")
        case "DeleteMessageBatch" | "ChangeMessageVisibilityBatch" | "GetQueueAttributes":
            units["sqs"] = 1
        case "BatchGetItem":
            units["read"] = sum(len(table["Keys"]) for table in params["RequestItems"].values())
        case "GetItem" | "Query":
            units["read"] = 1
        case "BatchExecuteStatement":
            units["write"] = len(params["Statements"])
        case "UpdateItem" | "PutItem":
            units["write"] = 1
        case "GetRecords":
            units["stream"] = 1
    return units


def _sqs_units(messages: Sequence[Mapping[str, Any]], body: str) -> int:
    """A call without a payload is one request, too."""
    return max(1, math.ceil(sum(len(message[body].encode()) for message in messages) / _SQS_UNIT_BYTES))


# Assumed of a handler: 512 MB; five milliseconds a call to a service, the calls of one handler in a row.
HANDLER_GB = 0.5
HANDLER_BATCH = 10
HANDLER_CALL_SECONDS = 0.005

MILLION = 1_000_000


def calls_per_million(bill: Bill, entries: int) -> float:
    """API calls to all services, MongoDB included, for a million entries."""
    return bill.calls.total() * MILLION / entries


def product(bill: Bill, entries: int, rate: float) -> dict[str, float]:
    """Dollars for a million entries by what they are for."""
    seconds = MILLION / rate
    # Clearing the flag is a change, too: on AWS it comes back on the stream and is read and dropped.
    return _services(bill, entries, stream_reads=2.0) | {"compute": seconds * DRAIN_SECOND}


def handlers(bill: Bill, entries: int) -> dict[str, float]:
    """The same for handlers on Lambda, whose reads of the stream are free."""
    invocations = 2 * MILLION / HANDLER_BATCH
    # Lambda itself reads, receives and deletes; the handlers wait for the other calls.
    own = sum(
        number
        for name, number in bill.calls.items()
        if name.rpartition(".")[2] not in ("GetRecords", "ReceiveMessage", "DeleteMessageBatch")
    )
    gb_seconds = own * MILLION / entries * HANDLER_CALL_SECONDS * HANDLER_GB
    return _services(bill, entries, stream_reads=0.0) | {
        "compute": invocations * LAMBDA_INVOCATION + gb_seconds * LAMBDA_GB_SECOND
    }


def _services(bill: Bill, entries: int, *, stream_reads: float) -> dict[str, float]:
    prices: Mapping[str, tuple[str, float]] = {
        "SQS requests": ("sqs", SQS_REQUEST),
        "DynamoDB reads": ("read", DYNAMODB_READ_UNIT),
        "DynamoDB writes": ("write", DYNAMODB_WRITE_UNIT),
        "stream reads": ("stream", STREAM_READ * stream_reads),
    }
    return {name: bill.units[unit] * MILLION / entries * price for name, (unit, price) in prices.items()}
