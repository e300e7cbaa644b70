"""Replication from the terminal: reconcile and repair, backfill, single entries, the workers of old."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from regworkers_core.cli import backfill, trace
from regworkers_core.cli.by_hand import by_hand
from regworkers_core.cli.output import FINDING, Format, FormatOption, answer, progress, rows
from regworkers_core.cli.trace import CampaignId, EntryId, entry_key
from regworkers_core.cli.workers import WORKERS, invoke
from regworkers_core.domain.reasons import UsageError
from regworkers_core.replication.reconcile import ReconcileResult, reconcile
from regworkers_core.replication.replicate import replicate
from regworkers_core.runtime import Runtime


def register(app: typer.Typer) -> None:
    app.command("reconcile")(reconcile_command)
    app.command("replicate")(replicate_command)
    trace.register(app)
    app.command("invoke")(invoke_command)
    backfill.register(app)


def reconcile_command(
    campaign: Annotated[str | None, typer.Option(help="only this campaign")] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="queue what differs and wait until it heals")
    ] = False,
    yes_remove: Annotated[
        int | None,
        typer.Option(
            "--yes-remove", min=0, metavar="N", help="up to N removals, where a repair refuses so many"
        ),
    ] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Compare the demand table with the replica, content and all. Exit code 1 when they differ.

    A repair removes nothing when the source holds no entry of a campaign, or when too much of the replica would go.
    """
    if yes_remove is not None and not repair:
        raise UsageError("--yes-remove goes with --repair: nothing is removed without it")
    runtime = Runtime.load()
    arguments = {"repair": repair, "yesRemove": yes_remove}
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
            on_progress=lambda done: bar.update(task, completed=done),
            on_phase=lambda phase: bar.update(task, description=phase),
        )
        if result.repair is not None:
            numbers = result.repair
            came_to |= {"sent": numbers.sent, "removals": numbers.removals, "healed": numbers.healed}
    answer(result.as_dict(), form, _comparison(result))
    if not result.clean:
        raise typer.Exit(FINDING)


def _comparison(result: ReconcileResult) -> Group:
    """What was compared, what differs and why, and what a repair did."""
    repair = result.repair
    columns = ["", "entries", *(["left"] if repair else []), "for example"]
    lines: list[list[object]] = [["equal", result.totals["matched"], *(["–"] if repair else []), ""]]
    for kind, number in result.counts.items():
        samples = "\n".join(result.samples.get(kind, ())[:3])
        lines.append([kind.value, number, *([repair.remaining.get(kind, 0)] if repair else []), samples])
    title = f"{result.totals['source']} in the source, {result.totals['replica']} in the replica"
    # Sentences stand below: a narrow terminal would leave them a column of a few letters.
    below = [f"{kind.value}: {text}" for kind, text in result.explanations.items()]
    if repair:
        below.append(repair.in_words)
        below.append(repair.advice)
    return Group(rows(columns, lines, title=title), *(Text(line) for line in below if line))


def replicate_command(campaign_id: CampaignId, entry_id: EntryId, form: FormatOption = Format.TEXT) -> None:
    """Put one entry's key on the replication queue, whatever its flag says. Exit code 1 if there is none."""
    key, runtime = entry_key(campaign_id, entry_id), Runtime.load()
    with by_hand(runtime, "replicate", f"{campaign_id}:{entry_id}") as result:
        done = replicate(runtime, key)
        result["sent"] = done["sent"]
    answer(done, form)
    if not done["sent"]:
        raise typer.Exit(FINDING)


def invoke_command(
    worker: Annotated[str, typer.Argument(help=" or ".join(WORKERS))],
    payload: Annotated[str, typer.Argument(help="the event as JSON, or - to read it from stdin")],
) -> None:
    """Answer one event of old and print the answer as JSON. Exit code 1 when items failed.

    saveEntries takes an SQS event:

      {"Records": [{"messageId": "m1", "body": "{\\"type\\": \\"entries.replicate\\", \\"version\\": 1, \\"items\\":
      [{\\"pk\\": \\"CAMPAIGN#<campaignId>\\", \\"sk\\": \\"ENTRY#<entryId>\\"}]}"}]}

    sendData takes one, too, whose items are CloudEvents (all of what an event holds: docs/analytics.md):

      {"Records": [{"messageId": "m1", "body": "{\\"type\\": \\"analytics.publish\\", \\"version\\": 1, \\"items\\":
      [{\\"specversion\\": \\"1.0\\", \\"type\\": \\"entry.removed\\", ...}]}"}]}

    enqueueEntries takes a DynamoDB stream event:

      {"Records": [{"eventName": "MODIFY", "dynamodb": {"SequenceNumber": "1", "Keys": {"PK": {"S":
      "CAMPAIGN#<campaignId>"}, "SK": {"S": "ENTRY#<entryId>"}}, "NewImage": {"needsReplication": {"BOOL": true}}}}]}

    enqueueMarketSelections takes a market to take up again (exit code 1 while it has too few codes):

      {"campaignId": "<campaignId>", "marketId": "<marketId>"}

    checkEligibility takes a list of checks (exit code 0 when they are judged, whatever the verdicts):

      [{"campaignSlug": "<slug or id>", "entry": {"email": "test@example.com", "firstName": "Test", "lastName":
      "User"}, "doTransfer": false}]
    """
    # As words of a command come: what is not UTF-8 is no JSON, and is said so.
    piped = sys.stdin.buffer.read().decode(errors="surrogateescape") if payload == "-" else payload
    done = invoke(worker, piped)
    answer(done, Format.JSON)
    if isinstance(done, dict) and (done.get("batchItemFailures") or done.get("status") == "BLOCKED"):
        raise typer.Exit(FINDING)
