"""What an operator changes is written down before it is done, and `regworkers audit` tells it."""

from __future__ import annotations

import time
from typing import Any

import pytest
import typer
from structlog.testing import capture_logs

from regworkers_core.cli.changes import audited
from regworkers_core.domain.claim import Invite, InviteType
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.timestamps import parse_since
from regworkers_core.runtime import Runtime
from tests.dagster.support import job, use
from tests.support.campaigns import create
from tests.support.entries import key, put
from tests.support.runtimes import test_settings
from tests.support.terminal import regworkers

pytestmark = pytest.mark.namespace("module")


def unavailable() -> Runtime:
    return Runtime(
        test_settings(
            "down-",
            mongo={"uri": "mongodb://127.0.0.1:1", "server_selection_timeout_seconds": 0.1},
            retry={"attempts": 1},
        )
    )


def test_an_action_is_recorded_while_it_runs_and_with_its_counts_afterwards(runtime: Runtime) -> None:
    with audited(runtime, "codes void", "summer", {"codes": 2, "reason": "", "force": False}) as result:
        (running,) = runtime.operator_actions.history()
        assert (running.outcome, running.ended_at) == ("running", None)
        result["voided"] = 2
    (done,) = runtime.operator_actions.history(what="codes")
    assert (done.outcome, done.target, dict(done.result)) == ("done", "summer", {"voided": 2})
    assert dict(done.arguments) == {"codes": 2}, "what was not given says nothing"
    assert done.who and done.ended_at


def test_a_failure_is_kept_by_its_type_alone_and_a_finding_is_no_failure(runtime: Runtime) -> None:
    with pytest.raises(UsageError), audited(runtime, "campaign open", "summer"):
        raise UsageError("no campaign has the address fan@example.com")
    with pytest.raises(typer.Exit) as left, audited(runtime, "draw run", "summer"):
        raise typer.Exit(1)
    assert left.value.exit_code == 1
    found = {each.what: each for each in runtime.operator_actions.history()}
    assert (found["campaign open"].outcome, dict(found["campaign open"].result)) == (
        "failed",
        {"error": "UsageError"},
    )
    assert (found["draw run"].outcome, dict(found["draw run"].result)) == ("done", {"exitCode": 1})


def test_a_dry_run_leaves_no_trace(runtime: Runtime) -> None:
    with audited(runtime, "invites remove", "summer", dry_run=True) as result:
        result["removed"] = 1
    assert runtime.operator_actions.history() == []


def test_without_mongodb_nothing_is_done_that_cannot_be_recorded() -> None:
    done: list[str] = []
    with pytest.raises(TransientFailure), audited(unavailable(), "replicate", "summer:e1"):
        done.append("replicated")
    assert done == []
    with audited(unavailable(), "replicate", "summer:e1", dry_run=True):
        done.append("looked")
    assert done == ["looked"]


def test_what_was_done_is_no_failure_when_only_its_end_could_not_be_kept(runtime: Runtime) -> None:
    actions = runtime.operator_actions

    def gone(*_: Any) -> None:
        raise TransientFailure("mongo", "does not answer")

    actions.ends = gone  # type: ignore[method-assign]
    with capture_logs() as logs:
        with actions.recorded("replicate", "summer:e1"):
            pass
        with pytest.raises(UsageError), actions.recorded("replicate", "summer:e2"):
            raise UsageError("the real reason")
    assert {each.outcome for each in runtime.operator_actions.history()} == {"running"}
    assert [each["event"] for each in logs] == ["end of action not recorded"] * 2


def test_the_terminal_tells_who_did_what_filtered_by_command_and_time(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(runtime, key("e1"))
    assert regworkers(runtime, "replicate", "summer", "e1", REGWORKERS_OPERATOR="dana").code == 0
    (action,) = regworkers(runtime, "audit", "--what", "repl", "--since", "1h", "--format", "json").document
    assert (action["who"], action["what"], action["target"]) == ("dana", "replicate", "summer:e1")
    assert action["outcome"] == "done" and action["result"] == {"sent": True}
    assert "dana" in regworkers(runtime, "audit").stdout
    nothing = regworkers(runtime, "audit", "--what", "dlq").stdout.strip()
    assert nothing == "no action is recorded for a command that begins with 'dlq'"


def test_a_list_of_invites_is_recorded_without_the_values_that_were_typed(runtime: Runtime) -> None:
    words = ("invites", "remove", "summer", "email", "planted.fan@example.com", "--format", "json")
    create(runtime)
    planted = InviteType.EMAIL.comparable("planted.fan@example.com")
    runtime.invites.write([Invite("summer", InviteType.EMAIL, planted, int(time.time()) + 86_400)])
    for apply in ((), ("--apply", "--yes")):
        regworkers(runtime, *words, *apply)
    (action,) = runtime.operator_actions.history()
    assert action.what == "invites remove" and action.arguments["values"] == 1
    assert "planted" not in str(action)


@pytest.mark.parametrize(
    ("tags", "recorded"),
    [({}, True), ({"dagster/sensor_name": "s"}, False), ({"dagster/schedule_name": "s"}, False)],
)
def test_a_run_is_recorded_when_a_person_launched_it(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tags: dict[str, str], recorded: bool
) -> None:
    use(monkeypatch, runtime)
    done = job("backfill_entries").execute_in_process(run_config={"apply": True}, tags=tags)
    assert done.success
    found = runtime.operator_actions.history()
    assert [(each.who, each.what) for each in found] == (
        [(f"dagster {done.run_id}", "backfill")] if recorded else []
    )


def test_times_are_days_moments_or_how_long_ago() -> None:
    now = 1_780_000_000.0
    assert parse_since("", now) == ""
    assert parse_since("2026-11-25", now) == "2026-11-25T00:00:00.000Z"
    assert parse_since("2026-11-25T20:00:00+02:00", now) == "2026-11-25T18:00:00.000Z"
    assert parse_since("90m", now) == parse_since("2026-05-28T18:56:40Z", now)
    for wrong in ("7", "d", "-1d", "soon", "2026-13-01"):
        with pytest.raises(UsageError, match="--since"):
            parse_since(wrong, now)
