"""Each launch has the name of the person whom the proxy logged in, whatever the client says."""

from __future__ import annotations

import json
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.dagster_run import DagsterRunStatus
from dagster._core.workspace.context import WorkspaceProcessContext

from regworkers_core.adapters.mongo.activity import operator
from regworkers_dagster.factories import POD_TAG
from regworkers_dagster.runs import DRAIN_TAG, OPERATION_TAG, OPERATOR_TAG, OUR_TAGS, is_by_hand, who_launched
from tests.dagster.web.world import LAUNCH, REPOSITORY, SELECTOR, Site

# As nginx sends what oauth2-proxy found out.
ADA = {"address": "10.0.0.7", "x_forwarded_email": "ada@example.com"}
BY_EVE = {OPERATOR_TAG: "eve@example.com"}
EVES = [{"key": OPERATOR_TAG, "value": "eve@example.com"}]
BACKFILL = """mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
  }
}"""


def the_only_name(run: dg.DagsterRun) -> str:
    assert [key for key in run.tags if "operator" in key] == [OPERATOR_TAG]
    return who_launched(run)


def test_a_launch_has_the_name_that_the_proxy_sent(proxied: Site) -> None:
    run = proxied.launch(**ADA)
    assert the_only_name(run) == "ada@example.com" and run.job_name == "draw"


def test_the_clients_own_name_is_replaced_and_its_other_tags_stay(proxied: Site) -> None:
    run = proxied.launch(tags={**BY_EVE, "why": "a test"}, **ADA)
    assert the_only_name(run) == "ada@example.com" and run.tags["why"] == "a test"


def test_a_launch_cannot_pass_for_a_drain_or_hold_the_place_of_an_operation(proxied: Site) -> None:
    """Failed runs with a drain's tag keep its sensor from starting the drain."""
    run = proxied.launch(tags={DRAIN_TAG: "save", OPERATION_TAG: "reconcile"}, **ADA)
    assert [key for key in run.tags if key.startswith(OUR_TAGS)] == [OPERATOR_TAG]


STEERING = {
    "dagster/sensor_name": "watch_campaigns",
    "dagster/run_key": "spring:1",
    "dagster/schedule_name": "nightly",
    "dagster/max_runtime": "99999999",
    "dagster/max_retries": "1000",
    "dagster/priority": "9999",
    "dagster/backfill": "xyz",
    "dagster/parent_run_id": "xyz",
    "dagster/partition_set": "draw_partition_set",
    ".dagster/repository": "another@place",
    "dagster-k8s/resource_requirements": "{}",
}
PARTITION = {"dagster/partition": "spring"}
RANGE = {f"dagster/asset_partition_range_{end}": "spring" for end in ("start", "end")}


def of_dagster(run: dg.DagsterRun) -> dict[str, str]:
    """What the run has of Dagster's tags besides those that Dagster itself sets."""
    own = {".dagster/repository", "dagster/code_location"}
    return {key: value for key, value in run.tags.items() if "dagster" in key and key not in own}


def launched(site: Site, selector: dict[str, Any], tags: dict[str, str]) -> dg.DagsterRun:
    sent = [{"key": key, "value": value} for key, value in tags.items()]
    params = {"selector": {**REPOSITORY, **selector}, "executionMetadata": {"tags": sent}}
    return site.run_of(site.ask(LAUNCH, {"params": params}, **ADA)["data"]["launchRun"])


def test_a_client_steers_no_sensor_retry_limit_or_queue(proxied: Site) -> None:
    run = launched(proxied, {"jobName": "draw"}, {**STEERING, **PARTITION, **RANGE})
    assert of_dagster(run) == {} and run.tags.get(".dagster/repository") != "another@place"


@pytest.mark.parametrize(
    ("selector", "sent", "kept"),
    [
        ({"jobName": "announce"}, PARTITION, PARTITION),
        ({"pipelineName": "__ASSET_JOB", "assetSelection": [{"path": ["winners"]}]}, RANGE, RANGE),
        ({"jobName": "save_entries"}, {**PARTITION, **RANGE}, {}),
        (
            {"pipelineName": "__ASSET_JOB", "assetSelection": [{"path": ["entries"]}]},
            {**PARTITION, **RANGE},
            {},
        ),
    ],
    ids=["job", "assets", "job without", "assets without"],
)
def test_only_what_has_partitions_takes_one_from_a_client(
    selector: dict[str, Any], sent: dict[str, str], kept: dict[str, str], proxied: Site
) -> None:
    proxied.instance.add_dynamic_partitions("campaigns", ["spring"])
    run = launched(proxied, selector, {**STEERING, **sent})
    pod = {key for key in run.tags if key == POD_TAG}
    assert {key: value for key, value in of_dagster(run).items() if key not in pod} == kept


