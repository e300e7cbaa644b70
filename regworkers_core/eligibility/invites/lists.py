"""Reads a list of invites line by line, and works it off in batches.

Uploads and removals share this: a list of any size is read as a stream, several batches are processed at once, and one
list per campaign and type runs at a time. After a crash the same list is given again: what is done is found done.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

from fairdraw import scheduling
from fairdraw.documents import as_document
from fairdraw.scheduling import Progress, no_progress
from regworkers_core.adapters.aws.tables import MAX_GET
from regworkers_core.adapters.files import (
    Blank,
    Cells,
    CsvFile,
    FirstSeen,
    Reject,
    RejectsFile,
    Shape,
    masked,
)
from regworkers_core.domain.claim import InviteType, is_mail
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.eligibility.request import MAX_ID, is_blank, text_problem
from regworkers_core.engine.dependency import TokenBucket
from regworkers_core.engine.leases import Lease, LeaseBusy, held_lease
from regworkers_core.engine.stop import OnStep, StopSignal, no_step
from regworkers_core.runtime import Runtime

# A row may have further columns, which are not read.
_MAX_LINE_CHARS = 16_384
# How a spreadsheet writes a long number: the last digits are lost, and no id looks like this.
_MANGLED = re.compile(r"\d(?:[.,]\d+)?E\+\d{2}")
# The replacement for bytes that are not UTF-8.
_NO_TEXT = "\ufffd"


class RejectedLine(StrEnum):
    EMPTY = "EMPTY"
    INVALID_EMAIL = "INVALID_EMAIL"
    INVALID_ID = "INVALID_ID"
    MANGLED_NUMBER = "MANGLED_NUMBER"


class InviteRow(NamedTuple):
    """`value` is comparable; `number` counts the file's lines from 1."""

    number: int
    value: str


Line = InviteRow | Reject | Blank
# Opens the list at its beginning.
OpenFile = Callable[[], BufferedReader]


def read_rows(open_it: OpenFile, name: str, type_: InviteType) -> Iterator[Line]:
    """Yield every line after the header, which has one column of the type's name; others are not read. Raises
    UsageError if the file cannot be read or has another header.
    """
    with CsvFile(open_it, name, _shape(type_)) as file:
        column = next(place for place, title in enumerate(file.columns) if _is_titled(title, type_))
        for line in file:
            yield read_value(line.number, line.values[column], type_) if isinstance(line, Cells) else line


def require_header(open_it: OpenFile, name: str, type_: InviteType) -> None:
    """Raise UsageError if the file cannot be read or has another header."""
    with CsvFile(open_it, name, _shape(type_)):
        pass


def read_value(number: int, text: str, type_: InviteType) -> InviteRow | Reject:
    """Read one value as it was given."""
    problem = _problem(text, type_)
    if problem is not None:
        return Reject(number, problem, masked(text))
    return InviteRow(number, type_.comparable(text))


def read_values(values: Iterable[str], type_: InviteType) -> Iterator[Line]:
    """Yield values that were typed in, numbered from 1."""
    for number, text in enumerate(values, 1):
        yield read_value(number, text.strip(), type_)


def local_file(path: Path) -> OpenFile:
    return lambda: path.open("rb")


def _problem(text: str, type_: InviteType) -> RejectedLine | None:
    if not text:
        return RejectedLine.EMPTY
    if type_ is InviteType.EMAIL:
        return None if is_mail(text) and _NO_TEXT not in text else RejectedLine.INVALID_EMAIL
    if _MANGLED.fullmatch(text):
        return RejectedLine.MANGLED_NUMBER
    if text_problem(text, MAX_ID) is not None or is_blank(text) or _NO_TEXT in text:
        return RejectedLine.INVALID_ID
    return None


def _shape(type_: InviteType) -> Shape:
    def accepts(columns: Sequence[str]) -> bool:
        return sum(_is_titled(title, type_) for title in columns) == 1

    return Shape(
        expected=f"`{type_.value}` (one column of that name; others are not read)",
        words=frozenset(InviteType),
        accepts=accepts,
        max_line_chars=_MAX_LINE_CHARS,
    )


def _is_titled(title: str, type_: InviteType) -> bool:
    return title.lower() == type_.value.lower()


# Batches in flight for each thread: the next one is ready when a thread is done, and memory stays bounded.
_BATCHES_PER_THREAD = 2

# Processes comparable values and counts their outcomes; runs in threads.
Work = Callable[[Sequence[str]], Counter[str]]


