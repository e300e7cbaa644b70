"""What the sensors of all drains do: they read, ask a pure function, and start drains. They never receive or
delete a message.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dagster as dg
import structlog

from regworkers_core.domain.reasons import Failure, TransientFailure, UsageError
from regworkers_core.drains.heartbeat import Beat, beats
from regworkers_core.drains.runner import DrainSpec, drain_limits, fuse_in_force
from regworkers_core.engine.defects import fuse_message
from regworkers_core.observability.logs import bind, describe
from regworkers_core.runtime import Runtime
from regworkers_dagster.drains.decisions import ActiveDrain, Decision, by_depth, pause_after_crashes
from regworkers_dagster.drains.life import Watched, by_beats, by_runs, cursor_of, parse_watched
from regworkers_dagster.drains.runs import crashes_in_a_row, drain_runs, report_dead
from regworkers_dagster.tags import DRAIN_TAG

log = structlog.get_logger(__name__)
Answer = dg.SkipReason | dg.SensorResult
# The daemon looks every 5 s. An interval of just that is missed by milliseconds every other time.
DRAIN_INTERVAL_SECONDS = 3


@dataclass(frozen=True, slots=True)
class Startable:
    """A drain and the job that runs it."""

    spec: DrainSpec[Any]
    job_name: str

    def active(self, context: dg.SensorEvaluationContext, runtime: Runtime) -> list[ActiveDrain]:
        """The drains that show life, and the runs that were just asked for. Reports those that died, and remembers
        the heartbeats in the sensor's cursor.
        """
        name, now = self.spec.name, time.time()
        try:
            found = beats(runtime.leases, name)
        except (Failure, UsageError):
            # What could not be read is not dead. A drain that lives well without DynamoDB is still started.
            return by_runs(drain_runs(context.instance, name, runtime.settings.drain, now)).active
        remembered = parse_watched(context.cursor)
        watched = remembered[name] = remembered.get(name, Watched()).seen(found, now)
        context.update_cursor(cursor_of(remembered))
        named = (beat.run_id for beat in found)
        runs = drain_runs(context.instance, name, runtime.settings.drain, now, named)
        life = by_beats(runs, found, watched)
        for dead in life.dead:
            # While rows cannot be written, drains that live cannot beat either.
            if dead.beat is not None and not _taken_away(runtime, dead.beat):
                continue
            reported = report_dead(context.instance, dead)
            log.warning("drain died", drain=name, deadRunId=dead.run_id, why=dead.why, reported=reported)
        for beat in life.ended:
            _taken_away(runtime, beat)
        return life.active

    def obstacle(
        self, context: dg.SensorEvaluationContext, runtime: Runtime, decision: Decision
    ) -> str | None:
        """Why no drain is to be started now, or None. Raises UsageError when a table or queue is missing."""
        if not decision.start:
            return decision.reason
        failed, since = crashes_in_a_row(context.instance, {DRAIN_TAG: self.spec.name}, time.time())
        pause = pause_after_crashes(failed, since)
        if pause:
            return f"the last {failed} runs failed: look at one of them; the next start is in {pause:.0f} s"
        try:
            fuse = fuse_in_force(runtime, self.spec.name)
        except TransientFailure:
            # A drain that needs DynamoDB is refused below, by its probe; another one starts without an answer.
            fuse = None
        if fuse is not None:
            return fuse_message(fuse.drain, fuse.reason, fuse.tripped_at)
        away = runtime.probe(*self.spec.needs)
        if away is not None:
            return f"{away} does not answer, so no drain is started; {decision.reason}"
        return None

    def requests(self, runtime: Runtime, number: int) -> list[dg.RunRequest]:
        # No run key: leases and visibility settle who does what, and the same work may need a second run.
        limits = drain_limits(runtime.settings, self.spec, resident=True)
        config = {"idle_seconds": limits.idle_seconds, "max_seconds": limits.max_seconds}
        request = dg.RunRequest(
            job_name=self.job_name,
            run_config={"ops": {self.spec.name: {"config": config}}},
            tags={DRAIN_TAG: self.spec.name},
        )
        return [request] * number

    def answer(self, context: dg.SensorEvaluationContext, runtime: Runtime, decision: Decision) -> Answer:
        """Start what was decided unless something stands against it."""
        obstacle = self.obstacle(context, runtime, decision)
        if obstacle is not None:
            return dg.SkipReason(obstacle)
        return dg.SensorResult(run_requests=self.requests(runtime, decision.start))


def _taken_away(runtime: Runtime, beat: Beat) -> bool:
    """Whether the row was still as it was read, and is gone; False, too, while DynamoDB takes no writes."""
    try:
        return runtime.leases.remove(beat.row)
    except (Failure, UsageError) as error:
        log.warning("heartbeat not removed", silentRunId=beat.run_id, error=str(error))
        return False


def by_depth_of(
    context: dg.SensorEvaluationContext,
    runtime: Runtime,
    drain: Startable,
    queue_name: str,
    *,
    per_drain: int,
    max_drains: int,
) -> Answer:
    """As many drains as the depth of their queue asks for."""
    depth = runtime.queue(queue_name).depth()
    decision = by_depth(
        depth.visible,
        depth.in_flight,
        drain.active(context, runtime),
        per_drain=per_drain,
        max_drains=max_drains,
    )
    return drain.answer(context, runtime, decision)


def safely(context: dg.SensorEvaluationContext, answer: Callable[[], Answer]) -> Answer:
    """A tick that fails would drop its cursor and be repeated at once; one that is skipped says why."""
    bind(worker=context.sensor_name)
    try:
        return answer()
    except (UsageError, Failure) as error:
        return dg.SkipReason(str(error))
    except Exception as error:
        log.error("the tick failed", exc_info=True)
        return dg.SkipReason(f"defect in the sensor: {describe(error)}")
