"""DynamoDB Streams: the stream of a table, its shards, records by iterator, and what is known of it in a lease."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from regworkers_core.adapters.aws.answers import AwsRefusal, error_code
from regworkers_core.domain.reasons import UsageError
from regworkers_core.engine.dependency import Dependency
from regworkers_core.engine.leases import LeaseHolder, LeaseKey, LeaseTable

_ARN, _SHARD, _COMPLETE, _ANSWERED_AT = "arn", "shard", "complete", "answeredAt"


@dataclass(frozen=True, slots=True)
class KnownStream:
    """What is remembered of the stream."""

    arn: str  # its name in AWS
    shard_id: str = ""  # one of its shards
    complete: bool = False  # whether all shards were listed once
    answered_at: str = ""  # ISO time of the last answer

    @classmethod
    def of(cls, state: Mapping[str, str]) -> KnownStream | None:
        """None before the first listing."""
        arn = state.get(_ARN)
        if not arn:
            return None
        return cls(arn, state.get(_SHARD, ""), _COMPLETE in state, state.get(_ANSWERED_AT, ""))

    def as_state(self) -> dict[str, str]:
        """The state of the lease's row."""
        complete = {_COMPLETE: "true"} if self.complete else {}
        return {_ARN: self.arn, _SHARD: self.shard_id, _ANSWERED_AT: self.answered_at, **complete}


def lister_key(table_name: str) -> LeaseKey:
    """The row of the lease that lets one process list the shards of the table's stream."""
    return LeaseHolder.key_of(f"discovery:{table_name}")


def known_stream(leases: LeaseTable, table_name: str) -> KnownStream | None:
    """None before the first listing of its shards. Raises TransientFailure."""
    row = leases.get(lister_key(table_name))
    return None if row is None else KnownStream.of(row.state)


# The limit of GetRecords (or 1 MB, whichever comes first).
MAX_RECORDS = 1000
# A larger answer ended because of the limit of 1 MB: its JSON is never smaller than the counted size.
_FULL_BYTES = 900 * 1024
_VIEW = "NEW_AND_OLD_IMAGES"
# An id in the service's format.
_ANY_SHARD = "shardId-00000000000000000000-00000000"
# Error codes of endpoints without `ShardFilter`.
_UNKNOWN_PARAMETER = ("ValidationException", "SerializationException", "UnknownParameter")
# TTL removals carry this principal.
_TTL_PRINCIPAL = "dynamodb.amazonaws.com"

# An item, or some attributes of it, in DynamoDB JSON: {"version": {"N": "3"}, ...}
Image = Mapping[str, Any]
# Replication reads these fields of an image. The rest, with a fan's data, is dropped: an image has up to 400 KB.
_KEPT = ("entityType", "needsReplication", "correlationId", "createdAt", "version", "updatedAt")
# Longer than any valid value of these, so a text that was cut is still invalid.
_LONGEST_TEXT = 256
# Memory of a record's Python objects without its texts, measured.
_OBJECT_BYTES = 4000


class IteratorExpired(Exception):
    """The iterator can no longer be trusted: seek again from the last read position."""


class Trimmed(Exception):
    """The requested position is older than the stream's retention, or its shard is gone: records may be lost."""


