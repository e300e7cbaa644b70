"""The agent of deploy/kubernetes/logs.yaml: which files it reads, and that a line arrives as the workers wrote it."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Any

import pytest
import structlog
import yaml

from regworkers_core.infrastructure.policies.platform import ROLES, WORKERS
from regworkers_core.observability.logs import Passed, bind, configure_logging, entries_passed
from regworkers_core.operations.logs import parse
from regworkers_core.settings import PROJECT_ROOT, settings_of

# How containerd and CRI-O write a line: time, stream, P(art) or F(ull), text. Fluent Bit's parser `cri` has the same.
_CRI = re.compile(r"^(?P<time>.+?) (?P<stream>stdout|stderr) (?P<flag>[FP]) (?P<log>.*)$")


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    text = (PROJECT_ROOT / "deploy" / "kubernetes" / "logs.yaml").read_text(encoding="utf-8")
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


@pytest.fixture(scope="module")
def pipeline(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(manifest["ConfigMap"]["data"]["fluent-bit.yaml"])["pipeline"]
    return found


def test_the_agent_reads_our_pods_and_neither_others_nor_itself(pipeline: dict[str, Any]) -> None:
    (source,) = pipeline["inputs"]

    def read(file: str) -> bool:
        path = f"/var/log/containers/{file}"
        return fnmatchcase(path, source["path"]) and not fnmatchcase(path, source["exclude_path"])

    assert read("dagster-run-0b7c4f1e-9xk2p_regworkers_dagster-4f1d.log")
    assert read("regworkers-alerts-29400-abcde_regworkers_alerts-77aa.log")
    assert not read("regworkers-logs-zzz9_regworkers_fluent-bit-12ab.log")
    assert not read("mailer-1_other_mailer-77aa.log")


def test_a_line_arrives_as_it_was_written(
    pipeline: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (output,) = pipeline["outputs"]
    structlog.contextvars.clear_contextvars()
    configure_logging()
    bind(runId="r-1", worker="saveEntries")
    entries_passed("entry saved", [Passed("c-1", "summer", 'e "1" ü')], outcome="applied")
    structlog.get_logger("x").error("drain ended", drain="save")
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    written = capsys.readouterr().err.splitlines()
    for text, event in zip(written, ("entry saved", "drain ended"), strict=True):
        record = _CRI.fullmatch(f"2026-11-26T18:00:00.000000001Z stderr F {text}")
        assert record is not None
        arrived = record[output["log_key"]]
        line = parse(arrived, "pod")
        assert arrived == text and line is not None
        assert (line.fields["event"], line.fields["runId"]) == (event, "r-1")


def test_it_writes_to_the_group_of_the_settings_with_a_role_that_may_do_no_more(
    manifest: dict[str, Any], pipeline: dict[str, Any]
) -> None:
    (output,) = pipeline["outputs"]
    pod = manifest["DaemonSet"]["spec"]["template"]["spec"]
    (agent,) = pod["containers"]
    given = {each["name"]: each["value"] for each in agent["env"]}
    assert given["LOG_GROUP"] == settings_of("prod").names.log_group
    assert (output["log_group_name"], output["region"]) == ("${LOG_GROUP}", "${AWS_REGION}")
    account = manifest["ServiceAccount"]["metadata"]
    assert pod["serviceAccountName"] == account["name"] == "regworkers-logs"
    assert account["annotations"]["eks.amazonaws.com/role-arn"].endswith("role/prod-regworkers-logs")
    (policy,) = (worker for worker in WORKERS if (worker.name,) == ROLES["logs"])
    assert policy.actions == {"logs:CreateLogStream", "logs:PutLogEvents"}


def test_lines_are_not_sent_twice_where_the_agent_runs() -> None:
    for environment in ("qa", "preprod", "prod"):
        assert settings_of(environment).observability.cloudwatch_logs == "commands"
