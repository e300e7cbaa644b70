"""The record of a campaign in the log: as it opened, as it was amended, and whether its draw keeps to that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import NamedTuple

from fairdraw.maths.manifest import Manifest
from fairdraw.maths.opened import IN_TIME_SECONDS, Opened, findings_against, opened_name
from fairdraw.terms import iso, seconds


@dataclass(frozen=True, slots=True)
class RecordLeaf:
    """One file of a record, and its leaf."""

    opened: Opened
    # That of the leaf.
    index: int
    # When the leaf was in the log, in seconds since the epoch; None if that is not known.
    at: float | None


class OpenTime(NamedTuple):
    """When a campaign was open, in seconds since the epoch."""

    start: float
    end: float


def term_findings(record: Sequence[RecordLeaf], manifest: Manifest, manifest_index: int) -> Iterator[str]:
    """What the manifest of phase 1, whose leaf is `manifest_index`, has otherwise than the last file of the record
    before it, and which files came after it, one sentence each.
    """
    before_it = files_before(record, manifest_index)
    for number in range(len(before_it), len(record)):
        yield f"{opened_name(number)}: in the log after the manifest, so it binds nothing"
    if before_it:
        yield from findings_against(before_it[-1], manifest)


def files_before(record: Sequence[RecordLeaf], index: int) -> list[Opened]:
    """The files that were in the log before this leaf."""
    return [each.opened for each in record if each.index < index]


def time_findings(record: Sequence[RecordLeaf]) -> Iterator[str]:
    """Which files of a record were in the log too late."""
    if not record:
        return
    first = record[0]
    if first.at is None or first.at > _at(first.opened.opens_at) + IN_TIME_SECONDS:
        yield (
            f"{opened_name(0)}: in the log {_when(first.at)}, more than {IN_TIME_SECONDS // 60} minutes after"
            f" {first.opened.opens_at}, when the campaign opened"
        )
    for number, (before, now) in enumerate(pairwise(record), 1):
        if _closed_before(before, now):
            yield (
                f"{opened_name(number)}: closesAt was changed {_when(now.at)}, when {before.opened.closes_at}, the one"
                " before, was over"
            )


def closing(record: Sequence[RecordLeaf]) -> float:
    """The last closesAt that was set before the one that it replaced, in seconds since the epoch."""
    closes = _at(record[0].opened.closes_at)
    for before, now in pairwise(record):
        closes = closes if _closed_before(before, now) else _at(now.opened.closes_at)
    return closes


def open_times(record: Sequence[RecordLeaf]) -> Iterator[OpenTime]:
    """When the campaign was open, by each file of its record for as long as it was the last one."""
    ends = [inf if each.at is None else each.at for each in record[1:]]
    starts = [-inf, *(-inf if each.at is None else each.at for each in record[1:])]
    for each, start, end in zip(record, starts, [*ends, inf], strict=True):
        found = OpenTime(max(start, _at(each.opened.opens_at)), min(end, _at(each.opened.closes_at)))
        if found.start < found.end:
            yield found


def _closed_before(before: RecordLeaf, now: RecordLeaf) -> bool:
    """Whether an amendment changes closesAt when the one before it was over."""
    closes = before.opened.closes_at
    return now.opened.closes_at != closes and (now.at is None or now.at > _at(closes))


def _at(time: str) -> float:
    return seconds(time) or 0.0


def _when(at: float | None) -> str:
    return "at a time that no witness vouches for" if at is None else f"at {iso(at)}"
