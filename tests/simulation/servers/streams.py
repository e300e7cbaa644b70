"""DynamoDB Streams: shards with parents, records for 24 hours, iterators for 15 minutes."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from tests.simulation.gate import Gate
from tests.simulation.servers.client import Refused, operation

RETENTION_SECONDS = 24 * 3600.0
ITERATOR_SECONDS = 15 * 60.0
MAX_RECORDS, MAX_BYTES = 1000, 1024 * 1024
MAX_SHARDS = 100
# DescribeStream calls a second of the whole account.
MAX_DESCRIBES = 10
# GetRecords calls a second of each shard, for all its readers together.
MAX_READS = 5
# Of the hash of a partition key.
HASHES = 2**32
# Texts of digits whose length changes soon, as a service's does at some time.
_FIRST_SEQUENCE = 10**21 - 25
# Removals by TTL carry it.
TTL_IDENTITY = {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}


class Record(NamedTuple):
    sequence: int
    created: float
    size: int
    raw: dict[str, Any]


@dataclass(slots=True, eq=False)
class Shard:
    """`low` to `high` (exclusive) are the hashes of its partition keys. Records below `trimmed` are gone."""

    id: str
    parent: str | None
    low: int
    high: int
    first: int
    trimmed: int
    opened_at: float
    records: list[Record] = field(default_factory=list)
    last: int | None = None
    closed_at: float | None = None
    read_at: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_READS))

    def trim(self, oldest: float) -> None:
        number = 0
        for record in self.records:
            if record.created >= oldest:
                break
            number += 1
        if number:
            self.drop(number)

    def drop(self, number: int) -> None:
        """Remove the oldest records."""
        if number:
            self.trimmed = self.records[number - 1].sequence + 1
            del self.records[:number]


class Stream:
    """The changes of a table from when its stream was enabled to when it was disabled."""

    def __init__(self, table: str, label: str, region: str, account: str, now: float, shards: int) -> None:
        self.table, self.label = table, label
        self.arn = f"arn:aws:dynamodb:{region}:{account}:table/{table}/stream/{label}"
        self.region, self.enabled = region, True
        self.shards: dict[str, Shard] = {}
        self.open: list[Shard] = []
        self._next, self._number = _FIRST_SEQUENCE, 0
        for number in range(shards):
            self._begin(None, number * HASHES // shards, (number + 1) * HASHES // shards, now)

    def _begin(self, parent: str | None, low: int, high: int, now: float) -> Shard:
        self._number += 1
        # As the service's: milliseconds in 20 digits, and 8 hexadecimal ones.
        id_ = f"shardId-{int(now * 1000):020d}-{self._number:08x}"
        shard = Shard(id_, parent, low, high, self._next, self._next, now)
        self.shards[id_] = shard
        self.open.append(shard)
        return shard

    def append(
        self, hash_: int, event: str, change: dict[str, Any], size: int, now: float, expired: bool
    ) -> None:
        shard = next(each for each in self.open if each.low <= hash_ < each.high)
        # Numbers grow over all shards, with gaps.
        self._next += 1 + hash_ % 7
        sequence = self._next
        change["SequenceNumber"] = str(sequence)
        change["StreamViewType"] = "NEW_AND_OLD_IMAGES"
        change["SizeBytes"] = size
        # The service rounds it to the second.
        change["ApproximateCreationDateTime"] = float(int(now))
        raw: dict[str, Any] = {
            "eventID": f"{sequence:032x}",
            "eventName": event,
            "eventVersion": "1.1",
            "eventSource": "aws:dynamodb",
            "awsRegion": self.region,
            "dynamodb": change,
        }
        if expired:
            raw["userIdentity"] = TTL_IDENTITY
        self._next += 1
        shard.records.append(Record(sequence, now, size, raw))

    def close(self, shard: Shard, now: float) -> None:
        shard.last, shard.closed_at = self._next, now
        self._next += 1
        self.open.remove(shard)

    def roll(self, shard: Shard, now: float) -> list[Shard]:
        """Close a shard; one child takes its place, as every four hours."""
        self.close(shard, now)
        return [self._begin(shard.id, shard.low, shard.high, now)]

    def split(self, shard: Shard, now: float) -> list[Shard]:
        """Close a shard; two children share its partition keys."""
        self.close(shard, now)
        middle = (shard.low + shard.high) // 2
        bounds = ((shard.low, middle), (middle, shard.high))
        return [self._begin(shard.id, *each, now) for each in bounds]

    def end(self, now: float) -> None:
        """The stream was disabled, or its table deleted. It stays readable for a day."""
        for shard in tuple(self.open):
            self.close(shard, now)
        self.enabled = False

    def trim(self, now: float) -> None:
        """Apply the retention. A closed shard without records is no longer listed."""
        oldest = now - RETENTION_SECONDS
        for shard in tuple(self.shards.values()):
            shard.trim(oldest)
            if shard.closed_at is not None and shard.closed_at < oldest:
                del self.shards[shard.id]

    def forget(self, now: float) -> None:
        """Drop everything that is stored now, as if a day had passed since."""
        for shard in tuple(self.shards.values()):
            shard.drop(len(shard.records))
            if shard.closed_at is not None:
                del self.shards[shard.id]

    @property
    def next_sequence(self) -> int:
        return self._next

    def records(self) -> Iterator[Record]:
        """All that are stored, by shard."""
        for shard in self.shards.values():
            yield from shard.records


class Streams:
    """The streams of an account's tables."""

    def __init__(self, region: str, account: str) -> None:
        self.region, self.account = region, account
        self.by_arn: dict[str, Stream] = {}
        self._described: deque[float] = deque(maxlen=MAX_DESCRIBES)
        # Off for suites, whose drains read the same shard one after the other in real time.
        self.limits_reads, self.refused_reads = True, 0

    def begin(self, table: str, now: float, shards: int) -> Stream:
        label = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
        while any(each.label == label for each in self.by_arn.values() if each.table == table):
            now += 0.001
            label = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
        stream = Stream(table, label, self.region, self.account, now, shards)
        self.by_arn[stream.arn] = stream
        return stream

    def _stream(self, arn: str, now: float) -> Stream:
        stream = self.by_arn.get(arn)
        if stream is not None:
            stream.trim(now)
            if stream.enabled or stream.shards:
                return stream
        raise Refused("ResourceNotFoundException", f"Requested resource not found: Stream: {arn} not found")

    @operation
    def describe_stream(
        self,
        gate: Gate,
        *,
        StreamArn: str,
        Limit: int = MAX_SHARDS,
        ExclusiveStartShardId: str | None = None,
        ShardFilter: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        now = gate.now()
        if len(self._described) == MAX_DESCRIBES and self._described[0] > now - 1:
            raise Refused("LimitExceededException", "Rate of requests exceeds the allowed throughput")
        self._described.append(now)
        stream = self._stream(StreamArn, now)
        shards = list(stream.shards.values())
        if ShardFilter is not None:
            shards = [each for each in shards if each.parent == ShardFilter["ShardId"]]
        if ExclusiveStartShardId is not None:
            shards = [each for each in shards if each.id > ExclusiveStartShardId]
        shards.sort(key=lambda each: each.id)
        page = shards[: min(Limit, MAX_SHARDS)]
        description: dict[str, Any] = {
            "StreamArn": stream.arn,
            "StreamLabel": stream.label,
            "StreamStatus": "ENABLED" if stream.enabled else "DISABLED",
            "StreamViewType": "NEW_AND_OLD_IMAGES",
            "TableName": stream.table,
            "Shards": [_described(each) for each in page],
        }
        if len(page) < len(shards):
            description["LastEvaluatedShardId"] = page[-1].id
        return {"StreamDescription": description}

    @operation
    def get_shard_iterator(
        self,
        gate: Gate,
        *,
        StreamArn: str,
        ShardId: str,
        ShardIteratorType: str,
        SequenceNumber: str | None = None,
    ) -> dict[str, Any]:
        now = gate.now()
        stream = self._stream(StreamArn, now)
        shard = _shard(stream, ShardId)
        if ShardIteratorType == "TRIM_HORIZON":
            at = shard.trimmed
        elif ShardIteratorType == "LATEST":
            at = stream.next_sequence
        else:
            at = int(SequenceNumber or "")
            if at < shard.trimmed:
                raise _trimmed()
            at += ShardIteratorType == "AFTER_SEQUENCE_NUMBER"
        return {"ShardIterator": _iterator(stream, shard, at, now)}

    @operation
    def get_records(self, gate: Gate, *, ShardIterator: str, Limit: int = MAX_RECORDS) -> dict[str, Any]:
        now = gate.now()
        try:
            arn, id_, position, issued = ShardIterator.rsplit("|", 3)
            at = int(position)
        except ValueError:
            raise Refused("ValidationException", "Invalid ShardIterator") from None
        if float(issued) < now - ITERATOR_SECONDS:
            raise Refused("ExpiredIteratorException", "Shard iterator has expired")
        if not 0 < Limit <= MAX_RECORDS:
            raise Refused("ValidationException", "Limit must be between 1 and 1000")
        stream = self._stream(arn, now)
        shard = _shard(stream, id_)
        if self.limits_reads and len(shard.read_at) == MAX_READS and shard.read_at[0] > now - 1:
            self.refused_reads += 1
            raise Refused("LimitExceededException", "Rate of requests exceeds the allowed throughput")
        shard.read_at.append(now)
        if at < shard.trimmed:
            raise _trimmed()
        first = bisect_left(shard.records, at, key=_sequence)
        # A page may end early, or be empty, although there is more.
        most = 0 if gate.fails("streams", "GetRecords", 1) else Limit
        page: list[dict[str, Any]] = []
        size = 0
        for record in shard.records[first : first + most]:
            size += record.size
            if page and size > MAX_BYTES:
                break
            page.append(record.raw)
            at = record.sequence + 1
        answer: dict[str, Any] = {
            "Records": page,
            # The answer is JSON, which is larger than what is counted.
            "ResponseMetadata": {"HTTPStatusCode": 200, "HTTPHeaders": {"content-length": str(2 * size)}},
        }
        if shard.last is None or first + len(page) < len(shard.records):
            answer["NextShardIterator"] = _iterator(stream, shard, at, now)
        return answer


def _sequence(record: Record) -> int:
    return record.sequence


def _iterator(stream: Stream, shard: Shard, at: int, now: float) -> str:
    return f"{stream.arn}|{shard.id}|{at}|{now!r}"


def _shard(stream: Stream, id_: str) -> Shard:
    if id_ not in stream.shards:
        raise Refused("ResourceNotFoundException", f"Requested resource not found: Shard: {id_} not found")
    return stream.shards[id_]


def _trimmed() -> Refused:
    return Refused("TrimmedDataAccessException", "The requested position is past the trim horizon")


def _described(shard: Shard) -> dict[str, Any]:
    numbers = {"StartingSequenceNumber": str(shard.first)}
    if shard.last is not None:
        numbers["EndingSequenceNumber"] = str(shard.last)
    parent = {} if shard.parent is None else {"ParentShardId": shard.parent}
    return {"ShardId": shard.id, "SequenceNumberRange": numbers, **parent}
