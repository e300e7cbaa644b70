"""`regworkers campaign ...`: create campaigns, open and close them, show their status."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from regworkers_core.adapters.mongo.draws import DrawRecord
from regworkers_core.cli.campaign_cache import cache_app
from regworkers_core.cli.changes import audited, new_run_id
from regworkers_core.cli.draw_report import commitment_in_words
from regworkers_core.cli.options import CampaignArgument
from regworkers_core.cli.output import Format, FormatOption, answer, facts, rows
from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.invite import InviteType
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.selection import market_in_words
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns import registry
from regworkers_core.selection.campaigns.lifecycle import advance
from regworkers_core.selection.campaigns.registry import from_options, read_definition
from regworkers_core.selection.codes.stock import seats_of
from regworkers_core.selection.status import CampaignReport, read_campaign_status

Reason = Annotated[str, typer.Option(help="kept with the change of status")]


app = typer.Typer(help="Create, open, close and show campaigns.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")


@app.command("create")
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
    market: Annotated[list[str] | None, typer.Option(help="MARKET=SEATS; repeatable")] = None,
    reserve: Annotated[
        list[str] | None, typer.Option(help="MARKET:SEGMENT=SEATS in precedence order; repeatable")
    ] = None,
    auto_draw: Annotated[bool, typer.Option("--auto-draw", help="close it when closesAt has passed")] = False,
    invite_only: Annotated[
        bool, typer.Option("--invite-only", help="only invited fans may enter: `regworkers invites upload`")
    ] = False,
    invite_type: Annotated[
        list[InviteType] | None,
        typer.Option(help="types of invites that count, with --invite-only; repeatable [default: all]"),
    ] = None,
    wins_per_unit: Annotated[int | None, typer.Option(help="tickets that a household may win")] = None,
    waitlist_size: Annotated[int | None, typer.Option(help="[default: unlimited]")] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Create a campaign in DRAFT, from a file or from options.

    Creates the commitment to its draw, too. Options cover the most common fields; docs/examples/campaign.yml shows all
    of them, for --file.
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
            raise UsageError("--file holds the whole campaign: omit the id and the other options")
        fields = read_definition(file)
    elif campaign_id is None:
        raise UsageError("give the campaign's id, or a whole definition with --file")
    elif invite_type and not invite_only:
        raise UsageError("--invite-type needs --invite-only: without it every fan may enter")
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
            f"opensAt ({created.opens_at}) has passed: start the registration with "
            f"`regworkers campaign open {created.campaign_id}`",
            err=True,
        )


def _eligibility(types: Sequence[InviteType]) -> dict[str, Any]:
    return {"inviteOnly": True, **({"inviteTypes": [each.value for each in types]} if types else {})}


@app.command("show")
def show_command(campaign: CampaignArgument, form: FormatOption = Format.TEXT) -> None:
    """Show a campaign: times, markets, rules, and changes of status."""
    found = Runtime.load().campaigns.require(campaign)
    answer(_document(found), form, _described(found))


@app.command("list")
def list_command(
    status: Annotated[CampaignStatus | None, typer.Option(help="only campaigns of this status")] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """List all campaigns by id."""
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
    # Days only, so that a row fits on a terminal. `show` and JSON have the times.
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
    answer(document, form, rows(columns, lines))


def _annulled(record: DrawRecord | None) -> bool:
    return record is not None and bool(record.annulled)


def _day(time: str) -> str:
    """The day in UTC."""
    return time.partition("T")[0]


@app.command("open")
def open_command(
    campaign: CampaignArgument,
    reason: Reason = "opened manually",
    form: FormatOption = Format.TEXT,
) -> None:
    """Open a draft for registration. An open campaign is left unchanged."""
    _advance("campaign open", campaign, CampaignStatus.OPEN, reason, form)


@app.command("close")
def close_command(
    campaign: CampaignArgument,
    reason: Reason = "closed manually",
    form: FormatOption = Format.TEXT,
) -> None:
    """End the registration; the draw is next. A closed campaign is left unchanged."""
    _advance("campaign close", campaign, CampaignStatus.CLOSED, reason, form)


def _advance(what: str, campaign: str, to: CampaignStatus, reason: str, form: Format) -> None:
    runtime = Runtime.load()
    found = runtime.campaigns.require(campaign)
    run_id = new_run_id()
    with audited(runtime, what, found.campaign_id, {"reason": reason, "runId": run_id}) as result:
        done = advance(runtime, found.campaign_id, to, reason=reason, run_id=run_id)
        result |= done.as_dict()
    answer(done.as_dict(), form)


@app.command("status")
def status_command(campaign: CampaignArgument, form: FormatOption = Format.TEXT) -> None:
    """Show entries, codes, draw and messages of a campaign.

    Exits 1 if an operator has to act.
    """
    runtime = Runtime.load()
    report = read_campaign_status(runtime, runtime.campaigns.require(campaign))
    answer(report.as_dict(), form, _status_text(report), finding=not report.fine)


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


def _status_text(report: CampaignReport) -> RenderableType:
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
        parts.append(rows(("to do", "what helps"), lines))
    return Group(*parts)


def stock_table(codes: list[dict[str, Any]], title: str = "codes") -> RenderableType:
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
