"""Events a second and CPU for each, all contestants in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import psutil

from benchmarks.analytics.both import Elsewhere, Together
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
    with ExitStack() as ended:

        def together(name: str, *groups: Sequence[str]) -> Together:
            """Each group in one namespace."""
            members = []
            for number, group in enumerate(groups):
                runtime = namespace(state, f"{name}{number}")
                members += [Elsewhere(each, state.instance, runtime) for each in group]
            made = Together(name, members)
            ended.callback(made.close)
            return made

        pair = ("sqs", "kafka")
        found = _measure(
            state,
            [together("both", pair), together("pairs", pair, pair), together("drains", ["drain"], ["drain"])],
            messages,
            say,
        )
    drain = found["drain"]
    slower = [max(two) for two in zip(found["sqs"].seconds, found["kafka"].seconds, strict=True)]
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
        "ofPairs": ratio(found["pairs"].seconds, found["drains"].seconds),
        "ofSlower": ratio(slower, drain.seconds),
        "timesOld": ratio(found["old"].seconds_of_one, drain.seconds_of_one),
    }


def _measure(
    state: StackState, several: Sequence[Together], messages: int, say: Callable[[str], None]
) -> dict[str, Rounds]:
    processes = {name: [psutil.Process(state.processes[name].pid)] for name in PROCESSES if name != "client"}
    processes["client"] = [
        psutil.Process(),
        *(member.process for each in several for member in each.members),
    ]
    contestants: list[Contestant] = [
        BareQueue(namespace(state, "sqs")),
        BareProducer(namespace(state, "kafka")),
        *several,
        Drain(namespace(state, "drain")),
        OldShape(namespace(state, "old")),
    ]
    sizes = {
        each.name: min(messages, OLD_MESSAGES) if each.name == "old" else messages for each in contestants
    }
    times = {"pairs": 2, "drains": 2}
    found = {
        each.name: Rounds(sizes[each.name] * PER_MESSAGE * times.get(each.name, 1)) for each in contestants
    }
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
