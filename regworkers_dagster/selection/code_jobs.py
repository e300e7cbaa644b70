"""The jobs for access codes: import, void, block struck ones, replan.

A code is as good as a ticket. So codes come and go in files, and neither config, log nor metadata has one.
"""

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
from regworkers_dagster.by_hand import (
    REASON,
    UPLOAD,
    CampaignConfig,
    Launch,
    LaunchOutcome,
    launchable,
    require,
)
from regworkers_dagster.factories import APPLY, ApplyConfig
from regworkers_dagster.metadata import table
from regworkers_dagster.selection.specs import CODES


class ImportConfig(CampaignConfig):
    upload: str = Field(
        default="",
        description="The codes: CSV in UTF-8 with the header `code`, or `code,marketId` for several markets. "
        + UPLOAD,
    )
    market_id: str = Field(
        default="", description="The market of all codes, for a file without the column marketId."
    )
    dry_run: bool = Field(default=False, description="Check and count only.")


class VoidConfig(ApplyConfig, CampaignConfig):
    """Which codes: a file of them, or their positions in a market."""

    upload: str = Field(
        default="",
        description="The codes: CSV in UTF-8 with the header `code`. Never type one here. " + UPLOAD,
    )
    market_id: str = Field(default="", description="Instead of a file: the market, with `positions`.")
    positions: list[int] = Field(
        default=[],
        description="The positions of the codes in the order of import, from 1: [12, 13].",
    )
    reason: str = Field(default="", description=REASON + "Kept with the codes.")
    apply: bool = Field(default=False, description=APPLY + " It cannot be undone.")


class StruckConfig(CampaignConfig):
    """Which campaign, and whether the issuer has blocked the codes."""

    blocked_at_issuer: bool = Field(
        default=False,
        description="The issuer refuses all codes of the list now: record it.",
    )
    reason: str = Field(default="", description=REASON + "Kept with the codes, with blocked_at_issuer.")


class ReplanConfig(CampaignConfig):
    market_id: str = Field(default="", description="The market whose chunks are stalled: its codes are void.")
    confirm: str = Field(
        default="",
        description="`<campaignId>:<phase>`, as a run without it shows. Empty: show only what would change.",
    )


@launchable(
    "import_codes",
    long=True,
    description="Appends the codes of an uploaded file, in its order; markets that waited for codes continue. The same "
    "file may be imported again: known codes are skipped. Rejected rows are a link in the run's metadata, and fail the "
    "run after all others are added. With `dry_run` it checks and counts only.",
)
def import_codes(launch: Launch, config: ImportConfig) -> LaunchOutcome:
    """Terminate it at any time and launch it again: it continues."""
    from regworkers_core.selection.codes.importing import import_codes as import_file

    campaign = launch.campaign(config.campaign_id)
    show = launch.progress()
    with launch.uploaded(config.upload) as path:
        report = import_file(
            launch.runtime,
            path,
            campaign,
            market_id=config.market_id or None,
            rejects=path.with_name("rejects.csv"),
            run_id=launch.run_id,
            dry_run=config.dry_run,
            stop=launch.stop,
            on_progress=lambda so_far: show(f"{so_far.lines} lines"),
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
            f"all others {'would be added' if config.dry_run else 'count'}"
        )
    if report.stopped:
        failure = f"stopped after {report.lines} lines: launch it again to continue"
    facts |= {"stock": _stock(launch, campaign)}
    return LaunchOutcome(campaign.campaign_id, facts, CODES, changed=not config.dry_run, failure=failure)


@launchable(
    "void_codes",
    long=True,
    description="Voids codes for good, for example after a leak: those of an uploaded file, or those at positions of a "
    "market. A code that a fan holds is not voided: its issuer has to block it. Checks and counts only, unless `apply` "
    "is true; fails when one of them cannot be voided.",
)
def void_codes(launch: Launch, config: VoidConfig) -> LaunchOutcome:
    """The outcome of each code is a link in the metadata, with shortened codes."""
    from regworkers_core.selection.codes.stock import void_codes as void

    runtime, campaign = launch.runtime, launch.campaign(config.campaign_id)
    if bool(config.upload.strip()) == bool(config.positions):
        raise RequestError("give either upload, or market_id with positions")
    reason = require("reason", config.reason)
    if config.upload.strip():
        with launch.uploaded(config.upload) as path:
            codes, unread = _codes_in(path)
    else:
        market_id = require("market_id", config.market_id)
        at = runtime.codes.at(campaign.campaign_id, market_id, config.positions)
        if missing := sorted(set(config.positions) - at.keys()):
            raise RequestError(f"{market_id} of {campaign.campaign_id} has no code at position {missing[0]}")
        codes, unread = [placed.code for placed in at.values()], 0
    done = void(runtime, campaign, codes, reason=reason, run_id=launch.run_id, dry_run=not config.apply)
    outcomes = Counter(each.outcome for each in done)
    launch.result["voided"] = sum(each.done for each in done)
    left = sum(not each.done for each in done)
    lines = io.StringIO()
    csv.writer(lines).writerows([("code", "outcome"), *((each.code, each.outcome) for each in done)])
    facts: dict[str, Any] = {
        "dryRun": not config.apply,
        "codes": len(done),
        "outcomes": dict(outcomes),
        "list": launch.hand_out("voided.csv", lines.getvalue().encode()),
        "stock": _stock(launch, campaign),
    }
    parts = [f"{left} of {len(done)} codes cannot be voided: `list` says why"] if left else []
    parts += [f"{unread} lines of the file are not codes"] if unread else []
    return LaunchOutcome(campaign.campaign_id, facts, CODES, changed=config.apply, failure="; ".join(parts))


