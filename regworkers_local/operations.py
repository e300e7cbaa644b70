"""What only the embedded stack can do. Dagster's definitions load this module, so it brings nothing of a terminal."""

from __future__ import annotations

import time
from typing import ClassVar

from pydantic import Field

from regworkers_core.domain.campaign import CampaignStatus
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import UsageError
from regworkers_core.operation import (
    CAMPAIGN,
    CHANGES_CAMPAIGNS,
    Call,
    Effect,
    Input,
    Report,
    Table,
    operation,
)


class LoadEntries(Input):
    words: ClassVar = ()
    first: ClassVar = ("entries",)
    campaign_id: str = Field("", description=f"{CAMPAIGN} It is open. Empty: two campaigns that are made.")
    entries: int = Field(20_000, ge=1, description="New entries.")
    updates: float = Field(0.1, ge=0, le=1, description="The share that is updated afterwards.")
    removals: float = Field(0.02, ge=0, le=1, description="The share that is removed afterwards.")
    rate: float = Field(0.0, ge=0, description="New entries per second; 0 is as fast as possible.")
    seed: int | None = Field(
        None, description="The same seed gives the same fans. Empty: new ones each time."
    )


@operation("load", "load_entries", Effect.ADD, role="manager", uses=CHANGES_CAMPAIGNS, long=True)
def load(call: Call, given: LoadEntries) -> Report:
    """Write made-up entries, then update and remove a share of them.

    Only the embedded stack has this, where no fans register.
    """
    # late: it brings faker.
    from regworkers_local.load import CAMPAIGNS, DemoCampaign, Loader, LoadPlan

    settings = call.runtime.settings
    if settings.environment != "local-dev":
        raise UsageError(f"demo data is for local-dev, not for {settings.environment}: unset CONFIG_ENV")
    campaigns: tuple[DemoCampaign, ...] = CAMPAIGNS
    if given.campaign_id:
        found = call.campaign(given.campaign_id)
        if found.status is not CampaignStatus.OPEN:
            opens = call.face.name_of("campaign open")
            raise UsageError(f"{found.slug} is {found.status}: {opens} opens a draft")
        ids = tuple(each.market_id for each in found.markets)
        campaigns = (DemoCampaign(found.campaign_id, found.name, markets=ids),)
    seed = int(time.time()) if given.seed is None else given.seed
    plan = LoadPlan(given.entries, given.updates, given.removals, given.rate, seed)
    loaded = Loader(call.runtime, plan, campaigns).run(call.stop, call.face.progress)
    keys = [key for pk, sk in loaded.live[:2] if (key := EntryKey.parse(pk, sk))]
    counts = loaded.as_dict()
    return Report(
        document={
            **counts,
            "forExample": ", ".join(" ".join(key) for key in keys),
            "userForExample": loaded.example_user,
        },
        facts={**counts, "userForExample": loaded.example_user},
        tables=[Table("for example", ("campaign", "entry"), keys)],
        said=[
            "Drains replicate the entries by themselves, within a minute",
            f"Once the campaign is drawn, {call.face.name_of('draw receipt')} takes one of these entries by its id",
        ],
        counts=counts,
        changed=True,
    )
