"""The state of Dagster, read over its API: daemons, ticks of active sensors and schedules, failed runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from cronsim import CronSim, CronSimError

from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.snapshot import (
    FailedRun,
    SchedulerState,
    SelectionJob,
    TickState,
)
from regworkers_core.domain.timestamps import iso
from regworkers_core.flows import RUN_JOBS, WATCHED_JOBS

if TYPE_CHECKING:
    from regworkers_core.adapters.dagster_api import DagsterApi

_DAY_SECONDS = 24 * 3600.0
# Failed runs that are read, the latest of all and the latest of each selection job: a job that fails repeatedly must
# not hide a failed draw.
MOST_RUNS = 50
PARTITION_TAG = "dagster/partition"
# On every run of a manager's job, as soon as its campaign is known: the campaign's id, which finds all runs of one.
CAMPAIGN_TAG = "regworkers/campaign"
# On a manual run whose config or partition was missing or wrong: its failure is no finding.
REFUSED_TAG = "regworkers/refused"
# Dagster's name for the job of each run that *Materialize* starts.
MATERIALIZE = "__ASSET_JOB"
# The asset of a draw that previews when it is materialised alone.
PREVIEW = "eligibility_report"
# The latest failures of each are read.
LOOKED_AT = (*WATCHED_JOBS, MATERIALIZE)
_RUN = "runId jobName status endTime tags { key value } assetSelection { path }"
_RESULTS = f"{{ ... on Runs {{ results {{ {_RUN} }} }} }}"
_STATE = "status ticks(limit: 1) { timestamp error { className } }"
_SINCE_OF_SCHEDULE = "typeSpecificData { ... on ScheduleData { startTimestamp } }"
_FAILED = "statuses: [FAILURE], updatedAfter:"
_MOST = f"limit: {MOST_RUNS}"
_OF_SELECTION = "\n  ".join(
    f'failed_{job}: runsOrError(filter: {{{_FAILED} $since_{job}, pipelineName: "{job}"}}, {_MOST}) {_RESULTS}'
    for job in LOOKED_AT
)
_SINCE = ", ".join(f"$since_{job}: Float!" for job in LOOKED_AT)
QUERY = f"""query Scheduler($since: Float!, {_SINCE}) {{
  instance {{ daemonHealth {{ allDaemonStatuses {{ daemonType required lastHeartbeatTime }} }} }}
  repositoriesOrError {{ __typename ... on RepositoryConnection {{ nodes {{
    sensors {{ name minIntervalSeconds sensorState {{ {_STATE} }} }}
    schedules {{ name cronSchedule scheduleState {{ {_STATE} {_SINCE_OF_SCHEDULE} }} }} }} }} }}
  failed: runsOrError(filter: {{{_FAILED} $since}}, {_MOST}) {_RESULTS}
  {_OF_SELECTION}
  assetNodes {{ assetKey {{ path }} jobNames }}
  queued: runsOrError(filter: {{statuses: [QUEUED]}}) {{ ... on Runs {{ count }} }}
}}"""

# A job and its partition or campaign, empty without one.
Work = tuple[str, str]
NO_RUN = FailedRun("", "", "")


def look_back_seconds(job: str = "") -> float:
    """How long a failed run counts. A draw counts longer: its campaign says if it was done since."""
    return 7 * _DAY_SECONDS if job == SelectionJob.DRAW else _DAY_SECONDS


def work_of(job: str, assets: Iterable[str], jobs_of: Mapping[str, Sequence[str]]) -> str:
    """The job whose work a run did. Of *Materialize* that is the job that alone runs one of its `assets`; `jobs_of` has
    the jobs of each asset. A preview by itself is no draw, though a draw fills its asset, too.
    """
    if job != MATERIALIZE:
        return job
    of_assets = [set(jobs_of.get(asset, ())) - {MATERIALIZE} for asset in assets if asset != PREVIEW]
    alone = set().union(*(jobs for jobs in of_assets if len(jobs) == 1))
    return next((each for each in RUN_JOBS if each in alone), job)


def read_scheduler(api: DagsterApi, now: float) -> SchedulerState:
    """At most two requests. Raises TransientFailure, and UsageError without an address."""
    since = {f"since_{job}": now - look_back_seconds(job) for job in LOOKED_AT}
    found = api.ask(QUERY, {"since": now - look_back_seconds(), **since})
    # A code server that is gone leaves an empty list.
    if not found["repositoriesOrError"].get("nodes"):
        raise TransientFailure("dagster", "it has no code location loaded")
    failures = (found["failed"], *(found[f"failed_{job}"] for job in LOOKED_AT))
    jobs_of = {_asset(node["assetKey"]): node["jobNames"] for node in found["assetNodes"]}

    def counted(answer: Mapping[str, Any]) -> list[FailedRun]:
        return [_run(run, jobs_of) for run in answer.get("results") or () if REFUSED_TAG not in _tags(run)]

    failed = list(dict.fromkeys(run for answer in failures for run in counted(answer)))
    latest: dict[Work, str] = {}
    if works := list(dict.fromkeys((run.job, run.partition) for run in failed)):
        answers = api.ask(latest_query(works))
        for number, work in enumerate(works):
            ended = (counted(answers[f"{name}{number}"]) for name in ("work", "launched", "materialized"))
            mine = [run for runs in ended for run in runs if run.job == work[0]]
            latest[work] = max(mine, key=lambda run: run.ended_at, default=NO_RUN).run_id
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
        failed_runs=still_failed(failed, latest),
        queued_runs=int(found["queued"].get("count", 0)),
    )


def still_failed(failed: Sequence[FailedRun], latest: Mapping[Work, str]) -> tuple[FailedRun, ...]:
    """Failed runs that are the last that ended of their work. `latest` is the id of the last run of each work. A
    refused run is neither a failure nor the end of one.
    """
    return tuple(run for run in failed if latest.get((run.job, run.partition)) == run.run_id)


def latest_query(works: Sequence[Work]) -> str:
    """The last ended runs of each work: with its partition as `work0`, `work1`, ..., with its campaign as `launched0`,
    ..., and those of *Materialize* with its partition as `materialized0`, ...
    """
    asked = []
    for number, (job, campaign) in enumerate(works):
        for name, tag, of in (
            ("work", PARTITION_TAG, job),
            ("launched", CAMPAIGN_TAG, job),
            ("materialized", PARTITION_TAG, MATERIALIZE),
        ):
            tags = f", tags: [{{key: {_text(tag)}, value: {_text(campaign)}}}]" if campaign else ""
            ended = f"pipelineName: {_text(of)}, statuses: [SUCCESS, FAILURE, CANCELED]{tags}"
            which = f"filter: {{{ended}}}, {_MOST}"
            asked.append(f"{name}{number}: runsOrError({which}) {_RESULTS}")
    return "{ " + "\n".join(asked) + " }"


def _text(value: str) -> str:
    return orjson.dumps(value).decode()


def _run(run: Mapping[str, Any], jobs_of: Mapping[str, Sequence[str]]) -> FailedRun:
    tags, assets = _tags(run), map(_asset, run["assetSelection"] or ())
    partition = tags.get(PARTITION_TAG) or tags.get(CAMPAIGN_TAG, "")
    return FailedRun(
        run["runId"], work_of(run["jobName"], assets, jobs_of), _iso(run["endTime"]) or "", partition
    )


def _asset(key: Mapping[str, Any]) -> str:
    return "/".join(key["path"])


def _tags(run: Mapping[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["tags"]}


def _sensor(sensor: Mapping[str, Any]) -> TickState | None:
    # The API does not say when a sensor was started.
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
    """An active schedule; `last` is its last tick and `since` when it was started, both in epoch seconds."""
    # Times before it was started again are not missed.
    known = [at for at in (last, since) if at is not None]
    due = next_time(cron, max(known)) if known else None
    return TickState(name, longest_gap_seconds(cron), _iso(last), error, _iso(since), _iso(due))


class LastTick(NamedTuple):
    at: float | None = None
    error: str = ""  # only its class: the text may contain anything


def _last_tick(state: Mapping[str, Any]) -> LastTick:
    last = next(iter(state["ticks"]), None)
    if last is None:
        return LastTick()
    return LastTick(last["timestamp"], (last.get("error") or {}).get("className") or "")


def _iso(at: float | None) -> str | None:
    return None if at is None else iso(at)


_CRON_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
}
_WEEK_SECONDS = 7 * _DAY_SECONDS
_YEAR_SECONDS = 366 * _DAY_SECONDS
# A week shows every gap of a schedule by the minute, hour or weekday; twelve times show those of one by the month.
_GAPS = 12
_GAPS_FROM = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


def next_time(cron: str, after: float) -> float | None:
    """The first time of a cron expression after `after`, both in epoch seconds, in UTC; None for an expression that is
    invalid or has no such time.
    """
    return next(_times(cron, after), None)


@lru_cache(maxsize=256)
def longest_gap_seconds(cron: str) -> float:
    """The longest time between two times of a cron expression; a year for one that is invalid."""
    longest = 0.0
    for number, (before, after) in enumerate(pairwise(_times(cron, _GAPS_FROM)), 1):
        longest = max(longest, after - before)
        if number >= _GAPS and after - _GAPS_FROM > _WEEK_SECONDS:
            break
    return longest or _YEAR_SECONDS


def _times(cron: str, after: float) -> Iterator[float]:
    try:
        for time in CronSim(_CRON_ALIASES.get(cron, cron), datetime.fromtimestamp(after, UTC)):
            yield time.timestamp()
    except CronSimError:
        return
