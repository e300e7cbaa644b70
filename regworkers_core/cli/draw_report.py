"""`regworkers draw report|simulate`, and the tables of a draw: its steps, its report, a simulation."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from regworkers_core.adapters.aws.objects import MissingObject
from regworkers_core.adapters.files import require_writable
from regworkers_core.adapters.mongo.draws import DrawRecord
from regworkers_core.cli.options import (
    CampaignArgument,
    PageOption,
    numbers,
    seats_of_segments,
)
from regworkers_core.cli.output import Format, FormatOption, answer, progress, rows
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.selection import market_in_words, report_key
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime
from regworkers_core.selection.codes.stock import MarketStock, read_stock

Facts = Mapping[str, Any]


def steps_table(campaign_id: str, done: Mapping[str, Facts]) -> Table:
    """`done` has each step's facts and its `state`, by the step's name."""
    lines = [(name, facts["state"], _brief(name, facts)) for name, facts in done.items()]
    return rows(("step", "", "result"), lines, title=f"draw of {campaign_id}")


def _brief(name: str, facts: Facts) -> str | None:
    parts: list[str] = []
    match name:
        case "judge" if "entries" in facts:
            parts = [f"{facts['entries']:,} entries"]
            parts += [f"{facts['eligible']:,} eligible"] if "eligible" in facts else []
        case "freeze":
            parts = [f"{facts['count']:,} take part", f"root {facts['root']}"]
        case "commit":
            parts = [f"manifestHash {facts['manifestHash']}"]
        case "seed":
            source = facts["seedSource"]
            parts = [str(source["kind"])] + ([f"round {source['round']}"] if "round" in source else [])
        case "rank":
            parts = [f"{facts['count']:,} in order"]
        case "allocate":
            parts = [f"{count:,} {outcome}" for outcome, count in facts["outcomes"].items() if count]
            parts.append(f"resultHash {facts['resultHash']}")
        case "report":
            parts = [str(facts["page"])]
        case "publish":
            parts = [f"waits for {facts['confirm']}"] if "confirm" in facts else _markets(facts)
            parts += [f"the gate found {each['name']}" for each in facts.get("findings", ())]
    return ", ".join(parts) or None


def _markets(facts: Facts) -> list[str]:
    return [str(facts["status"])] + [
        f"{market_in_words(market_id)} {numbers.get('status')}"
        for market_id, numbers in facts.get("markets", {}).items()
    ]


def publish_hash_text(facts: Facts) -> str:
    """What to do with a commitment, for the operator of the draw."""
    from regworkers_core.selection.draw.commitment import in_words

    until = f"before {facts['dueAt']}, when the round of the beacon is signed" if facts["dueAt"] else "now"
    return (
        f"{in_words(facts['phase'], facts)}\n"
        f"Publish this hash {until}, where it cannot be withdrawn: a public post, a mail to the press, a notary. Anyone"
        " who compares it later knows that the input did not change once the seed was known."
    )


Numbers = Mapping[str, Any]


app = typer.Typer()


@app.command("report")
def report_command(
    campaign_id: CampaignArgument,
    phase: Annotated[int | None, typer.Option(min=1, help="[default: the latest that has a report]")] = None,
    page: PageOption = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Show the report of a draw; with --page write it with its plots."""
    from regworkers_core.selection.report.inputs import NUMBERS, PAGE

    require_writable(page)
    runtime = Runtime.load()
    campaign_id = runtime.campaigns.id_of(campaign_id)
    number = _reported_phase(campaign_id, runtime.draws.get(campaign_id), phase)
    numbers: Numbers = orjson.loads(runtime.objects.get_bytes(report_key(campaign_id, number, NUMBERS)))
    if page is not None:
        runtime.objects.get_file(report_key(campaign_id, number, PAGE), page)
    answer(numbers, form, None if form is Format.JSON else outline(numbers, _stocks(runtime, campaign_id)))


def read_outline(runtime: Runtime, campaign_id: str, phase: int) -> RenderableType:
    """The outline of a phase's report, or a line with the error: no decision depends on the report."""
    from regworkers_core.selection.report.inputs import NUMBERS

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
    """The funnel, a line for each market, and the notes of the report."""
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
            f"{stock.available:,}",
            f"{stock.missing:,}",
        )
        for each in numbers["markets"]
        for stock in [stocks.get(each["marketId"]) or MarketStock(each["marketId"], None)]
    ]
    title = f"{numbers['campaignId']}, phase {numbers['phase']}"
    return Group(
        rows(("", "entries"), [(name, f"{count:,}") for name, count in counted], title=title),
        rows(("market", "seats", "winners", "new", "codes free", "missing"), markets),
        *(Text(f"{note['level']}: {note['text']}") for note in numbers["notes"]),
    )


