"""A publish drain that is killed at a named step or loses its broker, and the recovery after it.

`python -m tests.analytics.crash <prefix> <step> <occurrence>` is the one that dies.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from regworkers_core.analytics.publishing import PUBLISH
from regworkers_core.drains.runner import drain_limits, run_drain
from regworkers_core.engine.drain_report import DrainReport
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime
from regworkers_local.stack import Stack
from tests.analytics.world import queue_events, removed
from tests.faults.story import Verdict
from tests.support.children import run_child
from tests.support.drains import run
from tests.support.kafka import published
from tests.support.runtimes import test_settings
from tests.support.waiting import wait_until

# Small batches, so that a drain dies between others that are done, waiting or in flight.
SECTIONS: dict[str, Any] = {"analytics": {"batch_messages": 2, "concurrency": 2}}
EVENTS = [removed(number) for number in range(240)]
PER_MESSAGE = 20
# How often a drain over these passes each step, at least.
PASSES = {"publish.after_send": 3, "publish.before_delete": 3}
BROKER = "kafka.killed"


def crash_and_recover(runtime: Runtime, step: str, occurrence: int = 1) -> Verdict:
    """Events that wait, a drain that dies over them, fresh drains until nothing is left."""
    queue_events(runtime, EVENTS, per_message=PER_MESSAGE)
    words = (runtime.names.prefix, step, str(occurrence))
    answer = run_child("tests.analytics.crash", *words, seconds=60)
    assert answer.returncode == -signal.SIGKILL, f"{step} did not die: {answer.stdout}{answer.stderr}"
    recover(runtime)
    return judge(runtime)


def broker_dies_and_returns(
    runtime: Runtime, stack: Stack, occurrence: int = 1
) -> tuple[DrainReport, Verdict]:
    """The broker is killed while the drain has batches in flight, and comes back once the drain has given up."""
    queue_events(runtime, EVENTS, per_message=PER_MESSAGE)
    report = run(runtime, PUBLISH, on_step=at("publish.after_send", occurrence, lambda: stack.kill("kafka")))
    stack.up()
    recover(runtime)
    return report, judge(runtime)


def at(step: str, occurrence: int, strike: Callable[[], None]) -> Callable[[str], None]:
    """Strike when a drain passes the step for the `occurrence`-th time."""
    lock, passed = threading.Lock(), 0

    def on_step(name: str) -> None:
        nonlocal passed
        if name != step:
            return
        with lock:
            passed += 1
            if passed == occurrence:
                strike()

    return on_step


def recover(runtime: Runtime, seconds: float = 60.0) -> None:
    """Fresh drains until the queue is empty: what the dead one had received has to come back first."""
    queue = runtime.queue(runtime.names.analytics_queue)
    wait_until(
        lambda: run(runtime, PUBLISH) and queue.depth().total == 0, seconds=seconds, what="an empty queue"
    )


def judge(runtime: Runtime) -> Verdict:
    """By what a consumer sees. `repeats` came again with the id and the content that they had."""
    expected = {event["id"]: event for event in EVENTS}
    records = published(runtime)
    seen = Counter(record.headers["ce_id"] for record in records)
    verdict = Verdict(repeats=seen.total() - len(seen))
    verdict.lost = [f"{id_}: not on Kafka" for id_ in expected.keys() - seen.keys()]
    verdict.doubled = [
        f"{record.headers['ce_id']}: another event under this id"
        for record in records
        if record.event != expected.get(record.headers["ce_id"])
    ]
    queue = runtime.names.analytics_queue
    if dead := runtime.queue(runtime.names.dead_letter_queue(queue)).depth().total:
        verdict.lost.append(f"{dead} dead letters on {runtime.names.dead_letter_queue(queue)}")
    return verdict


def _main(prefix: str, step: str, occurrence: str) -> None:
    runtime = Runtime(test_settings(prefix, **SECTIONS))
    limits = drain_limits(runtime.settings, PUBLISH, idle_seconds=0.1, max_seconds=30)
    on_step = at(step, int(occurrence), lambda: os.kill(os.getpid(), signal.SIGKILL))
    print(run_drain(runtime, PUBLISH, limits, stop=StopSignal(), run_id="victim", on_step=on_step).as_dict())


if __name__ == "__main__":
    _main(*sys.argv[1:])
