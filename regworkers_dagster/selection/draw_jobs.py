"""The jobs around a draw: simulation, top-up, receipt, page, export."""

import secrets
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from fairdraw.maths.files import canonical_bytes
from fairdraw.proof.check import FAILS, check_receipt
from fairdraw.verifier.assemble import verifier_page
from regworkers_core.domain.campaign import Reserve
from regworkers_core.domain.reasons import RequestError
from regworkers_core.domain.selection import confirmation_word, require_word
from regworkers_core.domain.timestamps import iso
from regworkers_core.selection.draw.terms import TopUp, parse_strikes
from regworkers_dagster.by_hand import (
    REASON,
    CampaignConfig,
    Launch,
    LaunchOutcome,
    launchable,
    require,
)
from regworkers_dagster.factories import ApplyConfig
from regworkers_dagster.launching import UPLOAD
from regworkers_dagster.metadata import table
from regworkers_dagster.resources import CHANGES_CAMPAIGNS
from regworkers_dagster.selection import specs
from regworkers_dagster.selection.assets import (
    awaited,
    draw_run,
    metadata_of,
    record_awaited,
    warn_of_blocked,
)

_STRIKES = "a line `ref|REASON` for each entry, REASON of A-Z and _: `r-7f3c|BOT`. " + UPLOAD
_MOST_ROUNDS = 1000
_CONFIRM = "`<campaignId>:<phase>`, for example spring-tour:1, typed by the person who read the report."


class SimulateConfig(CampaignConfig):
    """The rules to try. A field that is empty is as the campaign has it."""

    capacities: dict[str, int] = Field(default={}, description="Per market its seats: {berlin: 600}.")
    reserves: dict[str, dict[str, int]] = Field(
        default={},
        description="Per market the seats reserved for a segment, 0 for none: {berlin: {loyal: 50}}.",
    )
    weights: dict[str, int] = Field(
        default={}, description="Per segment the tickets of each member, 1 to 64: {loyal: 3}."
    )
    wins_per_unit: int | None = Field(default=None, description="How many entries of one household may win.")
    waitlist_size: int | None = Field(default=None, description="The size of the waiting list.")
    rounds: int = Field(default=10, description="How many draws to simulate, 1 to 1000.")


class TopUpConfig(CampaignConfig):
    """The terms of a further phase. A field that is empty keeps its value."""

    capacities: dict[str, int] = Field(
        default={},
        description="Per market its new total of seats, with those already taken: {berlin: 600}.",
    )
    reserves: dict[str, dict[str, int]] = Field(
        default={},
        description="Per market the new seats reserved for a segment, in precedence order: "
        "{berlin: {loyal: 20}}.",
    )
    waitlist_size: int | None = Field(
        default=None, description="The new size of the waiting list. Empty: as in the phase before."
    )
    strikes: str = Field(default="", description=f"An upload of entries that lose their place: {_STRIKES}")
    reason: str = Field(default="", description=REASON + "It is published with the phase.")
    confirm: str = Field(
        default="",
        description=f"Empty: draw and report only; read the report, then launch `confirm_draw`. Otherwise {_CONFIRM}",
    )


class ReceiptConfig(CampaignConfig):
    entry: str = Field(
        default="",
        description="The ref in the fan's confirmation, or the id of the entry. No mail address, no name.",
    )


class PageConfig(ApplyConfig, CampaignConfig):
    """Whose page."""


