"""Reports of all flows as self-contained HTML pages, from the templates beside this module, and as Markdown for
metadata views. Plots are in `figures`.

A page loads no script, font or image from elsewhere. All pages share one style sheet, light and dark.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

# An event of the orchestrator holds a few hundred KB without trouble; a plot stays far below.
PLOT_BYTES = 60_000
_NO_VALUE = "–"


def page(template: str, **values: object) -> str:
    """Render `templates/<template>.html`, which needs a `title` among `values`. Every value is escaped.

    Raises jinja2.UndefinedError when the template uses a value that was not passed.
    """
    return _environment().get_template(f"{template}.html").render(values)


@cache
def beside(name: str) -> str:
    """A stylesheet or script that pages load: `templates/<name>`. Raises jinja2.TemplateNotFound."""
    return _environment().get_template(name).render()


@cache
def _environment() -> Environment:
    # Most processes that import this make no page.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("regworkers_core.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "base64": lambda data: base64.b64encode(data).decode(),
        "cell": cell,
        "counted": counted,
        "percent": percent,
        "plain": lambda value: value.replace("`", "") if isinstance(value, str) else value,
        "words": words,
    }
    return made


def cell(value: object) -> str:
    """A value as text in a table: whole numbers with thousands separators, None as a dash."""
    if value is None:
        return _NO_VALUE
    if isinstance(value, str):
        # Also what a macro returned, which is escaped already and must remain Markup.
        return value
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def words(name: str) -> str:
    """A code such as NO_MARKET as lower-case words."""
    return name.replace("_", " ").lower()


def counted(number: int, noun: str) -> str:
    """`1 winner`, `2,000 entries`: a number with its noun, which is given in the singular."""
    several = f"{noun[:-1]}ies" if noun.endswith("ry") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else several}"


def percent(value: float | None) -> str:
    """A share as a percentage with three significant digits, None as a dash."""
    return _NO_VALUE if value is None else f"{100 * value:.3g} %"


def markdown_image(name: str, png: bytes) -> str:
    """An image as Markdown, with its data inline."""
    return f"![{name}](data:image/png;base64,{base64.b64encode(png).decode()})"


def markdown_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], words: Collection[int] = frozenset()
) -> str:
    """A Markdown table. Columns are right-aligned but for the first and those at the positions in `words`."""
    rule = "".join("|---" if at == 0 or at in words else "|---:" for at in range(len(columns))) + "|"
    lines = [f"| {' | '.join(_in_markdown(cell(value)) for value in row)} |" for row in (columns, *rows)]
    return "\n".join([lines[0], rule, *lines[1:]])


def _in_markdown(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
