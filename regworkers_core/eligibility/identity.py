"""Keyed hashes of identities: what an entry's id is derived from, and under which key a claim on an identity lies.

One secret in the secret store (`eligibility-identity`), made at its first use, whoever is first. Each campaign has a
key of its own, derived from it: what two campaigns keep about the same person cannot be joined.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets as randomness
import threading
from collections.abc import Callable
from typing import Protocol

from regworkers_core.domain.claim import TableKey, claim_key
from regworkers_core.domain.reasons import UsageError
from regworkers_core.eligibility.subject import Identity

SECRET = "eligibility-identity"  # noqa: S105 - its name
SECRET_BYTES = 32
# 144 bits: as good as unique, and short enough to be read out.
_ENTRY_ID_BYTES = 18
_HEX = re.compile(r"[0-9a-f]{64}")
_DESCRIPTION = "Key of the hashes of identities: another one would let everybody enter a second time."


class Secrets(Protocol):
    def get(self, name: str) -> str | None: ...
    def create(self, name: str, value: str, *, description: str) -> str: ...


class IdentityHash:
    """The hash functions of one environment."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def entry_id(self, campaign_id: str, mail: str) -> str:
        """The id of the entry that the owner of `mail` (comparable) gets who names none: 24 of `[A-Za-z0-9_-]`."""
        return _text(self._digest(campaign_id, "entry", mail)[:_ENTRY_ID_BYTES])

    def claim_key(self, campaign_id: str, kind: Identity, value: str) -> TableKey:
        """Where the claim on an identity lies; `value` is comparable."""
        return claim_key(campaign_id, kind.value, _text(self._digest(campaign_id, kind.value, value)))

    def _digest(self, campaign_id: str, purpose: str, value: str) -> bytes:
        key = hmac.digest(self._secret, f"campaign\n{campaign_id}".encode(), "sha256")
        return hmac.digest(key, f"{purpose}\n{value}".encode(), "sha256")


class IdentitySecret:
    """Reads the secret once a process. Safe to share between threads."""

    def __init__(self, secrets: Secrets, *, entropy: Callable[[int], bytes] = randomness.token_bytes) -> None:
        self._secrets, self._entropy = secrets, entropy
        self._lock = threading.Lock()
        self._hash: IdentityHash | None = None

    @property
    def known(self) -> IdentityHash | None:
        """Without asking anybody."""
        return self._hash

    def hash(self) -> IdentityHash:
        """Raises TransientFailure when the secret store cannot answer, UsageError for a secret of another kind."""
        with self._lock:
            if self._hash is None:
                self._hash = IdentityHash(bytes.fromhex(self._read()))
            return self._hash

    def existing(self) -> IdentityHash | None:
        """As `hash`, but None where there is no secret yet: there are no claims then."""
        return None if self._hash is None and self._secrets.get(SECRET) is None else self.hash()

    def _read(self) -> str:
        stands = self._secrets.get(SECRET) or self._secrets.create(
            SECRET, self._entropy(SECRET_BYTES).hex(), description=_DESCRIPTION
        )
        if not _HEX.fullmatch(stands):
            raise UsageError(
                f"secret {SECRET} should be 64 lowercase hex digits: restore it from its earlier version"
            )
        return stands


def _text(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
