"""How deep each queue is and, as far as anybody knows, how old its oldest message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.snapshot import QueueState, Reading, Unread
from regworkers_core.domain.timestamps import seconds
from regworkers_core.runtime import Runtime

_DEPTH, _AGE = "depth:", "age:"
# How many looks may fail to come before what lies between them counts as not seen.
LOOKS = 5


def queue_readers(runtime: Runtime) -> dict[str, Callable[[], Any]]:
    """Two readings for each queue, so that a slow CloudWatch costs an age and no depth."""
    readers: dict[str, Callable[[], Any]] = {}
    for name in runtime.names.queues:
        for queue, dead in ((name, False), (runtime.names.dead_letter_queue(name), True)):
            readers[_DEPTH + queue] = lambda queue=queue, dead=dead: _depth(runtime, queue, dead)  # type: ignore[misc]
            readers[_AGE + queue] = lambda queue=queue, dead=dead: _known_age(runtime, queue, dead)  # type: ignore[misc]
    return readers


def asked_for_queue(reader: str) -> str:
    """The dependency that one of `queue_readers` asks in the first place; empty for any other."""
    if reader.startswith(_DEPTH):
        return "sqs"
    return "mongo" if reader.startswith(_AGE) else ""


def queue_states(
    found: Mapping[str, Any],
) -> tuple[Reading[tuple[QueueState, ...]], dict[str, Unread]]:
    """From what the readers brought: the queues whose depth could be read (Unread when that is none), and the others
    by name.
    """
    states, unread = [], {}
    for reader, state in found.items():
        if reader.startswith(_DEPTH):
            name = reader.removeprefix(_DEPTH)
            if isinstance(state, Unread):
                unread[name] = state
            else:
                states.append(aged(state, found[_AGE + name]))
    return (tuple(states) if states or not unread else next(iter(unread.values()))), unread


def aged(state: QueueState, age: Reading[float | None]) -> QueueState:
    """With an age that may be from before the queue was emptied: where nothing waits, nothing is old."""
    if not state.waiting:
        return replace(state, oldest_seconds=0.0)
    if isinstance(age, Unread):
        return replace(state, age_unread=age)
    return replace(state, oldest_seconds=age)


def _depth(runtime: Runtime, name: str, is_dead_letter: bool) -> QueueState:
    depth, retention = runtime.queue(name).state()
    return QueueState(name, depth.visible, depth.in_flight, depth.delayed, is_dead_letter, retention)


def _known_age(runtime: Runtime, name: str, is_dead_letter: bool) -> float | None:
    """Seconds: the greatest of what SQS measured, of how long a watched queue was not empty without a delivery, and
    for dead letters of how long the oldest failure stands open. Raises TransientFailure.
    """
    now = runtime.clock()
    known: list[float] = []
    if is_dead_letter:
        first = runtime.dead_letters.oldest_open(name.removesuffix("-dlq"))
        moment = None if first is None else seconds(first)
        known += [] if moment is None else [now - moment]
    marked = runtime.queue_marks.of(name).known_age(now, LOOKS * runtime.settings.alerts.look_seconds)
    known += [] if marked is None else [marked]
    if runtime.settings.observability.cloudwatch_enabled:
        try:
            measured = runtime.metrics.oldest_message_seconds(name, now)
        except TransientFailure:
            if marked is None:
                raise
            measured = None
        known += [] if measured is None else [measured]
    return max(0.0, *known) if known else None
