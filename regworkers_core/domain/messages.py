"""Message bodies on the queues (data contract v1), and dead letters.

A body is an envelope with at most 100 items and 256 KB.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson

from regworkers_core.domain.entry import Order, lenient_order
from regworkers_core.domain.keys import MAX_DEPTH, EntryKey, is_too_deep, shown
from regworkers_core.domain.reasons import PermanentFailure, Reason

VERSION = 1
MAX_ITEMS = 100
MAX_BYTES = 256 * 1024
_CORRELATION_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
# An item is inside of `items`, and that inside of the body.
_ITEM_DEPTH = MAX_DEPTH - 2


class MessageType(StrEnum):
    REPLICATE = "entries.replicate"
    ASSIGN = "selections.assign"
    NOTIFY = "notifications.send"
    PUBLISH = "analytics.publish"
    REDEEMED = "codes.redeemed"
    BLOCKED = "codes.blocked"
    COMPLETE = "codes.complete"


# What each queue holds, by its name without the environment's prefix.
QUEUES: Mapping[str, tuple[MessageType, ...]] = {
    "replication-queue": (MessageType.REPLICATE,),
    "selection-queue": (MessageType.ASSIGN,),
    "notification-queue": (MessageType.NOTIFY,),
    "analytics-queue": (MessageType.PUBLISH,),
    "redemption-queue": (MessageType.REDEEMED, MessageType.BLOCKED, MessageType.COMPLETE),
}


class Op(StrEnum):
    UPSERT = "upsert"
    REMOVE = "remove"


def fit_correlation_id(value: object) -> str:
    """`value` if it is a correlation id (1 to 128 of the characters A-Z a-z 0-9 _ . : -), else an empty string: what
    others sent may be a fan's data, and goes no further.
    """
    return value if isinstance(value, str) and _CORRELATION_ID.fullmatch(value) else ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A decoded body. `items` are raw: each is judged by itself, so that a bad one lands alone."""

    type: MessageType
    correlation_id: str
    items: Sequence[Any]


def decode(body: str | bytes, *expected: MessageType) -> Envelope:
    """Read a body of one of these types; raises PermanentFailure INVALID_BODY, UNKNOWN_TYPE or UNSUPPORTED_VERSION."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise PermanentFailure(Reason.INVALID_BODY, "the body is not JSON") from None
    if not isinstance(document, dict):
        raise PermanentFailure(
            Reason.INVALID_BODY, f"the body should be an object, found {type(document).__name__}"
        )
    kind, version, items = document.get("type"), document.get("version"), document.get("items")
    if kind is None or not isinstance(items, list):
        missing = "type" if kind is None else "items"
        raise PermanentFailure(Reason.INVALID_BODY, f"field {missing} is missing or malformed")
    if kind not in expected:
        raise PermanentFailure(
            Reason.UNKNOWN_TYPE, f"this queue carries {', '.join(expected)}, not what field type says"
        )
    if version is None:
        raise PermanentFailure(Reason.INVALID_BODY, "field version is missing")
    if version != VERSION or isinstance(version, bool):
        raise PermanentFailure(Reason.UNSUPPORTED_VERSION, f"field version should be {VERSION}")
    return Envelope(MessageType(kind), fit_correlation_id(document.get("correlationId")), items)


def encode(kind: MessageType, correlation_id: str, items: Sequence[Any]) -> bytes:
    """One body. The caller keeps to MAX_ITEMS and MAX_BYTES: see `chunks`."""
    return json_text(
        {"type": kind, "version": VERSION, "correlationId": correlation_id, "items": list(items)}
    )


def json_text(value: Any) -> bytes:
    """JSON in which U+FFFE and U+FFFF are escaped: the only characters of a JSON text that SQS refuses."""
    try:
        text = orjson.dumps(value)
    except orjson.JSONEncodeError:
        text = _deep_json(value)
    return text.replace(b"\xef\xbf\xbe", b"\\ufffe").replace(b"\xef\xbf\xbf", b"\\uffff")


def _deep_json(value: Any) -> bytes:
    """What orjson reads, but does not write again: more than 254 levels."""
    written: list[bytes] = []
    # Bytes are text that is written already.
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, bytes):
            written.append(each)
        elif isinstance(each, dict):
            inner = [part for name in each for part in (b",", orjson.dumps(name), b":", each[name])]
            left += reversed([b"{", *inner[1:], b"}"])
        elif isinstance(each, list):
            inner = [part for one in each for part in (b",", one)]
            left += reversed([b"[", *inner[1:], b"]"])
        else:
            written.append(orjson.dumps(each))
    return b"".join(written)


def chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Cut `items` into runs of at most `MAX_ITEMS` whose bodies stay within `MAX_BYTES`."""
    # 512 bytes leave room for the envelope around the items.
    start, size = 0, 512
    for index, item in enumerate(items):
        length = len(json_text(item)) + 1
        if index > start and (index - start >= MAX_ITEMS or size + length > MAX_BYTES):
            yield items[start:index]
            start, size = index, 512
        size += length
    if start < len(items):
        yield items[start:]


