"""Every metric of the workers, once: its names in CloudWatch and in OpenTelemetry.

CloudWatch gets them by `adapters/aws/cloudwatch.py`. OpenTelemetry gets the same readings if `configure_tracing` has
installed its exporter. Messaging metrics have the names of OpenTelemetry's semantic conventions; the conventions name
none for items, draws or leases, so those begin with `regworkers.`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, Protocol

from opentelemetry import metrics

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric, in CloudWatch and in OpenTelemetry."""

    name: str  # in CloudWatch, empty: it is not there
    kind: Kind
    unit: str  # CloudWatch's
    otel: str  # its name in OpenTelemetry
    otel_unit: str  # OpenTelemetry's
    does: str  # what it counts or measures
    attributes: Mapping[str, str] = field(default_factory=dict, compare=False)  # the same for each value
    factor: float = 1.0  # converts a value for OpenTelemetry


# With each value of a drain: what its batches are to the conventions.
_PROCESS = {"messaging.operation.name": "process", "messaging.operation.type": "process"}


def _count(name: str, otel: str, unit: str, does: str, **attributes: str) -> Instrument:
    given = {key.replace("_", "."): value for key, value in attributes.items()}
    return Instrument(name, "counter", "Count", otel, unit, does, given)


def _seconds(name: str, kind: Kind, otel: str, does: str, **more: Any) -> Instrument:
    return Instrument(name, kind, "Seconds", otel, "s", does, **more)


# What a drain does, by `Drain`.
INVOCATIONS = _count("Invocations", "regworkers.drain.batches", "{batch}", "batches, as a Lambda's calls")
MESSAGES = Instrument(
    "MessagesReceived",
    "counter",
    "Count",
    "messaging.client.consumed.messages",
    "{message}",
    "messages or stream records received",
    {"messaging.operation.name": "receive", "messaging.operation.type": "receive"},
)
BATCH_DURATION = _seconds(
    "BatchDuration",
    "histogram",
    "messaging.process.duration",
    "from the receive of a batch to its acknowledgement",
    attributes=_PROCESS,
)
RECEIVED = _count("Received", "regworkers.drain.items", "{item}", "items", regworkers_outcome="received")
DONE = _count("Done", "regworkers.drain.items", "{item}", "items done", regworkers_outcome="done")
FAILED = _count("Failed", "regworkers.drain.items", "{item}", "items failed", regworkers_outcome="failed")
LAG = _seconds("Lag", "histogram", "regworkers.drain.lag", "from an entry's change until it was saved")
DRAIN_SECONDS = _seconds("Duration", "histogram", "regworkers.drain.duration", "of a whole drain")
DEPENDENCY_DOWN = _count(
    "DependencyDown", "regworkers.drain.dependency_down", "{drain}", "drains that a dependency ended"
)
UNSENT = _count(
    "FailedDeadLetterSends", "regworkers.dead_letters.unsent", "{message}", "dead letters not confirmed"
)
# Also by `Dependency`.
RETRIES = _count("Retries", "regworkers.dependency.retries", "{call}", "calls repeated")
THROTTLES = _count("Throttles", "regworkers.dependency.throttles", "{call}", "calls refused because of load")
CONCURRENCY = Instrument(
    "ConcurrentExecutions", "gauge", "Count", "regworkers.drain.running", "{drain}", "drains at work"
)

# How runs of a job end, by `Job`.
RUNS_SUCCEEDED = _count("RunsSucceeded", "regworkers.runs", "{run}", "runs", regworkers_outcome="succeeded")
RUNS_FAILED = _count("RunsFailed", "regworkers.runs", "{run}", "runs", regworkers_outcome="failed")
RUN_SECONDS = _seconds("RunDuration", "histogram", "regworkers.run.duration", "of a run")

# What the environment, a queue (`Queue`) or the stream (`TableName`; also by `StreamLabel`) is like. Published by each
# evaluation of the alerts: its absence is the alarm.
EVALUATED = _count(
    "AlertsEvaluated", "regworkers.alerts.evaluations", "{evaluation}", "evaluations of alerts"
)
# One value for each `Objective`.
BUDGET_LEFT = Instrument(
    "ErrorBudgetLeft", "gauge", "Percent", "regworkers.objective.budget_left", "%", "of an objective's budget"
)
OLDEST_MESSAGE = _seconds("OldestMessageAge", "gauge", "regworkers.queue.oldest_message", "its age")
DATA_LOSS = _seconds("TimeToDataLoss", "gauge", "regworkers.queue.time_to_loss", "until it expires")
ITERATOR_AGE = Instrument(
    "GetRecords.IteratorAgeMilliseconds",
    "gauge",
    "Milliseconds",
    "regworkers.stream.iterator_age",
    "s",
    "age of the oldest record that no checkpoint covers",
    factor=0.001,
)

