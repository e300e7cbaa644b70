"""What is kept about a failure that no repeat can help."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.order import Order
from regworkers_core.domain.reasons import PermanentFailure

_ATTEMPT_DIGITS = 4


def fingerprint(reason: str, error: str) -> str:
    """Groups failures by cause: the first 16 hex digits of SHA-256 over reason and error."""
    return hashlib.sha256(f"{reason}\n{error}".encode()).hexdigest()[:16]


def attempt_of(attributes: Mapping[str, str]) -> int:
    """The attribute `attempt`, counted from 1: a small number; whatever else it says counts as the first."""
    text = attributes.get("attempt", "")
    # Any sender can put a number of any length there.
    return max(1, int(text)) if len(text) <= _ATTEMPT_DIGITS and text.isascii() and text.isdigit() else 1


@dataclass(frozen=True, slots=True)
class Subject:
    """What a failed item was about: `id` is unique within its message, `ids` are the fields under which people
    look for it (`campaignId`, ...): identifiers only. `order` is that of an entry's state.
    """

    id: str
    ids: Mapping[str, str | int] = field(default_factory=dict)
    order: Order | None = None

    @classmethod
    def entry(cls, key: EntryKey, order: Order | None) -> Subject:
        return cls(key.document_id, {"campaignId": key.campaign_id, "entryId": key.entry_id}, order)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One failure. `subject` is None where the message was too broken to name one."""

    queue: str
    message_id: str
    failure: PermanentFailure
    correlation_id: str
    first_failed_at: str
    subject: Subject | None = None

    @property
    def id(self) -> str:
        """The same failure of the same message keeps its id, so that a repeat is recorded once."""
        item = self.subject.id if self.subject else ""
        return hashlib.sha256(f"{self.queue}\n{self.message_id}\n{item}".encode()).hexdigest()

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.failure.reason, self.failure.error)