@launchable(
    "simulate_draw",
    reads=True,
    long=True,
    description="Simulates rules on the entries of a campaign as they are now, before anything is published: the "
    "chances by market, segment and weight, each the mean of the rounds (lowest – highest). It is not the draw: its "
    "seeds are discarded, and it writes nothing.",
)
def simulate_draw(launch: Launch, config: SimulateConfig) -> LaunchOutcome:
    """Judges every entry as it is now."""
    from fairdraw.large.engine import Engine
    from regworkers_core.adapters.judged_entries import POOL, read_judged
    from regworkers_core.eligibility.judging import judge_entries
    from regworkers_core.replication.settled import lag_warnings
    from regworkers_core.selection.draw.freezing import write_pool
    from regworkers_core.selection.report.simulate import simulate, simulation_seeds
    from regworkers_core.selection.report.simulation import Scenario, tables

    runtime, campaign = launch.runtime, launch.campaign(config.campaign_id)
    if not 1 <= config.rounds <= _MOST_ROUNDS:
        raise RequestError(f"rounds should be 1 to {_MOST_ROUNDS}, found {config.rounds}")
    scenario = Scenario.of(campaign).changed(
        capacities=config.capacities,
        reserves=config.reserves,
        weights=config.weights,
        wins_per_unit=config.wins_per_unit,
        waitlist_size=config.waitlist_size,
    )
    show = launch.progress()

    def on_round(done: int) -> None:
        show(f"{done} of {config.rounds} rounds")
        if launch.stop.is_set:
            raise RequestError(f"stopped after {done} of {config.rounds} rounds: their results are discarded")

    with tempfile.TemporaryDirectory(prefix="regworkers-simulate-") as made:
        folder, now = Path(made), iso(runtime.clock())
        judge_entries(runtime, campaign, as_of=now, folder=folder, tell=show)
        pool = write_pool(read_judged(folder), frozenset(campaign.market_ids), folder)
        seeds = simulation_seeds(None, lambda: secrets.token_hex(32))
        engine = Engine(scratch=folder / "scratch")
        found = simulate(
            folder / POOL, scenario, rounds=config.rounds, seeds=seeds, engine=engine, on_round=on_round
        ).as_dict()
    warnings = lag_warnings(runtime)
    for warning in warnings:
        launch.context.log.warning(warning)
    facts = {
        "notice": found["notice"],
        "entries": found["entries"],
        "excluded": dict(pool.excluded),
        "behind": "; ".join(warnings) or None,
        **{each.title.replace(" ", "_"): table(each.columns, each.rows) for each in tables(found)},
    }
    return LaunchOutcome(campaign.campaign_id, facts)


@launchable(
    "top_up",
    uses=CHANGES_CAMPAIGNS,
    long=True,
    resumed=True,
    description="More seats, or other winners in place of struck ones, for a campaign that was drawn: a further "
    "phase in the same order, in which every winner keeps their place. A winner of an earlier phase is not "
    "upgraded, so truthful preferences are the best ones within a phase only. Terms and reason are published with "
    "the phase; codes and messages wait for the confirmation.",
)
def top_up(launch: Launch, config: TopUpConfig) -> LaunchOutcome:
    """A repeat with the same terms resumes where the run before it stopped."""
    from regworkers_core.selection.draw.top_up import next_phase, open_phase

    runtime, campaign_id = launch.runtime, launch.campaign_id(config.campaign_id)
    request = TopUp(
        capacities=config.capacities,
        reserves={
            market: tuple(Reserve(segment, seats) for segment, seats in reserves.items())
            for market, reserves in config.reserves.items()
        },
        strikes=_strikes(launch, config.strikes) if config.strikes.strip() else (),
        reason=require("reason", config.reason),
        waitlist_size=config.waitlist_size,
        keep_waitlist=config.waitlist_size is None,
    )
    if config.confirm:
        record = runtime.draws.get(campaign_id)
        require_word(config.confirm, confirmation_word(campaign_id, next_phase(record)))
    phase = open_phase(runtime, campaign_id, request, run_id=launch.run_id)
    launch.tell(f"phase {phase} of {campaign_id}")
    launch.result["phase"] = phase
    run = draw_run(runtime, campaign_id, launch.run_id, launch.tell, launch.stop, phase=phase)
    facts: dict[str, Any] = {"phase": phase}
    events: list[dg.AssetMaterialization] = []
    for step in run.steps(config.confirm or None):
        spec = specs.ASSET_OF[step.name]
        launch.result[step.name] = facts[step.name] = step.state.value
        if record_awaited(launch.context, spec, campaign_id, step):
            facts["next"] = awaited(campaign_id, step)
            continue
        launch.tell(f"{step.name} of {campaign_id}: {step.state}")
        warn_of_blocked(launch.context, campaign_id, step)
        events.append(dg.AssetMaterialization(spec.key, partition=campaign_id, metadata=metadata_of(step)))
    return LaunchOutcome(campaign_id, facts, events=tuple(events))


