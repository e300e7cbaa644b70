"""A text artefact in ref order, searched in place: a receipt must not read ten million lines."""

from __future__ import annotations

import mmap
from pathlib import Path
from types import TracebackType
from typing import NamedTuple


class Line(NamedTuple):
    """`text` without its LF; `start` and `end` (past the LF) are byte offsets."""

    start: int
    end: int
    text: str

    @property
    def ref(self) -> str:
        return self.text.partition("|")[0]


class SortedFile:
    """`ref|...` lines in strictly increasing byte order of ref. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._size = path.stat().st_size
        # An empty file cannot be mapped.
        self._map: mmap.mmap | bytes = b""
        if self._size:
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)

    def __enter__(self) -> SortedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(self._map, mmap.mmap):
            self._map.close()
        self._file.close()

    def find(self, ref: str) -> Line | None:
        """The line of `ref`, or None."""
        line = self._first_from(ref)
        return line if line is not None and line.ref == ref else None

    def around(self, ref: str) -> tuple[Line | None, Line | None]:
        """The last line before `ref` and the first one from it on."""
        after = self._first_from(ref)
        end = self._size if after is None else after.start
        return (None if end == 0 else self._line(self._start_before(end - 1))), after

    def at(self, start: int) -> Line:
        """The line that begins at this byte."""
        return self._line(start)

    def holding(self, part: str) -> list[Line]:
        """Every line that contains `part`, by one scan at the speed of memory."""
        found: list[Line] = []
        sought, position = part.encode("ascii"), 0
        while (position := self._map.find(sought, position)) >= 0:
            line = self._line(self._start_before(position))
            found.append(line)
            position = line.end
        return found

    def _first_from(self, ref: str) -> Line | None:
        low, high = 0, self._size
        # `low` and `high` are starts of lines (or the end); all before `low` is smaller.
        while low < high:
            line = self._line(self._start_before((low + high) // 2))
            if line.ref < ref:
                low = line.end
            else:
                high = line.start
        return None if low >= self._size else self._line(low)

    def _start_before(self, position: int) -> int:
        """Where the line begins that the byte at `position` belongs to."""
        return self._map.rfind(b"\n", 0, position) + 1

    def _line(self, start: int) -> Line:
        end = self._map.find(b"\n", start)
        stop = self._size if end < 0 else end
        return Line(start, min(stop + 1, self._size), self._map[start:stop].decode("ascii", "replace"))
