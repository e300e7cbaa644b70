"""What a million entries cost on AWS, from the calls that were counted and list prices.

Prices of us-east-1 as last known in November 2026, without free tiers and discounts: look them up before you
rely on a figure. What is stored, moved or idle, and MongoDB, are not in it.
"""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.replication.counting import Bill

PRICES_AS_OF = "November 2026"
SQS_REQUEST = 0.40 / 1e6
DYNAMODB_WRITE_UNIT = 0.625 / 1e6
DYNAMODB_READ_UNIT = 0.125 / 1e6
STREAM_READ = 0.02 / 1e5
LAMBDA_INVOCATION = 0.20 / 1e6
LAMBDA_GB_SECOND = 0.0000166667
FARGATE_VCPU_SECOND = 0.04048 / 3600
FARGATE_GB_SECOND = 0.004445 / 3600

# Assumed of a drain: 1 vCPU and 2 GB, at the rate that was measured here.
DRAIN_VCPU, DRAIN_GB = 1.0, 2.0
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
    return _services(bill, entries, stream_reads=2.0) | {
        "compute": seconds * (DRAIN_VCPU * FARGATE_VCPU_SECOND + DRAIN_GB * FARGATE_GB_SECOND)
    }


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
