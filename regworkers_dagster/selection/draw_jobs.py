"""The jobs around a draw: simulation, strikes, confirmation, top-up, retry, receipt, page, export, annulment."""

import secrets
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg
from pydantic import Field

from regworkers_core.domain.campaign import Reserve
from regworkers_core.domain.reasons import RequestError
from regworkers_core.domain.selection import ACCEPTABLE, confirmation_word, require_word
from regworkers_core.domain.timestamps import iso
from regworkers_dagster.by_hand import (
    REASON,
    UPLOAD,
    CampaignConfig,
    Launch,
    LaunchOutcome,
    launchable,
    require,
)
from regworkers_dagster.factories import ApplyConfig
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


class StrikeConfig(ApplyConfig, CampaignConfig):
    """Which entries take no part in the coming draw."""

    upload: str = Field(
        default="",
        description=f"{_STRIKES} It replaces the list before it: an entry that is not in it takes part.",
    )


class ConfirmConfig(dg.Config):
    confirm: str = Field(default="", description=_CONFIRM)
    accept: list[str] = Field(
        default=[],
        description="Findings of the gate to accept: " + ", ".join(ACCEPTABLE) + ".",
    )
    reason: str = Field(default="", description=REASON + "Why they are accepted; published with them.")


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


class RetryConfig(CampaignConfig):
    # The JSON of the operations manual: `{"campaignId": "...", "marketId": "..."}`.
    spellings: ClassVar[Mapping[str, str]] = {"campaignId": "campaign_id", "marketId": "market_id"}
    market_id: str = Field(default="", description="The market; `-`: the messages to those who did not win.")


class ReceiptConfig(CampaignConfig):
    entry: str = Field(
        default="",
        description="The ref in the fan's confirmation, or the id of the entry. No mail address, no name.",
    )


class PageConfig(ApplyConfig, CampaignConfig):
    """Whose page."""


class AnnulConfig(CampaignConfig):
    reason: str = Field(default="", description=REASON + "It is published with the annulment.")
    confirm: str = Field(
        default="",
        description="`<campaignId>:<phase>`, as a run without it shows. Empty: show only what would be stopped.",
    )


class SignatureConfig(CampaignConfig):
    signature: str = Field(
        default="",
        description="The beacon's signature of the round that `campaign_status` names, 96 hex digits: any relay of the "
        "beacon shows it. It is public, and verified.",
    )


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
    from regworkers_core.adapters.files.judged_entries import POOL, read_judged
    from regworkers_core.eligibility.campaign.judging import judge_entries
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
    "strike_entries",
    description="Strikes entries, such as bots, from the first phase of a draw: before its commitment, also while the "
    "registration is open. After the commitment this is refused, and `top_up` with `strikes` revokes their places. "
    "Checks and counts only, unless `apply` is true.",
)
def strike_entries(launch: Launch, config: StrikeConfig) -> LaunchOutcome:
    """A struck entry still counts as registered."""
    from regworkers_core.selection.draw.top_up import Striking

    campaign_id = launch.campaign_id(config.campaign_id)
    facts = Striking(launch.runtime, campaign_id, run_id=launch.run_id).strike(
        _strikes(launch, config.upload), dry_run=not config.apply
    )
    launch.result.update(facts)
    return LaunchOutcome(
        campaign_id, {**facts, "dryRun": not config.apply}, specs.CAMPAIGNS, changed=config.apply
    )


