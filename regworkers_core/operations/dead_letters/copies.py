"""Dead letters as JSON lines: what is kept of those that are dropped, and what an export writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from regworkers_core.adapters.aws.objects import ObjectStore
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.dead_letters.letters import DeadMessage

PREFIX = "dead-letters/"
_DAY_SECONDS = 86_400.0


def as_lines(letters: Sequence[DeadMessage], *, at: float, keep_days: int) -> bytes:
    """One document a line: the message as it was, and until when the copy is wanted (the bucket's lifecycle of
    `dead-letters/` deletes it).
    """
    until = iso(at + keep_days * _DAY_SECONDS)
    return b"".join(orjson.dumps(_document(letter, iso(at), until)) + b"\n" for letter in letters)


def _document(letter: DeadMessage, at: str, until: str) -> dict[str, Any]:
    return {
        "queue": letter.queue.name,
        "messageId": letter.id,
        "sentAt": None if letter.message.sent_at is None else iso(letter.message.sent_at),
        "receiveCount": letter.message.receive_count,
        "reason": letter.reason,
        "fingerprint": letter.fingerprint,
        "attributes": dict(letter.message.attributes),
        "body": letter.message.body,
        "copiedAt": at,
        "keepUntil": until,
    }


class Copies:
    """Numbered objects below one prefix; each is written once and never over another."""

    def __init__(self, objects: ObjectStore, prefix: str) -> None:
        self._objects, self.prefix = objects, prefix
        self.keys: list[str] = []

    def keep(self, lines: bytes) -> str:
        """Durable when it returns. Raises TransientFailure when S3 does not answer, or holds something else there."""
        key = f"{self.prefix}{len(self.keys):06d}.jsonl"
        if self._objects.put_once(key, lines) != lines:
            raise TransientFailure("s3", f"{key} holds something else: run it again")
        self.keys.append(key)
        return key

    @property
    def address(self) -> str | None:
        """Where they are; None while there are none."""
        return f"s3://{self._objects.bucket}/{self.prefix}" if self.keys else None
