"""Business events as CloudEvents 1.0 (data contract v1): without mail, names or ids of people. Who may send which of
them to `analytics-queue`, and the keys that prove it.

A message carries the attribute `producer`: `<role>:<key id>:<hmac>`. The last part is HMAC-SHA256, in hex, over the
exact bytes of the body under the role's key.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets as randomness
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from regworkers_core.domain.entry import FIELDS, Entry, Order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.selection import MarketPhase, Notice, Planned
from regworkers_core.domain.timestamps import iso, seconds

SOURCE = "regworkers/replication"
SELECTION_SOURCE = "regworkers/selection"
ELIGIBILITY_SOURCE = "regworkers/eligibility"


class EventType(StrEnum):
    ENTRY_REPLICATED = "entry.replicated"
    ENTRY_REMOVED = "entry.removed"
    ENTRY_LOGGED = "entry.logged"
    DRAW_COMMITTED = "draw.committed"
    DRAW_DRAWN = "draw.drawn"
    SELECTION_MADE = "selection.made"
    NOTIFICATION_QUEUED = "notification.queued"
    ELIGIBILITY_JUDGED = "eligibility.judged"


def event_id(key: EntryKey, order: Order, kind: EventType) -> str:
    """SHA-256 over (entry, createdAt, version, updatedAt, type), so that a consumer drops repeats."""
    return _digest(key.document_id, order.created_at, str(order.version), order.updated_at, kind.value)


def entry_replicated(entry: Entry, replicated_at: str, correlation_id: str) -> dict[str, Any]:
    """The event of one saved state of a live entry."""
    data = {name: field.in_event(entry.fields.get(name)) for name, field in FIELDS.items() if field.in_event}
    return _event(entry.key, entry.order, EventType.ENTRY_REPLICATED, replicated_at, correlation_id, data)


def entry_removed(key: EntryKey, order: Order, replicated_at: str, correlation_id: str) -> dict[str, Any]:
    """The event of a tombstone; `order` is that of the removed image."""
    return _event(key, order, EventType.ENTRY_REMOVED, replicated_at, correlation_id, {})


def entry_logged(key: EntryKey, index: int, size: int, at: str, correlation_id: str) -> dict[str, Any]:
    """The event of a registration at `index` in its campaign's tree, as the tree has `size` entries. `at` is the time
    in its leaf, so that a repeat is the same event; the salt stays where it is.
    """
    kind = EventType.ENTRY_LOGGED
    id_ = _digest(key.document_id, str(index), kind.value)
    data = {"campaignId": key.campaign_id, "entryId": key.entry_id, "index": index, "size": size}
    return _envelope(id_, SELECTION_SOURCE, kind, key.document_id, at, correlation_id, data)


def eligibility_judged(
    key: EntryKey, order: Order, verdict: Mapping[str, Any], correlation_id: str
) -> dict[str, Any]:
    """The event of an entry that was judged and written; `order` is the entry's. `verdict` holds `status`, `reasons`
    (codes), `ruleSet` and `asOf`.
    """
    data = {"campaignId": key.campaign_id, "entryId": key.entry_id, **order.as_fields(), **verdict}
    kind = EventType.ELIGIBILITY_JUDGED
    id_ = event_id(key, order, kind)
    written = seconds(order.updated_at)
    # Another writer's entry may hold a time that is none.
    at = verdict["asOf"] if written is None else iso(written)
    return _envelope(id_, ELIGIBILITY_SOURCE, kind, key.document_id, at, correlation_id, data)


def draw_event(
    campaign_id: str, phase: int, kind: EventType, data: Mapping[str, Any], at: str, *, replaced: int = 0
) -> dict[str, Any]:
    """What a phase of a draw has published: `data` are hashes and counts. It concerns no single entry, so its
    subject and key are `<campaignId>:draw`. A manifest that took the place of the `replaced`-th is an event of its own.
    """
    subject = f"{campaign_id}:draw"
    which = (f"replaced-{replaced}",) if replaced else ()
    return _envelope(
        _digest(subject, str(phase), kind.value, *which),
        SELECTION_SOURCE,
        kind,
        subject,
        at,
        f"draw-{campaign_id}-{phase}",
        {"campaignId": campaign_id, "phase": phase, **data},
    )


def selection_made(
    market: MarketPhase, winner: Planned, result_hash: str, at: str, correlation_id: str
) -> dict[str, Any]:
    """The event of one winner. The code stays where it is kept."""
    data = {"rank": winner.rank, "position": winner.position, "selectedAt": at}
    named = (market, winner.ref, winner.entry_id, result_hash)
    return _selection_event(*named, EventType.SELECTION_MADE, at, correlation_id, data)


def notification_queued(notice: Notice, at: str, correlation_id: str) -> dict[str, Any]:
    """The event of one message that the mailer's queue has confirmed."""
    data = {"type": notice.type.value, "notBefore": notice.not_before, "queuedAt": at}
    named = (notice.market, notice.ref, notice.entry_id, notice.result_hash)
    return _selection_event(*named, EventType.NOTIFICATION_QUEUED, at, correlation_id, data)


def _selection_event(
    market: MarketPhase,
    ref: str,
    entry_id: str,
    result_hash: str,
    kind: EventType,
    at: str,
    correlation_id: str,
    data: dict[str, Any],
) -> dict[str, Any]:
    """Its id is SHA-256 over (market, phase and ref; result; type), so that a repeat is the same event."""
    return _envelope(
        _digest(market.key(ref), result_hash, kind.value),
        SELECTION_SOURCE,
        kind,
        f"{market.campaign_id}:{entry_id}",
        at,
        correlation_id,
        {**market.as_fields(), "entryId": entry_id, "ref": ref, "resultHash": result_hash, **data},
    )


