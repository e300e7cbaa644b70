"""Replication from the terminal: drains, reconcile and repair, backfill, single entries, the workers of old."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Group, RenderableType

from regworkers_core.cli import backfill
from regworkers_core.cli.output import FINDING, Format, FormatOption, answer, progress, rows
from regworkers_core.cli.workers import WORKERS, invoke
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import UsageError
from regworkers_core.engine.drain import DrainReport
from regworkers_core.engine.stop import StopSignal
from regworkers_core.replication.drains import DrainName, drain_limits, run_drain
from regworkers_core.replication.reconcile import ReconcileResult, reconcile
from regworkers_core.replication.replicate import replicate
from regworkers_core.replication.trace import trace_entry
from regworkers_core.runtime import Runtime


def register(app: typer.Typer) -> None:
    drains = typer.Typer(help="Take work until idle, a time limit or Ctrl-C.", no_args_is_help=True)
    drains.command("enqueue")(drain_enqueue)
    drains.command("save")(drain_save)
    app.add_typer(drains, name="drain")
    app.command("reconcile")(reconcile_command)
    app.command("replicate")(replicate_command)
    app.command("trace")(trace_command)
    app.command("invoke")(invoke_command)
    backfill.register(app)


Idle = Annotated[float | None, typer.Option("--idle-seconds", min=0, help="leave after so long without work")]
Longest = Annotated[float | None, typer.Option("--max-seconds", min=0.1, help="leave after so long in all")]


def drain_enqueue(idle: Idle = None, longest: Longest = None, form: FormatOption = Format.TEXT) -> None:
    """Read the stream of the demand table and queue the keys that changed."""
    _drain("enqueue", idle, longest, form)


def drain_save(idle: Idle = None, longest: Longest = None, form: FormatOption = Format.TEXT) -> None:
    """Read the replication queue and save the entries' current state into the replica."""
    _drain("save", idle, longest, form)


def _drain(name: DrainName, idle: float | None, longest: float | None, form: Format) -> None:
    runtime = Runtime.load()
    limits = drain_limits(runtime.settings, name, idle_seconds=idle, max_seconds=longest)
    with progress("items") as bar, StopSignal().on_signals() as stop:
        task = bar.add_task(name, total=None)

        def show(report: DrainReport) -> None:
            bar.update(task, completed=report.counts["received"])

        report = run_drain(runtime, name, limits, stop=stop, on_progress=show)
    answer({**report.as_dict(), "calls": runtime.calls}, form)
    if report.ended == "dependency_down" or report.counts["dead_lettered"] or report.counts["trimmed"]:
        raise typer.Exit(FINDING)


def reconcile_command(
    campaign: Annotated[str | None, typer.Option(help="only this campaign")] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="queue what differs and wait until it heals")
    ] = False,
    form: FormatOption = Format.TEXT,
) -> None:
    """Compare the demand table with the replica, content and all. Exit code 1 when they differ."""
    runtime = Runtime.load()
    with progress("entries") as bar:
        task = bar.add_task("reconcile", total=None)
        result = reconcile(
            runtime,
            campaign,
            repair=repair,
            on_progress=lambda done: bar.update(task, completed=done),
            on_phase=lambda phase: bar.update(task, description=phase),
        )
    answer(result.as_dict(), form, _comparison(result))
    if not result.clean:
        raise typer.Exit(FINDING)


def _comparison(result: ReconcileResult) -> Group:
    """What was compared, what differs and why, and what a repair did."""
    left = result.repair.remaining if result.repair else {}
    columns = ["", "entries", *(["left"] if result.repair else []), "for example", "which means"]
    lines: list[list[object]] = [
        ["equal", result.totals["matched"], *(["–"] if result.repair else []), "", ""]
    ]
    for kind, number in result.counts.items():
        lines.append(
            [
                kind.value,
                number,
                *([left.get(kind, 0)] if result.repair else []),
                "\n".join(result.samples.get(kind, ())[:3]),
                result.explanations.get(kind, ""),
            ]
        )
    title = f"{result.totals['source']} in the source, {result.totals['replica']} in the replica"
    parts: list[RenderableType] = [rows(columns, lines, title=title)]
    if result.repair and result.repair.advice:
        parts.append(result.repair.advice)
    return Group(*parts)


def replicate_command(campaign_id: str, entry_id: str, form: FormatOption = Format.TEXT) -> None:
    """Put one entry's key on the replication queue, whatever its flag says. Exit code 1 if there is none."""
    done = replicate(Runtime.load(), _key(campaign_id, entry_id))
    answer(done, form)
    if not done["sent"]:
        raise typer.Exit(FINDING)


def trace_command(campaign_id: str, entry_id: str, form: FormatOption = Format.TEXT) -> None:
    """Everything known about one entry, without a fan's data. Exit code 1 unless replica equals source."""
    trace = trace_entry(Runtime.load(), _key(campaign_id, entry_id))
    answer(trace, form)
    if trace["verdict"] not in ("in_sync", "gone"):
        raise typer.Exit(FINDING)


def _key(campaign_id: str, entry_id: str) -> EntryKey:
    if not campaign_id or not entry_id:
        raise UsageError(
            "campaignId and entryId must not be empty: `regworkers trace <campaignId> <entryId>`"
        )
    return EntryKey(campaign_id, entry_id)


def invoke_command(
    worker: Annotated[str, typer.Argument(help=" or ".join(WORKERS))],
    payload: Annotated[str, typer.Argument(help="the event as JSON, or - to read it from stdin")],
) -> None:
    """Answer one event of old and print the answer as JSON. Exit code 1 when items failed.

    saveEntries takes an SQS event:

      {"Records": [{"messageId": "m1", "body": "{\\"type\\": \\"entries.replicate\\", \\"version\\": 1, \\"items\\":
      [{\\"pk\\": \\"CAMPAIGN#<campaignId>\\", \\"sk\\": \\"ENTRY#<entryId>\\"}]}"}]}

    enqueueEntries takes a DynamoDB stream event:

      {"Records": [{"eventName": "MODIFY", "dynamodb": {"SequenceNumber": "1", "Keys": {"PK": {"S":
      "CAMPAIGN#<campaignId>"}, "SK": {"S": "ENTRY#<entryId>"}}, "NewImage": {"needsReplication": {"BOOL": true}}}}]}
    """
    done = invoke(worker, sys.stdin.read() if payload == "-" else payload)
    answer(done, Format.JSON)
    if done["batchItemFailures"]:
        raise typer.Exit(FINDING)
