"""What the snapshot reads of queues, topics, checkEligibility, log lines and the beacon: how much waits, and how old it
is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

from fairdraw.errors import DrawError
from fairdraw.log.trust import Trust
from regworkers_core.adapters.aws.objects import ObjectStore
from regworkers_core.adapters.kafka.log import Partition
from regworkers_core.adapters.mongo.activity import QueueActivity
from regworkers_core.analytics.archive.manifest import LEASE, plan_reading, read_manifest
from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.reasons import Failure, TransientFailure, UsageError
from regworkers_core.domain.snapshot import (
    BeaconState,
    FunctionState,
    LinesState,
    QueueState,
    Reading,
    RegistrationsState,
    UnarchivedEvents,
    Unread,
)
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.engine.queue import QUEUE_SERVICE
from regworkers_core.infrastructure.desired import desired
from regworkers_core.observability.metrics import DATA_LOSS, OLDEST_MESSAGE, UNKNOWN_VERDICTS, Metering
from regworkers_core.operations.cloudwatch import any_line
from regworkers_core.runtime import Runtime
from regworkers_core.selection.registrations.tree import RegistrationFiles

P = ParamSpec("P")
T = TypeVar("T")
_DEPTH, _AGE = "depth:", "age:"
# Fans register, or the draw has not frozen who did.
_REGISTERS = (CampaignStatus.OPEN, CampaignStatus.CLOSED, CampaignStatus.PROCESSING)
# How many evaluations may be missing before the time between two of them counts as not observed.
GAP_EVALUATIONS = 5
WINDOW_SECONDS = 300.0
# Each evaluation of the alerts writes a line, about once a minute.
LINES_SECONDS = 900.0
# The agent of deploy/kubernetes/logs.yaml begins the name of each of its streams with it.
POD_STREAMS = "pods-"
# CloudWatch has the numbers of a minute up to two minutes later.
_LATE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class QueueAge:
    """Bounds of the age of the oldest message, in seconds; None: unknown. On a busy queue `at_most` says little: it is
    the time since the queue was last seen empty.
    """

    at_least: float | None = None
    at_most: float | None = None


def read_registrations(runtime: Runtime) -> tuple[RegistrationsState, ...]:
    """Those of each campaign that logs registrations, and whose draw has not ended. Raises TransientFailure."""
    return tuple(
        registrations_state(runtime.objects, campaign)
        for campaign in runtime.campaigns.list()
        if campaign.logs_registrations and campaign.status in _REGISTERS
    )


def registrations_state(objects: ObjectStore, campaign: Campaign) -> RegistrationsState:
    name = campaign.campaign_id
    files = RegistrationFiles(objects, name)
    try:
        state = files.state()
        lacking = files.not_logged(state)
    except DrawError as error:
        return RegistrationsState(name, trouble=str(error))
    logged = state.sizes[: len(state.sizes) - len(lacking)]
    return RegistrationsState(
        name,
        size=state.size,
        logged=logged[-1] if logged else 0,
        logged_at=iso(files.made_at(logged[-1])) if logged else None,
        lacks_since=iso(files.made_at(lacking[0])) if lacking else None,
        closes_at=campaign.takes_entries_until,
    )


def queue_readers(runtime: Runtime) -> dict[str, Callable[[], Any]]:
    """Two readers for each queue, so that a slow CloudWatch costs the age and not the depth."""
    readers: dict[str, Callable[[], Any]] = {}
    for source in runtime.names.queues:
        for name in (source, runtime.names.dead_letter_queue(source)):
            readers[_DEPTH + name] = partial(read_queue, runtime, name)
            readers[_AGE + name] = partial(_age, runtime, name)
    return readers


def dependency_of(reader: str) -> str:
    """The dependency that one of `queue_readers` reads first; empty for other readers."""
    if reader.startswith(_DEPTH):
        return QUEUE_SERVICE
    return "mongo" if reader.startswith(_AGE) else ""


class QueueStates(NamedTuple):
    read: Reading[tuple[QueueState, ...]]  # Unread if no depth could be read
    unread: dict[str, Unread]


def queue_states(found: Mapping[str, Any]) -> QueueStates:
    states, unread = [], {}
    for reader, state in found.items():
        if reader.startswith(_DEPTH):
            name = reader.removeprefix(_DEPTH)
            if isinstance(state, Unread):
                unread[name] = state
            else:
                states.append(_with_age(state, found[_AGE + name]))
    return QueueStates(tuple(states) if states or not unread else next(iter(unread.values())), unread)


def read_analytics_queue(runtime: Runtime) -> QueueState | None:
    """Depth and age of the analytics queue; marks in MongoDB when it was empty. None if SQS does not answer. An age
    that cannot be read is unknown. Never raises for an unavailable dependency.
    """
    name, now = runtime.names.analytics_queue, runtime.clock()
    state = _or_none(read_queue, runtime, name)
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


def read_queue(runtime: Runtime, name: str) -> QueueState:
    """Without the age of its oldest message. Raises TransientFailure, UsageError for a queue that does not exist."""
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


def read_unarchived(runtime: Runtime) -> tuple[UnarchivedEvents, ...]:
    """One for each topic. Raises TransientFailure when S3 or Kafka does not answer, UsageError for a missing topic."""
    manifest, _ = read_manifest(runtime.objects)
    now = runtime.clock()
    with runtime.kafka_log(LEASE, peek=True) as log:
        topics = log.partitions(runtime.names.topics)
        if len(topics) < len(runtime.names.topics):
            runtime.kafka_admin.probe(runtime.names.topics)
        bounds = log.watermarks([each for partitions in topics.values() for each in partitions])
        # The archive read on to an end that some brokers list late: the partition was not created again.
        ahead = [each for each, span in bounds.items() if (manifest.offset(each) or 0) > span.end]
        bounds |= log.bounds(ahead)
        spans = plan_reading(manifest, bounds, iso(now)).spans
        times = log.first_times(spans)
    retention = _retention(runtime, topics)

    def oldest(partitions: Collection[Partition]) -> float | None:
        written = [times[each] for each in partitions if each in times]
        return max(0.0, now - min(written)) if written else None

    return tuple(
        UnarchivedEvents(
            topic,
            sum(spans[each].end - spans[each].start for each in partitions),
            oldest(partitions),
            retention[topic],
        )
        for topic, partitions in topics.items()
    )


def _retention(runtime: Runtime, topics: Collection[str]) -> dict[str, float | None]:
    """Seconds by topic. Those of the settings where the topic's own cannot be read."""
    settings = runtime.settings.kafka
    try:
        configs = runtime.kafka_admin.configs(topics)
    except UsageError:
        configs = {}
    wanted = settings.topic_config["retention.ms"]
    milliseconds = {topic: int(configs.get(topic, {}).get("retention.ms", wanted)) for topic in topics}
    return {topic: None if each < 0 else each / 1000 for topic, each in milliseconds.items()}