@launchable(
    "confirm_draw",
    uses=CHANGES_CAMPAIGNS,
    long=True,
    description="Publishes a drawn phase: codes for its winners, messages to all entrants. Read the report first: it "
    "is in the metadata of `draw_report`, with a link to the page with its plots.",
)
def confirm_draw(launch: Launch, config: ConfirmConfig) -> LaunchOutcome:
    """A repeat resumes where the run before it stopped; no code is assigned and no fan is notified twice."""
    from regworkers_core.selection.draw.gate import AcceptedFindings

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
        accept=AcceptedFindings.of(config.accept, config.reason, by=launch.who),
    )
    step = run.publish(confirm)
    launch.result["publish"] = step.state
    warn_of_blocked(launch.context, campaign_id, step)
    return LaunchOutcome(campaign_id, {"state": step.state, **step.facts}, specs.PUBLICATION, changed=True)


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
    from regworkers_core.selection.draw.terms import TopUp
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
        launch.result[step.name] = facts[step.name] = step.state
        if record_awaited(launch.context, spec, campaign_id, step):
            facts["next"] = awaited(campaign_id, step)
            continue
        launch.tell(f"{step.name} of {campaign_id}: {step.state}")
        warn_of_blocked(launch.context, campaign_id, step)
        events.append(dg.AssetMaterialization(spec.key, partition=campaign_id, metadata=metadata_of(step)))
    return LaunchOutcome(campaign_id, facts, events=tuple(events))


@launchable(
    "retry_market_selection",
    uses=CHANGES_CAMPAIGNS,
    description="Retries a stalled market: plans it when codes were missing, and sends the open chunks again. No code "
    "is assigned and no fan is notified twice.",
)
def retry_market_selection(launch: Launch, config: RetryConfig) -> LaunchOutcome:
    """Idempotent: logs what it found and what it sent."""
    from regworkers_core.selection.assign.markets import blocked_lines
    from regworkers_core.selection.assign.release import retry_market

    campaign_id = require("campaign_id", config.campaign_id)
    market_id = require("market_id", config.market_id)
    facts = retry_market(launch.runtime, campaign_id, market_id, run_id=launch.run_id)
    launch.result["status"] = facts.get("status")
    launch.tell(", ".join(f"{name} {value}" for name, value in facts.items()))
    # A market without codes did not continue, so the run fails; a retry without codes would fail again.
    failure = "; ".join(blocked_lines(campaign_id, {market_id: facts}))
    return LaunchOutcome(campaign_id, facts, specs.PUBLICATION, failure=failure)


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
    from fairdraw.maths.files import canonical_bytes
    from fairdraw.proof.check import FAILS, check_receipt
    from fairdraw.verifier.assemble import verifier_page
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


@launchable(
    "annul_draw",
    uses=CHANGES_CAMPAIGNS,
    previews=True,
    description="Annuls a draw: no more messages are sent, no phase follows, the reason is published, and the "
    "campaign is never drawn again. It cannot be undone. Shows what it would stop, unless `confirm` is given; "
    "`block_struck_codes` then lists the codes that their issuer has to block.",
)
def annul_draw(launch: Launch, config: AnnulConfig) -> LaunchOutcome:
    """A repeat resumes where the run before it stopped."""
    from regworkers_core.selection.draw.annul import annul, preview

    runtime, campaign_id = launch.runtime, launch.campaign_id(config.campaign_id)
    done = preview(runtime, campaign_id)
    if config.confirm:
        reason = require("reason", config.reason)
        done = annul(
            runtime, campaign_id, reason=reason, confirm=config.confirm, run_id=launch.run_id, by=launch.who
        )
        launch.result.update(stopped=done.stopped, sent=done.sent, codes=done.codes)
    left = done.codes if done.annulled else 0
    failure = f"codes with fans: {left}; `block_struck_codes` lists them" if left else ""
    return LaunchOutcome(campaign_id, done.as_dict(), specs.DRAW, failure=failure)


@launchable(
    "enter_signature",
    uses=CHANGES_CAMPAIGNS,
    description="Stores the beacon's signature where the beacon cannot be reached. A wrong one is refused. Then launch "
    "`draw` of the campaign.",
)
def enter_signature(launch: Launch, config: SignatureConfig) -> LaunchOutcome:
    """The same as one from the beacon."""
    campaign_id = launch.campaign_id(config.campaign_id)
    run = draw_run(launch.runtime, campaign_id, launch.run_id, launch.tell, launch.stop)
    run.take_signature(require("signature", config.signature))
    return LaunchOutcome(campaign_id, {"stored": True})


def _strikes(launch: Launch, upload: str) -> tuple[tuple[str, str], ...]:
    from regworkers_core.selection.draw.terms import parse_strikes

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
    publish_draw_page,
    annul_draw,
    enter_signature,
)
