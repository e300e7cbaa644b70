"""`regworkers reconcile`: compare, repair, let the source win where the replica is ahead, take that back."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from regworkers_core.cli.by_hand import by_hand
from regworkers_core.cli.output import FINDING, Format, FormatOption, answer, progress, rows
from regworkers_core.domain.order import Order
from regworkers_core.domain.reasons import UsageError
from regworkers_core.replication.reconcile import Accept, ReconcileResult, reconcile
from regworkers_core.replication.reconcile.acceptance import AcceptanceReport
from regworkers_core.replication.reconcile.undo import UndoReport, undo_acceptance
from regworkers_core.runtime import Runtime

# Rows of a table: as many as a repair accepts without `--after-restore`.
_SHOWN = 100


def register(app: typer.Typer) -> None:
    app.command("reconcile")(reconcile_command)


def reconcile_command(
    campaign: Annotated[str | None, typer.Option(help="only this campaign")] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="queue what differs and wait until it heals")
    ] = False,
    yes_remove: Annotated[
        int | None,
        typer.Option(
            "--yes-remove",
            min=0,
            metavar="N",
            help="allow up to N removals, where a repair would refuse that many",
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
            help="also where the number looks like a table that was restored from a backup, whose losses you accept",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="with --repair: list the entries that are ahead, change nothing")
    ] = False,
    undo: Annotated[
        bool,
        typer.Option("--undo", help="list what the last --accept-source replaced and can be brought back"),
    ] = False,
    yes_undo: Annotated[
        int | None,
        typer.Option("--yes-undo", min=0, metavar="N", help="with --undo: bring these N entries back"),
    ] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Compare the demand table with the replica, content and all. Exit code 1 when they differ.

    A repair removes nothing when the source holds no entry of a campaign, or when too much of the replica would go.
    """
    _require(repair or yes_remove is None, "--yes-remove goes with --repair: nothing is removed without it")
    accepts = accept_source is not None or dry_run
    _require(repair or accept_source is None, "--accept-source goes with --repair")
    _require(accepts or not after_restore, "--after-restore goes with --accept-source or --dry-run")
    _require(
        repair or undo or not dry_run, "--dry-run goes with --repair or --undo: without them nothing changes"
    )
    _require(not (undo and repair), "--undo and --repair are two things: one after the other")
    _require(undo or yes_undo is None, "--yes-undo goes with --undo")
    runtime = Runtime.load()
    if undo:
        _undo(runtime, campaign, None if dry_run else yes_undo, form)
        return
    accept = Accept(None if dry_run else accept_source, after_restore) if accepts else None
    repair = repair and not dry_run
    arguments = {
        "repair": repair,
        "yesRemove": yes_remove,
        "acceptSource": accept_source,
        "afterRestore": after_restore,
    }
    with (
        by_hand(runtime, "reconcile", campaign or "all campaigns", arguments, dry_run=not repair) as came_to,
        progress("entries") as bar,
    ):
        task = bar.add_task("reconcile", total=None)
        result = reconcile(
            runtime,
            campaign,
            repair=repair,
            yes_remove=yes_remove,
            accept=accept,
            on_progress=lambda done: bar.update(task, completed=done),
            on_phase=lambda phase: bar.update(task, description=phase),
        )
        came_to |= result.numbers
    answer(result.as_dict(), form, _comparison(result))
    if not result.clean:
        raise typer.Exit(FINDING)


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise UsageError(otherwise)


def _undo(runtime: Runtime, campaign: str | None, confirmed: int | None, form: Format) -> None:
    target, dry_run = campaign or "all campaigns", confirmed is None
    with (
        by_hand(runtime, "reconcile undo", target, {"undo": confirmed}, dry_run=dry_run) as came_to,
        progress("entries") as bar,
    ):
        task = bar.add_task("bringing back", total=None)
        report = undo_acceptance(
            runtime,
            campaign,
            confirmed=confirmed,
            on_progress=lambda done: bar.update(task, completed=done),
        )
        came_to |= {"acceptance": report.acceptance, "restored": report.restored}
    answer(report.as_dict(), form, _taken_back(report))
    if not report.clean:
        raise typer.Exit(FINDING)


def _comparison(result: ReconcileResult) -> Group:
    """What was compared, what differs and why, and what a repair did."""
    repair, acceptance = result.repair, result.acceptance
    columns = ["", "entries", *(["left"] if repair else []), "for example"]
    lines: list[list[object]] = [["equal", result.totals["matched"], *(["–"] if repair else []), ""]]
    for kind, number in result.counts.items():
        samples = "\n".join(result.samples.get(kind, ())[:3])
        lines.append([kind.value, number, *([repair.remaining.get(kind, 0)] if repair else []), samples])
    title = f"{result.totals['source']} in the source, {result.totals['replica']} in the replica"
    # Sentences stand below: a narrow terminal would leave them a column of a few letters.
    below = [f"{kind.value}: {text}" for kind, text in result.explanations.items()]
    tables = [rows(columns, lines, title=title)]
    if acceptance:
        tables += [_ahead(acceptance)] if acceptance.entries else []
        below += [acceptance.in_words, acceptance.advice]
    if repair:
        below += [repair.in_words, repair.advice]
    return Group(*tables, *(Text(line) for line in below if line))


def _ahead(acceptance: AcceptanceReport) -> Table:
    shown = acceptance.entries[:_SHOWN]
    more = acceptance.found - len(shown)
    lines = [(each.key.document_id, _order(each.source), _order(each.replica)) for each in shown]
    if more:
        lines.append((f"and {more} more", "", ""))
    title = f"{acceptance.found} ahead (created, version, updated)"
    return rows(("entry", "source", "replica"), lines, title=title, whole=("entry",))


def _order(order: Order) -> str:
    return f"{order.created_at or '–'}\nv{order.version}, {order.updated_at or '–'}"


def _taken_back(report: UndoReport) -> Group:
    lines = [*report.entries[:_SHOWN]]
    told = [f"{number} {now.value}" for now, number in report.counts.items() if number]
    if report.restored:
        told.append(f"{report.restored} brought back")
    title = f"acceptance {report.acceptance or '–'}"
    return Group(
        rows(("entry", "now"), lines, title=title, whole=("entry",)),
        *(Text(line) for line in (", ".join(told), report.advice) if line),
    )