# Verdicts of checkEligibility. What else there is to count, AWS counts of the function.
UNKNOWN_VERDICTS = _count(
    "UnknownVerdicts", "regworkers.eligibility.unknown", "{verdict}", "checks answered UNKNOWN"
)

# Calls to a queue or topic. CloudWatch has the first from SQS itself and the second not at all: only OpenTelemetry
# gets them from here.
SENT = Instrument(
    "NumberOfMessagesSent",
    "counter",
    "Count",
    "messaging.client.sent.messages",
    "{message}",
    "messages that the queue or the brokers confirmed, or did not (`error.type`)",
    {"messaging.operation.name": "send", "messaging.operation.type": "send"},
)
OPERATION = _seconds("", "histogram", "messaging.client.operation.duration", "of a call to a queue")
# The cache of campaigns. The function that asks it most publishes in CloudWatch only what has an alarm.
CACHE_FALLBACKS = _count("", "regworkers.cache.fallbacks", "{call}", "calls that Redis did not serve")

INSTRUMENTS = (
    INVOCATIONS, MESSAGES, BATCH_DURATION, RECEIVED, DONE, FAILED, LAG, DRAIN_SECONDS, DEPENDENCY_DOWN, UNSENT,
    RETRIES, THROTTLES, CONCURRENCY, RUNS_SUCCEEDED, RUNS_FAILED, RUN_SECONDS, EVALUATED, OLDEST_MESSAGE,
    DATA_LOSS, ITERATOR_AGE, BUDGET_LEFT, UNKNOWN_VERDICTS, SENT, OPERATION, CACHE_FALLBACKS,
)  # fmt: skip

# CloudWatch's dimensions as OpenTelemetry's attributes. The resource has the environment.
_ATTRIBUTES = {
    "Drain": "regworkers.drain",
    "Dependency": "regworkers.dependency",
    "Job": "regworkers.job",
    "Objective": "regworkers.objective",
    "Queue": "messaging.destination.name",
    "TableName": "aws.dynamodb.table_name",
    "StreamLabel": "aws.dynamodb.stream_label",
}


class Histogram(Protocol):
    """Durations in seconds with their numbers."""

    def buckets(self) -> Mapping[float, int]: ...


@dataclass(frozen=True, slots=True)
class Metering:
    """A value of an instrument, with its dimensions in CloudWatch's words; of a histogram one value, or several."""

    instrument: Instrument
    value: float | Histogram  # in the unit of the instrument
    dimensions: Mapping[str, str] = field(default_factory=dict)  # names and values, in CloudWatch's order
    # What messages come from, for OpenTelemetry.
    system: str = "aws_sqs"


def export(reading: Metering, **more: str) -> None:
    """Give a reading to OpenTelemetry, with further attributes: `messaging_system="kafka"`. Costs next to nothing
    without an exporter.
    """
    instrument, value = reading.instrument, reading.value
    attributes = {_ATTRIBUTES[name]: text for name, text in reading.dimensions.items()}
    if instrument.otel.startswith("messaging."):
        attributes["messaging.system"] = reading.system
    attributes |= instrument.attributes
    attributes |= {name.replace("_", "."): text for name, text in more.items()}
    target = _target(instrument.otel, instrument.kind, instrument.otel_unit)
    if isinstance(value, int | float):
        getattr(target, _METHODS[instrument.kind])(value * instrument.factor, attributes)
        return
    for seconds, times in value.buckets().items():
        for _ in range(times):
            target.record(seconds * instrument.factor, attributes)


_METHODS: Mapping[Kind, str] = {"counter": "add", "gauge": "set", "histogram": "record"}


@cache
def _target(name: str, kind: Kind, unit: str) -> Any:
    return getattr(metrics.get_meter("regworkers"), f"create_{kind}")(name, unit=unit)


def sent(system: str, destination: str, confirmed: int, failed: int) -> None:
    """Messages that a queue or topic confirmed, and those that it did not."""
    for number, more in ((confirmed, {}), (failed, {"error_type": "not_confirmed"})):
        if number:
            export(Metering(SENT, number, {"Queue": destination}), messaging_system=system, **more)


@contextmanager
def operation(name: str, queue: str) -> Iterator[None]:
    """Measures a call to a queue: `send`, `receive`, `delete`."""
    began, more = time.perf_counter(), {}
    try:
        yield
    except Exception as error:
        more = {"error_type": type(error).__name__}
        raise
    finally:
        seconds = time.perf_counter() - began
        export(Metering(OPERATION, seconds, {"Queue": queue}), messaging_operation_name=name, **more)
