"""A codes file, line by line: text of any size in constant memory, and a wrong row never ends the reading."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from regworkers_core.adapters.files.csv_lines import Blank, Cells, CsvFile, Reject, Shape, masked
from regworkers_core.domain.reasons import UsageError

# What survives a URL, a QR code and a spreadsheet unchanged; as long as an id elsewhere.
_CODE = re.compile(r"[A-Za-z0-9._~-]{1,64}")
_COLUMNS = frozenset({"code", "marketId", "campaignId"})


class Rejected(StrEnum):
    """Why a row is not imported."""

    EMPTY_CODE = "EMPTY_CODE"
    INVALID_CODE = "INVALID_CODE"
    WRONG_CAMPAIGN = "WRONG_CAMPAIGN"
    MISSING_MARKET = "MISSING_MARKET"
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


Line = Row | Reject | Blank


def read_lines(path: Path) -> Iterator[Line]:
    """Every line behind the header. Raises UsageError when the file cannot be read or has no header."""
    with _codes_file(path) as file:
        for line in file:
            yield _row(line, file.columns) if isinstance(line, Cells) else line


def read_columns(path: Path) -> tuple[str, ...]:
    """The columns that the header names. Raises UsageError as `read_lines` does."""
    with _codes_file(path) as file:
        return file.columns


def named_campaign(path: Path) -> str:
    """The campaign that the first row names in its column campaignId. Raises UsageError where none does."""
    if "campaignId" in read_columns(path):
        for line in read_lines(path):
            if isinstance(line, Row) and line.campaign_id is not None:
                return line.campaign_id
    raise UsageError(f"{path} does not say which campaign: give --campaign, or a column campaignId")


def _codes_file(path: Path) -> CsvFile:
    return CsvFile(lambda: path.open("rb"), str(path), _SHAPE)


def _accepts(columns: Sequence[str]) -> bool:
    return "code" in columns and set(columns) <= _COLUMNS and len(set(columns)) == len(columns)


_SHAPE = Shape(
    expected="`code` or `code,marketId` (campaignId may come with them)",
    words=_COLUMNS,
    accepts=_accepts,
    # Far above a row of three ids.
    max_line_chars=1024,
)


def _row(line: Cells, columns: Sequence[str]) -> Row | Reject:
    fields = dict(zip(columns, line.values, strict=True))
    code = fields["code"]
    if not code:
        return Reject(line.number, Rejected.EMPTY_CODE, "")
    if not _CODE.fullmatch(code):
        return Reject(line.number, Rejected.INVALID_CODE, masked(code))
    return Row(line.number, code, fields.get("marketId") or None, fields.get("campaignId") or None)
