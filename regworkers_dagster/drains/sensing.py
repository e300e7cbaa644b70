"""The sensors of all drains: they read, let a pure function decide, and start drains. They never receive or delete a
message.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import dagster as dg
import structlog

from regworkers_core.domain.reasons import Failure, TransientFailure, UsageError
from regworkers_core.domain.snapshot import PausedDrain
from regworkers_core.drains.heartbeat import Beat, beats
from regworkers_core.drains.residency import residents_wanted
from regworkers_core.drains.runner import DrainSpec, drain_limits, fuse_in_force, number_of
from regworkers_core.engine.defects import fuse_message, hold_of
from regworkers_core.observability.logs import bind, describe
from regworkers_core.runtime import Runtime
from regworkers_core.settings import DrainSettings
from regworkers_dagster.drains.decisions import (
    NEXT_TICK_SECONDS,
    TRY_SECONDS,
    ActiveDrain,
    Dead,
    Decision,
    DrainRun,
    Memory,
    Staff,
    by_beats,
    by_depth,
    by_runs,
    cursor_of,
    parse_memory,
    pause_after_crashes,
)
from regworkers_dagster.internals import InstigatorType
from regworkers_dagster.resources import TICK_CALL_SECONDS, runtime_of
from regworkers_dagster.runs import DRAIN_TAG, ENDED

_RECENT_RUNS = 10
ACTIVE = (
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
)


def drain_runs(
    instance: dg.DagsterInstance,
    drain: str,
    settings: DrainSettings,
    now: float,
    named: Iterable[str] = (),
) -> list[DrainRun]:
    """The runs of a drain that have not ended for Dagster, launched in any way, and those with an id in `named` that
    Dagster knows; `now` in epoch seconds.
    """
    active = dg.RunsFilter(tags={DRAIN_TAG: drain}, statuses=list(ACTIVE))
    records = {record.dagster_run.run_id: record for record in instance.get_run_records(active)}
    if others := sorted(set(named) - set(records)):
        found = instance.get_run_records(dg.RunsFilter(run_ids=others))
        records |= {record.dagster_run.run_id: record for record in found}
    return [_drain_run(record, drain, settings, now) for record in records.values()]


def report_dead(instance: dg.DagsterInstance, dead: Dead) -> bool:
    """Mark the run as failed; False when Dagster does not know it, or it has ended."""
    run = instance.get_run_by_id(dead.run_id)
    if run is None or run.is_finished:
        return False
    instance.report_run_failed(run, f"Reported as failed by the drain's sensor: {dead.why}.")
    return True


class Crashes(NamedTuple):
    number: int = 0
    seconds: float = 0.0  # since the last of them


def crashes_in_a_row(
    instance: dg.DagsterInstance, tags: Mapping[str, str], now: float, *, job_name: str | None = None
) -> Crashes:
    """The number of latest runs with these tags that failed in a row, and the seconds since the last of them ended."""
    filters = dg.RunsFilter(job_name=job_name, tags=dict(tags), statuses=list(ENDED))
    records = instance.get_run_records(filters, limit=_RECENT_RUNS)
    failed = 0
    for record in records:
        if record.dagster_run.status is not dg.DagsterRunStatus.FAILURE:
            break
        failed += 1
    if not failed:
        return Crashes()
    ended = max(record.end_time or record.update_timestamp.timestamp() for record in records[:failed])
    return Crashes(failed, now - ended)


def _drain_run(record: dg.RunRecord, drain: str, settings: DrainSettings, now: float) -> DrainRun:
    run = record.dagster_run
    config: Any = run.run_config
    for part in ("ops", drain, "config"):
        config = config.get(part, {}) if isinstance(config, dict) else {}

    def limit(name: str, default: float) -> float:
        value = config.get(name) if isinstance(config, dict) else None
        return default if value is None else float(value)

    return DrainRun(
        run.run_id,
        ended=run.status not in ACTIVE,
        seconds_running=None if record.start_time is None else now - record.start_time,
        idle_seconds=limit("idle_seconds", settings.idle_seconds),
        max_seconds=limit("max_seconds", settings.max_seconds),
        resident=isinstance(config, dict) and config.get("resident") is True,
        seconds_known=now - record.create_timestamp.timestamp(),
    )


log = structlog.get_logger(__name__)
Answer = dg.SkipReason | dg.SensorResult
# The daemon checks every 5 s. An interval of exactly 5 s is missed by milliseconds every other time.
DRAIN_INTERVAL_SECONDS = 3


@dataclass(frozen=True, slots=True)
class Startable:
    """A drain as its sensor starts it."""

    spec: DrainSpec[Any]

    def staff(self, context: dg.SensorEvaluationContext, runtime: Runtime) -> Staff:
        """The drains that show life, and the runs that were just requested. Reports those that died, and keeps the
        heartbeats in the sensor's cursor.
        """
        name, now = self.spec.name, time.time()
        memory = parse_memory(context.cursor)
        mine = memory.get(name, Memory())
        try:
            found = beats(runtime.leases, name)
        except (Failure, UsageError):
            # An unreadable heartbeat does not mean dead. A drain that works without DynamoDB is still started.
            active = by_runs(drain_runs(context.instance, name, runtime.settings.drain, now)).active
            return self._staff(runtime, active, mine)
        named = (beat.run_id for beat in found)
        runs = drain_runs(context.instance, name, runtime.settings.drain, now, named)
        memory[name] = mine = mine.seen(runs, found, now)
        context.update_cursor(cursor_of(memory))
        life = by_beats(runs, found, mine.watched)
        for dead in life.dead:
            # While rows cannot be written, healthy drains cannot beat either.
            if dead.beat is not None and not _removed(runtime, dead.beat):
                continue
            reported = report_dead(context.instance, dead)
            log.warning("drain died", drain=name, deadRunId=dead.run_id, why=dead.why, reported=reported)
        for beat in life.ended:
            _removed(runtime, beat)
        return self._staff(runtime, life.active, mine)

    def _staff(self, runtime: Runtime, active: list[ActiveDrain], memory: Memory) -> Staff:
        wanted = self.spec.residents
        try:
            wanted = wanted and residents_wanted(runtime)
        except (Failure, UsageError):
            # It stays as it was: a drain that needs no MongoDB goes on without it.
            wanted = any(drain.resident for drain in active)
        return Staff(active, memory.lead_seconds, wanted)

    def obstacle(
        self, context: dg.SensorEvaluationContext, runtime: Runtime, decision: Decision
    ) -> str | None:
        """Why no drain may be started now, or None. Raises UsageError when a table or queue is missing."""
        if not decision.start:
            if decision.late:
                rest(context)
            return decision.reason
        if decision.tries and (left := _until_next_try(context.instance, self.spec.name)) > 0:
            return f"{decision.reason}; the next try is in {left:.0f} s"
        failed, since = crashes_in_a_row(context.instance, {DRAIN_TAG: self.spec.name}, time.time())
        pause = pause_after_crashes(failed, since)
        if pause:
            return f"the last {failed} runs failed: open one of them to see why; the next start is in {pause:.0f} s"
        try:
            paused = hold_of(runtime.leases, PausedDrain, self.spec.name)
            fuse = fuse_in_force(runtime, self.spec.name)
        except TransientFailure:
            # The probe below refuses a drain that needs DynamoDB; the others start without an answer.
            paused = fuse = None
        if paused is not None:
            return f"{paused.text}; the job `resume_drain` ends that. {decision.reason}"
        if fuse is not None:
            return fuse_message(fuse.drain, fuse.reason, fuse.tripped_at)
        silent = runtime.probe(*self.spec.needs)
        if silent is not None:
            return f"{silent} does not answer, so no drain is started; {decision.reason}"
        return None

    def requests(self, runtime: Runtime, decision: Decision) -> list[dg.RunRequest]:
        number, residents = decision.start, decision.residents
        return [self._request(runtime, resident=each < residents) for each in range(number)]

    def _request(self, runtime: Runtime, *, resident: bool) -> dg.RunRequest:
        # No run key: leases and visibility timeouts divide the work, and the same work may need a second run.
        limits = drain_limits(runtime.settings, self.spec, sensor=True, resident=resident)
        config = {
            "idle_seconds": limits.idle_seconds,
            "max_seconds": limits.max_seconds,
            "resident": resident,
        }
        return dg.RunRequest(
            job_name=self.spec.job,
            run_config={"ops": {self.spec.name: {"config": config}}},
            tags={DRAIN_TAG: self.spec.name},
        )

    def answer(self, context: dg.SensorEvaluationContext, runtime: Runtime, decision: Decision) -> Answer:
        """Start the decided drains unless there is an obstacle."""
        obstacle = self.obstacle(context, runtime, decision)
        if obstacle is not None:
            return dg.SkipReason(obstacle)
        return dg.SensorResult(run_requests=self.requests(runtime, decision))

    def by_depth(
        self, context: dg.SensorEvaluationContext, runtime: Runtime, visible: int, in_flight: int = 0
    ) -> Answer:
        """Start as many as this work asks for."""
        decision = by_depth(
            visible,
            in_flight,
            self.staff(context, runtime),
            per_drain=number_of(runtime.settings, self.spec.messages_each),
            max_drains=number_of(runtime.settings, self.spec.most_drains),
        )
        return self.answer(context, runtime, decision)


def _until_next_try(instance: dg.DagsterInstance, drain: str) -> float:
    """Seconds from now until another run of the drain may be tried."""
    latest = instance.get_run_records(dg.RunsFilter(tags={DRAIN_TAG: drain}), limit=1)
    return TRY_SECONDS - (time.time() - latest[0].create_timestamp.timestamp()) if latest else 0.0


def _removed(runtime: Runtime, beat: Beat) -> bool:
    """Remove the row if it is as it was read; whether that was done. False also while DynamoDB refuses writes."""
    try:
        return runtime.leases.remove(beat.row)
    except (Failure, UsageError) as error:
        log.warning("heartbeat not removed", silentRunId=beat.run_id, error=str(error))
        return False


def safely(context: dg.SensorEvaluationContext, answer: Callable[[], Answer]) -> Answer:
    """Turn a failure into a skipped tick that says why: a failed tick would lose its cursor and be repeated at once."""
    bind(worker=context.sensor_name)
    try:
        return answer()
    except (UsageError, Failure) as error:
        return dg.SkipReason(str(error))
    except Exception as error:
        log.error("the tick failed", exc_info=True)
        return dg.SkipReason(f"defect in the sensor: {describe(error)}")


Tick = Callable[[dg.SensorEvaluationContext], Answer]


def ticking(read: Callable[[dg.SensorEvaluationContext, Runtime], Answer]) -> Tick:
    """A sensor's function from one that gets the runtime with short time-outs, and whose failures skip the tick."""

    def tick(context: dg.SensorEvaluationContext) -> Answer:
        return safely(context, lambda: read(context, runtime_of(context, call_seconds=TICK_CALL_SECONDS)))

    tick.__name__, tick.__doc__ = read.__name__, read.__doc__
    return tick


