"""`regworkers campaign ...`: create campaigns, move them on, see how they stand."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from regworkers_core.adapters.mongo.draws import DrawRecord
from regworkers_core.cli import campaign_cache
from regworkers_core.cli.changes import audited
from regworkers_core.cli.draw_steps import commitment_in_words
from regworkers_core.cli.options import CampaignArgument, market_in_words
from regworkers_core.cli.output import FINDING, Format, FormatOption, answer, facts, rows
from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.invite import InviteType
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns import registry
from regworkers_core.selection.campaigns.lifecycle import advance
from regworkers_core.selection.campaigns.registry import from_options, read_definition
from regworkers_core.selection.campaigns.status import CampaignReport, read_campaign_status
from regworkers_core.selection.codes.stock import seats_of

Reason = Annotated[str, typer.Option(help="kept with the change of status")]


def register(app: typer.Typer) -> None:
    campaign = typer.Typer(help="Campaigns: create, open, close, and how they stand.", no_args_is_help=True)
    campaign.command("create")(create_command)
    campaign.command("show")(show_command)
    campaign.command("list")(list_command)
    campaign.command("open")(open_command)
    campaign.command("close")(close_command)
    campaign.command("status")(status_command)
    campaign_cache.register(campaign)
    app.add_typer(campaign, name="campaign")


def create_command(
    campaign_id: Annotated[str | None, typer.Argument(metavar="[CAMPAIGN]", help="its id")] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="YAML or JSON with the fields of the contract, campaignId too"),
    ] = None,
    name: Annotated[str | None, typer.Option()] = None,
    slug: Annotated[str | None, typer.Option(help="[default: the id]")] = None,
    opens_at: Annotated[str | None, typer.Option(help="ISO-8601, UTC unless it names a zone")] = None,
    closes_at: Annotated[str | None, typer.Option(help="ISO-8601, UTC unless it names a zone")] = None,
    market: Annotated[list[str] | None, typer.Option(help="MARKET=SEATS; may be repeated")] = None,
    reserve: Annotated[
        list[str] | None, typer.Option(help="MARKET:SEGMENT=SEATS in precedence order; may be repeated")
    ] = None,
    auto_draw: Annotated[bool, typer.Option("--auto-draw", help="close it when closesAt has passed")] = False,
    invite_only: Annotated[
        bool, typer.Option("--invite-only", help="only who is invited may enter: `regworkers invites upload`")
    ] = False,
    invite_type: Annotated[
        list[InviteType] | None,
        typer.Option(help="invites that count, with --invite-only; may be repeated [default: all]"),
    ] = None,
    wins_per_unit: Annotated[int | None, typer.Option(help="tickets that a household may win")] = None,
    waitlist_size: Annotated[int | None, typer.Option(help="[default: everybody waits]")] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Create a campaign in DRAFT, from a file or from options, with the commitment to its draw.

    Options know the most common fields; docs/examples/campaign.yml shows all of them, for --file.
    """
    options = (
        name,
        slug,
        opens_at,
        closes_at,
        market,
        reserve,
        wins_per_unit,
        waitlist_size,
        auto_draw or None,
        invite_only or None,
        invite_type,
    )
    if file is not None:
        if campaign_id is not None or any(option is not None for option in options):
            raise UsageError("--file holds the whole campaign: leave the id and the other options out")
        fields = read_definition(file)
    elif campaign_id is None:
        raise UsageError("give the campaign an id, or a whole definition with --file")
    elif invite_type and not invite_only:
        raise UsageError("--invite-type goes with --invite-only: without that, everybody may enter")
    else:
        draw = {"winsPerUnit": wins_per_unit, "waitlistSize": waitlist_size}
        fields = from_options(
            campaign_id,
            markets=market or (),
            reserves=reserve or (),
            name=name,
            slug=slug,
            opensAt=opens_at,
            closesAt=closes_at,
            autoDraw=auto_draw or None,
            eligibility=_eligibility(invite_type or ()) if invite_only else None,
            draw={key: value for key, value in draw.items() if value is not None} or None,
        )
    runtime = Runtime.load()
    with audited(runtime, "campaign create", str(fields.get("campaignId"))):
        created = registry.create(runtime, fields)
    answer(_document(created), form, _described(created))
    if created.opens_at <= iso(runtime.clock()):
        typer.echo(
            f"opensAt ({created.opens_at}) has passed: the registration begins with "
            f"`regworkers campaign open {created.campaign_id}`",
            err=True,
        )


def _eligibility(types: Sequence[InviteType]) -> dict[str, Any]:
    return {"inviteOnly": True, **({"inviteTypes": [each.value for each in types]} if types else {})}


def show_command(campaign: CampaignArgument, form: FormatOption = Format.TEXT) -> None:
    """What a campaign is: times, markets, reserves, rules, and every change of its status."""
    found = Runtime.load().campaigns.require(campaign)
    answer(_document(found), form, _described(found))


