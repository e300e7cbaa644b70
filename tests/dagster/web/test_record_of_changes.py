"""Every change in the UI that is no launch is written down before it is made."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from graphql import GraphQLInputObjectType, GraphQLNamedType, get_named_type

from regworkers_core.runtime import Runtime
from regworkers_dagster.web.mutations import LAUNCHES, OF_THE_UI, REPEATS_A_BACKFILL, described
from tests.dagster.web.world import FILE, LAUNCH, REPOSITORY, SELECTOR, Site

ADA = {"address": "10.0.0.7", "x_forwarded_email": "ada@example.com"}
SENSOR = {**REPOSITORY, "sensorName": "watch"}
START = """mutation ($it: SensorSelector!) { startSensor(sensorSelector: $it) {
  __typename ... on Sensor { id } ... on PythonError { message } } }"""
STOP = """mutation ($id: String) { stopSensor(id: $id) { __typename ... on PythonError { message } } }"""


def schema_mutations() -> Iterator[tuple[str, set[str]]]:
    """Every mutation of this Dagster, and the names of the types that its arguments hold."""
    from dagster_graphql.schema import create_schema

    mutations = create_schema().graphql_schema.mutation_type
    assert mutations is not None
    for name, each in mutations.fields.items():
        held: set[str] = set()
        for argument in each.args.values():
            collect(get_named_type(argument.type), held)
        yield name, held


def collect(kind: GraphQLNamedType, held: set[str]) -> None:
    if kind.name not in held:
        held.add(kind.name)
        if isinstance(kind, GraphQLInputObjectType):
            for each in kind.fields.values():
                collect(get_named_type(each.type), held)


def test_every_mutation_that_takes_tags_or_is_called_a_launch_is_one_here() -> None:
    """A newer Dagster may bring another way to launch: it would be recorded, but its runs would have no name."""
    launches = {
        name
        for name, held in schema_mutations()
        if "ExecutionTag" in held or name.startswith("launch") or "execute" in name.lower()
    }
    # It ends a run; old clients know it by this name.
    assert launches - {"terminatePipelineExecution"} == LAUNCHES | {REPEATS_A_BACKFILL}
    assert {name for name, _ in schema_mutations()} > LAUNCHES | OF_THE_UI


def test_a_sensor_that_is_switched_is_a_row_with_its_name(proxied: Site) -> None:
    found = proxied.ask(START, {"it": SENSOR}, **ADA)["data"]["startSensor"]
    assert found["__typename"] == "Sensor"
    assert (
        proxied.ask(STOP, {"id": found["id"]}, **ADA)["data"]["stopSensor"]["__typename"]
        == "StopSensorMutationResult"
    )
    started, stopped = proxied.actions.rows
    assert started == {
        "what": "ui startSensor",
        "target": "watch",
        "arguments": {"sensorName": "watch", "repositoryLocationName": "location.py"},
        "who": "ada@example.com",
        "outcome": "done",
        "result": {"answer": "Sensor"},
    }
    assert (stopped["what"], stopped["target"], stopped["outcome"]) == ("ui stopSensor", "watch", "done")


def test_ending_deleting_and_wiping_are_rows_and_a_refusal_of_dagsters_is_a_failure(proxied: Site) -> None:
    run = proxied.launch(**ADA)
    proxied.ask(
        "mutation ($id: String!) { terminateRun(runId: $id) { __typename } }", {"id": run.run_id}, **ADA
    )
    proxied.ask("mutation ($id: String!) { deleteRun(runId: $id) { __typename } }", {"id": run.run_id}, **ADA)
    proxied.ask("mutation ($id: String!) { deleteRun(runId: $id) { __typename } }", {"id": run.run_id}, **ADA)
    wipe = 'mutation { wipeAssets(assetPartitionRanges: [{assetKey: {path: ["winners"]}}]) { __typename } }'
    proxied.ask(wipe, **ADA)
    assert [(row["what"], row["target"], row["outcome"]) for row in proxied.actions.rows] == [
        ("ui terminateRun", run.run_id, "done"),
        ("ui deleteRun", run.run_id, "done"),
        ("ui deleteRun", run.run_id, "failed"),
        ("ui wipeAssets", "winners", "done"),
    ]
    assert proxied.actions.rows[2]["result"] == {"answer": "RunNotFoundError"}


def test_several_changes_in_one_document_are_a_row_each(proxied: Site) -> None:
    twice = """mutation ($on: Boolean!) {
      a: setConcurrencyLimit(concurrencyKey: "save", limit: 3)
      ...Off
      c: setAutoMaterializePaused(paused: true) @include(if: $on)
    }
    fragment Off on Mutation { b: deleteConcurrencyLimit(concurrencyKey: "save") }"""
    assert proxied.ask(twice, {"on": False}, **ADA)["data"] == {"a": True, "b": True}
    assert [(row["what"], row["target"], row["arguments"]) for row in proxied.actions.rows] == [
        ("ui setConcurrencyLimit", "save", {"concurrencyKey": "save", "limit": 3}),
        ("ui deleteConcurrencyLimit", "save", {"concurrencyKey": "save"}),
    ]


def test_what_cannot_be_written_down_is_not_done(proxied: Site) -> None:
    run = proxied.launch(**ADA)
    proxied.actions.gate.down = True
    delete = "mutation ($id: String!) { deleteRun(runId: $id) { ... on PythonError { message } } }"
    answer = proxied.ask(delete, {"id": run.run_id}, **ADA)
    assert "not done, because it could not be recorded: mongo" in answer["data"]["deleteRun"]["message"]
    assert proxied.instance.get_run_by_id(run.run_id) is not None


def test_a_change_that_raises_is_a_row_that_failed(proxied: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(proxied.instance.event_log_storage), "delete_concurrency_limit", broken)
    with pytest.raises(BaseException):  # noqa: B017
        proxied.ask('mutation { deleteConcurrencyLimit(concurrencyKey: "save") }', **ADA)
    assert proxied.actions.rows[-1]["outcome"] == "failed"
    assert proxied.actions.rows[-1]["result"] == {"error": "KeyboardInterrupt"}


def test_who_has_no_name_changes_nothing(proxied: Site) -> None:
    answer = proxied.ask('mutation { setConcurrencyLimit(concurrencyKey: "save", limit: 3) }')
    assert "not signed in" in answer["errors"][0]["message"]
    assert proxied.actions.rows == []


def test_free_text_and_addresses_are_not_kept() -> None:
    arguments = {
        "sensorSelector": {"sensorName": "watch", "repositoryLocationName": "location.py"},
        "cursor": "ada@fans.example",
        "eventParams": {"description": "Ada asked for it", "assetKey": {"path": ["a", "b"]}},
        "partitionKeys": ["summer", "ada@fans.example"],
        "runIds": [str(number) for number in range(30)],
        "runId": None,
        "limit": 3,
    }
    target, facts = described(arguments)
    assert target == "watch"
    assert "fans" not in str(facts) and "asked" not in str(facts)
    assert facts["path"] == "a/b" and facts["partitionKeys"] == ["summer"] and facts["limit"] == 3
    assert len(facts["runIds"]) == 20


def test_who_only_reads_changes_nothing_under_any_name(
    context: WorkspaceProcessContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "_read_only", True)
    site = Site(context)
    before = site.instance.get_runs_count()
    launched = site.ask(LAUNCH, {"params": {"selector": SELECTOR}})
    switched = site.ask(START, {"it": SENSOR})
    messages = launched["data"]["launchRun"]["message"], switched["data"]["startSensor"]["message"]
    assert messages == ("this server is read-only\n", "this server is read-only\n")
    assert site.client().get("/uploads").status_code == 403
    assert site.client().get("/downloads/export_codes/" + "0" * 32 + "/codes.csv").status_code == 403
    assert site.client().put("/uploads/a", content=b"a", headers=FILE).status_code == 403
    assert site.instance.get_runs_count() == before and site.actions.rows == []


def test_rows_stand_in_the_audit_log_of_everything_else(
    context: WorkspaceProcessContext, runtime: Runtime
) -> None:
    site = Site(context, runtime=runtime, operator_header="X-User", proxies=("10.0.0.7",))
    site.ask(START, {"it": SENSOR}, address="10.0.0.7", x_user="ada")
    (action,) = runtime.operator_actions.history(what="ui")
    assert (action.who, action.what, action.target, action.outcome) == (
        "ada",
        "ui startSensor",
        "watch",
        "done",
    )
    assert action.ended_at and isinstance(context.instance, dg.DagsterInstance)
