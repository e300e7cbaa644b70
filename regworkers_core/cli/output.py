"""How every command answers: the answer alone on stdout, as text or as one JSON document."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
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
from rich.table import Table

FINDING = 1
TROUBLE = 2


class Format(StrEnum):
    TEXT = "text"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="text for people, json for scripts")]


def answer(document: Any, form: Format, text: RenderableType | None = None) -> None:
    """Print `document` as JSON, or `text` (a two-column table of the document if there is none)."""
    if form is Format.JSON:
        sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2, default=str) + b"\n")
        sys.stdout.flush()
        return
    console = Console(file=sys.stdout, soft_wrap=True)
    console.print(text if text is not None else facts(document))


def facts(document: Mapping[str, Any], title: str | None = None) -> Table:
    """A table of names and values; nested mappings become dotted names."""
    table = Table("", "", title=title, show_header=False)
    for name, value in _flat("", document):
        table.add_row(name, "–" if value is None else str(value))
    return table


def rows(columns: Sequence[str], lines: Sequence[Sequence[object]], title: str | None = None) -> Table:
    """A table with a header."""
    table = Table(*columns, title=title)
    for line in lines:
        table.add_row(*("–" if cell is None else str(cell) for cell in line))
    return table


def _flat(prefix: str, document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(f"{prefix}{name}.", value)
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
