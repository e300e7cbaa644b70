"""Around a draw, as a manager launches it: a simulation, strikes, the confirmation, more seats later, receipts, the
export, the annulment.
"""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

import secrets
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from regworkers_core.adapters.files.judged_entries import read_judged
from regworkers_core.domain.campaign import Reserve
from regworkers_core.domain.reasons import RequestError
from regworkers_core.domain.selection import confirmation_word, require_word
from regworkers_core.domain.timestamps import iso
from regworkers_core.eligibility.campaign.judging import judge_entries
from regworkers_core.replication.settled import lag_warnings
from regworkers_core.selection.assign.blocked import blocked_lines
from regworkers_core.selection.assign.release import retry_market
from regworkers_core.selection.draw.annul import annul, preview
from regworkers_core.selection.draw.artefacts import export
from regworkers_core.selection.draw.freezing import POOL, write_pool
from regworkers_core.selection.draw.gate import ACCEPTABLE, Acceptance
from regworkers_core.selection.draw.terms import TopUp, parse_strikes
from regworkers_core.selection.draw.top_up import Striking, next_phase, open_phase
from regworkers_core.selection.maths.engine import Engine
from regworkers_core.selection.proof.check import check_receipt
from regworkers_core.selection.proof.receipt import receipt_bytes
from regworkers_core.selection.proof.receipt_view import receipt_page
from regworkers_core.selection.proof.source import cache_folder, campaign_source
from regworkers_core.selection.report.simulate import simulate, throw_away_seeds
from regworkers_core.selection.report.simulation import Scenario, tables
from regworkers_dagster.operations.by_hand import (
    CAMPAIGN,
    DRY_RUN,
    REASON,
    UPLOAD,
    Launch,
    Outcome,
    launchable,
    require,
    table,
)
from regworkers_dagster.selection import specs
from regworkers_dagster.selection.steps import (
    awaited,
    draw_run,
    metadata_of,
    tell_awaited,
    warn_of_blocked,
)

_STRIKES = "a line `ref|REASON` for each entry, REASON of A-Z and _: `r-7f3c|BOT`. " + UPLOAD
_MOST_ROUNDS = 1000
_CONFIRM = "`<campaignId>:<phase>`, for example spring-tour:1, typed by the person who read the report."


class SimulateConfig(dg.Config):
    """The rules to try out. What is not named is as the campaign has it."""

    campaignId: str = Field(default="", description=CAMPAIGN)
    capacities: dict[str, int] = Field(default={}, description="Per market its seats: {berlin: 600}.")
    reserves: dict[str, dict[str, int]] = Field(
        default={},
        description="Per market the seats that a segment gets first, 0 for none: {berlin: {loyal: 50}}.",
    )
    weights: dict[str, int] = Field(
        default={}, description="Per segment the tickets of each of its members, 1 to 64: {loyal: 3}."
    )
    winsPerUnit: int | None = Field(default=None, description="How many entries of one household may win.")
    waitlistSize: int | None = Field(default=None, description="How many wait, in rank order.")
    rounds: int = Field(default=10, description="How many draws are tried, 1 to 1000.")


class StrikeConfig(dg.Config):
    """Who takes no place in the draw that is to come."""

    campaignId: str = Field(default="", description=CAMPAIGN)
    upload: str = Field(
        default="",
        description=f"{_STRIKES} It replaces what was handed in before: an entry that is not in it takes part.",
    )
    dryRun: bool = Field(default=True, description=DRY_RUN)


class ConfirmConfig(dg.Config):
    """Which result may go out."""

    confirm: str = Field(default="", description=_CONFIRM)
    accept: list[str] = Field(
        default=[],
        description="Findings of the gate that are accepted all the same: " + ", ".join(ACCEPTABLE) + ".",
    )
    reason: str = Field(default="", description=REASON + "Why they are accepted: published with them.")


