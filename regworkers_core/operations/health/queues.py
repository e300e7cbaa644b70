"""How deep each queue is and, as far as is known, how old its oldest message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ParamSpec, TypeVar

from regworkers_core.adapters.mongo.activity import QueueActivity
from regworkers_core.domain.reasons import Failure, TransientFailure, UsageError
from regworkers_core.domain.snapshot import QueueState, Reading, Unread
from regworkers_core.domain.timestamps import seconds
from regworkers_core.observability.metrics import DATA_LOSS, OLDEST_MESSAGE, Metering
from regworkers_core.runtime import Runtime

P = ParamSpec("P")
T = TypeVar("T")
_DEPTH, _AGE = "depth:", "age:"
# How many evaluations may be missing before the time between two of them counts as not observed.
GAP_EVALUATIONS = 5


@dataclass(frozen=True, slots=True)
class QueueAge:
    """Bounds of the age of the oldest message, in seconds; None: unknown. On a busy queue `at_most` says little: it is
    the time since the queue was last seen empty.
    """

    at_least: float | None = None
    at_most: float | None = None


def queue_readers(runtime: Runtime) -> dict[str, Callable[[], Any]]:
    """Two readers for each queue, so that a slow CloudWatch costs the age and not the depth."""
    readers: dict[str, Callable[[], Any]] = {}
    for source in runtime.names.queues:
        for name in (source, runtime.names.dead_letter_queue(source)):
            readers[_DEPTH + name] = partial(_depth, runtime, name)
            readers[_AGE + name] = partial(_age, runtime, name)
    return readers


def dependency_of(reader: str) -> str:
    """The dependency that one of `queue_readers` reads first; empty for other readers."""
    if reader.startswith(_DEPTH):
        return "sqs"
    return "mongo" if reader.startswith(_AGE) else ""


def queue_states(
    found: Mapping[str, Any],
) -> tuple[Reading[tuple[QueueState, ...]], dict[str, Unread]]:
    """The queues whose depth could be read (Unread if none), and the others by name."""
    states, unread = [], {}
    for reader, state in found.items():
        if reader.startswith(_DEPTH):
            name = reader.removeprefix(_DEPTH)
            if isinstance(state, Unread):
                unread[name] = state
            else:
                states.append(_with_age(state, found[_AGE + name]))
    return (tuple(states) if states or not unread else next(iter(unread.values()))), unread


def read_analytics_queue(runtime: Runtime) -> QueueState | None:
    """Depth and age of the analytics queue; marks in MongoDB when it was empty. None if SQS does not answer. An age
    that cannot be read is unknown. Never raises for an unavailable dependency.
    """
    name, now = runtime.names.analytics_queue, runtime.clock()
    state = _or_none(_depth, runtime, name)
    if state is None:
        return None
    if not state.waiting:
        _or_none(runtime.queue_marks.empty, name, now)
        return _with_age(state, QueueAge())
    marks = _or_none(runtime.queue_marks.of, name) or QueueActivity()
    if marks.watched_at is None:
        _or_none(runtime.queue_marks.watched, name, now)
        marks = QueueActivity(watched_at=now)
    measured = _or_none(runtime.metrics.oldest_message_seconds, name, now)
    return _with_age(state, age_by(marks, measured, now))


def put_age_metrics(runtime: Runtime, queue: QueueState | None) -> None:
    """Put the age of the analytics queue's oldest message and the time until it is lost."""
    if queue is None:
        return
    values = ((OLDEST_MESSAGE, queue.oldest_seconds), (DATA_LOSS, queue.seconds_left))
    where = {"Queue": queue.name}
    runtime.metrics.put([Metering(each, value, where) for each, value in values if value is not None])


def age_by(
    marks: QueueActivity, measured: float | None, now: float, gap_seconds: float = float("inf")
) -> QueueAge:
    """Bounds of the age of the oldest message on a queue that is not empty. `measured` is CloudWatch's, which omits
    messages that were received three times.
    """
    marked = marks.known_age(now, gap_seconds)
    known = [max(0.0, age) for age in (measured, marked) if age is not None]
    # Deliveries take younger messages; an older one may be stuck behind them since the queue was last empty.
    at_most = None if marks.empty_at is None else max(0.0, now - marks.empty_at)
    return QueueAge(max(known) if known else None, at_most)


def _with_age(state: QueueState, age: Reading[QueueAge]) -> QueueState:
    """The age may be from before the queue was emptied: an empty queue has no old message."""
    if not state.waiting:
        return replace(state, oldest_seconds=0.0, oldest_at_most_seconds=0.0)
    if isinstance(age, Unread):
        return replace(state, age_unread=age)
    return replace(state, oldest_seconds=age.at_least, oldest_at_most_seconds=age.at_most)


def _depth(runtime: Runtime, name: str) -> QueueState:
    depth, retention = runtime.queue(name).state()
    return QueueState(name, depth.visible, depth.in_flight, depth.delayed, name.endswith("-dlq"), retention)


def _age(runtime: Runtime, name: str) -> QueueAge:
    """The greatest of what SQS measured, how long a marked queue was not empty without a delivery, and for dead letters
    how long the oldest failure is open. Raises TransientFailure.
    """
    now, settings = runtime.clock(), runtime.settings
    opened = None
    if name.endswith("-dlq"):
        first = runtime.dead_letters.oldest_open(name.removesuffix("-dlq"))
        opened = None if first is None else seconds(first)
    marks = runtime.queue_marks.of(name)
    gap = GAP_EVALUATIONS * settings.alerts.look_seconds
    measured = None
    try:
        measured = runtime.metrics.oldest_message_seconds(name, now)
    except (TransientFailure, UsageError):
        if marks.known_age(now, gap) is None:
            raise
    age = age_by(marks, measured, now, gap)
    if opened is None:
        return age
    return replace(age, at_least=max(0.0, now - opened, age.at_least or 0.0))


def _or_none(read: Callable[P, T], *args: P.args, **more: P.kwargs) -> T | None:
    try:
        return read(*args, **more)
    except (Failure, UsageError):
        return None
