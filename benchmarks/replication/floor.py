"""(a) The floor: as many service calls of full batches as the drains make, by bare clients, without logic.

Every request is built before the clock starts. The threads are those of the drains: a reader that hands
over to senders, then savers that each receive, read, write, send the event, clear the flag and delete.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import orjson
from pymongo import UpdateOne

from benchmarks.replication.counting import BareClients, CallCounter
from benchmarks.replication.data import Item, write
from benchmarks.replication.product import Timed
from regworkers_core.adapters.aws.tables import attribute
from regworkers_core.domain.events import EventType
from regworkers_core.runtime import Runtime

RECORDS = 1000
KEYS = 100
STATEMENTS = 25
_AT = "2026-11-01T00:00:00.000Z"
_HEX64, _HEX32 = "0" * 64, "0" * 32


@dataclass(slots=True)
class _Unit:
    """The requests for 1,000 entries."""

    messages: list[dict[str, Any]]
    gets: list[dict[str, Any]]
    bulk: list[UpdateOne]
    events: list[dict[str, Any]]
    clears: list[list[dict[str, Any]]]


class Floor:
    name = "floor"

    def __init__(self, runtime: Runtime, counter: CallCounter) -> None:
        self._runtime, self.counter = runtime, counter
        self._clients = BareClients(runtime, counter)
        self._replication = self._url(runtime.names.replication_queue)
        self._analytics = self._url(runtime.names.analytics_queue)
        self._iterator = ""
        self._units: list[_Unit] = []

    def load(self, items: Sequence[Item]) -> None:
        write(self._runtime, items)
        self._units = [self._unit(items[i : i + RECORDS]) for i in range(0, len(items), RECORDS)]

    def run(self) -> Timed:
        started = time.monotonic()
        self._enqueue()
        enqueued = time.monotonic()
        with ThreadPoolExecutor(self._runtime.settings.save.concurrency) as pool:
            list(pool.map(self._save, self._units))
        return Timed(enqueued - started, time.monotonic() - enqueued)

    def _enqueue(self) -> None:
        iterator = self._iterator or self._horizon()
        expected, read = sum(len(unit.bulk) for unit in self._units), 0
        units = iter(self._units)
        with ThreadPoolExecutor(self._runtime.settings.enqueue.concurrency) as pool:
            sends = []
            while read < expected:
                # A page ends at 1,000 records or at 1 MB, which makes a page or two more than units.
                answer = self._clients.streams.get_records(ShardIterator=iterator, Limit=RECORDS)
                iterator = answer["NextShardIterator"]
                read += len(answer["Records"])
                if (unit := next(units, None)) is not None:
                    sends.append(pool.submit(self._send, self._replication, unit.messages))
            for send in sends:
                send.result()
        self._iterator = iterator

    def _save(self, unit: _Unit) -> None:
        clients, settings = self._clients, self._runtime.settings
        received = clients.sqs.receive_message(
            QueueUrl=self._replication,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=1,
            VisibilityTimeout=settings.save.visibility_seconds,
            MessageAttributeNames=["All"],
            AttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
        )["Messages"]
        for get in unit.gets:
            clients.dynamodb.batch_get_item(RequestItems=get)
        self._runtime.database["entries"].bulk_write(unit.bulk, ordered=False)
        self._send(self._analytics, unit.events)
        for statements in unit.clears:
            clients.dynamodb.batch_execute_statement(Statements=statements)
        clients.sqs.delete_message_batch(
            QueueUrl=self._replication,
            Entries=[
                {"Id": str(index), "ReceiptHandle": message["ReceiptHandle"]}
                for index, message in enumerate(received)
            ],
        )

    def _send(self, url: str, entries: list[dict[str, Any]]) -> None:
        self._clients.sqs.send_message_batch(QueueUrl=url, Entries=entries)

    def _horizon(self) -> str:
        arn = self._runtime.streams.latest_stream()
        (shard,) = self._runtime.streams.listing(arn).shards
        return self._runtime.streams.iterator(arn, shard.shard_id, None)

    def _url(self, queue: str) -> str:
        return str(self._clients.sqs.get_queue_url(QueueName=queue)["QueueUrl"])

    def _unit(self, items: Sequence[Item]) -> _Unit:
        table = self._runtime.names.demand_table
        runs = [items[i : i + KEYS] for i in range(0, len(items), KEYS)]
        return _Unit(
            messages=_entries([[_key_item(item) for item in run] for run in runs], "entries.replicate"),
            gets=[
                {
                    table: {
                        "Keys": [{"PK": {"S": item["PK"]}, "SK": {"S": item["SK"]}} for item in run],
                        "ConsistentRead": True,
                    }
                }
                for run in runs
            ],
            bulk=[_update_one(item) for item in items],
            events=_entries([[_event(item) for item in run] for run in runs], "analytics.publish"),
            clears=[
                [_clear(table, item) for item in items[i : i + STATEMENTS]]
                for i in range(0, len(items), STATEMENTS)
            ],
        )


def _entries(runs: Sequence[Sequence[Any]], kind: str) -> list[dict[str, Any]]:
    attributes = {
        "correlationId": {"DataType": "String", "StringValue": _HEX32},
        "attempt": {"DataType": "String", "StringValue": "1"},
    }
    return [
        {
            "Id": str(index),
            "MessageBody": orjson.dumps(
                {"type": kind, "version": 1, "correlationId": _HEX32, "items": run}
            ).decode(),
            "MessageAttributes": attributes,
        }
        for index, run in enumerate(runs)
    ]


def _key_item(item: Item) -> dict[str, Any]:
    order = {name: item[name] for name in ("version", "createdAt", "updatedAt")}
    return {"pk": item["PK"], "sk": item["SK"], "op": "upsert", **order}


def _update_one(item: Item) -> UpdateOne:
    """The shape that the replica has in the end, under a plain filter."""
    fields = {
        key: value for key, value in item.items() if key not in ("PK", "SK", "entityType", "needsReplication")
    }
    absent = ("memberId", "unit", "weight", "segments", "deletedAt")
    custody = {
        **{name: item[name] for name in ("createdAt", "version", "updatedAt")},
        "replicatedAt": _AT,
        "messageId": _HEX32,
        "runId": _HEX32,
    }
    return UpdateOne(
        {"_id": f"{item['campaignId']}:{item['entryId']}"},
        {
            "$set": {**fields, "_replication": custody},
            "$unset": {name: "" for name in absent if name not in fields},
        },
        upsert=True,
    )


def _event(item: Item) -> dict[str, Any]:
    subject = f"{item['campaignId']}:{item['entryId']}"
    names = ("campaignId", "entryId", "createdAt", "version", "updatedAt", "ref", "markets")
    return {
        "specversion": "1.0",
        "id": _HEX64,
        "source": "regworkers/replication",
        "type": EventType.ENTRY_REPLICATED.value,
        "subject": subject,
        "time": _AT,
        "datacontenttype": "application/json",
        "partitionkey": subject,
        "correlationid": item["correlationId"],
        "data": {
            **{name: item[name] for name in names},
            "segments": item.get("segments", []),
            "replicatedAt": _AT,
        },
    }


def _clear(table: str, item: Item) -> dict[str, Any]:
    """As the product clears a flag: the same statement, since its parsing is the service's work."""
    values = (
        item["version"], _AT, item["PK"], item["SK"], item["createdAt"], item["version"], item["updatedAt"],
    )  # fmt: skip
    return {
        "Statement": f'UPDATE "{table}" SET needsReplication=false SET replicatedVersion=? SET replicatedAt=?'
        ' WHERE PK=? AND SK=? AND "createdAt"=? AND "version"=? AND "updatedAt"=?',
        "Parameters": [attribute(value) for value in values],
    }
