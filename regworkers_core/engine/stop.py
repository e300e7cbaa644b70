"""The stop signal: SIGTERM and SIGINT ask a drain to finish what is in flight and leave."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class StopSignal:
    """Set once, read everywhere. `wait` is an interruptible sleep."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep up to `seconds`; True when the stop signal came."""
        return self._event.wait(seconds)

    @contextmanager
    def on_signals(self) -> Iterator[StopSignal]:
        """Set by SIGTERM or SIGINT while inside; handlers can only be installed from the main thread, and
        elsewhere this does nothing. A second signal meets the handlers of before, so that Ctrl-C twice ends.
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
