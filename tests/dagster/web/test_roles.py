"""Groups of the proxy say what a person may launch; some launches need two people."""

from __future__ import annotations

from copy import copy
from types import SimpleNamespace
from typing import Any

import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster_graphql.schema import create_schema
from dagster_graphql.schema.errors import GraphenePythonError
from graphql import GraphQLError
from pydantic import ValidationError
from starlette.requests import HTTPConnection

from regworkers_core.domain.reasons import UsageError
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from regworkers_core.settings.operations import WebSettings
from regworkers_dagster.definitions import managers_jobs, tags_of_jobs
from regworkers_dagster.web.guard import Operators
from regworkers_dagster.web.mutations import CHANGES, LAUNCHES, OF_THE_UI, Mutations
from regworkers_dagster.web.rights import Rights
from regworkers_dagster.web.serve import refuse_unknown_jobs
from tests.dagster.web.test_names_of_launches import ALIASES, BACKFILL
from tests.dagster.web.test_record_of_changes import SENSOR, START
from tests.dagster.web.world import FILE, LAUNCH, REPOSITORY, SELECTOR, Site

PROXY = {"operator_header": "X-Forwarded-Email", "proxies": ("10.0.0.7",)}
GROUPS = {"operator": ("ops",), "manager": ("managers", "box office"), "viewer": ("all",)}
CONFIRM = {**REPOSITORY, "jobName": "confirm_draw"}
AGAIN = """mutation ($again: ReexecutionParams) { launchRunReexecution(reexecutionParams: $again) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""


def person(name: str, groups: str) -> dict[str, str]:
    """A request as the proxy sends it."""
    return {"address": "10.0.0.7", "x_forwarded_email": f"{name}@example.com", "x_forwarded_groups": groups}


OPERATOR, MANAGER, VIEWER = person("ada", "ops"), person("bob", "managers"), person("eve", "all")


@pytest.fixture
def roles(context: WorkspaceProcessContext) -> Site:
    return Site(context, **PROXY, groups_header="X-Forwarded-Groups", groups=GROUPS)


@pytest.fixture
def two(context: WorkspaceProcessContext) -> Site:
    """Everyone is an operator, and a publication needs two of them."""
    return Site(context, **PROXY, two_people=("amend_campaign", "confirm_draw"))


def asked(site: Site, who: dict[str, str], selector: dict[str, Any], config: Any = None) -> dict[str, Any]:
    params = {"selector": selector, "runConfigData": config or {}}
    answer: dict[str, Any] = site.ask(LAUNCH, {"params": params}, **who)["data"]["launchRun"]
    return answer


def confirm(site: Site, who: dict[str, str], word: str = "spring:1") -> str:
    config = {"ops": {"publish": {"config": {"confirm": word}}}}
    return str(asked(site, who, CONFIRM, config).get("message", "launched"))


def refused(answer: Any) -> bool:
    return "none of your groups" in str(answer)


def test_each_role_launches_its_own_jobs_and_no_others(roles: Site) -> None:
    save = {**REPOSITORY, "jobName": "save_entries"}
    launched = {
        name: [
            asked(roles, who, selector)["__typename"] == "LaunchRunSuccess" for selector in (SELECTOR, save)
        ]
        for name, who in (("operator", OPERATOR), ("manager", MANAGER), ("viewer", VIEWER))
    }
    assert launched == {"operator": [True, True], "manager": [True, False], "viewer": [False, False]}
    assert "may launch save_entries" in asked(roles, MANAGER, save)["message"]


@pytest.mark.parametrize(
    "groups", ["", "Ops", "ops-former", "managers2", "ops managers", "*", "operator", "a" * 5000]
)
def test_an_unknown_group_launches_nothing_and_may_read(groups: str, roles: Site) -> None:
    who = person("eve", groups)
    assert refused(asked(roles, who, SELECTOR))
    assert roles.ask("{ instance { id } }", **who)["data"]["instance"]["id"]


def test_groups_come_from_the_proxy_alone_and_once(roles: Site) -> None:
    before = roles.instance.get_runs_count()
    assert "not signed in" in str(asked(roles, {**OPERATOR, "address": "10.0.0.8"}, SELECTOR))
    client = roles.client(address="10.0.0.7", x_forwarded_email="eve@example.com")
    twice = [("x-forwarded-groups", "all"), ("x-forwarded-groups", "ops")]
    sent = {"query": LAUNCH, "variables": {"params": {"selector": SELECTOR}}}
    assert refused(client.post("/graphql", json=sent, headers=twice).json())
    assert refused(client.post("/graphql", json=sent).json())
    assert roles.instance.get_runs_count() == before


def test_groups_add_up_and_blanks_around_them_do_not_matter(roles: Site) -> None:
    for groups in ("all, box office", "x,ops , y", "managers,all"):
        assert asked(roles, person("ada", groups), SELECTOR)["__typename"] == "LaunchRunSuccess"


def test_every_change_but_a_launch_is_for_operators_alone(context: WorkspaceProcessContext) -> None:
    """Every mutation of this Dagster, also one that a newer one adds."""
    settings, schema, called = WebSettings(**PROXY, groups_header="X-G", groups=GROUPS), create_schema(), []
    mutations = schema.graphql_schema.mutation_type
    assert mutations is not None
    for name, field in mutations.fields.items():
        field.resolve = lambda *_, name=name, **__: called.append(name)
    Mutations(Operators(settings), Rights(settings, pytest.fail), pytest.fail).wrap(schema)
    headers = [(b"x-forwarded-email", b"bob@example.com"), (b"x-g", b"managers,all")]
    source = HTTPConnection({"type": "http", "headers": headers, "client": ("10.0.0.7", 1)})
    asks = SimpleNamespace(read_only=False, source=source, instance=context.instance)
    for field in mutations.fields.values():
        info = SimpleNamespace(context=asks, return_type=field.type)
        try:
            field.resolve(None, info)
        except GraphQLError as error:
            assert "role operator" in str(error)
    assert set(called) == OF_THE_UI


def test_a_mutation_that_is_not_known_is_refused_for_everyone(context: WorkspaceProcessContext) -> None:
    schema, called = create_schema(), []
    mutations = schema.graphql_schema.mutation_type
    assert mutations is not None
    assert {*LAUNCHES, *CHANGES, *OF_THE_UI} == set(mutations.fields), "each of this Dagster's is known"
    new = copy(mutations.fields["reloadWorkspace"])
    new.resolve = lambda *_, **__: called.append("new")
    mutations.fields["inventedMutation"] = new
    settings = WebSettings(**PROXY)
    Mutations(Operators(settings), Rights(settings, pytest.fail), pytest.fail).wrap(schema)
    headers = [(b"x-forwarded-email", b"ada@example.com")]
    source = HTTPConnection({"type": "http", "headers": headers, "client": ("10.0.0.7", 1)})
    asks = SimpleNamespace(read_only=False, source=source, instance=context.instance)
    answer = new.resolve(None, SimpleNamespace(context=asks, return_type=new.type))
    assert isinstance(answer, GraphenePythonError) and called == []


def test_switches_are_an_operators(roles: Site) -> None:
    assert "role operator" in str(roles.ask(START, {"it": SENSOR}, **MANAGER))
    assert roles.actions.rows == []
    assert roles.ask(START, {"it": SENSOR}, **OPERATOR)["data"]["startSensor"]["__typename"] == "Sensor"


def test_aliases_fragments_and_bulk_launches_are_judged_one_by_one(roles: Site) -> None:
    before = roles.instance.get_runs_count()
    params = {"selector": SELECTOR}
    found = roles.ask(ALIASES, {"params": params, "tags": []}, **VIEWER)["data"]
    assert [found[alias].get("__typename") for alias in ("one", "two")] == ["PythonError"] * 2
    assert found["three"] == {}
    assert roles.instance.get_runs_count() == before
    mixed = """mutation ($mine: ExecutionParams!, $other: ExecutionParams!) {
      launchMultipleRuns(executionParamsList: [$mine, $other]) { __typename ... on PythonError { message } } }"""
    save = {"selector": {**REPOSITORY, "jobName": "save_entries"}}
    assert refused(roles.ask(mixed, {"mine": params, "other": save}, **MANAGER))
    assert roles.instance.get_runs_count() == before


def test_a_query_in_the_address_or_several_operations_change_nothing(roles: Site) -> None:
    before = roles.instance.get_runs_count()
    client = roles.client(address="10.0.0.7", x_forwarded_email="eve@example.com", x_forwarded_groups="all")
    inline = "mutation A { setAutoMaterializePaused(paused: true) } query B { version }"
    assert client.get("/graphql", params={"query": inline, "operationName": "A"}).status_code == 405
    batch = [{"query": inline, "operationName": "A"}]
    with pytest.raises(AttributeError):
        # Dagster takes no list of operations.
        client.post("/graphql", json=batch)
    answer = client.post("/graphql", json={"query": inline, "operationName": "A"}).json()
    assert "role operator" in str(answer) and roles.instance.get_runs_count() == before
    with client.websocket_connect("ws://localhost:3000/graphql", subprotocols=["graphql-ws"]) as socket:
        socket.send_json({"type": "start", "id": "1", "payload": {"query": inline, "operation_name": "A"}})
        assert socket.receive_json()["type"] == "error"
    assert roles.actions.rows == []


def test_the_name_that_dagster_reads_is_the_one_that_is_judged(roles: Site) -> None:
    both = {**REPOSITORY, "pipelineName": "save_entries", "jobName": "draw"}
    assert refused(asked(roles, MANAGER, both))
    assert refused(asked(roles, MANAGER, {**REPOSITORY, "jobName": "no_such_job"}))
    assert refused(asked(roles, MANAGER, {**REPOSITORY, "jobName": ""}))


def test_assets_without_a_job_need_one_that_has_all_of_them(
    roles: Site, context: WorkspaceProcessContext
) -> None:
    entries = {**REPOSITORY, "pipelineName": "__ASSET_JOB", "assetSelection": [{"path": ["entries"]}]}
    winners = {**entries, "assetSelection": [{"path": ["entries"]}, {"path": ["winners"]}]}
    for selector in (
        entries,
        winners,
        {**entries, "assetSelection": []},
        {**entries, "assetSelection": None},
    ):
        assert refused(asked(roles, MANAGER, selector))
    # Under the name of a job that the person may launch.
    assert asked(roles, MANAGER, {**entries, "pipelineName": "draw"})["__typename"] == "InvalidSubsetError"
    jobs = {"manager": ("save_entries",)}
    saver = Site(context, **PROXY, groups_header="X-Forwarded-Groups", groups=GROUPS, jobs=jobs)
    assert asked(saver, MANAGER, entries)["__typename"] == "LaunchRunSuccess"
    assert refused(asked(saver, MANAGER, winners))


def test_repeating_the_run_of_another_is_a_launch_of_its_job(roles: Site) -> None:
    save = {**REPOSITORY, "jobName": "save_entries"}
    run = roles.run_of(asked(roles, OPERATOR, save))
    roles.instance.report_run_failed(run)
    again = {"parentRunId": run.run_id, "strategy": "ALL_STEPS"}
    assert refused(roles.ask(AGAIN, {"again": again}, **MANAGER))
    assert refused(roles.ask(AGAIN, {"again": {**again, "parentRunId": "none"}}, **MANAGER))
    assert "LaunchRunSuccess" in str(roles.ask(AGAIN, {"again": again}, **OPERATOR))


def test_a_backfill_is_judged_by_its_job_or_its_assets(roles: Site) -> None:
    roles.instance.add_dynamic_partitions("campaigns", ["summer"])
    before = [each.backfill_id for each in roles.instance.get_backfills()]
    for params in (
        {"assetSelection": [{"path": ["winners"]}], "partitionNames": ["summer"]},
        {"partitionsByAssets": [{"assetKey": {"path": ["winners"]}}]},
        {"partitionNames": ["summer"]},
        {
            "selector": {"partitionSetName": "save_entries_partition_set", "repositorySelector": REPOSITORY},
            "allPartitions": True,
        },
    ):
        assert refused(roles.ask(BACKFILL, {"params": params}, **MANAGER)), params
    assert [each.backfill_id for each in roles.instance.get_backfills()] == before


def test_uploads_are_for_those_who_may_launch_something_and_a_file_for_those_who_may_launch_its_job(
    roles: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regworkers_dagster.web.serve.open_page", lambda *_: None)
    viewer = roles.client(address="10.0.0.7", x_forwarded_email="e@example.com", x_forwarded_groups="all")
    assert viewer.put("/uploads/a", content=b"a", headers=FILE).status_code == 403
    assert "none of your groups" in viewer.get("/uploads").text
    receipt, bodies = (
        f"/downloads/{job}/{'0' * 32}/a.json" for job in ("make_receipt", "export_dead_letters")
    )
    assert viewer.get(receipt).status_code == 403
    manager = roles.client(
        address="10.0.0.7", x_forwarded_email="b@example.com", x_forwarded_groups="managers"
    )
    assert manager.get("/uploads").status_code == 200
    assert manager.get(receipt).status_code == 404, "nothing is there, and nothing is refused"
    refused_ = manager.get(bodies)
    assert refused_.status_code == 403 and "may launch export_dead_letters" in refused_.text


ADA, BOB = person("ada", ""), person("bob", "")


def test_a_publication_starts_when_a_second_person_launches_the_same(two: Site) -> None:
    before = two.instance.get_runs_count()
    assert "second person has to launch confirm_draw" in confirm(two, ADA)
    assert "you asked for it yourself" in confirm(two, ADA)
    assert two.instance.get_runs_count() == before
    assert confirm(two, BOB) == "launched"
    assert two.instance.get_runs_count() == before + 1
    # What was confirmed once is not confirmed for good.
    assert "second person" in confirm(two, BOB)
    asked_for, twice, second = two.actions.rows
    assert (asked_for["who"], asked_for["outcome"]) == ("ada@example.com", "done")
    assert asked_for["result"] == {"secondPerson": "bob@example.com"}
    assert (twice["who"], twice["outcome"]) == ("ada@example.com", "failed")
    assert (second["who"], second["outcome"]) == ("bob@example.com", "running")


def test_the_second_person_confirms_that_very_config(two: Site) -> None:
    assert "second person" in confirm(two, ADA, "spring:1")
    assert "second person" in confirm(two, BOB, "summer:1")
    # The same config in other words.
    params = {"selector": CONFIRM, "runConfigData": "ops: {publish: {config: {confirm: 'spring:1'}}}"}
    found = two.ask(LAUNCH, {"params": params}, **BOB)["data"]["launchRun"]
    assert found["__typename"] == "LaunchRunSuccess"


def test_another_spelling_of_a_name_is_no_second_person(two: Site) -> None:
    assert "second person" in confirm(two, ADA)
    assert "you asked for it yourself" in confirm(two, person("ADA", ""))
    operators, names = Operators(WebSettings(**PROXY)), set[str]()
    for name in ("zo\u00eb", "ZO\u00cb", "zoe\u0308", "\uff5ao\u00eb"):
        headers = [(b"x-forwarded-email", name.encode())]
        found = operators.who(HTTPConnection({"type": "http", "headers": headers, "client": ("10.0.0.7", 1)}))
        names.add(found.name if found else "")
    assert names == {"zo\u00eb"}


def test_a_correction_needs_two_people_once_it_is_applied(two: Site) -> None:
    amend = {**REPOSITORY, "jobName": "amend_campaign"}
    config: dict[str, Any] = {"campaign_id": "summer", "name": "Summer"}
    assert asked(two, ADA, amend, config)["__typename"] == "LaunchRunSuccess", "a preview"
    applied = {**config, "apply": True}
    assert "second person has to launch amend_campaign" in str(asked(two, ADA, amend, applied))
    assert "you asked for it yourself" in str(asked(two, ADA, amend, applied))
    assert asked(two, BOB, amend, applied)["__typename"] == "LaunchRunSuccess"


def test_what_confirms_nothing_and_other_jobs_need_one_person(two: Site) -> None:
    assert asked(two, ADA, CONFIRM)["__typename"] == "LaunchRunSuccess"
    assert asked(two, ADA, SELECTOR)["__typename"] == "LaunchRunSuccess"


def test_one_person_cannot_confirm_by_a_trick(two: Site) -> None:
    config = {"ops": {"publish": {"config": {"confirm": "spring:1"}}}}
    params = {"selector": CONFIRM, "runConfigData": config}
    twice = """mutation ($p: ExecutionParams!) { one: launchRun(executionParams: $p) { __typename }
      two: launchPipelineExecution(executionParams: $p) { __typename } }"""
    found = two.ask(twice, {"p": params}, **ADA)["data"]
    assert {each["__typename"] for each in found.values()} == {"PythonError"}
    bulk = """mutation ($p: ExecutionParams!) { launchMultipleRuns(executionParamsList: [$p, $p]) {
      __typename ... on PythonError { message } } }"""
    assert "not in bulk" in str(two.ask(bulk, {"p": params}, **BOB))
    relaunch = """mutation ($p: ExecutionParams!) { launchPipelineReexecution(executionParams: $p) {
      __typename ... on PythonError { message } } }"""
    assert "never as a repeat" in str(two.ask(relaunch, {"p": params}, **BOB))

    assert confirm(two, BOB) == "launched"
    run = two.instance.get_runs(limit=1)[0]
    two.instance.report_run_failed(run)
    again = {"parentRunId": run.run_id, "strategy": "ALL_STEPS"}
    assert "never as a repeat" in str(two.ask(AGAIN, {"again": again}, **ADA))


def test_without_the_audit_log_nothing_is_confirmed(two: Site) -> None:
    two.actions.gate.down = True
    assert "could not be recorded" in confirm(two, ADA)


def test_the_first_launch_holds_for_the_time_of_the_setting(runtime: Runtime) -> None:
    actions, what = runtime.operator_actions, "ui two people"
    actions.begins(what, "confirm_draw 1", {}, who="ada")
    assert actions.join(what, "confirm_draw 1", who="bob", within_seconds=-1.0) is None
    assert actions.join(what, "confirm_draw 2", who="bob", within_seconds=60.0) is None
    assert actions.join(what, "confirm_draw 1", who="ada", within_seconds=60.0) == "ada"
    assert actions.join(what, "confirm_draw 1", who="bob", within_seconds=60.0) == "ada"
    assert actions.join(what, "confirm_draw 1", who="eve", within_seconds=60.0) is None
    (row,) = actions.history(what=what)
    assert (row.who, row.outcome, row.result) == ("ada", "done", {"secondPerson": "bob"})


def test_two_people_who_ask_at_the_same_moment_have_one_launch(runtime: Runtime) -> None:
    actions, of = runtime.operator_actions, ("ui two people", "top_up 1")
    for who in ("ada", "bob"):
        actions.begins(*of, {}, who=who)
    assert actions.join(*of, who="bob", within_seconds=60.0) == "ada"
    assert actions.join(*of, who="ada", within_seconds=60.0) is None


def test_a_manager_launches_every_job_of_the_page_for_managers() -> None:
    page = (PROJECT_ROOT / "docs" / "campaigns.md").read_text(encoding="utf-8")
    named = {job for job in tags_of_jobs() if f"`{job}`" in page}
    assert named - managers_jobs() == {"erase_entry", "log_campaigns"} and managers_jobs() <= named


@pytest.mark.parametrize(
    "settings",
    [
        {"groups_header": "X-G", "groups": GROUPS},
        {"two_people": ("confirm_draw",)},
        {**PROXY, "groups": GROUPS},
        {**PROXY, "groups_header": "X-G"},
        {**PROXY, "groups_header": "X-G", "groups": {"manager": ("m",)}},
        {**PROXY, "groups_header": "X-G", "groups": {**GROUPS, "admin": ("a",)}},
        {**PROXY, "two_people": ("draw",)},
    ],
)
def test_settings_that_would_give_everyone_all_rights_or_none_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        WebSettings(**settings)


def test_a_role_with_a_job_that_does_not_exist_is_refused_at_the_start() -> None:
    refuse_unknown_jobs(WebSettings())
    with pytest.raises(UsageError, match="viewer has drawn, and there is no such job"):
        refuse_unknown_jobs(WebSettings(jobs={"viewer": ("draw", "drawn")}))
