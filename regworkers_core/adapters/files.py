"""Files of one account: private ones (0600, 0700, whatever the umask is), and CSV files for import.

A CSV file is read in constant memory: its lines, the values that repeat, and the lines that are rejected. It may use
comma, semicolon or tab, a byte order mark, any line ends and any order of columns. One line is one row: an open
quotation mark breaks its own line, not the rest of the file. A wrong row never ends the reading.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO, NamedTuple, TextIO, TypeVar

from regworkers_core.domain.reasons import UsageError

_FILE, _FOLDER = 0o600, 0o700


def open_private(path: Path, *, append: bool = False) -> BinaryIO:
    """Open for writing, truncated unless `append`. An existing file also becomes private; a device or a pipe is left as
    it is. Raises OSError.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else 0), _FILE)
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            # The file may belong to another user.
            with suppress(PermissionError):
                os.fchmod(fd, _FILE)
            if not append:
                os.ftruncate(fd, 0)
        return os.fdopen(fd, "ab" if append else "wb")
    except BaseException:
        os.close(fd)
        raise


def write_private(path: Path, data: bytes | str) -> None:
    """Write a private file. Raises OSError."""
    with open_private(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def private_folder(path: Path) -> None:
    """Create the folder and missing parents. An existing folder keeps its mode."""
    missing = [path]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for folder in reversed(missing):
        folder.mkdir(mode=_FOLDER, exist_ok=True)


_SHOWN_CHARS = 4
_SHOWN_COLUMNS = 8
# Spreadsheets of some countries write semicolons.
_DELIMITERS = ",;\t"
T = TypeVar("T")


class MalformedLine(StrEnum):
    """Why a line is not a row of any file."""

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
    """An empty line: counted, but not rejected."""

    number: int


@dataclass(frozen=True, slots=True)
class Shape:
    """What a file has to look like."""

    expected: str  # describes the header
    # The ones of a wrong header that are shown whole, because a file without a header begins with data.
    words: frozenset[str]
    accepts: Callable[[Sequence[str]], bool]  # whether a header is right
    max_line_chars: int  # longer lines are rejected unread


class CsvFile:
    """A context manager with the `columns`; iterate it once for the lines after the header.

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
            self._read_header()
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
                yield Reject(number, MalformedLine.LINE_TOO_LONG, masked(line))
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
            return Reject(self._number, MalformedLine.WRONG_COLUMNS, found)
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
        # Invalid UTF-8 becomes a character that no value may have: that row is rejected, not the file.
        return io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace")

    def _read_header(self) -> None:
        line = ""
        while not line.strip():
            line = self._line()
            if not line:
                expected = self._shape.expected
                raise UsageError(f"{self._name}: empty; its first line should be the header {expected}")
        self._delimiter = next((char for char in _DELIMITERS if char in line), ",")
        columns = self.columns = tuple(name.strip().strip('"') for name in line.split(self._delimiter))
        if not self._shape.accepts(columns):
            shown = [name if name in self._shape.words else masked(name) for name in columns[:_SHOWN_COLUMNS]]
            raise UsageError(
                f"{self._name}: line {self._number} should be the header {self._shape.expected}, found "
                f"{', '.join(shown)}"
            )

    def _trouble(self, error: OSError) -> UsageError:
        return UsageError(f"{self._name}: {error.strerror}")


def masked(value: str) -> str:
    """The first characters and `…`: enough to find the value in the file, too few to use it."""
    shown = value[: min(_SHOWN_CHARS, len(value) // 2)]
    return "".join(char if char.isprintable() else "?" for char in shown) + "…"


def in_batches(lines: Iterable[T], size: int) -> Iterator[list[T]]:
    batch: list[T] = []
    for line in lines:
        batch.append(line)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


_CACHE_KIB = 4096


class FirstSeen:
    """Finds repeated values. Their hashes are in a private SQLite database, on disk beyond a few megabytes."""

    def __init__(self) -> None:
        # Imported late: it takes time at the start of each run.
        import sqlite3

        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE seen (value BLOB PRIMARY KEY, line INT) WITHOUT ROWID")
        self._database.execute("BEGIN")

    def first(self, value: str, line: int) -> int | None:
        """The line where the value occurred first; None if it is this line."""
        key = hashlib.blake2b(value.encode(), digest_size=16).digest()
        added = self._database.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (key, line)).rowcount
        if added:
            return None
        found = self._database.execute("SELECT line FROM seen WHERE value = ?", (key,)).fetchone()
        return int(found[0])

    def __enter__(self) -> FirstSeen:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()


_HEADER = "line,reason,found\n"


class RejectsFile:
    """The CSV file `line,reason,found` of rejected lines, created with the first of them. It holds no whole value, so
    it can be sent back to the author of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None
        self.written: Path | None = None

    def add(self, reject: Reject) -> None:
        """Raises UsageError when the file cannot be written."""
        try:
            if self._file is None:
                self._file = TextIOWrapper(open_private(self._path), encoding="utf-8", newline="")
                self._file.write(_HEADER)
                self.written = self._path
            row = (reject.number, reject.reason.value, _harmless(reject.found))
            csv.writer(self._file, lineterminator="\n").writerow(row)
        except OSError as error:
            raise UsageError(f"{self._path}: {error.strerror}; choose another place with --rejects") from None

    def __enter__(self) -> RejectsFile:
        # The file of an earlier import is replaced, any other file is not.
        if self._path.exists() and not self._is_ours():
            raise UsageError(f"{self._path} is not a list of rejects: choose another place with --rejects")
        self._path.unlink(missing_ok=True)
        return self

    def _is_ours(self) -> bool:
        try:
            with self._path.open("rb") as file:
                return file.read(len(_HEADER)) in (b"", _HEADER.encode())
        except OSError as error:
            raise UsageError(f"{self._path}: {error.strerror}; choose another place with --rejects") from None

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _harmless(text: str) -> str:
    """Escape a text that a spreadsheet would take for a formula."""
    return "'" + text if text.startswith(("=", "+", "-", "@")) else text


def require_writable(page: Path | None, option: str = "--page") -> None:
    """Raises UsageError, before minutes of work, if the file that `option` names cannot be written."""
    if page is None:
        return
    if not page.parent.is_dir():
        raise UsageError(f"{option} {page}: there is no folder {page.parent}")
    if page.is_dir():
        raise UsageError(f"{option} {page} is a folder: name a file in it")
    if not os.access(page if page.exists() else page.parent, os.W_OK):
        raise UsageError(f"{option} {page}: no permission to write there")