@launchable(
    "make_receipt",
    reads=True,
    long=True,
    description="Makes one entrant's receipt: the outcome of the entry and its proof, as a page that checks itself "
    "wherever it is opened, and as JSON. Both are files to save, linked in the run's metadata and kept for a day. It "
    "may name others of the household: give it to the entrant only. Fails when the proof does not hold.",
)
def make_receipt(launch: Launch, config: ReceiptConfig) -> LaunchOutcome:
    """Neither log nor metadata name the entrant or the outcome."""
    from regworkers_core.selection.public.source import cache_folder, campaign_source

    campaign_id, entry = launch.campaign_id(config.campaign_id), require("entry", config.entry)
    source = campaign_source(launch.runtime, campaign_id, cache_folder())
    receipt = source.receipt(entry)
    data = canonical_bytes(receipt)
    checked = check_receipt(data)
    facts = {
        "page": launch.hand_out("receipt.html", verifier_page(data)),
        "json": launch.hand_out("receipt.json", data),
        "verdict": checked.verdict,
        "note": source.note or None,
    }
    return LaunchOutcome(
        campaign_id,
        facts,
        failure="the receipt does not hold: its page says why" if checked.verdict == FAILS else "",
    )


@launchable(
    "export_draw",
    reads=True,
    long=True,
    description="Exports the published files of all phases of a draw as one archive, for auditors and for `regworkers "
    "draw verify`: a link in the run's metadata, kept for a day.",
)
def export_draw(launch: Launch, config: CampaignConfig) -> LaunchOutcome:
    """The files under draws/<campaignId>/ in the bucket."""
    from regworkers_core.selection.public.source import export_phases

    campaign_id = launch.campaign_id(config.campaign_id)
    record = launch.runtime.draws.get(campaign_id)
    with tempfile.TemporaryDirectory(prefix="regworkers-export-") as made:
        folder, archive = Path(made) / campaign_id, Path(made) / "draw.zip"
        written = export_phases(launch.runtime.objects, record, folder) if record else []
        if not written:
            raise RequestError(f"{campaign_id} has published nothing yet: launch the job `draw`")
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as files:
            for name in written:
                files.write(folder / name, f"{campaign_id}/{name}")
        pending = record.not_confirmed if record else []
        facts: Mapping[str, Any] = {
            "notConfirmed": ", ".join(f"phase {each}" for each in pending) or None,
            "archive": launch.hand_out(f"{campaign_id}.zip", archive),
            "files": len(written),
            "bytes": archive.stat().st_size,
        }
    return LaunchOutcome(campaign_id, facts)


@launchable(
    "publish_draw_page",
    long=True,
    description="Publishes the page of a draw beside its files in the bucket: odds, bias audit, hashes, and the proof"
    " of every entry, which a fan's browser checks. Covers the confirmed phases; launch it again after a further one."
    " Builds and counts only, unless `apply` is true.",
)
def publish_draw_page(launch: Launch, config: PageConfig) -> LaunchOutcome:
    """A repeat puts nothing."""
    from regworkers_core.selection.public.page import INDEX
    from regworkers_core.selection.public.publish import publish_page

    campaign_id, show = launch.campaign_id(config.campaign_id), launch.progress()
    leaves = 0

    def on_leaves(more: int) -> None:
        nonlocal leaves
        leaves += more
        show(f"{leaves:,} leaves")

    done = publish_page(launch.runtime, campaign_id, apply=config.apply, on_leaves=on_leaves)
    launch.result["put"] = len(done.put)
    facts = {**done.as_dict(), "put": ", ".join(done.put), "dryRun": not config.apply}
    if not config.apply and INDEX in done.put:
        # Nothing is there to open.
        del facts["page"]
    return LaunchOutcome(campaign_id, facts, specs.PUBLICATION, changed=config.apply)


def _strikes(launch: Launch, upload: str) -> tuple[tuple[str, str], ...]:
    with launch.uploaded(upload) as path:
        try:
            return parse_strikes(path.read_text("utf-8-sig"))
        except UnicodeDecodeError:
            raise RequestError("the file of strikes is not UTF-8 text") from None


JOBS = (
    simulate_draw,
    top_up,
    make_receipt,
    export_draw,
    publish_draw_page,
)
