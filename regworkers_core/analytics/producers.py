"""The seal of `analytics-queue`: only who has a role's key sends events, and only those of its role."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from regworkers_core.domain.events import PRODUCER, EventType, ProducerKey, ProducerRole, Signature, may_send
from regworkers_core.domain.messages import json_text
from regworkers_core.domain.reasons import PermanentFailure, Reason
from regworkers_core.engine.queue import Received

# Characters of a signature, with room.
_LONGEST = 128
_TYPES = frozenset(kind.value for kind in EventType)


class Keys(Protocol):
    def sign(self, role: ProducerRole, body: bytes) -> str: ...
    def accepted(self, signature: Signature, sent_at: float | None = None, /) -> ProducerKey | None: ...


class ProducerSeal:
    """`engine.handling.Seal` over the attribute `producer`."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def check(self, message: Received, items: Sequence[Any]) -> None:
        """Raises PermanentFailure FORGED; its error repeats nothing that an unknown sender has written."""
        given = message.attributes.get(PRODUCER)
        if given is None:
            raise _forged("it has no attribute producer")
        signature = Signature.parse(given)
        if signature is None:
            raise _forged("its attribute producer is not <role>:<key id>:<hmac> of a role that sends events")
        key = self._keys.accepted(signature, message.sent_at)
        if key is None:
            raise _forged(f"the key that it names is not accepted for {signature.role}")
        body = message.body.encode(errors="surrogatepass")
        if not hmac.compare_digest(key.mac(body).encode(), signature.mac.encode(errors="replace")):
            raise _forged(f"its body is not what {signature.role} signed")
        # A type that is no text is the item's own problem.
        given_kinds = (item.get("type") for item in items if isinstance(item, dict))
        for kind in sorted({kind for kind in given_kinds if isinstance(kind, str)}):
            if not may_send(signature.role, kind):
                raise _forged(
                    f"{signature.role} sends no {kind if kind in _TYPES else 'event of such a type'}"
                )

    def kept(self, message: Received) -> Mapping[str, str]:
        given = message.attributes.get(PRODUCER, "")
        # A longer one is no signature, and could make the dead letter larger than SQS takes.
        return {PRODUCER: given} if len(given) <= _LONGEST else {}

    def attributes(self, body: bytes) -> Mapping[str, str]:
        return {PRODUCER: self._keys.sign(ProducerRole.ANALYTICS, body)}


def signed_event(event: Any, keys: Keys, role: ProducerRole) -> Any:
    """An SQS event whose messages are signed as this role, in place of what they carry; anything else as it is."""
    records = event.get("Records") if isinstance(event, dict) else None
    if not isinstance(records, list):
        return event
    return {**event, "Records": [_signed(record, keys, role) for record in records]}


def _signed(record: Any, keys: Keys, role: ProducerRole) -> Any:
    body = record.get("body") if isinstance(record, dict) else None
    if body is None:
        return record
    text = body if isinstance(body, str) else json_text(body).decode()
    attribute = {"stringValue": keys.sign(role, text.encode(errors="surrogatepass")), "dataType": "String"}
    given = record.get("messageAttributes")
    attributes = given if isinstance(given, dict) else {}
    return {**record, "body": text, "messageAttributes": {**attributes, PRODUCER: attribute}}


def _forged(error: str) -> PermanentFailure:
    return PermanentFailure(Reason.FORGED, error)
