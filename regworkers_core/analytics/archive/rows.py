"""Parses a Kafka record into a row of the archive, or says why it is damaged. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

import orjson
import pyarrow as pa

from regworkers_core.adapters.kafka.log import KafkaRecord
from regworkers_core.domain.timestamps import seconds

# It becomes part of a path.
_TYPE = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")
# Enough of SHA-256 that no two ids collide.
DIGEST_BYTES = 16
# Enough that two bodies under one id do not look alike by chance.
CONTENT_BYTES = 8
# The fields of `data` that say when an event was sent, not what it says: a repeat may have another.
_WHEN_SENT = frozenset({"replicatedAt", "selectedAt", "queuedAt", "asOf"})
# The range of dates that Parquet and its readers support.
_FIRST_SECOND, _LAST_SECOND = 0.0, datetime(2200, 1, 1, tzinfo=UTC).timestamp()
_FIELDS: list[pa.Field[Any]] = [
    pa.field("id", pa.string()),
    pa.field("type", pa.string()),
    # UTC, without a zone, so that no reader has to convert it.
    pa.field("time", pa.timestamp("us")),
    pa.field("source", pa.string()),
    pa.field("subject", pa.string()),
    pa.field("correlationId", pa.string()),
    pa.field("campaignId", pa.string()),
    pa.field("entryId", pa.string()),
    pa.field("data", pa.string()),
    pa.field("kafkaKey", pa.string()),
    pa.field("kafkaTopic", pa.string()),
    pa.field("kafkaPartition", pa.int32()),
    pa.field("kafkaOffset", pa.int64()),
]
SCHEMA = pa.schema(_FIELDS)
_DAMAGED_FIELDS: list[pa.Field[Any]] = [
    pa.field("reason", pa.string()),
    pa.field("kafkaTopic", pa.string()),
    pa.field("kafkaPartition", pa.int32()),
    pa.field("kafkaOffset", pa.int64()),
    pa.field("value", pa.binary()),
]
DAMAGED_SCHEMA = pa.schema(_DAMAGED_FIELDS)


class Damage(StrEnum):
    """Why a record is not an event."""

    EMPTY = "EMPTY"
    NOT_JSON = "NOT_JSON"
    NOT_AN_OBJECT = "NOT_AN_OBJECT"
    INVALID_ID = "INVALID_ID"
    INVALID_TYPE = "INVALID_TYPE"
    INVALID_TIME = "INVALID_TIME"
    INVALID_DATA = "INVALID_DATA"
    # An event, but under the id of one that says something else.
    OTHER_BODY = "OTHER_BODY"


class ArchivePartition(NamedTuple):
    """The partition of the archive that a row belongs to: the day (UTC) and type of its event."""

    date: str
    type: str


@dataclass(frozen=True, slots=True)
class EventRow:
    """One event."""

    digest: bytes  # of its id
    content: bytes  # a digest of what it says, equal for repeats
    place: ArchivePartition  # the file that it belongs to
    values: tuple[Any, ...]  # in the order of SCHEMA


@dataclass(frozen=True, slots=True)
class Damaged:
    """A record that is not an event; `values` are in the order of DAMAGED_SCHEMA."""

    reason: Damage
    values: tuple[Any, ...]


def other_body(record: KafkaRecord) -> Damaged:
    """A record whose id an event with another body has."""
    return _damaged(Damage.OTHER_BODY, record)


def _damaged(reason: Damage, record: KafkaRecord) -> Damaged:
    topic, number = record.partition
    return Damaged(reason, (reason.value, topic, number, record.offset, record.value))


def _content(event: Mapping[str, Any], data: Mapping[str, Any]) -> bytes:
    said = [_text(event.get(name)) for name in ("type", "source", "subject")]
    # The data alone: it may be as deep as can be written.
    kept = {name: value for name, value in data.items() if name not in _WHEN_SENT}
    text = orjson.dumps(said) + orjson.dumps(kept, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).digest()[:CONTENT_BYTES]


def digest_of(event_id: str) -> bytes:
    return hashlib.sha256(event_id.encode()).digest()[:DIGEST_BYTES]


def parse(record: KafkaRecord) -> EventRow | Damaged:
    """Parse a record. An event of any type and version is a row; its data is not interpreted."""
    topic, number = record.partition
    try:
        event = _event(record.value)
        moment = _moment(event.get("time"))
        data = event.get("data")
        if not isinstance(data, Mapping | None):
            raise _NoEvent(Damage.INVALID_DATA)
        text = _json(data or {})
        place = ArchivePartition(f"{moment:%Y-%m-%d}", event["type"])
    except _NoEvent as problem:
        return _damaged(problem.reason, record)
    values = (
        event["id"],
        place.type,
        moment,
        _text(event.get("source")),
        _text(event.get("subject")),
        _text(event.get("correlationid")),
        _text((data or {}).get("campaignId")),
        _text((data or {}).get("entryId")),
        text,
        None if record.key is None else record.key.decode(errors="replace"),
        topic,
        number,
        record.offset,
    )
    return EventRow(digest_of(event["id"]), _content(event, data or {}), place, values)


class _NoEvent(Exception):
    def __init__(self, reason: Damage) -> None:
        super().__init__(reason.value)
        self.reason = reason


def _event(value: bytes | None) -> Mapping[str, Any]:
    """Return an event with a usable id and type."""
    if not value:
        raise _NoEvent(Damage.EMPTY)
    try:
        event = orjson.loads(value)
    except orjson.JSONDecodeError:
        raise _NoEvent(Damage.NOT_JSON) from None
    if not isinstance(event, dict):
        raise _NoEvent(Damage.NOT_AN_OBJECT)
    if not isinstance(event.get("id"), str) or not event["id"]:
        raise _NoEvent(Damage.INVALID_ID)
    if not isinstance(event.get("type"), str) or not _TYPE.fullmatch(event["type"]):
        raise _NoEvent(Damage.INVALID_TYPE)
    return event


def _moment(time: object) -> datetime:
    moment = seconds(time) if isinstance(time, str) else None
    if moment is None or not _FIRST_SECOND <= moment < _LAST_SECOND:
        raise _NoEvent(Damage.INVALID_TIME)
    return datetime.fromtimestamp(moment, UTC).replace(tzinfo=None)


def _json(data: Mapping[str, Any]) -> str:
    try:
        return orjson.dumps(data).decode()
    except orjson.JSONEncodeError:
        # orjson reads deeper nesting than it writes.
        raise _NoEvent(Damage.INVALID_DATA) from None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