def _reported_phase(campaign_id: str, record: DrawRecord | None, wanted: int | None) -> int:
    made = [number for number, each in record.phases.items() if "report" in each.fields] if record else []
    if not made:
        raise UsageError(f"{campaign_id} has no report yet: `regworkers draw run {campaign_id}` makes it")
    if wanted is not None and wanted not in made:
        raise UsageError(
            f"{campaign_id} has no report of phase {wanted}: there are {', '.join(map(str, made))}"
        )
    return max(made) if wanted is None else wanted


@app.command("simulate")
def simulate_command(
    campaign_id: CampaignArgument,
    capacity: Annotated[
        list[str] | None, typer.Option(help="MARKET=N, the seats of a market; repeatable")
    ] = None,
    reserve: Annotated[
        list[str] | None, typer.Option(help="MARKET:SEGMENT=N, 0 removes a reserve; repeatable")
    ] = None,
    weights: Annotated[
        list[str] | None, typer.Option(help="SEGMENT=W, tickets of a segment's members; repeatable")
    ] = None,
    wins_per_unit: Annotated[int | None, typer.Option(min=1, help="winners of a household at most")] = None,
    waitlist: Annotated[int | None, typer.Option(min=0, help="size of the waiting list")] = None,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="how many draws to try")] = 10,
    entries: Annotated[
        int | None, typer.Option(min=0, help="invent this many entries; needs --capacity, but no server")
    ] = None,
    seed: Annotated[
        str | None,
        typer.Option(help="a word that makes the rounds repeatable [default: new seeds each time]"),
    ] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Simulate draws: odds by market, segment and weight.

    Uses the entries of the campaign as they are now. Reads the replica and writes nothing. It is not the draw: its
    seeds are discarded, and it refuses the real seed. Figures are means over the rounds, with the lowest and highest.
    """
    from fairdraw.large.engine import Engine
    from regworkers_core.adapters.judged_entries import POOL, read_judged
    from regworkers_core.eligibility.judging import judge_entries
    from regworkers_core.replication.settled import lag_warnings
    from regworkers_core.selection.draw.freezing import write_pool
    from regworkers_core.selection.report.simulate import simulate, simulation_seeds, write_synthetic_pool
    from regworkers_core.selection.report.simulation import Scenario

    capacities, seats = numbers("--capacity", capacity or ()), seats_of_segments("--reserve", reserve or ())
    seeds = simulation_seeds(seed, lambda: secrets.token_hex(32))
    runtime = campaign = None
    if entries is None:
        runtime = Runtime.load()
        campaign = runtime.campaigns.require(
            campaign_id, "; to invent one, give --entries N with --capacity MARKET=N"
        )
    scenario = (Scenario.of(campaign) if campaign else Scenario.of_capacities(capacities)).changed(
        capacities=capacities,
        reserves=seats,
        weights=numbers("--weights", weights or ()),
        wins_per_unit=wins_per_unit,
        waitlist_size=waitlist,
    )
    with tempfile.TemporaryDirectory(prefix="regworkers-simulate-") as name, progress("", "entries") as show:
        folder = Path(name)
        if runtime is not None and campaign is not None:
            judge_entries(
                runtime,
                campaign,
                as_of=iso(runtime.clock()),
                folder=folder,
                tell=show.tell,
            )
            markets = frozenset(campaign.market_ids)
            pool: dict[str, Any] = write_pool(read_judged(folder), markets, folder).as_dict()
        else:
            wanted = [market.market_id for market in scenario.markets]
            import numpy as np

            rng = np.random.default_rng(int(next(seeds), 16))
            write_synthetic_pool(folder, entries or 0, wanted, scenario.segments, rng)
            pool = {"entries": entries, "eligible": entries, "invented": True}
        show(description="rounds", completed=0, total=rounds)
        made = simulate(
            folder / POOL,
            scenario,
            rounds=rounds,
            seeds=seeds,
            engine=Engine(scratch=folder / "scratch"),
            on_round=lambda done: show(completed=done),
        )
    warnings = [] if runtime is None else lag_warnings(runtime)
    document = {"campaignId": campaign_id, "pool": pool, "warnings": warnings, **made.as_dict()}
    answer(document, form, _simulation_text(document))


def _simulation_text(document: Mapping[str, Any]) -> Group:
    from regworkers_core.selection.report.simulation import NOTICE, tables

    return Group(
        f"{document['campaignId']}: {NOTICE}",
        *(f"warning: {text}" for text in document["warnings"]),
        f"{document['entries']:,} entries take part, {document['rounds']} rounds;"
        f" a chance is the mean of the rounds (lowest – highest)",
        *(rows(table.columns, table.rows, title=table.title) for table in tables(document)),
    )
