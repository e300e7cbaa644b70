"""A codes file, line by line: text of any size in constant memory, and a wrong row never ends the reading."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, TextIO

from regworkers_core.domain.reasons import UsageError

# What survives a URL, a QR code and a spreadsheet unchanged; as long as an id elsewhere.
_CODE = re.compile(r"[A-Za-z0-9._~-]{1,64}")
# Far above a row of three ids; a file without line breaks must not be read into memory whole.
_MAX_LINE_CHARS = 1024
_SHOWN_CHARS = 4
# What a spreadsheet of some countries writes instead of commas.
_DELIMITERS = ",;\t"
_COLUMNS = frozenset({"code", "marketId", "campaignId"})


class Rejected(StrEnum):
    """Why a row is not imported."""

    EMPTY_CODE = "EMPTY_CODE"
    INVALID_CODE = "INVALID_CODE"
    WRONG_COLUMNS = "WRONG_COLUMNS"
    LINE_TOO_LONG = "LINE_TOO_LONG"
    WRONG_CAMPAIGN = "WRONG_CAMPAIGN"
    UNKNOWN_MARKET = "UNKNOWN_MARKET"
    WRONG_MARKET = "WRONG_MARKET"
    DUPLICATE_IN_FILE = "DUPLICATE_IN_FILE"
    TAKEN = "TAKEN"


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it stands there. An absent or empty cell is None; `number` counts the file's lines from 1."""

    number: int
    code: str
    market_id: str | None
    campaign_id: str | None


@dataclass(frozen=True, slots=True)
class Reject:
    """`found` shows what was met without giving a code away."""

    number: int
    reason: Rejected
    found: str


@dataclass(frozen=True, slots=True)
class Blank:
    """A line with nothing on it: counted, and no fault."""

    number: int


Line = Row | Reject | Blank


def masked(code: str) -> str:
    """The first characters and `…`: enough to find it in the file, too little to use it."""
    shown = code[: min(_SHOWN_CHARS, len(code) // 2)]
    return "".join(char if char.isprintable() else "?" for char in shown) + "…"


def read_lines(path: Path) -> Iterator[Line]:
    """Every line behind the header. Raises UsageError when the file cannot be read or has no header."""
    with _opened(path) as file:
        header = _header(path, file)
        number = header.number
        while line := file.readline(_MAX_LINE_CHARS):
            number += 1
            if len(line) == _MAX_LINE_CHARS and not line.endswith("\n"):
                yield Reject(number, Rejected.LINE_TOO_LONG, masked(line))
                while (line := file.readline(_MAX_LINE_CHARS)) and not line.endswith("\n"):
                    pass
            elif not line.strip():
                yield Blank(number)
            else:
                yield _row(number, line, header)


def read_columns(path: Path) -> tuple[str, ...]:
    """The columns that the header names. Raises UsageError as `read_lines` does."""
    with _opened(path) as file:
        return _header(path, file).columns


def named_campaign(path: Path) -> str:
    """The campaign that the first row names in its column campaignId. Raises UsageError where none does."""
    if "campaignId" in read_columns(path):
        for line in read_lines(path):
            if isinstance(line, Row) and line.campaign_id is not None:
                return line.campaign_id
    raise UsageError(f"{path} does not say which campaign: give --campaign, or a column campaignId")


class _Header(NamedTuple):
    number: int
    columns: tuple[str, ...]
    delimiter: str


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    try:
        with path.open("rb") as raw:
            if raw.read(2) in (b"\xff\xfe", b"\xfe\xff"):
                raise UsageError(f"{path}: UTF-16 text; save it as CSV in UTF-8")
        # Bytes that are no UTF-8 become a character that no code has: that row is rejected, not the file.
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            yield file
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None


def _header(path: Path, file: TextIO) -> _Header:
    number, line = 0, ""
    while not line.strip():
        line = file.readline(_MAX_LINE_CHARS)
        number += 1
        if not line:
            raise UsageError(f"{path}: empty; its first line should be the header `code` or `code,marketId`")
    delimiter = next((char for char in _DELIMITERS if char in line), ",")
    columns = tuple(name.strip().strip('"') for name in line.split(delimiter))
    if "code" not in columns or len(set(columns)) != len(columns) or not set(columns) <= _COLUMNS:
        # It may be a code: a file without its header.
        raise UsageError(
            f"{path}: line {number} should be the header `code` or `code,marketId` (campaignId may come with "
            f"them), found {masked(line.strip())!r}"
        )
    return _Header(number, columns, delimiter)


def _row(number: int, line: str, header: _Header) -> Row | Reject:
    # One line at a time: an open quotation mark costs its own line, not the rest of the file.
    reader = csv.reader([line.rstrip("\n")], delimiter=header.delimiter)
    cells = [cell.strip() for cell in next(reader)]
    if not any(cells):
        return Reject(number, Rejected.EMPTY_CODE, "")
    if len(cells) != len(header.columns):
        found = f"{len(cells)} columns instead of {len(header.columns)}"
        return Reject(number, Rejected.WRONG_COLUMNS, found)
    fields = dict(zip(header.columns, cells, strict=True))
    code = fields["code"]
    if not code:
        return Reject(number, Rejected.EMPTY_CODE, "")
    if not _CODE.fullmatch(code):
        return Reject(number, Rejected.INVALID_CODE, masked(code))
    return Row(number, code, fields.get("marketId") or None, fields.get("campaignId") or None)
