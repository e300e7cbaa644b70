"""Awaiting a condition instead of sleeping, a clock that a test moves, and sleeps of the product that take no time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from fairdraw import scheduling

T = TypeVar("T")


class Clock:
    """It moves only by a test's hand, or by sleeping on it."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def wait_until(condition: Callable[[], T], *, seconds: float = 60.0, what: str = "the condition") -> T:
    """The first truthy value of `condition`; fails the test after `seconds`."""
    give_up = time.monotonic() + seconds
    pause = threading.Event()
    while not (value := condition()):
        assert time.monotonic() < give_up, f"{what} did not come true within {seconds} s"
        pause.wait(0.02)
    return value


@contextmanager
def sleeping(act: Callable[[float], object]) -> Iterator[None]:
    """Inside, the product does `act` instead of sleeping."""
    scheduling.install(type("World", (scheduling.RealWorld,), {"sleep": staticmethod(act)}))
    try:
        yield
    finally:
        scheduling.install(scheduling.RealWorld)
