"""Stand-ins for DynamoDB Streams, the lease table and SQS, on a clock that only moves when reported."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import EndpointConnectionError

from regworkers_core.adapters.aws.clients import classify_aws
from regworkers_core.adapters.aws.streams import DynamoStreams
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.deadline import Background
from regworkers_core.engine.queue import NotHidden, Outgoing, QueueDepth, Received, SendFailure
from tests.adapters.fakes import client_error, dependency

TABLE = "demand-table"


# Of DynamoDB, as its reference has it.
_LONGEST_NUMBER = 40


def sequence_number(count: int) -> str:
    """Number `count` (from 1) of a growing row that gets wider with every third one: 8, 9, 10, 98, 99, 100, 998, ...
    Compared as text they are out of order almost everywhere.
    """
    width, step = divmod(count - 1, 3)
    if width + 1 < _LONGEST_NUMBER:
        return str(10 ** (width + 1) - 2 + step)
    return str(10 ** (_LONGEST_NUMBER - 1) + count)


@dataclass
class FakeShard:
    parent: str | None = None
    records: list[dict[str, Any]] = field(default_factory=list)
    closed: bool = False
    listed: bool = True
    # Records before this index are gone.
    horizon: int = 0


class FakeStreamsService:
    """The calls of two botocore clients (`dynamodb` and `dynamodbstreams`) that the stream adapter makes."""

    PAGE = 100

    def __init__(self) -> None:
        self.arn = f"arn:aws:dynamodb:us-east-1:000000000000:table/{TABLE}/stream/1"
        self.shards: dict[str, FakeShard] = {}
        self.calls: Counter[str] = Counter()
        self.reads: list[str] = []
        self.view = "NEW_AND_OLD_IMAGES"
        # What it does with `ShardFilter`: answers it, ignores it, or refuses the parameter.
        self.filter = "answers"
        self.filtered: list[str] = []
        self._lock = threading.RLock()
        self._numbers = self._mints = 0
        self._minted: dict[str, tuple[str, int]] = {}
        self._errors: dict[str, list[Exception]] = {}
        self._throttled: set[str] = set()

    # What happens to the stream

    def add(self, shard_id: str, parent: str | None = None) -> None:
        self.shards[shard_id] = FakeShard(parent)

    def write(self, shard_id: str, count: int = 1, **record: Any) -> list[str]:
        """Append records (inserts that count, unless reported otherwise); their sequence numbers."""
        written = []
        for _ in range(count):
            self._numbers += 1
            number = sequence_number(self._numbers)
            raw = {**insert(f"e{self._numbers}"), **record}
            change = {**raw["dynamodb"], "SequenceNumber": number}
            self.shards[shard_id].records.append({**raw, "dynamodb": change})
            written.append(number)
        return written

    def split(self, parent: str, *children: str) -> None:
        self.shards[parent].closed = True
        for child in children:
            self.add(child, parent)

    def trim(self, shard_id: str, count: int) -> None:
        self.shards[shard_id].horizon = count

    def forget(self, shard_id: str) -> None:
        """The shard left the listing and cannot be read any more."""
        self.shards[shard_id].listed = False

    def restart(self) -> None:
        """All records are lost under the same ARN; iterators stay valid and find nothing there."""
        for shard in self.shards.values():
            shard.records, shard.horizon = [], 0

    def expire_iterators(self) -> None:
        self._minted.clear()

    def fail(self, call: str, *errors: Exception) -> None:
        """The next calls raise these, one each."""
        self._errors.setdefault(call, []).extend(errors)

    def throttle(self, *calls: str) -> None:
        """From now on exactly these are refused."""
        self._throttled = set(calls)

    def recover(self) -> None:
        """Nothing fails any more."""
        self._errors.clear()
        self._throttled.clear()

    def disconnect(self, call: str, times: int = 1) -> None:
        self.fail(call, *(EndpointConnectionError(endpoint_url="http://127.0.0.1") for _ in range(times)))

    # The clients' methods

    def describe_table(self, TableName: str) -> dict[str, Any]:
        self._enter("describe_table")
        stream = {"StreamEnabled": True, "StreamViewType": self.view}
        return {"Table": {"LatestStreamArn": self.arn, "StreamSpecification": stream}}

    def describe_stream(
        self,
        StreamArn: str,
        ExclusiveStartShardId: str | None = None,
        ShardFilter: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        self._enter("describe_stream")
        if StreamArn != self.arn:
            raise client_error("ResourceNotFoundException")
        if ShardFilter is not None and self.filter != "ignores":
            if self.filter == "refuses":
                raise client_error("ValidationException")
            parent = ShardFilter["ShardId"]
            self.filtered.append(parent)
            children = [
                name for name, shard in self.shards.items() if shard.parent == parent and shard.listed
            ]
            return {"StreamDescription": {"Shards": [self._described(name) for name in children]}}
        listed = [shard_id for shard_id, shard in self.shards.items() if shard.listed]
        start = 0 if ExclusiveStartShardId is None else listed.index(ExclusiveStartShardId) + 1
        page = listed[start : start + self.PAGE]
        answer: dict[str, Any] = {"Shards": [self._described(shard_id) for shard_id in page]}
        if start + self.PAGE < len(listed):
            answer["LastEvaluatedShardId"] = page[-1]
        return {"StreamDescription": answer}

    def get_shard_iterator(
        self, StreamArn: str, ShardId: str, ShardIteratorType: str, SequenceNumber: str = ""
    ) -> dict[str, str]:
        self._enter("get_shard_iterator")
        shard = self.shards.get(ShardId)
        if shard is None or not shard.listed or StreamArn != self.arn:
            raise client_error("ResourceNotFoundException")
        position = len(shard.records) if ShardIteratorType == "LATEST" else shard.horizon
        if ShardIteratorType == "AFTER_SEQUENCE_NUMBER":
            numbers = [record["dynamodb"]["SequenceNumber"] for record in shard.records]
            if SequenceNumber not in numbers or numbers.index(SequenceNumber) < shard.horizon:
                raise client_error("TrimmedDataAccessException")
            position = numbers.index(SequenceNumber) + 1
        return {"ShardIterator": self._mint(ShardId, position)}

    def get_records(self, ShardIterator: str, Limit: int) -> dict[str, Any]:
        self._enter("get_records")
        if ShardIterator not in self._minted:
            raise client_error("ExpiredIteratorException")
        shard_id, position = self._minted[ShardIterator]
        self.reads.append(shard_id)
        shard = self.shards[shard_id]
        if not shard.listed:
            raise client_error("ResourceNotFoundException")
        if position < shard.horizon:
            raise client_error("TrimmedDataAccessException")
        page = shard.records[position : position + Limit]
        answer: dict[str, Any] = {"Records": page}
        if not (shard.closed and position + len(page) >= len(shard.records)):
            answer["NextShardIterator"] = self._mint(shard_id, position + len(page))
        return answer

    def _enter(self, call: str) -> None:
        with self._lock:
            self.calls[call] += 1
            if self._errors.get(call):
                raise self._errors[call].pop(0)
            if call in self._throttled:
                raise client_error("LimitExceededException")

    def _described(self, shard_id: str) -> dict[str, Any]:
        shard = self.shards[shard_id]
        numbers = {"StartingSequenceNumber": "0"} | ({"EndingSequenceNumber": "9"} if shard.closed else {})
        parent = {"ParentShardId": shard.parent} if shard.parent else {}
        return {"ShardId": shard_id, "SequenceNumberRange": numbers, **parent}

    def _mint(self, shard_id: str, position: int) -> str:
        with self._lock:
            self._mints += 1
            iterator = f"iterator-{self._mints}"
            self._minted[iterator] = (shard_id, position)
        return iterator


def streams_of(service: FakeStreamsService) -> DynamoStreams:
    table_calls, reads, listing = (
        dependency(name, classify_aws(name)) for name in ("dynamodb", "streams", "stream-listing")
    )
    return DynamoStreams(service, table_calls, service, reads, listing, TABLE)


class Inline(Background):
    """Runs each call at once: for a world with one thread."""

    def __init__(self) -> None:
        super().__init__("inline")

    def start(self, call: Callable[[], object], key: Hashable = "") -> bool:
        call()
        return True


class FakeQueue:
    """Remembers what it confirmed; `fail` lists indexes of the next send that are not, `unavailable` fails all."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []
        self.fail: dict[int, bool] = {}
        self.unavailable = False

    @property
    def name(self) -> str:
        return "replication-queue"

    def send(self, messages: Sequence[Outgoing], *, within_seconds: float | None = None) -> list[SendFailure]:
        if self.unavailable:
            raise TransientFailure("sqs", "EndpointConnectionError")
        failed, self.fail = self.fail, {}
        self.sent.extend(message for index, message in enumerate(messages) if index not in failed)
        return [SendFailure(index, "InternalError", permanent) for index, permanent in failed.items()]

    def receive(self, limit: int, wait_seconds: float, visibility_seconds: int) -> list[Received]:
        return []

    def delete(self, messages: Sequence[Received]) -> list[Received]:
        return []

    def change_visibility(self, messages: Sequence[tuple[Received, int]]) -> NotHidden:
        return NotHidden()

    def depth(self) -> QueueDepth:
        return QueueDepth(len(self.sent), 0, 0)


