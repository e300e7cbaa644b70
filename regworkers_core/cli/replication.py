"""`regworkers reconcile|replicate|backfill`: compare, repair and rebuild the replica."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from regworkers_core.cli.changes import Change, audited
from regworkers_core.cli.options import flatten_options
from regworkers_core.cli.output import Format, FormatOption, answer, progress, rows
from regworkers_core.domain.entry import Order
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import parse_since
from regworkers_core.engine.stop import StopSignal
from regworkers_core.replication.backfill import (
    backfill_status,
    pause_backfill,
    start_backfill,
)
from regworkers_core.replication.reconcile.acceptance import Accept, AcceptanceReport
from regworkers_core.replication.reconcile.reconciliation import ReconcileResult, reconcile
from regworkers_core.replication.reconcile.undo import UndoReport, undo_acceptance
from regworkers_core.runtime import Runtime

# Rows of a table: the number that a repair accepts without `--after-restore`.
_SHOWN = 100


SinceOption = Annotated[
    str,
    typer.Option(help="only entries that changed since: 2026-11-25T18:00:00Z, 2026-11-25, 90m, 12h, 7d"),
]


@flatten_options
def reconcile_command(
    change: Change,
    campaign: Annotated[str | None, typer.Option(help="only this campaign, by id or slug")] = None,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="queue what differs and wait until it heals; without --apply list it"),
    ] = False,
    yes_remove: Annotated[
        int | None,
        typer.Option(
            "--yes-remove",
            min=0,
            metavar="N",
            help="allow up to N removals where a repair would refuse that many",
        ),
    ] = None,
    accept_source: Annotated[
        int | None,
        typer.Option(
            "--accept-source",
            min=0,
            metavar="N",
            help="let the source win in the N entries that are ahead; N must be their number",
        ),
    ] = None,
    after_restore: Annotated[
        bool,
        typer.Option(
            "--after-restore",
            help="also if the number suggests a table that was restored from a backup, whose losses you accept",
        ),
    ] = False,
    undo: Annotated[
        bool,
        typer.Option("--undo", help="list what the last --accept-source replaced; with --apply restore it"),
    ] = False,
    yes_undo: Annotated[
        int | None,
        typer.Option("--yes-undo", min=0, metavar="N", help="with --undo: restore these N entries"),
    ] = None,
    since: SinceOption = "",
    cycle: Annotated[
        bool,
        typer.Option("--cycle", help="only the segments that are due, beside other workers that do the same"),
    ] = False,
    form: FormatOption = Format.TEXT,
) -> None:
    """Compare the replica with the demand table, and repair it.

    Compares the content, too. Exits 1 if they differ. A repair removes nothing if the source holds no entry of a
    campaign, or if it would remove too much of the replica.
    """
    _require(repair or yes_remove is None, "--yes-remove needs --repair")
    _require(repair or accept_source is None, "--accept-source needs --repair")
    _require(repair or not after_restore, "--after-restore needs --repair")
    _require(
        accept_source is not None or change.dry_run or not after_restore,
        "--after-restore with --apply needs --accept-source",
    )
    _require(repair or undo or change.dry_run, "--apply needs --repair or --undo")
    _require(not (undo and repair), "--undo and --repair are mutually exclusive")
    _require(undo or yes_undo is None, "--yes-undo needs --undo")
    _require(change.apply or yes_undo is None, "--yes-undo only confirms the number: add --apply to act")
    _require(not undo or change.dry_run or yes_undo is not None, "--undo --apply needs --yes-undo N")
    _require(not (undo and (since or cycle)), "--undo takes neither --since nor --cycle")
    runtime = Runtime.load()
    campaign = campaign and runtime.campaigns.id_of(campaign)
    since = parse_since(since, runtime.clock())
    if undo:
        _undo(runtime, campaign, yes_undo, form)
        return
    accept = None
    if repair and (change.dry_run or accept_source is not None):
        accept = Accept(accept_source if change.apply else None, after_restore)
    listed, repair = repair and change.dry_run, repair and change.apply
    arguments = {
        "repair": repair,
        "yesRemove": yes_remove,
        "acceptSource": accept_source,
        "afterRestore": after_restore,
        "since": since,
    }
    with (
        audited(runtime, "reconcile", campaign or "all campaigns", arguments, dry_run=not repair) as counts,
        progress("entries", "reconcile") as show,
    ):
        result = reconcile(
            runtime,
            campaign,
            repair=repair,
            yes_remove=yes_remove,
            accept=accept,
            since=since,
            cycle=cycle,
            on_progress=lambda done: show(completed=done),
            on_phase=lambda phase: show(description=phase),
        )
        counts |= result.numbers
    answer(result.as_dict(), form, _comparison(result, listed=listed), finding=not result.clean)


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise UsageError(otherwise)


def _undo(runtime: Runtime, campaign: str | None, confirmed: int | None, form: Format) -> None:
    target, dry_run = campaign or "all campaigns", confirmed is None
    with (
        audited(runtime, "reconcile undo", target, {"undo": confirmed}, dry_run=dry_run) as counts,
        progress("entries", "restoring") as show,
    ):
        report = undo_acceptance(
            runtime,
            campaign,
            confirmed=confirmed,
            on_progress=lambda done: show(completed=done),
        )
        counts |= {"acceptance": report.acceptance, "restored": report.restored}
    answer(report.as_dict(), form, _undo_text(report), finding=not report.clean)


def _comparison(result: ReconcileResult, *, listed: bool) -> Group:
    """What was compared, what differs and why, and what a repair did or, if `listed`, how to apply it."""
    repair, acceptance = result.repair, result.acceptance
    columns = ["", "entries", *(["left"] if repair else []), "for example"]
    lines: list[list[object]] = [["equal", result.totals["matched"], *(["–"] if repair else []), ""]]
    for kind, number in result.counts.items():
        samples = "\n".join(result.samples.get(kind, ())[:3])
        lines.append([kind.value, number, *([repair.remaining.get(kind, 0)] if repair else []), samples])
    title = f"{result.totals['source']} in the source, {result.totals['replica']} in the replica"
    if result.verified_as_of:
        title += f", verified as of {result.verified_as_of}"
    # Sentences are below the table: on a narrow terminal a column would break them up.
    below = [f"{kind.value}: {text}" for kind, text in result.explanations.items()]
    tables = [rows(columns, lines, title=title)]
    if acceptance:
        tables += [_ahead(acceptance)] if acceptance.entries else []
        below += [acceptance.in_words, acceptance.advice]
    if repair:
        below += [repair.in_words, repair.advice]
    if listed and not result.clean:
        below.append("nothing was changed: add --apply to repair what differs")
    return Group(*tables, *(Text(line) for line in below if line))


def _ahead(acceptance: AcceptanceReport) -> Table:
    shown = acceptance.entries[:_SHOWN]
    more = acceptance.found - len(shown)
    lines = [(each.key.document_id, _order(each.source), _order(each.replica)) for each in shown]
    if more:
        lines.append((f"and {more} more", "", ""))
    title = f"{acceptance.found} ahead (created, version, updated)"
    return rows(("entry", "source", "replica"), lines, title=title)


def _order(order: Order) -> str:
    return f"{order.created_at or '–'}\nv{order.version}, {order.updated_at or '–'}"


def _undo_text(report: UndoReport) -> Group:
    lines = [*report.entries[:_SHOWN]]
    lines_below = [f"{number} {now.value}" for now, number in report.counts.items() if number]
    if report.restored:
        lines_below.append(f"{report.restored} restored")
    title = f"acceptance {report.acceptance or '–'}"
    return Group(
        rows(("entry", "now"), lines, title=title),
        *(Text(line) for line in (", ".join(lines_below), report.advice) if line),
    )


CampaignOption = Annotated[str | None, typer.Option(help="only this campaign, by id or slug")]
BackfillId = Annotated[
    str | None, typer.Option("--id", help="which backfill [default: the campaign, or all]")
]
BACKFILL_HELP = """Without --apply it only counts them. A backfill cannot overwrite anything newer: the save drain reads
the current state. Run the command again, or `backfill resume`, to continue one that was paused, stopped or killed.
"""


backfill_app = typer.Typer(help=BACKFILL_HELP, invoke_without_command=True)


@backfill_app.callback()
@flatten_options
def backfill_command(
    context: typer.Context,
    change: Change,
    campaign: CampaignOption = None,
    rate: Annotated[float | None, typer.Option(min=0.1, help="items a second [default: the setting]")] = None,
    segments: Annotated[int | None, typer.Option(min=1, max=64, help="parallel segments of the scan")] = None,
    since: SinceOption = "",
    backfill_id: BackfillId = None,
    form: FormatOption = Format.TEXT,
) -> None:
    if context.invoked_subcommand is None:
        _backfill(campaign, rate, segments, backfill_id, change.dry_run, form, since=since)


@backfill_app.command("resume")
def resume_command(
    campaign: CampaignOption = None,
    rate: Annotated[float | None, typer.Option(min=0.1, help="items a second")] = None,
    backfill_id: BackfillId = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Continue a paused, stopped or killed backfill."""
    _backfill(campaign, rate, None, backfill_id, False, form, only_resume=True)


