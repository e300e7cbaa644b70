"""A run config in YAML has no aliases: with them a short text means more than any memory holds."""

from __future__ import annotations

from typing import Any

import pytest

from tests.dagster.web.world import LAUNCH, REPOSITORY, SELECTOR, Site

# Two levels: nine would be a billion values.
WITH_ALIASES = "ops: &a [1, 2]\nresources: [*a, *a]\n"
OF_ITSELF = "resources: &a {x: *a}\n"
REFUSED = "without aliases"
PLAN = """query ($job: PipelineSelector!, $config: RunConfigData) {
  executionPlanOrError(pipeline: $job, mode: "default", runConfigData: $config) { __typename } }"""
VALID = """query ($job: PipelineSelector!, $config: RunConfigData) {
  isPipelineConfigValid(pipeline: $job, mode: "default", runConfigData: $config) { __typename } }"""
IN_THE_DOCUMENT = """mutation { launchRun(executionParams: {selector: {repositoryName: "__repository__",
  repositoryLocationName: "location.py", jobName: "draw"}, runConfigData: "resources: &a {x: *a}"}) { __typename } }"""


def errors(answer: dict[str, Any]) -> str:
    return " ".join(each["message"] for each in answer.get("errors", ()))


@pytest.mark.parametrize("text", [WITH_ALIASES, OF_ITSELF], ids=["of another", "of itself"])
def test_a_launch_with_aliases_starts_nothing(text: str, site: Site) -> None:
    before = site.instance.get_runs_count()
    params = {"selector": SELECTOR, "runConfigData": text}
    assert REFUSED in errors(site.ask(LAUNCH, {"params": params}))
    assert REFUSED in errors(site.ask(IN_THE_DOCUMENT))
    assert site.instance.get_runs_count() == before


@pytest.mark.parametrize("query", [PLAN, VALID], ids=["plan", "validation"])
def test_nor_does_a_reader_have_one_judged(query: str, proxied: Site) -> None:
    job = {**REPOSITORY, "pipelineName": "draw"}
    assert REFUSED in errors(proxied.ask(query, {"job": job, "config": WITH_ALIASES}, address="10.0.0.7"))


def test_other_yaml_is_dagsters_to_judge(site: Site) -> None:
    fine = "ops: {nothing: {config: &seats {seats: 7}}}\n"
    answer = site.ask(LAUNCH, {"params": {"selector": SELECTOR, "runConfigData": fine}})
    assert site.run_of(answer["data"]["launchRun"]).run_config == {
        "ops": {"nothing": {"config": {"seats": 7}}}
    }
    none = site.ask(LAUNCH, {"params": {"selector": SELECTOR, "runConfigData": "ops: [1"}})
    assert "errors" not in none and none["data"]["launchRun"]["__typename"] == "PythonError"
