"""`regworkers doctor` and `regworkers service check`: the health of the system, and of one service."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, NoReturn

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from regworkers_core.cli.options import quick_runtime
from regworkers_core.cli.output import FINDING, Format, FormatOption, answer
from regworkers_core.operations.dependency_status import (
    ServiceName,
    check_service,
)
from regworkers_core.operations.doctor import Examination, Found, examine_snapshot
from regworkers_core.operations.health.rows import SECTIONS, Row, RowState
from regworkers_core.operations.health.scheduler import read_scheduler
from regworkers_core.operations.health.snapshot import read_system

_MARKS = {
    RowState.FINE: ("ok", "green"),
    RowState.NOTE: ("note", "cyan"),
    RowState.UNKNOWN: ("?", "yellow"),
    RowState.UNREAD: ("unread", "red"),
    RowState.WARNING: ("warn", "yellow"),
    RowState.CRITICAL: ("CRIT", "bold red"),
}
# A process needs more than a second to start, and the whole command must answer within five.
_READ_SECONDS = 2.0
# Lines of each section on the screen; the JSON document has all of them.
_MOST_LINES, _MOST_NAMES = 4, 8
_MOST_FINDINGS = 8


def doctor_command(form: FormatOption = Format.TEXT) -> None:
    """Show the health of the system and the commands that help.

    Each finding lists since when it holds. Takes less than 5 s, even if dependencies do not answer. Exits 1 if
    something is wrong or could not be read.
    """
    runtime = quick_runtime()
    with _waiting():
        snapshot = read_system(
            runtime,
            lambda: read_scheduler(runtime.dagster, runtime.clock()),
            within_seconds=_READ_SECONDS,
        )
        examination = examine_snapshot(runtime, snapshot)
    answer(examination.as_dict(), form, screen(examination))
    if any(snapshot.dependencies.values()):
        _leave_at_once()
    if not examination.fine:
        raise typer.Exit(FINDING)


def _leave_at_once() -> NoReturn:
    """Drivers that wait for an unavailable server delay the end of the process by a second and more."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(FINDING)


@contextmanager
def _waiting() -> Iterator[None]:
    """Show a spinner on stderr, on a terminal only."""
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield
        return
    with console.status("reading the system"):
        yield


def screen(examination: Examination) -> RenderableType:
    """Rows that are fine share one line per section."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, section in SECTIONS.items():
        for number, (state, text) in enumerate(_section(examination.section(name))):
            mark, style = _MARKS[state]
            table.add_row(section.title if not number else "", Text(mark, style), Text(text, overflow="fold"))
    parts: list[RenderableType] = [Text(_headline(examination)), Text(""), table]
    if examination.found:
        parts += [Text(""), *_findings(examination.found)]
    elif any(row.state is RowState.UNREAD for row in examination.rows):
        again = "unread: run this again; for what stays unread, `regworkers runbook time-outs`"
        parts += [Text(""), Text(again, "dim")]
    return Group(*parts)


def _headline(examination: Examination) -> str:
    numbers = {state: sum(row.state is state for row in examination.rows) for state in RowState}
    wrong = [
        f"{numbers[state]} {state}" for state in reversed(RowState) if state.is_finding and numbers[state]
    ]
    well = "nothing wrong in what could be read" if numbers[RowState.UNKNOWN] else "everything is healthy"
    return f"{examination.environment}, {examination.at}: {', '.join(wrong) or well}"


def _section(rows: Sequence[Row]) -> Iterator[tuple[RowState, str]]:
    """Findings line by line, the rest on one line."""
    wrong = [row for row in rows if row.state is not RowState.FINE]
    fine = [row for row in rows if row.state is RowState.FINE]
    lines = list(_together(wrong))
    shown = lines if len(lines) <= _MOST_LINES + 1 else lines[:_MOST_LINES]
    yield from shown
    if len(shown) < len(lines):
        yield lines[-1][0], f"and {len(lines) - len(shown)} more: --format json has all of them"
    if fine or not rows:
        yield RowState.FINE, _summary(fine)


def _together(rows: Iterable[Row]) -> Iterator[tuple[RowState, str]]:
    """Rows with the same text share a line."""
    lines: dict[tuple[RowState, str, str], list[str]] = {}
    for row in rows:
        since = f", since {row.since}" if row.since and row.section != "drains" else ""
        lines.setdefault((row.state, row.text + since, row.help), []).append(row.name)
    for (state, text, help_), names in sorted(lines.items(), key=lambda line: -line[0][0].rank):
        subject = ", ".join(name for name in names if name)
        said = f"{subject}: {text}" if subject else text
        yield state, f"{said} -> {help_}" if help_ else said


def _summary(rows: Sequence[Row]) -> str:
    if not rows:
        return "none"
    section = rows[0].section
    if section == "dependencies":
        return " ".join(row.name for row in rows)
    if section == "leases":
        held = sum(row.facts["owner"] is not None for row in rows)
        return f"{held} held, {len(rows) - held} free"
    if section in ("daemons", "sensors"):
        return f"{len(rows)} healthy"
    if section == "campaigns":
        statuses = [str(row.facts["status"]) for row in rows]
        return ", ".join(f"{statuses.count(each)} {each}" for each in dict.fromkeys(statuses))
    if all(row.text == rows[0].text for row in rows) and len(rows) > 1:
        return f"{len(rows)} {rows[0].text}"
    shown = [row.text if len(rows) == 1 else f"{row.name} {row.text}" for row in rows[:_MOST_NAMES]]
    more = len(rows) - len(shown)
    return "; ".join([*shown, *([f"{more} more"] if more else [])])


def _findings(found: Sequence[Found]) -> Iterator[Text]:
    for each in found[:_MOST_FINDINGS]:
        mark, style = _MARKS[each.state]
        since = f" (since {each.since})" if each.since else ""
        because = f" (caused by {each.because})" if each.because else ""
        # Without an overflow setting, which would cut the text at the width of the terminal.
        yield Text(f"{mark} ", style).append(f"{each.summary}{since}{because}", "default")
        yield Text(f"     {each.help or each.runbook}", "dim")
    more = len(found) - _MOST_FINDINGS
    if more > 0:
        yield Text(f"and {more} more: --format json has all of them")


service_app = typer.Typer(no_args_is_help=True)


@service_app.command("check")
def service_command(
    name: Annotated[ServiceName, typer.Argument(metavar="SERVICE", help="entry, user, code or campaign")],
    id_: Annotated[
        str | None,
        typer.Option("--id", help="<campaignId>:<entryId>, a globalUserId, or a campaignId (code, campaign)"),
    ] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Show a service's health and response time, and whether it has a record.

    Shows no fan's data. Exits 1 if the service is down or does not have the record, 2 if it is not configured or
    refuses the token.
    """
    report = check_service(quick_runtime(), name, id_)
    answer(report.as_dict(), form, finding=not report.fine)
