"""`regworkers trace|logs|audit`: what happened to an entry, and what operators changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from regworkers_core.adapters.mongo.operator_actions import Action
from regworkers_core.cli.options import CampaignArgument
from regworkers_core.cli.output import Format, FormatOption, answer, facts, rows, to_second
from regworkers_core.domain.keys import (
    CAMPAIGN_ID_BYTES,
    ENTRY_ID_BYTES,
    EntryKey,
    campaign_id_problem,
    entry_id_problem,
)
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import iso, parse_since, span_seconds
from regworkers_core.operations.logs import Lines, LogLine, Sought, look_up
from regworkers_core.operations.trace import Hop, trace_hops
from regworkers_core.runtime import Runtime

EntryId = Annotated[str, typer.Argument(metavar="ENTRY", help="its id in the campaign")]


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
    answer(document, form, _hops_text(document, hops), finding=document["verdict"] not in ("in_sync", "gone"))


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
    return EntryKey(runtime.campaigns.id_of(campaign), entry_id)


def _hops_text(document: dict[str, Any], hops: Sequence[Hop]) -> Group:
    below = [document[name] for name in ("command", "logs") if document[name]]
    shown = {name: value for name, value in document.items() if name not in ("hops", "command", "logs")}
    lines = [
        (each.name, each.state, each.at, ", ".join(f"{name} {value}" for name, value in each.facts.items()))
        for each in hops
    ]
    return Group(facts(shown), rows(("hop", "", "at", ""), lines), *(Text(line) for line in below))


_SHOWN_FIRST = ("at", "where", "level", "worker", "event")


def logs_command(
    correlation_id: Annotated[
        str, typer.Option("--correlation-id", help="as `regworkers trace` prints it", show_default=False)
    ] = "",
    since: Annotated[str, typer.Option(help="how far back: 90s, 30m, 1h, 2d")] = "1h",
    campaign: Annotated[
        str, typer.Option(help="with --entry: one entry, its messages and runs; id or slug")
    ] = "",
    entry: Annotated[str, typer.Option(help="with --campaign", show_default=False)] = "",
    form: FormatOption = Format.TEXT,
) -> None:
    """Show the log lines of one correlation id or entry.

    The oldest line is first. With --campaign and --entry also the lines that name the entry under another id (a removal
    has its message's), and those of the messages and runs that carried it. Exits 1 if
    there is no line.
    """
    if bool(campaign) != bool(entry):
        raise UsageError("--campaign and --entry go together")
    if not correlation_id and not entry:
        raise UsageError("give --correlation-id, or --campaign and --entry")
    if (back := span_seconds(since)) is None:
        raise UsageError(f"--since takes a number with s, m, h or d, found {since!r}")
    runtime = Runtime.load()
    start = iso(runtime.clock() - back)
    sought = Sought(start, correlation_id)
    if entry:
        key = entry_key(runtime, campaign, entry)
        sought = _of_entry(
            trace_hops(runtime, key)[0], start, correlation_id, (key.campaign_id, key.entry_id)
        )
    found = look_up(runtime, sought)
    document = {
        "correlationId": sought.correlation_id or None,
        "runIds": sorted(sought.run_ids),
        "since": start,
        "source": found.source,
        "cut": found.cut,
        "lines": [line.as_dict() for line in found.lines],
    }
    answer(document, form, _log_lines_text(found, sought), finding=not found.lines)


def _of_entry(trace: dict[str, Any], start: str, correlation_id: str, entry: tuple[str, str]) -> Sought:
    held = [trace["replica"] or {}, *trace["deadLetters"], *trace["hops"]]
    return Sought(
        start,
        correlation_id or trace["correlationId"] or "",
        frozenset(str(each["messageId"]) for each in held if each.get("messageId")),
        frozenset(str(each["runId"]) for each in held if each.get("runId")),
        entry,
    )


def _log_lines_text(found: Lines, sought: Sought) -> Group:
    asked_for = (sought.correlation_id, *(sought.entry or ()))
    lines = [_log_line_text(line, asked_for) for line in found.lines]
    if not lines:
        lines.append(f"nothing in {found.source} since {sought.since}: --since looks further back")
    if found.cut:
        lines.append("there may be more lines: the newest are shown")
    return Group(*map(Text, lines))


def _log_line_text(line: LogLine, asked_for: Sequence[str]) -> str:
    """Without the ids that were asked for, which every line has."""
    shown = line.as_dict()
    rest = ", ".join(
        f"{name} {value}"
        for name, value in shown.items()
        if name not in _SHOWN_FIRST and value not in asked_for
    )
    first = (str(shown.get(name) or "–") for name in ("level", "worker", "event"))
    return "  ".join((line.at, *first, rest))


def audit_command(
    what: Annotated[
        str, typer.Option(help="only commands that begin with this: `dlq`, `draw top-up`", show_default=False)
    ] = "",
    since: Annotated[
        str,
        typer.Option(
            help="a day (2026-11-25), a time (2026-11-25T18:00:00Z) or how long ago (90m, 12h, 7d)",
            show_default=False,
        ),
    ] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="show at most this many")] = 50,
    form: FormatOption = Format.TEXT,
) -> None:
    """Show what operators changed, the latest first.

    Lists commands, and runs that an operator launched in Dagster. An action that is `running` is at work, or was
    killed.
    """
    runtime = Runtime.load()
    found = runtime.operator_actions.history(
        what=what, since=parse_since(since, runtime.clock()), limit=limit
    )
    columns = ("when", "who", "what", "target", "outcome", "result")
    lines = [
        (to_second(each.started_at), each.who, each.what, each.target, each.outcome, _brief(each))
        for each in found
    ]
    asked = (f" for a command that begins with {what!r}" if what else "") + (
        f" since {since}" if since else ""
    )
    empty = f"no action is recorded{asked}"
    answer([each.as_dict() for each in found], form, rows(columns, lines) if lines else empty)


def _brief(action: Action) -> str | None:
    """The plain values of the result; the JSON document has the others."""
    plain = {name: value for name, value in action.result.items() if not isinstance(value, dict | list)}
    return ", ".join(f"{name} {value}" for name, value in plain.items()) or None
