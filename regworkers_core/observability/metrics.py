"""Every metric of the workers, once. CloudWatch gets them, by `adapters/aws/cloudwatch.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric in CloudWatch."""

    name: str
    unit: str
    does: str  # what it counts or measures


def _count(name: str, does: str) -> Instrument:
    return Instrument(name, "Count", does)


def _seconds(name: str, does: str) -> Instrument:
    return Instrument(name, "Seconds", does)


# What a drain does, by `Drain`.
INVOCATIONS = _count("Invocations", "batches, as a Lambda's calls")
MESSAGES = _count("MessagesReceived", "messages or stream records received")
BATCH_DURATION = _seconds("BatchDuration", "from the receive of a batch to its acknowledgement")
RECEIVED = _count("Received", "items")
DONE = _count("Done", "items done")
FAILED = _count("Failed", "items failed")
LAG = _seconds("Lag", "from an entry's change until it was saved")
DRAIN_SECONDS = _seconds("Duration", "of a whole drain")
DEPENDENCY_DOWN = _count("DependencyDown", "drains that a dependency ended")
UNSENT = _count("FailedDeadLetterSends", "dead letters not confirmed")
# Also by `Dependency`.
RETRIES = _count("Retries", "calls repeated")
THROTTLES = _count("Throttles", "calls refused because of load")
CONCURRENCY = _count("ConcurrentExecutions", "drains at work")

# How runs of a job end, by `Job`.
RUNS_SUCCEEDED = _count("RunsSucceeded", "runs")
RUNS_FAILED = _count("RunsFailed", "runs")
RUN_SECONDS = _seconds("RunDuration", "of a run")

# What the environment, a queue (`Queue`) or the stream (`TableName`; also by `StreamLabel`) is like. Published by each
# evaluation of the alerts: its absence is the alarm.
EVALUATED = _count("AlertsEvaluated", "evaluations of alerts")
# One value for each `Objective`.
BUDGET_LEFT = Instrument("ErrorBudgetLeft", "Percent", "of an objective's budget")
OLDEST_MESSAGE = _seconds("OldestMessageAge", "its age")
DATA_LOSS = _seconds("TimeToDataLoss", "until it expires")
ITERATOR_AGE = Instrument(
    "GetRecords.IteratorAgeMilliseconds",
    "Milliseconds",
    "age of the oldest record that no checkpoint covers",
)

# Verdicts of checkEligibility. What else there is to count, AWS counts of the function.
UNKNOWN_VERDICTS = _count("UnknownVerdicts", "checks answered UNKNOWN")

INSTRUMENTS = (
    INVOCATIONS, MESSAGES, BATCH_DURATION, RECEIVED, DONE, FAILED, LAG, DRAIN_SECONDS, DEPENDENCY_DOWN, UNSENT,
    RETRIES, THROTTLES, CONCURRENCY, RUNS_SUCCEEDED, RUNS_FAILED, RUN_SECONDS, EVALUATED, OLDEST_MESSAGE,
    DATA_LOSS, ITERATOR_AGE, BUDGET_LEFT, UNKNOWN_VERDICTS,
)  # fmt: skip


class Histogram(Protocol):
    """Durations in seconds with their numbers."""

    def buckets(self) -> Mapping[float, int]: ...


@dataclass(frozen=True, slots=True)
class Metering:
    """A value of an instrument, with its dimensions; of durations one value, or several."""

    instrument: Instrument
    value: float | Histogram  # in the unit of the instrument
    dimensions: Mapping[str, str] = field(default_factory=dict)  # names and values, in CloudWatch's order