# Compared by identity: the same stream position read twice makes two deliveries.
@dataclass(frozen=True, slots=True, eq=False)
class StreamRecord:
    """One change. Its images have only what replication reads (flag, order, correlation id), long texts cut."""

    shard_id: str
    sequence: str  # its number in the shard
    event: str  # INSERT, MODIFY or REMOVE
    keys: Image
    new_image: Image | None = None
    old_image: Image | None = None
    expired: bool = False  # whether TTL removed the item
    created_at: float | None = None  # epoch seconds, rounded to the second by the service
    size_bytes: int = _OBJECT_BYTES  # memory that it takes, approximately


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard of a listing."""

    shard_id: str
    parent_id: str | None = None


@dataclass(frozen=True, slots=True)
class ListingPage:
    """Up to 100 shards; `last` is the start of the next page, None at the end of the listing."""

    shards: list[Shard]
    last: str | None


@dataclass(frozen=True, slots=True)
class StreamPage:
    """Records of a shard in order."""

    records: list[StreamRecord]
    next_iterator: str | None  # None: the shard was read to its end
    full: bool = False  # its size in bytes cut it short: more records may be available at once
    throttled: bool = False  # the shard was read too often


class Streams(Protocol):
    """The stream of one table. Every method raises TransientFailure."""

    @property
    def table_name(self) -> str: ...

    def latest_stream(self) -> str:
        """ARN of the table's stream. Raises UsageError when there is none."""
        ...

    def listing(self, stream_arn: str, after: str | None = None) -> ListingPage:
        """One page of all shards, one call. Raises Trimmed when the stream is gone."""
        ...

    def children(self, stream_arn: str, shard_id: str) -> list[Shard] | None:
        """The listed children of one shard, by one call; None if the endpoint does not support it. Raises Trimmed when
        the stream is gone.
        """
        ...

    def iterator(self, stream_arn: str, shard_id: str, after: str | None) -> str:
        """After a sequence number, or at TRIM_HORIZON for None. Raises Trimmed."""
        ...

    def read(self, shard_id: str, iterator: str, limit: int) -> StreamPage:
        """Up to `limit` (at most 1000) records. Raises IteratorExpired, Trimmed."""
        ...


class DynamoStreams:
    """`Streams` for one table. `dynamodb` and `streams` are botocore clients of two endpoints, each followed by its
    guard. DescribeStream has a third guard, `listings`: it is limited for the whole account, and its failures must not
    stop reading.
    """

    def __init__(
        self,
        dynamodb: Any,
        table_calls: Dependency,
        streams: Any,
        reads: Dependency,
        listings: Dependency,
        table_name: str,
    ) -> None:
        self._dynamodb, self._table_calls = dynamodb, table_calls
        self._streams, self._reads, self._listings = streams, reads, listings
        self.table_name = table_name

    def latest_stream(self) -> str:
        way_out = "run `regworkers provision`"
        try:
            answer = self._table_calls.call(self._dynamodb.describe_table, TableName=self.table_name)
        except AwsRefusal as error:
            if error.code == "ResourceNotFoundException":
                raise UsageError(f"table {self.table_name} does not exist: {way_out}") from None
            raise
        table = answer["Table"]
        stream = table.get("StreamSpecification", {})
        if not table.get("LatestStreamArn") or not stream.get("StreamEnabled"):
            raise UsageError(f"table {self.table_name} has no stream: {way_out}")
        if stream.get("StreamViewType") != _VIEW:
            raise UsageError(f"the stream of {self.table_name} should have the view {_VIEW}: {way_out}")
        return str(table["LatestStreamArn"])

    def listing(self, stream_arn: str, after: str | None = None) -> ListingPage:
        return self._describe(stream_arn, {} if after is None else {"ExclusiveStartShardId": after})

    def children(self, stream_arn: str, shard_id: str) -> list[Shard] | None:
        try:
            page = self._describe(stream_arn, {"ShardFilter": {"Type": "CHILD_SHARDS", "ShardId": shard_id}})
        except AwsRefusal as error:
            if error.code in _UNKNOWN_PARAMETER:
                return None
            raise
        # An endpoint that does not know the filter may also ignore it.
        return page.shards if all(shard.parent_id == shard_id for shard in page.shards) else None

    def _describe(self, stream_arn: str, more: Mapping[str, Any]) -> ListingPage:
        try:
            # Not retried here: the caller limits the rate of this call.
            answer = self._listings.once(self._streams.describe_stream, StreamArn=stream_arn, **more)
        except AwsRefusal as error:
            raise _meaning(error) from error
        page = answer["StreamDescription"]
        shards = [Shard(raw["ShardId"], raw.get("ParentShardId")) for raw in page["Shards"]]
        return ListingPage(shards, page.get("LastEvaluatedShardId"))

    def probe(self, known: KnownStream | None) -> None:
        """Make the calls of a reader once. Raises TransientFailure, UsageError without table or stream."""
        if known is None:
            known = KnownStream(self.latest_stream())
        try:
            # At its end, so that no record is read.
            where = {"ShardIteratorType": "LATEST"}
            iterator = self._seek(known.arn, known.shard_id or _ANY_SHARD, where)
            self.read(known.shard_id, iterator, 1)
        except (Trimmed, IteratorExpired):
            # An unknown shard is an answer, too: the last listing is old, or there was none yet.
            pass

    def iterator(self, stream_arn: str, shard_id: str, after: str | None) -> str:
        where: dict[str, str] = {"ShardIteratorType": "TRIM_HORIZON"}
        if after is not None:
            where = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": after}
        return self._seek(stream_arn, shard_id, where)

    def _seek(self, stream_arn: str, shard_id: str, where: Mapping[str, str]) -> str:
        try:
            answer = self._reads.call(
                self._streams.get_shard_iterator, StreamArn=stream_arn, ShardId=shard_id, **where
            )
        except AwsRefusal as error:
            raise _meaning(error) from error
        return str(answer["ShardIterator"])

    def read(self, shard_id: str, iterator: str, limit: int) -> StreamPage:
        disconnected = False

        def once() -> Any:
            nonlocal disconnected
            if disconnected:
                # The retry policy must not hide a server's restart: an iterator from before it may
                # silently return nothing for ever.
                raise IteratorExpired(shard_id)
            try:
                return self._streams.get_records(ShardIterator=iterator, Limit=limit)
            except Exception as error:
                # The limit is that of one shard: its reader waits, and the breaker of all others stays closed.
                if error_code(error) == "LimitExceededException":
                    return None
                disconnected = not error_code(error)
                raise

        try:
            answer = self._reads.call(once)
        except AwsRefusal as error:
            raise _meaning(error) from error
        if answer is None:
            self._reads.note_parts(served=0, throttled=1)
            return StreamPage([], iterator, throttled=True)
        self._reads.note_parts(served=1, throttled=0)
        records = [stream_record(raw, shard_id) for raw in answer["Records"]]
        return StreamPage(records, answer.get("NextShardIterator"), _bytes(answer) >= _FULL_BYTES)


