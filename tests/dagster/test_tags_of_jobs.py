"""The tags that sort the list of jobs and the list of runs."""

from __future__ import annotations

from typing import get_args

import pytest

from regworkers_core.operation import Duty
from regworkers_dagster.definitions import defs
from regworkers_dagster.pods import JOB_NAMES, MANAGERS_JOBS
from regworkers_dagster.runs import DUTY_TAG, FOR_TAG, tags_of_job

REPOSITORY = defs.get_repository_def()


def tags(name: str) -> dict[str, str]:
    return dict(REPOSITORY.get_job(name).run_tags)


def test_every_job_and_so_each_of_its_runs_says_its_duty_and_whom_it_is_for() -> None:
    names = set(REPOSITORY.job_names) - {"__ASSET_JOB"}
    assert names == JOB_NAMES
    assert {tags(name)[DUTY_TAG] for name in names} == set(get_args(Duty))
    assert {tags(name)[FOR_TAG] for name in names} == {"manager", "on-call", "system"}


def test_what_managers_may_launch_is_for_managers_also_if_a_sensor_starts_it_too() -> None:
    started = {target.job_name for sensor in REPOSITORY.sensor_defs for target in sensor.targets or ()}
    assert {"draw", "retry_market_selection"} <= started & set(MANAGERS_JOBS)
    found = {name for name in JOB_NAMES if tags(name)[FOR_TAG] == "manager"}
    assert found == set(MANAGERS_JOBS)


def test_what_only_sensors_and_schedules_start_is_for_the_system() -> None:
    started = {target.job_name for sensor in REPOSITORY.sensor_defs for target in sensor.targets or ()}
    started |= {schedule.job_name for schedule in REPOSITORY.schedule_defs}
    found = {name for name in JOB_NAMES if tags(name)[FOR_TAG] == "system"}
    assert found == (started & JOB_NAMES) - set(MANAGERS_JOBS)


@pytest.mark.parametrize(
    ("name", "duty", "who"),
    [
        ("save_entries", "replication", "system"),
        ("import_codes", "selection", "manager"),
        ("upload_invites", "operations", "manager"),
        ("redrive_dead_letters", "operations", "on-call"),
        ("verify_entries", "replication", "on-call"),
    ],
)
def test_a_list_by_tag_has_the_jobs_that_a_person_looks_for(name: str, duty: str, who: str) -> None:
    assert (tags(name)[DUTY_TAG], tags(name)[FOR_TAG]) == (duty, who)


def test_a_job_without_a_pod_has_no_tags() -> None:
    with pytest.raises(LookupError, match="add it to JOBS"):
        tags_of_job("unlisted")
