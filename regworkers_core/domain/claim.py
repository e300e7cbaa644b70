"""Who a fan is: mail addresses and when two are equal, the facts of the User Service; and the items of the demand table
that are under an identity: claims and invites (data contract v1).

A claim is an item for each identity that has entered; at most one entry holds it. The raw address is always kept. Dots
and plus tags are significant: two such addresses may belong to two people, so they are no reason to refuse a fan.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from functools import cache
from typing import Any, TypedDict

from regworkers_core.domain.keys import CAMPAIGN_PREFIX

# RFC 5321 4.5.3.1.3 as corrected by its erratum 1690. Also what keeps a hostile text from costing time.
MAX_LENGTH = 254
# What nearly every address looks like, and what the library, a hundred times as slow, never refuses: atoms and plain
# labels without repeated hyphens, an alphabetic top-level domain. Others are left to the library.
_PLAIN = re.compile(
    r"[a-z0-9_+-]+(?:\.[a-z0-9_+-]+){0,9}@(?:[a-z0-9](?:-?[a-z0-9]){0,31}\.){1,9}(?P<top>[a-z]{2,24})",
    re.IGNORECASE,
)


@cache
def _special_tops() -> frozenset[str]:
    from email_validator import SPECIAL_USE_DOMAIN_NAMES

    return frozenset(name.rpartition(".")[2] for name in SPECIAL_USE_DOMAIN_NAMES)


def is_mail(text: str) -> bool:
    """Whether `text`, trimmed, is an address that mail can be sent to (syntax only, without DNS)."""
    trimmed = text.strip()
    if len(trimmed) > MAX_LENGTH:
        return False
    plain = _PLAIN.fullmatch(trimmed)
    if plain and plain["top"].lower() not in _special_tops():
        return True
    from email_validator import EmailNotValidError, validate_email

    try:
        # `.test` is reserved for tests (RFC 2606), which is what qa is for.
        validate_email(trimmed, check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        return False
    return True


def comparable(text: str) -> str:
    """The form in which two addresses are compared: trimmed, NFC, domain in IDNA, lower case.

    Total: what is no address comes back trimmed, NFC and in lower case, so that equal texts stay equal.
    """
    local, at, domain = unicodedata.normalize("NFC", text.strip()).rpartition("@")
    return f"{local.lower()}{at}{_ascii_domain(domain)}"


def _ascii_domain(domain: str) -> str:
    if domain.isascii():
        return domain.lower()
    import idna

    try:
        return idna.encode(domain, uts46=True).decode("ascii").lower()
    except idna.IDNAError:
        return domain.lower()


@dataclass(frozen=True, slots=True)
class User:
    """What the service knows of a fan. Prints none of its values."""

    verified_phone: bool = field(repr=False)
    blocked: bool = field(repr=False)  # whether the service has locked the account out
    region: str | None = field(default=None, repr=False)  # None: the service does not know it
    birth_date: date | None = field(default=None, repr=False)  # None: the service does not know it


IDENTITY_PREFIX = "IDENTITY#"
# A claim without an entry is another writer's within this time: longer than any writer goes on trying.
CLAIM_LEASE_SECONDS = 60.0
# How long after its `createdAt` an entry may still land in the demand table. A writer takes `createdAt` right before
# it judges; then come its claims and the put with its retries. It begins no attempt of the put later than
# `CLOCKS_SECONDS` and the longest attempt (`aws.connectTimeoutSeconds` + `eligibility.readSeconds`, 5 s unless set
# otherwise) before the end of this time, and never puts an older entry: a repeat is judged again at its own moment.
# To see every entry that was admitted before a moment, wait this long after it.
WRITE_GRACE_SECONDS = 30.0
# What the clocks of two machines may differ by, and a request may linger on the wire when its sender has given up.
CLOCKS_SECONDS = 3.0
TableKey = tuple[str, str]


def claim_key(campaign_id: str, kind: str, digest: str) -> TableKey:
    """PK and SK of the claim on an identity; `digest` is a keyed hash of its value, so the key does not reveal it."""
    return CAMPAIGN_PREFIX + campaign_id, f"{IDENTITY_PREFIX}{kind}#{digest}"


@dataclass(frozen=True, slots=True)
class Claim:
    """An entry's hold on an identity."""

    key: TableKey
    entry_id: str  # who holds it; empty: it is free
    claimed_at: float  # epoch seconds
    token: str  # new with every write: a condition on it means exactly as it was read

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> Claim:
        """An item of the table. A damaged one counts as free."""
        entry_id, claimed_at, token = (item.get(name) for name in ("entryId", "claimedAt", "token"))
        return cls(
            (item["PK"], item["SK"]),
            entry_id if isinstance(entry_id, str) else "",
            float(claimed_at) if isinstance(claimed_at, int | float) else 0.0,
            token if isinstance(token, str) else "",
        )

    def as_item(self) -> dict[str, Any]:
        return {
            "PK": self.key[0],
            "SK": self.key[1],
            "entityType": "IDENTITY",
            "campaignId": self.key[0].removeprefix(CAMPAIGN_PREFIX),
            "entryId": self.entry_id,
            "claimedAt": self.claimed_at,
            "token": self.token,
        }


INVITE_PREFIX = "INVITE#"


class InviteType(StrEnum):
    """The identity that an invite names, in the order in which an entry's invites are looked up."""

    EMAIL = "email"
    GLOBAL_USER_ID = "globalUserId"
    MEMBER_ID = "memberId"

    def comparable(self, value: str) -> str:
        """The form under which an invite is stored and looked for."""
        return comparable(value) if self is InviteType.EMAIL else value.strip()


class InviteItem(TypedDict):
    """An invite in the demand table."""

    PK: str  # of the campaign
    SK: str  # of the type and the value, in comparable form
    entityType: str
    campaignId: str
    inviteType: str
    ttl: int  # epoch seconds; DynamoDB deletes it some days later


@dataclass(frozen=True, slots=True)
class Invite:
    """One row: `PK=CAMPAIGN#<campaign_id>`, `SK=INVITE#<type>#<value>`."""

    campaign_id: str
    type: InviteType
    value: str  # in comparable form
    ttl: int  # epoch seconds

    @property
    def table_key(self) -> TableKey:
        return CAMPAIGN_PREFIX + self.campaign_id, f"{INVITE_PREFIX}{self.type.value}#{self.value}"

    def is_valid(self, now: float) -> bool:
        """Expired invites linger in the table for days before DynamoDB deletes them."""
        return self.ttl > now

    def as_item(self) -> InviteItem:
        pk, sk = self.table_key
        return InviteItem(
            PK=pk,
            SK=sk,
            entityType="INVITE",
            campaignId=self.campaign_id,
            inviteType=self.type.value,
            ttl=self.ttl,
        )


def invite_key(campaign_id: str, type_: InviteType, value: str) -> TableKey:
    """PK and SK of the invite for a value as it was typed."""
    return Invite(campaign_id, type_, type_.comparable(value), 0).table_key
