"""`regworkers runbook ...`: one command for each kind of failure. Changes something only with `--apply`."""

from __future__ import annotations

import typer
from rich.console import Group
from rich.text import Text

from regworkers_core.cli.output import Format, FormatOption, answer, rows
from regworkers_core.operations.runbook import CATALOG

HELP = """Without a name this lists the runbooks. Each says in numbers what is wrong and what helps, and has a page in
docs/runbooks/. Exits 1 if something is wrong.
"""
app = typer.Typer(help=HELP, invoke_without_command=True)


@app.callback()
def list_command(context: typer.Context, form: FormatOption = Format.TEXT) -> None:
    if context.invoked_subcommand is not None:
        return
    lines = [(each.name, each.symptom, each.changes or None) for each in CATALOG]
    table = rows(("runbook", "you see", "changes with --apply"), lines)
    others = [each for each in CATALOG if each.command != f"regworkers runbook {each.name}"]
    below = [
        "begin with `regworkers runbook RUNBOOK`",
        *(f"{each.name}: `{each.command}`" for each in others),
    ]
    answer([each.as_dict() for each in CATALOG], form, Group(table, *map(Text, below)))