def read_function(runtime: Runtime) -> FunctionState | None:
    """checkEligibility within the last minutes that CloudWatch knows; None where CloudWatch is off. Raises
    TransientFailure.
    """
    metrics, settings = runtime.metrics, runtime.settings
    if not metrics.enabled:
        return None
    function = desired(settings).function
    now, seconds = runtime.clock(), WINDOW_SECONDS + _LATE_SECONDS

    def of_lambda(metric: str, statistic: str = "Sum") -> list[float]:
        where = {"FunctionName": function.name}
        return metrics.values("AWS/Lambda", metric, where, statistic, now, seconds)

    durations = of_lambda("Duration", "p95")
    return FunctionState(
        WINDOW_SECONDS,
        calls=round(sum(of_lambda("Invocations"))),
        errors=round(sum(of_lambda("Errors"))),
        throttles=round(sum(of_lambda("Throttles"))),
        unknown=round(sum(metrics.own_values(UNKNOWN_VERDICTS, now, seconds))),
        # The worst minute: percentiles of minutes cannot be combined.
        duration_p95_seconds=max(durations) / 1000 if durations else None,
        limit_seconds=float(function.timeout_seconds),
    )


def read_lines(runtime: Runtime) -> LinesState | None:
    """Whether a line of a pod has arrived; None where no agent collects them. Raises TransientFailure."""
    if runtime.settings.environment == "local-dev":
        return None
    arrived = any_line(runtime, runtime.clock() - LINES_SECONDS, POD_STREAMS)
    return LinesState(runtime.names.log_group, LINES_SECONDS, arrived)


def read_beacon(runtime: Runtime) -> BeaconState:
    """The beacon by its latest round, whose signature is verified. Raises TransientFailure, UsageError for a trust file
    that cannot be read.
    """
    # late: it brings the curves.
    from regworkers_core.selection.draw.seeding import verified

    settings = runtime.settings.selection.beacon
    chain = settings.chain
    latest = runtime.beacon.latest(chain, accept=partial(verified, chain))
    due = chain.due(latest)
    return BeaconState(
        chain.beacon_id,
        latest,
        iso(due),
        runtime.clock() - due,
        settings.lead_seconds,
        _trust(settings.trust_file).lead(chain.hash),
    )


def _trust(file: str) -> Trust:
    """Without a file, the rules alone. Raises UsageError."""
    try:
        return Trust.parse(Path(file).read_bytes()) if file else Trust()
    except (OSError, DrawError) as error:
        raise UsageError(f"selection.beacon.trustFile, {file}: {error}") from None