def test_the_launchpad_cannot_choose_the_pod_of_a_run(proxied: Site) -> None:
    other = '{"pod_spec_config": {"service_account_name": "regworkers-provision"}}'
    run = proxied.launch(
        tags={POD_TAG: other, "dagster-k8s/resource_requirements": "{}", "why": "a test"}, **ADA
    )
    assert run.tags["why"] == "a test" and not [key for key in run.tags if key.startswith("dagster-k8s/")]


@pytest.mark.parametrize(("asset", "account"), [("entries", "regworkers-replication"), ("winners", None)])
def test_assets_without_a_job_get_the_pod_of_theirs(asset: str, account: str | None, proxied: Site) -> None:
    selector = {**REPOSITORY, "pipelineName": "__ASSET_JOB", "assetSelection": [{"path": [asset]}]}
    params = {"selector": selector, "executionMetadata": {"tags": [{"key": POD_TAG, "value": "{}"}]}}
    answer = proxied.ask(LAUNCH, {"params": params}, **ADA)["data"]["launchRun"]
    run = proxied.instance.get_run_by_id(answer["run"]["runId"])
    assert run is not None
    pod = json.loads(run.tags.get(POD_TAG, "null"))
    assert (pod["pod_spec_config"]["service_account_name"] if pod else None) == account


def test_without_a_proxy_a_launch_is_of_the_account_that_runs_the_application(site: Site) -> None:
    run = site.launch(tags=BY_EVE, x_forwarded_email="eve@example.com")
    assert the_only_name(run) == operator()


@pytest.mark.parametrize(
    "headers",
    [
        {"address": "10.0.0.8", "x_forwarded_email": "eve@example.com"},
        {"address": "127.0.0.1", "x_forwarded_email": "eve@example.com", "x_forwarded_for": "10.0.0.7"},
        {"address": "10.0.0.7"},
        {"address": "10.0.0.7", "x_forwarded_email": ""},
        {"address": "10.0.0.7", "x_forwarded_email": "a\tb"},
        {"address": "10.0.0.7", "x_forwarded_email": "a" * 255},
        {"address": "not an address", "x_forwarded_email": "eve@example.com"},
    ],
)
def test_whom_the_proxy_does_not_name_launches_nothing(headers: dict[str, str], proxied: Site) -> None:
    before = proxied.instance.get_runs_count()
    answer = proxied.ask(LAUNCH, {"params": {"selector": SELECTOR}}, **headers)
    assert "not signed in" in answer["data"]["launchRun"]["message"]
    assert proxied.instance.get_runs_count() == before
    # Reading needs no name.
    assert proxied.ask("{ instance { id } }", **headers)["data"]["instance"]["id"]


def test_two_names_are_none(proxied: Site) -> None:
    twice = [("x-forwarded-email", "ada@example.com"), ("x-forwarded-email", "eve@example.com")]
    client = proxied.client(address="10.0.0.7")
    answer = client.post(
        "/graphql", json={"query": LAUNCH, "variables": {"params": {"selector": SELECTOR}}}, headers=twice
    )
    assert "not signed in" in answer.json()["data"]["launchRun"]["message"]


def test_a_name_in_another_alphabet_is_read_as_the_proxy_wrote_it(proxied: Site) -> None:
    named = proxied.client(address="10.0.0.7")
    header = {b"x-forwarded-email": "zoë@example.com".encode()}
    answer = named.post(
        "/graphql", json={"query": LAUNCH, "variables": {"params": {"selector": SELECTOR}}}, headers=header
    )
    assert the_only_name(proxied.run_of(answer.json()["data"]["launchRun"])) == "zoë@example.com"


def test_networks_and_addresses_in_the_other_notation_count_as_the_proxy(
    context: WorkspaceProcessContext,
) -> None:
    site = Site(context, operator_header="X-User", proxies=("10.0.4.0/24", "::1"))
    for address in ("10.0.4.9", "::ffff:10.0.4.9", "::1"):
        assert the_only_name(site.launch(address=address, x_user="ada")) == "ada"


ALIASES = """mutation ($params: ExecutionParams!, $tags: [ExecutionTag!]) {
  ... { one: launchRun(executionParams: $params) { ...Launched } }
  two: launchPipelineExecution(executionParams: {
    selector: {repositoryName: "__repository__", repositoryLocationName: "location.py", jobName: "draw"}
    executionMetadata: {tags: $tags}
  }) { ...Launched }
  ...More
}
fragment More on Mutation { three: launchMultipleRuns(executionParamsList: [$params, $params]) {
  ... on LaunchMultipleRunsResult { launchMultipleRunsResult { ...Launched } } } }
fragment Launched on LaunchRunResult { __typename ... on LaunchRunSuccess { run { runId } } }"""


def test_aliases_fragments_variables_and_several_launches_in_one_document_all_get_the_name(
    proxied: Site,
) -> None:
    params = {"selector": SELECTOR, "executionMetadata": {"tags": EVES}}
    found = proxied.ask(ALIASES, {"params": params, "tags": EVES}, **ADA)["data"]
    launched = [found["one"], found["two"], *found["three"]["launchMultipleRunsResult"]]
    assert [the_only_name(proxied.run_of(each)) for each in launched] == ["ada@example.com"] * 4


