"""Services that answer at once and store nothing, so that only the drain's own memory can grow.

The product's adapters use them like botocore's and pymongo's clients.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import orjson

from regworkers_core.adapters.aws.streams import ListingPage, Shard, StreamPage, StreamRecord
from regworkers_core.adapters.aws.tables import attributes
from regworkers_core.domain.entry import Order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import MessageType, Op, ReplicationItem, encode
from regworkers_core.engine.leases import LeaseKey, LeaseRow

ITEMS = 100
_AT = "2026-11-01T00:00:00.000Z"


def _item(key: EntryKey) -> dict[str, Any]:
    return attributes(
        {
            "PK": key.pk,
            "SK": key.sk,
            "entityType": "ENTRY",
            "campaignId": key.campaign_id,
            "entryId": key.entry_id,
            "ref": uuid.uuid4().hex,
            "email": f"{key.entry_id}@example.com",
            "firstName": "Zoë",
            "lastName": "Łukasz",
            "markets": ["berlin", "paris", "warsaw"],
            "attributes": {"source": "web", "newsletter": True},
            "version": 1,
            "createdAt": _AT,
            "updatedAt": _AT,
            "correlationId": uuid.uuid4().hex,
            "needsReplication": True,
        }
    )


def _key(number: int) -> EntryKey:
    return EntryKey("aurora-world-tour", f"{number:012d}")


class FakeSqs:
    """A queue with `entries` keys in it, 100 a message, generated when they are received."""

    def __init__(self, entries: int) -> None:
        self._starts = iter(range(0, entries, ITEMS))
        self._entries = entries

    def get_queue_url(self, **_: Any) -> dict[str, str]:
        return {"QueueUrl": "fake"}

    def receive_message(self, MaxNumberOfMessages: int, **_: Any) -> dict[str, Any]:
        starts = itertools.islice(self._starts, MaxNumberOfMessages)
        return {"Messages": [self._message(start) for start in starts]}

    def _message(self, start: int) -> dict[str, Any]:
        numbers = range(start, min(start + ITEMS, self._entries))
        items = [ReplicationItem(_key(number), Op.UPSERT, Order(_AT, 1, _AT)).as_json() for number in numbers]
        name = uuid.uuid4().hex
        body = encode(MessageType.REPLICATE, name, items).decode()
        return {"MessageId": name, "ReceiptHandle": name, "Body": body}

    def send_message_batch(self, Entries: list[Any], **_: Any) -> dict[str, Any]:
        return {"Successful": [{"Id": entry["Id"]} for entry in Entries]}

    def delete_message_batch(self, Entries: list[Any], **_: Any) -> dict[str, Any]:
        return {"Successful": [{"Id": entry["Id"]} for entry in Entries]}

    def change_message_visibility_batch(self, Entries: list[Any], **_: Any) -> dict[str, Any]:
        return {"Successful": [{"Id": entry["Id"]} for entry in Entries]}


class FakeDynamo:
    """Has every requested entry; answers are serialised to JSON and back, as on the wire."""

    def batch_get_item(self, RequestItems: Mapping[str, Any]) -> Any:
        responses = {
            table: [
                _item(EntryKey(key["PK"]["S"].partition("#")[2], key["SK"]["S"].partition("#")[2]))
                for key in request["Keys"]
            ]
            for table, request in RequestItems.items()
        }
        return orjson.loads(orjson.dumps({"Responses": responses}))

    def batch_execute_statement(self, Statements: list[Any]) -> Any:
        return {"Responses": [{} for _ in Statements]}


class FakeCollection:
    """Takes every write; knows every campaign."""

    def bulk_write(self, operations: list[Any], ordered: bool) -> Any:
        return SimpleNamespace(matched_count=0, upserted_count=len(operations))

    def find(self, query: Mapping[str, Any], *_: Any, **__: Any) -> list[dict[str, Any]]:
        return [{"_id": id_} for id_ in query["_id"]["$in"]]


class FakeStreams:
    """One shard with one new entry per record, generated when it is read."""

    table_name = "fake"

    def __init__(self, entries: int) -> None:
        self._entries = entries

    def latest_stream(self) -> str:
        return "arn"

    def listing(self, stream_arn: str, after: str | None = None) -> ListingPage:
        return ListingPage([Shard("shard-0")], None)

    def children(self, stream_arn: str, shard_id: str) -> list[Shard]:
        return []

    def iterator(self, stream_arn: str, shard_id: str, after: str | None) -> str:
        return str(int(after or -1) + 1)

    def read(self, shard_id: str, iterator: str, limit: int) -> StreamPage:
        start = int(iterator)
        end = min(start + limit, self._entries)
        return StreamPage([self._record(shard_id, number) for number in range(start, end)], str(end))

    def _record(self, shard_id: str, number: int) -> StreamRecord:
        item = _item(_key(number))
        return StreamRecord(shard_id, str(number), "INSERT", {n: item[n] for n in ("PK", "SK")}, item)


class FakeLeases:
    """A lease table without other writers."""

    def __init__(self) -> None:
        self._rows: dict[LeaseKey, LeaseRow] = {}

    def get(self, key: LeaseKey) -> LeaseRow | None:
        return self._rows.get(key)

    def rows(self, pk: str) -> list[LeaseRow]:
        # The shards are listed in a thread of their own.
        return [row for key, row in list(self._rows.items()) if key.pk == pk]

    def swap(self, row: LeaseRow, seen: LeaseRow | None) -> bool:
        self._rows[row.key] = row
        return True

    def renew(
        self,
        key: LeaseKey,
        owner: str,
        token: int,
        state: Mapping[str, str] | None = None,
        position: str = "",
    ) -> bool:
        row = self._rows[key]
        self._rows[key] = replace(
            row,
            counter=row.counter + 1,
            state=row.state if state is None else state,
            position=position or row.position,
        )
        return True

    def release(self, key: LeaseKey, owner: str, token: int) -> bool:
        self._rows[key] = replace(self._rows[key], owner="")
        return True

    def remove(self, seen: LeaseRow) -> bool:
        return self._rows.pop(seen.key, None) is not None