class TopUpConfig(dg.Config):
    """The terms of a further phase. What is not named stays as it is."""

    campaignId: str = Field(default="", description=CAMPAIGN)
    capacities: dict[str, int] = Field(
        default={},
        description="Per market its new total of seats, those that are taken included: {berlin: 600}.",
    )
    reserves: dict[str, dict[str, int]] = Field(
        default={},
        description="Per market the seats among the new ones that a segment gets first, in precedence order: "
        "{berlin: {loyal: 20}}.",
    )
    waitlistSize: int | None = Field(
        default=None, description="How many wait from now on, in rank order. Empty: as in the phase before."
    )
    strikes: str = Field(default="", description=f"An upload of entries that lose their place: {_STRIKES}")
    reason: str = Field(default="", description=REASON + "It is published with the phase.")
    confirm: str = Field(
        default="",
        description=f"Empty: only draw and report; read it, then confirm with `confirm_draw`. Else {_CONFIRM}",
    )


class RetryConfig(dg.Config):
    """Which market."""

    campaignId: str = Field(default="", description=CAMPAIGN)
    marketId: str = Field(default="", description="The market; `-`: the messages to those who did not win.")


class ReceiptConfig(dg.Config):
    """Whose receipt."""

    campaignId: str = Field(default="", description=CAMPAIGN)
    entry: str = Field(
        default="",
        description="The ref that the fan's confirmation has, or the id of the entry. No mail, no name.",
    )


class ExportConfig(dg.Config):
    """Of which draw."""

    campaignId: str = Field(default="", description=CAMPAIGN)


class AnnulConfig(dg.Config):
    """Which draw, and why."""

    campaignId: str = Field(default="", description=CAMPAIGN)
    reason: str = Field(default="", description=REASON + "It is published with the annulment.")
    confirm: str = Field(
        default="",
        description="`<campaignId>:<phase>`, as the run without it names it. Empty: only show what it would stop.",
    )


@launchable(
    "simulate_draw",
    reads=True,
    long=True,
    description="Tries out rules on the entries of a campaign as they are now, before anything is published: the "
    "chances by market, segment and weight, each the mean of the rounds (lowest – highest). It is not the draw: its "
    "seeds are thrown away, and it writes nothing.",
)
def simulate_draw(launch: Launch, config: SimulateConfig) -> Outcome:
    """Judges every entry as it is now."""
    runtime, campaign = launch.runtime, launch.campaign(config.campaignId)
    if not 1 <= config.rounds <= _MOST_ROUNDS:
        raise RequestError(f"rounds should be 1 to {_MOST_ROUNDS}, found {config.rounds}")
    scenario = Scenario.of(campaign).changed(
        capacities=config.capacities,
        reserves=config.reserves,
        weights=config.weights,
        wins_per_unit=config.winsPerUnit,
        waitlist_size=config.waitlistSize,
    )
    tell = launch.now_and_then()

    def on_round(done: int) -> None:
        tell(f"{done} of {config.rounds} rounds")
        if launch.stop.is_set:
            raise RequestError(f"stopped after {done} of {config.rounds} rounds: nothing is kept of them")

    with tempfile.TemporaryDirectory(prefix="regworkers-simulate-") as made:
        folder, now = Path(made), iso(runtime.clock())
        judge_entries(runtime, campaign, as_of=now, folder=folder, tell=tell)
        pool = write_pool(read_judged(folder), frozenset(campaign.market_ids), folder)
        seeds = throw_away_seeds(None, lambda: secrets.token_hex(32))
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
    return Outcome(campaign.campaign_id, facts)


