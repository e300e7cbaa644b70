"""What is read of Dagster, from outside and from its own storage."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import graphql
import orjson
import pytest
from dagster_graphql.schema import create_schema

from regworkers_core.adapters.dagster_api import DagsterApi, classify_dagster
from regworkers_core.adapters.local_instance import DAGSTER_HEADER
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.snapshot import FailedRun, TickState
from regworkers_core.engine.dependency import Dependency, RetryPolicy
from regworkers_core.operations.health.scheduler import (
    CAMPAIGN_TAG,
    LOOKED_AT,
    MATERIALIZE,
    QUERY,
    latest_query,
    longest_gap_seconds,
    next_time,
    read_scheduler,
)
from regworkers_dagster.runs import scheduler_of

NOW = 1_800_000_000.0
FAILED, FIXED, OLDER, REFUSED = "run-failed", "run-fixed", "run-older", "run-refused"


def failed_run(
    run_id: str, job: str, partition: str = "", *assets: str, seconds_ago: float = 60
) -> dict[str, Any]:
    tags = [{"key": "dagster/partition", "value": partition}] if partition else []
    return {
        "runId": run_id,
        "jobName": job,
        "status": "FAILURE",
        "endTime": NOW - seconds_ago,
        "tags": tags,
        "assetSelection": [{"path": [asset]} for asset in assets] or None,
    }


def refused(run: dict[str, Any]) -> dict[str, Any]:
    return {**run, "tags": [*run["tags"], {"key": "regworkers/refused", "value": "request"}]}


def state(status: str, *ticks: Mapping[str, Any]) -> dict[str, Any]:
    return {"status": status, "ticks": list(ticks)}


ANSWER = {
    "instance": {
        "daemonHealth": {
            "allDaemonStatuses": [
                {"daemonType": "SENSOR", "required": True, "lastHeartbeatTime": NOW},
                {"daemonType": "BACKFILL", "required": True, "lastHeartbeatTime": None},
                {"daemonType": "FRESHNESS_DAEMON", "required": False, "lastHeartbeatTime": None},
            ]
        }
    },
    "repositoriesOrError": {
        "__typename": "RepositoryConnection",
        "nodes": [
            {
                "sensors": [
                    {
                        "name": "save_entries_sensor",
                        "minIntervalSeconds": 3,
                        "sensorState": state(
                            "RUNNING", {"timestamp": NOW, "error": {"className": "KeyError"}}
                        ),
                    },
                    {"name": "off", "minIntervalSeconds": 3, "sensorState": state("STOPPED")},
                ],
                "schedules": [
                    {
                        "name": "nightly",
                        "cronSchedule": "40 3 * * *",
                        "scheduleState": {**state("RUNNING"), "typeSpecificData": {"startTimestamp": NOW}},
                    }
                ],
            }
        ],
    },
    "failed": {
        "results": [
            failed_run(FAILED, "draw", 'a "quoted" one'),
            failed_run(FIXED, "save_entries"),
            refused(failed_run(REFUSED, "top_up")),
        ]
    },
    # Of the latest failures of all the draw may be missing.
    "failed_draw": {
        "results": [failed_run(FAILED, "draw", 'a "quoted" one'), failed_run(OLDER, "draw", "b")]
    },
    **{f"failed_{job}": {"results": []} for job in LOOKED_AT if job != "draw"},
    "assetNodes": [
        {"assetKey": {"path": [asset]}, "jobNames": jobs}
        for asset, jobs in (
            ("eligibility_report", ["draw", "eligibility_report"]),
            ("seed", ["draw", MATERIALIZE]),
            ("system_health", ["doctor"]),
        )
    ],
    "queued": {"count": 4},
}
LATEST = {
    # What was refused since then ends no failure.
    "work0": {"results": [refused(failed_run(REFUSED, "draw")), failed_run(FAILED, "draw")]},
    "work1": {"results": [failed_run("a later one", "save_entries"), failed_run(FIXED, "save_entries")]},
    "work2": {"results": [failed_run(OLDER, "draw")]},
    **{f"{name}{number}": {"results": []} for name in ("launched", "materialized") for number in range(3)},
}


class FakeApi:
    def __init__(self, *answers: dict[str, Any]) -> None:
        self._answers = iter(answers)
        self.variables: list[Mapping[str, Any] | None] = []

    def ask(self, query: str, variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
        self.variables.append(variables)
        return next(self._answers)


def test_daemons_ticks_and_the_failures_that_stand_are_read_from_outside() -> None:
    api: Any = FakeApi(ANSWER, LATEST)
    found = read_scheduler(api, NOW)
    assert dict(found.daemons) == {"SENSOR": "2027-01-15T08:00:00.000Z", "BACKFILL": None}
    assert found.ticks == (
        TickState("save_entries_sensor", 3.0, "2027-01-15T08:00:00.000Z", "KeyError"),
        TickState(
            "nightly", 86400.0, None, since="2027-01-15T08:00:00.000Z", due_at="2027-01-16T03:40:00.000Z"
        ),
    )
    assert found.failed_runs == (
        FailedRun(FAILED, "draw", "2027-01-15T07:59:00.000Z", 'a "quoted" one'),
        FailedRun(OLDER, "draw", "2027-01-15T07:59:00.000Z", "b"),
    )
    assert found.queued_runs == 4
    day, (since, _) = 24 * 3600, api.variables
    assert since["since_draw"] == NOW - 7 * day
    assert {since["since"], *(since[f"since_{job}"] for job in LOOKED_AT[1:])} == {NOW - day}


def test_a_failure_of_one_campaign_is_not_ended_by_another_ones_run() -> None:
    def launched(run_id: str, campaign: str, seconds_ago: float = 60.0) -> dict[str, Any]:
        run = failed_run(run_id, "top_up", seconds_ago=seconds_ago)
        return {**run, "tags": [{"key": CAMPAIGN_TAG, "value": campaign}]}

    none: dict[str, Any] = {"results": []}
    failed = {"results": [launched("f1", "spring"), launched("f2", "autumn")]}
    answer = {**ANSWER, "failed": none, "failed_draw": none, "failed_top_up": failed}
    latest = {f"{name}{number}": none for name in ("work", "launched", "materialized") for number in range(2)}
    latest["launched0"] = {"results": [launched("f1", "spring")]}
    latest["launched1"] = {"results": [launched("done", "autumn", 10.0), launched("f2", "autumn")]}
    api: Any = FakeApi(answer, latest)
    (found,) = read_scheduler(api, NOW).failed_runs
    assert (found.run_id, found.job, found.partition) == ("f1", "top_up", "spring")


def test_a_run_of_materialize_counts_as_the_job_whose_work_it_did() -> None:
    clicked = [
        failed_run("seed", MATERIALIZE, "a", "eligibility_report", "seed"),
        failed_run("done since", MATERIALIZE, "b", "seed"),
        failed_run("preview", MATERIALIZE, "c", "eligibility_report"),
        failed_run("doctor", MATERIALIZE, "", "system_health"),
    ]
    none: dict[str, Any] = {"results": []}
    answer = {**ANSWER, "failed": none, "failed_draw": none, f"failed_{MATERIALIZE}": {"results": clicked}}
    latest = {f"{name}{number}": none for name in ("work", "launched", "materialized") for number in range(4)}
    latest |= {"materialized0": {"results": clicked[:1]}, "materialized1": {"results": clicked[1:2]}}
    latest["work1"] = {"results": [failed_run("a draw", "draw", "b", seconds_ago=10)]}
    latest["materialized2"] = {"results": clicked[2:]}
    api: Any = FakeApi(answer, latest)
    found = [(run.run_id, run.job, run.partition) for run in read_scheduler(api, NOW).failed_runs]
    assert ("seed", "draw", "a") in found
    assert "draw" not in [job for run_id, job, _ in found if run_id != "seed"]


@pytest.mark.parametrize(
    "answer", [{"__typename": "PythonError"}, {"__typename": "RepositoryConnection", "nodes": []}]
)
def test_a_dagster_without_its_code_is_not_one_without_sensors(answer: dict[str, Any]) -> None:
    api: Any = FakeApi({**ANSWER, "repositoriesOrError": answer})
    with pytest.raises(TransientFailure, match="no code location"):
        read_scheduler(api, NOW)


def test_every_question_fits_what_this_dagster_answers() -> None:
    schema = create_schema().graphql_schema
    for query in (QUERY, latest_query([("draw", 'a "quoted" one'), ("save_entries", "")])):
        assert graphql.validate(schema, graphql.parse(query)) == []


@contextmanager
def http_answer(status: int, body: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header(DAGSTER_HEADER, "ours")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def api_at(url: str) -> DagsterApi:
    dependency = Dependency("dagster", classify_dagster, policy=RetryPolicy(attempts=1))
    return DagsterApi(url, dependency, timeout_seconds=5.0)


def test_dagster_is_asked_under_its_address() -> None:
    with http_answer(200, orjson.dumps({"data": {"version": "1"}})) as url:
        assert api_at(url).ask("{ version }") == {"version": "1"}


@pytest.mark.parametrize(
    ("status", "body"),
    [(502, b"gateway"), (200, b"<html>"), (200, b'{"data": null, "errors": [{}]}'), (200, b"[]")],
)
def test_what_is_no_answer_is_an_outage(status: int, body: bytes) -> None:
    with http_answer(status, body) as url, pytest.raises(TransientFailure, match="dagster"):
        api_at(url).ask("{ version }")


def test_another_instances_dagster_is_no_answer() -> None:
    dependency = Dependency("dagster", classify_dagster, policy=RetryPolicy(attempts=1))
    with http_answer(200, orjson.dumps({"data": {"version": "1"}})) as url:
        for identity in ("ours", "theirs"):
            api = DagsterApi(
                url, dependency, timeout_seconds=5.0, instance_id=lambda identity=identity: identity
            )
            if identity == "ours":
                assert api.ask("{ version }") == {"version": "1"}
            else:
                with pytest.raises(TransientFailure, match="another instance's Dagster answers at"):
                    api.ask("{ version }")


def test_an_unreachable_dagster_a_refusal_and_no_address_are_distinguished() -> None:
    with pytest.raises(TransientFailure, match="dagster"):
        api_at("http://127.0.0.1:1").ask("{ version }")
    with http_answer(403, b"") as url, pytest.raises(UsageError, match="refuses us"):
        api_at(url).ask("{ version }")
    with pytest.raises(UsageError, match="REGWORKERS_DAGSTER__URL"):
        api_at("").ask("{ version }")


@dg.op
def nothing() -> None:
    """Never run."""


@dg.job
def fixed() -> None:
    nothing()


@dg.job
def broken() -> None:
    nothing()


@dg.job
def draw() -> None:
    nothing()


@dg.sensor(job=fixed, minimum_interval_seconds=7, default_status=dg.DefaultSensorStatus.RUNNING)
def on() -> dg.SkipReason:
    return dg.SkipReason("nothing to do")


@dg.sensor(job=fixed)
def off() -> dg.SkipReason:
    return dg.SkipReason("nothing to do")


NIGHTLY = dg.ScheduleDefinition(
    name="nightly", job=fixed, cron_schedule="40 3 * * *", default_status=dg.DefaultScheduleStatus.RUNNING
)


def test_the_same_is_read_from_its_own_storage(tmp_path: Path) -> None:
    repository = dg.Definitions(
        jobs=[fixed, broken], sensors=[on, off], schedules=[NIGHTLY]
    ).get_repository_def()
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        assert scheduler_of(instance, repository, NOW).failed_runs == ()
        for job, status in ((fixed, "FAILURE"), (fixed, "SUCCESS"), (broken, "SUCCESS"), (broken, "FAILURE")):
            last = instance.create_run_for_job(job, status=dg.DagsterRunStatus[status])
        found = scheduler_of(instance, repository, last_moment(instance))
    assert [(run.run_id, run.job) for run in found.failed_runs] == [(last.run_id, "broken")]
    assert found.queued_runs == 0
    assert "SENSOR" in found.daemons and set(found.daemons.values()) == {None}
    assert found.ticks == (TickState("on", 7.0, None), TickState("nightly", 86400.0, None))


def test_a_draw_that_failed_is_seen_however_much_else_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regworkers_dagster.runs.MOST_RUNS", 2)
    repository = dg.Definitions(jobs=[draw, broken]).get_repository_def()
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        for job in (draw, broken, broken, broken):
            instance.create_run_for_job(job, status=dg.DagsterRunStatus.FAILURE)
        found = scheduler_of(instance, repository, last_moment(instance))
    assert [run.job for run in found.failed_runs] == ["broken", "draw"]


def test_a_draw_that_failed_is_reported_for_longer_than_a_frequent_job(tmp_path: Path) -> None:
    repository = dg.Definitions(jobs=[draw, broken]).get_repository_def()
    day = 24 * 3600
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        for job in (draw, broken):
            instance.create_run_for_job(job, status=dg.DagsterRunStatus.FAILURE)
        now = last_moment(instance)
        reported = [
            {run.job for run in scheduler_of(instance, repository, now + days * day).failed_runs}
            for days in (0, 3, 8)
        ]
    assert reported == [{"draw", "broken"}, {"draw"}, set()]


def last_moment(instance: dg.DagsterInstance) -> float:
    return max(record.update_timestamp.timestamp() for record in instance.get_run_records())


HOUR, DAY = 3600.0, 24 * 3600.0


@pytest.mark.parametrize(
    ("cron", "seconds"),
    [
        ("* * * * *", 60.0),
        ("*/5 * * * *", 300.0),
        ("40 3 * * *", DAY),
        ("0 7,15 * * *", 16 * HOUR),
        ("15 8-17 * * *", 15 * HOUR),
        ("0 9 * * 1-5", 3 * DAY),
        ("0 9 * * 1", 7 * DAY),
        ("0 9 * * MON", 7 * DAY),
        ("0 7 2 1,4,7,10 *", 92 * DAY),
        ("0 9 * * 0,7", 7 * DAY),
        ("0 */6 * * *", 6 * HOUR),
        ("5/30 * * * *", 1800.0),
        ("@daily", DAY),
        ("0 9 1 * *", 31 * DAY),
        ("0 9 1 4 *", 366 * DAY),
    ],
)
def test_the_longest_gap_between_two_times(cron: str, seconds: float) -> None:
    assert longest_gap_seconds(cron) == seconds


@pytest.mark.parametrize("cron", ["", "@reboot", "0 25 * * *", "x * * * *", "5-1 * * * *"])
def test_an_invalid_schedule_raises_no_false_alarm(cron: str) -> None:
    assert longest_gap_seconds(cron) == 366 * DAY


@pytest.mark.parametrize(
    ("cron", "after", "due"),
    [
        ("*/5 * * * *", "2026-11-26T05:04:59", "2026-11-26T05:05:00"),
        ("*/5 * * * *", "2026-11-26T05:05:00", "2026-11-26T05:10:00"),
        ("0 * * * *", "2026-11-26T23:30:00", "2026-11-27T00:00:00"),
        ("0 6 * * 1", "2026-11-26T05:00:00", "2026-11-30T06:00:00"),
        ("0 4 * * 0", "2026-12-31T05:00:00", "2027-01-03T04:00:00"),
        ("30 6 1 * *", "2026-11-26T05:00:00", "2026-12-01T06:30:00"),
        ("0 7 2 1,4,7,10 *", "2026-11-26T05:00:00", "2027-01-02T07:00:00"),
        ("0 0 29 2 *", "2096-03-01T00:00:00", "2104-02-29T00:00:00"),
        # As in cron: the 13th, or a Friday.
        ("0 9 13 * 5", "2026-11-26T12:00:00", "2026-11-27T09:00:00"),
    ],
)
def test_the_next_time_of_a_schedule(cron: str, after: str, due: str) -> None:
    def epoch(text: str) -> float:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()

    assert next_time(cron, epoch(after)) == epoch(due)


@pytest.mark.parametrize("cron", ["", "@reboot", "0 25 * * *", "0 0 30 2 *"])
def test_an_invalid_schedule_or_date_has_no_next_time(cron: str) -> None:
    assert next_time(cron, 0.0) is None


def test_every_schedule_of_ours_is_valid_and_in_utc() -> None:
    from regworkers_dagster.definitions import defs

    schedules = defs.get_repository_def().schedule_defs
    assert schedules
    for each in schedules:
        assert isinstance(each.cron_schedule, str) and next_time(each.cron_schedule, 0.0) is not None
        assert each.execution_timezone == "UTC"
