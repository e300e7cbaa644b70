"""(c) What the product replaces: a handler for each event of ten, get and update one by one.

Each message is handled whole before the next: get, update, event, clear. The event comes before the flag is
cleared, because a handler that dies between the two must not lose it; the product keeps the same order.
In its favour: records are read a thousand at a time, the ten messages go out, and are deleted, in one call
each; starts cost nothing; handlers run in as many threads as the product's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson

from benchmarks.replication.counting import BareClients, CallCounter
from benchmarks.replication.data import Item, write
from benchmarks.replication.product import Timed
from regworkers_core.adapters.aws.tables import plain_item
from regworkers_core.runtime import Runtime

BATCH = 10
_AT = "2026-11-01T00:00:00.000Z"


class Handlers:
    name = "handlers"

    def __init__(self, runtime: Runtime, counter: CallCounter) -> None:
        self._runtime, self.counter = runtime, counter
        self._clients = BareClients(runtime, counter)
        self._replication = self._url(runtime.names.replication_queue)
        self._analytics = self._url(runtime.names.analytics_queue)
        self._iterator = ""
        self._expected = 0

    def load(self, items: Sequence[Item]) -> None:
        write(self._runtime, items)
        self._expected = len(items)

    def run(self) -> Timed:
        started = time.monotonic()
        self._enqueue()
        enqueued = time.monotonic()
        with ThreadPoolExecutor(self._runtime.settings.save.concurrency) as pool:
            list(pool.map(lambda _: self._save_handler(), range(self._expected // BATCH)))
        return Timed(enqueued - started, time.monotonic() - enqueued)

    def _enqueue(self) -> None:
        iterator = self._iterator or self._horizon()
        with ThreadPoolExecutor(self._runtime.settings.enqueue.concurrency) as pool:
            handled = []
            read = 0
            while read < self._expected:
                answer = self._clients.streams.get_records(ShardIterator=iterator, Limit=1000)
                records, iterator = answer["Records"], answer["NextShardIterator"]
                read += len(records)
                events = [records[i : i + BATCH] for i in range(0, len(records), BATCH)]
                handled += [pool.submit(self._enqueue_handler, event) for event in events]
            for future in handled:
                future.result()
        self._iterator = iterator

    def _enqueue_handler(self, records: Sequence[Any]) -> None:
        self._send(self._replication, [_message(record["dynamodb"]["Keys"]) for record in records])

    def _save_handler(self) -> None:
        received = self._clients.sqs.receive_message(
            QueueUrl=self._replication, MaxNumberOfMessages=BATCH, WaitTimeSeconds=1
        )["Messages"]
        for message in received:
            self._save_one(orjson.loads(message["Body"]))
        self._clients.sqs.delete_message_batch(
            QueueUrl=self._replication,
            Entries=[
                {"Id": str(index), "ReceiptHandle": message["ReceiptHandle"]}
                for index, message in enumerate(received)
            ],
        )

    def _save_one(self, key: dict[str, Any]) -> None:
        dynamodb, table = self._clients.dynamodb, self._runtime.names.demand_table
        item = plain_item(dynamodb.get_item(TableName=table, Key=key, ConsistentRead=True)["Item"])
        fields = {name: value for name, value in item.items() if name not in ("PK", "SK")}
        document_id = f"{item['campaignId']}:{item['entryId']}"
        self._runtime.database["entries"].update_one({"_id": document_id}, {"$set": fields}, upsert=True)
        event = {
            "subject": document_id,
            "type": "entry.replicated",
            "time": _AT,
            "markets": item["markets"],
        }
        self._clients.sqs.send_message(QueueUrl=self._analytics, MessageBody=orjson.dumps(event).decode())
        dynamodb.update_item(
            TableName=table,
            Key=key,
            UpdateExpression="SET needsReplication = :no, replicatedVersion = :version, replicatedAt = :at",
            ConditionExpression="version = :version",
            ExpressionAttributeValues={
                ":no": {"BOOL": False},
                ":version": {"N": str(item["version"])},
                ":at": {"S": _AT},
            },
        )

    def _send(self, url: str, bodies: Sequence[str]) -> None:
        entries = [{"Id": str(index), "MessageBody": body} for index, body in enumerate(bodies)]
        self._clients.sqs.send_message_batch(QueueUrl=url, Entries=entries)

    def _horizon(self) -> str:
        arn = self._runtime.streams.latest_stream()
        (shard,) = self._runtime.streams.listing(arn).shards
        return self._runtime.streams.iterator(arn, shard.shard_id, None)

    def _url(self, queue: str) -> str:
        return str(self._clients.sqs.get_queue_url(QueueName=queue)["QueueUrl"])


def _message(keys: Any) -> str:
    return orjson.dumps(keys).decode()
