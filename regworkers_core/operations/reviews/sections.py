"""What a review consists of: sections with tables, plots and remarks, each with its own source.

A source that did not answer leaves a section that says so; the other sections are written all the same. Reviews are
stored on S3 as `reviews/<kind>/<date>/<file>`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from regworkers_core.adapters.aws.clients import error_code
from regworkers_core.adapters.aws.objects import ObjectStore
from regworkers_core.domain.reasons import Failure, UsageError

Level = Literal["finding", "warning", "note"]


def counted(number: int, what: str) -> str:
    """`1 letter`, `2,000 letters`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


class Kind(StrEnum):
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    QUARTERLY = "quarterly"


class Remark(NamedTuple):
    """A finding has to be mended, a warning looked at; a note explains. The text says what helps."""

    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of plain values; None is shown as a dash."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[object]]

    @property
    def words(self) -> frozenset[int]:
        """Positions of the columns without any number, which are left-aligned."""
        return frozenset(
            at
            for at in range(len(self.columns))
            if not any(isinstance(row[at], int | float) for row in self.rows)
        )


@dataclass(frozen=True, slots=True)
class Section:
    """`name` is a word for file names, `lead` the section in a sentence. `plots` are PNG by name. `numbers` are for
    scripts and for the trends of later reviews. `unread` says who did not answer, empty: all did.
    """

    name: str
    title: str
    lead: str = ""
    remarks: tuple[Remark, ...] = ()
    tables: tuple[Table, ...] = ()
    plots: Mapping[str, bytes] = field(default_factory=dict)
    numbers: Mapping[str, Any] = field(default_factory=dict)
    unread: str = ""

    def of_level(self, level: Level) -> list[Remark]:
        return [remark for remark in self.remarks if remark.level == level]

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "lead": self.lead,
            "unread": self.unread or None,
            "remarks": [remark._asdict() for remark in self.remarks],
            "numbers": dict(self.numbers),
            "tables": [
                {"title": each.title, "columns": list(each.columns), "rows": [list(row) for row in each.rows]}
                for each in self.tables
            ],
        }


@dataclass(frozen=True, slots=True)
class Review:
    """`since` and `at` are the ISO times of its period."""

    kind: Kind
    environment: str
    since: str
    at: str
    sections: tuple[Section, ...]

    @property
    def date(self) -> str:
        """Under which it is kept."""
        return self.at[:10]

    @property
    def title(self) -> str:
        return f"{self.kind.value.capitalize()} review of {self.environment}, {self.date}"

    def remarks(self, level: Level) -> list[tuple[str, str]]:
        """Section and text of all remarks of a level."""
        return [
            (section.title, remark.text) for section in self.sections for remark in section.of_level(level)
        ]

    @property
    def unread(self) -> list[Section]:
        return [section for section in self.sections if section.unread]

    @property
    def fine(self) -> bool:
        """Nothing has to be mended, and all that was asked answered."""
        return not self.unread and not self.remarks("finding")

    def as_dict(self) -> dict[str, Any]:
        """A JSON document: ids and numbers of ours, nothing of a fan."""
        return {
            "review": self.kind.value,
            "environment": self.environment,
            "since": self.since,
            "at": self.at,
            "fine": self.fine,
            "findings": [f"{title}: {text}" for title, text in self.remarks("finding")],
            "warnings": [f"{title}: {text}" for title, text in self.remarks("warning")],
            "unread": {section.name: section.unread for section in self.unread},
            "sections": [section.as_dict() for section in self.sections],
        }


@dataclass(frozen=True, slots=True)
class Part:
    """A section to be: `read` raises what its source raises."""

    name: str
    title: str
    read: Callable[[], Section]

    def made(self) -> Section:
        """Never raises what a source may raise: an outage, missing things, a refused call."""
        try:
            return self.read()
        except (Failure, UsageError) as error:
            why = str(error)
        except ClientError as error:
            why = f"AWS refuses {error.operation_name}: {error_code(error)}"
        except BotoCoreError as error:
            why = f"AWS: {type(error).__name__}"
        return Section(self.name, self.title, unread=why)


def made(parts: Iterable[Part], tell: Callable[[str], None]) -> tuple[Section, ...]:
    """All sections in their order; `tell` hears of each before it is read."""
    sections = []
    for part in parts:
        tell(part.title.lower())
        # Whatever name a reader gave it, it is found under that of its part.
        sections.append(replace(part.made(), name=part.name, title=part.title))
    return tuple(sections)


ROOT = "reviews/"
REPORT = "report.json"
_KEY = re.compile(rf"{ROOT}(?P<kind>[a-z]+)/(?P<date>\d{{4}}-\d\d-\d\d)/(?P<file>[^/]+)")


def report_key(kind: Kind, date: str, file: str) -> str:
    return f"{ROOT}{kind.value}/{date}/{file}"


def date_of(key: str) -> str | None:
    """The date of the review that an object belongs to; None for what is no review's."""
    found = _KEY.fullmatch(key)
    return found["date"] if found else None


def reports(objects: ObjectStore, kind: Kind) -> list[str]:
    """The dates of all reviews of a kind. Raises TransientFailure."""
    keys = objects.list(f"{ROOT}{kind.value}/")
    return sorted({date for key in keys if key.endswith(REPORT) and (date := date_of(key))})