def _event(
    key: EntryKey, order: Order, kind: EventType, at: str, correlation_id: str, data: dict[str, Any]
) -> dict[str, Any]:
    return _envelope(
        event_id(key, order, kind),
        SOURCE,
        kind,
        key.document_id,
        at,
        correlation_id,
        {
            "campaignId": key.campaign_id,
            "entryId": key.entry_id,
            **order.as_fields(),
            "replicatedAt": at,
            **data,
        },
    )


def _envelope(
    id_: str,
    source: str,
    kind: EventType,
    subject: str,
    at: str,
    correlation_id: str,
    data: dict[str, Any],
) -> dict[str, Any]:
    """CloudEvents 1.0 around `data`; the subject is the key on Kafka, too."""
    return {
        "specversion": "1.0",
        "id": id_,
        "source": source,
        "type": kind.value,
        "subject": subject,
        "time": at,
        "datacontenttype": "application/json",
        "partitionkey": subject,
        "correlationid": correlation_id,
        "data": data,
    }


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


PRODUCER = "producer"
# What waits may be as old as the retention of the queue and that of its dead letters together (14 days each), and the
# processes that sign notice a new key within the hour.
FORMER_SECONDS = 29 * 24 * 3600.0
_KEY_BYTES = 32
_KEY_ID_DIGITS = 8
_TEXT = re.compile(r"(?P<since>\S{1,40}) (?P<key>[0-9a-f]{64})")


class ProducerRole(StrEnum):
    """The IAM roles whose processes send events; `eligibility` is the function that fans ask."""

    REPLICATION = "replication"
    PROVISION = "provision"
    SELECTION = "selection"
    ELIGIBILITY = "eligibility"
    ANALYTICS = "analytics"


_ENTRIES = frozenset({EventType.ENTRY_REPLICATED, EventType.ENTRY_REMOVED})
_SENDS: Mapping[ProducerRole, frozenset[str]] = {
    ProducerRole.REPLICATION: _ENTRIES,
    # It rebuilds the replica after a total failure.
    ProducerRole.PROVISION: _ENTRIES,
    ProducerRole.SELECTION: frozenset(
        {
            EventType.ENTRY_LOGGED,
            EventType.DRAW_COMMITTED,
            EventType.DRAW_DRAWN,
            EventType.SELECTION_MADE,
            EventType.NOTIFICATION_QUEUED,
        }
    ),
    ProducerRole.ELIGIBILITY: frozenset({EventType.ELIGIBILITY_JUDGED}),
}


def may_send(role: ProducerRole, kind: str) -> bool:
    """Whether events of this type are the role's. `publish` (analytics) sends on what others had signed: any."""
    return role is ProducerRole.ANALYTICS or kind in _SENDS[role]


def role_named(text: str) -> ProducerRole:
    """Raises UsageError for a name that is no role's."""
    try:
        return ProducerRole(text)
    except ValueError:
        raise UsageError(f"{text!r} sends no events: use {', '.join(ProducerRole)}") from None


@dataclass(frozen=True, slots=True)
class Signature:
    """The attribute `producer`, read."""

    role: ProducerRole
    key_id: str
    mac: str

    @classmethod
    def parse(cls, text: str) -> Signature | None:
        """None for anything else, and for a role that sends no events."""
        role, _, rest = text.partition(":")
        key_id, _, mac = rest.partition(":")
        return cls(ProducerRole(role), key_id, mac) if role in _ROLES and key_id and mac else None


_ROLES = frozenset(role.value for role in ProducerRole)


@dataclass(frozen=True, slots=True)
class ProducerKey:
    """A role's key since `since` (an ISO time). Its text in the secret store is `<since> <64 hex digits>`."""

    role: ProducerRole
    secret: bytes
    since: str

    @classmethod
    def generate(cls, role: ProducerRole, now: float) -> ProducerKey:
        return cls(role, randomness.token_bytes(_KEY_BYTES), iso(now))

    @classmethod
    def parse(cls, role: ProducerRole, text: str) -> ProducerKey:
        """Raises UsageError for another text; it is not repeated."""
        found = _TEXT.fullmatch(text)
        if found is None or seconds(found["since"]) is None:
            raise UsageError(
                f"secret {secret_name(role)} should be a time and 64 hex digits: restore its previous version"
            )
        return cls(role, bytes.fromhex(found["key"]), found["since"])

    def __repr__(self) -> str:
        return f"ProducerKey({self.role}, {self.id}, since {self.since})"

    @property
    def text(self) -> str:
        return f"{self.since} {self.secret.hex()}"

    @property
    def id(self) -> str:
        """Tells the keys of a role apart, and says nothing of the key."""
        return hashlib.sha256(b"key id\n" + self.secret).hexdigest()[:_KEY_ID_DIGITS]

    def mac(self, body: bytes) -> str:
        return hmac.digest(self.secret, body, "sha256").hex()

    def sign(self, body: bytes) -> str:
        """The attribute `producer` of a message with this body."""
        return f"{self.role}:{self.id}:{self.mac(body)}"

    @property
    def former_until(self) -> float:
        """Until when (epoch seconds) the key before this one is accepted, too."""
        return (seconds(self.since) or 0.0) + FORMER_SECONDS


def secret_name(role: ProducerRole) -> str:
    return f"producer-key/{role}"


def key_description(role: ProducerRole) -> str:
    return f"Signs the events of {role}. Change it by `regworkers producer-key {role} --change` only."
