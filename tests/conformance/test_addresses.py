"""Where suites and demo find second servers: addresses of test runs and the settings of an operator."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime
from regworkers_core.settings import load_settings
from regworkers_core.settings.documents import stack_state_file
from regworkers_local.servers import SERVERS
from tests.conformance import __main__ as conformance
from tests.conformance import servers
from tests.support.runtimes import ADDRESSES, AWS_ENDPOINTS, NO_SERVERS, test_settings
from tools.demo.__main__ import given_by
from tools.demo.__main__ import servers as servers_of

ELSEWHERE, QUEUES = "http://127.0.0.1:1", "http://127.0.0.1:2"


def test_addresses_of_dynamodb_and_its_streams_reach_the_clients_of_these_two_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = {"dynamodb": ELSEWHERE, "dynamodbstreams": ELSEWHERE}
    monkeypatch.setenv(AWS_ENDPOINTS, json.dumps(given))
    # None of them is called.
    monkeypatch.delenv(NO_SERVERS, raising=False)
    for variable in ADDRESSES.values():
        monkeypatch.setenv(variable, QUEUES)
    monkeypatch.setattr("tests.support.runtimes.redis_url", lambda _prefix, url: url)
    aws = Runtime(test_settings("t-")).aws
    services = ("dynamodb", "dynamodbstreams", "sqs", "s3", "cloudwatch", "logs")
    found = {name: aws.client(name).meta.endpoint_url for name in services}
    assert found == {name: given.get(name, QUEUES) for name in services}


def test_the_demo_gets_servers_as_settings_and_its_stack_gives_up_kafka_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    @contextmanager
    def kafka(folder: Path) -> Iterator[Mapping[str, str]]:
        yield {ADDRESSES["kafka"]: "127.0.0.1:3", "REGWORKERS_TEST_OTHER": "no setting"}

    @contextmanager
    def elasticmq(folder: Path) -> Iterator[Mapping[str, str]]:
        yield {AWS_ENDPOINTS: json.dumps({"sqs": QUEUES})}

    ran: list[Mapping[str, str]] = []

    def run(command: Sequence[str], variables: Mapping[str, str]) -> int:
        assert command[-2:] == ["--entries", "100"]
        ran.append(variables)
        return 3

    monkeypatch.setenv("REGWORKERS_LOCAL_DIR", str(tmp_path))
    monkeypatch.setenv("KEEP", "1")
    monkeypatch.setattr(conformance, "START", {"apache-kafka": kafka, "elasticmq": elasticmq})
    monkeypatch.setattr(conformance, "RESULTS", tmp_path)
    monkeypatch.setattr(conformance, "fetch", lambda _name: None)
    monkeypatch.setattr(conformance, "_ran", run)
    assert conformance.main(["--java", "--demo", "--entries", "100"]) == 3
    [variables] = ran
    assert variables["KEEP"] == "0" and "REGWORKERS_TEST_OTHER" not in variables
    assert given_by(load_settings()) == set()
    for name in conformance.SETTINGS.values():
        monkeypatch.setenv(name, variables[name])
    given = given_by(load_settings())
    stack, _ = servers_of("default", StopSignal(), given)
    assert set(stack.status()) == SERVERS.keys() - {"kafka"}
    # As its state file has them without Kafka.
    path = stack_state_file()
    path.parent.mkdir()
    path.write_text(json.dumps({name: f"{name}://127.0.0.1:4" for name in ("aws", "mongo", "redis")}))
    settings = load_settings()
    assert settings.kafka.bootstrap == "127.0.0.1:3"
    assert settings.aws.endpoint_of("sqs") == QUEUES
    assert settings.aws.endpoint_of("dynamodb") == "aws://127.0.0.1:4"


def test_without_java_the_target_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(servers.shutil, "which", lambda _program: None)
    assert conformance.main(["--java"]) == 2
    assert "a JRE of version 17 or newer (on Debian: default-jre-headless, maven)" in capsys.readouterr().err