@launchable(
    "block_struck_codes",
    long=True,
    description="Lists codes that fans hold and that do not count, because the winner was struck or the draw "
    "annulled. The list for their issuer is a link in the metadata, kept for a day. Fails while one of them is not "
    "blocked. With `blocked_at_issuer` it records that the issuer refuses all of them.",
)
def block_struck_codes(launch: Launch, config: StruckConfig) -> LaunchOutcome:
    """Only the issuer can block a code that a fan holds; this records that it did."""
    from regworkers_core.selection.codes.struck import mark_blocked, struck_codes, write_csv

    runtime, campaign_id = launch.runtime, launch.campaign_id(config.campaign_id)
    if config.blocked_at_issuer:
        reason = require("reason", config.reason)
        launch.result["blocked"] = mark_blocked(runtime, campaign_id, reason=reason, run_id=launch.run_id)
    found = struck_codes(runtime, campaign_id)
    lines = io.StringIO()
    write_csv(found, lines)
    left = sum(each.to_block for each in found)
    facts: dict[str, Any] = {
        "codes": len(found),
        "to_block": left,
        "notified": sum(each.notified for each in found),
        "list": launch.hand_out("struck-codes.csv", lines.getvalue().encode()) if found else None,
    }
    failure = f"{left} codes have to be blocked by their issuer: `list` has them" if left else ""
    return LaunchOutcome(campaign_id, facts, CODES, changed=config.blocked_at_issuer, failure=failure)


@launchable(
    "replan_code",
    previews=True,
    description="Gives each winner whose planned code is void the market's next position that was never planned, and "
    "sends the open chunks again. A code that was assigned or redeemed outside of the draw is voided first. The former "
    "positions are not used again, and the plan keeps both. Shows what would change, unless `confirm` is given.",
)
def replan_code(launch: Launch, config: ReplanConfig) -> LaunchOutcome:
    """Shows positions only: neither log nor metadata have a code."""
    from regworkers_core.selection.assign.replan import replan_codes

    runtime, campaign_id = launch.runtime, launch.campaign_id(config.campaign_id)
    market_id = require("market_id", config.market_id)
    found = replan_codes(runtime, campaign_id, market_id, run_id=launch.run_id, confirm=config.confirm)
    if found.applied:
        launch.result.update(moved=len(found.moves), queued=found.queued)
    moves = [(move.before, move.was.value, move.after or "no code is left") for move in found.moves]
    columns = ("position", "its code is", "takes its place")
    facts = {**found.as_dict(), "moves": table(columns, moves), "confirm": found.word}
    failure = (
        f"{found.missing} codes are missing: launch `import_codes`, then this job again"
        if found.missing
        else ""
    )
    return LaunchOutcome(campaign_id, facts, CODES, changed=found.applied, failure=failure)


def _codes_in(path: Path) -> tuple[list[str], int]:
    """The codes, and the number of lines without one."""
    from regworkers_core.selection.codes.importing import CodeRow, read_lines

    lines = [line for line in read_lines(path) if not isinstance(line, Blank)]
    codes = [line.code for line in lines if isinstance(line, CodeRow)]
    if not codes:
        raise RequestError("the file has no codes")
    return codes, len(lines) - len(codes)


def _stock(launch: Launch, campaign: Campaign) -> dg.MarkdownMetadataValue | None:
    from regworkers_core.selection.codes.stock import read_stock

    record = launch.runtime.draws.get(campaign.campaign_id)
    columns = ("marketId", "capacity", "available", "assigned", "redeemed", "void", "missing")
    stocks = [stock.as_dict() for stock in read_stock(launch.runtime, campaign, record)]
    return table(columns, [[stock[name] for name in columns] for stock in stocks])


JOBS = (import_codes, void_codes, block_struck_codes, replan_code)