@dataclass(frozen=True, slots=True)
class ReplicationItem:
    """`{"pk","sk","op","version","createdAt","updatedAt"}`: key and order of an entry, never its image.

    `op` is a hint, a consistent read decides; the order counts only for a removal, whose image is gone.
    """

    key: EntryKey
    op: Op
    order: Order = Order()

    def as_json(self) -> dict[str, Any]:
        return {"pk": self.key.pk, "sk": self.key.sk, "op": self.op.value, **self.order.as_fields()}

    @classmethod
    def parse(cls, raw: object) -> ReplicationItem:
        """Read one raw item; raises PermanentFailure MISSING_KEY, INVALID_ENTRY or INVALID_BODY."""
        if not isinstance(raw, Mapping):
            raise PermanentFailure(
                Reason.INVALID_BODY, f"an item should be an object, found {type(raw).__name__}"
            )
        pk, sk = raw.get("pk"), raw.get("sk")
        for name, value in (("pk", pk), ("sk", sk)):
            if not isinstance(value, str) or not value:
                if RefusedRecord.parse(raw) is not None:
                    raise PermanentFailure(
                        Reason.INVALID_ENTRY, "a refused record of the stream names no key"
                    )
                raise PermanentFailure(Reason.MISSING_KEY, f"field {name} is missing or not a string")
        key = EntryKey.parse(pk, sk)
        if key is None:
            raise PermanentFailure(Reason.INVALID_ENTRY, "fields pk and sk are not the key of an entry")
        problem = key.problem or item_problem(raw)
        if problem is not None:
            raise PermanentFailure(Reason.INVALID_ENTRY, problem)
        op = raw.get("op", Op.UPSERT)
        if op not in (Op.UPSERT, Op.REMOVE):
            raise PermanentFailure(Reason.INVALID_BODY, "field op should be upsert or remove")
        return cls(key, Op(op), lenient_order(raw))


@dataclass(frozen=True, slots=True)
class RefusedRecord:
    """`{"shard","sequenceNumber","key":{"pk","sk"}}`: a record of the demand table's stream that replication refuses.

    It lies on the dead-letter queue as the only item of its message. Both parts of the key are base64 of UTF-8 (halves
    of characters included): they may be what no message can carry.
    """

    shard_id: str
    sequence: str  # its number in the shard
    pk: str  # of the item
    sk: str  # of the item

    def as_json(self) -> dict[str, Any]:
        key = {"pk": _base64(self.pk), "sk": _base64(self.sk)}
        return {"shard": self.shard_id, "sequenceNumber": self.sequence, "key": key}

    @classmethod
    def parse(cls, raw: object) -> RefusedRecord | None:
        """None for an item of another form; what is damaged in it is empty."""
        if not isinstance(raw, Mapping) or not isinstance(raw.get("sequenceNumber"), str):
            return None
        shard, key = raw.get("shard"), raw.get("key")
        parts = key if isinstance(key, Mapping) else {}
        return cls(
            shard if isinstance(shard, str) else "",
            raw["sequenceNumber"],
            _from_base64(parts.get("pk")),
            _from_base64(parts.get("sk")),
        )

    @property
    def place(self) -> str:
        """Where it was read, for people."""
        return f"record {shown(self.sequence)} of shard {shown(self.shard_id)}"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()


def _from_base64(text: object) -> str:
    try:
        return base64.b64decode(text, validate=True).decode("utf-8", "surrogatepass") if text else ""  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return ""


def item_problem(raw: object) -> str | None:
    """What is wrong with the form of an item of any message; None if nothing is."""
    if is_too_deep(raw, _ITEM_DEPTH):
        return f"the body is nested deeper than {MAX_DEPTH} levels"
    return None


_ATTEMPT_DIGITS = 4


def fingerprint(reason: str, error: str) -> str:
    """Groups failures by cause: the first 16 hex digits of SHA-256 over reason and error."""
    return hashlib.sha256(f"{reason}\n{error}".encode()).hexdigest()[:16]


def attempt_of(attributes: Mapping[str, str]) -> int:
    """The attribute `attempt`, counted from 1: a small number. Any other value counts as 1."""
    text = attributes.get("attempt", "")
    # Any sender can put a number of any length there.
    return max(1, int(text)) if len(text) <= _ATTEMPT_DIGITS and text.isascii() and text.isdigit() else 1


@dataclass(frozen=True, slots=True)
class ItemSubject:
    """What a failed item was about: `id` is unique within its message, `ids` are the fields under which people
    look for it (`campaignId`, ...): identifiers only. `order` is that of an entry's state.
    """

    id: str
    ids: Mapping[str, str | int] = field(default_factory=dict)
    order: Order | None = None

    @classmethod
    def entry(cls, key: EntryKey, order: Order | None) -> ItemSubject:
        return cls(key.document_id, {"campaignId": key.campaign_id, "entryId": key.entry_id}, order)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One failure. `subject` is None where the message was too broken to name one."""

    queue: str
    message_id: str
    failure: PermanentFailure
    correlation_id: str
    first_failed_at: str
    subject: ItemSubject | None = None

    @property
    def id(self) -> str:
        """The same failure of the same message keeps its id, so that a repeat is recorded once."""
        item = self.subject.id if self.subject else ""
        return hashlib.sha256(f"{self.queue}\n{self.message_id}\n{item}".encode()).hexdigest()

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.failure.reason, self.failure.error)
