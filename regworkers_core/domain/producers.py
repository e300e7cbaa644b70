"""Who may send which events to `analytics-queue`, and the keys that prove it (data contract v1).

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

from regworkers_core.domain.events import EventType
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import iso, seconds

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
