"""What a review consists of (sections with tables, plots and remarks, each with its own source), and how it is kept.

A source that did not answer leaves a section that says so; the other sections are written all the same. Reviews are
stored on S3 as `reviews/<kind>/<date>/<file>`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from fairdraw.documents import as_document, as_json
from regworkers_core.adapters.aws.answers import AwsRefusal
from regworkers_core.adapters.aws.objects import ObjectStore
from regworkers_core.adapters.files import private_folder, write_private
from regworkers_core.domain.reasons import Failure, TransientFailure, UsageError
from regworkers_core.domain.snapshot import Severity, Unread
from regworkers_core.domain.timestamps import iso
from regworkers_core.operation import Level, Remark, Report, Table
from regworkers_core.operations.alerts.conditions.condition import Check
from regworkers_core.reporting import markdown_image, markdown_table, page
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Settings

ROOT = "reviews/"
REPORT = "report.json"
_KEY = re.compile(rf"{ROOT}(?P<kind>[a-z]+)/(?P<date>\d{{4}}-\d\d-\d\d)/(?P<file>[^/]+)")


class ReviewKind(StrEnum):
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    QUARTERLY = "quarterly"


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a review, with the source that it needs."""

    name: str  # in file names
    title: str
    # Its first sentence sums it up, its files are PNG, and its document has numbers for scripts and for the trends of
    # later reviews. Empty if it could not be read.
    report: Report
    unread: str = ""  # which source did not answer; empty: all did

    @property
    def lead(self) -> str:
        return self.report.said[0] if self.report.said else ""

    @property
    def plots(self) -> Mapping[str, bytes]:
        return {Path(name).stem: png for name, png in self.report.files.items() if isinstance(png, bytes)}

    def of_level(self, level: Level) -> list[Remark]:
        return [remark for remark in self.report.remarks if remark.level == level]

    def as_dict(self) -> dict[str, Any]:
        return {
            **as_document(self, "name", "title", "lead"),
            "unread": self.unread or None,
            "remarks": as_json(self.report.remarks),
            "numbers": as_json(self.report.document),
            "tables": [as_document(each, "title", "columns", "rows") for each in self.report.tables],
        }


def section_report(
    lead: str,
    remarks: Sequence[Remark] = (),
    tables: Sequence[Table] = (),
    plots: Mapping[str, bytes] | None = None,
    numbers: Mapping[str, Any] | None = None,
) -> Report:
    """What a section says: see `Section.report`."""
    files = {f"{name}.png": png for name, png in (plots or {}).items()}
    return Report(document=numbers or {}, said=[lead], remarks=remarks, tables=tables, files=files)


