"""A review for people: Markdown for the UI and for a repository, and one self-contained page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from typing import NamedTuple

from regworkers_core.operations.reviews.sections import Review, Section, Table
from regworkers_core.reporting.markdown import image as markdown_image
from regworkers_core.reporting.page import image, page, said, table, tiles

_NONE = "–"
_CODE = re.compile(r"`([^`]+)`")


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
    return Shown(markdown, _page(review), overview, by_section, plots)


def _period(review: Review) -> str:
    return f"From {review.since} to {review.at}."


def _overview(review: Review) -> str:
    lines = ["| section | findings | warnings | |", "|---|---:|---:|---|"]
    for each in review.sections:
        numbers = [sum(remark.level == level for remark in each.remarks) for level in ("finding", "warning")]
        text = f"**not read**: {each.unread}" if each.unread else each.lead
        counts = [_NONE, _NONE] if each.unread else [str(number) for number in numbers]
        lines.append(f"| {each.title} | {' | '.join(counts)} | {_in_cell(text)} |")
    return "\n".join(lines)


def _section(section: Section, plots: Mapping[str, str]) -> str:
    lines = [f"## {section.title}", ""]
    if section.unread:
        return "\n".join([*lines, f"**Not read**: {section.unread}"])
    if section.lead:
        lines += [section.lead, ""]
    lines += [f"- **{remark.level}**: {remark.text}" for remark in section.remarks]
    if section.remarks:
        lines.append("")
    for each in section.tables:
        lines += [_table(each), ""]
    lines += [f"{plot}\n" for plot in plots.values()]
    return "\n".join(lines).rstrip()


def _table(of: Table) -> str:
    head = f"| {' | '.join(of.columns)} |"
    rule = "".join("|---" if _is_text(of, at) else "|---:" for at in range(len(of.columns))) + "|"
    rows = [f"| {' | '.join(_in_cell(_text(cell)) for cell in row)} |" for row in of.rows]
    return "\n".join([f"**{of.title}**", "", head, rule, *rows])


def _is_text(of: Table, column: int) -> bool:
    """Words begin at one line, numbers end at one."""
    return column == 0 or not any(isinstance(row[column], int | float) for row in of.rows)


def _text(value: object) -> str:
    if value is None:
        return _NONE
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _in_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _page(review: Review) -> str:
    counts = [
        ("findings", len(review.remarks("finding"))),
        ("warnings", len(review.remarks("warning"))),
        ("not read", len(review.unread)),
    ]
    parts = [
        f"<h1>{escape(review.title)}</h1>",
        f'<p class="muted">{escape(_period(review))}</p>',
        tiles(counts),
    ]
    for each in review.sections:
        parts.append(f'<h2 id="{each.name}">{escape(each.title)}</h2>')
        if each.unread:
            parts.append(said("warning", f"not read: {each.unread}"))
            continue
        parts.append(f"<p>{_CODE.sub(_as_code, escape(each.lead))}</p>")
        parts += [said(remark.level, remark.text.replace("`", "")) for remark in each.remarks]
        for of in each.tables:
            parts.append(f'<p class="muted">{escape(of.title)}</p>')
            words = {at for at in range(len(of.columns)) if _is_text(of, at)}
            parts.append(table(of.columns, [[_shown(cell) for cell in row] for row in of.rows], words))
        parts += [image(each.plots, name, f"{each.title}: {name}") for name in each.plots]
    return page(review.title, "\n".join(parts))


def _as_code(found: re.Match[str]) -> str:
    return f"<code>{found[1]}</code>"


def _shown(cell: object) -> object:
    if cell is None:
        return _NONE
    return cell.replace("`", "") if isinstance(cell, str) else cell
