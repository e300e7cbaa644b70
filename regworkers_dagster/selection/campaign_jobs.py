"""A campaign from its creation to its end, as a manager launches it: create, open, close, and how it stands."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

from collections.abc import Mapping
from typing import Any

import dagster as dg
from pydantic import Field

from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.reasons import RequestError, UsageError
from regworkers_core.selection.campaigns import registry
from regworkers_core.selection.campaigns.lifecycle import advance
from regworkers_core.selection.campaigns.registry import read_definition
from regworkers_core.selection.campaigns.status import CampaignReport, read_campaign_status
from regworkers_dagster.operations.by_hand import (
    CAMPAIGN,
    REASON,
    UPLOAD,
    Launch,
    Outcome,
    launchable,
    require,
    table,
)
from regworkers_dagster.selection.specs import CAMPAIGNS


class CreateConfig(dg.Config):
    """A campaign as a form. What is not named admits everybody, and what is left empty has its default."""

    campaignId: str = Field(
        default="", description="1 to 64 of A-Z a-z 0-9 _ -, for example spring-tour; it never changes."
    )
    opensAt: str = Field(
        default="",
        description="When the registration begins: 2027-02-01T09:00:00+01:00; without a zone, UTC.",
    )
    closesAt: str = Field(default="", description="When it ends, in the same form.")
    capacities: dict[str, int] = Field(
        default={}, description="Per market its winners: {berlin: 500, vienna: 300}. At least one market."
    )
    reserves: dict[str, dict[str, int]] = Field(
        default={},
        description="Per market the seats that a segment gets first, in this order: {berlin: {loyal: 50, local: 20}}.",
    )
    autoDraw: bool = Field(
        default=False,
        description="Closed and drawn by itself when closesAt has passed; the publication waits for you.",
    )
    name: str = Field(default="", description="What people read. Empty: the slug.")
    slug: str = Field(default="", description="The name in links. Empty: the id.")
    marketNames: dict[str, str] = Field(
        default={}, description="Per market what people read: {berlin: Waldbühne}. Empty: its id."
    )
    winsPerUnit: int = Field(default=1, description="How many entries of one household may win.")
    waitlistSize: int | None = Field(default=None, description="Who waits, in rank order. Empty: everybody.")
    inviteOnly: bool = Field(
        default=False, description="Only who is invited may enter: job `upload_invites`."
    )
    inviteTypes: list[str] = Field(
        default=[], description="With inviteOnly: email, globalUserId, memberId. Empty: all of them count."
    )
    regions: list[str] = Field(
        default=[], description="Where fans live who may enter: [DE, AT]. Empty: anywhere."
    )
    minAge: int | None = Field(default=None, description="Years at the moment of entering. Empty: no limit.")
    requireVerifiedPhone: bool = Field(default=False, description="Only fans whose phone is verified.")
    maxPerUnit: int | None = Field(default=None, description="Entries of one household. Empty: no limit.")
    upload: str = Field(
        default="",
        description="Instead of all the fields above: a definition in YAML or JSON, as docs/examples/campaign.yml. "
        + UPLOAD,
    )


class MoveConfig(dg.Config):
    """Which campaign, and why."""

    campaignId: str = Field(default="", description=CAMPAIGN)
    reason: str = Field(default="by its manager", description=REASON + "Kept with the change.")


class CampaignConfig(dg.Config):
    """Which campaign."""

    campaignId: str = Field(default="", description=CAMPAIGN)


@launchable(
    "create_campaign",
    description="Creates a campaign in DRAFT and publishes the commitment to its draw. Nobody can enter before "
    "`open_campaign`. Nothing of it can be changed later, so look at what the run shows.",
)
def create_campaign(launch: Launch, config: CreateConfig) -> Outcome:
    """Refuses an id or slug that is taken, and names the field that is wrong."""
    fields = _definition(launch, config) if config.upload else _fields(config)
    try:
        created = registry.create(launch.runtime, fields)
    except UsageError as error:
        text = str(error)
        # The form has no list of markets.
        for place, market_id in enumerate(config.capacities):
            text = text.replace(f"markets[{place}].", f"market {market_id}: ")
        raise RequestError(text) from None
    facts = {
        **campaign_facts(created),
        "next": f"codes with `import_codes`, then `open_campaign` of {created.campaign_id}",
    }
    return Outcome(created.campaign_id, facts, CAMPAIGNS, changed=True)


@launchable(
    "open_campaign",
    description="Lets fans register: the campaign becomes OPEN. A campaign that is open already is left as it is.",
)
def open_campaign(launch: Launch, config: MoveConfig) -> Outcome:
    """Only a DRAFT can be opened."""
    return _move(launch, config, CampaignStatus.OPEN)


@launchable(
    "close_campaign",
    description="Ends the registration for good: the campaign becomes CLOSED, and the job `draw` may begin. A "
    "campaign that is closed already is left as it is. With `autoDraw` this happens by itself at closesAt.",
)
def close_campaign(launch: Launch, config: MoveConfig) -> Outcome:
    """Only an OPEN campaign can be closed."""
    return _move(launch, config, CampaignStatus.CLOSED)


@launchable(
    "campaign_status",
    reads=True,
    description="How a campaign stands: entries, codes against seats, each phase of its draw, messages; and what "
    "does not go on by itself, with the job that helps. Fails when there is such a thing.",
)
def campaign_status(launch: Launch, config: CampaignConfig) -> Outcome:
    """Changes nothing."""
    campaign = launch.campaign(config.campaignId)
    report = read_campaign_status(launch.runtime, campaign)
    for finding in report.findings:
        launch.context.log.warning(finding.text)
    said = "; ".join(
        finding.text + (f": `{finding.job}`" if finding.job else "") for finding in report.findings
    )
    return Outcome(
        campaign.campaign_id, standing(report), CAMPAIGNS, failure=said and f"needs a hand: {said}"
    )


def _move(launch: Launch, config: MoveConfig, to: CampaignStatus) -> Outcome:
    campaign_id = launch.campaign_id(config.campaignId)
    moved = advance(
        launch.runtime, campaign_id, to, reason=require("reason", config.reason), run_id=launch.run_id
    )
    launch.result["changed"] = moved.changed
    launch.tell(f"{campaign_id} is {moved.status}" + ("" if moved.changed else " already"))
    return Outcome(campaign_id, moved.as_dict(), CAMPAIGNS, changed=moved.changed)


def _definition(launch: Launch, config: CreateConfig) -> Mapping[str, Any]:
    others = config.model_dump(exclude={"upload"})
    if others != CreateConfig().model_dump(exclude={"upload"}):
        raise RequestError("upload holds the whole campaign: leave all other fields as they are")
    with launch.uploaded(config.upload) as path:
        return read_definition(path)


def _fields(config: CreateConfig) -> Mapping[str, Any]:
    strays = sorted({*config.reserves, *config.marketNames} - config.capacities.keys())
    if strays:
        raise RequestError(f"{strays[0]} has no seats: name it in capacities")
    rules = ("inviteOnly", "inviteTypes", "regions", "minAge", "requireVerifiedPhone", "maxPerUnit")
    texts = ("name", "slug", "opensAt", "closesAt")
    eligibility = {name: getattr(config, name) for name in rules}
    if config.inviteTypes and not config.inviteOnly:
        raise RequestError("inviteTypes goes with inviteOnly: without that, everybody may enter")
    return {
        "campaignId": require("campaignId", config.campaignId),
        **{name: getattr(config, name) for name in texts if getattr(config, name)},
        "autoDraw": config.autoDraw,
        "eligibility": {name: value for name, value in eligibility.items() if value not in (None, [], False)},
        "markets": [
            {
                "marketId": market_id,
                "name": config.marketNames.get(market_id, market_id),
                "capacity": capacity,
                "reserves": [
                    {"segment": segment, "seats": seats}
                    for segment, seats in config.reserves.get(market_id, {}).items()
                ],
            }
            for market_id, capacity in config.capacities.items()
        ],
        "draw": {"winsPerUnit": config.winsPerUnit, "waitlistSize": config.waitlistSize},
    }


def campaign_facts(campaign: Campaign) -> dict[str, Any]:
    markets = [
        (
            market.market_id,
            market.name,
            market.capacity,
            ", ".join(f"{reserve.segment} {reserve.seats}" for reserve in market.reserves),
        )
        for market in campaign.markets
    ]
    return {
        "status": campaign.status.value,
        "opensAt": campaign.opens_at,
        "closesAt": campaign.closes_at,
        "autoDraw": campaign.auto_draw,
        "seats": sum(market.capacity for market in campaign.markets),
        "markets": table(("market", "name", "seats", "reserved"), markets),
        "eligibility": campaign.as_document()["eligibility"],
        "winsPerUnit": campaign.draw.wins_per_unit,
        "waitlistSize": campaign.draw.waitlist_size,
        "commitment": campaign.draw.commitment,
    }


def standing(report: CampaignReport) -> dict[str, Any]:
    """The report as facts: numbers, and a table each for codes, phases and what needs a hand."""
    codes = ("marketId", "capacity", "available", "assigned", "redeemed", "void", "missing")
    document = report.as_dict()
    phases = [
        (
            number,
            market_id,
            numbers["status"],
            numbers.get("planned"),
            numbers.get("written"),
            report.outbox.get(str(number), {}).get(market_id, {}).get("SENT", 0),
        )
        for number, phase in (report.record.phases.items() if report.record else ())
        for market_id, numbers in phase.markets.items()
    ]
    findings = [(finding.text, finding.job) for finding in report.findings]
    return {
        "status": document["status"],
        "since": report.since,
        "entries": report.entries,
        "removed": report.tombstones,
        "messages": "paused" if report.notifications.get("paused") else "on",
        "codes": table(codes, [[stock[name] for name in codes] for stock in document["codes"]]),
        "draw": table(("phase", "market", "status", "planned", "written", "messages sent"), phases),
        "findings": len(findings),
        "needs_a_hand": table(("what", "launch"), findings),
    }


JOBS = (create_campaign, open_campaign, close_campaign, campaign_status)
