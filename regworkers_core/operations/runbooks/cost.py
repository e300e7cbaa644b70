"""Cost of a period: calls for a million entries, by drain and by service, and their list price.

The calls are from `drain_log`. SQS bills each 64 KB of a request, so its price is a lower bound. DynamoDB bills items,
not calls: one read for each saved item, and two writes for each entry, its own (which the registration makes) and that
of its cleared flag. Each of both is a record of the stream, whose reads are billed by the call. List prices of AWS in
dollars, without free tiers and discounts, show orders of magnitude. Of CloudWatch all counts (alarms, metrics, log
lines); storage, traffic, idle servers and MongoDB are not included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from regworkers_core.adapters.aws.answers import AwsRefusal
from regworkers_core.domain.activity import DrainWindow
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.operation import Remark, Report
from regworkers_core.operations.cloudwatch import WatchingCost, watching_cost
from regworkers_core.operations.health.activity import DAY_SECONDS, Activity
from regworkers_core.operations.runbook import Row, runbook_report
from regworkers_core.replication.drains import SAVE
from regworkers_core.runtime import Runtime

PRICES_AS_OF = "November 2026"
PRICES_REGION = "us-east-1"

# For each 64 KB of a request.
SQS_REQUEST = 0.40 / 1e6
# On demand; up to 1 KB.
DYNAMODB_WRITE_UNIT = 0.625 / 1e6
# On demand; consistent, up to 4 KB.
DYNAMODB_READ_UNIT = 0.125 / 1e6
STREAM_READ = 0.02 / 1e5
S3_REQUEST = 0.005 / 1e3
# PutMetricData and others.
CLOUDWATCH_REQUEST = 0.01 / 1e3
LAMBDA_INVOCATION = 0.20 / 1e6
LAMBDA_GB_SECOND = 0.0000166667
FARGATE_VCPU_SECOND = 0.04048 / 3600
FARGATE_GB_SECOND = 0.004445 / 3600

# A drain's run is assumed to have 1 vCPU and 2 GB.
DRAIN_VCPU, DRAIN_GB = 1.0, 2.0
DRAIN_SECOND = DRAIN_VCPU * FARGATE_VCPU_SECOND + DRAIN_GB * FARGATE_GB_SECOND

MILLION = 1_000_000
# What a save can do with an entry, besides returning or dead-lettering it.
_SAVED = ("applied", "removed", "unchanged", "stale", "gone")
# Those of them that clear a flag in the source.
_CLEARED = ("applied", "unchanged")
# The entry itself, and its cleared flag: both in the partition of its campaign, both records of the stream.
WRITES_PER_ENTRY = 2
_CALL_PRICES: Mapping[str, float] = {
    "sqs": SQS_REQUEST,
    "streams": STREAM_READ,
    "s3": S3_REQUEST,
    "cloudwatch": CLOUDWATCH_REQUEST,
}
# An idle drain is paid for; a shorter run says nothing.
_IDLE_MINUTES = 60
# About 150 dollars a month.
_MANY_BYTES_A_DAY = 10e9


def run(runtime: Runtime, *, days: float = 7.0) -> Report:
    """The cost of the last `days`. Raises TransientFailure."""
    watching, unread = readable_watching(runtime, days)
    return assess(Activity(runtime).last(days * DAY_SECONDS), days, watching, unread)


class Watching(NamedTuple):
    cost: WatchingCost | None
    unread: str = ""


def readable_watching(runtime: Runtime, days: float) -> Watching:
    """What CloudWatch costs; or why that could not be read, which hides no other cost."""
    try:
        return Watching(watching_cost(runtime, days))
    except (TransientFailure, UsageError) as error:
        return Watching(None, str(error))
    except AwsRefusal as error:
        return Watching(None, f"AWS refuses {error.operation_name} ({error.code})")


def assess(
    by_drain: Mapping[str, DrainWindow], days: float, watching: WatchingCost | None = None, unread: str = ""
) -> Report:
    """`watching` is what CloudWatch costs; None: left out, because of `unread`."""
    entries = _counted(by_drain, _SAVED)
    calls: Counter[str] = Counter()
    for each in by_drain.values():
        calls.update(each.calls)
    dollars = _dollars(by_drain, calls)
    standing = 0.0
    if watching is not None:
        dollars["cloudwatch"] = dollars.get("cloudwatch", 0.0) + watching.line_dollars(days)
        standing = watching.standing_dollars(days)
    facts: dict[str, object] = {
        "days": days,
        "entries": entries,
        "dollars": round(sum(dollars.values()) + standing, 4),
        # Alarms and metrics cost the same without entries, so they are not in the price of a million.
        "standingDollars": round(standing, 4),
        "dollarsPerMillionEntries": _per_million(sum(dollars.values()), entries),
        "callsPerMillionEntries": _per_million(calls.total(), entries, 0),
        "tableWrites": _writes(by_drain),
        "streamRecords": _writes(by_drain) + _counted(by_drain, ("removed",)),
        "pricesOf": f"{PRICES_AS_OF}, {PRICES_REGION}, list prices",
        "notIn": "storage, traffic, idle servers, MongoDB, Redis, Kafka"
        + ("" if watching else f", CloudWatch ({unread or 'not asked'})"),
        **(watching.facts() if watching else {}),
    }
    tables: dict[str, Sequence[Row]] = {
        "services": [_service(name, calls, dollars, entries) for name in sorted({*calls, *dollars})],
        "drains": [
            {
                "drain": name,
                "hours": round(each.running_seconds / 3600, 3),
                "items": each.counts["received"],
                "calls": each.calls.total(),
                "callsPerItem": round(each.calls.total() / each.counts["received"], 3)
                if each.counts["received"]
                else None,
                "computeDollars": round(each.running_seconds * DRAIN_SECOND, 4),
            }
            for name, each in sorted(by_drain.items())
        ],
    }
    if not by_drain:
        summary = f"no drain was at work within {days:g} days, so there is nothing to bill"
    elif not entries:
        summary = f"{facts['dollars']} dollars within {days:g} days, and no entry was saved"
    else:
        price = facts["dollarsPerMillionEntries"]
        summary = f"{price} dollars for a million entries, from {entries} within {days:g} days"
    return runbook_report("cost", summary, facts, tables, (*_findings(by_drain), *_of_logs(watching)))


def _counted(by_drain: Mapping[str, DrainWindow], outcomes: Sequence[str]) -> int:
    saved = by_drain.get(SAVE.name)
    return sum(saved.counts[name] for name in outcomes) if saved else 0


def _writes(by_drain: Mapping[str, DrainWindow]) -> int:
    return WRITES_PER_ENTRY * _counted(by_drain, _CLEARED)


def _dollars(by_drain: Mapping[str, DrainWindow], calls: Counter[str]) -> dict[str, float]:
    found = {name: calls[name] * price for name, price in _CALL_PRICES.items() if calls[name]}
    saved = by_drain.get(SAVE.name)
    if saved is not None:
        # A second look is eventually consistent: half a unit.
        read = (saved.counts["received"] + saved.counts["second_look"] / 2) * DYNAMODB_READ_UNIT
        found["dynamodb"] = read + _writes(by_drain) * DYNAMODB_WRITE_UNIT
    found["compute"] = sum(each.running_seconds for each in by_drain.values()) * DRAIN_SECOND
    return found


def _service(name: str, calls: Counter[str], dollars: Mapping[str, float], entries: int) -> Row:
    known = dollars.get(name)
    return {
        "service": name,
        "calls": calls[name] or None,
        "callsPerMillion": _per_million(calls[name], entries, 0) if calls[name] else None,
        "dollars": None if known is None else round(known, 4),
        "dollarsPerMillion": None if known is None else _per_million(known, entries),
    }


def _per_million(number: float, entries: int, digits: int = 3) -> float | None:
    return round(number * MILLION / entries, digits) if entries else None


def _findings(by_drain: Mapping[str, DrainWindow]) -> list[Remark]:
    return [
        Remark(
            "finding",
            f"{name} ran for {each.running_seconds / 3600:.1f} hours and took fewer than one item a minute",
            "lower drain.residentIdleSeconds: its sensor starts it when there is work",
        )
        for name, each in sorted(by_drain.items())
        if each.minutes >= _IDLE_MINUTES and each.counts["received"] < each.minutes
    ]


def _of_logs(watching: WatchingCost | None) -> Iterator[Remark]:
    if watching is None:
        return
    if watching.log_level == "DEBUG":
        yield Remark(
            "finding",
            "every process logs at level DEBUG",
            "set observability.logLevel to INFO once it is no longer needed",
        )
    if watching.retention_days is None and watching.stored_bytes:
        yield Remark(
            "finding",
            "CloudWatch keeps log lines for ever",
            "`regworkers provision --apply` sets observability.logRetentionDays",
        )
    if watching.ingested_bytes and watching.ingested_bytes / watching.days > _MANY_BYTES_A_DAY:
        yield Remark(
            "finding",
            f"CloudWatch takes in {watching.ingested_bytes / watching.days / 1e9:.1f} GB of log lines a day",
            "lower observability.entryLogRate: it takes whole entries",
        )
