"""The simulated DynamoDB Streams under a test's own names of shards, and raw records."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from botocore.exceptions import EndpointConnectionError

from regworkers_core.adapters.aws.clients import classify_aws
from regworkers_core.adapters.aws.streams import DynamoStreams
from regworkers_core.engine.deadline import Background
from tests.adapters.fakes import client_error, dependency
from tests.simulation.gate import OpenGate
from tests.simulation.servers.client import Refused
from tests.simulation.servers.streams import ITERATOR_SECONDS, Record, Shard, Streams

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


class StreamsService(OpenGate):
    """What the stream adapter calls of botocore's `dynamodb` and `dynamodbstreams`, on a simulated server: shards under
    a test's own names, and calls that fail.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.reads: list[str] = []
        self.view = "NEW_AND_OLD_IMAGES"
        # What it does with `ShardFilter`: answers it, ignores it, or refuses the parameter.
        self.filter = "answers"
        self.filtered: list[str] = []
        self._server = Streams("us-east-1", "000000000000")
        self._server.limits_reads, self._server._described = False, deque(maxlen=0)
        self._now = self._silent_before = 1_800_000_000.0
        self._numbers = 0
        self._errors: dict[str, list[Exception]] = {}
        self._throttled: set[str] = set()
        self.recreate()

    @property
    def arn(self) -> str:
        return self.stream.arn

    @property
    def shards(self) -> dict[str, Shard]:
        return self.stream.shards

    # What happens to the stream

    def add(self, shard_id: str, parent: str | None = None) -> None:
        shard = Shard(shard_id, parent, low=0, high=0, first=0, trimmed=0, opened_at=0.0)
        self.shards[shard_id] = shard
        self.stream.open.append(shard)

    def write(self, shard_id: str, count: int = 1, **record: Any) -> list[str]:
        """Append records (inserts that count, unless reported otherwise); their sequence numbers."""
        written = []
        for _ in range(count):
            self._numbers += 1
            number = sequence_number(self._numbers)
            raw = {**insert(f"e{self._numbers}"), **record}
            raw["dynamodb"] = {**raw["dynamodb"], "SequenceNumber": number}
            self.shards[shard_id].records.append(Record(int(number), self._now, 1, raw))
            written.append(number)
        return written

    def close(self, shard_id: str) -> None:
        self.stream.close(self.shards[shard_id], self._now)

    def split(self, parent: str, *children: str) -> None:
        self.close(parent)
        for child in children:
            self.add(child, parent)

    def trim(self, shard_id: str, count: int) -> None:
        self.shards[shard_id].drop(count)

    def forget(self, shard_id: str) -> None:
        """The shard left the listing and cannot be read any more."""
        del self.shards[shard_id]

    def restart(self) -> None:
        """All records are lost under the same ARN; iterators stay valid and find nothing there."""
        for shard in self.shards.values():
            shard.drop(len(shard.records))
        self._silence_iterators()

    def _silence_iterators(self) -> None:
        self._now += 1
        self._silent_before = self._now

    def recreate(self, *shard_ids: str) -> None:
        """Another stream of the table, with these shards. Iterators of the former one find nothing any more."""
        self._server.by_arn.clear()
        self._silence_iterators()
        self.stream = self._server.begin(TABLE, self._now, 0)
        # Records go by a test's hand alone.
        self.stream.trim = lambda _now: None  # type: ignore[method-assign]
        for shard_id in shard_ids:
            self.add(shard_id)

    def expire_iterators(self) -> None:
        self._now += ITERATOR_SECONDS + 1

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
        self.enter("describe_table")
        stream = {"StreamEnabled": True, "StreamViewType": self.view}
        return {"Table": {"LatestStreamArn": self.arn, "StreamSpecification": stream}}

    def describe_stream(self, StreamArn: str, **more: Any) -> dict[str, Any]:
        self.enter("describe_stream")
        if "ShardFilter" in more:
            if self.filter == "refuses":
                raise client_error("ValidationException")
            if self.filter == "ignores":
                del more["ShardFilter"]
            else:
                self.filtered.append(more["ShardFilter"]["ShardId"])
        return self._answer("describe_stream", StreamArn=StreamArn, **more)

    def get_shard_iterator(self, **arguments: Any) -> dict[str, Any]:
        self.enter("get_shard_iterator")
        return self._answer("get_shard_iterator", **arguments)

    def get_records(self, ShardIterator: str, Limit: int) -> dict[str, Any]:
        self.enter("get_records")
        if float(ShardIterator.rpartition("|")[2]) < self._silent_before:
            return {"Records": [], "NextShardIterator": ShardIterator}
        self.reads.append(shard_of(ShardIterator))
        return self._answer("get_records", ShardIterator=ShardIterator, Limit=Limit)

    def _answer(self, operation: str, **arguments: Any) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = getattr(self._server, operation)(self, **arguments)
        except Refused as refused:
            raise refused.error(operation) from None
        return answer

    def enter(self, call: str) -> None:
        with self.lock:
            self.calls[call] += 1
            if self._errors.get(call):
                raise self._errors[call].pop(0)
            if call in self._throttled:
                raise client_error("LimitExceededException")

    def now(self) -> float:
        return self._now


def shard_of(iterator: str) -> str:
    return iterator.rsplit("|", 3)[1]


def streams_of(service: StreamsService) -> DynamoStreams:
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
