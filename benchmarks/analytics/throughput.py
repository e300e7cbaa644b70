"""Events a second and CPU for each, all contestants in turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psutil

from benchmarks.analytics.both import BothBare
from benchmarks.analytics.contestants import BareProducer, BareQueue, Contestant, Drain, OldShape
from benchmarks.analytics.data import PER_MESSAGE, namespace
from benchmarks.figures import Rounds, cpu_of, ratio
from regworkers_local.state import StackState

ROUNDS = 5
# Record by record is slow, and a rate does not need more.
OLD_MESSAGES = 5
PROCESSES = ("client", "aws", "kafka")


def measure(state: StackState, messages: int, say: Callable[[str], None]) -> dict[str, Any]:
    """One round that warms up and does not count, then the others, with the order rotated each round."""
    both = BothBare(state.instance, namespace(state, "both"))
    try:
        found = _measure(state, both, messages, say)
    finally:
        both.close()
    drain = found["drain"]
    slower = [max(pair) for pair in zip(found["sqs"].seconds, found["kafka"].seconds, strict=True)]
    return {
        "contestants": {
            name: {
                "events": each.items,
                "rate": each.rate,
                "cpuMicros": {process: each.cpu_micros(process) for process in PROCESSES},
            }
            for name, each in found.items()
        },
        "ofBoth": ratio(found["both"].seconds, drain.seconds),
        "ofSlower": ratio(slower, drain.seconds),
        "timesOld": ratio(found["old"].seconds_of_one, drain.seconds_of_one),
    }


def _measure(
    state: StackState, both: BothBare, messages: int, say: Callable[[str], None]
) -> dict[str, Rounds]:
    processes = {name: [psutil.Process(state.processes[name].pid)] for name in PROCESSES if name != "client"}
    processes["client"] = [psutil.Process(), psutil.Process(both.child.pid)]
    contestants: list[Contestant] = [
        BareQueue(namespace(state, "sqs")),
        BareProducer(namespace(state, "kafka")),
        both,
        Drain(namespace(state, "drain")),
        OldShape(namespace(state, "old")),
    ]
    sizes = {
        each.name: min(messages, OLD_MESSAGES) if each.name == "old" else messages for each in contestants
    }
    found = {each.name: Rounds(sizes[each.name] * PER_MESSAGE) for each in contestants}
    for number in range(ROUNDS + 1):
        turn = number % len(contestants)
        for each in contestants[turn:] + contestants[:turn]:
            each.load(number * messages, sizes[each.name])
            before = cpu_of(processes)
            seconds = each.run()
            spent = cpu_of(processes)
            say(f"round {number} {each.name}: {found[each.name].items / seconds:,.0f} events/s")
            if number:
                spent.subtract(before)
                found[each.name].seconds.append(seconds)
                found[each.name].cpu.append(spent)
    return found
