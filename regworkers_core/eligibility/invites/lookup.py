"""Counts the invites of a campaign and checks one value, by consistent reads of the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fairdraw.documents import as_document
from regworkers_core.adapters.files import Reject, masked
from regworkers_core.domain.invite import InviteType, invite_key
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.eligibility.invites.lists import read_value
from regworkers_core.eligibility.invites.terms import campaign_of_invites
from regworkers_core.runtime import Runtime


@dataclass(slots=True)
class TypeCount:
    """Invites of one type. DynamoDB deletes expired ones within days; until then they are counted here."""

    type: InviteType
    valid: int = 0
    expired: int = 0


class Counted(NamedTuple):
    campaign_id: str
    types: list[TypeCount]


@dataclass(frozen=True, slots=True)
class FoundInvite:
    """The invite of one value."""

    campaign_id: str
    type: InviteType
    value: str  # masked
    ttl: int | None  # epoch seconds, None: there is none
    invited: bool  # whether it is valid now

    def as_dict(self) -> dict[str, Any]:
        # Two names for the end, so that a past one is not mistaken for one to come.
        end = None if self.ttl is None else iso(self.ttl)
        return as_document(self, "campaign_id", "type", "value", "invited") | {
            "validUntil": end if self.invited else None,
            "expiredAt": None if self.invited else end,
        }


def count_invites(
    runtime: Runtime,
    slug_or_id: str,
    types: Sequence[InviteType] = tuple(InviteType),
    on_progress: Callable[[int], None] = lambda _seen: None,
) -> Counted:
    """Count the invites of each type that are valid and expired now, page by page. Raises UsageError for an unknown
    campaign.
    """
    campaign_id = campaign_of_invites(runtime, slug_or_id)
    now, seen, counts = runtime.clock(), 0, []
    for type_ in types:
        total = TypeCount(type_)
        for page in runtime.invites.count(campaign_id, type_, now):
            total.valid += page.valid
            total.expired += page.expired
            seen += sum(page)
            on_progress(seen)
        counts.append(total)
    return Counted(campaign_id, counts)


def check_invite(runtime: Runtime, slug_or_id: str, type_: InviteType, text: str) -> FoundInvite:
    """Return whether the value is invited now. Raises UsageError for an invalid value and for an unknown campaign."""
    row = read_value(1, text.strip(), type_)
    if isinstance(row, Reject):
        raise UsageError(f"this is not a valid {type_.value} for an invite: {row.reason}")
    # First under the id as given: if that is right, only the table has to answer.
    ttl = _ttl(runtime, slug_or_id, type_, row.value)
    campaign_id = slug_or_id
    if ttl is None:
        campaign_id = campaign_of_invites(runtime, slug_or_id)
        if campaign_id != slug_or_id:
            ttl = _ttl(runtime, campaign_id, type_, row.value)
    invited = ttl is not None and ttl > runtime.clock()
    return FoundInvite(campaign_id, type_, masked(text.strip()), ttl, invited)


def _ttl(runtime: Runtime, campaign_id: str, type_: InviteType, value: str) -> int | None:
    key = invite_key(campaign_id, type_, value)
    return runtime.invites.ttls([key]).get(key)
