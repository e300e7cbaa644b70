"""The old system: enqueueEntries and saveEntries as they ran on Lambda, entry after entry and without a guard."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from regworkers_core.adapters.aws.streams import StreamRecord
from regworkers_core.adapters.aws.tables import attributes
from regworkers_core.domain.keys import EntryKey
from regworkers_core.runtime import Runtime
from tests.support.entries import source

# What a save stores, as it was planted: the document, or None for no write.
Spoil = Callable[[EntryKey, dict[str, Any]], dict[str, Any] | None]


def as_it_is(_key: EntryKey, document: dict[str, Any]) -> dict[str, Any] | None:
    return document


class Lambdas:
    """As a context manager it works in a thread, as the fleet does; `work` handles what the stream holds by now.
    `spoil` is its mistakes: what it stores instead of a document. `start` is the fleet whose place in the stream it
    takes, as an event source does that is enabled again.
    """

    def __init__(self, runtime: Runtime, spoil: Spoil = as_it_is, *, start: Lambdas | None = None) -> None:
        self._runtime, self._spoil = runtime, spoil
        self._arn = runtime.streams.latest_stream()
        (shard,) = runtime.streams.listing(self._arn).shards
        self._shard, self._last = shard.shard_id, None if start is None else start._last
        self._halt = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lambdas", daemon=True)
        self.saved: Counter[str] = Counter()

    def work(self) -> int:
        """Handle all records that are there; how many counted."""
        handled = 0
        iterator = self._runtime.streams.iterator(self._arn, self._shard, self._last)
        while (page := self._runtime.streams.read(self._shard, iterator, 1000)).records:
            for record in page.records:
                handled += self._handle(record)
                self._last = record.sequence
            iterator = page.next_iterator or ""
        return handled

    def _handle(self, record: StreamRecord) -> bool:
        key = EntryKey.parse(record.keys["PK"]["S"], record.keys["SK"]["S"])
        if key is None:
            return False
        if record.event == "REMOVE":
            if self._spoil(key, {}) is not None:
                self._runtime.database["entries"].delete_one({"_id": key.document_id})
            return True
        image = record.new_image or {}
        if image.get("needsReplication", {}).get("BOOL") is not True:
            return False
        item = source(self._runtime, key)
        if item is None:
            return False
        document = self._spoil(key, {name: value for name, value in item.items() if name not in ("PK", "SK")})
        if document is not None:
            self._runtime.database["entries"].update_one(
                {"_id": key.document_id}, {"$set": document}, upsert=True
            )
        self.saved[key.document_id] += 1
        self._clear(key, item)
        return True

    def _clear(self, key: EntryKey, item: dict[str, Any]) -> None:
        if "version" not in item:
            return
        # If it changed meanwhile, that change has a record of its own.
        with suppress(self._runtime.dynamodb.exceptions.ConditionalCheckFailedException):
            self._runtime.dynamodb.update_item(
                TableName=self._runtime.names.demand_table,
                Key=attributes({"PK": key.pk, "SK": key.sk}),
                UpdateExpression="SET needsReplication = :no",
                ConditionExpression="version = :version",
                ExpressionAttributeValues=attributes({":no": False, ":version": item["version"]}),
            )

    def _run(self) -> None:
        while not self._halt.is_set():
            self.work()
            self._halt.wait(0.02)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """The event source is disabled: what it holds is finished, nothing more is read."""
        self._halt.set()
        self._thread.join()
