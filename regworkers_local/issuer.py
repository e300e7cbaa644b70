"""A stub of the issuer of the codes: it redeems most of what it knows, blocks what expired, and states that signed.

It knows a campaign's codes from the file of `codes export --for-issuer`, as an issuer of another company does. Which
codes are redeemed follows from their digests, so a repeat states the same.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from regworkers_core.domain.campaign import IssuerKey
from regworkers_core.domain.messages import MessageType, chunks, encode
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.redemption import ISSUER, Statement, signed_text
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.queue import Outgoing, Queue

REDEEMED_SHARE = 0.7


class Known(NamedTuple):
    """A line of the export."""

    code: str
    digest: str
    expires_at: str


@dataclass(frozen=True)
class Issuer:
    """One issuer with its key, of 32 bytes."""

    seed: bytes = field(repr=False)
    key_id: str = "local"
    share: float = REDEEMED_SHARE

    @property
    def key(self) -> IssuerKey:
        """What a campaign names in `issuerKeys`."""
        return IssuerKey(self.key_id, self._private.public_key().public_bytes_raw().hex())

    @property
    def _private(self):  # type: ignore[no-untyped-def]
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self.seed)

    def redeems(self, digest: str) -> bool:
        """Whether the holder of this code uses it."""
        return int(digest[:8], 16) < self.share * 2**32

    def statements(self, campaign_id: str, known: Sequence[Known], now: float) -> Iterator[Statement]:
        """What is true by now (epoch seconds) of the codes that were given: used ones, then those that expired, then
        that this is all.
        """
        at = iso(now)
        given = [each for each in known if each.expires_at]
        for each in given:
            if self.redeems(each.digest):
                # Before the end, whenever it is stated.
                yield Statement(MessageType.REDEEMED, campaign_id, each.digest, min(at, each.expires_at))
        for each in given:
            if each.expires_at <= at and not self.redeems(each.digest):
                yield Statement(MessageType.BLOCKED, campaign_id, each.digest, at)
        yield Statement(MessageType.COMPLETE, campaign_id, "", at)

    def messages(self, statements: Sequence[Statement]) -> Iterator[Outgoing]:
        """The signed messages of these statements, each of one type."""
        for kind in dict.fromkeys(each.kind for each in statements):
            for items in chunks([each.as_json() for each in statements if each.kind is kind]):
                body = encode(kind, "issuer", items)
                signature = self._private.sign(signed_text(body)).hex()
                yield Outgoing(body, {ISSUER: f"{self.key_id}:{signature}", "attempt": "1"})

    def send(self, queue: Queue, statements: Sequence[Statement]) -> int:
        """Returns the number of messages. Raises TransientFailure unless all are confirmed: state it all again."""
        messages = list(self.messages(statements))
        if failed := queue.send(messages):
            raise TransientFailure(queue.name, f"{len(failed)} of {len(messages)} messages not confirmed")
        return len(messages)


# For trying out only: everybody knows its key.
OF_THIS_MACHINE = Issuer(hashlib.sha256(b"issuer-of-this-machine").digest(), "of-this-machine")


def read_export(path: Path) -> list[Known]:
    """The lines of an export for the issuer. Raises OSError."""
    with path.open(encoding="utf-8", newline="") as file:
        return [Known(each["code"], each["digest"], each["expiresAt"]) for each in csv.DictReader(file)]
