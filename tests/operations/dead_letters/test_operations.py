"""Dead letters at the terminal and on the launchpad, and what all of it needs of AWS."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from regworkers_core.adapters.aws.sqs import MessageMoves
from regworkers_core.domain.events import PRODUCER
from regworkers_core.engine.queue import Outgoing
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from tests.analytics.world import queue_events, removed
from tests.dagster.support import job, use
from tests.infrastructure.deploy.policies import WHEN_IT_FAILS, Recorder, actions
from tests.operations.dead_letters.world import (
    FAST,
    body,
    correct,
    depths,
    recorded,
    refuse,
    replication,
    saving,
    send_dead,
)
from tests.support.drains import run
from tests.support.entries import key, remove
from tests.support.faces import Face
from tests.support.terminal import regworkers

pytestmark = pytest.mark.namespace("module", dead_letters=FAST)


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """No word of a table is on another line."""
    monkeypatch.setenv("COLUMNS", "250")


def cause_of(runtime: Runtime) -> dict[str, Any]:
    (group,) = regworkers(runtime, "dlq", "groups", "replication", "--format", "json").document["groups"]
    return dict(group)


def test_a_cause_is_reviewed_its_messages_are_redriven_and_the_rest_is_dropped(
    runtime: Runtime, face: Face
) -> None:
    assert face.does("dlq groups").fine
    refuse(runtime, "e1", "e2", "gone")
    remove(runtime, key("gone"))
    correct(runtime, "e1", "e2")
    seen = face.does("dlq groups", queue="replication", messages=5)
    assert "2 still needed, 1 gone, safe to drop" in seen.text and "summer:e1" in seen.text
    assert "example.com" not in seen.text
    assert seen.fine is (face.name == "launchpad"), "a review at the terminal has an exit code"
    counted = face.does("dlq redrive", queue="replication")
    assert counted.fine and "add --apply to send 2 messages" in counted.text
    assert face.does("dlq drop", queue="replication").fine
    assert depths(runtime) == (0, 3) and runtime.operator_actions.history(what="dlq") == []
    with saving(runtime):
        sent = face.does("dlq redrive", queue="replication", apply=True)
    assert sent.fine and "dlq drop" in sent.text and depths(runtime) == (0, 1)
    assert face.does("dlq drop", queue="replication", apply=True).fine
    assert depths(runtime) == (0, 0) and recorded(runtime, status="open") == []
    done = runtime.operator_actions.history(what="dlq")
    assert [(each.what, each.outcome) for each in done] == [("dlq drop", "done"), ("dlq redrive", "done")]


def test_a_redrive_of_which_a_message_fails_again_fails_and_says_of_which_cause(
    runtime: Runtime, face: Face
) -> None:
    refuse(runtime, "broken")
    with saving(runtime):
        done = face.does("dlq redrive", queue="replication", apply=True)
    assert not done.fine and "1 messages failed again" in done.text and "would fail again" in done.text
    assert face.does("dlq groups", close_settled=True).fine is (face.name == "launchpad")
    assert depths(runtime) == (0, 1)


def test_a_review_closes_documents_whose_entry_is_gone(runtime: Runtime, face: Face) -> None:
    refuse(runtime, "gone", "broken")
    remove(runtime, key("gone"))
    face.does("dlq groups", close_settled=True)
    assert {each["entryId"]: each["status"] for each in recorded(runtime)} == {
        "gone": "resolved",
        "broken": "open",
    }
    assert depths(runtime) == (0, 2), "messages stay"
    assert [each.what for each in runtime.operator_actions.history(what="dlq")] == ["dlq review"]


def test_bodies_are_only_in_a_private_file_and_each_export_is_in_the_audit_log(
    runtime: Runtime, face: Face, capfd: pytest.CaptureFixture[str]
) -> None:
    refuse(runtime, "e1", "e2", "e3")
    mail = "ada@fans.example"
    send_dead(runtime, replication(runtime), [Outgoing(f'{{"mail": "{mail}"}}'.encode())])
    name = "dead-letters.jsonl"
    none = face.does("dlq export", queue="replication", id="summer:none")
    assert none.fine and none.files == {} and "no dead letter fits" in none.text
    (cause,) = {each["fingerprint"] for each in recorded(runtime)}
    for given, number in (
        ({"id": "summer:e3"}, 1),
        ({"fingerprint": cause, "limit": 2}, 2),
        ({}, 4),
    ):
        done = face.does("dlq export", queue="replication", **given)
        lines = [orjson.loads(line) for line in done.files[name].splitlines()]
        assert done.fine and len(lines) == number, done.text
        assert all(each["body"].startswith("{") for each in lines)
        assert not given.get("fingerprint") or {each["fingerprint"] for each in lines} == {cause}
        history = runtime.operator_actions.history(what="dlq export")[0]
        assert (history.target, history.arguments) == (replication(runtime).name, given)
        assert mail not in done.text + str(history)
    assert mail in done.files[name].decode() and mail not in "".join(capfd.readouterr())
    assert depths(runtime) == (0, 4), "the queue keeps them"


def test_a_cause_keeps_its_name_and_note(runtime: Runtime, face: Face) -> None:
    refuse(runtime, "e1", "e2")
    cause = cause_of(runtime)
    assert cause["hours"][-1] == 2 and cause["trend"] == "rising"
    named = {"fingerprint": cause["fingerprint"], "name": "old app", "note": "fixed in 2.4"}
    assert face.does("dlq name", **named).fine
    shown = face.does("dlq groups", queue="replication").text
    assert "old app: fixed in 2.4" in shown and "·█" in shown
    assert ("data:image/png" in shown) is (face.name == "launchpad")
    for change, said in (
        ({"fingerprint": "abc"}, "16 digits"),
        ({"name": "x" * 61}, "at most 60"),
        ({"note": "a\nb"}, "one line"),
    ):
        refused = face.does("dlq name", **{**named, **change})
        assert not refused.fine and said in refused.text
    assert face.does("dlq name", fingerprint=cause["fingerprint"]).fine and cause_of(runtime)["name"] == ""
    history = runtime.operator_actions.history(what="dlq name")
    assert [each.target for each in history] == [cause["fingerprint"]] * 2


@pytest.mark.parametrize(
    ("command", "given", "said"),
    [
        ("dlq groups", {"queue": "nothing"}, "is not a queue with dead letters: choose"),
        ("dlq groups", {"queue": "replicatoin"}, "(did you mean 'replication'?): choose"),
        ("dlq groups", {"older_than": "long"}, "is not an age"),
        ("dlq drop", {"queue": "replication", "verdicts": ["old"]}, "should be some of needed, unknown"),
    ],
)
def test_a_wrong_choice_is_said_in_a_line(
    runtime: Runtime, face: Face, command: str, given: dict[str, Any], said: str
) -> None:
    answer = face.does(command, **given)
    assert not answer.fine and said in answer.text


def test_the_terminal_lists_shows_and_says_who_did_what(runtime: Runtime) -> None:
    refuse(runtime, "e1", "gone")
    remove(runtime, key("gone"))
    correct(runtime, "e1")
    quick = regworkers(runtime, "dlq", "groups", "replication", "--no-verdicts", "--format", "json")
    assert quick.code == 1 and "verdicts" not in quick.document["groups"][0]
    listed = regworkers(runtime, "dlq", "list", "replication-queue", "--campaign", "summer")
    assert listed.code == 1 and "still needed" in listed.stdout and "example.com" not in listed.stdout
    shown = regworkers(runtime, "dlq", "show", "replication", "summer:e1", "--format", "json")
    assert shown.code == 0 and shown.document["items"][0]["id"] == "summer:e1"
    assert shown.document["bodyFields"] == ["createdAt", "op", "pk", "sk", "updatedAt", "version"]
    missing = regworkers(runtime, "dlq", "show", "replication", "summer:none")
    assert missing.code == 1 and "summer:none is not among the 2 messages that were read" in missing.stdout
    words = cause_of(runtime)["command"].split()[1:]
    sent = regworkers(runtime, *words, "--apply", "--at-once", "--format", "json", REGWORKERS_OPERATOR="ada")
    assert sent.document["sent"] == 1 and sent.document["seen"] == 2
    assert regworkers(runtime, "dlq", "drop", "replication", "--apply").code == 2, "there is no terminal"
    assert "add --apply" in regworkers(runtime, "dlq", "drop", "replication").stdout
    history = regworkers(runtime, "dlq", "history", "--format", "json").document
    assert [(each["who"], each["what"], each["outcome"]) for each in history] == [
        ("ada", "dlq redrive", "done")
    ]


def test_an_event_that_its_schema_now_allows_is_published_and_its_document_closed(runtime: Runtime) -> None:
    """As after a deployment of the schema: the dead letter holds an event that is valid now."""
    queue_events(runtime, [{"id": "not an event"}])
    run(runtime, "publish")
    assert len(recorded(runtime, queue=runtime.names.analytics_queue, status="open")) == 1
    source = runtime.names.analytics_queue
    (dead,) = runtime.queue(source + "-dlq").receive(10, 0, 30)
    queue_events(runtime, [removed(1)])
    (fine,) = runtime.queue(source).receive(10, 0, 30)
    runtime.queue(source).delete([fine])
    runtime.queue(source + "-dlq").delete([dead])
    proof = {PRODUCER: fine.attributes[PRODUCER]}
    runtime.queue(source + "-dlq").send([Outgoing(fine.body.encode(), {**dead.attributes, **proof})])
    about = {name: removed(1)["data"][name] for name in ("campaignId", "entryId")}
    runtime.database["dead_letters"].update_many({}, {"$set": about})
    sent = regworkers(runtime, "dlq", "redrive", "analytics", "--apply", "--at-once", "--format", "json")
    assert sent.code == 0 and sent.document["sent"] == 1
    assert [each["status"] for each in recorded(runtime)] == ["resolved"]
    assert run(runtime, "publish").counts["sent"] == 1


def test_the_commands_need_only_what_their_policy_allows(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(runtime, "e1", "gone")
    remove(runtime, key("gone"))
    correct(runtime, "e1")
    use(monkeypatch, runtime)
    recorder = Recorder(monkeypatch, runtime.names.prefix)
    assert regworkers(runtime, "dlq", "export", "replication", "s3", "--format", "json").document["seen"]
    given = {"queue": "replication", "limit": 1}
    assert job("export_dead_letters").execute_in_process(run_config=given).success
    regworkers(runtime, "dlq", "redrive", "replication", "--apply", "--at-once")
    regworkers(runtime, "dlq", "drop", "replication", "--apply", "--yes")
    used = {call.action for call in recorder.calls}
    assert actions("dead-letters") - used <= WHEN_IT_FAILS["dead-letters"].keys()


def test_the_page_names_every_setting() -> None:
    page = (PROJECT_ROOT / "docs" / "dead-letters.md").read_text(encoding="utf-8")
    for setting in ("outcomeSeconds", "redriveItemsPerSecond", "hideSeconds", "keepCopiesDays"):
        assert setting in page


def test_a_dead_letter_queue_with_a_redrive_policy_of_its_own_is_refused(
    runtime: Runtime, face: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_dead(runtime, replication(runtime), [Outgoing(body("e1"))])
    monkeypatch.setattr(MessageMoves, "has_redrive_policy", lambda *_: True)
    answer = face.does("dlq groups", queue="replication")
    assert not answer.fine and "redrive policy of its own" in answer.text


def test_an_empty_look_is_no_all_clear_while_messages_are_hidden(runtime: Runtime) -> None:
    queue = replication(runtime)
    send_dead(runtime, queue, [Outgoing(body("e1"))])
    assert runtime.queue(queue.name).receive(10, 0, 30)
    found = regworkers(runtime, "dlq", "groups", "replication", "--format", "json")
    assert found.code == 1 and found.document["groups"] == [] and found.document["hidden"] == 1