@dataclass(slots=True)
class ListReport:
    """The result of a list. A dry run reports the outcomes that a real run would have."""

    campaign_id: str
    type: InviteType
    dry_run: bool
    # All possible outcomes, in the order in which they are reported.
    names: tuple[str, ...]
    ttl: int | None = None  # epoch seconds until which the invites are valid
    lines: int = 0  # the sum of outcomes, rejected, duplicate and blank ones
    outcomes: Counter[str] = field(default_factory=Counter)  # lines that were valid
    duplicates: int = 0  # lines whose value occurred in an earlier line
    blank: int = 0  # empty lines
    rejected: Counter[str] = field(default_factory=Counter)  # lines that were not valid, by reason
    rejects_file: Path | None = None
    stopped: bool = False  # whether it ended early
    advice: str | None = None  # what to do next

    @property
    def adds_up(self) -> bool:
        taken = self.outcomes.total() + self.duplicates + self.blank
        return self.lines == taken + self.rejected.total()

    @property
    def clean(self) -> bool:
        """Whether the whole list was read and no line rejected."""
        return not self.rejected and not self.stopped

    def as_dict(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            **as_document(self, "campaign_id", "type", "dry_run", "lines"),
            **{name: self.outcomes[name] for name in self.names},
            **as_document(self, "duplicates", "blank"),
            "invalid": self.rejected.total(),
            "rejected": dict(sorted(self.rejected.items())),
            **as_document(self, "rejects_file", "stopped"),
        }
        if self.ttl is not None:
            document["validUntil"] = iso(self.ttl)
        if self.advice is not None:
            document["advice"] = self.advice
        return document


@dataclass(frozen=True, kw_only=True)
class Listed:
    """What is done with a list, and how the caller follows and ends it."""

    campaign: str  # its slug or id
    type: InviteType
    run_id: str
    dry_run: bool = True
    rate: float | None = None  # in writes per second; None: invites.itemsPerSecond
    stop: StopSignal | None = None
    on_progress: Progress = no_progress
    on_step: OnStep = no_step

    @property
    def stopped(self) -> bool:
        return self.stop is not None and self.stop.is_set


def work_off(
    runtime: Runtime,
    lines: Iterable[Line],
    work: Work,
    report: ListReport,
    listed: Listed,
    *,
    rejects: Path,
    lease: Lease | None,
) -> None:
    """Pass the values of all lines to `work`, up to 100 distinct ones at a time, and count into `report`.

    Raises UsageError if the lease is lost, TransientFailure if DynamoDB stays unavailable. In both cases what was
    written remains, and the same list continues after it.
    """
    threads = runtime.settings.invites.concurrency
    running: deque[scheduling.Future[Counter[str]]] = deque()

    def settle(most: int) -> None:
        while len(running) > most:
            report.outcomes += running.popleft().result()
            listed.on_progress(report.lines, unit="lines")
            listed.on_step("invites.after_batch")

    with RejectsFile(rejects) as rejected, FirstSeen() as seen, scheduling.pool(threads, "invites") as pool:
        try:
            for batch in _batches(lines, report, rejected, seen):
                if listed.stopped:
                    report.stopped = True
                    report.lines -= len(batch)
                    break
                _require(lease, report)
                running.append(pool.submit(work, batch))
                settle(threads * _BATCHES_PER_THREAD - 1)
            settle(0)
        except TransientFailure as failure:
            raise TransientFailure(
                failure.dependency,
                f"{failure.error}; {report.outcomes.total()} invites are done: repeat the command with the same "
                "list to continue",
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)
    report.rejects_file = rejected.written


def _batches(
    lines: Iterable[Line], report: ListReport, rejects: RejectsFile, seen: FirstSeen
) -> Iterator[list[str]]:
    """Yield distinct values, 100 at a time, and count every other line."""
    batch: list[str] = []
    for line in lines:
        report.lines += 1
        if isinstance(line, InviteRow):
            if seen.first(line.value, line.number) is not None:
                report.duplicates += 1
                continue
            batch.append(line.value)
            if len(batch) == MAX_GET:
                yield batch
                batch = []
        elif isinstance(line, Blank):
            report.blank += 1
        else:
            _reject(line, report, rejects)
    if batch:
        yield batch


def _reject(line: Reject, report: ListReport, rejects: RejectsFile) -> None:
    report.rejected[line.reason.value] += 1
    rejects.add(line)


def _require(lease: Lease | None, report: ListReport) -> None:
    if lease is not None and lease.lost and not lease.renew():
        raise UsageError(
            f"this list for {report.campaign_id} lost its lease to another list: what it wrote remains; repeat it "
            "when the other list is done"
        )


def write_limit(runtime: Runtime, rate: float | None) -> Callable[[int], object]:
    """Return a function that waits until a number of invites may be written, by `rate` or the settings."""
    rate = rate or runtime.settings.invites.items_per_second
    return (lambda _number: None) if rate is None else TokenBucket(rate).take


def lease_name(campaign_id: str, type_: InviteType) -> str:
    return f"invites-{campaign_id}-{type_.value}"


@contextmanager
def one_at_a_time(runtime: Runtime, report: ListReport, run_id: str) -> Iterator[Lease | None]:
    """Hold the lease of the campaign's invites of one type: no other list writes between the read and the write of a
    batch. A dry run needs no lease. Raises UsageError while another list runs.
    """
    if report.dry_run:
        yield None
        return
    name, seconds = lease_name(report.campaign_id, report.type), runtime.settings.invites.lease_seconds
    try:
        with held_lease(runtime.leases, name, run_id, lease_seconds=seconds) as lease:
            yield lease
    except LeaseBusy:
        raise UsageError(
            f"another list of invites by {report.type.value} for {report.campaign_id} is running: repeat this one when"
            " it is done"
        ) from None
