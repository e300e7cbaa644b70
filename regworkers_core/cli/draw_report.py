"""`regworkers draw report`: what to look at before a publication is confirmed, and at any time after it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Group, RenderableType
from rich.text import Text

from regworkers_core.adapters.aws.objects import MissingObject
from regworkers_core.adapters.mongo.draws import DrawRecord
from regworkers_core.cli.options import campaign_id_of, require_writable
from regworkers_core.cli.output import Format, FormatOption, answer, rows
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.runtime import Runtime
from regworkers_core.selection.codes.stock import MarketStock, read_stock
from regworkers_core.selection.draw.allocation import NUMBERS, PAGE
from regworkers_core.selection.draw.artefacts import report_key

Numbers = Mapping[str, Any]


def register(draw: typer.Typer) -> None:
    draw.command("report")(report_command)


def report_command(
    campaign_id: Annotated[str, typer.Argument(metavar="CAMPAIGN", help="id or slug")],
    phase: Annotated[int | None, typer.Option(min=1, help="[default: the latest that has a report]")] = None,
    page: Annotated[
        Path | None, typer.Option(help="write the report with its plots to this HTML file")
    ] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """The report of a draw as it was made: funnel, seats and winners, findings; with --page all of it, with plots."""
    require_writable(page)
    runtime = Runtime.load()
    campaign_id = campaign_id_of(runtime, campaign_id)
    number = _phase(campaign_id, runtime.draws.get(campaign_id), phase)
    numbers: Numbers = orjson.loads(runtime.objects.get_bytes(report_key(campaign_id, number, NUMBERS)))
    if page is not None:
        runtime.objects.get_file(report_key(campaign_id, number, PAGE), page)
    answer(numbers, form, None if form is Format.JSON else outline(numbers, _stocks(runtime, campaign_id)))


def read_outline(runtime: Runtime, campaign_id: str, phase: int) -> RenderableType:
    """The outline of a phase's report, or a line when it cannot be read: nothing that was decided depends on it."""
    key = report_key(campaign_id, phase, NUMBERS)
    try:
        return outline(orjson.loads(runtime.objects.get_bytes(key)), _stocks(runtime, campaign_id))
    except (MissingObject, TransientFailure) as failure:
        return Text(f"the report's numbers cannot be shown: {failure}")


def _stocks(runtime: Runtime, campaign_id: str) -> Mapping[str, MarketStock]:
    """The codes of every market, as `codes status` counts them."""
    stocks = read_stock(runtime, runtime.campaigns.require(campaign_id), runtime.draws.get(campaign_id))
    return {stock.market_id: stock for stock in stocks}


def outline(numbers: Numbers, stocks: Mapping[str, MarketStock]) -> RenderableType:
    """The funnel, a line for each market, and what the report says in words."""
    funnel = numbers["funnel"]
    counted = [("registered", funnel["registered"])]
    counted += [(f"– {reason}", count) for reason, count in funnel["reasons"].items()]
    counted += [("eligible", funnel["eligible"]), ("candidates (with a rank)", funnel["candidates"])]
    counted += [(f"  {outcome}", count) for outcome, count in funnel["outcomes"].items() if count]
    markets = [
        (
            each["marketId"],
            f"{each['seats']:,}",
            f"{each['winners']:,}",
            f"{each['new']:,}",
            *_codes(stocks.get(each["marketId"])),
        )
        for each in numbers["markets"]
    ]
    title = f"{numbers['campaignId']}, phase {numbers['phase']}"
    return Group(
        rows(("", "entries"), [(name, f"{count:,}") for name, count in counted], title=title),
        rows(("market", "seats", "winners", "new", "codes free", "missing"), markets),
        *(Text(f"{note['level']}: {note['text']}") for note in numbers["notes"]),
    )


def _codes(stock: MarketStock | None) -> tuple[str, str]:
    return ("0", "0") if stock is None else (f"{stock.available:,}", f"{stock.missing:,}")


def _phase(campaign_id: str, record: DrawRecord | None, wanted: int | None) -> int:
    made = [number for number, each in record.phases.items() if "report" in each.fields] if record else []
    if not made:
        raise UsageError(f"{campaign_id} has no report yet: `regworkers draw run {campaign_id}` makes it")
    if wanted is not None and wanted not in made:
        raise UsageError(
            f"{campaign_id} has no report of phase {wanted}: there are {', '.join(map(str, made))}"
        )
    return max(made) if wanted is None else wanted
