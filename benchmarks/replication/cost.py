"""What a million entries cost on AWS, from the calls that were counted and list prices.

What is stored, moved or idle, and MongoDB, are not in it.
"""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.replication.counting import Bill
from regworkers_core.operations.runbooks.cost import (
    DRAIN_SECOND,
    DYNAMODB_READ_UNIT,
    DYNAMODB_WRITE_UNIT,
    LAMBDA_GB_SECOND,
    LAMBDA_INVOCATION,
    SQS_REQUEST,
    STREAM_READ,
)

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