def _backfill(
    campaign: str | None,
    rate: float | None,
    segments: int | None,
    backfill_id: str | None,
    dry_run: bool,
    form: Format,
    only_resume: bool = False,
    since: str = "",
) -> None:
    runtime = Runtime.load()
    campaign = campaign and runtime.campaigns.id_of(campaign)
    since = parse_since(since, runtime.clock())
    target = _backfill_target(campaign, backfill_id)
    arguments = {"rate": rate, "segments": segments, "since": since}
    with (
        audited(
            runtime,
            "backfill resume" if only_resume else "backfill",
            target,
            arguments,
            dry_run=dry_run,
        ) as result,
        progress("keys", "backfill") as show,
        StopSignal().on_signals() as stop,
    ):
        report = start_backfill(
            runtime,
            campaign_id=campaign,
            rate=rate,
            segments=segments,
            since=since,
            backfill_id=backfill_id,
            dry_run=dry_run,
            only_resume=only_resume,
            stop=stop,
            on_progress=lambda so_far: show(completed=so_far.sent, total=so_far.estimate),
        )
        result |= {"ended": report.ended, "sent": report.sent_now}
    answer(report.as_dict(), form, finding=not report.finished)


@backfill_app.command("pause")
def pause_command(
    campaign: CampaignOption = None,
    backfill_id: BackfillId = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Ask a running backfill to stop, wherever it runs. `resume` continues it."""
    runtime = Runtime.load()
    campaign = campaign and runtime.campaigns.id_of(campaign)
    with audited(runtime, "backfill pause", _backfill_target(campaign, backfill_id)):
        paused = pause_backfill(runtime, campaign_id=campaign, backfill_id=backfill_id)
    answer(paused, form)


@backfill_app.command("status")
def status_command(
    campaign: CampaignOption = None,
    backfill_id: BackfillId = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Show how far each segment is."""
    runtime = Runtime.load()
    campaign = campaign and runtime.campaigns.id_of(campaign)
    answer(backfill_status(runtime, campaign_id=campaign, backfill_id=backfill_id), form)


def _backfill_target(campaign: str | None, backfill_id: str | None) -> str:
    return backfill_id or campaign or "all campaigns"