@launchable(
    "strike_entries",
    description="Entries that take no place in the first phase of a draw, bots say: handed in before its commit, "
    "also while fans still register. Once the draw is committed this refuses, and `top_up` with `strikes` takes "
    "their places away. Checks and counts only, unless `dryRun` is false.",
)
def strike_entries(launch: Launch, config: StrikeConfig) -> Outcome:
    """Nothing is judged by it: a struck entry still counts as registered."""
    campaign_id = launch.campaign_id(config.campaignId)
    facts = Striking(launch.runtime, campaign_id, run_id=launch.run_id).strike(
        _strikes(launch, config.upload), dry_run=config.dryRun
    )
    launch.result.update(facts)
    return Outcome(
        campaign_id, {**facts, "dryRun": config.dryRun}, specs.CAMPAIGNS, changed=not config.dryRun
    )


@launchable(
    "confirm_draw",
    long=True,
    description="Lets a drawn phase go out: codes for its winners, messages to everybody. Look at the report "
    "first: the metadata of `draw_report` has it, and a link to the page with its plots.",
)
def confirm_draw(launch: Launch, config: ConfirmConfig) -> Outcome:
    """A repeat goes on where the run before it stopped; nothing is given or told twice."""
    confirm = require("confirm", config.confirm)
    campaign, colon, phase = confirm.rpartition(":")
    if not colon or not phase.isdecimal():
        raise RequestError(f"confirm should be {_CONFIRM}")
    campaign_id = launch.campaign_id(campaign)
    run = draw_run(
        launch.runtime,
        campaign_id,
        launch.run_id,
        launch.tell,
        launch.stop,
        phase=int(phase),
        accept=Acceptance.of(config.accept, config.reason, by=launch.who),
    )
    step = run.publish(confirm)
    launch.result["publish"] = step.state
    warn_of_blocked(launch.context, campaign_id, step)
    return Outcome(campaign_id, {"state": step.state, **step.facts}, specs.PUBLICATION, changed=True)


