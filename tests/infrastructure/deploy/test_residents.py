"""Drains as Deployments: like the runs that do the same, probed by their heartbeat, and scaled within the settings."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import typer.main

from regworkers_core.cli.main import build
from regworkers_core.flows import DRAINS
from regworkers_core.infrastructure.policies.platform import role_policy
from regworkers_core.infrastructure.policies.statement import place_of
from regworkers_core.observability.metrics import ITERATOR_AGE
from regworkers_core.settings import settings_of
from tests.infrastructure.deploy.pods import jobs, launcher_of_the_chart, manifests, pod_of_a_run
from tools import residents

SETTINGS = settings_of("prod")
RUNS = {spec.name: spec.job for spec in DRAINS if spec.residents}
MANIFESTS = list(manifests())


def of(kind: str) -> dict[str, dict[str, Any]]:
    found = (each for each in MANIFESTS if each["kind"] == kind)
    return {each["metadata"]["name"].removeprefix("regworkers-"): each["spec"] for each in found}


def pod_of(drain: str) -> dict[str, Any]:
    return dict(of("Deployment")[drain]["template"]["spec"])


def trigger_of(drain: str) -> dict[str, Any]:
    (trigger,) = of("ScaledObject")[drain]["triggers"]
    return dict(trigger)


@pytest.mark.parametrize("drain", RUNS)
def test_a_resident_has_account_size_and_confinement_of_the_run_that_does_the_same(
    drain: str, tmp_path: Path
) -> None:
    (job,) = (each for each in jobs() if each.name == RUNS[drain])
    run, resident = pod_of_a_run(job, launcher_of_the_chart(tmp_path)), pod_of(drain)
    for name in ("serviceAccountName", "securityContext", "terminationGracePeriodSeconds"):
        assert resident[name] == run[name], name
    (container,), (of_the_run,) = resident["containers"], run["containers"]
    for name in ("resources", "securityContext", "envFrom"):
        assert container[name] == of_the_run[name], name
    assert {"name": "HOME", "value": "/tmp"} in container["env"]
    assert resident["volumes"] == [{"name": "tmp", "emptyDir": {}}]


@pytest.mark.parametrize("drain", RUNS)
def test_its_command_is_one_of_the_command_line(drain: str) -> None:
    program, group, *words = pod_of(drain)["containers"][0]["command"]
    assert program == "regworkers"
    command = typer.main.get_command(build()).commands[group].commands[words[0]]  # type: ignore[attr-defined]
    given = command.make_context(words[0], words[1:]).params
    assert words[0] == drain and given["stay"] and str(given["beat_file"]) == "/tmp/beat"


@pytest.mark.parametrize(("probe", "good", "bad"), [("readiness", 5, 20), ("liveness", 250, 350)])
def test_a_probe_looks_at_the_age_of_the_last_heartbeat(
    probe: str, good: int, bad: int, tmp_path: Path
) -> None:
    beat = tmp_path / "beat"
    for drain in RUNS:
        (container,) = pod_of(drain)["containers"]
        words = [
            each.replace("/tmp/beat", str(beat)) for each in container[f"{probe}Probe"]["exec"]["command"]
        ]

        def succeeds(age: float | None, words: list[str] = words) -> bool:
            beat.unlink(missing_ok=True)
            if age is not None:
                beat.touch()
                os.utime(beat, (time.time() - age, time.time() - age))
            return subprocess.run(words, capture_output=True, check=False).returncode == 0

        assert [succeeds(good), succeeds(bad), succeeds(None)] == [True, False, False]


def test_it_waits_for_a_dependency_in_its_pod_and_not_in_a_restarted_one() -> None:
    for drain in RUNS:
        (container,) = pod_of(drain)["containers"]
        (seconds,) = (
            each["value"] for each in container["env"] if each["name"] == "REGWORKERS_DRAIN__OUTAGE_SECONDS"
        )
        assert float(seconds) > 300 > SETTINGS.drain.outage_seconds


def test_the_files_are_what_the_specs_and_settings_say() -> None:
    for name, text in residents.manifests(SETTINGS).items():
        assert (residents.FOLDER / name).read_text(encoding="utf-8") == text, "run make deploy-files"


def test_every_trigger_asks_under_the_role_of_kedas_operator() -> None:
    assert of("TriggerAuthentication") == {"scaling": {"podIdentity": {"provider": "aws"}}}
    assert {trigger_of(drain)["authenticationRef"]["name"] for drain in RUNS} == {"regworkers-scaling"}


def test_the_stream_is_measured_by_the_metric_that_its_sensor_publishes() -> None:
    trigger = trigger_of("enqueue")
    assert (trigger["type"], trigger["metricType"]) == ("aws-cloudwatch", "AverageValue")
    given = trigger["metadata"]
    dimensions = dict(zip(given["dimensionName"].split(";"), given["dimensionValue"].split(";"), strict=True))
    assert dimensions == {"Environment": SETTINGS.environment, "TableName": SETTINGS.names.demand_table}
    assert given["namespace"] == SETTINGS.observability.cloudwatch_namespace
    assert given["metricName"] == ITERATOR_AGE.name
    assert (ITERATOR_AGE.unit, given["awsRegion"]) == ("Milliseconds", SETTINGS.aws.region)
    assert float(given["targetMetricValue"]) * 2 == SETTINGS.replication.lag_objective_seconds * 1000


def test_the_policy_of_the_operator_allows_what_its_triggers_ask() -> None:
    place = place_of(SETTINGS, account="123456789012", log_bucket="")
    allowed = {
        (action, resource)
        for statement in role_policy("scaling", place)["Statement"]
        for action in statement["Action"]
        for resource in statement["Resource"]
    }
    urls = [trigger_of(drain)["metadata"].get("queueURL") for drain in RUNS]
    queues = {url.rpartition("/")[2] for url in urls if url}
    region = SETTINGS.aws.region
    assert allowed == {("cloudwatch:GetMetricData", "*")} | {
        ("sqs:GetQueueAttributes", f"arn:aws:sqs:{region}:123456789012:{queue}") for queue in queues
    }
