"""Replication from the terminal: reconcile and repair, backfill, single entries, the workers of old."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from regworkers_core.cli import backfill, reconcile, trace
from regworkers_core.cli.changes import audited
from regworkers_core.cli.options import CampaignArgument
from regworkers_core.cli.output import FINDING, Format, FormatOption, answer
from regworkers_core.cli.trace import EntryId, entry_key
from regworkers_core.cli.workers import WORKERS, invoke
from regworkers_core.replication.reconcile.repair import replicate
from regworkers_core.runtime import Runtime


def register(app: typer.Typer) -> None:
    reconcile.register(app)
    app.command("replicate")(replicate_command)
    trace.register(app)
    app.command("invoke")(invoke_command)
    backfill.register(app)


def replicate_command(
    campaign_id: CampaignArgument, entry_id: EntryId, form: FormatOption = Format.TEXT
) -> None:
    """Queue one entry's key for replication, whatever its flag. Exits 1 if there is no such entry."""
    runtime = Runtime.load()
    key = entry_key(runtime, campaign_id, entry_id)
    with audited(runtime, "replicate", key.document_id) as result:
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
