"""Import, count and void access codes. A code is as good as a ticket, so codes come and go in files: no argument,
config, log or metadata has one.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple

from pydantic import Field

from fairdraw.maths.codes import normal
from regworkers_core.adapters.files import Blank
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.reasons import RequestError
from regworkers_core.operation import (
    CAMPAIGN,
    CHANGES_CAMPAIGNS,
    Call,
    Effect,
    GivenFile,
    Input,
    OfCampaign,
    Report,
    Table,
    operation,
)
from regworkers_core.selection.codes.importing import (
    CodeRow,
    CodesFile,
    import_codes,
    named_campaign,
    read_lines,
)
from regworkers_core.selection.codes.issuing import put_for_issuer, write_for_issuer
from regworkers_core.selection.codes.redeeming import take_file
from regworkers_core.selection.codes.stock import (
    MarketStock,
    mark_blocked,
    read_stock,
    struck_codes,
    void_codes,
    write_csv,
)

_FILE = "CSV in UTF-8 with the header `code`"
_STOCK = ("marketId", "capacity", "available", "assigned", "redeemed", "void", "missing")


class ImportCodes(Input):
    words: ClassVar = ("upload",)
    campaign_id: str = Field("", description=f"{CAMPAIGN} Empty: the column campaignId of the first row.")
    upload: GivenFile = Field(description=f"{_FILE}, or `code,marketId` for several markets.")
    market_id: str = Field("", description="The market of rows that name none; rows of others are rejected.")
    dry_run: bool = Field(False, description="Check and count only.")


class ExportCodes(OfCampaign):
    for_issuer: bool = Field(
        False,
        description="The file is for the issuer of the codes and for no one else. Without it nothing is written.",
    )
    put: bool = Field(
        False,
        description="Put the file into the artefacts' bucket as `issuer/<campaignId>/codes.csv`, which only the issuer "
        "may read, and hand out none here.",
    )


class ImportRedemptions(OfCampaign):
    words: ClassVar = ("campaign_id", "upload")
    upload: GivenFile = Field(
        description='A JSON object on each line: {"type": "codes.redeemed", "campaignId": "...", "digest": "...", '
        '"redeemedAt": "..."}; likewise codes.blocked and codes.complete.'
    )
    dry_run: bool = Field(False, description="Check the form of each line only.")


class CodesOf(Input):
    campaign_id: str = Field("", description=f"{CAMPAIGN} Empty: all campaigns.")


class VoidCodes(OfCampaign):
    upload: GivenFile = Field("", description=f"{_FILE}. Never type a code itself.")
    market_id: str = Field("", description="Instead of a file: the market, with `positions`.")
    positions: list[int] = Field([], description="Positions of codes in the order of import, from 1.")
    reason: str = Field("voided manually", description="Why, without a fan's data. Kept with the codes.")


class BlockCodes(OfCampaign):
    reason: str = Field("blocked by the issuer", description="Why. Kept with the codes.")


@operation(
    "codes import",
    "import_codes",
    Effect.ADD,
    duty="selection",
    size="report",
    role="manager",
    asset="codes",
    # The first import makes the keys of the campaign.
    uses=CHANGES_CAMPAIGNS,
    long=True,
)
def import_(call: Call, given: ImportCodes) -> Report:
    """Append the codes of a file, in its order; waiting markets continue.

    A file that was imported before, in whole or in part, adds what is missing: stop it at any time, and import the file
    again to continue. Rejected rows are in a file of their own. Fails if rows were rejected, and if the file has none.
    """
    # A late import: it loads pyarrow and DuckDB.
    from regworkers_core.selection.assign.release import resume_blocked

    path = call.face.open(given.upload)
    campaign = call.campaign(given.campaign_id or named_campaign(path))
    report = import_codes(
        call.runtime,
        CodesFile(
            path,
            campaign,
            market_id=given.market_id or None,
            rejects=path.with_name(path.name + ".rejects.csv"),
        ),
        run_id=call.run_id,
        resume=resume_blocked,
        dry_run=given.dry_run,
        stop=call.stop,
        on_progress=call.face.progress,
    )
    document = report.as_dict()
    stocks = read_stock(call.runtime, campaign, call.runtime.draws.get(campaign.campaign_id))
    left = document["advice"] or ""
    if report.rejected:
        others = "would be added" if given.dry_run else "count"
        left = f"{report.rejected.total()} of {report.lines} rows are rejected; all others {others}"
    if report.stopped:
        left = f"stopped after {report.lines} lines: import the file again to continue"
    return Report(
        document=document,
        facts={name: value for name, value in document.items() if name not in ("advice", "rejectsFile")},
        tables=[_stock(stocks)],
        rows=sum(each.codes for each in stocks),
        files={"rejects.csv": report.rejects_file} if report.rejects_file else {},
        left=left,
        counts={"lines": report.lines, "added": report.added},
        changed=not given.dry_run,
    )


@operation("codes status", "codes_status", duty="selection", role="manager", asset="codes")
def status(call: Call, given: CodesOf) -> Report:
    """Count codes by market and status, beside seats or winners. Fails if there are too few."""
    runtime = call.runtime
    chosen = [call.campaign(given.campaign_id)] if given.campaign_id else runtime.campaigns.list()
    found = [(each, read_stock(runtime, each, runtime.draws.get(each.campaign_id))) for each in chosen]
    document = [
        {"campaignId": each.campaign_id, "markets": [stock.as_dict() for stock in stocks]}
        for each, stocks in found
    ]
    short = [
        each.campaign_id
        for each, stocks in found
        if any(stock.missing or stock.capacity is None for stock in stocks)
    ]
    return Report(
        document=document[0] if given.campaign_id else document,
        facts={},
        tables=[_stock(stocks, f"codes of {each.campaign_id}") for each, stocks in found],
        left=f"codes are missing, or of a market that does not exist: {', '.join(short)}" if short else "",
    )


@operation(
    "codes export",
    "export_codes",
    # It keeps digests with the codes, and each export is in the audit log.
    Effect.ADD,
    duty="selection",
    size="report",
    asset="codes",
    uses=CHANGES_CAMPAIGNS,
    long=True,
    files="the codes, for their issuer",
)
def export(call: Call, given: ExportCodes) -> Report:
    """Write each code with its digest and the end of its time into a file for their issuer, who names a code by its
    digest from then on.

    A code is as good as a ticket: hand the file to the issuer only, over a way that is private, and delete it.
    Export again after each phase, because a code has an end only once it is given. Where seats pass on by themselves,
    the sensor `pass_on_sensor` does so.
    """
    campaign = call.campaign(given.campaign_id)
    if not given.for_issuer:
        raise RequestError(
            f"the file has the codes themselves, which only their issuer may have: give {call.face.field('for_issuer')}"
        )
    path = call.face.folder() / f"codes-{campaign.campaign_id}.csv"
    write = put_for_issuer if given.put else write_for_issuer
    written = write(call.runtime, campaign, path)
    return Report(
        document={"campaignId": campaign.campaign_id, "codes": written},
        files={} if given.put else {path.name: path},
        left="" if written else f"{campaign.campaign_id} has no codes",
        counts={"codes": written},
        changed=True,
    )


@operation(
    "codes redemptions",
    "import_redemptions",
    Effect.ADD,
    duty="selection",
    role="manager",
    asset="codes",
    long=True,
    files="the lines that were refused, and why",
)
def redemptions(call: Call, given: ImportRedemptions) -> Report:
    """Take what the issuer says of codes from a file, where it cannot send that: redeemed, blocked, complete up to a
    time.

    Make sure that the file is the issuer's: a line counts like a signed message. A repeat changes nothing. Fails if
    lines are refused.
    """
    campaign_id = call.campaign(given.campaign_id).campaign_id
    path = call.face.open(given.upload)
    done = take_file(call.runtime, campaign_id, path, run_id=call.run_id, dry_run=given.dry_run)
    numbers = {**done.taken, "refused": len(done.refused)}
    return Report(
        document={"campaignId": campaign_id, "lines": numbers},
        facts=numbers,
        files={"refused.csv": _csv(("line", "why"), done.refused)} if done.refused else {},
        left=f"{len(done.refused)} lines are refused" if done.refused else "",
        counts=numbers,
        changed=not given.dry_run,
    )


@operation(
    "codes void",
    "void_codes",
    Effect.DELETE,
    duty="selection",
    size="report",
    role="manager",
    asset="codes",
    long=True,
    files="the outcome of each code",
)
def void(call: Call, given: VoidCodes) -> Report:
    """Void codes for good, for example after a leak: those of a file, or those at positions of a market.

    A code that a fan holds is not voided: its issuer has to block it. Fails when one of them cannot be voided.
    """
    campaign = call.campaign(given.campaign_id)
    codes, unread = _codes(call, campaign, given)
    done = void_codes(
        call.runtime, campaign, codes, reason=given.reason, run_id=call.run_id, dry_run=not call.apply
    )
    left = sum(not each.done for each in done)
    parts = [f"{left} of {len(done)} codes cannot be voided"] if left else []
    parts += [f"{unread} lines of the file are not codes"] if unread else []
    outcomes = [(each.code, each.outcome) for each in done]
    return Report(
        document=[{"code": each.code, "done": each.done, "outcome": each.outcome} for each in done],
        facts={"codes": len(done), "outcomes": dict(Counter(outcome for _code, outcome in outcomes))},
        tables=[_stock(read_stock(call.runtime, campaign, call.runtime.draws.get(campaign.campaign_id)))],
        files={"voided.csv": _csv(("code", "outcome"), outcomes)},
        left="; ".join(parts),
        counts={"voided": sum(each.done for each in done)},
        word=campaign.campaign_id,
        question=f"{len(codes)} codes will be voided permanently",
        changed=call.apply,
    )


@operation(
    "codes block",
    "block_struck_codes",
    Effect.DELETE,
    duty="selection",
    role="manager",
    asset="codes",
    long=True,
    files="the codes, for their issuer",
)
def block(call: Call, given: BlockCodes) -> Report:
    """List codes that fans hold and that do not count, because the winner was struck or the draw annulled; record that
    their issuer refuses them.

    Only the issuer can block a code that a fan holds. Fails while one of them is not blocked.
    """
    campaign_id = call.campaign(given.campaign_id).campaign_id
    blocked = 0
    if call.apply:
        blocked = mark_blocked(call.runtime, campaign_id, reason=given.reason, run_id=call.run_id)
    found = struck_codes(call.runtime, campaign_id)
    lines = io.StringIO()
    write_csv(found, lines)
    left = sum(each.to_block for each in found)
    columns = ("code", "market", "phase", "status", "notified", "blocked")
    shown = [
        (document["code"], each.market_id, each.phase, each.status, each.notified, each.blocked)
        for each, document in ((each, each.as_dict()) for each in found)
    ]
    return Report(
        document=[each.as_dict() for each in found],
        facts={
            "codes": len(found),
            "toBlock": left,
            "notified": sum(each.notified for each in found),
            "blocked": blocked,
        },
        tables=[Table("struck", columns, shown)],
        files={"struck-codes.csv": lines.getvalue().encode()} if found else {},
        left=f"{left} codes have to be blocked by their issuer" if left else "",
        counts={"blocked": blocked},
        word=campaign_id if left else "",
        question=f"{left} codes will be recorded as blocked by the issuer",
        changed=call.apply,
    )


class _Codes(NamedTuple):
    codes: list[str]
    unread: int  # lines of the file without one


def _codes(call: Call, campaign: Campaign, given: VoidCodes) -> _Codes:
    if bool(given.upload) == bool(given.positions):
        raise RequestError("give either a file, or a market with positions")
    if given.upload:
        lines = [line for line in read_lines(call.face.open(given.upload)) if not isinstance(line, Blank)]
        caseless = campaign.codes.caseless
        codes = [normal(line.code, caseless=caseless) for line in lines if isinstance(line, CodeRow)]
        if not codes:
            raise RequestError("the file has no codes")
        return _Codes(codes, len(lines) - len(codes))
    at = call.runtime.codes.at(campaign.campaign_id, given.market_id, given.positions)
    if missing := sorted(set(given.positions) - at.keys()):
        raise RequestError(
            f"{given.market_id} of {campaign.campaign_id} has no code at position {missing[0]}"
        )
    return _Codes([placed.code for placed in at.values()], 0)


def _stock(stocks: Sequence[MarketStock], title: str = "stock") -> Table:
    return Table(title, _STOCK, [[each.as_dict()[name] for name in _STOCK] for each in stocks])


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    lines = io.StringIO()
    csv.writer(lines).writerows([columns, *rows])
    return lines.getvalue().encode()
