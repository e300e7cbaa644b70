"""`regworkers trace`: one entry through all hops, and where its log lines are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from regworkers_core.cli.options import CampaignArgument, campaign_id_of
from regworkers_core.cli.output import FINDING, Format, FormatOption, answer, facts, rows
from regworkers_core.domain.grammar import (
    CAMPAIGN_ID_BYTES,
    ENTRY_ID_BYTES,
    campaign_id_problem,
    entry_id_problem,
)
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import UsageError
from regworkers_core.operations.trace import Hop, trace_hops
from regworkers_core.runtime import Runtime

EntryId = Annotated[str, typer.Argument(metavar="ENTRY", help="its id in the campaign")]


def register(app: typer.Typer) -> None:
    app.command("trace")(trace_command)


def trace_command(
    campaign_id: CampaignArgument,
    entry_id: EntryId,
    form: FormatOption = Format.TEXT,
) -> None:
    """Show one entry's way from source to replica, hop by hop.

    Shows no fan's data, and names the command that finds its log lines. Exits 1 unless the replica equals the source.
    """
    runtime = Runtime.load()
    key = entry_key(runtime, campaign_id, entry_id)
    document, hops = trace_hops(runtime, key)
    answer(document, form, _text(document, hops))
    if document["verdict"] not in ("in_sync", "gone"):
        raise typer.Exit(FINDING)


def entry_key(runtime: Runtime, campaign: str, entry_id: str) -> EntryKey:
    """The key of an entry of the campaign with this id or slug. Raises UsageError naming the argument that is not an
    id, and its length.
    """
    for name, value, problem, most in (
        ("CAMPAIGN", campaign, campaign_id_problem(campaign), CAMPAIGN_ID_BYTES),
        ("ENTRY", entry_id, entry_id_problem(entry_id), ENTRY_ID_BYTES),
    ):
        if problem:
            size = len(value.encode(errors="surrogatepass"))
            raise UsageError(f"{name} {problem}: it has {size} bytes, and an id has 1 to {most}")
    return EntryKey(campaign_id_of(runtime, campaign), entry_id)


def _text(document: dict[str, Any], hops: Sequence[Hop]) -> Group:
    below = [document[name] for name in ("command", "logs") if document[name]]
    shown = {name: value for name, value in document.items() if name not in ("hops", "command", "logs")}
    lines = [
        (each.name, each.state, each.at, ", ".join(f"{name} {value}" for name, value in each.facts.items()))
        for each in hops
    ]
    return Group(facts(shown), rows(("hop", "", "at", ""), lines), *(Text(line) for line in below))
