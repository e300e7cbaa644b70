"""Events a second and CPU for each, all contestants in turn."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import psutil

from benchmarks.analytics.both import Elsewhere, Together
from benchmarks.analytics.contestants import (
    BareProducer,
    BareQueue,
    Contestant,
    Drain,
    OldShape,
    Unchecked,
    record,
)
from benchmarks.analytics.data import PER_MESSAGE, event, namespace
from benchmarks.figures import Rounds, Spread, cpu_of, ratio, spread
from regworkers_core.analytics.publishing import refusal
from regworkers_local.state import StackState
from tests.conformance.servers import apache_kafka, fetch
from tests.support.runtimes import ADDRESSES

ROUNDS = 5
# Record by record is slow, and a rate does not need more.
OLD_MESSAGES = 5
_REPEATS = 1_000
PROCESSES = ("client", "aws", "kafka")


def measure_on_apache_kafka(state: StackState, messages: int, say: Callable[[str], None]) -> dict[str, Any]:
    """The same with Apache Kafka. The embedded broker keeps its records on the embedded S3, so that every request to
    it costs milliseconds of a Python process.
    """
    fetch("apache-kafka")
    with TemporaryDirectory() as folder, apache_kafka(Path(folder)) as addresses:
        # For the processes that this one starts, too.
        os.environ[ADDRESSES["kafka"]] = addresses[ADDRESSES["kafka"]]
        try:
            java = [each for each in psutil.Process().children() if each.name() == "java"]
            return measure(state, messages, say, kafka=java)
        finally:
            del os.environ[ADDRESSES["kafka"]]


def measure(
    state: StackState,
    messages: int,
    say: Callable[[str], None],
    *,
    kafka: Sequence[psutil.Process] = (),
) -> dict[str, Any]:
    """One round that warms up and does not count, then the others, with the order rotated each round. `kafka` are the
    processes of a broker that is not the stack's.
    """
    servers = {name: [psutil.Process(state.processes[name].pid)] for name in PROCESSES if name != "client"}
    if kafka:
        servers["kafka"] = [*kafka]
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
            servers,
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
        "steps": _steps(),
        "ofBoth": ratio(found["both"].seconds, drain.seconds),
        "ofBothUnchecked": ratio(found["both"].seconds, found["unchecked"].seconds),
        "ofPairs": ratio(found["pairs"].seconds, found["drains"].seconds),
        "ofSlower": ratio(slower, drain.seconds),
        "timesOld": ratio(found["old"].seconds_of_one, drain.seconds_of_one),
    }


def _steps() -> dict[str, Spread]:
    """CPU microseconds an event of what no client can leave out that reads events, and of validation."""
    events = [event(number) for number in range(PER_MESSAGE)]
    body = orjson.dumps({"items": events}).decode()
    steps: dict[str, Callable[[], Any]] = {
        "parsed": lambda: orjson.loads(body),
        "validated": lambda: [refusal(each) for each in events],
        "written": lambda: [record(each) for each in events],
    }
    return {name: spread(cpu_of_one(step) for _ in range(ROUNDS)) for name, step in steps.items()}


def cpu_of_one(step: Callable[[], Any]) -> float:
    """CPU microseconds an event of a step over one message."""
    step()
    began = time.thread_time()
    for _ in range(_REPEATS):
        step()
    return 1e6 * (time.thread_time() - began) / _REPEATS / PER_MESSAGE


def _measure(
    state: StackState,
    servers: Mapping[str, Sequence[psutil.Process]],
    several: Sequence[Together],
    messages: int,
    say: Callable[[str], None],
) -> dict[str, Rounds]:
    client = [psutil.Process(), *(member.process for each in several for member in each.members)]
    processes = {"client": client, **servers}
    contestants: list[Contestant] = [
        BareQueue(namespace(state, "sqs")),
        BareProducer(namespace(state, "kafka")),
        *several,
        Drain(namespace(state, "drain")),
        Unchecked(namespace(state, "unchecked")),
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
