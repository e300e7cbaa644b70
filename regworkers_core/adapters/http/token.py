"""The bearer token of a service: read when it is first needed, and again when the service refuses it."""

from __future__ import annotations

import threading
from collections.abc import Callable


class BearerToken:
    """`read` returns the current token. Errors of `read` are raised and not cached."""

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._value: str | None = None

    def get(self) -> str:
        with self._lock:
            if self._value is None:
                self._value = self._read()
            return self._value

    def again(self, refused: str) -> str:
        """The token after `refused` was refused: read again, unless another thread has done so."""
        with self._lock:
            if self._value == refused:
                self._value = self._read()
        return self.get()

    def __repr__(self) -> str:
        return "BearerToken(***)"
