"""Signs of life of the demo, and its end when a child of Dagster dies."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import rich.console

from regworkers_core.domain.reasons import UsageError
from regworkers_core.engine.stop import StopSignal
from regworkers_local.dagster_server import DagsterProcess

# After longer silence a person wonders whether it still works.
LIFE_SECONDS = 10.0
_LOOK_SECONDS = 1.0


class Console(rich.console.Console):
    """Knows when it last showed something, and what."""

    shown_at = float("-inf")
    said = ""

    def print(self, *objects: Any, **options: Any) -> None:
        """As its parent; what is printed is the last sign of life."""
        if objects and isinstance(objects[0], str):
            self.said = objects[0].splitlines()[0]
        self.seen()
        super().print(*objects, **options)

    def seen(self) -> None:
        """Something moved on the screen."""
        self.shown_at = time.monotonic()

    def sign(self, text: str) -> None:
        """A sign of life, which is none of what it said."""
        super().print(text, markup=False)


@contextmanager
def alive(console: Console) -> Iterator[None]:
    """Inside, a line comes at least every 10 s: how long it has been silent, and after what."""

    console.seen()
    signed_at = console.shown_at

    def look() -> None:
        nonlocal signed_at
        now = time.monotonic()
        if now - max(console.shown_at, signed_at) >= LIFE_SECONDS:
            signed_at = now
            console.sign(f"      ... {now - console.shown_at:.0f} s at work on: {console.said}")

    with every(min(_LOOK_SECONDS, LIFE_SECONDS), look):
        yield


@contextmanager
def watching(dagster: DagsterProcess, stop: StopSignal) -> Iterator[None]:
    """Inside, the end of a child of Dagster sets `stop`. Raises UsageError with the last lines of that child."""
    ended: list[str] = []

    def look() -> None:
        if not ended and (why := dagster.why_ended()):
            ended.append(why)
            stop.set()

    with every(_LOOK_SECONDS, look):
        try:
            yield
        except UsageError:
            if not ended:
                raise
    if ended:
        raise UsageError(ended[0])


@contextmanager
def every(seconds: float, act: Callable[[], None]) -> Iterator[None]:
    """Inside, a thread calls `act` after each pause of `seconds`."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(seconds):
            act()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
