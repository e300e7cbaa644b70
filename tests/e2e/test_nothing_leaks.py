"""A fan's data and secrets stay where they belong: planted, carried through the flows, looked for everywhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from regworkers_core.adapters.mongo.incidents import Incident
from regworkers_core.domain.snapshot import Alert, IncidentChange, Severity
from regworkers_core.operations.alerts.notifier import notifier_of
from regworkers_core.runtime import Runtime
from regworkers_local.load import CAMPAIGNS, DemoData
from tests.dagster.support import job, use
from tests.support.entries import key, put, remove
from tests.support.runtimes import test_settings
from tests.support.terminal import in_a_process
from tools.demo.leaks import FANS, Leak, everywhere, exactly, find_leaks, in_files, unexpected

pytestmark = pytest.mark.slow

FAN = {
    "mail": "planted.fan+1@quixilla-mail.example",
    "first name": "Quixilla-Ženevièva",
    "last name": "Zandervögtsson",
    "globalUserId": "gu-planted-7f3c",
    "memberId": "m-planted-91c4",
    "unit": "household-planted-55",
    "attribute": "planted words of a fan",
}
SECRETS = {
    "AWS key": "planted-aws-key",
    "AWS secret": "planted-aws-secret",
    "MongoDB": "planted-mongo-password",
    "Redis": "planted-redis-password",
    "Kafka": "planted-kafka-password",
    "Slack": "planted-slack-webhook",
    "PagerDuty": "planted-pagerduty-key",
    "token": "planted-service-token",
}
# No server listens there.
_UNREACHABLE = "127.0.0.1:1"


def _entry(runtime: Runtime, entry_id: str, **changes: Any) -> None:
    fields: dict[str, Any] = {
        "email": FAN["mail"],
        "firstName": FAN["first name"],
        "lastName": FAN["last name"],
        "globalUserId": FAN["globalUserId"],
        "memberId": FAN["memberId"],
        "unit": FAN["unit"],
        "attributes": {"source": FAN["attribute"]},
    }
    put(runtime, key(entry_id), **{**fields, **changes})


def _run(instance: dg.DagsterInstance, name: str, op: str | None = None) -> None:
    quick = {"idle_seconds": 0.1, "max_seconds": 20.0}
    config = {} if op is None else {"ops": {op: {"config": quick}}}
    job(name).execute_in_process(instance=instance, run_config=config, raise_on_error=False)


def test_a_fans_data_is_nowhere_but_in_the_table_and_the_replica(
    runtime: Runtime,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    debug = {"REGWORKERS_OBSERVABILITY__LOG_LEVEL": "DEBUG"}
    use(monkeypatch, runtime, REGWORKERS_OBSERVABILITY__CLOUDWATCH_ENABLED="true", **debug)
    _entry(runtime, "e1")
    _entry(runtime, "e2")
    # What fails shows most: fields of a wrong type with a fan's value in them, next to whole ones.
    _entry(runtime, "bad", version=FAN["mail"])
    _entry(runtime, "worse", markets=FAN["unit"], weight=FAN["last name"])
    remove(runtime, key("e2"))
    _run(instance, "enqueue_entries", "enqueue")
    _run(instance, "save_entries", "save")
    _run(instance, "publish_events", "publish")
    _run(instance, "reconcile_entries")
    said = capfd.readouterr()
    for words in (("trace", "summer", "bad"), ("reconcile",), ("doctor",)):
        answer = in_a_process(runtime, *words, **debug)
        said = type(said)(said.out + answer.stdout, said.err + answer.stderr)
    (tmp_path / "terminal.log").write_text(said.out + said.err)

    looked_at: set[str] = set()

    def places() -> Iterator[tuple[str, bytes]]:
        for name, content in everywhere(runtime, tmp_path):
            looked_at.add(name.partition(" ")[0])
            yield name, content

    assert find_leaks(places(), exactly(FAN)) == []
    assert {"file", "queue", "topic", "collection", "lease", "metrics"} <= looked_at
    assert "drain ended" in said.err + said.out, "the logs were looked at"
    dead = runtime.queue(runtime.names.dead_letter_queue(runtime.names.replication_queue))
    assert dead.depth().total >= 1, "something failed, and said so"


@pytest.fixture
def unreachable() -> Runtime:
    """Every service has a secret and none answers: all that is printed then comes from errors."""
    names = ("entry", "user", "code", "campaign")
    service = {"base_url": f"http://{_UNREACHABLE}", "token": SECRETS["token"]}
    return Runtime(
        test_settings(
            "unreachable-",
            aws={
                "endpoint_url": f"http://{_UNREACHABLE}",
                "access_key_id": SECRETS["AWS key"],
                "secret_access_key": SECRETS["AWS secret"],
            },
            mongo={
                "uri": f"mongodb://user:{SECRETS['MongoDB']}@{_UNREACHABLE}",
                "server_selection_timeout_seconds": 0.1,
            },
            redis={"url": f"redis://:{SECRETS['Redis']}@{_UNREACHABLE}/0"},
            kafka={
                "bootstrap": _UNREACHABLE,
                "timeout_seconds": 0.2,
                "options": {
                    "security.protocol": "SASL_PLAINTEXT",
                    "sasl.mechanism": "PLAIN",
                    "sasl.username": "user",
                    "sasl.password": SECRETS["Kafka"],
                },
            },
            services=dict.fromkeys(names, service),
            alerts={
                "slack_webhook": f"http://{_UNREACHABLE}/{SECRETS['Slack']}",
                "pagerduty_url": f"https://{_UNREACHABLE}",
                "pagerduty_routing_key": SECRETS["PagerDuty"],
                "timeout_seconds": 0.2,
            },
            retry={"attempts": 1, "total_seconds": 0.2},
            observability={"log_level": "DEBUG"},
        )
    )


COMMANDS = (
    ("config", "show"),
    ("doctor",),
    ("drain", "save", "--max-seconds", "1"),
    ("reconcile",),
    ("campaign", "cache", "show", "summer"),
    ("service", "check", "user", "--id", "u1"),
    ("certs", "check", "--env", "local-dev"),
    ("provision",),
)


def test_no_error_message_shows_a_secret_when_no_service_answers(
    unreachable: Runtime,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    said = []
    for words in COMMANDS:
        answer = in_a_process(unreachable, *words)
        said += [answer.stdout, answer.stderr]
        assert answer.stdout or answer.stderr, words
    alert = Alert("test:planted", Severity.CRITICAL, "a test", "operating.md")
    incident = Incident(alert, True, 1, "2026-11-25T08:00:00.000Z", "2026-11-25T08:00:00.000Z", None, {})
    notifier_of(unreachable).notify_unrecorded(incident, IncidentChange.OPENED)
    use(monkeypatch, unreachable)
    for name, op in (("save_entries", "save"), ("publish_events", "publish"), ("reconcile_entries", None)):
        _run(instance, name, op)
    captured = capfd.readouterr()
    said += [captured.out, captured.err]
    (tmp_path / "said.log").write_text("\n".join(said))
    assert find_leaks(in_files(tmp_path), exactly(SECRETS)) == []
    assert "***" in said[0], "settings are shown, secrets masked"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("REGWORKERS_KAFKA__OPTIONS", '{"sasl.password": ["planted-kafka-password"]}'),
        ("REGWORKERS_KAFKA__OPTIONS", "planted-kafka-password"),
        ("REGWORKERS_MONGO__URI", "planted-mongo-password"),
        ("REGWORKERS_REDIS__URL", "planted-redis-password"),
        ("REGWORKERS_SERVICES__USER__BASE_URL", "http://me:planted-service-token@host/"),
        ("REGWORKERS_ALERTS__PAGERDUTY_URL", "https://planted-pagerduty-key@host/"),
        ("REGWORKERS_VAULT__ADDRESS", "https://planted-aws-secret@host/"),
    ],
)
def test_a_setting_that_is_refused_is_not_shown_where_it_may_hold_a_secret(variable: str, value: str) -> None:
    answer = in_a_process(None, "doctor", **{variable: value})
    assert answer.code in (1, 2)
    assert "planted" not in answer.stdout + answer.stderr


def test_what_is_planted_is_found_in_every_way_of_writing_it(tmp_path: Path) -> None:
    for name, text in {
        "plain": "ö Zandervögtsson",
        "json": r'{"lastName": "Zanderv\u00f6gtsson"}',
        "address": "/find?name=Zanderv%C3%B6gtsson",
        "clean": "someone else",
    }.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "long").write_bytes(b"x" * (8 * 1024 * 1024 - 4) + FAN["last name"].encode())
    found = find_leaks(in_files(tmp_path), exactly({"last name": FAN["last name"]}))
    assert found == [Leak(f"file {name}", "last name") for name in ("address", "json", "long", "plain")]


def test_the_demo_knows_its_own_fans_wherever_they_are_and_lets_a_draw_have_its_units() -> None:
    fans = list(DemoData(seed=7).entries(200, CAMPAIGNS, 1_780_000_000.0))
    found = {leak.kind for leak in find_leaks([("log", json.dumps(entry).encode()) for entry in fans], FANS)}
    assert found == set(FANS)
    ours = [
        "ref 0f3c campaign aurora-world-tour entry 0000001-5cdf1a2b3c4d run cli-1234567890ab",
        "firstName should be text, found a number; email is missing",
        "form-0123abcd household gu-",
    ]
    assert find_leaks([("log", line.encode()) for line in ours], FANS) == []
    assert not unexpected(Leak("object draws/summer/phase-1/leaves.txt", "unit"))
    assert unexpected(Leak("object draws/summer/phase-1/leaves.txt", "mail"))
    assert unexpected(Leak("object archive/x.parquet", "unit"))
