"""Invites of a campaign, as the demand table holds them (data contract v1)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from regworkers_core.domain.claim import TableKey, comparable
from regworkers_core.domain.keys import CAMPAIGN_PREFIX

INVITE_PREFIX = "INVITE#"


class InviteType(StrEnum):
    """The identity that an invite names, in the order in which an entry's invites are looked up."""

    EMAIL = "email"
    GLOBAL_USER_ID = "globalUserId"
    MEMBER_ID = "memberId"

    def comparable(self, value: str) -> str:
        """The form under which an invite is stored and looked for."""
        return comparable(value) if self is InviteType.EMAIL else value.strip()


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

    def as_item(self) -> dict[str, Any]:
        pk, sk = self.table_key
        return {
            "PK": pk,
            "SK": sk,
            "entityType": "INVITE",
            "campaignId": self.campaign_id,
            "inviteType": self.type.value,
            "ttl": self.ttl,
        }


def invite_key(campaign_id: str, type_: InviteType, value: str) -> TableKey:
    """PK and SK of the invite for a value as it was typed."""
    return Invite(campaign_id, type_, type_.comparable(value), 0).table_key
