"""How every command answers: the answer alone on stdout, as text or as one JSON document."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

FINDING = 1
TROUBLE = 2


class Format(StrEnum):
    TEXT = "text"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="text for people, json for scripts")]


# What a document says to do next. In a table a narrow terminal would break a command into pieces.
_NEXT = ("command", "advice")
# What a terminal acts upon instead of showing it: control characters and escape (C0, DEL, C1), Unicode's ends of lines,
# the twelve that steer the direction of writing; and halves of characters, which no encoding writes.
_ACTS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str, *, keep: str = "") -> str:
    """The text with whatever moves a cursor, hides a line or turns its direction shown as an escape (`\\x1b`): ids,
    attributes of messages and diffs may hold what others put there. Characters of `keep` stay.
    """
    return _ACTS.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


class _Visible:
    """A renderable of which nothing acts upon the terminal but its own styles."""

    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for text, style, control in console.render(self._inner, options):
            if not control:
                yield Segment(visible(text, keep="\n"), style)


def answer(document: Any, form: Format, text: RenderableType | None = None) -> None:
    """Print `document` as JSON, or `text` (without one, a two-column table of the document, and below it what
    it says to do next).
    """
    if form is Format.JSON:
        written = orjson.dumps(document, option=orjson.OPT_INDENT_2, default=str)
        if not written.isascii() or b"\x7f" in written:
            # The same document: JSON may escape every character.
            written = _ACTS.sub(_as_json, written.decode()).encode()
        sys.stdout.buffer.write(written + b"\n")
        sys.stdout.flush()
        return
    console = Console(file=sys.stdout, soft_wrap=True)
    if text is not None:
        console.print(_Visible(text))
        return
    console.print(_Visible(facts({name: value for name, value in document.items() if name not in _NEXT})))
    for name in _NEXT:
        if document.get(name):
            console.print(_Visible(Text(document[name])))


def _as_json(found: re.Match[str]) -> str:
    return found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}"


def facts(document: Mapping[str, Any], title: str | None = None) -> Table:
    """A table of names and values; what is nested becomes dotted names, lists of documents with a number."""
    table = Table("", "", title=title, show_header=False)
    for name, value in _flat("", document):
        table.add_row(_cell(name), _cell(value))
    return table


def rows(
    columns: Sequence[str],
    lines: Sequence[Sequence[object]],
    title: str | None = None,
    *,
    whole: Collection[str] = (),
) -> Table:
    """A table with a header. On a narrow terminal the columns of `whole` keep their width at the others' cost: what
    is copied from them must not be broken up.
    """
    table = Table(*(Column(name, no_wrap=name in whole) for name in columns), title=title)
    for line in lines:
        table.add_row(*(_cell(value) for value in line))
    return table


def _cell(value: object) -> Text:
    """As it is: brackets in it are no markup, and nothing in it acts. What is too long is folded, never cut."""
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value)) if value else None
    return Text("–" if value is None else visible(str(value), keep="\n"), overflow="fold")


def _flat(prefix: str, document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(f"{prefix}{name}.", value)
        elif isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
            for number, each in enumerate(value, 1):
                yield from _flat(f"{prefix}{name}.{number}.", each)
        else:
            yield f"{prefix}{name}", value


@contextmanager
def progress(unit: str) -> Iterator[Progress]:
    """A progress bar on stderr, which stays silent when stderr is not a terminal."""
    console = Console(stderr=True)
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        yield bar
