"""What is known of Dagster from outside: daemons, ticks of what is switched on, runs that failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from regworkers_core.adapters.dagster_api import DagsterApi
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.snapshot import DRAW, SELECTION_JOBS, FailedRun, SchedulerState, TickState
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.health.cron import longest_gap_seconds, next_time

_DAY_SECONDS = 24 * 3600.0
# Failed runs that are looked at, the latest of all and the latest of each selection job: what fails again and again
# must not hide a draw that did.
MOST_RUNS = 50
PARTITION_TAG = "dagster/partition"
# On a run launched by hand with a config or partition that is missing or wrong: it failed, and nothing is wrong.
REFUSED_TAG = "regworkers/refused"
_RUN = "runId jobName status endTime tags { key value }"
_RESULTS = f"{{ ... on Runs {{ results {{ {_RUN} }} }} }}"
_STATE = "status ticks(limit: 1) { timestamp error { className } }"
_SINCE_OF_SCHEDULE = "typeSpecificData { ... on ScheduleData { startTimestamp } }"
_FAILED = "statuses: [FAILURE], updatedAfter:"
_MOST = f"limit: {MOST_RUNS}"
_OF_SELECTION = "\n  ".join(
    f'failed_{job}: runsOrError(filter: {{{_FAILED} $since_{job}, pipelineName: "{job}"}}, {_MOST}) {_RESULTS}'
    for job in SELECTION_JOBS
)
_SINCE = ", ".join(f"$since_{job}: Float!" for job in SELECTION_JOBS)
QUERY = f"""query Scheduler($since: Float!, {_SINCE}) {{
  instance {{ daemonHealth {{ allDaemonStatuses {{ daemonType required lastHeartbeatTime }} }} }}
  repositoriesOrError {{ __typename ... on RepositoryConnection {{ nodes {{
    sensors {{ name minIntervalSeconds sensorState {{ {_STATE} }} }}
    schedules {{ name cronSchedule scheduleState {{ {_STATE} {_SINCE_OF_SCHEDULE} }} }} }} }} }}
  failed: runsOrError(filter: {{{_FAILED} $since}}, {_MOST}) {_RESULTS}
  {_OF_SELECTION}
  queued: runsOrError(filter: {{statuses: [QUEUED]}}) {{ ... on Runs {{ count }} }}
}}"""

# A job and, of one that runs for each of them, its partition.
Work = tuple[str, str]


def look_back_seconds(job: str = "") -> float:
    """How long ago a run may have failed: a draw is not forgotten while people sleep, since its campaign says when it
    has been done all the same.
    """
    return 7 * _DAY_SECONDS if job == DRAW else _DAY_SECONDS


def read_scheduler(api: DagsterApi, now: float) -> SchedulerState:
    """Two questions at most. Raises TransientFailure, and UsageError without an address."""
    since = {f"since_{job}": now - look_back_seconds(job) for job in SELECTION_JOBS}
    found = api.ask(QUERY, {"since": now - look_back_seconds(), **since})
    if found["repositoriesOrError"]["__typename"] != "RepositoryConnection":
        raise TransientFailure("dagster", "it has no code location loaded")
    failures = (found["failed"], *(found[f"failed_{job}"] for job in SELECTION_JOBS))
    failed = list(dict.fromkeys(_failed(run) for answer in failures for run in _runs(answer) if _counts(run)))
    latest: dict[Work, str] = {}
    if works := list(dict.fromkeys((run.job, run.partition) for run in failed)):
        answers = api.ask(latest_query(works))
        for number, work in enumerate(works):
            for run in filter(_counts, _runs(answers[f"work{number}"])):
                latest.setdefault(work, run["runId"])
    repositories = found["repositoriesOrError"]["nodes"]
    return SchedulerState(
        daemons={
            daemon["daemonType"]: _iso(daemon["lastHeartbeatTime"])
            for daemon in found["instance"]["daemonHealth"]["allDaemonStatuses"]
            if daemon["required"]
        },
        ticks=tuple(
            tick
            for repository in repositories
            for tick in (
                *(_sensor(sensor) for sensor in repository["sensors"]),
                *(_schedule(schedule) for schedule in repository["schedules"]),
            )
            if tick is not None
        ),
        failed_runs=standing(failed, latest),
        queued_runs=int(found["queued"].get("count", 0)),
    )


def standing(failed: Sequence[FailedRun], latest: Mapping[Work, str]) -> tuple[FailedRun, ...]:
    """Those after which nothing of the same work has ended: what went well since then is no failure any more.
    `latest` has the last run of each work that ended, by its id.
    """
    return tuple(run for run in failed if latest.get((run.job, run.partition)) == run.run_id)


def latest_query(works: Sequence[Work]) -> str:
    """For the last runs of each that have ended, latest first, under `work0`, `work1`, ..."""
    asked = []
    for number, (job, partition) in enumerate(works):
        tags = f", tags: [{{key: {_text(PARTITION_TAG)}, value: {_text(partition)}}}]" if partition else ""
        which = (
            f"filter: {{pipelineName: {_text(job)}, statuses: [SUCCESS, FAILURE, CANCELED]{tags}}}, {_MOST}"
        )
        asked.append(f"work{number}: runsOrError({which}) {_RESULTS}")
    return "{ " + "\n".join(asked) + " }"


def _text(value: str) -> str:
    return orjson.dumps(value).decode()


def _runs(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = answer.get("results") or []
    return runs


def _failed(run: Mapping[str, Any]) -> FailedRun:
    partition = _tags(run).get(PARTITION_TAG, "")
    return FailedRun(run["runId"], run["jobName"], _iso(run["endTime"]) or "", partition)


def _counts(run: Mapping[str, Any]) -> bool:
    """One that was refused neither is a trouble nor ends one."""
    return REFUSED_TAG not in _tags(run)


def _tags(run: Mapping[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["tags"]}


def _sensor(sensor: Mapping[str, Any]) -> TickState | None:
    # The API does not say since when it is on.
    state = sensor["sensorState"]
    if state["status"] != "RUNNING":
        return None
    last, error = _last_tick(state)
    return TickState(sensor["name"], float(sensor["minIntervalSeconds"]), _iso(last), error)


def _schedule(schedule: Mapping[str, Any]) -> TickState | None:
    state = schedule["scheduleState"]
    if state["status"] != "RUNNING":
        return None
    last, error = _last_tick(state)
    since = (state.get("typeSpecificData") or {}).get("startTimestamp")
    return schedule_state(schedule["name"], schedule["cronSchedule"], last, error, since)


def schedule_state(name: str, cron: str, last: float | None, error: str, since: float | None) -> TickState:
    """A schedule that is switched on, of which `last` is its last tick and `since` when it was switched on, both in
    epoch seconds.
    """
    # Switched on again after a pause: the times in between are none that it missed.
    known = [at for at in (last, since) if at is not None]
    due = next_time(cron, max(known)) if known else None
    return TickState(name, longest_gap_seconds(cron), _iso(last), error, _iso(since), _iso(due))


def _last_tick(state: Mapping[str, Any]) -> tuple[float | None, str]:
    last = next(iter(state["ticks"]), None)
    if last is None:
        return None, ""
    # Without the error's text, which may print anything.
    return last["timestamp"], (last.get("error") or {}).get("className") or ""


def _iso(at: float | None) -> str | None:
    return None if at is None else iso(at)
