"""Settings: where each value comes from, and an error that says which key, which value and where."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import orjson
import pytest
import yaml

from fairdraw.terms import QUICKNET
from regworkers_core.cli import main
from regworkers_core.domain.claim import WRITE_GRACE_SECONDS
from regworkers_core.domain.reasons import UsageError
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT, config_file, documents, load_settings, masked
from regworkers_core.settings.connections import MongoSettings
from regworkers_core.settings.documents import stack_state_file
from tests.support.beacon import CHAIN_TEXT, OWN
from tests.support.terminal import regworkers

SECRETS = {
    "REGWORKERS_AWS__ACCESS_KEY_ID": "AKIA-hidden",
    "REGWORKERS_AWS__SECRET_ACCESS_KEY": "hidden-key",
    "REGWORKERS_AWS__SESSION_TOKEN": "hidden-token",
    "REGWORKERS_MONGO__URI": "mongodb://user:hidden@mongo.example.com/",
    "REGWORKERS_REDIS__URL": "redis://:hidden@redis.example.com/0",
    "REGWORKERS_KAFKA__OPTIONS": '{"sasl.password": "hidden"}',
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing set, and no embedded stack."""
    for name in list(os.environ):
        if name.startswith("REGWORKERS_") and not name.startswith("REGWORKERS_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("CONFIG_ENV", raising=False)
    monkeypatch.setenv("REGWORKERS_LOCAL_DIR", str(tmp_path / "local"))


def use_config(monkeypatch: pytest.MonkeyPatch, folder: Path, document: Any) -> Path:
    """A configuration of local-dev with this content (text is written as it is)."""
    path = folder / "local-dev.config.yml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    monkeypatch.setenv("REGWORKERS_CONFIG_DIR", str(folder))
    return path


def write_state(content: bytes) -> Path:
    path = stack_state_file()
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def complaint() -> str:
    with pytest.raises(UsageError) as caught:
        load_settings()
    return str(caught.value)


# Files


@pytest.mark.parametrize("name", ["local-dev", "qa", "preprod", "prod"])
def test_each_environment_has_a_file_that_loads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONFIG_ENV", name)
    settings = load_settings()
    assert settings.environment == name
    assert settings.sensors_on is (name == "local-dev")
    assert settings.resource_prefix == ("" if name == "local-dev" else f"{name}-")
    assert settings.names.demand_table == f"{settings.resource_prefix}demand-table"
    # What a killed drain held is free in time for an entry to arrive within 8 s.
    held = (settings.save.visibility_seconds, settings.analytics.visibility_seconds)
    assert max(*held, settings.enqueue.lease_seconds) <= 6


def test_local_dev_is_the_default() -> None:
    assert load_settings().environment == "local-dev"
    assert config_file() == PROJECT_ROOT / "configs" / "local-dev.config.yml"


def test_an_unknown_environment_is_refused_with_those_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONFIG_ENV", "production")
    assert complaint() == (
        "CONFIG_ENV=production is not an environment: choose one of local-dev, qa, preprod, prod"
    )


def test_a_missing_file_names_itself_and_the_variables(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REGWORKERS_CONFIG_DIR", str(tmp_path))
    line = complaint()
    assert str(tmp_path / "local-dev.config.yml") in line
    assert "CONFIG_ENV" in line and "REGWORKERS_CONFIG_DIR" in line


def test_an_installed_wheel_gets_its_settings_once_and_never_over_those_that_exist(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(documents, "_IN_A_REPOSITORY", False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert f"{tmp_path}/regworkers/local-dev.config.yml: no such file" in complaint()
    assert "`regworkers config init`" in complaint()
    written = regworkers(None, "config", "init", "--format", "json").document
    assert written["folder"] == f"{tmp_path}/regworkers" and len(written["files"]) == 4
    for name in written["files"]:
        monkeypatch.setenv("CONFIG_ENV", name.partition(".")[0])
        assert load_settings().environment == os.environ["CONFIG_ENV"]
    config_file("prod").unlink()
    config_file().write_text("edited")
    again = regworkers(None, "config", "init")
    assert again.code == 2 and f"there is already {tmp_path}/regworkers/" in again.stderr
    assert config_file().read_text() == "edited" and not config_file("prod").exists()


@pytest.mark.parametrize(
    ("module", "in_a_repository", "found"),
    [
        ("pandas", True, "run `make setup`"),
        ("pandas", False, "run `pip install 'regworkers[reports]'`"),
        ("dagster_aws.s3", False, "run `pip install 'regworkers[production]'`"),
        ("numpy", False, "run `pip install 'regworkers[draw,reports]'`"),
    ],
)
def test_a_module_that_is_not_installed_names_the_extra_that_has_it(
    monkeypatch: pytest.MonkeyPatch, module: str, in_a_repository: bool, found: str
) -> None:
    monkeypatch.setattr(documents, "_IN_A_REPOSITORY", in_a_repository)
    monkeypatch.setattr(main, "build", mock.Mock(side_effect=ModuleNotFoundError(name=module)))
    assert regworkers(None, "doctor").stderr.splitlines()[-1] == (
        f"regworkers: {module} is not installed: {found}"
    )


@pytest.mark.parametrize(
    ("document", "found"),
    [("save: [1\nretry: {", "not valid YAML in line"), ("- a\n- b\n", "should hold a mapping")],
)
def test_a_file_that_is_no_configuration_names_itself(
    document: str, found: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = use_config(monkeypatch, tmp_path, document)
    assert complaint().startswith(f"{path}: {found}")


# TLS


PLAIN = [
    (
        "REGWORKERS_MONGO__URI",
        "mongodb://u:hidden@db.example.com:27017/x",
        "mongo.uri",
        "mongodb://db.example.com:27017",
    ),
    (
        "REGWORKERS_MONGO__URI",
        "mongodb+srv://u:hidden@db.example.com/?tls=false",
        "mongo.uri",
        "mongodb+srv://",
    ),
    ("REGWORKERS_MONGO__URI", "mongodb://127.0.0.1,db.example.com/", "mongo.uri", "db.example.com"),
    (
        "REGWORKERS_REDIS__URL",
        "redis://:hidden@redis.example.com/0",
        "redis.url",
        "redis://redis.example.com",
    ),
    (
        "REGWORKERS_KAFKA__OPTIONS",
        '{"security.protocol": "PLAINTEXT"}',
        "kafka.bootstrap",
        "kafka.example.com:9092",
    ),
    (
        "REGWORKERS_SERVICES__USER__BASE_URL",
        "http://users.example.com/v1",
        "services.user.baseUrl",
        "http://users",
    ),
    ("REGWORKERS_VAULT__ADDRESS", "http://vault.example.com", "vault.address", "http://vault.example.com"),
    ("REGWORKERS_AWS__ENDPOINT_URL", "http://aws.example.com", "aws.endpointUrl", "http://aws.example.com"),
    ("REGWORKERS_DAGSTER__URL", "http://[2001:db8::1]:3000", "dagster.url", "http://[2001:db8::1]:3000"),
    (
        "REGWORKERS_ALERTS__SLACK_WEBHOOK",
        "http://hooks.example.com/hidden",
        "alerts.slackWebhook",
        "http://hooks",
    ),
    (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "http://collector.example.com:4318",
        "OTLP",
        "http://collector.example.com",
    ),
    # The exporters and botocore take these before our own.
    (
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "http://collector.example.com:4318",
        "OTLP",
        "http://collector.example.com",
    ),
    ("AWS_ENDPOINT_URL_S3", "http://s3.example.com", "AWS", "http://s3.example.com"),
    # A name, not an address of this machine.
    ("REGWORKERS_VAULT__ADDRESS", "http://127.0.0.1.example.com", "vault.address", "http://127.0.0.1"),
    # MongoDB's driver also separates options by semicolons.
    (
        "REGWORKERS_MONGO__URI",
        "mongodb+srv://u:hidden@db.example.com/?w=majority;tls=false",
        "mongo.uri",
        "mongodb+srv://",
    ),
    ("REGWORKERS_MONGO__URI", "mongodb://u:hidden@db.example.com/?TLS=false", "mongo.uri", "mongodb://db"),
]


@pytest.mark.parametrize(("variable", "value", "setting", "shown"), PLAIN)
def test_outside_local_dev_an_address_without_tls_is_refused_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, setting: str, shown: str
) -> None:
    monkeypatch.setenv("REGWORKERS_KAFKA__BOOTSTRAP", "kafka.example.com:9092")
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("CONFIG_ENV", "local-dev")
    load_settings()
    monkeypatch.setenv("CONFIG_ENV", "prod")
    line = complaint()
    assert variable in line or "kafka" in line
    assert setting in line and shown in line and "allowPlaintext" in line and "hidden" not in line
    host = shown.partition("://")[2] or shown
    host = {"http://[2001": "2001:db8::1"}.get(shown[:12], host.partition(":")[0])
    host = {"127.0.0.1": "127.0.0.1.example.com"}.get(host, host)
    # As an operator may write it.
    allowed = sorted({host, "DB.example.com", "users.example.com", "hooks.example.com", "kafka.example.com"})
    monkeypatch.setenv("REGWORKERS_ALLOW_PLAINTEXT", orjson.dumps(allowed).decode())
    load_settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("REGWORKERS_MONGO__URI", "mongodb+srv://u:p@db.example.com/"),
        ("REGWORKERS_MONGO__URI", "mongodb://u:p@a.example.com,b.example.com/?replicaSet=x&tls=true"),
        ("REGWORKERS_MONGO__URI", "mongodb://localhost:27017,127.0.0.2:27018/"),
        ("REGWORKERS_REDIS__URL", "rediss://redis.example.com/0"),
        ("REGWORKERS_KAFKA__OPTIONS", '{"security.protocol": "SASL_SSL"}'),
        ("REGWORKERS_MONGO__URI", "mongodb://u:p@db.example.com/?replicaSet=x;ssl=true"),
        ("REGWORKERS_DAGSTER__URL", "http://[::1]:3000"),
        ("REGWORKERS_DAGSTER__URL", "http://[0:0:0:0:0:0:0:1]:3000"),
        ("REGWORKERS_DAGSTER__URL", "http://dagster-dagster-webserver:3000"),
    ],
)
def test_addresses_with_tls_loopback_and_the_ui_of_the_cluster_are_accepted(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv("CONFIG_ENV", "prod")
    monkeypatch.setenv("REGWORKERS_KAFKA__BOOTSTRAP", "kafka.example.com:9094")
    monkeypatch.setenv(variable, value)
    load_settings()


# Wrong values


WRONG = [
    ({"save": {"visibilitySeconds": "soon"}}, "save.visibilitySeconds", "found 'soon'"),
    ({"save": {"visibilitySeconds": 0}}, "save.visibilitySeconds", "found 0"),
    ({"drain": {"maxSaveDrains": 1.5}}, "drain.maxSaveDrains", "found 1.5"),
    ({"sensorsOn": "perhaps"}, "sensorsOn", "found 'perhaps'"),
    ({"resourcePrefix": "a b"}, "resourcePrefix", "found 'a b'"),
    ({"environment": "moon"}, "environment", "found 'moon'"),
    ({"save": {"visibilitySecond": 3}}, "save.visibilitySecond", "is not a setting"),
    ({"saves": {"visibilitySeconds": 3}}, "saves", "is not a setting"),
    ({"observability": {"cloudwatchLogs": "all"}}, "observability.cloudwatchLogs", "remove it; the agent"),
    ({"save": 7}, "save", ""),
]


@pytest.mark.parametrize(("document", "key", "found"), WRONG, ids=[str(row[0]) for row in WRONG])
def test_a_wrong_value_in_the_file_is_one_line_with_file_key_and_value(
    document: dict[str, Any], key: str, found: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = use_config(monkeypatch, tmp_path, document)
    line = complaint()
    assert line.startswith(f"{path}: {key}") and found in line
    assert "\n" not in line


def test_a_wrong_value_in_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGWORKERS_SAVE__VISIBILITY_SECONDS", "soon")
    line = complaint()
    assert line.startswith(
        "environment variable REGWORKERS_SAVE__VISIBILITY_SECONDS: save.visibilitySeconds:"
    )
    assert "found 'soon'" in line


def test_every_wrong_key_has_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_config(monkeypatch, tmp_path, {"save": {"concurrency": 0}, "retry": {"attempts": "many"}})
    lines = complaint().splitlines()
    assert ["save.concurrency" in line for line in lines] != ["retry.attempts" in line for line in lines]
    assert len(lines) == 2


def test_a_wrong_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_config(monkeypatch, tmp_path, {"aws": {"accessKeyId": 12345678}})
    line = complaint()
    assert "aws.accessKeyId" in line and "12345678" not in line


# The environment


def test_the_environment_wins_over_one_nested_key_and_leaves_its_neighbours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_config(monkeypatch, tmp_path, {"save": {"visibilitySeconds": 11, "concurrency": 3}})
    monkeypatch.setenv("REGWORKERS_SAVE__VISIBILITY_SECONDS", "7")
    save = load_settings().save
    assert (save.visibility_seconds, save.concurrency) == (7, 3)


def test_the_environment_wins_over_the_file_and_the_file_over_the_embedded_stack(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_state(
        orjson.dumps({"aws": "http://a", "mongo": "mongodb://m", "redis": "redis://r", "kafka": "k:1"})
    )
    assert load_settings().aws.endpoint_url == "http://a"
    use_config(monkeypatch, tmp_path, {"aws": {"endpointUrl": "http://file"}})
    settings = load_settings()
    assert (settings.aws.endpoint_url, settings.kafka.bootstrap) == ("http://file", "k:1")
    monkeypatch.setenv("REGWORKERS_AWS__ENDPOINT_URL", "http://environment")
    assert load_settings().aws.endpoint_url == "http://environment"


def test_a_service_of_aws_may_have_an_address_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGWORKERS_AWS__ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("REGWORKERS_AWS__ENDPOINTS__SQS", "http://127.0.0.1:2")
    clients = Runtime(load_settings()).aws
    addresses = {name: clients.client(name).meta.endpoint_url for name in ("sqs", "dynamodb")}
    assert addresses == {"sqs": "http://127.0.0.1:2", "dynamodb": "http://127.0.0.1:1"}


def test_an_address_for_a_service_that_the_workers_do_not_use_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REGWORKERS_AWS__ENDPOINTS", '{"dynamo": "http://127.0.0.1:2"}')
    text = complaint()
    assert "aws.endpoints.dynamo" in text and "'dynamodbstreams'" in text


def test_the_embedded_stack_is_for_local_dev_only(monkeypatch: pytest.MonkeyPatch) -> None:
    write_state(orjson.dumps({"aws": "http://a", "mongo": "m", "redis": "r", "kafka": "k"}))
    monkeypatch.setenv("CONFIG_ENV", "prod")
    settings = load_settings()
    assert settings.aws.endpoint_url is None and settings.mongo.uri is None


# Secrets


def test_secrets_are_masked_and_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.mongo.uri is not None
    assert settings.mongo.uri.get_secret_value() == SECRETS["REGWORKERS_MONGO__URI"]
    shown = masked(settings)
    assert shown["mongo"]["uri"] == shown["redis"]["url"] == shown["aws"]["secretAccessKey"] == "***"
    assert shown["aws"]["sessionToken"] == "***"
    assert shown["kafka"]["options"] == {"sasl.password": "***"}
    for text in (orjson.dumps(shown).decode(), repr(settings), str(settings)):
        assert "hidden" not in text
    assert shown["save"]["visibilitySeconds"] == settings.save.visibility_seconds
    assert shown["sensorsOn"] is True


def test_a_session_token_without_its_keys_and_half_a_pair_of_keys_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REGWORKERS_AWS__SESSION_TOKEN", "hidden")
    assert "sessionToken goes with accessKeyId and secretAccessKey" in complaint()
    monkeypatch.setenv("REGWORKERS_AWS__ACCESS_KEY_ID", "hidden")
    said = complaint()
    assert "accessKeyId and secretAccessKey go together" in said and "hidden" not in said


# The four services


def test_the_environment_wins_over_a_single_field_of_a_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_config(monkeypatch, tmp_path, {"services": {"user": {"tokenSecret": "a", "baseUrl": "http://file"}}})
    monkeypatch.setenv("REGWORKERS_SERVICES__USER__BASE_URL", "https://environment/api")
    user = load_settings().services.user
    assert (user.base_url, user.token_secret) == ("https://environment/api", "a")


def test_the_embedded_stack_serves_all_four_each_under_its_name() -> None:
    state = {"aws": "http://a", "mongo": "m", "redis": "r", "kafka": "k"}
    path = write_state(orjson.dumps({**state, "services": "http://s"}))
    services = load_settings().services
    assert [each.base_url for each in (services.entry, services.user, services.code, services.campaign)] == [
        "http://s/entry",
        "http://s/user",
        "http://s/code",
        "http://s/campaign",
    ]
    path.write_bytes(orjson.dumps(state))
    assert load_settings().services.user.base_url == "", "a stack without them"


@pytest.mark.parametrize("environment", ["qa", "preprod", "prod"])
def test_every_environment_names_the_secrets_of_its_tokens_and_no_address(
    environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONFIG_ENV", environment)
    services = load_settings().services
    for name in ("entry", "user", "code", "campaign"):
        service = getattr(services, name)
        assert (service.base_url, service.token_secret) == ("", f"service-token/{name}")


def test_a_token_is_masked_and_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGWORKERS_SERVICES__USER__TOKEN", "hidden")
    settings = load_settings()
    assert settings.services.user.token is not None
    assert masked(settings)["services"]["user"]["token"] == "***"
    assert "hidden" not in orjson.dumps(masked(settings)).decode() + repr(settings)


@pytest.mark.parametrize(
    "url", ["ftp://host", "host:80", "http://user:hidden@host", "http://host?key=hidden", "http://"]
)
def test_an_address_is_a_plain_http_url_and_a_wrong_one_is_not_shown(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGWORKERS_SERVICES__USER__BASE_URL", url)
    line = complaint()
    assert "REGWORKERS_SERVICES__USER__BASE_URL: services.user.baseUrl" in line and "hidden" not in line


# The embedded stack


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"{}", orjson.dumps({"aws": "http://a", "mongo": "m"})]
)
def test_a_damaged_state_file_names_itself_and_the_way_out(content: bytes) -> None:
    path = write_state(content)
    line = complaint()
    assert str(path) in line and "regworkers local up" in line and "\n" not in line


def test_without_a_stack_local_dev_says_how_to_start_it_and_never_asks_the_real_aws() -> None:
    with pytest.raises(UsageError, match="regworkers local up"):
        Runtime.load().probe("dynamodb")


def test_the_terminal_says_so_in_one_line_and_exits_with_2(tmp_path: Path) -> None:
    answer = subprocess.run(
        [Path(sys.executable).parent / "regworkers", "drain", "save", "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "REGWORKERS_LOCAL_DIR": str(tmp_path)},
    )
    assert (answer.returncode, answer.stdout) == (2, "")
    (line,) = answer.stderr.splitlines()
    assert "regworkers local up" in line


@pytest.mark.parametrize("environment", ["qa", "preprod", "prod"])
def test_a_draw_that_would_not_wait_for_late_entries_is_refused_where_fans_register(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environment: str
) -> None:
    monkeypatch.setenv("CONFIG_ENV", environment)
    assert load_settings().selection.write_grace_seconds >= WRITE_GRACE_SECONDS
    monkeypatch.setenv("REGWORKERS_SELECTION__WRITE_GRACE_SECONDS", "29.5")
    said = complaint()
    assert said.startswith(
        "environment variable REGWORKERS_SELECTION__WRITE_GRACE_SECONDS: selection.writeGraceSec"
    )
    assert "should be at least 30" in said and "found 29.5" in said
    monkeypatch.delenv("REGWORKERS_SELECTION__WRITE_GRACE_SECONDS")
    path = tmp_path / f"{environment}.config.yml"
    path.write_text(yaml.safe_dump({"environment": environment, "selection": {"writeGraceSeconds": 1}}))
    monkeypatch.setenv("REGWORKERS_CONFIG_DIR", str(tmp_path))
    assert complaint().startswith(f"{path}: selection.writeGraceSeconds: should be at least 30")


@pytest.mark.parametrize("environment", ["qa", "preprod", "prod"])
def test_a_chain_other_than_quicknet_is_refused_where_fans_register(
    monkeypatch: pytest.MonkeyPatch, environment: str
) -> None:
    monkeypatch.setenv("CONFIG_ENV", environment)
    assert load_settings().selection.beacon.chain == QUICKNET
    beacon = {"other_chain": CHAIN_TEXT, "lead_seconds": 5}
    monkeypatch.setenv("REGWORKERS_SELECTION__BEACON", orjson.dumps(beacon).decode())
    said = complaint()
    assert "selection.beacon.otherChain" in said and "the public chain quicknet and no other" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "beacon, said",
    [
        ({"lead_seconds": 599}, "should be at least 600 with the chain quicknet"),
        ({"other_chain": CHAIN_TEXT, "lead_seconds": 0}, "greater than or equal to 1"),
        ({"other_chain": CHAIN_TEXT + " "}, "should be the text of a chain.json"),
    ],
)
def test_a_lead_that_is_too_short_and_what_is_no_chain_are_refused(
    monkeypatch: pytest.MonkeyPatch, beacon: dict[str, Any], said: str
) -> None:
    monkeypatch.setenv("REGWORKERS_SELECTION__BEACON", orjson.dumps(beacon).decode())
    assert said in complaint()


def test_the_embedded_stack_seeds_draws_by_its_own_beacon() -> None:
    state = {"aws": "http://a", "mongo": "m", "redis": "r", "kafka": "k"}
    path = write_state(orjson.dumps({**state, "beacon": "http://b"}))
    (path.parent / "beacon").mkdir()
    (path.parent / "beacon" / "chain.json").write_text(CHAIN_TEXT)
    beacon = load_settings().selection.beacon
    assert (beacon.urls, beacon.chain, beacon.lead_seconds) == (("http://b",), OWN.chain, 5)
    path.write_bytes(orjson.dumps(state))
    assert load_settings().selection.beacon.chain == QUICKNET


def test_in_local_dev_a_draw_need_not_wait_for_late_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGWORKERS_SELECTION__WRITE_GRACE_SECONDS", "0")
    assert load_settings().selection.write_grace_seconds == 0


def test_calls_to_one_dependency_may_be_repeated_differently(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = {"kafka": {"attempts": 8, "breakerFailures": 5}}
    use_config(monkeypatch, tmp_path, {"retry": {"totalSeconds": 7, "of": own}})
    monkeypatch.setenv("REGWORKERS_RETRY__OF__SERVICE_USER__ATTEMPTS", "1")
    settings = load_settings()
    shown = masked(settings)["retry"]["of"]["kafka"]
    assert (shown["attempts"], shown["totalSeconds"], shown["breakerFailures"]) == (8, 7, 5)
    guard = Runtime(settings).dependency
    attempts = {name: guard(name).policy.attempts for name in ("kafka", "service-user", "mongo")}
    assert attempts == {"kafka": 8, "service-user": 1, "mongo": settings.retry.attempts}
    assert {guard(name).policy.total_seconds for name in attempts} == {7.0}


def test_a_retry_policy_of_an_unknown_dependency_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_config(monkeypatch, tmp_path, {"retry": {"of": {"kafak": {"attempts": 8}}}})
    assert "should be one of cloudwatch, dagster" in complaint()


@pytest.mark.parametrize("arn", ["registration", "arn:aws:iam::123456789012:role/*", "arn:aws:iam::*:role/x"])
def test_a_caller_is_trusted_by_the_arn_of_one_role(monkeypatch: pytest.MonkeyPatch, arn: str) -> None:
    monkeypatch.setenv("REGWORKERS_ELIGIBILITY__TRUSTED_CALLERS", f'["{arn}"]')
    with pytest.raises(UsageError, match=r"eligibility\.trustedCallers.*ARN of one IAM role"):
        load_settings()
    good = "arn:aws:iam::123456789012:role/backends/registration"
    monkeypatch.setenv("REGWORKERS_ELIGIBILITY__TRUSTED_CALLERS", f'["{good}"]')
    assert load_settings().eligibility.trusted_callers == (good,)


def test_a_header_that_names_people_is_believed_from_named_proxies_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REGWORKERS_WEB__OPERATOR_HEADER", "X-Forwarded-Email")
    assert "web.proxies: should be set with operatorHeader" in complaint()
    for everywhere in ('["0.0.0.0/0"]', '["::/0"]', '["proxy.example.com"]'):
        monkeypatch.setenv("REGWORKERS_WEB__PROXIES", everywhere)
        assert "REGWORKERS_WEB__PROXIES" in complaint()
    monkeypatch.setenv("REGWORKERS_WEB__PROXIES", '["10.0.4.0/24", "::1"]')
    monkeypatch.setenv("REGWORKERS_WEB__HOSTS", '["dagster.example.com:443"]')
    assert "web.hosts" in complaint()
    monkeypatch.setenv("REGWORKERS_WEB__HOSTS", '["dagster.example.com"]')
    assert load_settings().web.proxies == ("10.0.4.0/24", "::1")


def test_the_file_of_local_dev_shows_every_address_as_it_would_be_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = (PROJECT_ROOT / "configs" / "local-dev.config.yml").read_text("utf-8")
    shown = "\n".join(re.findall(r"^# {3}(\w+: \{.*\})$", text, re.MULTILINE))
    document = yaml.safe_load(shown)
    use_config(monkeypatch, tmp_path, {"environment": "local-dev", **document})
    settings = load_settings()
    assert settings.mongo.uri and settings.redis.url and settings.kafka.bootstrap and settings.dagster.url
    assert settings.aws.endpoint_url and settings.services.entry.base_url and settings.vault.address
    assert settings.alerts.slack_webhook and settings.alerts.docs_url


@pytest.mark.parametrize("name", ["REGWORKERS_MONGO__URI", "REGWORKERS_REDIS__URL"])
@pytest.mark.parametrize("password", ["p@ssSENT", "SENT/WORD", "p@ssSENT/WORD", "SENT?x", "SENT#x"])
def test_a_password_that_is_not_escaped_is_refused_without_a_part_of_it(
    name: str, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, f"scheme://u:{password}@h:1/0")
    with pytest.raises(UsageError) as refused:
        load_settings()
    assert "percent-encoded" in str(refused.value) and "SENT" not in str(refused.value)


@pytest.mark.parametrize(
    "address", ["mongodb://h:1", "mongodb+srv://u:p%40s%2Fx@h/db?tls=true", "mongodb://u:p@a:1,b:2/?x=y"]
)
def test_an_escaped_one_is_taken(address: str) -> None:
    taken = MongoSettings(uri=address).uri  # type: ignore[arg-type]
    assert taken is not None and taken.get_secret_value() == address
