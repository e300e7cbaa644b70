"""`regworkers report|eligibility`: a campaign in numbers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Group
from rich.text import Text

from regworkers_core.adapters.files import write_private
from regworkers_core.cli.options import CampaignArgument, PageOption, require_writable
from regworkers_core.cli.output import Format, FormatOption, answer, progress, rows
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime

if TYPE_CHECKING:
    from regworkers_core.analytics.funnel import Funnel


funnel_app = typer.Typer(no_args_is_help=True)


@funnel_app.command("funnel")
def funnel_command(
    campaign: CampaignArgument,
    page: PageOption = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Count fans who registered, were eligible, won, were notified.

    By market, segment and day. Works at any time: stages that a campaign has not reached are marked. Writes only the
    page. Exits 1 if the numbers are inconsistent.
    """
    require_writable(page)
    # Late, for they bring DuckDB, pandas and matplotlib.
    from regworkers_core.analytics.funnel import make_funnel

    runtime = Runtime.load()
    found = runtime.campaigns.require(campaign)
    with progress("", "funnel") as show:
        funnel = make_funnel(runtime, found, tell=show.tell)
    if page is not None:
        from regworkers_core.analytics.funnel import shown

        write_private(page, shown(funnel).html)
    answer(
        funnel.as_dict(),
        form,
        None if form is Format.JSON else _funnel_text(funnel),
        finding=not funnel.adds_up,
    )


def _funnel_text(funnel: Funnel) -> Group:
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


eligibility_app = typer.Typer(no_args_is_help=True)


@eligibility_app.command("report")
def eligibility_command(
    campaign: CampaignArgument,
    page: PageOption = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Judge every entry as it is now, with reasons by market and day.

    This is a preview and writes only the page. The draw judges the same way once the campaign is closed.
    """
    require_writable(page)
    # Late, for they bring DuckDB, pyarrow and matplotlib.
    from regworkers_core.eligibility.judging import judge_entries

    runtime = Runtime.load()
    found = runtime.campaigns.require(campaign)
    with (
        tempfile.TemporaryDirectory(prefix="regworkers-eligibility-") as name,
        progress("", "entries") as show,
    ):
        tally = judge_entries(
            runtime,
            found,
            as_of=iso(runtime.clock()),
            folder=Path(name),
            tell=show.tell,
        )
        if page is not None:
            tally.judgement(page.parent, page.name)
    document: dict[str, Any] = {"campaignId": found.campaign_id, **tally.numbers()}
    answer(document, form, _eligibility_text(document, tally.codes))


def _eligibility_text(document: dict[str, Any], codes: list[str]) -> Group:
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
