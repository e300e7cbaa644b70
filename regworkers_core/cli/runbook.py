"""`regworkers runbook ...`: one command for each kind of trouble. Looks, and changes something only with `--yes`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from regworkers_core.cli.by_hand import by_hand
from regworkers_core.cli.output import FINDING, Format, FormatOption, answer, facts, progress, rows
from regworkers_core.domain.reasons import UsageError
from regworkers_core.engine.stop import StopSignal
from regworkers_core.operations.health.status import impatient
from regworkers_core.operations.runbooks import (
    campaign_configuration,
    cost,
    kafka_run,
    out_of_sync_run,
    recovery,
    selection,
    stream_lag_run,
    time_outs,
)
from regworkers_core.operations.runbooks.catalog import CATALOG
from regworkers_core.operations.runbooks.runbook_report import RunbookReport
from regworkers_core.runtime import Runtime
from regworkers_core.settings import load_settings

HELP = """One command for each kind of trouble, and a page in docs/runbooks/. Without a name: which there are.

A runbook looks, says in numbers what is wrong and what helps. Only with --yes it changes something. Exit code 1 when
something is wrong.
"""
Yes = Annotated[bool, typer.Option("--yes", help="do it; without this nothing is changed")]
Campaign = Annotated[str | None, typer.Option("--campaign", metavar="CAMPAIGN", help="only this one")]
Minutes = Annotated[float, typer.Option("--minutes", min=1, help="how far to look back")]


def register(app: typer.Typer) -> None:
    runbook = typer.Typer(help=HELP, invoke_without_command=True)
    runbook.callback()(list_command)
    runbook.command("stream-lag")(stream_lag_command)
    runbook.command("total-failure")(total_failure_command)
    runbook.command("out-of-sync")(out_of_sync_command)
    runbook.command("selection-failures")(selection_failures_command)
    runbook.command("campaign-configuration")(campaign_configuration_command)
    runbook.command("kafka")(kafka_command)
    runbook.command("time-outs")(time_outs_command)
    runbook.command("cost")(cost_command)
    app.add_typer(runbook, name="runbook")


def list_command(context: typer.Context, form: FormatOption = Format.TEXT) -> None:
    if context.invoked_subcommand is not None:
        return
    lines = [(each.name, each.symptom, each.command, each.changes or None) for each in CATALOG]
    columns = ("runbook", "you see", "begin with", "changes with --yes")
    answer([each.as_dict() for each in CATALOG], form, rows(columns, lines, whole=("begin with",)))


def stream_lag_command(minutes: Minutes = 15, form: FormatOption = Format.TEXT) -> None:
    """What bounds replication now (shards, drains, throttling, batches, save), and which setting to change."""
    _say(stream_lag_run.read_stream_lag(_impatient(), minutes=minutes), form)


def total_failure_command(
    yes: Yes = False,
    entries: Annotated[int, typer.Option(min=1, help="stretch the times to so many entries")] = 1_000_000,
    rate: Annotated[float | None, typer.Option(min=0.1, help="keys a second [default: the setting]")] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Provision, look, rebuild the replica, verify; each step timed, against the objective. Without --yes: count and
    compare. It overwrites nothing that is newer, and can be repeated at any time.
    """
    runtime = Runtime.load()
    with (
        _telling("recovery") as tell,
        by_hand(runtime, "runbook total-failure", "all", {"rate": rate}, dry_run=not yes) as result,
        StopSignal().on_signals() as stop,
    ):
        report = recovery.recover(runtime, apply=yes, entries=entries, rate=rate, tell=tell, stop=stop)
        result.update(seconds=report.facts["seconds"], entries=report.facts["entries"])
    _say(report, form)


