"""`regworkers runbook ...`: one command for each kind of failure. Changes something only with `--apply`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from regworkers_core.cli.changes import Change, audited
from regworkers_core.cli.options import flatten_options, quick_runtime
from regworkers_core.cli.output import Format, FormatOption, answer, facts, progress, rows
from regworkers_core.domain.reasons import UsageError
from regworkers_core.engine.stop import StopSignal
from regworkers_core.operations.runbook import CATALOG, RunbookReport
from regworkers_core.runtime import Runtime
from regworkers_core.settings import load_settings

HELP = """Diagnose a failure, and repair it with --apply.

Without a name this lists the runbooks. Each says in numbers what is wrong and what helps, and has a page in
docs/runbooks/. Exits 1 if something is wrong.
"""
Campaign = Annotated[str | None, typer.Option(help="only this campaign, by id or slug")]
Minutes = Annotated[float, typer.Option("--minutes", min=1, help="minutes of the drain log to read")]


app = typer.Typer(help=HELP, invoke_without_command=True)


@app.callback()
def list_command(context: typer.Context, form: FormatOption = Format.TEXT) -> None:
    if context.invoked_subcommand is not None:
        return
    lines = [(each.name, each.symptom, each.changes or None) for each in CATALOG]
    table = rows(("runbook", "you see", "changes with --apply"), lines)
    others = [each for each in CATALOG if each.command != f"regworkers runbook {each.name}"]
    below = [
        "begin with `regworkers runbook RUNBOOK`",
        *(f"{each.name}: `{each.command}`" for each in others),
    ]
    answer([each.as_dict() for each in CATALOG], form, Group(table, *map(Text, below)))


@app.command("stream-lag")
def stream_lag_command(minutes: Minutes = 15, form: FormatOption = Format.TEXT) -> None:
    """Find what limits replication (shards, drains, throttling, batches, save) and the setting to change."""
    from regworkers_core.operations.runbooks import stream_lag

    _say(stream_lag.run(quick_runtime(), minutes=minutes), form)


@app.command("total-failure")
@flatten_options
def total_failure_command(
    change: Change,
    entries: Annotated[
        int, typer.Option(min=1, help="extrapolate the times to this many entries")
    ] = 1_000_000,
    rate: Annotated[float | None, typer.Option(min=0.1, help="keys a second [default: the setting]")] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Provision, check, rebuild the replica and verify, each step timed against the objective. Without --apply
    count and compare. Nothing newer is overwritten, and the command can be repeated at any time.
    """
    from regworkers_core.operations.runbooks import total_failure

    runtime = Runtime.load()
    with (
        _progress("recovery") as on_line,
        audited(runtime, "runbook total-failure", "all", {"rate": rate}, dry_run=change.dry_run) as result,
        StopSignal().on_signals() as stop,
    ):
        report = total_failure.run(
            runtime, apply=change.apply, entries=entries, rate=rate, on_line=on_line, stop=stop
        )
        result.update(seconds=report.facts["seconds"], entries=report.facts["entries"])
    _say(report, form)


@app.command("out-of-sync")
@flatten_options
def out_of_sync_command(
    change: Change,
    campaign: Campaign = None,
    yes_remove: Annotated[
        int | None,
        typer.Option(
            "--yes-remove", min=0, metavar="N", help="allow up to N removals if the repair refuses them"
        ),
    ] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Compare the replica with its source; with --apply repair what differs, save it, and compare again."""
    from regworkers_core.operations.runbooks import out_of_sync

    if yes_remove is not None and change.dry_run:
        raise UsageError("--yes-remove only confirms removals: add --apply to act")
    runtime = Runtime.load()
    campaign = campaign and runtime.campaigns.id_of(campaign)
    arguments = {"yesRemove": yes_remove}
    with (
        _progress("reconcile") as on_line,
        audited(
            runtime, "runbook out-of-sync", campaign or "all", arguments, dry_run=change.dry_run
        ) as result,
    ):
        report = out_of_sync.run(
            runtime, campaign, apply=change.apply, yes_remove=yes_remove, on_line=on_line
        )
        result.update(left=report.facts["differences"], done=report.changed)
    _say(report, form)


@app.command("selection-failures")
@flatten_options
def selection_failures_command(
    change: Change,
    campaign: Campaign = None,
    market: Annotated[str | None, typer.Option("--market", help="resume only this market")] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Explain why draws and markets do not continue; with --apply resume those that a retry helps."""
    from regworkers_core.operations.runbooks import selection_failures

    runtime = Runtime.load()
    with audited(
        runtime, "runbook selection-failures", campaign or "all", {"market": market}, dry_run=change.dry_run
    ) as result:
        run_id = f"runbook-{uuid.uuid4().hex}"
        report = selection_failures.run(runtime, campaign, market, apply=change.apply, run_id=run_id)
        result["done"] = report.changed
    _say(report, form)


@app.command("campaign-configuration")
@flatten_options
def campaign_configuration_command(
    change: Change, campaign: Campaign = None, form: FormatOption = Format.TEXT
) -> None:
    """Compare campaigns in Redis, MongoDB and the Campaign Service; with --apply clear from Redis those that differ."""
    from regworkers_core.operations.runbooks import campaign_configuration

    runtime = quick_runtime()
    with audited(
        runtime, "runbook campaign-configuration", campaign or "all", dry_run=change.dry_run
    ) as result:
        report = campaign_configuration.run(runtime, campaign, apply=change.apply)
        result["done"] = report.changed
    _say(report, form)


@app.command("kafka")
def kafka_command(minutes: Minutes = 60, form: FormatOption = Format.TEXT) -> None:
    """Check brokers, topics, certificate, publish drains, and the time until the queue loses events."""
    from regworkers_core.operations.runbooks import kafka

    _say(kafka.run(quick_runtime(), minutes=minutes), form)


@app.command("time-outs")
def time_outs_command(minutes: Minutes = 30, form: FormatOption = Format.TEXT) -> None:
    """Show which dependencies the drains waited for, and how long each takes now, beside its time-out."""
    from regworkers_core.operations.runbooks import time_outs

    _say(time_outs.run(quick_runtime(), minutes=minutes, settings=load_settings()), form)


@app.command("cost")
def cost_command(
    days: Annotated[float, typer.Option(min=0.01, max=40, help="days of the drain log to read")] = 7,
    form: FormatOption = Format.TEXT,
) -> None:
    """Show the calls for a million entries by drain and service, and their list price."""
    from regworkers_core.operations.runbooks import cost

    _say(cost.run(quick_runtime(), days=days), form)


@contextmanager
def _progress(name: str) -> Iterator[Any]:
    with progress("", name) as show:
        yield lambda line: show(description=line)


def _say(report: RunbookReport, form: Format) -> None:
    answer(report.as_dict(), form, _shown(report), finding=not report.fine)


def _shown(report: RunbookReport) -> RenderableType:
    parts: list[RenderableType] = [Text(report.summary), facts(report.facts)]
    for title, lines in report.tables.items():
        if lines:
            columns = list(lines[0])
            parts.append(rows(columns, [[line[name] for name in columns] for line in lines], title=title))
    if report.findings:
        found = [(each.text, each.advice) for each in report.findings]
        parts.append(rows(("finding", "what helps"), found))
    parts += [Text(line) for line in (report.changed, report.next_step) if line]
    parts.append(Text(f"details: docs/{report.page}"))
    return Group(*parts)
