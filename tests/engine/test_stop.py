"""The stop signal and the handlers that were there before."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from regworkers_core.engine.stop import StopSignal

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture
def old_handler() -> Iterator[list[int]]:
    """Handlers of the program around: they note the signals that reach them."""
    reached: list[int] = []

    def handler(number: int, _frame: FrameType | None) -> None:
        reached.append(number)

    before = {number: signal.signal(number, handler) for number in SIGNALS}
    yield reached
    for number, old in before.items():
        signal.signal(number, old)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_sets_it_and_a_second_one_meets_the_old_handler(
    number: signal.Signals, old_handler: list[int]
) -> None:
    with StopSignal().on_signals() as stop:
        assert not stop.is_set
        signal.raise_signal(number)
        assert stop.is_set and old_handler == []
        signal.raise_signal(number)
        assert old_handler == [number]


def test_the_old_handlers_are_back_afterwards(old_handler: list[int]) -> None:
    stop = StopSignal()
    with stop.on_signals():
        pass
    for number in SIGNALS:
        signal.raise_signal(number)
    assert old_handler == list(SIGNALS) and not stop.is_set


def test_outside_the_main_thread_it_leaves_the_handlers_alone(old_handler: list[int]) -> None:
    seen: list[object] = []

    def inside() -> None:
        with StopSignal().on_signals() as stop:
            stop.set()
            seen.append((stop.is_set, [signal.getsignal(number) for number in SIGNALS]))

    before = [signal.getsignal(number) for number in SIGNALS]
    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [(True, before)]


def test_waiting_ends_when_the_signal_comes() -> None:
    stop = StopSignal()
    assert stop.wait(0) is False
    waited: list[bool] = []
    thread = threading.Thread(target=lambda: waited.append(stop.wait(60)))
    thread.start()
    stop.set()
    thread.join(10)
    assert waited == [True]
