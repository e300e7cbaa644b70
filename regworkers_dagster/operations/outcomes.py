"""How runs ended, as metrics and log lines with the reason of a failure: selection, reconcile, backfill and archive,
also of runs that were killed or that *Materialize* started. Drains publish metrics of their own besides.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import dagster as dg
import orjson
import structlog

from regworkers_core.flows import RUN_JOBS
from regworkers_core.observability.metrics import RUN_SECONDS, RUNS_FAILED, RUNS_SUCCEEDED, Metering
from regworkers_core.operations.health.scheduler import MATERIALIZE, REFUSED_TAG
from regworkers_core.runtime import Runtime
from regworkers_dagster.drains.sensing import Answer, ticking
from regworkers_dagster.factories import sensor
from regworkers_dagster.runs import ENDED, jobs_of_assets, work_of_run

log = structlog.get_logger(__name__)
_INTERVAL_SECONDS = 60
# A run may be stored as ended this long after its end.
_OVERLAP_SECONDS = 300.0
_MOST_RUNS = 200
_LONGEST = 500


class RunOutcome(NamedTuple):
    """A run that ended."""

    run_id: str
    job: str
    # succeeded, failed, canceled or, with a wrong config, refused.
    outcome: str
    # When it ended, in epoch seconds.
    at: float
    seconds: float
    # Empty for one that succeeded.
    error: str = ""


class Counted(NamedTuple):
    """The cursor: when runs were last counted (epoch seconds), and which of them ended shortly before."""

    at: float
    run_ids: frozenset[str]

    @classmethod
    def parse(cls, cursor: str | None) -> Counted | None:
        """None for a cursor that is missing or damaged: counting begins again."""
        try:
            state = orjson.loads(cursor or "")
            return cls(float(state["at"]), frozenset(map(str, state["runIds"])))
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            return None

    def as_text(self) -> str:
        return orjson.dumps({"at": self.at, "runIds": sorted(self.run_ids)}).decode()


class NewOutcomes(NamedTuple):
    runs: list[RunOutcome]
    counted: Counted


def new_outcomes(found: Iterable[RunOutcome], counted: Counted | None, now: float) -> NewOutcomes:
    """The runs that are not counted yet, and the next cursor. Without a cursor none counts: `found` ended before."""
    known = list(found)
    new = [] if counted is None else [each for each in known if each.run_id not in counted.run_ids]
    recent = frozenset(each.run_id for each in known if each.at > now - _OVERLAP_SECONDS)
    return NewOutcomes(new, Counted(now, recent))


@ticking
def outcomes_tick(context: dg.SensorEvaluationContext, runtime: Runtime) -> Answer:
    """Count the runs that have ended since the last tick."""
    now = time.time()
    counted = Counted.parse(context.cursor)
    since = (counted.at if counted else now) - _OVERLAP_SECONDS
    ended = _ended_runs(context.instance, jobs_of_assets(context.repository_def), since)
    new, counted = new_outcomes(ended, counted, now)
    readings = []
    for each in new:
        write = log.error if each.outcome == "failed" else log.info
        why = {"error": _why(context.instance, each.run_id)} if each.outcome == "failed" else {}
        write(
            "run ended",
            job=each.job,
            runId=each.run_id,
            outcome=each.outcome,
            seconds=round(each.seconds, 3),
            **why,
        )
        instrument = _COUNTED.get(each.outcome)
        where = {"Job": each.job}
        if instrument is not None:
            readings += [Metering(instrument, 1, where), Metering(RUN_SECONDS, each.seconds, where)]
    runtime.metrics.put(readings)
    context.update_cursor(counted.as_text())
    return dg.SkipReason(f"{len(new)} runs have ended since the last tick")


# What is canceled or refused neither succeeded nor failed.
_COUNTED = {"succeeded": RUNS_SUCCEEDED, "failed": RUNS_FAILED}
_OUTCOMES = {
    dg.DagsterRunStatus.SUCCESS: "succeeded",
    dg.DagsterRunStatus.FAILURE: "failed",
    dg.DagsterRunStatus.CANCELED: "canceled",
}


def _why(instance: dg.DagsterInstance, run_id: str) -> str:
    """One line: the first step that failed, with the text of our own failure or else the type of the exception, whose
    text may contain anything; without one what Dagster says of the run.
    """
    kinds = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    events = [
        record.event_log_entry.dagster_event
        for record in instance.get_records_for_run(run_id, of_type=kinds).records
    ]
    for event in filter(None, events):
        if event.is_step_failure:
            own, error = event.step_failure_data.user_failure_data, event.step_failure_data.error
            text = (own and own.description) or _type_of(error) or "failed"
            return " ".join(f"{event.step_key}: {text}".split())[:_LONGEST]
    for event in filter(None, events):
        data = event.event_specific_data
        return _type_of(getattr(data, "error", None)) or " ".join(str(event.message).split())[:_LONGEST]
    return "unknown: no event says why"


def _type_of(error: Any) -> str:
    while error is not None and error.cause is not None:
        error = error.cause
    return str(error.cls_name) if error is not None else ""


def _ended_runs(
    instance: dg.DagsterInstance, jobs_of: Mapping[str, Sequence[str]], since: float
) -> Iterator[RunOutcome]:
    """The runs of the counted jobs that ended after `since`, the first ones of each job first."""
    for job in (*RUN_JOBS, MATERIALIZE):
        records = instance.get_run_records(
            dg.RunsFilter(
                job_name=job, statuses=list(ENDED), updated_after=datetime.fromtimestamp(since, UTC)
            ),
            limit=_MOST_RUNS,
        )
        for record in reversed(records):
            run = record.dagster_run
            work = work_of_run(run, jobs_of)
            ended = record.end_time or record.update_timestamp.timestamp()
            # A tag that is set later counts as an update, too.
            if ended > since and work in RUN_JOBS:
                outcome = "refused" if REFUSED_TAG in run.tags else _OUTCOMES[run.status]
                began = record.start_time or ended
                yield RunOutcome(run.run_id, work, outcome, ended, ended - began)


SENSORS = (
    sensor(
        "count_runs",
        outcomes_tick,
        every_seconds=_INTERVAL_SECONDS,
        uses={"aws"},
        description="Publishes how runs of selection, reconcile, backfill and the archive ended, as metrics and log "
        "lines, also of those that Materialize started. Starts nothing.",
    ),
)
