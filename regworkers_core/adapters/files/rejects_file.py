"""The file of what an import did not take: `line,reason,found`, written only when there is something."""

from __future__ import annotations

import csv
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from regworkers_core.adapters.files.csv_lines import Reject
from regworkers_core.adapters.files.private_files import open_private
from regworkers_core.domain.reasons import UsageError

_HEADER = "line,reason,found\n"


class RejectsFile:
    """Holds no whole value, so that it can be sent back to the author of the file."""

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
        # A file of an earlier import is replaced; any other file of that name is not ours.
        if self._path.exists() and not self._is_ours():
            raise UsageError(f"{self._path} is no list of rejects: choose another place with --rejects")
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
    """A spreadsheet takes a cell that begins like this for a formula."""
    return "'" + text if text.startswith(("=", "+", "-", "@")) else text
