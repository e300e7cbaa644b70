"""`regworkers trace`: one entry through all hops, and where its log lines are."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from regworkers_core.analytics import hops as analytics
from regworkers_core.cli.output import FINDING, Format, FormatOption, answer, facts, rows
from regworkers_core.domain.grammar import (
    CAMPAIGN_ID_BYTES,
    ENTRY_ID_BYTES,
    campaign_id_problem,
    entry_id_problem,
)
from regworkers_core.domain.hop import Hop
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import UsageError
from regworkers_core.replication import hops as replication
from regworkers_core.replication.trace import trace_entry
from regworkers_core.runtime import Runtime
from regworkers_core.selection import hops as selection

CampaignId = Annotated[str, typer.Argument(metavar="CAMPAIGN", help="its id")]
EntryId = Annotated[str, typer.Argument(metavar="ENTRY", help="its id in the campaign")]


def register(app: typer.Typer) -> None:
    app.command("trace")(trace_command)


def trace_command(
    campaign_id: CampaignId,
    entry_id: EntryId,
    form: FormatOption = Format.TEXT,
) -> None:
    """Everything known about one entry, hop by hop, without a fan's data, and the command that finds its log lines.

    Exit code 1 unless replica equals source.
    """
    runtime, key = Runtime.load(), entry_key(campaign_id, entry_id)
    document, hops = traced(runtime, key)
    answer(document, form, _text(document, hops))
    if document["verdict"] not in ("in_sync", "gone"):
        raise typer.Exit(FINDING)


def entry_key(campaign_id: str, entry_id: str) -> EntryKey:
    """Raises UsageError naming the argument, how long it is, and what may stand there."""
    for name, value, problem, most in (
        ("CAMPAIGN", campaign_id, campaign_id_problem(campaign_id), CAMPAIGN_ID_BYTES),
        ("ENTRY", entry_id, entry_id_problem(entry_id), ENTRY_ID_BYTES),
    ):
        if problem:
            size = len(value.encode(errors="surrogatepass"))
            raise UsageError(f"{name} {problem}: it has {size} bytes, and an id has 1 to {most}")
    return EntryKey(campaign_id, entry_id)


def traced(runtime: Runtime, key: EntryKey) -> tuple[dict[str, Any], list[Hop]]:
    """What `trace_entry` says, with `hops`, `correlationId` and `logs` (a command) besides. Raises TransientFailure
    when source or replica do not answer; other hops say so themselves.
    """
    trace = trace_entry(runtime, key)
    source, replica = trace["source"], trace["replica"]
    since = next((each["updatedAt"] for each in (source, replica) if each), None)
    hops = [
        *replication.hops(runtime, trace),
        *analytics.hops(runtime, trace["events"], since),
        *selection.hops(runtime, key.campaign_id, trace["ref"]),
        replication.dead_letters(trace),
    ]
    found = (source or {}).get("correlationId")
    correlation_id = found if isinstance(found, str) and found else None
    place = f"--campaign {quote(key.campaign_id)} --entry {quote(key.entry_id)}"
    document = {
        **trace,
        "correlationId": correlation_id,
        "hops": [each.as_dict() for each in hops],
        "logs": f"regworkers logs --correlation-id {quote(correlation_id)} {place}"
        if correlation_id
        else f"regworkers logs {place}",
    }
    return document, hops


def _text(document: dict[str, Any], hops: Sequence[Hop]) -> Group:
    below = [document[name] for name in ("command", "logs") if document[name]]
    shown = {name: value for name, value in document.items() if name not in ("hops", "command", "logs")}
    lines = [
        (each.name, each.state, each.at, ", ".join(f"{name} {value}" for name, value in each.facts.items()))
        for each in hops
    ]
    return Group(facts(shown), rows(("hop", "", "at", ""), lines), *(Text(line) for line in below))
