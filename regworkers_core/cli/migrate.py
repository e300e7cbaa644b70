"""`regworkers migrate check|shadow|cut-over`: move over from the Lambdas. `docs/migration.md` has the whole way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from regworkers_core.cli.changes import Change, audited
from regworkers_core.cli.options import flatten_options
from regworkers_core.cli.output import FINDING, Format, FormatOption, answer, facts, progress, rows
from regworkers_core.engine.stop import StopSignal
from regworkers_core.replication.backfill import estimate_items
from regworkers_core.replication.cut_over import CutOver, cut_over
from regworkers_core.replication.shadow import ShadowRows, shadow
from regworkers_core.replication.shadow_report import ShadowReport
from regworkers_core.runtime import Runtime

app = typer.Typer(no_args_is_help=True)
_TABLES = ("differences", "differingFields", "examples", "explanations")


@app.command("check")
def check_command(
    per_second: Annotated[
        float,
        typer.Option(
            "--per-second", min=1, metavar="N", help="read at most N entries and documents a second"
        ),
    ] = 2000.0,
    form: FormatOption = Format.TEXT,
) -> None:
    """List what the workers would refuse, miss or change.

    Reads the demand table and the replica once, compares them, and changes nothing. An entry of 1 KB costs a quarter of
    a read unit. Exits 1 if something has to be decided before the cut-over.
    """
    from regworkers_core.operations.table_check import check_tables

    runtime = Runtime.load()
    total = (estimate_items(runtime) or 0) + runtime.replica.estimate()
    with progress("entries and documents", "migrate check", total or None) as show:
        result = check_tables(
            runtime,
            per_second=per_second,
            on_progress=show.progress,
            on_phase=show.tell,
        )
    document = result.as_dict()
    columns = ("finding", "count", "decide first", "for example", "meaning")
    lines = [
        (
            each["finding"],
            each["count"],
            "yes" if each["decideFirst"] else "–",
            "\n".join(each["examples"][:3]),
            each["meaning"],
        )
        for each in document["findings"]
    ]
    title = f"{result.entries} entries in the source, {result.documents} documents in the replica"
    answer(
        document,
        form,
        rows(columns, lines, title=title) if lines else Text(f"{title}: nothing found"),
        finding=not result.ready,
    )


@app.command("shadow")
def shadow_command(
    longest: Annotated[
        float, typer.Option("--max-seconds", min=0.1, help="stop after this time in total")
    ] = 3600.0,
    idle: Annotated[
        float | None, typer.Option("--idle-seconds", min=0, help="stop after this time without a change")
    ] = None,
    afresh: Annotated[
        bool, typer.Option("--afresh", help="begin a new report; the checkpoints stay")
    ] = False,
    status: Annotated[bool, typer.Option("--status", help="show the report so far and exit")] = False,
    form: FormatOption = Format.TEXT,
) -> None:
    """Compare what a save would write with what the old system writes.

    Reads the stream beside the old system, waits the lag objective for each change, and writes nothing but its own
    checkpoints and its report. Goes on where it ended. Exits 1 if changes differ, or none was compared.
    """
    runtime = Runtime.load()
    if status:
        found = ShadowRows(runtime).report()
        _show(found, {} if found is None else found.as_dict(), form)
        return
    with progress("changes", "shadow") as show, StopSignal().on_signals() as stop:
        report, drained = shadow(
            runtime,
            stop=stop,
            max_seconds=longest,
            idle_seconds=math.inf if idle is None else idle,
            afresh=afresh,
            on_progress=show.progress,
        )
    document = report.as_dict() | {
        "ended": drained.ended,
        "failure": drained.failure or drained.dependency,
        "seconds": round(drained.seconds, 3),
    }
    _show(report, document, form, went_wrong=drained.went_wrong)


def _show(
    report: ShadowReport | None, document: Mapping[str, Any], form: Format, *, went_wrong: bool = False
) -> None:
    if report is None:
        answer({}, form, Text("no shadow has run: `regworkers migrate shadow` starts one"))
        raise typer.Exit(FINDING)
    shown = {name: value for name, value in document.items() if name not in _TABLES}
    lines = [
        (kind, number, "\n".join(document["examples"].get(kind, ())[:3]), document["explanations"][kind])
        for kind, number in document["differences"].items()
    ]
    parts: list[Any] = [facts(shown)]
    if lines:
        parts.append(rows(("difference", "changes", "for example", "meaning"), lines))
    if report.fields:
        parts.append(rows(("field", "changes"), list(document["differingFields"].items())))
    answer(document, form, Group(*parts), finding=went_wrong or not report.clean)


@app.command("cut-over")
@flatten_options
def cut_over_command(
    change: Change,
    accept_differences: Annotated[
        int | None,
        typer.Option(
            "--accept-differences",
            min=0,
            metavar="N",
            help="cut over although the shadow found N differences",
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="also replace checkpoints that enqueue already has")
    ] = False,
    form: FormatOption = Format.TEXT,
) -> None:
    """Start enqueue at the shadow's checkpoints minus one hour.

    Writes the checkpoints of enqueue; its drain starts there. Stop the old system's reader of the stream and the shadow
    first. Exits 1 if something is in the way.
    """
    runtime = Runtime.load()
    arguments = {"acceptDifferences": accept_differences, "replace": replace}
    target = runtime.names.demand_table
    with audited(runtime, "migrate cut-over", target, arguments, dry_run=change.dry_run) as noted:
        result = cut_over(runtime, apply=change.apply, accept_differences=accept_differences, replace=replace)
        noted |= {"shards": result.as_dict()["shards"], "applied": result.applied}
    answer(result.as_dict(), form, _cut_over_text(result, dry_run=change.dry_run), finding=result.obstacles)


def _cut_over_text(result: CutOver, *, dry_run: bool) -> Group:
    starts = "at the first record of the stream: the shadow has no checkpoints of an hour ago"
    if result.start is not None:
        starts = f"after {result.start.at}, in {len(result.start.shards)} shards"
    lines = [f"enqueue {'starts' if result.applied else 'would start'} {starts}"]
    lines += [f"not possible: {obstacle}" for obstacle in result.obstacles]
    if dry_run and not result.obstacles:
        lines.append("nothing was changed: add --apply to write its checkpoints")
    return Group(*map(Text, lines))
