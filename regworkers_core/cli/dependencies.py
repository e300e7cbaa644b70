"""`regworkers dependencies`: which locked packages are outdated or known to be vulnerable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from regworkers_core.cli.output import FINDING, Format, FormatOption, answer, rows
from regworkers_core.operations.dependencies import DependencyReport, read_dependencies
from regworkers_core.settings import PROJECT_ROOT


def register(app: typer.Typer) -> None:
    app.command("dependencies")(dependencies_command)


def dependencies_command(
    lock: Annotated[Path, typer.Option(help="the lock", show_default="requirements.lock")] = PROJECT_ROOT
    / "requirements.lock",
    form: FormatOption = Format.TEXT,
) -> None:
    """Compare the lock with the package index and with known vulnerabilities. Exit code 1 with a vulnerability.

    Who cannot be asked, offline say, is a note: unknown is neither fine nor a finding.
    """
    report = read_dependencies(lock)
    answer(report.as_dict(), form, _told(report))
    if report.vulnerable:
        raise typer.Exit(FINDING)


def _told(report: DependencyReport) -> RenderableType:
    parts: list[RenderableType] = [Text(f"{report.packages} packages are locked")]
    if report.vulnerable:
        lines = [
            (each.name, each.locked, each.id, ", ".join(each.fixed_in) or None) for each in report.vulnerable
        ]
        parts.append(rows(("vulnerable", "locked", "advisory", "mended in"), lines, whole=("advisory",)))
    elif report.vulnerable is not None:
        parts.append(Text("no known vulnerability in those that were judged"))
    if report.outdated:
        late = [(each.name, each.locked, each.latest) for each in report.outdated]
        parts.append(rows(("outdated", "locked", "latest"), late))
        parts.append(Text("`make lock` brings those that the pins in pyproject.toml allow"))
    elif report.outdated is not None:
        parts.append(Text("nothing is outdated"))
    parts += [Text(f"unknown: {note}") for note in report.notes]
    return Group(*parts)