_INSTANCES: dict[str, dg.DagsterInstance] = {}


def _shared_instance(context: dg.SensorEvaluationContext) -> dg.DagsterInstance:
    """The instance of a tick: one for all ticks of the process."""
    if context._instance is None and context.instance_ref is not None:
        key = repr(context.instance_ref)
        if key not in _INSTANCES:
            _INSTANCES[key] = dg.DagsterInstance.from_ref(context.instance_ref)
        context._instance = _INSTANCES[key]
    return _instance_of_tick(context)


# Dagster opens another one for each tick, even before it calls the sensor's function: half of a tick's CPU.
_instance_of_tick: Callable[[dg.SensorEvaluationContext], dg.DagsterInstance]
_instance_of_tick = dg.SensorEvaluationContext.instance.fget  # type: ignore[attr-defined]
dg.SensorEvaluationContext.instance = property(_shared_instance)  # type: ignore[assignment, method-assign]


def rest(context: dg.SensorEvaluationContext) -> None:
    """Let the next tick of this sensor come in `NEXT_TICK_SECONDS`. Its interval is fixed, but the daemon counts it
    from the latest start that the sensor's state names.
    """
    if context.instance.schedule_storage is None:
        return
    for state in context.instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        data: Any = state.instigator_data
        if state.instigator_name == context.sensor_name and data is not None:
            # The same holds for the interval itself: the daemon checks every 5 s.
            at = time.time() + NEXT_TICK_SECONDS - 2 * DRAIN_INTERVAL_SECONDS
            context.instance.update_instigator_state(
                state.with_data(data._replace(last_tick_start_timestamp=at))
            )


def depth_tick(spec: DrainSpec[Any]) -> Tick:
    """A tick that starts as many drains as the depth of their queue asks for."""

    def read(context: dg.SensorEvaluationContext, runtime: Runtime) -> Answer:
        depth = runtime.queue(runtime.names.prefix + spec.queue).depth()
        return Startable(spec).by_depth(context, runtime, depth.visible, depth.in_flight)

    return ticking(read)