def list_command(
    status: Annotated[CampaignStatus | None, typer.Option(help="only these")] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """All campaigns by id."""
    runtime = Runtime.load()
    found = runtime.campaigns.list(status)
    draws = {record.campaign_id: record for record in runtime.draws.all()}
    seats = {each.campaign_id: sum(seats_of(each, draws.get(each.campaign_id)).values()) for each in found}
    document = [
        {
            "campaignId": each.campaign_id,
            "name": each.name,
            "status": each.status.value,
            "opensAt": each.opens_at,
            "closesAt": each.closes_at,
            "markets": len(each.markets),
            "capacity": seats[each.campaign_id],
            "annulled": _annulled(draws.get(each.campaign_id)),
            "autoDraw": each.auto_draw,
        }
        for each in found
    ]
    # Days alone, so that it fits into a terminal: `show` and JSON have the rest.
    columns = ("campaign", "name", "status", "opens", "closes", "seats")
    lines = [
        (
            each.campaign_id,
            each.name,
            "annulled" if _annulled(draws.get(each.campaign_id)) else each.status.value,
            _day(each.opens_at),
            _day(each.closes_at),
            seats[each.campaign_id],
        )
        for each in found
    ]
    answer(document, form, rows(columns, lines, whole=columns[:1]))


def _annulled(record: DrawRecord | None) -> bool:
    return record is not None and bool(record.annulled)


def _day(time: str) -> str:
    """In UTC, as campaigns have their times."""
    return time.partition("T")[0]


def open_command(
    campaign: CampaignArgument,
    reason: Reason = "opened by hand",
    form: FormatOption = Format.TEXT,
) -> None:
    """Let a draft begin. A campaign that is open already is left as it is."""
    _advance("campaign open", campaign, CampaignStatus.OPEN, reason, form)


def close_command(
    campaign: CampaignArgument,
    reason: Reason = "closed by hand",
    form: FormatOption = Format.TEXT,
) -> None:
    """End the registration; the next step is the draw. A campaign that is closed already is left as it is."""
    _advance("campaign close", campaign, CampaignStatus.CLOSED, reason, form)


def _advance(what: str, campaign: str, to: CampaignStatus, reason: str, form: Format) -> None:
    runtime = Runtime.load()
    found = runtime.campaigns.require(campaign)
    run_id = f"cli-{uuid.uuid4().hex[:12]}"
    with audited(runtime, what, found.campaign_id, {"reason": reason, "runId": run_id}) as result:
        done = advance(runtime, found.campaign_id, to, reason=reason, run_id=run_id)
        result |= done.as_dict()
    answer(done.as_dict(), form)


def status_command(campaign: CampaignArgument, form: FormatOption = Format.TEXT) -> None:
    """How a campaign stands: entries, codes, draw, messages. Exit code 1 when something needs a hand."""
    runtime = Runtime.load()
    report = read_campaign_status(runtime, runtime.campaigns.require(campaign))
    answer(report.as_dict(), form, _standing(report))
    if not report.fine:
        raise typer.Exit(FINDING)


def _document(campaign: Campaign) -> dict[str, Any]:
    document = campaign.as_document()
    return {"campaignId": document.pop("_id"), **document}


def _described(campaign: Campaign) -> RenderableType:
    document = _document(campaign)
    markets, transitions = document.pop("markets"), document.pop("transitions", [])
    document.pop("fence", None)
    parts: list[RenderableType] = [
        facts(document),
        rows(
            ("market", "name", "seats", "reserved"),
            [
                (
                    each["marketId"],
                    each["name"],
                    each["capacity"],
                    ", ".join(f"{reserve['segment']} {reserve['seats']}" for reserve in each["reserves"])
                    or None,
                )
                for each in markets
            ],
        ),
    ]
    if transitions:
        columns = ("from", "to", "at", "reason", "run")
        lines = [[each[name] for name in ("from", "to", "at", "reason", "runId")] for each in transitions]
        parts.append(rows(columns, lines))
    return Group(*parts)


def _standing(report: CampaignReport) -> RenderableType:
    campaign = report.campaign
    head = {
        "campaign": f"{campaign.campaign_id} ({campaign.name})",
        "status": campaign.status.value,
        "since": report.since,
        "open": f"{campaign.opens_at} to {campaign.closes_at}",
        "entries in the replica": f"{report.entries:,}, and {report.tombstones:,} removed",
        **_annulment(report.record),
        "notifications": "paused" if report.notifications.get("paused") else "on",
    }
    parts: list[RenderableType] = [facts(head), stock_table(report.as_dict()["codes"])]
    if report.record is not None:
        parts.append(_phases(report))
        parts += [
            Text(commitment_in_words(number, each))
            for number, each in (report.as_dict()["draw"] or {}).items()
            if each["manifestHash"]
        ]
    if report.findings:
        lines = [(finding.text, finding.command) for finding in report.findings]
        parts.append(rows(("needs a hand", "what helps"), lines))
    return Group(*parts)


def stock_table(codes: list[dict[str, Any]], title: str = "codes") -> RenderableType:
    """Codes of every market against its seats."""
    names = ("marketId", "capacity", "available", "assigned", "redeemed", "void", "missing")
    columns = ("market", "seats", "available", "assigned", "redeemed", "void", "missing")
    return rows(columns, [[stock[name] for name in names] for stock in codes], title=title)


def _annulment(record: DrawRecord | None) -> dict[str, str]:
    if record is None or not record.annulled:
        return {}
    return {"annulled": f"{record.annulled['annulledAt']}: {record.annulled['reason']}"}


def _phases(report: CampaignReport) -> RenderableType:
    lines: list[list[object]] = []
    for number, phase in report.record.phases.items() if report.record else ():
        lines.append([number, "", phase.status.value, "", "", ""])
        for market_id, numbers in phase.markets.items():
            sent = report.outbox.get(str(number), {}).get(market_id, {})
            counts = [numbers.get(name) for name in ("planned", "written")]
            lines.append(
                [
                    "",
                    market_in_words(market_id),
                    numbers["status"],
                    *counts,
                    f"{sent.get('SENT', 0)} of {sum(sent.values()) - sent.get('SUPERSEDED', 0)}",
                ]
            )
    columns = ("phase", "market", "status", "planned", "written", "messages sent")
    return rows(columns, lines, title="draw")
