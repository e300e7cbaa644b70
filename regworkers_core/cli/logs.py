"""`regworkers logs`: what was logged on one entry's way."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from regworkers_core.cli.output import FINDING, Format, FormatOption, answer, rows
from regworkers_core.cli.trace import entry_key
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.logs import Lines, LogLine, Sought, look_up, span_seconds
from regworkers_core.operations.trace import trace_hops
from regworkers_core.runtime import Runtime

_COLUMNS = ("at", "level", "worker", "event", "")
_OWN_COLUMN = ("at", "where", "level", "worker", "event")


def register(app: typer.Typer) -> None:
    app.command("logs")(logs_command)


def logs_command(
    correlation_id: Annotated[
        str, typer.Option("--correlation-id", help="as `regworkers trace` prints it", show_default=False)
    ] = "",
    since: Annotated[str, typer.Option(help="how far back: 90s, 30m, 1h, 2d")] = "1h",
    campaign: Annotated[str, typer.Option(help="with --entry: one entry, its messages and runs")] = "",
    entry: Annotated[str, typer.Option(help="with --campaign", show_default=False)] = "",
    form: FormatOption = Format.TEXT,
) -> None:
    """Show the log lines of one correlation id, of all workers, oldest first: every hop of an entry's way. With
    --campaign and --entry also those of the entry under another id (a removal goes by its message's), of the messages
    and of the runs that carried it. From CloudWatch, in local-dev from this machine's files.

    Exit code 1 without any line.
    """
    if bool(campaign) != bool(entry):
        raise UsageError("--campaign and --entry go together")
    if not correlation_id and not entry:
        raise UsageError("say which: --correlation-id, or --campaign and --entry")
    runtime = Runtime.load()
    start = iso(runtime.clock() - span_seconds(since))
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
    answer(document, form, _text(found))
    if not found.lines:
        raise typer.Exit(FINDING)


def _of_entry(trace: dict[str, Any], start: str, correlation_id: str, entry: tuple[str, str]) -> Sought:
    held = [trace["replica"] or {}, *trace["deadLetters"], *trace["hops"]]
    return Sought(
        start,
        correlation_id or trace["correlationId"] or "",
        frozenset(str(each["messageId"]) for each in held if each.get("messageId")),
        frozenset(str(each["runId"]) for each in held if each.get("runId")),
        entry,
    )


def _text(found: Lines) -> Group:
    below = [f"nothing in {found.source}"] if not found.lines else []
    if found.cut:
        below.append("there may be more: the newest are shown")
    table = [rows(_COLUMNS, [_row(line) for line in found.lines])] if found.lines else []
    return Group(*table, *(Text(line) for line in below))


def _row(line: LogLine) -> list[object]:
    shown = line.as_dict()
    rest = ", ".join(f"{name} {value}" for name, value in shown.items() if name not in _OWN_COLUMN)
    return [line.at, shown.get("level"), shown.get("worker"), shown.get("event"), rest]
