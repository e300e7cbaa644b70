"""Reports as one self-contained page: no script, no font, no image from anywhere else; light and dark."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape

_CSS = """
:root { color-scheme: light dark; --ink: #1f2933; --muted: #5b6672; --page: #f5f6f8; --card: #fff; --line: #dde2e7;
  --bad: #b3261e; --bad-bg: #fdecea; --warn: #8a5300; --warn-bg: #fff4e0; --note: #274b73; --note-bg: #e9f1fa; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaee; --muted: #9aa6b2; --page: #14181d; --card: #1d232a;
  --line: #343d47; --bad: #ffb4ab; --bad-bg: #4a1512; --warn: #ffcf8a; --warn-bg: #40300f; --note: #b5d4f7;
  --note-bg: #16293f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 960px; margin: 0 auto; padding: 24px 16px 64px; }
h1 { font-size: 1.6rem; margin: 0 0 4px; } h2 { font-size: 1.15rem; margin: 36px 0 8px; }
p { margin: 6px 0; } .muted { color: var(--muted); }
.tiles { display: flex; flex-wrap: wrap; gap: 10px; margin: 16px 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 10px 16px; min-width: 120px; }
.tile b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.said { border-radius: 6px; padding: 8px 12px; margin: 6px 0; }
.finding { color: var(--bad); background: var(--bad-bg); } .warning { color: var(--warn); background: var(--warn-bg); }
.note { color: var(--note); background: var(--note-bg); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; background: var(--card); border: 1px solid var(--line); }
th, td { padding: 5px 10px; text-align: right; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums; }
th { font-weight: 600; color: var(--muted); vertical-align: bottom; }
th:first-child, td:first-child, .words { text-align: left; }
figure { margin: 14px 0; background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 8px; }
img { display: block; width: 100%; height: auto; }
code { font: 13px ui-monospace, monospace; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 16px; }
dt { color: var(--muted); } dd { margin: 0; }
"""


def page(title: str, body: str) -> str:
    """The whole document around `body`, which is HTML already."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_CSS}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def tiles(counts: Iterable[tuple[str, int]]) -> str:
    """The few numbers that matter most, large."""
    return (
        '<div class="tiles">'
        + "".join(f'<div class="tile"><b>{count:,}</b>{name}</div>' for name, count in counts)
        + "</div>"
    )


def said(level: str, text: str) -> str:
    """A sentence to notice: `level` is finding, warning or note."""
    return f'<p class="said {level}"><b>{level.capitalize()}:</b> {escape(text)}</p>'


def table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], words: Collection[int] = frozenset()
) -> str:
    """Whole numbers get their thousands; everything is escaped. Numbers end at one line; the first column and those
    at the places of `words` begin at one.
    """
    kinds = [' class="words"' if at in words else "" for at in range(len(columns))]
    head = "".join(f"<th{kind}>{escape(name)}</th>" for kind, name in zip(kinds, columns, strict=True))
    lines = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{_cell(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else escape(str(value))


def image(plots: Mapping[str, bytes], name: str, text: str) -> str:
    """The plot called `name` with its alternative text; nothing where there is none."""
    if name not in plots:
        return ""
    data = base64.b64encode(plots[name]).decode()
    return f'<figure><img alt="{escape(text)}" src="data:image/png;base64,{data}"></figure>'


def percent(value: float | None) -> str:
    """A share as a percentage; a dash where there is none."""
    return "–" if value is None else f"{100 * value:.3g} %"
