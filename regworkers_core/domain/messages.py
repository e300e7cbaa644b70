"""Message bodies on the queues (data contract v1): an envelope with up to 100 items, at most 256 KB."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.order import Order, lenient_order
from regworkers_core.domain.reasons import PermanentFailure, Reason

VERSION = 1
MAX_ITEMS = 100
MAX_BYTES = 256 * 1024


class MessageType(StrEnum):
    REPLICATE = "entries.replicate"
    ASSIGN = "selections.assign"
    NOTIFY = "notifications.send"
    PUBLISH = "analytics.publish"


class Op(StrEnum):
    UPSERT = "upsert"
    REMOVE = "remove"


def fit_correlation_id(value: object) -> str:
    """`value` if it may travel as a message attribute (short, printable ASCII), else an empty string."""
    fit = isinstance(value, str) and len(value) <= 128 and value.isascii() and value.isprintable()
    return str(value) if fit else ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A decoded body. `items` are raw: each is judged by itself, so that a bad one lands alone."""

    type: MessageType
    correlation_id: str
    items: Sequence[Any]


def decode(body: str | bytes, expected: MessageType) -> Envelope:
    """Read a body; raises PermanentFailure INVALID_BODY, UNKNOWN_TYPE or UNSUPPORTED_VERSION."""
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
    if kind != expected:
        raise PermanentFailure(
            Reason.UNKNOWN_TYPE, f"this queue carries {expected}, not what field type says"
        )
    if version is None:
        raise PermanentFailure(Reason.INVALID_BODY, "field version is missing")
    if version != VERSION or isinstance(version, bool):
        raise PermanentFailure(Reason.UNSUPPORTED_VERSION, f"field version should be {VERSION}")
    return Envelope(expected, fit_correlation_id(document.get("correlationId")), items)


def encode(kind: MessageType, correlation_id: str, items: Sequence[Any]) -> bytes:
    """One body. The caller keeps to MAX_ITEMS and MAX_BYTES: see `chunks`."""
    return _json({"type": kind, "version": VERSION, "correlationId": correlation_id, "items": list(items)})


def _json(value: Any) -> bytes:
    """JSON in which U+FFFE and U+FFFF are escaped: the only characters of a JSON text that SQS refuses."""
    return orjson.dumps(value).replace(b"\xef\xbf\xbe", b"\\ufffe").replace(b"\xef\xbf\xbf", b"\\uffff")


def chunks(
    items: Sequence[Any], max_items: int = MAX_ITEMS, max_bytes: int = MAX_BYTES
) -> Iterator[Sequence[Any]]:
    """Cut `items` into runs of at most `max_items` whose bodies stay within `max_bytes`."""
    # 512 bytes leave room for the envelope around the items.
    start, size = 0, 512
    for index, item in enumerate(items):
        length = len(_json(item)) + 1
        if index > start and (index - start >= max_items or size + length > max_bytes):
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
                raise PermanentFailure(Reason.MISSING_KEY, f"field {name} is missing or not a string")
        key = EntryKey.parse(pk, sk)
        if key is None:
            raise PermanentFailure(Reason.INVALID_ENTRY, "fields pk and sk are not the key of an entry")
        op = raw.get("op", Op.UPSERT)
        if op not in (Op.UPSERT, Op.REMOVE):
            raise PermanentFailure(Reason.INVALID_BODY, "field op should be upsert or remove")
        return cls(key, Op(op), lenient_order(raw))
