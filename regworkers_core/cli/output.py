"""How commands answer: on stdout only the answer, as text or as one JSON document."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from fairdraw.answers import ACTS, visible

FINDING = 1
TROUBLE = 2


class Format(StrEnum):
    TEXT = "text"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="text for people, json for scripts")]


# Fields of a document that say what to do next. They are below the table, which could break a command up.
_NEXT = ("command", "advice")
# Longer values without a space, such as hashes of many bytes, are broken up.
_LONGEST_NAME = 80
# Padding and border of a column.
_FRAME = 3
# Characters that a column of text keeps.
_LEAST_TEXT = 10
# With fewer for each column of text, a person reads one word a line.
_LEGIBLE_TEXT = 24


class _Visible:
    """A renderable that controls the terminal by its styles only."""

    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for text, style, control in console.render(self._inner, options):
            if not control:
                yield Segment(visible(text, keep="\n"), style)


def answer(
    document: Any, form: Format, text: RenderableType | None = None, *, finding: object = False
) -> None:
    """Print `document` as JSON, or `text`: by default a table of the document, and below it what to do next. Then leave
    with exit code 1 if `finding` is true.
    """
    _print(document, form, text)
    if finding:
        raise typer.Exit(FINDING)


def _print(document: Any, form: Format, text: RenderableType | None) -> None:
    if form is Format.JSON:
        written = orjson.dumps(document, option=orjson.OPT_INDENT_2, default=str)
        if not written.isascii() or b"\x7f" in written:
            # The same document: JSON may escape every character.
            written = ACTS.sub(_as_json, written.decode()).encode()
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
    """A table of names and values. Nested names have dots, documents in a list have a number."""
    table = Table(title=title, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for name, value in _flat("", document):
        table.add_row(_cell(name), _cell(value))
    return table


class _NamesTable(Table):
    """A table that is wider than the output rather than narrower than its columns must be. At a narrow terminal its
    rows are blocks: the names on one line, each text below.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        least = sum((column.min_width or 0) + _FRAME for column in self.columns) + 1
        texts = [column for column in self.columns if not column.no_wrap]
        legible = least + sum(_LEGIBLE_TEXT - (column.min_width or 0) for column in texts)
        if options.is_terminal and texts and options.max_width < legible:
            yield from self._blocks(console, options.max_width)
        else:
            yield from super().__rich_console__(
                console, options.update(max_width=max(options.max_width, least))
            )

    def _blocks(self, console: Console, width: int) -> Iterator[RenderableType]:
        if self.title:
            yield Text(str(self.title), style="italic")
        for cells in zip(*(column.cells for column in self.columns), strict=True):
            row = list(zip(self.columns, cells, strict=True))
            yield Text("  ").join(cell for column, cell in row if column.no_wrap)
            for column, cell in row:
                if not column.no_wrap:
                    text = Text.assemble(f"{column.header}: ", cell)
                    yield from (Text("  ") + line for line in text.wrap(console, width - 2))


def rows(columns: Sequence[str], lines: Sequence[Sequence[object]], title: str | None = None) -> Table:
    """A table with a header. Names are never broken up, because operators copy them: a column without spaces keeps its
    width, and text wraps between words. Where that does not fit, the table is wider than the terminal.
    """
    cells = [[_cell(value) for value in line] for line in lines]
    table = _NamesTable(title=title)
    for number, name in enumerate(columns):
        texts = [line[number].plain for line in cells]
        longest = max(map(len, texts), default=0)
        names = longest <= _LONGEST_NAME and not any(character.isspace() for character in "".join(texts))
        words = max(map(len, name.split()), default=0)
        width = max(words, longest if names else min(longest, _LEAST_TEXT))
        table.add_column(name, no_wrap=names, min_width=width)
    for line in cells:
        table.add_row(*line)
    return table


def _cell(value: object) -> Text:
    """The value as text: brackets are no markup, control characters are escaped, long text is folded, never cut."""
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


class Bar:
    """Shows `completed`, `total`, `description`, `unit` or an `advance` on a progress bar; without one, nothing."""

    def __init__(self, bar: Progress | None = None, **task: Any) -> None:
        self._bar = bar
        self._task = bar.add_task(**task) if bar else None

    def __call__(self, **shown: Any) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, **shown)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Hide the bar, for a prompt."""
        if self._bar is None:
            yield
            return
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()

    def tell(self, text: str) -> None:
        """What the command is doing."""
        self(description=text)

    def progress(self, done: int, total: int | None = None, unit: str = "") -> None:
        """Show how far the command is: an `engine.stop.Progress`."""
        self(completed=done, total=total, **({"unit": unit} if unit else {}))


@contextmanager
def progress(unit: str, task: str, total: float | None = None) -> Iterator[Bar]:
    """A progress bar on stderr, if that is a terminal."""
    console = Console(stderr=True)
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        yield Bar(bar, description=task, total=total, unit=unit)
