"""Who asks for a check, and what is taken from them: the trust boundary (docs/security.md).

A trusted caller is a backend of ours: it says who the fan is, and what weight they have. A fan says what a form asks.
Another party has to vouch for who they are: the identity provider whose claims AppSync verified, or the authorizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from regworkers_core.domain.roles import Role
from regworkers_core.eligibility.subject import Identity
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
