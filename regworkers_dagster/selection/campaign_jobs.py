"""The jobs of a campaign: create, open, close, its status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from fairdraw.documents import as_document, camel
from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.keys import quoted
from regworkers_core.domain.reasons import RequestError, UsageError
from regworkers_dagster.by_hand import (
    REASON,
    UPLOAD,
    CampaignConfig,
    Launch,
    LaunchOutcome,
    launchable,
    require,
)
from regworkers_dagster.metadata import table
from regworkers_dagster.resources import CHANGES_CAMPAIGNS
from regworkers_dagster.selection.specs import CAMPAIGNS

if TYPE_CHECKING:
    from regworkers_core.selection.status import CampaignReport


class CreateConfig(dg.Config):
    """A campaign as a form. A rule that is empty does not restrict; the other fields have defaults."""

    campaign_id: str = Field(
        default="", description="1 to 64 of A-Z a-z 0-9 _ -, for example spring-tour; it never changes."
    )
    opens_at: str = Field(
        default="",
        description="When the registration begins: 2027-02-01T09:00:00+01:00; UTC if no zone is given.",
    )
    closes_at: str = Field(default="", description="When it ends, in the same form.")
    capacities: dict[str, int] = Field(
        default={}, description="Per market its seats: {berlin: 500, vienna: 300}. At least one market."
    )
    reserves: dict[str, dict[str, int]] = Field(
        default={},
        description="Per market the seats reserved for a segment, in precedence order: {berlin: {loyal: 50, local: "
        "20}}.",
    )
    auto_draw: bool = Field(
        default=False,
        description="Close and draw automatically after closes_at; the publication waits for you.",
    )
    name: str = Field(default="", description="The display name. Empty: the slug.")
    slug: str = Field(default="", description="The name in links. Empty: the id.")
    market_names: dict[str, str] = Field(
        default={}, description="Per market its display name: {berlin: Waldbühne}. Empty: its id."
    )
    wins_per_unit: int = Field(default=1, description="How many entries of one household may win.")
    waitlist_size: int | None = Field(
        default=None, description="The size of the waiting list. Empty: all who did not win."
    )
    invite_only: bool = Field(default=False, description="Only invited fans may enter: job `upload_invites`.")
    invite_types: list[str] = Field(
        default=[], description="With invite_only: email, globalUserId, memberId. Empty: all of them."
    )
    regions: list[str] = Field(
        default=[], description="The countries whose residents may enter: [DE, AT]. Empty: all."
    )
    min_age: int | None = Field(
        default=None, description="The minimum age at registration, in years. Empty: no limit."
    )
    require_verified_phone: bool = Field(default=False, description="Only fans with a verified phone.")
    max_per_unit: int | None = Field(
        default=None, description="The most entries of one household. Empty: no limit."
    )
    upload: str = Field(
        default="",
        description="Instead of all the fields above: a definition in YAML or JSON, as docs/examples/campaign.yml. "
        + UPLOAD,
    )


class MoveConfig(CampaignConfig):
    reason: str = Field(default="by its manager", description=REASON + "Kept with the change.")


@launchable(
    "create_campaign",
    uses=CHANGES_CAMPAIGNS,
    description="Creates a campaign in DRAFT and publishes the commitment to its draw. No fan can enter before "
    "`open_campaign`. It cannot be changed later, so check what the run shows.",
)
def create_campaign(launch: Launch, config: CreateConfig) -> LaunchOutcome:
    """Refuses an id or slug that is taken, and names a wrong field."""
    from regworkers_core.selection.campaigns import registry

    fields = _definition(launch, config) if config.upload else _fields(config)
    try:
        created = registry.create(launch.runtime, fields)
    except UsageError as error:
        text = str(error)
        for name in () if config.upload else CreateConfig.model_fields:
            text = text.replace(camel(name), name)
        # The form has no list of markets.
        for place, market_id in enumerate(config.capacities):
            text = text.replace(f"markets[{place}].", f"market {market_id}: ")
        raise RequestError(text) from None
    facts = {
        **campaign_facts(created),
        "next": f"codes with `import_codes`, then `open_campaign` of {created.campaign_id}",
    }
    return LaunchOutcome(created.campaign_id, facts, CAMPAIGNS, changed=True)


@launchable(
    "open_campaign",
    uses=CHANGES_CAMPAIGNS,
    description="Opens the registration: the campaign becomes OPEN. An open campaign is left as it is.",
)
def open_campaign(launch: Launch, config: MoveConfig) -> LaunchOutcome:
    """Only a DRAFT can be opened."""
    return _move(launch, config, CampaignStatus.OPEN)


@launchable(
    "close_campaign",
    uses=CHANGES_CAMPAIGNS,
    description="Ends the registration for good: the campaign becomes CLOSED, and the job `draw` may begin. A closed "
    "campaign is left as it is. With `auto_draw` this happens automatically at `closes_at`.",
)
def close_campaign(launch: Launch, config: MoveConfig) -> LaunchOutcome:
    """Only an OPEN campaign can be closed."""
    return _move(launch, config, CampaignStatus.CLOSED)


@launchable(
    "campaign_status",
    reads=True,
    description="Shows the state of a campaign: entries, codes and seats, each phase of its draw, messages; and what "
    "does not continue by itself, with the job to launch. Fails when there is such a finding.",
)
def campaign_status(launch: Launch, config: CampaignConfig) -> LaunchOutcome:
    """Changes nothing."""
    from regworkers_core.selection.status import read_campaign_status

    campaign = launch.campaign(config.campaign_id)
    report = read_campaign_status(launch.runtime, campaign)
    for finding in report.findings:
        launch.context.log.warning(finding.text)
    findings = "; ".join(
        finding.text + (f": `{finding.job}`" if finding.job else "") for finding in report.findings
    )
    return LaunchOutcome(
        campaign.campaign_id,
        status_facts(report),
        CAMPAIGNS,
        failure=findings and f"needs an operator: {findings}",
    )


def _move(launch: Launch, config: MoveConfig, to: CampaignStatus) -> LaunchOutcome:
    from regworkers_core.selection.campaigns.lifecycle import advance

    campaign_id = launch.campaign_id(config.campaign_id)
    moved = advance(
        launch.runtime, campaign_id, to, reason=require("reason", config.reason), run_id=launch.run_id
    )
    launch.result["changed"] = moved.changed
    launch.tell(f"{campaign_id} is {moved.status}" + ("" if moved.changed else " already"))
    return LaunchOutcome(campaign_id, moved.as_dict(), CAMPAIGNS, changed=moved.changed)


def _definition(launch: Launch, config: CreateConfig) -> Mapping[str, Any]:
    from regworkers_core.selection.campaigns.registry import read_definition

    others = config.model_dump(exclude={"upload"})
    if others != CreateConfig().model_dump(exclude={"upload"}):
        raise RequestError("upload contains the whole campaign: leave all other fields at their defaults")
    with launch.uploaded(config.upload) as path:
        return read_definition(path)


def _fields(config: CreateConfig) -> Mapping[str, Any]:
    strays = sorted({*config.reserves, *config.market_names} - config.capacities.keys())
    if strays:
        raise RequestError(f"market {quoted(strays[0])} has no seats: add it to capacities")
    rules = ("invite_only", "invite_types", "regions", "min_age", "require_verified_phone", "max_per_unit")
    texts = ("name", "slug", "opens_at", "closes_at")
    eligibility = {camel(name): getattr(config, name) for name in rules}
    if config.invite_types and not config.invite_only:
        raise RequestError("invite_types goes with invite_only: without it, every fan may enter")
    return {
        "campaignId": require("campaign_id", config.campaign_id),
        **{camel(name): getattr(config, name) for name in texts if getattr(config, name)},
        "autoDraw": config.auto_draw,
        "eligibility": {name: value for name, value in eligibility.items() if value not in (None, [], False)},
        "markets": [
            {
                "marketId": market_id,
                "name": config.market_names.get(market_id, market_id),
                "capacity": capacity,
                "reserves": [
                    {"segment": segment, "seats": seats}
                    for segment, seats in config.reserves.get(market_id, {}).items()
                ],
            }
            for market_id, capacity in config.capacities.items()
        ],
        "draw": {"winsPerUnit": config.wins_per_unit, "waitlistSize": config.waitlist_size},
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
        **as_document(campaign, "status", "opens_at", "closes_at", "auto_draw"),
        "seats": sum(market.capacity for market in campaign.markets),
        "markets": table(("market", "name", "seats", "reserved"), markets),
        "eligibility": campaign.as_document()["eligibility"],
        **as_document(campaign.draw, "wins_per_unit", "waitlist_size", "commitment"),
    }


def status_facts(report: CampaignReport) -> dict[str, Any]:
    """The report as facts: numbers, and a table each for codes, phases and findings."""
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
    waits = [
        f"round {each['round']} of the beacon, due at {each['dueAt']}"
        for each in (document["draw"] or {}).values()
        if each["dueAt"]
    ]
    return {
        "status": document["status"],
        "since": report.since,
        "entries": report.entries,
        "removed": report.tombstones,
        "messages": "paused" if report.notifications.get("paused") else "on",
        "codes": table(codes, [[stock[name] for name in codes] for stock in document["codes"]]),
        "draw": table(("phase", "market", "status", "planned", "written", "messages sent"), phases),
        "waits_for": waits[0] if waits else None,
        "findings": len(findings),
        "to_do": table(("finding", "launch"), findings),
    }


JOBS = (create_campaign, open_campaign, close_campaign, campaign_status)
