"""Steps that a caller does not wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Protocol


class Beside(Protocol):
    """Where a step runs that its caller does not wait for."""

    def __call__(self, step: Callable[[], None]) -> None: ...

    def wait(self, seconds: float) -> None:
        """Until no step runs, so long at most."""
        ...


class InBackground:
    """A daemon thread, called `name`, for one step at a time: while one runs, further ones are left out."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def __call__(self, step: Callable[[], None]) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                # With the caller's context: its log lines carry the drain's identifiers, too.
                self._thread = threading.Thread(
                    target=copy_context().run, args=(step,), name=self._name, daemon=True
                )
                self._thread.start()

    def wait(self, seconds: float) -> None:
        if self._thread is not None:
            self._thread.join(seconds)
