"""Access codes, as a manager launches it: import them from an uploaded file, take leaked ones out of use.

Everybody who reads a code can take its seat. So codes come and go in files, and neither config, log nor metadata has
one.
"""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

import csv
import io
from collections import Counter
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from regworkers_core.adapters.files.csv_lines import Blank
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.reasons import RequestError
from regworkers_core.selection.assign.replan import replan_codes
from regworkers_core.selection.codes.importing import import_codes as import_file
from regworkers_core.selection.codes.lines import Row, read_lines
from regworkers_core.selection.codes.stock import read_stock
from regworkers_core.selection.codes.stock import void_codes as void
from regworkers_core.selection.codes.struck import mark_blocked, struck_codes, write_csv
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
from regworkers_dagster.selection.specs import CODES


class ImportConfig(dg.Config):
    """Which file, for which campaign."""

    campaignId: str = Field(default="", description=CAMPAIGN)
    upload: str = Field(
        default="",
        description="The codes: CSV in UTF-8 with the header `code`, or `code,marketId` for several markets. "
        + UPLOAD,
    )
    marketId: str = Field(
        default="", description="The market of all codes in the file, where it has no column marketId."
    )
    dryRun: bool = Field(default=True, description=DRY_RUN)


class VoidConfig(dg.Config):
    """Which codes: a file of them, or their positions in a market."""

    campaignId: str = Field(default="", description=CAMPAIGN)
    upload: str = Field(
        default="",
        description="The codes: CSV in UTF-8 with the header `code`. Never type one here. " + UPLOAD,
    )
    marketId: str = Field(default="", description="Instead of a file: the market, with `positions`.")
    positions: list[int] = Field(
        default=[],
        description="The places of the codes in the order of their import, counted from 1: [12, 13].",
    )
    reason: str = Field(default="", description=REASON + "Kept with the codes.")
    dryRun: bool = Field(default=True, description=DRY_RUN + " It cannot be undone.")


class StruckConfig(dg.Config):
    """Whose codes, and whether their issuer has blocked them."""

    campaignId: str = Field(default="", description=CAMPAIGN)
    blockedAtIssuer: bool = Field(
        default=False,
        description="Set it to true once the issuer refuses all codes of the list: that is noted.",
    )
    reason: str = Field(default="", description=REASON + "Kept with the codes, with blockedAtIssuer.")


class ReplanConfig(dg.Config):
    """Which market."""

    campaignId: str = Field(default="", description=CAMPAIGN)
    marketId: str = Field(default="", description="The market whose chunks do not go on: its codes are void.")
    confirm: str = Field(
        default="",
        description="`<campaignId>:<phase>`, as the run without it names it. Empty: only show what would move.",
    )


@launchable(
    "import_codes",
    long=True,
    description="Adds the codes of an uploaded file, in its order, behind those that are there; markets that "
    "waited for codes go on. The same file may be given again: what is there is found there. Rejected rows are a "
    "link in the run's metadata, and fail the run after all others are added. Checks and counts only, unless "
    "`dryRun` is false.",
)
def import_codes(launch: Launch, config: ImportConfig) -> Outcome:
    """Terminate it at any time and launch it again: it goes on."""
    campaign = launch.campaign(config.campaignId)
    told = launch.now_and_then()
    with launch.uploaded(config.upload) as path:
        report = import_file(
            launch.runtime,
            path,
            campaign,
            market_id=config.marketId or None,
            rejects=path.with_name("rejects.csv"),
            run_id=launch.run_id,
            dry_run=config.dryRun,
            stop=launch.stop,
            on_progress=lambda so_far: told(f"{so_far.lines} lines"),
        )
        rejects = launch.hand_out("rejects.csv", report.rejects_file) if report.rejects_file else None
    launch.result.update(lines=report.lines, added=report.added)
    document = report.as_dict()
    kept = ("dryRun", "lines", "added", "known", "blank", "rejected", "addedByMarket", "resumed", "stopped")
    facts = {**{name: document[name] for name in kept}, "rejects": rejects}
    failure = document["advice"] or ""
    if report.rejected:
        failure = (
            f"{report.rejected.total()} of {report.lines} rows are rejected, see `rejects`; "
            f"all others {'would be added' if config.dryRun else 'count'}"
        )
    if report.stopped:
        failure = f"stopped after {report.lines} lines: launch it again, it goes on"
    facts |= {"stock": _stock(launch, campaign)}
    return Outcome(campaign.campaign_id, facts, CODES, changed=not config.dryRun, failure=failure)


