"""A drain that is killed at a named step, and the recovery after it.

`save.left_over` is the step `save.before_delete` of a drain whose demand table refuses half of the statements that
clear flags: parts of its messages went on in new ones, and the messages themselves are still there.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Any

from regworkers_core.runtime import Runtime
from tests.faults.story import Story, Verdict
from tests.support.children import run_child
from tests.support.drains import replicate_all, run
from tests.support.waiting import wait_until

# Small batches, so that a drain dies between others that are settled, waiting or in flight. The victim and
# its successor run with the same settings.
SECTIONS: dict[str, Any] = {
    "enqueue": {"batch_records": 5, "concurrency": 2},
    "save": {"batch_messages": 1, "concurrency": 2},
}


@dataclass(frozen=True, slots=True)
class Fault:
    """Kill the drain when it passes the step for the `occurrence`-th time. `variant`: see victim.py."""

    step: str
    occurrence: int = 1
    variant: str = "good"

    @classmethod
    def at(cls, point: str, occurrence: int) -> Fault:
        """By the name of a kill point (PASSES)."""
        if point == LEFT_OVER:
            return cls("save.before_delete", occurrence, "throttled")
        return cls(point, occurrence)

    @property
    def drain(self) -> str:
        return "enqueue" if self.step.startswith("enqueue.") else "save"


LEFT_OVER = "save.left_over"
# How often a drain of the story below passes each step, at least.
PASSES = {
    "enqueue.after_dead_letters": 1,
    "enqueue.after_send": 3,
    "enqueue.before_checkpoint": 1,
    "save.after_write": 3,
    "save.after_event": 3,
    "save.after_clear": 3,
    "save.before_delete": 3,
    LEFT_OVER: 3,
}


def crash_and_recover(runtime: Runtime, fault: Fault) -> Verdict:
    """Changes of every kind, a drain that dies over them, fresh drains until nothing is left."""
    story = Story(runtime)
    for number in range(11):
        story.put(f"old-{number}")
    replicate_all(runtime)
    story.saved()
    for number in range(3):
        story.put_quietly(f"quiet-{number}")
    story.put_refused("x")
    for number in range(9, 11):
        story.rewrite(f"old-{number}")
    for number in range(6):
        story.put(f"old-{number}")
        story.put(f"new-{number}")
    for number in range(4, 9):
        story.remove(f"old-{number}")
    if fault.drain == "save":
        run(runtime, "enqueue")
    die(runtime, fault)
    recover(runtime)
    return story.judge()


def die(runtime: Runtime, fault: Fault) -> None:
    """Run the drain in a process of its own until it kills itself."""
    words = (runtime.names.prefix, fault.step, str(fault.occurrence), fault.variant)
    answer = run_child("tests.faults.victim", *words, seconds=60)
    assert answer.returncode == -signal.SIGKILL, f"{fault} did not die: {answer.stdout}{answer.stderr}"


def recover(runtime: Runtime, seconds: float = 60.0) -> None:
    """Fresh drains until the queue is empty: visibility and leases of the dead one have to run out first."""
    queue = runtime.queue(runtime.names.replication_queue)

    def over() -> bool:
        replicate_all(runtime)
        return queue.depth().total == 0

    wait_until(over, seconds=seconds, what="an empty queue")
