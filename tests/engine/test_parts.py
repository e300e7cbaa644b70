"""Asking again for what a batch call left undone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from regworkers_core.engine.dependency import PART_ATTEMPTS, RetryPolicy, retry_parts
from tests.support.waiting import Clock

POLICY = RetryPolicy(first_cap_seconds=1.0, last_cap_seconds=4.0)


class Partly:
    """Does `does` of what it is asked for, and then the next number."""

    def __init__(self, *does: int) -> None:
        self._does = list(does)
        self.asked: list[int] = []
        self.slept: list[float] = []

    def __call__(self, pending: Sequence[int]) -> Sequence[int]:
        self.asked.append(len(pending))
        return pending[self._does.pop(0) if self._does else 0 :]


def left_of(count: int, partly: Partly, *, whole: bool = False) -> int:
    return len(retry_parts(range(count), partly, POLICY, partly.slept.append, whole=whole))


def test_only_what_is_left_is_asked_for_again_after_a_wait_each_time() -> None:
    partly = Partly(4, 3, 3)
    assert left_of(10, partly) == 0
    assert partly.asked == [10, 6, 3] and len(partly.slept) == 2


def test_nothing_to_ask_for_is_nothing_asked() -> None:
    partly = Partly()
    assert left_of(0, partly) == 0 and partly.asked == []


def test_a_part_is_asked_for_so_often_however_many_others_got_done() -> None:
    partly = Partly(*[1] * 14)
    assert left_of(20, partly) == 6
    assert len(partly.asked) == PART_ATTEMPTS and len(partly.slept) == PART_ATTEMPTS - 1


def test_each_wait_is_longer_than_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RetryPolicy, "backoff", lambda _policy, attempt: float(attempt))
    partly = Partly()
    left_of(3, partly)
    assert partly.slept == [float(number) for number in range(1, PART_ATTEMPTS)]


def test_what_is_worth_nothing_without_the_rest_is_asked_for_as_long_as_it_gets_on() -> None:
    partly = Partly(*[1] * 30)
    assert left_of(30, partly, whole=True) == 0
    stuck = Partly(*[1] * 30)
    assert left_of(31, stuck, whole=True) == 1
    assert len(stuck.asked) == 30 + PART_ATTEMPTS


def test_no_wait_goes_beyond_the_end() -> None:
    clock, asked, slept = Clock(), list[int](), list[float]()

    def ask(pending: Sequence[int]) -> Sequence[int]:
        asked.append(len(pending))
        clock.now += 5.0
        return pending

    left = retry_parts([1], ask, POLICY, slept.append, end=clock.now + 12.0, monotonic=clock)
    assert left == [1] and len(asked) in (2, 3) and len(slept) == len(asked) - 1
