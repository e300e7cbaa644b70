"""A review for people: Markdown for the UI and for a repository, and one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from regworkers_core.operations.reviews.sections import Review, Section
from regworkers_core.reporting.pages import markdown_image, markdown_table, page


class Shown(NamedTuple):
    """`markdown` refers to its plots as files beside it; `html` has all within. `overview` and `by_section` are for a
    metadata view: markdown with the plots in it.
    """

    markdown: str
    html: str
    overview: str
    by_section: Mapping[str, str]
    plots: Mapping[str, bytes]


def shown(review: Review) -> Shown:
    plots = {
        f"{section.name}-{name}": plot for section in review.sections for name, plot in section.plots.items()
    }
    overview = _overview(review)
    body = [
        _section(each, {name: f"![{name}]({each.name}-{name}.png)" for name in each.plots})
        for each in review.sections
    ]
    markdown = "\n\n".join([f"# {review.title}", _period(review), overview, *body]) + "\n"
    by_section = {
        each.name: _section(each, {name: markdown_image(name, plot) for name, plot in each.plots.items()})
        for each in review.sections
    }
    return Shown(markdown, page("review", title=review.title, review=review), overview, by_section, plots)


def _period(review: Review) -> str:
    return f"From {review.since} to {review.at}."


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
    lines += [f"- **{remark.level}**: {remark.text}" for remark in section.remarks]
    if section.remarks:
        lines.append("")
    for each in section.tables:
        lines += [f"**{each.title}**", "", markdown_table(each.columns, each.rows, each.words), ""]
    lines += [f"{plot}\n" for plot in plots.values()]
    return "\n".join(lines).rstrip()