@launchable(
    "void_codes",
    long=True,
    description="Takes codes out of use for good, after a leak say: those of an uploaded file, or those at "
    "positions of a market. A code that a fan holds stays: its issuer has to block it. Checks and counts only, "
    "unless `dryRun` is false; fails when one of them cannot be voided.",
)
def void_codes(launch: Launch, config: VoidConfig) -> Outcome:
    """What became of each code is a link in the metadata, with codes cut short."""
    runtime, campaign = launch.runtime, launch.campaign(config.campaignId)
    if bool(config.upload.strip()) == bool(config.positions):
        raise RequestError("give either upload, or marketId with positions")
    reason = require("reason", config.reason)
    if config.upload.strip():
        with launch.uploaded(config.upload) as path:
            codes, unread = _codes_in(path)
    else:
        market_id = require("marketId", config.marketId)
        at = runtime.codes.at(campaign.campaign_id, market_id, config.positions)
        if missing := sorted(set(config.positions) - at.keys()):
            raise RequestError(f"{market_id} of {campaign.campaign_id} has no code at position {missing[0]}")
        codes, unread = [placed.code for placed in at.values()], 0
    done = void(runtime, campaign, codes, reason=reason, run_id=launch.run_id, dry_run=config.dryRun)
    outcomes = Counter(each.outcome for each in done)
    launch.result["voided"] = sum(each.done for each in done)
    left = sum(not each.done for each in done)
    lines = io.StringIO()
    csv.writer(lines).writerows([("code", "outcome"), *((each.code, each.outcome) for each in done)])
    facts: dict[str, Any] = {
        "dryRun": config.dryRun,
        "codes": len(done),
        "outcomes": dict(outcomes),
        "list": launch.hand_out("voided.csv", lines.getvalue().encode()),
        "stock": _stock(launch, campaign),
    }
    parts = [f"{left} of {len(done)} codes cannot be voided: `list` says why"] if left else []
    parts += [f"{unread} lines of the file are no codes"] if unread else []
    return Outcome(campaign.campaign_id, facts, CODES, changed=not config.dryRun, failure="; ".join(parts))


@launchable(
    "block_struck_codes",
    long=True,
    description="Codes that fans hold and that do not count: of those who were struck after they had won, and of an "
    "annulled draw. Hands out the list for their issuer, as a link in the metadata that is kept for a day, and fails "
    "while one of them is not blocked. With `blockedAtIssuer` it notes of all of them that the issuer refuses them.",
)
def block_struck_codes(launch: Launch, config: StruckConfig) -> Outcome:
    """Only the issuer can take a code from a fan: this changes what we note, and nothing at the issuer."""
    runtime, campaign_id = launch.runtime, launch.campaign_id(config.campaignId)
    if config.blockedAtIssuer:
        reason = require("reason", config.reason)
        launch.result["blocked"] = mark_blocked(runtime, campaign_id, reason=reason, run_id=launch.run_id)
    found = struck_codes(runtime, campaign_id)
    lines = io.StringIO()
    write_csv(found, lines)
    left = sum(each.to_block for each in found)
    facts: dict[str, Any] = {
        "codes": len(found),
        "to_block": left,
        "told_that_they_won": sum(each.told for each in found),
        "list": launch.hand_out("struck-codes.csv", lines.getvalue().encode()) if found else None,
    }
    failure = f"{left} codes have to be blocked by their issuer: `list` has them" if left else ""
    return Outcome(campaign_id, facts, CODES, changed=config.blockedAtIssuer, failure=failure)


@launchable(
    "replan_code",
    previews=True,
    description="Gives each winner whose planned code is void the next position of the market that was never planned, "
    "and sends the open chunks again. A code that was assigned or redeemed outside of the draw becomes void first. "
    "The positions before stay burnt, and the plan keeps both. Shows what would move, "
    "unless `confirm` is the word.",
)
def replan_code(launch: Launch, config: ReplanConfig) -> Outcome:
    """Positions only: neither log nor metadata have a code."""
    runtime, campaign_id = launch.runtime, launch.campaign_id(config.campaignId)
    market_id = require("marketId", config.marketId)
    found = replan_codes(runtime, campaign_id, market_id, run_id=launch.run_id, confirm=config.confirm)
    if found.applied:
        launch.result.update(moved=len(found.moves), queued=found.queued)
    moves = [(move.before, move.was.value, move.after or "no code is left") for move in found.moves]
    columns = ("position", "its code is", "takes its place")
    facts = {**found.as_dict(), "moves": table(columns, moves), "confirm": found.word}
    failure = (
        f"the codes run short by {found.missing}: `import_codes`, then launch this again"
        if found.missing
        else ""
    )
    return Outcome(campaign_id, facts, CODES, changed=found.applied, failure=failure)


def _codes_in(path: Path) -> tuple[list[str], int]:
    """The codes, and how many lines are none."""
    lines = [line for line in read_lines(path) if not isinstance(line, Blank)]
    codes = [line.code for line in lines if isinstance(line, Row)]
    if not codes:
        raise RequestError("no code is in the file")
    return codes, len(lines) - len(codes)


def _stock(launch: Launch, campaign: Campaign) -> dg.MarkdownMetadataValue | None:
    record = launch.runtime.draws.get(campaign.campaign_id)
    columns = ("marketId", "capacity", "available", "assigned", "redeemed", "void", "missing")
    stocks = [stock.as_dict() for stock in read_stock(launch.runtime, campaign, record)]
    return table(columns, [[stock[name] for name in columns] for stock in stocks])


JOBS = (import_codes, void_codes, block_struck_codes, replan_code)
