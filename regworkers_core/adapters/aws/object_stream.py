"""An object of S3 as a stream that may be read slowly: piece by piece, each asked for anew."""

from __future__ import annotations

import io
from collections.abc import Callable

# Enough for some ten thousand lines; what a reader holds in memory.
PIECE_BYTES = 1024 * 1024


class ObjectStream(io.RawIOBase):
    """`read_range` returns the bytes from one place up to another (exclusive). No connection stays open between
    two pieces, so a pause costs nothing, and a broken connection costs one piece.
    """

    def __init__(self, read_range: Callable[[int, int], bytes], size: int) -> None:
        self._read_range, self._size, self._at = read_range, size, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        end = min(self._at + len(buffer), self._size)
        if end == self._at:
            return 0
        data = self._read_range(self._at, end)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def buffered(self) -> io.BufferedReader:
        return io.BufferedReader(self, PIECE_BYTES)
