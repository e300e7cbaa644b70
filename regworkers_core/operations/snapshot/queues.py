"""How deep each queue is and, as far as anybody knows, how old its oldest message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from regworkers_core.domain.snapshot import QueueState, Reading, Unread
from regworkers_core.domain.timestamps import seconds
from regworkers_core.runtime import Runtime

_DEPTH, _AGE = "depth:", "age:"


def queue_readers(runtime: Runtime) -> dict[str, Callable[[], Any]]:
    """Two readings for each queue, so that a slow CloudWatch costs an age and no depth."""
    readers: dict[str, Callable[[], Any]] = {}
    for name in runtime.names.queues:
        for queue, dead in ((name, False), (runtime.names.dead_letter_queue(name), True)):
            readers[_DEPTH + queue] = lambda queue=queue, dead=dead: _depth(runtime, queue, dead)  # type: ignore[misc]
            readers[_AGE + queue] = lambda queue=queue, dead=dead: _known_age(runtime, queue, dead)  # type: ignore[misc]
    return readers


def queue_states(found: Mapping[str, Any]) -> Reading[tuple[QueueState, ...]]:
    """From what the readers brought; Unread when the depth of one of them is."""
    states = []
    for name, state in found.items():
        if not name.startswith(_DEPTH):
            continue
        if isinstance(state, Unread):
            return state
        age = found[_AGE + state.name]
        states.append(aged(state, None if isinstance(age, Unread) else age))
    return tuple(states)


def aged(state: QueueState, age: float | None) -> QueueState:
    """With an age that may be from before the queue was emptied: where nothing waits, nothing is old."""
    known = age if state.waiting else 0.0
    return QueueState(
        state.name,
        state.visible,
        state.in_flight,
        state.delayed,
        state.is_dead_letter,
        state.retention_seconds,
        known,
    )


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
    else:
        marks = runtime.queue_marks.of(name)
        moments = [
            each for each in (marks.watched_at, marks.empty_at, marks.delivered_at) if each is not None
        ]
        known += [now - max(moments)] if moments else []
    if runtime.settings.observability.cloudwatch_enabled:
        measured = runtime.metrics.oldest_message_seconds(name, now)
        known += [] if measured is None else [measured]
    return max(0.0, *known) if known else None
