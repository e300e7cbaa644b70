"""A CSV file from outside, line by line: any size in constant memory, and a wrong row never ends the reading.

Comma, semicolon or tab, with or without a byte order mark, any line ends, any order of the columns. One line is
one row: an open quotation mark costs its own line, not the rest of the file.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TextIO, TypeVar

from regworkers_core.domain.reasons import UsageError

_SHOWN_CHARS = 4
_SHOWN_COLUMNS = 8
# What a spreadsheet of some countries writes instead of commas.
_DELIMITERS = ",;\t"
T = TypeVar("T")


class Malformed(StrEnum):
    """Why a line is no row, whatever the file is about."""

    WRONG_COLUMNS = "WRONG_COLUMNS"
    LINE_TOO_LONG = "LINE_TOO_LONG"


class Cells(NamedTuple):
    """A row: as many cells as there are columns, trimmed. `number` counts the file's lines from 1."""

    number: int
    values: list[str]


@dataclass(frozen=True, slots=True)
class Reject:
    """A rejected line. `found` describes its content without the value."""

    number: int
    reason: StrEnum
    found: str


@dataclass(frozen=True, slots=True)
class Blank:
    """A line with nothing on it: counted, and no fault."""

    number: int


@dataclass(frozen=True, slots=True)
class Shape:
    """`expected` is the header in words. Of a wrong header only `words` are shown whole: a file without its
    header begins with data. A line of `max_line_chars` or more is rejected without being read into memory whole.
    """

    expected: str
    words: frozenset[str]
    accepts: Callable[[Sequence[str]], bool]
    max_line_chars: int


class CsvFile:
    """Inside `with`: its `columns`, and all lines behind the header by iterating, once.

    Raises UsageError when the file cannot be read or has another header.
    """

    columns: tuple[str, ...]

    def __init__(self, open_it: Callable[[], io.BufferedReader], name: str, shape: Shape) -> None:
        self._open, self._name, self._shape = open_it, name, shape
        self._number = 0

    def __enter__(self) -> CsvFile:
        try:
            raw = self._open()
        except OSError as error:
            raise self._trouble(error) from None
        try:
            self._file = self._as_text(raw)
            self.columns, self._delimiter = self._header()
        except BaseException:
            raw.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Cells | Reject | Blank]:
        limit = self._shape.max_line_chars
        while line := self._line():
            if len(line) == limit and not line.endswith("\n"):
                number = self._number
                while (rest := self._line(continued=True)) and not rest.endswith("\n"):
                    pass
                yield Reject(number, Malformed.LINE_TOO_LONG, masked(line))
            elif not line.strip():
                yield Blank(self._number)
            else:
                yield self._row(line)

    def _row(self, line: str) -> Cells | Reject:
        text = line.rstrip("\n")
        parts = next(csv.reader([text], delimiter=self._delimiter)) if '"' in text else None
        values = [cell.strip() for cell in parts or text.split(self._delimiter)]
        if any(values) and len(values) != len(self.columns):
            found = f"{len(values)} columns instead of {len(self.columns)}"
            return Reject(self._number, Malformed.WRONG_COLUMNS, found)
        return Cells(self._number, values if any(values) else [""] * len(self.columns))

    def _line(self, *, continued: bool = False) -> str:
        try:
            line = self._file.readline(self._shape.max_line_chars)
        except OSError as error:
            raise self._trouble(error) from None
        self._number += bool(line) and not continued
        return line

    def _as_text(self, raw: io.BufferedReader) -> TextIO:
        if raw.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise UsageError(f"{self._name}: UTF-16 text; save it as CSV in UTF-8")
        # Bytes that are no UTF-8 become a character that no value may have: that row is rejected, not the file.
        return io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace")

    def _header(self) -> tuple[tuple[str, ...], str]:
        line = ""
        while not line.strip():
            line = self._line()
            if not line:
                expected = self._shape.expected
                raise UsageError(f"{self._name}: empty; its first line should be the header {expected}")
        delimiter = next((char for char in _DELIMITERS if char in line), ",")
        columns = tuple(name.strip().strip('"') for name in line.split(delimiter))
        if not self._shape.accepts(columns):
            shown = [name if name in self._shape.words else masked(name) for name in columns[:_SHOWN_COLUMNS]]
            raise UsageError(
                f"{self._name}: line {self._number} should be the header {self._shape.expected}, found "
                f"{', '.join(shown)}"
            )
        return columns, delimiter

    def _trouble(self, error: OSError) -> UsageError:
        return UsageError(f"{self._name}: {error.strerror}")


def masked(value: str) -> str:
    """The first characters and `…`: enough to find it in the file, too little to use it."""
    shown = value[: min(_SHOWN_CHARS, len(value) // 2)]
    return "".join(char if char.isprintable() else "?" for char in shown) + "…"


def in_batches(lines: Iterable[T], size: int) -> Iterator[list[T]]:
    """All lines, `size` at a time."""
    batch: list[T] = []
    for line in lines:
        batch.append(line)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