def out_of_sync_command(
    campaign: Campaign = None,
    yes: Yes = False,
    yes_remove: Annotated[
        int | None,
        typer.Option("--yes-remove", min=0, metavar="N", help="up to N removals, where it refuses so many"),
    ] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Compare the replica with its source; with --yes repair what differs, save it here, and compare again."""
    if yes_remove is not None and not yes:
        raise UsageError("--yes-remove goes with --yes: nothing is removed without it")
    runtime = Runtime.load()
    arguments = {"yesRemove": yes_remove}
    with (
        _telling("reconcile") as tell,
        by_hand(runtime, "runbook out-of-sync", campaign or "all", arguments, dry_run=not yes) as result,
    ):
        report = out_of_sync_run.mend_out_of_sync(
            runtime, campaign, apply=yes, yes_remove=yes_remove, tell=tell
        )
        result.update(left=report.facts["differences"], done=report.changed)
    _say(report, form)


def selection_failures_command(
    campaign: Campaign = None,
    market: Annotated[str | None, typer.Option("--market", help="take up only this one")] = None,
    yes: Yes = False,
    form: FormatOption = Format.TEXT,
) -> None:
    """Why draws and markets stand still: codes, chunks, lease, step, run; with --yes take up what a retry helps."""
    runtime = Runtime.load()
    with by_hand(
        runtime, "runbook selection-failures", campaign or "all", {"market": market}, dry_run=not yes
    ) as result:
        run_id = f"runbook-{uuid.uuid4().hex}"
        report = selection.mend_selection(runtime, campaign, market, apply=yes, run_id=run_id)
        result["done"] = report.changed
    _say(report, form)


def campaign_configuration_command(
    campaign: Campaign = None, yes: Yes = False, form: FormatOption = Format.TEXT
) -> None:
    """Campaigns in Redis, MongoDB and the Campaign Service, compared; with --yes clear in Redis those that differ."""
    runtime = _impatient()
    with by_hand(runtime, "runbook campaign-configuration", campaign or "all", dry_run=not yes) as result:
        report = campaign_configuration.campaign_configuration(runtime, campaign, apply=yes)
        result["done"] = report.changed
    _say(report, form)


def kafka_command(minutes: Minutes = 60, form: FormatOption = Format.TEXT) -> None:
    """Brokers, topics, certificate, what the publish drains met, age of the queue, time until events are lost."""
    _say(kafka_run.read_kafka(_impatient(), minutes=minutes), form)


def time_outs_command(minutes: Minutes = 30, form: FormatOption = Format.TEXT) -> None:
    """Whom the drains waited for, and how long each dependency takes now, beside its time-out."""
    _say(time_outs.time_outs(_impatient(), minutes=minutes, settings=load_settings()), form)


def cost_command(
    days: Annotated[float, typer.Option(min=0.01, max=40, help="how far to look back")] = 7,
    form: FormatOption = Format.TEXT,
) -> None:
    """Calls for a million entries by drain and service, and what they cost at list prices."""
    _say(cost.cost(_impatient(), days=days), form)


def _impatient() -> Runtime:
    """Somebody waits in front of it."""
    return Runtime(impatient(load_settings()))


@contextmanager
def _telling(name: str) -> Iterator[Any]:
    with progress("") as bar:
        task = bar.add_task(name, total=None)
        yield lambda line: bar.update(task, description=line)


def _say(report: RunbookReport, form: Format) -> None:
    answer(report.as_dict(), form, _shown(report))
    if not report.fine:
        raise typer.Exit(FINDING)


def _shown(report: RunbookReport) -> RenderableType:
    parts: list[RenderableType] = [Text(report.summary), facts(report.facts)]
    for title, lines in report.tables.items():
        if lines:
            columns = list(lines[0])
            parts.append(rows(columns, [[line[name] for name in columns] for line in lines], title=title))
    if report.findings:
        found = [(each.text, each.advice) for each in report.findings]
        parts.append(rows(("needs a hand", "what helps"), found))
    parts += [Text(line) for line in (report.changed, report.next_step) if line]
    parts.append(Text(f"docs/{report.page} says more"))
    return Group(*parts)