@dataclass(frozen=True, slots=True)
class Review:
    """A review of a period."""

    # How long the period is.
    kind: ReviewKind
    environment: str
    # The ISO time of the period's begin.
    since: str
    # The ISO time of its end.
    until: str
    # The ISO time at which it was made: what has no history, such as queues and alarms, is as it was then.
    at: str
    # Their order is that of the page.
    sections: tuple[Section, ...]

    @property
    def date(self) -> str:
        """The date under which the review is stored."""
        return self.until[:10]

    @property
    def period(self) -> str:
        """A sentence on what it covers."""
        return f"From {self.since} to {self.until}; what has no history, such as queues and alarms, as of {self.at}."

    @property
    def title(self) -> str:
        return f"{self.kind.value.capitalize()} review of {self.environment}, {self.date}"

    def remarks(self, level: Level) -> list[tuple[str, str]]:
        return [
            (section.title, remark.text) for section in self.sections for remark in section.of_level(level)
        ]

    @property
    def unread(self) -> list[Section]:
        return [section for section in self.sections if section.unread]

    @property
    def fine(self) -> bool:
        """Whether every source answered and there are no findings."""
        return not self.unread and not self.remarks("finding")

    def as_dict(self) -> dict[str, Any]:
        """A JSON document without any data of fans."""
        return {
            "review": self.kind.value,
            **as_document(self, "environment", "since", "until", "at", "fine"),
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
    read: Callable[[], Report]

    def section(self) -> Section:
        """Read the section. An outage, missing resources or a refused call make it `unread`."""
        from botocore.exceptions import BotoCoreError

        try:
            return Section(self.name, self.title, self.read())
        except (Failure, UsageError) as error:
            unread = str(error)
        except AwsRefusal as error:
            unread = f"AWS refuses {error.operation_name}: {error.code}"
        except BotoCoreError as error:
            unread = f"AWS: {type(error).__name__}"
        return Section(self.name, self.title, Report(document={}), unread)


def read_sections(parts: Iterable[SectionReader], tell: Callable[[str], None]) -> tuple[Section, ...]:
    """Read all sections in order. `tell` is called with the title of each before it is read."""
    sections = []
    for part in parts:
        tell(part.title.lower())
        sections.append(part.section())
    return tuple(sections)


def level_of(severity: str) -> Level:
    return "finding" if severity == Severity.CRITICAL else "warning"


def lines_of(check: Check, settings: Settings, now: float, **parts: Any) -> list[Remark]:
    """What a check finds in these parts of a snapshot, over the review's period."""
    judged = check.of(settings, now, **parts)
    if isinstance(judged, Unread):
        return [Remark("note", f"{check.name}: {judged.why}")]
    page = f"docs/runbooks/{check.runbook}"
    return [Remark(level_of(each.severity), f"{each.summary}; {page}") for each in judged.findings]


def no_drains(since: float, what: str = "none ran, or none wrote its log") -> Report:
    """The section of a period (from epoch seconds on) in which no drain wrote a minute."""
    text = f"no drain has been recorded since {iso(since)}: {what}"
    return section_report(f"No data since {iso(since)}.", [Remark("note", text)])


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


PAGE = "report.html"


class RenderedReview(NamedTuple):
    """A rendered review."""

    # It refers to its plots as files beside it.
    markdown: str
    # It is self-contained.
    html: str
    # Markdown with inline plots, for a metadata view.
    overview: str
    # The same for each section.
    by_section: Mapping[str, str]
    # PNGs by name.
    plots: Mapping[str, bytes]


def shown(review: Review) -> RenderedReview:
    plots = {
        f"{section.name}-{name}": plot for section in review.sections for name, plot in section.plots.items()
    }
    overview = _overview(review)
    body = [
        _section(each, {name: f"![{name}]({each.name}-{name}.png)" for name in each.plots})
        for each in review.sections
    ]
    markdown = "\n\n".join([f"# {review.title}", review.period, overview, *body]) + "\n"
    by_section = {
        each.name: _section(each, {name: markdown_image(name, plot) for name, plot in each.plots.items()})
        for each in review.sections
    }
    return RenderedReview(
        markdown, page("review", title=review.title, review=review), overview, by_section, plots
    )


def _overview(review: Review) -> str:
    rows = []
    for each in review.sections:
        levels = [None if each.unread else len(each.of_level(level)) for level in ("finding", "warning")]
        text = f"**unavailable**: {each.unread}" if each.unread else each.lead
        rows.append((each.title, *levels, text))
    return markdown_table(("section", "findings", "warnings", ""), rows, words={3})


def _section(section: Section, plots: Mapping[str, str]) -> str:
    lines = [f"## {section.title}", ""]
    if section.unread:
        return "\n".join([*lines, f"**Unavailable**: {section.unread}"])
    if section.lead:
        lines += [section.lead, ""]
    lines += [f"- **{remark.level}**: {remark.text}" for remark in section.report.remarks]
    if section.report.remarks:
        lines.append("")
    for each in section.report.tables:
        lines += [f"**{each.title}**", "", markdown_table(each.columns, each.rows, each.words), ""]
    lines += [f"{plot}\n" for plot in plots.values()]
    return "\n".join(lines).rstrip()


class PublishedReview(NamedTuple):
    """A review that was stored."""

    # What it says.
    review: Review
    # How it looks.
    shown: RenderedReview
    # The address of the page; None if it could not be stored.
    where: str | None
    # Why it could not be stored.
    trouble: str = ""

    @property
    def fine(self) -> bool:
        return self.review.fine and self.where is not None


def publish(runtime: Runtime, review: Review, folder: Path | None = None) -> PublishedReview:
    """Store a review, replacing one of the same kind and day. If S3 is unavailable, the result says so.

    Raises UsageError for a folder that cannot be written.
    """
    made = shown(review)
    if folder is not None:
        return PublishedReview(review, made, str(_to_folder(folder, dict(_files(review, made)))))
    try:
        for name, data in _files(review, made):
            runtime.objects.put_bytes(report_key(review.kind, review.date, name), data)
    except (TransientFailure, UsageError) as error:
        return PublishedReview(review, made, None, f"not stored on S3: {error}")
    return PublishedReview(
        review, made, f"s3://{runtime.objects.bucket}/{report_key(review.kind, review.date, PAGE)}"
    )


def _files(review: Review, made: RenderedReview) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file. The numbers are last: if later reviews find them, the review is complete."""
    for name, plot in made.plots.items():
        yield f"{name}.png", plot
    yield "report.md", made.markdown.encode()
    yield PAGE, made.html.encode()
    yield REPORT, orjson.dumps(review.as_dict(), option=orjson.OPT_INDENT_2, default=str)


def _to_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    try:
        private_folder(folder)
        for name, data in files.items():
            write_private(folder / name, data)
    except OSError as error:
        raise UsageError(f"cannot write to {folder} ({type(error).__name__}): give another folder") from None
    return folder / PAGE
