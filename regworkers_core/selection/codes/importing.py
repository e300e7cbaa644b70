"""Imports a file of codes into positions, in the file's order, each code once.

The file is read in constant memory, and an invalid row is rejected without ending the import. Batches are looked up,
then appended: under a lease, because positions continue from the highest, and safe without it, because a unique index
refuses a position that is taken. After a crash the first part of the file is imported without a gap; importing the file
again finds those codes and continues after them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from fairdraw.documents import as_document
from fairdraw.maths.codes import is_code, normal, salt_of
from fairdraw.scheduling import Progress, no_progress
from regworkers_core.adapters.files import (
    Blank,
    Cells,
    CsvFile,
    FirstSeen,
    Reject,
    RejectsFile,
    Shape,
    in_batches,
    masked,
)
from regworkers_core.adapters.mongo.codes import Code, NewCode
from regworkers_core.adapters.mongo.draws import MarketStatus
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.keys import quoted
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.leases import Lease, LeaseBusy, held_lease
from regworkers_core.engine.stop import OnStep, StopSignal, no_step
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.keys import ensure_keys

_COLUMNS = frozenset({"code", "marketId", "campaignId"})


class Resume(Protocol):
    """`assign.release.resume_blocked`, which plans the markets that have enough codes now."""

    def __call__(self, runtime: Runtime, campaign_id: str, *, run_id: str) -> dict[str, Any]: ...


class RejectedCode(StrEnum):
    """Why a row is not imported."""

    EMPTY_CODE = "EMPTY_CODE"
    INVALID_CODE = "INVALID_CODE"
    WRONG_CAMPAIGN = "WRONG_CAMPAIGN"
    MISSING_MARKET = "MISSING_MARKET"
    UNKNOWN_MARKET = "UNKNOWN_MARKET"
    WRONG_MARKET = "WRONG_MARKET"
    DUPLICATE_IN_FILE = "DUPLICATE_IN_FILE"
    TAKEN = "TAKEN"


@dataclass(frozen=True, slots=True)
class CodeRow:
    """A row of the file. An absent or empty cell is None."""

    # It counts the file's lines from 1.
    number: int
    # The code itself.
    code: str
    market_id: str | None
    campaign_id: str | None


Line = CodeRow | Reject | Blank


def read_lines(path: Path) -> Iterator[Line]:
    """Yield every line after the header. Raises UsageError if the file cannot be read or has no header."""
    with _codes_file(path) as file:
        for line in file:
            yield _row(line, file.columns) if isinstance(line, Cells) else line


def read_columns(path: Path) -> tuple[str, ...]:
    """Return the columns of the header. Raises UsageError as `read_lines` does."""
    with _codes_file(path) as file:
        return file.columns


def named_campaign(path: Path) -> str:
    """Return the campaign of the first row that names one in column campaignId. Raises UsageError if none does."""
    if "campaignId" in read_columns(path):
        for line in read_lines(path):
            if isinstance(line, CodeRow) and line.campaign_id is not None:
                return line.campaign_id
    raise UsageError(f"{path} does not say which campaign: give --campaign, or a column campaignId")


def _codes_file(path: Path) -> CsvFile:
    return CsvFile(lambda: path.open("rb"), str(path), _SHAPE)


def _accepts(columns: Sequence[str]) -> bool:
    return "code" in columns and set(columns) <= _COLUMNS and len(set(columns)) == len(columns)


_SHAPE = Shape(
    expected="`code` or `code,marketId` (campaignId may come with them)",
    words=_COLUMNS,
    accepts=_accepts,
    # Far longer than a row of three ids.
    max_line_chars=1024,
)


def _row(line: Cells, columns: Sequence[str]) -> CodeRow | Reject:
    fields = dict(zip(columns, line.values, strict=True))
    code = fields["code"]
    if not code:
        return Reject(line.number, RejectedCode.EMPTY_CODE, "")
    if not is_code(code):
        return Reject(line.number, RejectedCode.INVALID_CODE, masked(code))
    return CodeRow(line.number, code, fields.get("marketId") or None, fields.get("campaignId") or None)


# Codes that are looked up and appended together.
_BATCH = 1000


@dataclass(slots=True)
class ImportReport:
    """The result of an import. A dry run reports what a real run would add."""

    campaign_id: str
    dry_run: bool
    # All below together.
    lines: int = 0
    # Codes that are new.
    added: int = 0
    # Codes that were there already.
    known: int = 0
    # Lines without a code.
    blank: int = 0
    # Lines by the reason why they were refused.
    rejected: Counter[str] = field(default_factory=Counter)
    added_by_market: Counter[str] = field(default_factory=Counter)
    rejects_file: Path | None = None
    # It ended before the file did.
    stopped: bool = False
    # Facts by market that waited for codes and continues now.
    resumed: dict[str, Any] = field(default_factory=dict)

    @property
    def adds_up(self) -> bool:
        return self.lines == self.added + self.known + self.blank + self.rejected.total()

    @property
    def clean(self) -> bool:
        """Whether the whole file was read, no row was rejected, and there was at least one row."""
        return not self.rejected and not self.stopped and not self.empty

    @property
    def empty(self) -> bool:
        """Whether the whole file was read and has no row after its header."""
        return not self.stopped and self.lines == self.blank

    def as_dict(self) -> dict[str, Any]:
        return as_document(self) | {
            "rejected": dict(sorted(self.rejected.items())),
            "addedByMarket": dict(sorted(self.added_by_market.items())),
            "advice": "nothing to import: the file has no row after its header" if self.empty else None,
        }


class CodesFile(NamedTuple):
    path: Path
    campaign: Campaign
    market_id: str | None  # of rows that name none; a row that names another one is rejected
    rejects: Path  # takes the rows that are not valid, with line and reason


def import_codes(
    runtime: Runtime,
    file: CodesFile,
    *,
    run_id: str,
    resume: Resume,
    dry_run: bool = False,
    stop: StopSignal | None = None,
    on_progress: Progress = no_progress,
    on_step: OnStep = no_step,
) -> ImportReport:
    """Import every valid row of the file; then `resume` the markets of a published draw that waited for codes.

    Raises UsageError for a file that cannot be read, a market that is not the campaign's, keys of the campaign that
    cannot be read back, or another import that runs;
    TransientFailure if a store stays unavailable (import the file again to continue).
    """
    path, campaign, market_id, rejects = file
    market_id = _market_for(campaign, market_id, read_columns(path))
    report = ImportReport(campaign.campaign_id, dry_run)
    key = b"" if dry_run else ensure_keys(runtime, campaign).code
    with (
        _import_lease(runtime, campaign.campaign_id, run_id, dry_run) as lease,
        RejectsFile(rejects) as rejected,
        FirstSeen() as seen,
    ):
        work = _Import(runtime, campaign, market_id, report, rejected, seen, run_id, lease, on_step, key)
        for batch in in_batches(read_lines(path), _BATCH):
            if stop is not None and stop.is_set:
                report.stopped = True
                break
            work.take(batch)
            on_progress(report.lines, unit="lines")
    report.rejects_file = rejected.written
    if not dry_run:
        # Also after a repeat that added nothing: the previous import may have died just here.
        record = runtime.draws.get(campaign.campaign_id)
        markets = (
            [market for phase in record.phases.values() for market in phase.markets.values()]
            if record
            else []
        )
        if any(market["status"] == MarketStatus.BLOCKED for market in markets):
            report.resumed = resume(runtime, campaign.campaign_id, run_id=run_id)
    return report


@dataclass(slots=True)
class _Import:
    runtime: Runtime
    campaign: Campaign
    market_id: str | None
    report: ImportReport
    rejects: RejectsFile
    seen: FirstSeen
    run_id: str
    lease: Lease | None
    on_step: OnStep
    # It makes the salts; empty in a dry run.
    code_key: bytes = field(repr=False)
    # The highest position so far, by market.
    highest: dict[str, int] = field(default_factory=dict)

    def take(self, lines: Sequence[Line]) -> None:
        report = self.report
        report.lines += len(lines)
        wanted: dict[str, tuple[CodeRow, NewCode]] = {}
        for line in lines:
            if isinstance(line, Blank):
                report.blank += 1
                continue
            new = line if isinstance(line, Reject) else self._check(line)
            if isinstance(new, Reject):
                self._reject(new)
            elif isinstance(line, CodeRow):
                wanted[new.code] = (line, new)
        existing = self.runtime.codes.get(list(wanted)) if wanted else {}
        fresh = [new for code, (_, new) in wanted.items() if code not in existing]
        if fresh and not report.dry_run:
            existing |= self._append(fresh)
        for code, (row, new) in wanted.items():
            self._settle(row, new, existing.get(code))
        self.on_step("codes.after_batch")

    def _append(self, fresh: Sequence[NewCode]) -> dict[str, Code]:
        if self.lease is not None and self.lease.lost and not self.lease.renew():
            raise UsageError(
                f"the import for {self.campaign.campaign_id} lost its lease to another import: what it "
                "added remains; import the file again when the other import is done"
            )
        campaign_id = self.campaign.campaign_id
        return self.runtime.codes.add(
            campaign_id,
            [replace(new, salt=salt_of(self.code_key, campaign_id, new.code)) for new in fresh],
            import_id=self.run_id,
            at=iso(self.runtime.clock()),
            highest=self.highest,
        )

    def _check(self, row: CodeRow) -> NewCode | Reject:
        """Return the code to import, or why the row is rejected."""
        campaign = self.campaign
        if row.campaign_id not in (None, campaign.campaign_id):
            # Masked, too: if the columns are mixed up, this cell is the code.
            return Reject(row.number, RejectedCode.WRONG_CAMPAIGN, masked(row.campaign_id or ""))
        market_id = self.market_id if row.market_id is None else row.market_id
        if market_id is None:
            return Reject(row.number, RejectedCode.MISSING_MARKET, "")
        if campaign.market(market_id) is None:
            return Reject(row.number, RejectedCode.UNKNOWN_MARKET, masked(market_id))
        if self.market_id is not None and market_id != self.market_id:
            return Reject(row.number, RejectedCode.WRONG_MARKET, market_id)
        code = normal(row.code, caseless=campaign.codes.caseless)
        first = self.seen.first(code, row.number)
        if first is not None:
            return Reject(
                row.number, RejectedCode.DUPLICATE_IN_FILE, f"{masked(row.code)} as in line {first}"
            )
        return NewCode(code, market_id)

    def _settle(self, row: CodeRow, new: NewCode, stored: Code | None) -> None:
        report = self.report
        if stored is None:
            report.added += 1
            report.added_by_market[new.market_id] += 1
        elif (stored.campaign_id, stored.market_id) == (self.campaign.campaign_id, new.market_id):
            report.known += 1
        else:
            where = "another campaign"
            if stored.campaign_id == self.campaign.campaign_id:
                where = f"market {stored.market_id}"
            self._reject(Reject(row.number, RejectedCode.TAKEN, f"{masked(row.code)} belongs to {where}"))

    def _reject(self, reject: Reject) -> None:
        self.report.rejected[reject.reason.value] += 1
        self.rejects.add(reject)


def _market_for(campaign: Campaign, market_id: str | None, columns: Sequence[str]) -> str | None:
    """Return the market of rows that name none; None if every row has to name one."""
    known = ", ".join(campaign.market_ids)
    if market_id is None:
        if "marketId" in columns:
            return None
        if len(campaign.markets) > 1:
            raise UsageError(
                f"campaign {campaign.campaign_id} has the markets {known}, and the file has no column marketId: give "
                "the market of its codes with market_id (--market)"
            )
        return campaign.market_ids[0]
    if campaign.market(market_id) is None:
        raise UsageError(f"campaign {campaign.campaign_id} has no market {quoted(market_id)}: it has {known}")
    return market_id


@contextmanager
def _import_lease(runtime: Runtime, campaign_id: str, run_id: str, dry_run: bool) -> Iterator[Lease | None]:
    if dry_run:
        yield None
        return
    seconds = runtime.settings.selection.lease_seconds
    try:
        with held_lease(runtime.leases, f"codes-{campaign_id}", run_id, lease_seconds=seconds) as lease:
            yield lease
    except LeaseBusy:
        raise UsageError(
            f"another import of codes for {campaign_id} is running: repeat this one when it is done"
        ) from None
