"""`regworkers report ...`: campaigns in numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from regworkers_core.adapters.files.private_files import write_private
from regworkers_core.cli.options import require_writable
from regworkers_core.cli.output import FINDING, Format, FormatOption, answer, progress, rows
from regworkers_core.runtime import Runtime

if TYPE_CHECKING:
    from regworkers_core.analytics.funnel.funnel_report import Funnel


def register(app: typer.Typer) -> None:
    report = typer.Typer(help="A campaign in numbers.", no_args_is_help=True)
    report.command("funnel")(funnel_command)
    # A group of one command would take its name away.
    report.callback()(lambda: None)
    app.add_typer(report, name="report")


def funnel_command(
    campaign: Annotated[str, typer.Argument(metavar="CAMPAIGN", help="id or slug")],
    page: Annotated[
        Path | None, typer.Option(help="write the report with its plots to this HTML file")
    ] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Registered, replicated, eligible, won, coded, notified: per market, segment and day. Writes nothing but the page.

    Works at any time; what a campaign has not come to yet is told as such. Exit code 1 when numbers do not fit.
    """
    require_writable(page)
    # Late, for they bring DuckDB, pandas and matplotlib.
    from regworkers_core.analytics.funnel.funnel_report import make_funnel

    runtime = Runtime.load()
    found = runtime.campaigns.require(campaign)
    with progress("") as bar:
        task = bar.add_task("funnel", total=None)
        funnel = make_funnel(runtime, found, tell=lambda text: bar.update(task, description=text))
    if page is not None:
        from regworkers_core.analytics.funnel.funnel_page import shown

        write_private(page, shown(funnel).html)
    answer(funnel.as_dict(), form, None if form is Format.JSON else _text(funnel))
    if not funnel.adds_up:
        raise typer.Exit(FINDING)


def _text(funnel: Funnel) -> Group:
    document = funnel.as_dict()
    stages: dict[str, int | None] = document["stages"]
    title = f"{document['campaignId']} ({document['status']}) as of {document['at']}"
    lines = [
        (name, "not yet" if number is None else f"{number:,}", document["pending"].get(name, ""))
        for name, number in stages.items()
    ]
    parts: list[Any] = [rows(("stage", "entries", ""), lines, title=title)]
    for what in ("markets", "segments", "days"):
        name = what[:-1]
        counted = [
            (each[name], *("not yet" if each[stage] is None else f"{each[stage]:,}" for stage in stages))
            for each in document[what]
        ]
        parts.append(rows((name, *stages), counted, title=f"by {name}"))
    parts += [Text(f"{each['level']}: {each['text']}") for each in document["remarks"]]
    return Group(*parts)
