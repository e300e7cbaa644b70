"""Makes a failing play short: leaves out changes and faults as long as it still fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from tests.simulation.plan import Plan
from tests.simulation.play import Outcome

T = TypeVar("T")
# What is left out changes who goes on when, so each attempt is played in some orders.
_ORDERS = 3


def shrink(failed: Outcome, play: Callable[[Plan], Outcome], *, seconds: float = 60.0) -> Outcome:
    """The shortest failing play that was found within `seconds` of CPU, so that load does not make it longer."""
    give_up = time.process_time() + seconds
    best = failed

    def fails(changes: Sequence[object], faults: Sequence[object]) -> bool:
        nonlocal best
        for number in range(_ORDERS):
            if time.process_time() >= give_up:
                return False
            shorter = best.plan.with_parts(changes, faults)  # type: ignore[arg-type]
            outcome = play(replace(shorter, order=best.plan.order + number * 1_000_003))
            if outcome.broken and _same(outcome.broken[0], failed.broken[0]):
                best = outcome
                return True
        return False

    while time.process_time() < give_up:
        before = len(best.plan.changes) + len(best.plan.faults)
        _without(best.plan.faults, lambda faults: fails(best.plan.changes, faults))
        _without(best.plan.changes, lambda changes: fails(changes, best.plan.faults))
        if len(best.plan.changes) + len(best.plan.faults) == before:
            break
    return best


def _without(parts: Sequence[T], fails: Callable[[Sequence[T]], bool]) -> None:
    """Leave out halves, then quarters, and at last single parts."""
    left = list(parts)
    size = max(1, len(left) // 2)
    while left:
        start = 0
        while start < len(left):
            shorter = left[:start] + left[start + size :]
            if fails(shorter):
                left = shorter
            else:
                start += size
        if size == 1:
            return
        size = max(1, size // 2)


def _same(one: str, other: str) -> bool:
    """Whether two messages are about the same invariant: digits, ids and times differ."""
    return _words(one) == _words(other)


def _words(text: str) -> list[str]:
    return [word for word in text.split() if word.isalpha()][:4]
