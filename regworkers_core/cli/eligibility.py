"""`regworkers eligibility ...`: look at a whole campaign before anything is decided. One fan at a time is
`regworkers invoke checkEligibility`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group

from regworkers_core.cli.options import require_writable
from regworkers_core.cli.output import Format, FormatOption, answer, progress, rows
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime


def register(app: typer.Typer) -> None:
    eligibility = typer.Typer(help="Who may take part in a campaign, and why not.", no_args_is_help=True)
    eligibility.command("report")(report_command)
    # A group of one command would take its name away.
    eligibility.callback()(lambda: None)
    app.add_typer(eligibility, name="eligibility")


def report_command(
    campaign: Annotated[str, typer.Argument(metavar="CAMPAIGN", help="id or slug")],
    page: Annotated[
        Path | None, typer.Option(help="write the report with its plots to this HTML file")
    ] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Judge every entry as it is now: reasons per market and day. A preview: it decides nothing and writes nothing.

    The draw judges in the same way once the campaign is closed, and takes its pool from that judgement.
    """
    require_writable(page)
    # Late, for they bring DuckDB, pyarrow and matplotlib.
    from regworkers_core.eligibility.campaign.judging import judge_entries

    runtime = Runtime.load()
    found = runtime.campaigns.require(campaign)
    with tempfile.TemporaryDirectory(prefix="regworkers-eligibility-") as name, progress("") as bar:
        task = bar.add_task("entries", total=None)
        tally = judge_entries(
            runtime,
            found,
            as_of=iso(runtime.clock()),
            folder=Path(name),
            tell=lambda text: bar.update(task, description=text),
        )
        if page is not None:
            tally.judgement(page.parent, page.name)
    document: dict[str, Any] = {"campaignId": found.campaign_id, **tally.numbers()}
    answer(document, form, _text(document, tally.codes))


def _text(document: dict[str, Any], codes: list[str]) -> Group:
    failed, primary = document["failedRules"], document["primaryReasons"]
    parts: list[Any] = [
        f"{document['campaignId']} as of {document['asOf']}, rules {document['ruleSet']}: "
        f"{document['entries']:,} entries, {document['eligible']:,} eligible, {document['ineligible']:,} not"
    ]
    parts += document["notes"]
    if failed:
        parts.append(
            rows(
                ("reason", "as the first one", "at all"),
                [(code, f"{primary.get(code, 0):,}", f"{count:,}") for code, count in failed.items()],
            )
        )
    for what in ("markets", "days"):
        counted = [
            (name, *(f"{each.get(code, 0):,}" for code in codes)) for name, each in document[what].items()
        ]
        parts.append(rows((what[:-1], *codes), counted, title=f"by {what[:-1]} and first reason"))
    return Group(*parts)
