"""What a review consists of: sections with tables, plots and remarks, each with its own source.

A source that did not answer leaves a section that says so; the other sections are written all the same. Reviews are
stored on S3 as `reviews/<kind>/<date>/<file>`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from fairdraw.documents import as_document, as_json
from regworkers_core.adapters.aws.answers import AwsRefusal
from regworkers_core.adapters.aws.objects import ObjectStore
from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.domain.snapshot import Unread
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.alerts.conditions.condition import Check
from regworkers_core.reporting.pages import Level, Remark, Table
from regworkers_core.settings import Settings

ROOT = "reviews/"
REPORT = "report.json"
_KEY = re.compile(rf"{ROOT}(?P<kind>[a-z]+)/(?P<date>\d{{4}}-\d\d-\d\d)/(?P<file>[^/]+)")


class ReviewKind(StrEnum):
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    QUARTERLY = "quarterly"


@dataclass(frozen=True, slots=True)
class ReviewSection:
    """A section of a review."""

    # A sentence that sums it up.
    lead: str = ""
    # Findings and hints.
    remarks: Sequence[Remark] = ()
    tables: Sequence[Table] = ()
    # PNGs by name.
    plots: Mapping[str, bytes] = field(default_factory=dict)
    # For scripts, and for the trends of later reviews.
    numbers: Mapping[str, Any] = field(default_factory=dict)
    # Which source did not answer; empty if all did.
    unread: str = ""
    # It is used in file names, and is set when the section is read as a `SectionReader`.
    name: str = ""
    # It is set with the name.
    title: str = ""

    def of_level(self, level: Level) -> list[Remark]:
        return [remark for remark in self.remarks if remark.level == level]

    def as_dict(self) -> dict[str, Any]:
        names = ("name", "title", "lead", "unread", "remarks", "numbers", "tables")
        return as_document(self, *names) | {
            "unread": self.unread or None,
            "tables": [
                {"title": each.title, "columns": list(each.columns), "rows": as_json(each.rows)}
                for each in self.tables
            ],
        }


@dataclass(frozen=True, slots=True)
class Review:
    """A review of a period."""

    # How long the period is.
    kind: ReviewKind
    environment: str
    # The ISO time of its begin.
    since: str
    # The ISO time of its end.
    at: str
    # Their order is that of the page.
    sections: tuple[ReviewSection, ...]

    @property
    def date(self) -> str:
        """The date under which the review is stored."""
        return self.at[:10]

    @property
    def title(self) -> str:
        return f"{self.kind.value.capitalize()} review of {self.environment}, {self.date}"

    def remarks(self, level: Level) -> list[tuple[str, str]]:
        return [
            (section.title, remark.text) for section in self.sections for remark in section.of_level(level)
        ]

    @property
    def unread(self) -> list[ReviewSection]:
        return [section for section in self.sections if section.unread]

    @property
    def fine(self) -> bool:
        """Whether every source answered and there are no findings."""
        return not self.unread and not self.remarks("finding")

    def as_dict(self) -> dict[str, Any]:
        """A JSON document without any data of fans."""
        return {
            "review": self.kind.value,
            **as_document(self, "environment", "since", "at", "fine"),
            "findings": [f"{title}: {text}" for title, text in self.remarks("finding")],
            "warnings": [f"{title}: {text}" for title, text in self.remarks("warning")],
            "unread": {section.name: section.unread for section in self.unread},
            "sections": [section.as_dict() for section in self.sections],
        }


@dataclass(frozen=True, slots=True)
class SectionReader:
    """A section that is not read yet: `read` raises what its source raises."""

    name: str
    title: str
    read: Callable[[], ReviewSection]

    def section(self) -> ReviewSection:
        """Read the section. An outage, missing resources or a refused call make it `unread`."""
        from botocore.exceptions import BotoCoreError

        try:
            found = self.read()
        except (Failure, UsageError) as error:
            found = ReviewSection(unread=str(error))
        except AwsRefusal as error:
            found = ReviewSection(unread=f"AWS refuses {error.operation_name}: {error.code}")
        except BotoCoreError as error:
            found = ReviewSection(unread=f"AWS: {type(error).__name__}")
        return replace(found, name=self.name, title=self.title)


def read_sections(parts: Iterable[SectionReader], tell: Callable[[str], None]) -> tuple[ReviewSection, ...]:
    """Read all sections in order. `tell` is called with the title of each before it is read."""
    sections = []
    for part in parts:
        tell(part.title.lower())
        sections.append(part.section())
    return tuple(sections)


def lines_of(
    check: Check, settings: Settings, now: float, *, level: Level = "finding", **parts: Any
) -> list[Remark]:
    """What a check of the alerts finds in these parts of a snapshot, over the review's period."""
    judged = check.of(settings, now, **parts)
    if isinstance(judged, Unread):
        return [Remark("note", f"{check.name}: {judged.why}")]
    page = f"docs/runbooks/{check.runbook}"
    return [Remark(level, f"{each.summary}; {page}") for each in judged.findings]


def no_drains(since: float, what: str = "none ran, or none wrote its log") -> ReviewSection:
    """The section of a period (from epoch seconds on) in which no drain wrote a minute."""
    text = f"no drain has been recorded since {iso(since)}: {what}"
    return ReviewSection(f"No data since {iso(since)}.", [Remark("note", text)])


def counted(number: int, what: str) -> str:
    """`1 message`, `2,000 messages`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)


def report_key(kind: ReviewKind, date: str, file: str) -> str:
    return f"{ROOT}{kind.value}/{date}/{file}"


def date_of(key: str) -> str | None:
    """The date of the review that an object belongs to; None if it belongs to no review."""
    found = _KEY.fullmatch(key)
    return found["date"] if found else None


def reports(objects: ObjectStore, kind: ReviewKind) -> list[str]:
    """The dates of all stored reviews of a kind. Raises TransientFailure."""
    keys = objects.list(f"{ROOT}{kind.value}/")
    return sorted({date for key in keys if key.endswith(REPORT) and (date := date_of(key))})