def test_the_operation_that_is_named_is_the_one_that_gets_the_name(proxied: Site) -> None:
    document = LAUNCH + " query Look { version }"
    sent = {"query": document, "operationName": "Launch", "variables": {"params": {"selector": SELECTOR}}}
    headers = {"x-forwarded-email": "ada@example.com"}
    answer = proxied.client(address="10.0.0.7").post("/graphql", json=sent, headers=headers).json()
    assert the_only_name(proxied.run_of(answer["data"]["launchRun"])) == "ada@example.com"


def test_a_run_that_is_executed_again_is_of_the_person_who_did_that(proxied: Site) -> None:
    first = proxied.launch(address="10.0.0.7", x_forwarded_email="bob@example.com")
    proxied.instance.report_run_failed(first)
    again = """mutation ($again: ReexecutionParams) { launchRunReexecution(reexecutionParams: $again) {
      __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
    params = {
        "parentRunId": first.run_id,
        "strategy": "ALL_STEPS",
        "extraTags": EVES,
        "useParentRunTags": True,
    }
    found = proxied.ask(again, {"again": params}, **ADA)["data"]["launchRunReexecution"]
    assert the_only_name(proxied.run_of(found)) == "ada@example.com"

    # From a page that was open before: with the config of the launchpad, and the parent's tags.
    again = """mutation ($again: ExecutionParams) { launchPipelineReexecution(executionParams: $again) {
      __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
    lineage = {"rootRunId": first.run_id, "parentRunId": first.run_id}
    tags = [{"key": key, "value": value} for key, value in first.tags.items()]
    execution = {"selector": SELECTOR, "executionMetadata": {**lineage, "tags": tags}}
    found = proxied.ask(again, {"again": execution}, **ADA)["data"]["launchPipelineReexecution"]
    run = proxied.run_of(found)
    assert the_only_name(run) == "ada@example.com" and run.parent_run_id == first.run_id


def backfill(site: Site, **headers: str) -> Any:
    params = {"assetSelection": [{"path": ["winners"]}], "partitionNames": ["summer"], "tags": EVES}
    found = site.ask(BACKFILL, {"params": params}, **headers)["data"]["launchPartitionBackfill"]
    made = site.instance.get_backfill(found["backfillId"])
    assert made is not None
    return made


def test_a_backfill_has_the_name_and_one_that_repeats_it_has_its_own(proxied: Site) -> None:
    proxied.instance.add_dynamic_partitions("campaigns", ["summer"])
    made = backfill(proxied, **ADA)
    assert made.tags[OPERATOR_TAG] == "ada@example.com"

    proxied.instance.update_backfill(made.with_status(dg._core.execution.backfill.BulkActionStatus.FAILED))
    again = """mutation ($again: ReexecutionParams) { reexecutePartitionBackfill(reexecutionParams: $again) {
      __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
    params = {"parentRunId": made.backfill_id, "strategy": "ALL_STEPS", "extraTags": EVES}
    bob = {"address": "10.0.0.7", "x_forwarded_email": "bob@example.com"}
    found = proxied.ask(again, {"again": params}, **bob)["data"]["reexecutePartitionBackfill"]
    repeated = proxied.instance.get_backfill(found["backfillId"])
    assert repeated is not None and repeated.tags[OPERATOR_TAG] == "bob@example.com"
    assert proxied.actions.rows[-1] == {
        "what": "ui reexecutePartitionBackfill",
        "target": made.backfill_id,
        "arguments": {"parentRunId": made.backfill_id, "strategy": "ALL_STEPS"},
        "who": "bob@example.com",
        "outcome": "done",
        "result": {"answer": "LaunchBackfillSuccess"},
    }


def test_tags_of_a_sensor_do_not_hide_a_launch_by_hand_from_the_audit_log(proxied: Site) -> None:
    run = proxied.launch(tags={"dagster/sensor_name": "watch"}, **ADA)
    assert is_by_hand(run)
    automatic = dg.DagsterRun(job_name="draw", run_id="1", tags={"dagster/sensor_name": "watch"})
    assert not is_by_hand(automatic)


def test_a_run_that_did_not_come_through_the_application_is_named_by_its_id() -> None:
    run = dg.DagsterRun(job_name="draw", run_id="1", status=DagsterRunStatus.STARTED)
    assert is_by_hand(run) and who_launched(run) == "dagster 1"


def test_the_launchpads_config_reaches_the_run(proxied: Site) -> None:
    params = {
        "selector": SELECTOR,
        "runConfigData": {"ops": {"nothing": {"config": {"seats": 7}}}},
        "mode": "default",
    }
    found = proxied.ask(LAUNCH, {"params": params}, **ADA)["data"]["launchRun"]
    assert proxied.run_of(found).run_config == {"ops": {"nothing": {"config": {"seats": 7}}}}
    assert REPOSITORY["repositoryName"] == "__repository__"
