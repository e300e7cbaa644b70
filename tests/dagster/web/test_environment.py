"""No launch names a variable of the environment in what Dagster adds to a job's config."""

from __future__ import annotations

import json
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from tests.dagster.web.test_names_of_launches import ADA, BACKFILL
from tests.dagster.web.test_roles import AGAIN
from tests.dagster.web.world import LAUNCH, REPOSITORY, SELECTOR, Site

REPEAT = """mutation ($id: String!) {
  reexecutePartitionBackfill(reexecutionParams: {parentRunId: $id, strategy: ALL_STEPS}) {
    __typename ... on PythonError { message } } }"""
RESUME = """mutation ($id: String!) {
  resumePartitionBackfill(backfillId: $id) { __typename ... on PythonError { message } } }"""
VARIABLE = {"env": "REGWORKERS_MONGO__URI"}
REFUSED = "no launch reads the environment"
BELOW = [
    {"resources": {"io_manager": {"config": {"base_dir": VARIABLE}}}},
    {"execution": {"config": {"tag_concurrency_limits": [{"key": VARIABLE}]}}},
    {"loggers": {"console": {"config": {"name": VARIABLE}}}},
]


@pytest.fixture(autouse=True)
def _starts_nothing(proxied: Site) -> Any:
    before = proxied.instance.get_runs_count()
    yield
    assert proxied.instance.get_runs_count() == before


def said(answer: dict[str, Any]) -> str:
    ((of_mutation),) = answer["data"].values()
    return str(of_mutation.get("message"))


@pytest.mark.parametrize("config", BELOW, ids=lambda each: next(iter(each)))
@pytest.mark.parametrize("written", [dict, json.dumps], ids=["object", "yaml"])
def test_a_launch_that_reads_the_environment_is_refused(written: Any, config: Any, proxied: Site) -> None:
    params = {"selector": SELECTOR, "runConfigData": written(config)}
    assert REFUSED in said(proxied.ask(LAUNCH, {"params": params}, **ADA))


def test_so_is_a_backfill(proxied: Site) -> None:
    proxied.instance.add_dynamic_partitions("campaigns", ["spring"])
    before = proxied.instance.get_backfills()
    params = {
        "assetSelection": [{"path": ["winners"]}],
        "partitionNames": ["spring"],
        "runConfigData": BELOW[0],
    }
    assert REFUSED in said(proxied.ask(BACKFILL, {"params": params}, **ADA))
    assert proxied.instance.get_backfills() == before


def test_a_run_of_before_that_reads_it_is_not_repeated(proxied: Site) -> None:
    before = dg.DagsterRun(job_name="draw", run_config=BELOW[0], status=dg.DagsterRunStatus.FAILURE)
    proxied.instance.add_run(before)
    try:
        again = {"parentRunId": before.run_id, "strategy": "ALL_STEPS"}
        assert REFUSED in said(proxied.ask(AGAIN, {"again": again}, **ADA))
    finally:
        proxied.instance.delete_run(before.run_id)


@pytest.mark.parametrize(("mutation", "name"), [(REPEAT, "repeated"), (RESUME, "resumed")])
def test_a_backfill_of_before_that_reads_it_is_not_continued(mutation: str, name: str, proxied: Site) -> None:
    before = PartitionBackfill(
        name,
        BulkActionStatus.FAILED,
        from_failure=False,
        tags={},
        backfill_timestamp=0.0,
        asset_selection=[dg.AssetKey("winners")],
        run_config=BELOW[0],
    )
    proxied.instance.add_backfill(before)
    assert REFUSED in said(proxied.ask(mutation, {"id": before.backfill_id}, **ADA))
    kept = [each for each in proxied.instance.get_backfills() if each.run_config == BELOW[0]]
    assert {each.status for each in kept} == {BulkActionStatus.FAILED}


def test_a_market_that_is_called_env_is_none_of_that(proxied: Site) -> None:
    selector = {**REPOSITORY, "jobName": "confirm_draw"}
    config = {"ops": {"publish": {"config": {"env": 1}}}}
    answer = said(proxied.ask(LAUNCH, {"params": {"selector": selector, "runConfigData": config}}, **ADA))
    assert REFUSED not in answer, "Dagster itself judges the config of a job"
