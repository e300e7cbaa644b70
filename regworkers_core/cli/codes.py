"""`regworkers codes ...`: import, count and void access codes."""

from __future__ import annotations

from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group

from regworkers_core.adapters.files.private_files import open_private
from regworkers_core.cli.campaign import stock_table
from regworkers_core.cli.changes import Deletion, audited, new_run_id
from regworkers_core.cli.options import CampaignArgument, flatten_options, require_writable
from regworkers_core.cli.output import Format, FormatOption, answer, progress, rows
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.selection import DrawBusy
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime
from regworkers_core.selection.codes.importing import import_codes, named_campaign
from regworkers_core.selection.codes.stock import read_stock, void_codes
from regworkers_core.selection.codes.struck import mark_blocked, struck_codes, write_csv

app = typer.Typer(help="Import, count and void access codes.", no_args_is_help=True)


@app.command("import")
def import_command(
    csv: Annotated[Path, typer.Argument(help="UTF-8; header `code`, with marketId and campaignId as needed")],
    campaign: Annotated[
        str | None, typer.Option(help="id or slug [default: the column campaignId of the first row]")
    ] = None,
    market: Annotated[
        str | None, typer.Option(help="the market of rows that name none; rows of other markets are rejected")
    ] = None,
    rejects: Annotated[
        Path | None, typer.Option(help="file for rejected rows [default: <csv>.rejects.csv]")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check and count, add nothing")] = False,
    form: FormatOption = Format.TEXT,
) -> None:
    """Append the codes of a file, in its order; waiting markets continue.

    A file that was imported before, in whole or in part, adds what is missing. Exits 1 if rows were rejected, and if
    the file has none.
    """
    runtime = Runtime.load()
    found = runtime.campaigns.require(campaign or named_campaign(csv))
    run_id = new_run_id()
    arguments = {"file": csv.name, "marketId": market, "runId": run_id}
    with (
        audited(runtime, "codes import", found.campaign_id, arguments, dry_run=dry_run) as result,
        progress("lines", "import") as show,
        StopSignal().on_signals() as stop,
    ):
        report = import_codes(
            runtime,
            csv,
            found,
            market_id=market,
            rejects=rejects or csv.with_name(csv.name + ".rejects.csv"),
            run_id=run_id,
            dry_run=dry_run,
            stop=stop,
            on_progress=lambda so_far: show(completed=so_far.lines),
        )
        result |= {"lines": report.lines, "added": report.added}
    answer(report.as_dict(), form, finding=not report.clean)


@app.command("status")
def status_command(
    campaign: Annotated[
        str | None, typer.Argument(metavar="CAMPAIGN", help="id or slug [default: every campaign]")
    ] = None,
    struck: Annotated[
        bool, typer.Option("--struck", help="list the codes of fans who were struck after they had won")
    ] = False,
    csv: Annotated[
        Path | None, typer.Option(help="with --struck: write the codes to this file, for their issuer")
    ] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Count codes by market and status, beside seats or winners.

    Exits 1 if there are too few; with --struck while one of the codes is not blocked.
    """
    runtime = Runtime.load()
    if csv is not None and not struck:
        raise UsageError("--csv needs --struck: only codes that have to be blocked may be exported")
    require_writable(csv, "--csv")
    if struck:
        if campaign is None:
            raise UsageError("--struck needs a campaign")
        _struck(runtime, runtime.campaigns.require(campaign).campaign_id, csv, form)
        return
    chosen = runtime.campaigns.list() if campaign is None else [runtime.campaigns.require(campaign)]
    document: list[dict[str, Any]] = [
        {
            "campaignId": each.campaign_id,
            "markets": [
                stock.as_dict() for stock in read_stock(runtime, each, runtime.draws.get(each.campaign_id))
            ],
        }
        for each in chosen
    ]
    tables = [stock_table(each["markets"], title=f"codes of {each['campaignId']}") for each in document]
    answer(
        document if campaign is None else document[0],
        form,
        Group(*tables),
        finding=any(
            stock["missing"] or stock["capacity"] is None for each in document for stock in each["markets"]
        ),
    )


@app.command("void")
@flatten_options
def void_command(
    campaign: CampaignArgument,
    change: Deletion,
    codes: Annotated[list[str] | None, typer.Argument(help="the codes themselves")] = None,
    struck: Annotated[
        bool, typer.Option("--struck", help="the codes of fans who were struck after they had won")
    ] = False,
    blocked: Annotated[
        bool, typer.Option("--blocked-at-issuer", help="with --struck: the issuer refuses them now")
    ] = False,
    reason: Annotated[str, typer.Option(help="stored with the codes")] = "voided manually",
    form: FormatOption = Format.TEXT,
) -> None:
    """Permanently void codes, e.g. after a leak. Exits 1 if any could not be voided.

    With --struck --blocked-at-issuer, record that the issuer refuses the codes that struck fans hold.
    """
    runtime = Runtime.load()
    found = runtime.campaigns.require(campaign)
    if struck or blocked:
        if not (struck and blocked) or codes:
            raise UsageError(
                "fans hold the codes of --struck, and only the issuer can block them: name no codes, and add "
                "--blocked-at-issuer once that is done"
            )
        _block(runtime, found.campaign_id, reason, change, form)
        return
    if not codes:
        raise UsageError("name the codes to void")
    if change.apply:
        change.confirm(f"{len(codes)} codes will be voided permanently", found.campaign_id)
    run_id = new_run_id()
    # Without the codes: until they are void, each is worth a seat to its reader.
    arguments = {"codes": len(codes), "reason": reason, "runId": run_id}
    with audited(runtime, "codes void", found.campaign_id, arguments, dry_run=change.dry_run) as result:
        try:
            done = void_codes(runtime, found, codes, reason=reason, run_id=run_id, dry_run=change.dry_run)
        except DrawBusy:
            raise UsageError(
                f"another run holds the draw of {found.campaign_id} and may plan these codes: try again when it ends"
            ) from None
        result["voided"] = sum(each.done for each in done)
    document = [{"code": each.code, "done": each.done, "outcome": each.outcome} for each in done]
    table = rows(("code", ""), [(each.code, each.outcome) for each in done])
    below = ["nothing was voided: add --apply to void them"] if change.dry_run else []
    answer(document, form, Group(table, *below), finding=not all(each.done for each in done))


def _struck(runtime: Runtime, campaign_id: str, csv: Path | None, form: Format) -> None:
    found = struck_codes(runtime, campaign_id)
    if csv is not None:
        arguments = {"codes": len(found), "file": csv.name}
        with (
            audited(runtime, "codes status --struck", campaign_id, arguments),
            _opened(csv) as file,
        ):
            write_csv(found, file)
    document = [each.as_dict() for each in found]
    columns = ("code", "market", "phase", "ref", "status", "notified", "blocked")
    lines = [
        [
            *list(each.values())[:-2],
            *("yes" if each[name] else "no" for name in ("told", "blocked")),  # stored name
        ]
        for each in document
    ]
    answer(
        document,
        form,
        rows(columns, lines, title=f"codes of struck fans of {campaign_id}"),
        finding=any(each.to_block for each in found),
    )


def _opened(path: Path) -> TextIOWrapper:
    try:
        return TextIOWrapper(open_private(path), encoding="ascii", newline="")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None


def _block(runtime: Runtime, campaign_id: str, reason: str, change: Deletion, form: Format) -> None:
    to_block = sum(each.to_block for each in struck_codes(runtime, campaign_id))
    if change.dry_run:
        document = {"campaignId": campaign_id, "toBlock": to_block}
        answer({**document, "advice": "nothing was recorded: add --apply to record them as blocked"}, form)
        return
    change.confirm(f"{to_block} codes will be recorded as blocked by the issuer", campaign_id)
    run_id = new_run_id()
    arguments = {"reason": reason, "runId": run_id}
    with audited(runtime, "codes void --struck", campaign_id, arguments) as result:
        result["blocked"] = mark_blocked(runtime, campaign_id, reason=reason, run_id=run_id)
    answer({"campaignId": campaign_id, "blocked": result["blocked"]}, form)