@launchable(
    "top_up",
    long=True,
    resumed=True,
    description="More seats, or other winners in place of struck ones, for a campaign that was drawn: a further "
    "phase in the same order, in which every winner keeps what they have. A winner of an earlier phase is not "
    "upgraded, so truthful preferences are the best ones within a phase only. Terms and reason are published with "
    "the phase; codes and messages wait for the confirmation.",
)
def top_up(launch: Launch, config: TopUpConfig) -> Outcome:
    """A repeat with the same terms goes on where the run before it stopped."""
    runtime, campaign_id = launch.runtime, launch.campaign_id(config.campaignId)
    request = TopUp(
        capacities=config.capacities,
        reserves={
            market: tuple(Reserve(segment, seats) for segment, seats in reserves.items())
            for market, reserves in config.reserves.items()
        },
        strikes=_strikes(launch, config.strikes) if config.strikes.strip() else (),
        reason=require("reason", config.reason),
        waitlist_size=config.waitlistSize,
        keep_waitlist=config.waitlistSize is None,
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
        launch.result[step.name] = facts[step.name] = step.state
        if tell_awaited(launch.context, spec, campaign_id, step):
            facts["next"] = awaited(campaign_id, step)
            continue
        launch.tell(f"{step.name} of {campaign_id}: {step.state}")
        warn_of_blocked(launch.context, campaign_id, step)
        events.append(dg.AssetMaterialization(spec.key, partition=campaign_id, metadata=metadata_of(step)))
    return Outcome(campaign_id, facts, events=tuple(events))


@launchable(
    "retry_market_selection",
    description="Takes a market up again that is stuck: plans it when codes were missing, and sends the "
    "chunks that are not done. Nothing is assigned or told twice.",
)
def retry_market_selection(launch: Launch, config: RetryConfig) -> Outcome:
    """Idempotent: says what it found and what it sent."""
    campaign_id, market_id = require("campaignId", config.campaignId), require("marketId", config.marketId)
    facts = retry_market(launch.runtime, campaign_id, market_id, run_id=launch.run_id)
    launch.result["status"] = facts.get("status")
    launch.tell(", ".join(f"{name} {value}" for name, value in facts.items()))
    # Nothing went on, so the run is not green; another try without codes would come to the same.
    failure = "; ".join(blocked_lines(campaign_id, {market_id: facts}))
    return Outcome(campaign_id, facts, specs.PUBLICATION, failure=failure)


@launchable(
    "make_receipt",
    reads=True,
    long=True,
    description="One entrant's receipt: what became of the entry, and the proof of it, as a page and as JSON to "
    "be checked. Both are links in the run's metadata, kept for a day. It may name others of the household: give "
    "it to the entrant only. Fails when it does not hold.",
)
def make_receipt(launch: Launch, config: ReceiptConfig) -> Outcome:
    """Neither log nor metadata say who it is, or what became of the entry."""
    campaign_id, entry = launch.campaign_id(config.campaignId), require("entry", config.entry)
    receipt = campaign_source(launch.runtime, campaign_id, cache_folder()).receipt(entry)
    data = receipt_bytes(receipt)
    checked = check_receipt(data)
    facts = {
        "page": launch.hand_out("receipt.html", receipt_page(receipt, checked).encode()),
        "json": launch.hand_out("receipt.json", data),
        "holds": checked.passed,
    }
    return Outcome(
        campaign_id, facts, failure="" if checked.passed else "the receipt does not hold: its page says why"
    )


@launchable(
    "export_draw",
    reads=True,
    long=True,
    description="The published files of all phases of a draw as one archive, for auditors and for `regworkers "
    "draw verify`: a link in the run's metadata, kept for a day.",
)
def export_draw(launch: Launch, config: ExportConfig) -> Outcome:
    """The same files that lie under draws/<campaignId>/ in the bucket."""
    campaign_id = launch.campaign_id(config.campaignId)
    record = launch.runtime.draws.get(campaign_id)
    with tempfile.TemporaryDirectory(prefix="regworkers-export-") as made:
        folder, archive = Path(made) / campaign_id, Path(made) / "draw.zip"
        written = export(launch.runtime.objects, campaign_id, record.phases, folder) if record else []
        if not written:
            raise RequestError(f"{campaign_id} has published nothing yet: the job `draw` does")
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as files:
            for name in written:
                files.write(folder / name, f"{campaign_id}/{name}")
        facts: Mapping[str, Any] = {
            "archive": launch.hand_out(f"{campaign_id}.zip", archive),
            "files": len(written),
            "bytes": archive.stat().st_size,
        }
    return Outcome(campaign_id, facts)


@launchable(
    "annul_draw",
    previews=True,
    description="Ends a draw that must not count: no message of it goes out any more, no phase follows, the reason is "
    "published, and the campaign is never drawn again. It cannot be undone. Shows what it would stop, unless `confirm` "
    "is the word; `block_struck_codes` then lists the codes that their issuer has to block.",
)
def annul_draw(launch: Launch, config: AnnulConfig) -> Outcome:
    """A repeat goes on where the run before it stopped."""
    runtime, campaign_id = launch.runtime, launch.campaign_id(config.campaignId)
    done = preview(runtime, campaign_id)
    if config.confirm:
        reason = require("reason", config.reason)
        done = annul(
            runtime, campaign_id, reason=reason, confirm=config.confirm, run_id=launch.run_id, by=launch.who
        )
        launch.result.update(stopped=done.stopped, sent=done.sent, codes=done.codes)
    failure = (
        ""
        if not done.annulled or not done.codes
        else f"codes with fans: {done.codes}; `block_struck_codes` lists them"
    )
    return Outcome(campaign_id, done.as_dict(), specs.DRAW, failure=failure)


def _strikes(launch: Launch, upload: str) -> tuple[tuple[str, str], ...]:
    with launch.uploaded(upload) as path:
        try:
            return parse_strikes(path.read_text("utf-8-sig"))
        except UnicodeDecodeError:
            raise RequestError("the file of strikes is not UTF-8 text") from None


JOBS = (
    simulate_draw,
    strike_entries,
    confirm_draw,
    top_up,
    retry_market_selection,
    make_receipt,
    export_draw,
    annul_draw,
)
