"""What a flow and its caller tell each other: to stop, and each step that was done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fairdraw import scheduling

# Called with the name of a step that was just done. Tests kill the process there to show that a crash loses nothing.
OnStep = Callable[[str], None]


def no_step(_name: str) -> None:
    """The default of every `on_step`."""


class StopSignal:
    """Set once, read by all threads: finish what is in flight and end."""

    def __init__(self) -> None:
        self._event = scheduling.event()

    def set(self) -> None:
        self._event.set()

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep up to `seconds`, or until the stop signal; True if it came."""
        return self._event.wait(seconds)

    @contextmanager
    def on_signals(self) -> Iterator[StopSignal]:
        """SIGTERM or SIGINT set it while inside. Handlers can only be installed from the main thread; elsewhere this
        does nothing. The first signal restores the former handlers, so a second Ctrl-C ends the process.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        def handle(_number: int, _frame: object) -> None:
            self.set()
            restore()

        for number in before:
            signal.signal(number, handle)
        try:
            yield self
        finally:
            restore()
