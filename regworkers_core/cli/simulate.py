"""`regworkers draw simulate`: odds for weights, reserves and capacities before anything is published."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Group

from regworkers_core.adapters.files.judged_entries import read_judged
from regworkers_core.cli.options import numbers, seats_of_segments
from regworkers_core.cli.output import Format, FormatOption, answer, progress, rows
from regworkers_core.domain.timestamps import iso
from regworkers_core.eligibility.campaign.judging import judge_entries
from regworkers_core.replication.settled import lag_warnings
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw.freezing import POOL, write_pool
from regworkers_core.selection.maths.engine import Engine
from regworkers_core.selection.report.simulate import simulate, simulation_seeds, write_synthetic_pool
from regworkers_core.selection.report.simulation import NOTICE, Scenario, tables


def register(draw: typer.Typer) -> None:
    draw.command("simulate")(simulate_command)


def simulate_command(
    campaign_id: Annotated[str, typer.Argument(metavar="CAMPAIGN", help="id or slug")],
    capacity: Annotated[
        list[str] | None, typer.Option(help="MARKET=N, the seats of a market; may be repeated")
    ] = None,
    reserve: Annotated[
        list[str] | None, typer.Option(help="MARKET:SEGMENT=N, 0 takes a reserve away; may be repeated")
    ] = None,
    weights: Annotated[
        list[str] | None, typer.Option(help="SEGMENT=W, tickets of a segment's members; may be repeated")
    ] = None,
    wins_per_unit: Annotated[int | None, typer.Option(min=1, help="winners of a household at most")] = None,
    waitlist: Annotated[int | None, typer.Option(min=0, help="size of the waiting list")] = None,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="how many draws to try")] = 10,
    entries: Annotated[
        int | None, typer.Option(min=0, help="invent so many entries instead; needs --capacity and no server")
    ] = None,
    seed: Annotated[
        str | None, typer.Option(help="a word that makes the rounds repeatable [default: new ones each time]")
    ] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Try out rules on the entries of a campaign as they are now: odds by market, segment and weight.

    It reads the replica, writes nothing anywhere, and is not the draw: its seeds are thrown away, and it refuses
    the real one. Figures are means over the rounds, with the lowest and highest.
    """
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
    with tempfile.TemporaryDirectory(prefix="regworkers-simulate-") as name, progress("") as bar:
        folder, task = Path(name), bar.add_task("entries", total=None)
        if runtime is not None and campaign is not None:
            judge_entries(
                runtime,
                campaign,
                as_of=iso(runtime.clock()),
                folder=folder,
                tell=lambda text: bar.update(task, description=text),
            )
            markets = frozenset(campaign.market_ids)
            pool: dict[str, Any] = write_pool(read_judged(folder), markets, folder).as_dict()
        else:
            wanted = [market.market_id for market in scenario.markets]
            rng = np.random.default_rng(int(next(seeds), 16))
            write_synthetic_pool(folder, entries or 0, wanted, scenario.segments, rng)
            pool = {"entries": entries, "eligible": entries, "invented": True}
        bar.update(task, description="rounds", completed=0, total=rounds)
        made = simulate(
            folder / POOL,
            scenario,
            rounds=rounds,
            seeds=seeds,
            engine=Engine(scratch=folder / "scratch"),
            on_round=lambda done: bar.update(task, completed=done),
        )
    warnings = [] if runtime is None else lag_warnings(runtime)
    document = {"campaignId": campaign_id, "pool": pool, "warnings": warnings, **made.as_dict()}
    answer(document, form, _text(document))


def _text(document: Mapping[str, Any]) -> Group:
    return Group(
        f"{document['campaignId']}: {NOTICE}",
        *(f"warning: {text}" for text in document["warnings"]),
        f"{document['entries']:,} entries take part, {document['rounds']} rounds;"
        f" a chance is the mean of the rounds (lowest – highest)",
        *(rows(table.columns, table.rows, title=table.title) for table in tables(document)),
    )
