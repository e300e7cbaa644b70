"""Who asks for a check and which of their fields are accepted (the trust boundary, docs/security.md); and the keyed
hashes that identities are stored under.

A trusted caller is our own backend: it says who the fan is and what weight they have. A fan fills in a form; another
party vouches for their identity: the identity provider whose claims AppSync verified, or the authorizer.

The hashes use one secret in the secret store (`eligibility-identity`), created at its first use by the first process.
Each campaign has its own key, derived from it, so that the records of two campaigns cannot be joined by person.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets as randomness
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from fairdraw import scheduling
from regworkers_core.domain.claim import TableKey, claim_key
from regworkers_core.domain.reasons import UsageError
from regworkers_core.eligibility.case import Identity
from regworkers_core.settings.flows import EligibilitySettings, Role

# They decide odds and limits, or stay in logs and events after an erasure, so a fan may not set them.
NOT_A_FANS = ("weight", "segments", "unit", "entryId")
# Where AppSync puts the claims of an identity provider or of our authorizer (AWS_LAMBDA).
_CLAIMS = ("claims", "resolverContext")
# OpenID Connect: whether the provider verified that the address is the user's. Cognito sends it as text.
_MAIL_CLAIM, _VERIFIED = "email", (True, "true")
_MAX_CLAIM = 256


@dataclass(frozen=True, slots=True)
class Caller:
    """`vouched` are the identities that are vouched for, as received; `bound` the kinds that a fan may use only if
    they are vouched for. A trusted caller has neither.
    """

    is_trusted: bool = False
    vouched: Mapping[Identity, str] = field(default_factory=dict)
    bound: frozenset[Identity] = frozenset({Identity.GLOBAL_USER_ID, Identity.MEMBER_ID})


TRUSTED = Caller(is_trusted=True, bound=frozenset())
FAN = Caller()


def direct_caller(settings: EligibilitySettings) -> Caller:
    """Return the caller of an event that is a list of checks, which needs `lambda:InvokeFunction`."""
    return TRUSTED if settings.direct_callers == "trusted" else FAN


def appsync_caller(event: Mapping[str, Any], settings: EligibilitySettings) -> Caller:
    """Return the caller of an AppSync event by its `identity`, which only AppSync writes. Never raises."""
    identity = event.get("identity")
    if not isinstance(identity, Mapping):
        identity = {}
    if _is_trusted(identity, settings.trusted_callers):
        return TRUSTED
    names = {
        Identity.EMAIL: settings.email_claim,
        Identity.GLOBAL_USER_ID: settings.global_user_id_claim,
        Identity.MEMBER_ID: settings.member_id_claim,
    }
    found = {kind: _claim(identity, name) for kind, name in names.items() if name}
    vouched = {kind: value for kind, value in found.items() if value}
    bound = FAN.bound | ({Identity.EMAIL} if settings.email_claim else set())
    return Caller(False, vouched, bound)


def _is_trusted(identity: Mapping[str, Any], trusted: tuple[str, ...]) -> bool:
    # A browser with credentials of a Cognito identity pool is a fan's, whatever role the pool gave it.
    if identity.get("cognitoIdentityId") or identity.get("cognitoIdentityPoolId"):
        return False
    role = Role.of_session(identity.get("userArn"))
    return role is not None and role in map(Role.named, trusted)


def _claim(identity: Mapping[str, Any], name: str) -> str | None:
    for place in _CLAIMS:
        claims = identity.get(place)
        if not isinstance(claims, Mapping) or name not in claims:
            continue
        if place == "claims" and name == _MAIL_CLAIM and claims.get("email_verified") not in _VERIFIED:
            return None
        value = claims[name]
        is_number = isinstance(value, int) and not isinstance(value, bool)
        text = str(value).strip() if isinstance(value, str) or is_number else ""
        return text if 0 < len(text) <= _MAX_CLAIM else None
    return None


SECRET = "eligibility-identity"  # noqa: S105 - its name
SECRET_BYTES = 32
# 144 bits: practically unique, and short enough to read out.
_ENTRY_ID_BYTES = 18
_HEX = re.compile(r"[0-9a-f]{64}")
_DESCRIPTION = "Key of the hashes of identities: another one would let every fan enter a second time."


class IdentitySecrets(Protocol):
    def get(self, name: str) -> str | None: ...
    def create(self, name: str, value: str, *, description: str) -> str: ...


class IdentityHash:
    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def entry_id(self, campaign_id: str, mail: str) -> str:
        """Return the entry id for the owner of `mail` (comparable): 24 characters of `[A-Za-z0-9_-]`."""
        return _text(self._digest(campaign_id, "entry", mail)[:_ENTRY_ID_BYTES])

    def claim_key(self, campaign_id: str, kind: Identity, value: str) -> TableKey:
        """Return the table key of the claim on an identity; `value` is comparable."""
        return claim_key(campaign_id, kind.value, _text(self._digest(campaign_id, kind.value, value)))

    def _digest(self, campaign_id: str, purpose: str, value: str) -> bytes:
        key = hmac.digest(self._secret, f"campaign\n{campaign_id}".encode(), "sha256")
        return hmac.digest(key, f"{purpose}\n{value}".encode(), "sha256")


class IdentitySecret:
    """The secret, read once per process. Safe to share between threads."""

    def __init__(
        self, secrets: IdentitySecrets, *, entropy: Callable[[int], bytes] = randomness.token_bytes
    ) -> None:
        self._secrets, self._entropy = secrets, entropy
        self._lock = scheduling.lock()
        self._hash: IdentityHash | None = None

    @property
    def known(self) -> IdentityHash | None:
        """The hash functions, if the secret has been read already."""
        return self._hash

    def hash(self) -> IdentityHash:
        """Return the hash functions. Raises TransientFailure if the secret store does not answer, UsageError for a
        malformed secret.
        """
        with self._lock:
            if self._hash is None:
                self._hash = IdentityHash(bytes.fromhex(self._read()))
            return self._hash

    def existing(self) -> IdentityHash | None:
        """Return the hash functions, or None if there is no secret yet, so that there are no claims either."""
        return None if self._hash is None and self._secrets.get(SECRET) is None else self.hash()

    def _read(self) -> str:
        secret = self._secrets.get(SECRET) or self._secrets.create(
            SECRET, self._entropy(SECRET_BYTES).hex(), description=_DESCRIPTION
        )
        if not _HEX.fullmatch(secret):
            raise UsageError(f"secret {SECRET} must be 64 lowercase hex digits: restore its previous version")
        return secret


def _text(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
