"""A list of invites, line by line: which value each line invites by, or why it invites nobody."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from regworkers_core.adapters.files.csv_lines import Blank, Cells, CsvFile, Reject, Shape, masked
from regworkers_core.domain.invite import InviteType
from regworkers_core.domain.mail import is_mail
from regworkers_core.eligibility.request import MAX_ID, is_blank, text_problem

# A row may bring names and addresses along, which are not read.
_MAX_LINE_CHARS = 16_384
# What a spreadsheet makes of a long number. Nobody has such an id, and its last digits are lost.
_MANGLED = re.compile(r"\d(?:[.,]\d+)?E\+\d{2}")
# What bytes that are no UTF-8 were read as.
_NO_TEXT = "\ufffd"


class Rejected(StrEnum):
    """Why a line invites nobody."""

    EMPTY = "EMPTY"
    INVALID_EMAIL = "INVALID_EMAIL"
    INVALID_ID = "INVALID_ID"
    MANGLED_NUMBER = "MANGLED_NUMBER"


class Row(NamedTuple):
    """`value` is comparable; `number` counts the file's lines from 1."""

    number: int
    value: str


Line = Row | Reject | Blank
# Where lines come from; each `with` of it begins again.
OpenFile = Callable[[], BufferedReader]


def read_rows(open_it: OpenFile, name: str, type_: InviteType) -> Iterator[Line]:
    """Every line behind the header, which has one column of the type's name; others are not read. Raises
    UsageError when the file cannot be read or has another header.
    """
    with CsvFile(open_it, name, _shape(type_)) as file:
        column = next(place for place, title in enumerate(file.columns) if _is_titled(title, type_))
        for line in file:
            yield read_value(line.number, line.values[column], type_) if isinstance(line, Cells) else line


def require_header(open_it: OpenFile, name: str, type_: InviteType) -> None:
    """Raises UsageError as `read_rows` does."""
    with CsvFile(open_it, name, _shape(type_)):
        pass


def read_value(number: int, text: str, type_: InviteType) -> Row | Reject:
    """One value as somebody gave it."""
    problem = _problem(text, type_)
    if problem is not None:
        return Reject(number, problem, masked(text))
    return Row(number, type_.comparable(text))


def read_values(values: Iterable[str], type_: InviteType) -> Iterator[Line]:
    """Values that were typed in, numbered from 1."""
    for number, text in enumerate(values, 1):
        yield read_value(number, text.strip(), type_)


def local_file(path: Path) -> OpenFile:
    return lambda: path.open("rb")


def _problem(text: str, type_: InviteType) -> Rejected | None:
    if not text:
        return Rejected.EMPTY
    if type_ is InviteType.EMAIL:
        return None if is_mail(text) and _NO_TEXT not in text else Rejected.INVALID_EMAIL
    if _MANGLED.fullmatch(text):
        return Rejected.MANGLED_NUMBER
    if text_problem(text, MAX_ID) is not None or is_blank(text) or _NO_TEXT in text:
        return Rejected.INVALID_ID
    return None


def _shape(type_: InviteType) -> Shape:
    def accepts(columns: Sequence[str]) -> bool:
        return sum(_is_titled(title, type_) for title in columns) == 1

    return Shape(
        expected=f"`{type_.value}` (one column of that name; others are not read)",
        words=frozenset(InviteType),
        accepts=accepts,
        max_line_chars=_MAX_LINE_CHARS,
    )


def _is_titled(title: str, type_: InviteType) -> bool:
    return title.lower() == type_.value.lower()
