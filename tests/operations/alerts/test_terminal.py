"""`regworkers alerts`: list, show, acknowledge, mute and evaluate from outside, each recorded with who did it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs
from typer.testing import CliRunner

from regworkers_core.cli.main import build
from regworkers_core.cli.output import TROUBLE
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.snapshot import Alert, Severity
from regworkers_core.operations.alerts.notifier import ScopeState, notifier_of
from regworkers_core.runtime import Runtime
from regworkers_core.settings import AlertSettings
from tests.dagster.support import use
from tests.operations.alerts.receiver import Receiver
from tests.support.terminal import Answer

Command = Callable[..., Answer]
DEEP = Alert("queue-depth:a", Severity.CRITICAL, "a is deep", "runbooks/kafka.md", {"waiting": 7})


@pytest.fixture
def world(shared: Runtime, receiver: Receiver) -> tuple[Runtime, Receiver]:
    for name in ("alerts", "alert_looks", "operator_actions"):
        shared.database[name].delete_many({})
    receiver.clear()
    alerts = AlertSettings.model_validate({**receiver.settings, "patience_seconds": 0})
    return Runtime(shared.settings.model_copy(update={"alerts": alerts})), receiver


@pytest.fixture
def regworkers(monkeypatch: pytest.MonkeyPatch) -> Command:
    """One command in this process: exit code, stdout, and what went wrong."""

    def call(runtime: Runtime, *words: str, **environment: str) -> Answer:
        use(monkeypatch, runtime, **environment)
        # Not configured here, logs would go where the answer goes.
        with capture_logs():
            done = CliRunner().invoke(build("alerts"), words)
        if isinstance(done.exception, UsageError):
            return Answer(TROUBLE, done.stdout, str(done.exception))
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return Answer(done.exit_code, done.stdout, done.stderr)

    return call


def actions(runtime: Runtime) -> list[tuple[str, str, str, str]]:
    return [(each.what, each.target, each.who, each.outcome) for each in runtime.operator_actions.history()]


def test_an_open_incident_is_listed_shown_and_acknowledged_and_pagerduty_is_notified(
    world: tuple[Runtime, Receiver], regworkers: Command
) -> None:
    runtime, receiver = world
    assert regworkers(runtime, "alerts").code == 0
    notifier_of(runtime).settle("queue-depth", [DEEP])
    listed = regworkers(runtime, "alerts", "--format", "json")
    assert listed.code == 1
    (shown,) = listed.document["open"]
    assert (shown["key"], shown["runbook"]) == ("queue-depth:a", "docs/runbooks/kafka.md")
    taken = regworkers(
        runtime, "alerts", "ack", "queue-depth:a", "--by", "ada", "--reason", "on it", "--format", "json"
    )
    assert taken.code == 0 and taken.document, taken.stderr
    assert [action for action, _ in receiver.actions()] == ["trigger", "acknowledge"]
    assert receiver.texts[-1] == "[local-dev] acknowledged by ada: a is deep"
    text = regworkers(runtime, "alerts", "list")
    assert text.code == 1 and "taken on by ada" in text.stdout and "docs/runbooks/kafka.md" in text.stdout
    one = regworkers(runtime, "alerts", "show", "queue-depth:a", "--format", "json")
    assert one.code == 1 and one.document["acknowledged"]["why"] == "on it"
    assert one.document["details"] == {"waiting": 7}
    changes = one.document["told"]
    assert changes["pagerduty"] == "acknowledged"
    assert actions(runtime) == [("alerts ack", "queue-depth:a", "ada", "done")]


def test_a_mute_keeps_channels_silent_until_it_is_lifted(
    world: tuple[Runtime, Receiver], regworkers: Command
) -> None:
    runtime, receiver = world
    muted = regworkers(
        runtime,
        "alerts",
        "mute",
        "queue-depth:*",
        "--for",
        "2h",
        "--reason",
        "see [/x]",
        "--by",
        "ada",
        "--format",
        "json",
    )
    assert muted.code == 0 and muted.document, muted.stderr
    notifier_of(runtime).settle("queue-depth", [DEEP])
    assert receiver.actions() == [] and receiver.texts == []
    listed = regworkers(runtime, "alerts", "list")
    assert listed.code == 1 and "muted until" in listed.stdout and "by ada" in listed.stdout
    lifted = regworkers(runtime, "alerts", "unmute", "queue-depth:*", "--by", "bob", "--format", "json")
    assert lifted.document == {"unmuted": "queue-depth:*", "open": ["queue-depth:a"]}
    assert [action for action, _ in receiver.actions()] == ["trigger"] and len(receiver.texts) == 1
    assert actions(runtime) == [
        ("alerts unmute", "queue-depth:*", "bob", "done"),
        ("alerts mute", "queue-depth:*", "ada", "done"),
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("ack", "nothing:open"), "is not open"),
        (("show", "mute:queue-depth:*"), "no incident"),
        (("mute", "a:b", "--for", "90s", "--reason", "x"), "say 30m, 2h or 3d"),
        (("mute", "a:b", "--for", "15d", "--reason", "x"), "14d at most"),
        (("mute", "*", "--for", "1h", "--reason", "x"), "keep the next outage from you"),
        (("unmute", "a:b"), "nothing is muted"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(
    world: tuple[Runtime, Receiver], regworkers: Command, words: tuple[str, ...], says: str
) -> None:
    answer = regworkers(world[0], "alerts", *words)
    assert answer.code == 2 and says in answer.stderr and not answer.stdout


def test_an_evaluation_from_outside_settles_what_it_can_read_and_lists_the_rest(
    world: tuple[Runtime, Receiver], regworkers: Command
) -> None:
    runtime, receiver = world
    notifier_of(runtime).settle_all({"queue-depth": ScopeState((DEEP,))})
    runtime.evaluation_state.record_evaluation("sensor", runtime.evaluation_state.now() - 200)
    answer = regworkers(runtime, "alerts", "evaluate", "--format", "json")
    assert answer.code == 1, answer.stderr
    assert [each["key"] for each in answer.document["open"]] == ["watcher:alerts_sensor"]
    assert "REGWORKERS_DAGSTER__URL" in answer.document["unknown"]["scheduler"]
    assert [action for action, _ in receiver.actions()] == ["trigger", "resolve", "trigger"]


def without_mongodb(runtime: Runtime, **alerts: object) -> Runtime:
    mongo = {"uri": SecretStr("mongodb://127.0.0.1:9/"), "server_selection_timeout_seconds": 0.1}
    changes = {
        "mongo": runtime.settings.mongo.model_copy(update=mongo),
        "alerts": runtime.settings.alerts.model_copy(update=alerts),
    }
    return Runtime(runtime.settings.model_copy(update=changes))


def test_without_mongodb_evaluations_notify_once_and_the_next_one_with_it_resolves_it(
    world: tuple[Runtime, Receiver], regworkers: Command
) -> None:
    runtime, receiver = world
    for _ in range(2):
        answer = regworkers(without_mongodb(runtime), "alerts", "evaluate")
        assert answer.code == 2 and "MongoDB, which keeps the incidents, does not answer" in answer.stderr
        assert "regworkers local up" in answer.stderr and "pagerduty and slack received it" in answer.stderr
    assert receiver.actions() == [("trigger", "mongo-away:mongo#0")] and len(receiver.texts) == 1
    regworkers(runtime, "alerts", "evaluate")
    assert receiver.actions()[1:] == [("resolve", "mongo-away:mongo#0")] and len(receiver.texts) == 2


def test_an_evaluation_without_mongodb_and_channels_says_that_no_channel_received_it(
    world: tuple[Runtime, Receiver], regworkers: Command
) -> None:
    runtime, receiver = world
    quiet = without_mongodb(runtime, pagerduty_routing_key=None, slack_webhook=None)
    answer = regworkers(quiet, "alerts", "evaluate")
    assert answer.code == 2 and "neither PagerDuty nor Slack received it" in answer.stderr
    regworkers(runtime, "alerts", "evaluate")
    assert receiver.actions() == [] and receiver.texts == []


@pytest.mark.parametrize("words", [(), ("list",), ("show", "a:b"), ("ack", "a:b"), ("unmute", "a:b")])
def test_without_mongodb_every_command_names_it_and_what_helps(
    world: tuple[Runtime, Receiver], regworkers: Command, words: tuple[str, ...]
) -> None:
    answer = regworkers(without_mongodb(world[0]), "alerts", *words)
    assert answer.code == 2 and not answer.stdout
    assert answer.stderr.startswith("MongoDB, which keeps the incidents, does not answer (")
    assert "`regworkers local up` starts it" in answer.stderr and "alerts evaluate" in answer.stderr


def test_what_an_evaluation_could_not_read_is_printed_with_the_reason_and_is_a_finding(
    world: tuple[Runtime, Receiver], regworkers: Command
) -> None:
    answer = regworkers(world[0], "alerts", "evaluate")
    assert answer.code == 1 and "no incident is open" in answer.stdout
    assert "scheduler could not be read: no Dagster address: set REGWORKERS_DAGSTER__URL" in " ".join(
        answer.stdout.split()
    )
    document = regworkers(world[0], "alerts", "evaluate", "--format", "json").document
    assert set(document["unknown"]) == {"scheduler", "selection-run"} and document["open"] == []