# Raw stream records


def entry(
    entry_id: str = "e1",
    *,
    version: dict[str, str] | None = None,
    created: str = "2026-11-25T08:00:00.000Z",
    updated: str = "2026-11-25T08:00:00.000Z",
    flag: bool = True,
    **fields: Any,
) -> dict[str, Any]:
    """An entry's image in DynamoDB JSON."""
    return {
        **keys(entry_id),
        "entityType": {"S": "ENTRY"},
        "version": version or {"N": "1"},
        "createdAt": {"S": created},
        "updatedAt": {"S": updated},
        "needsReplication": {"BOOL": flag},
        **fields,
    }


def keys(entry_id: str) -> dict[str, Any]:
    return {"PK": {"S": "CAMPAIGN#c1"}, "SK": {"S": f"ENTRY#{entry_id}"}}


def change(
    event: str,
    new: Mapping[str, Any] | None = None,
    old: Mapping[str, Any] | None = None,
    sequence: str = "1",
) -> dict[str, Any]:
    """A raw stream record."""
    image = new or old or {}
    detail: dict[str, Any] = {
        "Keys": {name: image[name] for name in ("PK", "SK")},
        "SequenceNumber": sequence,
        "ApproximateCreationDateTime": 1_795_000_000,
    }
    if new is not None:
        detail["NewImage"] = new
    if old is not None:
        detail["OldImage"] = old
    return {"eventName": event, "dynamodb": detail}


def insert(entry_id: str, sequence: str = "1", **fields: Any) -> dict[str, Any]:
    return change("INSERT", new=entry(entry_id, **fields), sequence=sequence)
