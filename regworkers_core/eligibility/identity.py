"""Who asks for a check, and what is taken from them: the trust boundary (docs/security.md).

A trusted caller is a backend of ours: it says who the fan is, and what weight they have. A fan says what a form asks.
Another party has to vouch for who they are: the identity provider whose claims AppSync verified, or the authorizer.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets as randomness
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from regworkers_core.domain.claim import TableKey, claim_key
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.roles import Role
from regworkers_core.eligibility.case import Identity
from regworkers_core.settings.flows import EligibilitySettings

# What decides over odds and limits: never a fan's own word.
NOT_A_FANS = ("weight", "segments", "unit")
# Where AppSync puts what an identity provider, or an authorizer of ours (AWS_LAMBDA), says of the caller.
_CLAIMS = ("claims", "resolverContext")
# OpenID Connect: whether the provider has seen that the address is the user's. Cognito says it as a text.
_MAIL_CLAIM, _VERIFIED = "email", (True, "true")
_MAX_CLAIM = 256


@dataclass(frozen=True, slots=True)
class Caller:
    """`vouched` are the identities that are vouched for, as they came; `bound` those that a fan may have only if
    they are. A trusted caller has neither, and needs none.
    """

    is_trusted: bool = False
    vouched: Mapping[Identity, str] = field(default_factory=dict)
    bound: frozenset[Identity] = frozenset({Identity.GLOBAL_USER_ID, Identity.MEMBER_ID})


TRUSTED = Caller(is_trusted=True, bound=frozenset())
FAN = Caller()


def direct_caller(settings: EligibilitySettings) -> Caller:
    """Of an event that is a list of checks: who may call the function at all has `lambda:InvokeFunction`."""
    return TRUSTED if settings.direct_callers == "trusted" else FAN


def appsync_caller(event: Mapping[str, Any], settings: EligibilitySettings) -> Caller:
    """Of an AppSync event, by its `identity`, which AppSync writes and no argument of a request can. Never raises."""
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
    # A browser that got its keys from a Cognito identity pool is a fan's, whatever role the pool gave it.
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
