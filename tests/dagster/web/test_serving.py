"""`regworkers-web`: the options of Dagster's command, and where it listens."""

from __future__ import annotations

import re
from itertools import groupby
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from regworkers_core.domain.reasons import UsageError
from regworkers_core.settings import PROJECT_ROOT
from regworkers_core.settings.operations import WebSettings
from regworkers_dagster.definitions import defs, order_of_jobs, tags_of_jobs
from regworkers_dagster.factories import FOR_TAG, in_a_sentence
from regworkers_dagster.web import serve
from regworkers_dagster.web.serve import command, main, refuse_strangers
from tests.dagster.web.world import REPOSITORY, Site

PROXIED = WebSettings(operator_header="X-User", proxies=("10.0.0.7",))


def test_it_takes_the_command_line_of_dagsters_helm_chart() -> None:
    workspace = str(PROJECT_ROOT / "workspace.yaml")
    line = (
        "-h 0.0.0.0 -p 80 --db-statement-timeout 15000 --db-pool-recycle 3600 "
        "--db-pool-max-overflow 20 --path-prefix /dagster --log-level warning --read-only"
    )
    given = command.make_context("regworkers-web", ["-w", workspace, *line.split()]).params
    assert (given["host"], given["port"], given["path_prefix"], given["read_only"]) == (
        "0.0.0.0",
        80,
        "/dagster",
        True,
    )
    assert given["workspace"] == (workspace,)


LAUNCHPAD = """query ($job: PipelineSelector!) {
  runConfigSchemaOrError(selector: $job) { ... on RunConfigSchema { rootDefaultYaml
    rootConfigType { key ... on CompositeConfigType { fields { name } } } } } }"""


def launchpad(site: Site, job: str) -> Any:
    variables = {"job": {**REPOSITORY, "pipelineName": job}}
    return site.ask(LAUNCHPAD, variables)["data"]["runConfigSchemaOrError"]


def test_a_launchpad_shows_the_fields_of_our_jobs_as_they_are_declared(
    context: Any, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(yaml.safe_load(launchpad(site, "draw")["rootDefaultYaml"])) == ["ops"]
    config = yaml.safe_load(launchpad(site, "top_up")["rootDefaultYaml"])
    assert list(config) == ["capacities", "reason", "confirm", "another"]
    assert config["reason"] == "two\nconfirm: lines"
    # And what they mean, beside it.
    key, names = launchpad(site, "top_up")["rootConfigType"]["key"], ("reason", "capacities", "another")
    monkeypatch.setattr(serve, "order_of_fields", lambda: {key: names})
    fields = launchpad(Site(context), "top_up")["rootConfigType"]["fields"]
    assert [each["name"] for each in fields] == [*names, "confirm"]


def test_every_page_of_dagster_links_to_the_desk_under_the_policy_that_it_had(context: Any) -> None:
    page = Site(context, prefix="/dagster").client().get("/dagster/runs")
    assert page.text.count('<a href="/dagster/desk"') == 1 and page.text.endswith("</html>")
    (nonce,) = set(re.findall(r'nonce="(\w+)"', page.text))
    assert f"'nonce-{nonce}'" in page.headers["content-security-policy"]


SHOWN = """query ($repository: RepositorySelector!, $job: PipelineSelector!) {
  repositoryOrError(repositorySelector: $repository) { ... on Repository { jobs { name } pipelines { name } } }
  pipelineOrError(params: $job) { ... on Pipeline { tags { key } runTags { key } } } }"""


def test_the_list_of_jobs_begins_with_the_pipeline_and_no_job_shows_its_pod(
    context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "order_of_jobs", lambda: ("top_up", "draw"))
    variables = {"repository": REPOSITORY, "job": {**REPOSITORY, "pipelineName": "top_up"}}
    found = Site(context).ask(SHOWN, variables)["data"]
    for kind in ("jobs", "pipelines"):
        names = [each["name"] for each in found["repositoryOrError"][kind]]
        assert names[:2] == ["top_up", "draw"] and names[2:] == sorted(names[2:])
    keys = {each["key"] for kind in ("tags", "runTags") for each in found["pipelineOrError"][kind]}
    assert keys == {"shown"}


def test_pipeline_managers_on_call_and_system_follow_each_other() -> None:
    order = order_of_jobs()
    assert order[:3] == ("enqueue_entries", "save_entries", "draw") and {*order} == {*tags_of_jobs()}
    who = [tags_of_jobs()[name][FOR_TAG] for name in order[order.index("create_campaign") :]]
    assert [each for each, _ in groupby(who)] == ["manager", "on-call", "system"]
    descriptions = [str(defs.resolve_job_def(name).description) for name in order]
    assert [text for text in descriptions if in_a_sentence(text) != text or not text.endswith(".")] == []


def test_by_default_it_listens_on_this_machine_alone() -> None:
    given = command.make_context("regworkers-web", []).params
    assert given["host"] == "127.0.0.1"
    refuse_strangers(given["host"], WebSettings(), read_only=False)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.5", "::1"])
def test_no_login_is_needed_where_only_this_machine_reaches_it(host: str) -> None:
    refuse_strangers(host, WebSettings(), read_only=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "dagster.example.com"])
def test_it_does_not_listen_for_others_without_a_login_in_front(host: str) -> None:
    with pytest.raises(UsageError, match=r"web\.operatorHeader"):
        refuse_strangers(host, WebSettings(), read_only=False)
    refuse_strangers(host, PROXIED, read_only=False)
    refuse_strangers(host, WebSettings(), read_only=True)


def test_wrong_use_is_a_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve, "load_settings", lambda: SimpleNamespace(web=WebSettings()))
    monkeypatch.setattr("sys.argv", ["regworkers-web", "--host", "0.0.0.0"])
    for home, line in ((None, "DAGSTER_HOME is not set"), ("/home", "at 0.0.0.0 every machine")):
        if home is None:
            monkeypatch.delenv("DAGSTER_HOME", raising=False)
        else:
            monkeypatch.setenv("DAGSTER_HOME", home)
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 2
        assert capsys.readouterr().err.startswith(f"regworkers-web: {line}")
