"""Sensors: they read, ask a pure function, and start drains. They never receive or delete a message."""

# Dagster reads the annotations of decorated functions as objects, so none are postponed here.

import time
from collections.abc import Callable

import dagster as dg
import structlog

from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.observability.logs import bind, describe
from regworkers_core.replication.drains import NEEDS, DrainName, drain_limits
from regworkers_core.runtime import Runtime
from regworkers_dagster.replication.checks import dlq_evaluation
from regworkers_dagster.replication.decisions import Decision, by_age, by_depth, pause_after_crashes
from regworkers_dagster.replication.glance import active_drains, crashes_in_a_row, oldest_unread
from regworkers_dagster.replication.jobs import ENQUEUE_ENTRIES, SAVE_ENTRIES
from regworkers_dagster.replication.observing import Recorded, in_words, observation, read_all
from regworkers_dagster.replication.specs import REPLICATION_DLQ
from regworkers_dagster.resources import Workers
from regworkers_dagster.tags import DRAIN_TAG

log = structlog.get_logger(__name__)
Answer = dg.SkipReason | dg.SensorResult
# The daemon looks every 5 s. An interval of just that is missed by milliseconds every other time.
_DRAIN_INTERVAL_SECONDS = 3
_JOBS = {"enqueue": ENQUEUE_ENTRIES, "save": SAVE_ENTRIES}
_OBSERVE_INTERVAL_SECONDS = 30


def build_sensors(*, on: bool) -> list[dg.SensorDefinition]:
    """`on` makes them run without being switched on in the UI."""
    status = dg.DefaultSensorStatus.RUNNING if on else dg.DefaultSensorStatus.STOPPED
    return [
        dg.sensor(
            name="enqueue_entries_sensor",
            jobs=[ENQUEUE_ENTRIES, SAVE_ENTRIES],
            minimum_interval_seconds=_DRAIN_INTERVAL_SECONDS,
            default_status=status,
            description="Starts a drain of the demand table's stream when records are unread and nobody reads "
            "them, and the next one shortly before the last one ends. On an idle system it starts the save "
            "drain, too, which will be ready when the first message is there.",
        )(enqueue_tick),
        dg.sensor(
            name="save_entries_sensor",
            job=SAVE_ENTRIES,
            minimum_interval_seconds=_DRAIN_INTERVAL_SECONDS,
            default_status=status,
            description="Starts drains of the replication queue: none when it is empty, one for a trickle, more "
            "with its depth, and the next one shortly before the last one ends.",
        )(save_tick),
        dg.sensor(
            name="observe_replication",
            minimum_interval_seconds=_OBSERVE_INTERVAL_SECONDS,
            default_status=status,
            description="Records depth, lag and size of everything that replication flows through when they "
            "changed, and judges `replication_dlq_empty`.",
        )(observe_tick),
    ]


def enqueue_tick(context: dg.SensorEvaluationContext, tick_workers: Workers) -> Answer:
    """Peeks into the stream only while no drain reads it: a shard has room for two readers."""

    def answer() -> Answer:
        runtime, now = tick_workers.runtime, time.time()
        active = active_drains(context.instance, "enqueue", runtime.settings.drain, now)
        decision = by_age(
            None if active else oldest_unread(runtime),
            active,
            objective_seconds=runtime.settings.replication.lag_objective_seconds,
            max_drains=runtime.settings.drain.max_enqueue_drains,
        )
        obstacle = _obstacle(context, runtime, "enqueue", decision)
        if obstacle is not None:
            return dg.SkipReason(obstacle)
        requests = _requests(runtime, "enqueue", decision.start)
        saving = active_drains(context.instance, "save", runtime.settings.drain, now)
        ahead = Decision(int(not saving), "none is at work")
        if _obstacle(context, runtime, "save", ahead) is None:
            requests += _requests(runtime, "save", ahead.start)
        return dg.SensorResult(run_requests=requests)

    return _safely(context, answer)


def save_tick(context: dg.SensorEvaluationContext, tick_workers: Workers) -> Answer:
    """Reads the queue's depth."""

    def answer() -> Answer:
        runtime = tick_workers.runtime
        depth = runtime.queue(runtime.names.replication_queue).depth()
        decision = by_depth(
            depth.visible,
            depth.in_flight,
            active_drains(context.instance, "save", runtime.settings.drain, time.time()),
            per_drain=runtime.settings.drain.messages_per_drain,
            max_drains=runtime.settings.drain.max_save_drains,
        )
        obstacle = _obstacle(context, runtime, "save", decision)
        if obstacle is not None:
            return dg.SkipReason(obstacle)
        return dg.SensorResult(run_requests=_requests(runtime, "save", decision.start))

    return _safely(context, answer)


def observe_tick(context: dg.SensorEvaluationContext, tick_workers: Workers) -> Answer:
    """Writes what changed enough since it was last written."""

    def observe() -> Answer:
        now = time.time()
        readings = read_all(tick_workers.runtime)
        recorded = Recorded.parse(context.cursor)
        events: list[dg.AssetObservation | dg.AssetCheckEvaluation] = []
        for reading in readings:
            if not recorded.take(reading, now):
                continue
            events.append(observation(reading))
            numbers = [number for number in reading.numbers.values() if number is not None]
            if reading.asset == REPLICATION_DLQ.key.to_user_string() and numbers:
                events.append(dlq_evaluation(int(sum(numbers))))
        return dg.SensorResult(asset_events=events, cursor=recorded.cursor(), skip_reason=in_words(readings))

    return _safely(context, observe)


def _obstacle(
    context: dg.SensorEvaluationContext, runtime: Runtime, name: DrainName, decision: Decision
) -> str | None:
    """Why no drain is to be started now, or None. Raises UsageError when a table or queue is missing."""
    if not decision.start:
        return decision.reason
    failed, since = crashes_in_a_row(context.instance, name, time.time())
    pause = pause_after_crashes(failed, since)
    if pause:
        return f"the last {failed} runs failed: look at one of them; the next start is in {pause:.0f} s"
    away = runtime.probe(*NEEDS[name])
    if away is not None:
        return f"{away} does not answer, so no drain is started; {decision.reason}"
    return None


def _requests(runtime: Runtime, name: DrainName, number: int) -> list[dg.RunRequest]:
    # No run key: leases and visibility settle who does what, and the same work may need a second run.
    limits = drain_limits(runtime.settings, name, resident=True)
    config = {"idle_seconds": limits.idle_seconds, "max_seconds": limits.max_seconds}
    request = dg.RunRequest(
        job_name=_JOBS[name].name,
        run_config={"ops": {name: {"config": config}}},
        tags={DRAIN_TAG: name},
    )
    return [request] * number


def _safely(context: dg.SensorEvaluationContext, answer: Callable[[], Answer]) -> Answer:
    """A tick that fails would drop its cursor and be repeated at once; one that is skipped says why."""
    bind(worker=context.sensor_name)
    try:
        return answer()
    except (UsageError, Failure) as error:
        return dg.SkipReason(str(error))
    except Exception as error:
        log.error("the tick failed", exc_info=True)
        return dg.SkipReason(f"defect in the sensor: {describe(error)}")
