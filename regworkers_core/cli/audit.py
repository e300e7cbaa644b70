"""`regworkers audit`: who changed what by hand, when, and what came of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from regworkers_core.adapters.mongo.operator_actions import Action
from regworkers_core.cli.output import Format, FormatOption, answer, rows
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime

_AGO = re.compile(r"(\d{1,5})([mhd])")
_UNIT_SECONDS = {"m": 60, "h": 3600, "d": 86_400}


def register(app: typer.Typer) -> None:
    app.command("audit")(audit_command)


def audit_command(
    what: Annotated[
        str, typer.Option(help="commands that begin so: `dlq`, `draw top-up`", show_default=False)
    ] = "",
    since: Annotated[
        str,
        typer.Option(
            help="a day (2026-11-25), a time (2026-11-25T18:00:00Z) or how long ago (90m, 12h, 7d)",
            show_default=False,
        ),
    ] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="the latest so many")] = 50,
    form: FormatOption = Format.TEXT,
) -> None:
    """What operators changed by hand, the latest first: from terminals, and runs that people launched in Dagster.

    An action that is `running` without an end was killed, or is at work.
    """
    runtime = Runtime.load()
    found = runtime.operator_actions.history(
        what=what, since=parse_since(since, runtime.clock()), limit=limit
    )
    columns = ("when", "who", "what", "target", "outcome", "came to")
    lines = [
        (each.started_at[:19].replace("T", " "), each.who, each.what, each.target, each.outcome, _brief(each))
        for each in found
    ]
    asked = (f" with a command that begins with {what!r}" if what else "") + (
        f" since {since}" if since else ""
    )
    empty = f"nothing was changed by hand{asked}"
    answer([_document(each) for each in found], form, rows(columns, lines) if lines else empty)


def parse_since(text: str, now: float) -> str:
    """A time of the contract; "" stays "". Raises UsageError for anything that is none."""
    if not text:
        return ""
    if ago := _AGO.fullmatch(text):
        return iso(now - int(ago[1]) * _UNIT_SECONDS[ago[2]])
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"--since {text!r} should be a day (2026-11-25), a time (2026-11-25T18:00:00Z) or 90m, 12h, 7d"
        ) from None
    return iso((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())


def _document(action: Action) -> dict[str, Any]:
    return {
        "id": action.action_id,
        "who": action.who,
        "what": action.what,
        "target": action.target,
        "startedAt": action.started_at,
        "endedAt": action.ended_at,
        "outcome": action.outcome,
        "arguments": dict(action.arguments),
        "result": dict(action.result),
    }


def _brief(action: Action) -> str | None:
    """The plain values of what it came to; JSON has the rest."""
    plain = {name: value for name, value in action.result.items() if not isinstance(value, dict | list)}
    return ", ".join(f"{name} {value}" for name, value in plain.items()) or None
