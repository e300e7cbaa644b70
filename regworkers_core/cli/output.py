"""How every command answers: the answer alone on stdout, as text or as one JSON document."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
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


def answer(document: Any, form: Format, text: RenderableType | None = None) -> None:
    """Print `document` as JSON, or `text` (without one, a two-column table of the document, and below it what
    it says to do next).
    """
    if form is Format.JSON:
        sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2, default=str) + b"\n")
        sys.stdout.flush()
        return
    console = Console(file=sys.stdout, soft_wrap=True)
    if text is not None:
        console.print(text)
        return
    console.print(facts({name: value for name, value in document.items() if name not in _NEXT}))
    for name in _NEXT:
        if document.get(name):
            console.print(Text(document[name]))


def facts(document: Mapping[str, Any], title: str | None = None) -> Table:
    """A table of names and values; what is nested becomes dotted names, lists of documents with a number."""
    table = Table("", "", title=title, show_header=False)
    for name, value in _flat("", document):
        table.add_row(Text(name, overflow="fold"), _cell(value))
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
    """As it is: brackets in it are no markup. What is too long is folded, never cut."""
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value)) if value else None
    return Text("–" if value is None else str(value), overflow="fold")


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
