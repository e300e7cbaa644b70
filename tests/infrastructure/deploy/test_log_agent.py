"""The agent of deploy/kubernetes/logs.yaml: which files it reads, and that a line arrives as the workers wrote it.

Where Fluent Bit can be had (`fluent-bit` on the path, or REGWORKERS_TEST_FLUENT_BIT), it is started with that file.
"""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
import structlog
import yaml

from regworkers_core.infrastructure.policies.platform import ROLES, WORKERS
from regworkers_core.observability.logs import Passed, bind, configure_logging, entries_passed
from regworkers_core.operations.cloudwatch import parse
from regworkers_core.operations.health.sources import POD_STREAMS
from regworkers_core.settings import PROJECT_ROOT, settings_of
from tests.support.certificates import Authority
from tests.support.fault_proxy import free_port
from tests.support.shared import shared_namespace
from tests.support.tls_proxy import TlsProxy
from tests.support.waiting import wait_until

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
    actions = {action for statement in policy.statements for action in statement.actions}
    assert actions == {"logs:CreateLogStream", "logs:PutLogEvents"}


def test_the_agent_itself_starts_and_delivers_lines_as_they_were_written(
    manifest: dict[str, Any], tmp_path: Path
) -> None:
    program = os.environ.get("REGWORKERS_TEST_FLUENT_BIT") or shutil.which("fluent-bit")
    if not program:
        pytest.skip("there is no fluent-bit here")
    authority, port = Authority(), free_port(str(tmp_path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (tmp_path / "server.pem").write_text(authority.server().bundle)
    context.load_cert_chain(tmp_path / "server.pem")
    containers, state = tmp_path / "containers", tmp_path / "state"
    containers.mkdir()
    state.mkdir()
    long = orjson.dumps({"event": "long", "text": "x" * 20_000}).decode()
    lines = [
        '2026-11-26T18:00:00.000000001Z stderr F {"event": "entry saved"}',
        f"2026-11-26T18:00:00.000000002Z stderr P {long[:16_384]}",
        f"2026-11-26T18:00:00.000000003Z stderr F {long[16_384:]}",
    ]
    for pod in ("run-1_regworkers_dagster-4f1d", "regworkers-logs-1_regworkers_fluent-bit-12ab"):
        (containers / f"{pod}.log").write_text("\n".join(lines) + "\n")
    # The file as it is: only places on this machine are others, and where CloudWatch is.
    config = manifest["ConfigMap"]["data"]["fluent-bit.yaml"]
    config = config.replace("/var/log/containers", str(containers)).replace("/var/fluent-bit", str(state))
    here = (
        f"endpoint: 127.0.0.1\n          port: {port}\n          tls.verify: off\n          log_group_name:"
    )
    config = config.replace("log_group_name:", here.replace("          ", " " * 6))
    (tmp_path / "fluent-bit.yaml").write_text(config)
    with shared_namespace() as runtime:
        logs, group = runtime.aws.client("logs"), runtime.names.log_group
        proxy = TlsProxy(port, int(urlsplit(logs.meta.endpoint_url).port or 0), context)
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        environment = {**os.environ, **keys, "AWS_REGION": "us-east-1", "LOG_GROUP": group}
        agent = subprocess.Popen(
            [program, "-c", str(tmp_path / "fluent-bit.yaml")],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:

            def arrived() -> list[dict[str, Any]]:
                assert agent.poll() is None, agent.stdout and agent.stdout.read()
                found: list[dict[str, Any]] = logs.filter_log_events(logGroupName=group)["events"]
                return found if len(found) >= 2 else []

            events = wait_until(arrived, what="both lines")
        finally:
            agent.terminate()
            agent.communicate(timeout=30)
            proxy.close()
    assert sorted(event["message"] for event in events) == sorted(['{"event": "entry saved"}', long])
    assert {event["logStreamName"].startswith(POD_STREAMS) for event in events} == {True}
    assert all("regworkers-logs" not in event["logStreamName"] for event in events)


def test_the_doctor_looks_for_lines_in_the_streams_of_the_agent(pipeline: dict[str, Any]) -> None:
    (output,) = pipeline["outputs"]
    assert output["log_stream_prefix"] == POD_STREAMS, "Fluent Bit takes an empty prefix for none and ends"