def stream_record(raw: Mapping[str, Any], shard_id: str) -> StreamRecord:
    """Parse a record of GetRecords or of Lambda's stream event."""
    change = raw["dynamodb"]
    created = change.get("ApproximateCreationDateTime")
    keys, new_image, old_image = change["Keys"], _slim(change.get("NewImage")), _slim(change.get("OldImage"))
    return StreamRecord(
        shard_id=shard_id,
        sequence=change["SequenceNumber"],
        event=raw["eventName"],
        keys=keys,
        new_image=new_image,
        old_image=old_image,
        expired=_principal(raw) == _TTL_PRINCIPAL,
        created_at=created.timestamp() if hasattr(created, "timestamp") else created,
        size_bytes=_OBJECT_BYTES + _text_bytes(keys) + _text_bytes(new_image) + _text_bytes(old_image),
    )


def _slim(image: Image | None) -> Image | None:
    """The fields of an image that replication reads. Called for every record, so common values are not built again."""
    if image is None:
        return None
    slim = {}
    for name in _KEPT:
        value = image.get(name)
        if type(value) is dict:
            slim[name] = value if _is_short(value) else _cut(value)
    return slim


def _is_short(value: Mapping[str, Any]) -> bool:
    return all(
        content is True or content is False or (type(content) is str and len(content) <= _LONGEST_TEXT)
        for content in value.values()
    )


def _cut(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Cut a long text; of another value keep only the type."""
    return {
        kind: content[:_LONGEST_TEXT] if isinstance(content, str) else None for kind, content in value.items()
    }


def _text_bytes(image: Image | None) -> int:
    """The number of characters in an image's texts."""
    total = 0
    for value in (image or {}).values():
        for content in value.values():
            if type(content) is str:
                total += len(content)
    return total


def _bytes(answer: Mapping[str, Any]) -> int:
    """The length of the answer; 0 if the service does not send it."""
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return int(headers.get("content-length", 0))


def _principal(raw: Mapping[str, Any]) -> object:
    # GetRecords has PrincipalId, an event of Lambda principalId.
    identity = raw.get("userIdentity") or {}
    return identity.get("PrincipalId") or identity.get("principalId")


def _meaning(error: AwsRefusal) -> Exception:
    code = error.code
    if code == "ExpiredIteratorException":
        return IteratorExpired(code)
    if code in ("TrimmedDataAccessException", "ResourceNotFoundException"):
        return Trimmed(code)
    return error
