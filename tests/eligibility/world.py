"""Checks, campaigns and entries as tests of eligibility want them."""

from __future__ import annotations

from typing import Any

from regworkers_core.adapters.aws.tables import attributes
from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.campaign_reader import read_campaign
from regworkers_core.domain.claim import Invite, InviteType
from regworkers_core.eligibility.check import check_eligibility
from regworkers_core.runtime import Runtime
from tests.support.campaigns import definition

CAMPAIGN = "summer"
MAIL = "fan@example.com"


def campaign(campaign_id: str = CAMPAIGN, **changes: Any) -> Campaign:
    """Open now, two markets; `eligibility` and the like by their contract names."""
    fields = definition(campaign_id, **{"status": CampaignStatus.OPEN.value, **changes})
    return read_campaign({**fields, "_id": campaign_id})


def create(runtime: Runtime, campaign_id: str = CAMPAIGN, **changes: Any) -> Campaign:
    """Put a campaign in place as it is, without its draw."""
    made = campaign(campaign_id, **changes)
    runtime.campaigns.create(made)
    return made


def check(campaign_slug: str = CAMPAIGN, **entry: Any) -> dict[str, Any]:
    """A check as an operator types it; `field=None` leaves a field out, `doTransfer`, `entryId` go where they
    belong.
    """
    item: dict[str, Any] = {"campaignSlug": campaign_slug}
    for name in ("doTransfer", "entryId", "correlationId"):
        if name in entry:
            item[name] = entry.pop(name)
    fields = {"email": MAIL, "firstName": "Test", "lastName": "User", **entry}
    return {**item, "entry": {name: value for name, value in fields.items() if value is not None}}


def ask(runtime: Runtime, *checks: dict[str, Any]) -> list[dict[str, Any]]:
    return check_eligibility(runtime, list(checks))


def one(runtime: Runtime, campaign_slug: str = CAMPAIGN, **entry: Any) -> dict[str, Any]:
    (answer,) = ask(runtime, check(campaign_slug, **entry))
    return answer


def codes(answer: dict[str, Any]) -> list[str]:
    return [reason["code"] for reason in answer["reasons"]]


def invite(runtime: Runtime, value: str, *, ttl: int, kind: InviteType = InviteType.EMAIL) -> None:
    made = Invite(CAMPAIGN, kind, kind.comparable(value), ttl)
    runtime.dynamodb.put_item(TableName=runtime.names.demand_table, Item=attributes(made.as_item()))
