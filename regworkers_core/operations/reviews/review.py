"""A review from end to end: read its sections, render it as Markdown and as a page, store it on S3 or in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import orjson

from regworkers_core.adapters.files import private_folder, write_private
from regworkers_core.domain.drill import DrillResult
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.dependencies import LOCK, DependencyReport, read_dependencies
from regworkers_core.operations.health.activity import DAY_SECONDS
from regworkers_core.operations.reviews import monthly, quarterly, weekly
from regworkers_core.operations.reviews.sections import (
    REPORT,
    Review,
    ReviewKind,
    ReviewSection,
    SectionReader,
    read_sections,
    report_key,
)
from regworkers_core.reporting.pages import markdown_image, markdown_table, page
from regworkers_core.runtime import Runtime

PAGE = "report.html"
_DAYS = {
    ReviewKind.WEEKLY: weekly.DAYS,
    ReviewKind.MONTHLY: monthly.DAYS,
    ReviewKind.QUARTERLY: quarterly.DAYS,
}


def make_review(
    runtime: Runtime,
    kind: ReviewKind,
    *,
    drill: Callable[[], DrillResult] | None = None,
    locked: Callable[[], DependencyReport] = lambda: read_dependencies(LOCK),
    provider: Callable[[], str | None] = quarterly.newest_provider,
    tell: Callable[[str], None] = lambda _text: None,
) -> Review:
    """Read all sections of a review. A source that does not answer leaves a section that says so.

    `drill` belongs to the quarterly review and is the only part that writes. Never raises what a source may raise.
    """
    now = runtime.clock()
    parts: Iterable[SectionReader]
    if kind is ReviewKind.WEEKLY:
        parts = weekly.parts(runtime, now)
    elif kind is ReviewKind.MONTHLY:
        parts = monthly.parts(runtime, now)
    else:
        parts = quarterly.parts(locked, lambda: quarterly.foreign_grants(runtime), provider, drill)
    since = iso(now - _DAYS[kind] * DAY_SECONDS)
    return Review(kind, runtime.settings.environment, since, iso(now), read_sections(parts, tell))


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
    period = f"From {review.since} to {review.at}."
    markdown = "\n\n".join([f"# {review.title}", period, overview, *body]) + "\n"
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


def _section(section: ReviewSection, plots: Mapping[str, str]) -> str:
    lines = [f"## {section.title}", ""]
    if section.unread:
        return "\n".join([*lines, f"**Unavailable**: {section.unread}"])
    if section.lead:
        lines += [section.lead, ""]
    lines += [f"- **{remark.level}**: {remark.text}" for remark in section.remarks]
    if section.remarks:
        lines.append("")
    for each in section.tables:
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
