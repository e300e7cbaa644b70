"""How many checks a second, and how long each takes, as the threads that ask become more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from benchmarks.eligibility.world import OPEN, World, world
from benchmarks.figures import spread
from regworkers_local.state import StackState

_SECONDS = 2.0
_THREADS = (1, 8, 32)
TOGETHER = 100

Say = Callable[[str], None]
Call = Callable[[int], object]


def measure(state: StackState, rounds: int, say: Say) -> dict[str, Any]:
    """`{"1": {contestant: {"perSecond", "p50", "p99"}}}` by threads: checks a second and milliseconds a call,
    by slug, in an open campaign.
    """
    found: dict[str, Any] = {}
    with world(state, threads=max(_THREADS)) as made:
        contestants = _contestants(made)
        for threads in _THREADS:
            per_round: list[dict[str, dict[str, float]]] = []
            for number in range(rounds):
                per_round.append({name: _once(*each, threads) for name, each in contestants.items()})
                shown = ", ".join(
                    f"{name} {each['perSecond']:,.0f}/s" for name, each in per_round[-1].items()
                )
                say(f"rates, {threads} threads, round {number + 1}: {shown}")
            found[str(threads)] = {
                name: {
                    figure: spread(each[name][figure] for each in per_round)
                    for figure in ("perSecond", "p50", "p99")
                }
                for name in contestants
            }
    return found


def _contestants(made: World) -> dict[str, tuple[Call, int]]:
    """The call, and how many checks it makes."""
    return {
        "bare": (made.bare(OPEN), 1),
        "bareOfThree": (made.bare_of_three(OPEN), 1),
        "single": (_sure(made.check(OPEN, "slug")), 1),
        "together": (_sure(made.check_many(OPEN, "slug", TOGETHER)), TOGETHER),
    }


def _sure(check: Call) -> Call:
    """An unavailable dependency also answers quickly."""

    def asked(number: int) -> None:
        answers: Any = check(number)
        if wrong := next((each for each in answers if each["status"] != "ELIGIBLE"), None):
            raise RuntimeError(f"a fan of the benchmark was not found eligible: {wrong}")

    return asked


def _once(call: Call, checks: int, threads: int) -> dict[str, float]:
    """All threads ask one call after the other for the same time; one that is under way then is waited for and
    counts.
    """
    took: list[list[float]] = [[] for _ in range(threads)]
    broken: list[BaseException] = []
    start = threading.Barrier(threads + 1)

    def ask(thread: int) -> None:
        own, number = took[thread], thread
        try:
            call(number)
            start.wait()
            end = time.perf_counter() + _SECONDS
            while (began := time.perf_counter()) < end:
                call(number)
                own.append(time.perf_counter() - began)
                number += threads
        except BaseException as error:
            broken.append(error)
            start.abort()

    workers = [threading.Thread(target=ask, args=(thread,), daemon=True) for thread in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    began = time.perf_counter()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - began
    if broken:
        raise broken[0]
    all_took = sorted(1000 * each for own in took for each in own)
    return {
        "perSecond": len(all_took) * checks / seconds,
        "p50": median(all_took),
        "p99": all_took[int(len(all_took) * 0.99)],
    }
