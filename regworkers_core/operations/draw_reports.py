"""Show the report of a draw, and simulate draws before there is one."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import Field

from fairdraw.maths.leaves import unit_of
from regworkers_core.adapters.mongo.draws import DrawRecord
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.reasons import RequestError, UsageError
from regworkers_core.domain.selection import report_key
from regworkers_core.domain.timestamps import iso
from regworkers_core.operation import (
    AtTerminal,
    Call,
    OfCampaign,
    Remark,
    Report,
    Seats,
    SegmentSeats,
    Table,
    operation,
)
from regworkers_core.runtime import Runtime

if TYPE_CHECKING:
    from regworkers_core.selection.report.simulation import Scenario


class ReportOf(OfCampaign):
    phase: int | None = Field(None, ge=1, description="Empty: the latest phase that has a report.")


@operation("draw report", duty="selection", role="manager", files="the page with its plots")
def report(call: Call, given: ReportOf) -> Report:
    """Show the report of a draw: funnel, markets, codes and notes."""
    # Late, for it brings DuckDB.
    from regworkers_core.selection.report.inputs import PAGE

    campaign_id = call.campaign_id(given.campaign_id)
    number = _reported_phase(campaign_id, call.runtime.draws.get(campaign_id), given.phase)
    page = call.runtime.objects.get_bytes(report_key(campaign_id, number, PAGE))
    return replace(outline(call.runtime, campaign_id, number), files={PAGE: page})


def outline(runtime: Runtime, campaign_id: str, phase: int) -> Report:
    """The funnel of a phase's report, a line for each market, and its notes. Raises MissingObject, TransientFailure."""
    from regworkers_core.selection.codes.stock import read_stock
    from regworkers_core.selection.report.inputs import NUMBERS
    from regworkers_core.selection.report.notes import stages

    numbers = orjson.loads(runtime.objects.get_bytes(report_key(campaign_id, phase, NUMBERS)))
    stocks = {
        stock.market_id: stock
        for stock in read_stock(
            runtime, runtime.campaigns.require(campaign_id), runtime.draws.get(campaign_id)
        )
    }
    markets = [
        (
            each["marketId"],
            f"{each['seats']:,}",
            f"{each['winners']:,}",
            f"{each['new']:,}",
            f"{stock.available:,}" if (stock := stocks.get(each["marketId"])) else "0",
            f"{stock.missing:,}" if stock else "0",
        )
        for each in numbers["markets"]
    ]
    title = f"{numbers['campaignId']}, phase {numbers['phase']}"
    return Report(
        document=numbers,
        facts={},
        tables=[
            Table(
                title,
                ("", "entries"),
                [(stage.text, f"{stage.entries:,}") for stage in stages(numbers["funnel"])],
            ),
            Table("markets", ("market", "seats", "winners", "new", "codes free", "missing"), markets),
        ],
        remarks=[Remark(**note) for note in numbers["notes"]],
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


class SimulateDraw(OfCampaign):
    """A rule that is empty is as the campaign has it."""

    capacities: Seats = Field({}, description="Per market its seats.")
    reserves: SegmentSeats = Field({}, description="Per market the seats reserved for a segment, 0 for none.")
    weights: dict[str, int] = Field(
        {}, description="Per segment the tickets of each member, 1 to 64.", examples=[{"loyal": 2}]
    )
    wins_per_unit: int | None = Field(None, ge=1, description="How many entries of one household may win.")
    waitlist_size: int | None = Field(None, ge=0, description="The size of the waiting list.")
    rounds: int = Field(10, ge=1, le=1000, description="How many draws to simulate, 1 to 1000.")
    entries: AtTerminal[int | None] = Field(
        None, ge=0, description="Invent this many entries; needs capacities, but no server."
    )
    seed: AtTerminal[str] = Field(
        "", description="A word that makes the rounds repeatable. Empty: new seeds each time."
    )


@operation("draw simulate", "simulate_draw", duty="selection", size="large", role="manager", long=True)
def simulate(call: Call, given: SimulateDraw) -> Report:
    """Simulate draws: odds by market, segment and weight.

    Uses the entries of the campaign as they are now. Reads the replica and writes nothing. It is not the draw: its
    seeds are discarded, and it refuses the real seed. Figures are means over the rounds, with the lowest and highest.
    """
    # Late, for they bring DuckDB, pyarrow and numpy.
    from fairdraw.large.engine import Engine
    from regworkers_core.adapters.judged_entries import POOL
    from regworkers_core.replication.settled import lag_warnings
    from regworkers_core.selection.report.simulate import simulate as tried
    from regworkers_core.selection.report.simulate import simulation_seeds
    from regworkers_core.selection.report.simulation import Scenario, tables

    seeds = simulation_seeds(given.seed or None, lambda: secrets.token_hex(32))
    campaign = None
    if given.entries is None:
        campaign = call.runtime.campaigns.require(
            given.campaign_id, "; to invent one, give --entries N with --capacity MARKET=N"
        )
        call.face.found(campaign.campaign_id)
    scenario = (Scenario.of(campaign) if campaign else Scenario.of_capacities(given.capacities)).changed(
        capacities=given.capacities,
        reserves=given.reserves,
        weights=given.weights,
        wins_per_unit=given.wins_per_unit,
        waitlist_size=given.waitlist_size,
    )
    folder = call.face.folder()
    if campaign:
        pool = _judged_pool(call, campaign, folder)
    else:
        pool = _invented_pool(scenario, given.entries or 0, folder, int(next(seeds), 16))

    def on_round(done: int) -> None:
        call.face.progress(done, given.rounds, "rounds")
        if call.stop.is_set:
            raise RequestError(f"stopped after {done} of {given.rounds} rounds: their results are discarded")

    made = tried(
        folder / POOL,
        scenario,
        rounds=given.rounds,
        seeds=seeds,
        engine=Engine(scratch=folder / "scratch"),
        on_round=on_round,
    ).as_dict()
    warnings = lag_warnings(call.runtime) if campaign else []
    return Report(
        document={"campaignId": given.campaign_id, "pool": pool, "warnings": warnings, **made},
        facts={
            "notice": made["notice"],
            "entries": made["entries"],
            "rounds": made["rounds"],
            "excluded": pool.get("excluded"),
        },
        tables=tables(made),
        said=[
            *(f"warning: {each}" for each in warnings),
            "a chance is the mean of the rounds (lowest – highest)",
        ],
    )


def _judged_pool(call: Call, campaign: Campaign, folder: Path) -> Mapping[str, Any]:
    """Write the entries as they are now, judged, into `folder`."""
    from regworkers_core.adapters.judged_entries import read_judged
    from regworkers_core.eligibility.judging import judge_entries
    from regworkers_core.selection.draw.freezing import write_pool

    as_of = iso(call.runtime.clock())
    judge_entries(call.runtime, campaign, as_of=as_of, folder=folder, tell=call.face.tell)
    # Nothing of a simulation is published, so it needs no key of the campaign.
    published_unit = partial(unit_of, secrets.token_bytes(), campaign.campaign_id)
    return write_pool(read_judged(folder), frozenset(campaign.market_ids), folder, published_unit).as_dict()


def _invented_pool(scenario: Scenario, entries: int, folder: Path, seed: int) -> Mapping[str, Any]:
    import numpy as np

    from regworkers_core.selection.report.simulate import write_synthetic_pool

    markets = [market.market_id for market in scenario.markets]
    write_synthetic_pool(folder, entries, markets, scenario.segments, np.random.default_rng(seed))
    return {"entries": entries, "eligible": entries, "invented": True}
