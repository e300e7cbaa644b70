"""`regworkers dlq ...` and the jobs as their users see them, and what all of it needs of AWS."""

from __future__ import annotations

from typing import Any

import pytest

from regworkers_core.adapters.aws.sqs import MessageMoves
from regworkers_core.domain.producers import PRODUCER
from regworkers_core.engine.queue import Outgoing
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from tests.analytics.world import queue_events, removed
from tests.dagster.support import job, plain, use
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
from tests.support.drains import replicate_all, run
from tests.support.entries import key, put, remove
from tests.support.typing_in import Typed

pytestmark = pytest.mark.namespace("module", dead_letters=FAST)


@pytest.fixture(autouse=True)
def settings(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process loads are those of the namespace."""
    use(monkeypatch, runtime)


@pytest.fixture
def typed(runtime: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    return Typed(runtime, monkeypatch, capsys)


def test_an_operator_finds_a_cause_redrives_what_is_corrected_and_drops_the_rest(
    runtime: Runtime, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGWORKERS_OPERATOR", "ada")
    assert typed("dlq", "groups").code == 0 and typed("dlq", "history").code == 0
    refuse(runtime, "e1", "e2", "gone")
    remove(runtime, key("gone"))
    correct(runtime, "e1", "e2")
    found = typed("dlq", "groups", "replication", "--verdicts", "--format", "json")
    (group,) = found.document["groups"]
    assert found.code == 1 and group["verdicts"] == {
        "needed": 2,
        "unknown": 0,
        "unreadable": 0,
        "superseded": 0,
        "gone": 1,
    }
    listed = typed("dlq", "list", "--queue", "replication-queue", "--campaign", "summer")
    assert listed.code == 1 and "still needed" in listed.stdout and "example.com" not in listed.stdout
    shown = typed("dlq", "show", "replication", "summer:e1", "--format", "json")
    assert shown.code == 0 and shown.document["items"][0]["id"] == "summer:e1"
    assert shown.document["bodyFields"] == ["createdAt", "op", "pk", "sk", "updatedAt", "version"]
    missing = typed("dlq", "show", "replication", "summer:none")
    assert missing.code == 1 and "summer:none is not among the 3 messages that were read" in missing.stdout
    counted = typed("dlq", "redrive", "replication", "--format", "json")
    assert counted.code == 0 and counted.document["dryRun"] and depths(runtime) == (0, 3)
    words = group["command"].split()[1:]
    sent = typed(*words, "--apply", "--at-once", "--format", "json")
    assert sent.code == 0 and sent.document["sent"] == 2 and "dlq drop" in sent.document["advice"]
    run(runtime, "save")
    assert typed("dlq", "drop", "replication", "--apply").code == 2
    assert "add --apply" in typed("dlq", "drop", "replication").stdout
    dropped = typed("dlq", "drop", "replication", "--apply", "--yes", "--format", "json")
    assert dropped.code == 0 and dropped.document["dropped"] == 1
    assert depths(runtime) == (0, 0) and recorded(runtime, status="open") == []
    history = typed("dlq", "history", "--format", "json").document
    assert [(each["who"], each["what"], each["outcome"]) for each in history] == [
        ("ada", "dlq drop", "done"),
        ("ada", "dlq redrive", "done"),
    ]


def test_a_usage_error_is_one_line_and_exit_code_2(typed: Typed) -> None:
    for words in (
        ("groups", "nothing"),
        ("list", "--older-than", "long"),
    ):
        answer = typed("dlq", *words)
        assert answer.code == 2 and answer.stderr.startswith("regworkers: ") and not answer.stdout


def test_an_event_that_its_schema_now_allows_is_published_and_its_document_closed(
    runtime: Runtime, typed: Typed
) -> None:
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
    sent = typed("dlq", "redrive", "analytics", "--apply", "--at-once", "--format", "json")
    assert sent.code == 0 and sent.document["sent"] == 1
    assert [each["status"] for each in recorded(runtime)] == ["resolved"]
    assert run(runtime, "publish").counts["sent"] == 1


def test_the_jobs_change_nothing_by_default_and_act_when_configured(runtime: Runtime) -> None:
    refuse(runtime, "e1", "saved")
    correct(runtime, "e1")
    put(runtime, key("saved"), version=2)
    replicate_all(runtime)
    for name in ("review_dead_letters", "redrive_dead_letters", "drop_dead_letters"):
        assert job(name).execute_in_process(raise_on_error=False).success
    assert depths(runtime) == (0, 2) and runtime.operator_actions.history(what="dlq") == []
    refused = job("drop_dead_letters").execute_in_process(run_config={"apply": True}, raise_on_error=False)
    assert not refused.success and depths(runtime) == (0, 2)
    with saving(runtime):
        sent = job("redrive_dead_letters").execute_in_process(
            run_config={"apply": True}, raise_on_error=False
        )
    assert sent.success and depths(runtime) == (0, 1)
    config = {"apply": True, "confirm": replication(runtime).source}
    assert job("drop_dead_letters").execute_in_process(run_config=config, raise_on_error=False).success
    assert depths(runtime) == (0, 0)
    actions = runtime.operator_actions.history(what="dlq")
    assert [action.what for action in actions] == ["dlq drop", "dlq redrive"]
    assert all(action.who.startswith("dagster ") for action in actions)


def test_a_redrive_of_which_a_message_fails_again_fails_the_run(runtime: Runtime) -> None:
    refuse(runtime, "broken")
    with saving(runtime):
        result = job("redrive_dead_letters").execute_in_process(
            run_config={"apply": True}, raise_on_error=False
        )
    assert not result.success
    (failed,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    groups = plain(failed.user_failure_data.metadata)["groups"]
    assert groups.splitlines()[0].endswith("| sent | failed | outcome |")
    assert groups.splitlines()[2].endswith("| 1 | 1 | none |")


def test_a_review_closes_documents_whose_entry_is_gone(runtime: Runtime) -> None:
    refuse(runtime, "gone", "broken")
    remove(runtime, key("gone"))
    assert job("review_dead_letters").execute_in_process(run_config={"close_settled": True}).success
    assert {each["entryId"]: each["status"] for each in recorded(runtime)} == {
        "gone": "resolved",
        "broken": "open",
    }
    assert depths(runtime) == (0, 2), "messages stay"


def test_a_cause_keeps_its_name_and_note(
    runtime: Runtime, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGWORKERS_OPERATOR", "ada")
    refuse(runtime, "e1", "e2")

    def cause() -> dict[str, Any]:
        (group,) = typed("dlq", "groups", "replication", "--format", "json").document["groups"]
        return dict(group)

    fingerprint = cause()["fingerprint"]
    assert cause()["hours"][-1] == 2 and cause()["trend"] == "rising"
    assert typed("dlq", "name", fingerprint, "--name", "old app", "--note", "fixed in 2.4").code == 0
    assert (cause()["name"], cause()["note"]) == ("old app", "fixed in 2.4")
    shown = typed("dlq", "groups", "replication").stdout
    assert "old app" in shown and "fixed in 2.4" in shown and "·█" in shown
    for words in (("abc", "--name", "x"), (fingerprint, "--name", "x" * 61), (fingerprint, "--note", "a\nb")):
        assert typed("dlq", "name", *words).code == 2
    run_config = {"fingerprint": fingerprint, "name": "older app"}
    assert job("name_cause").execute_in_process(run_config=run_config).success
    reviewed = job("review_dead_letters").execute_in_process()
    (event,) = [each for each in reviewed.all_events if each.event_type_value == "STEP_OUTPUT"]
    metadata = event.step_output_data.metadata
    assert "older app" in metadata["groups"].value and "data:image/png" in metadata["trend"].value
    assert typed("dlq", "name", fingerprint, "--format", "json").code == 0 and cause()["name"] == ""
    actions = runtime.operator_actions.history(what="dlq name")
    assert [each.target for each in actions] == [fingerprint] * 3 and actions[-1].who == "ada"


def test_the_commands_need_only_what_their_policy_allows(
    runtime: Runtime, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(runtime, "e1", "gone")
    remove(runtime, key("gone"))
    correct(runtime, "e1")
    recorder = Recorder(monkeypatch, runtime.names.prefix)
    assert typed("dlq", "export", "replication", "s3", "--format", "json").document["seen"]
    typed("dlq", "redrive", "replication", "--apply", "--at-once")
    typed("dlq", "drop", "replication", "--apply", "--yes")
    used = {call.action for call in recorder.calls}
    assert actions("dead-letters") - used <= WHEN_IT_FAILS["dead-letters"]


def test_the_page_names_every_command_and_setting() -> None:
    page = (PROJECT_ROOT / "docs" / "dead-letters.md").read_text(encoding="utf-8")
    for word in ("list", "groups", "show", "redrive", "drop", "export", "history", "name"):
        assert f"regworkers dlq {word}" in page
    for setting in ("outcomeSeconds", "redriveItemsPerSecond", "hideSeconds", "keepCopiesDays"):
        assert setting in page


def test_a_dead_letter_queue_with_a_redrive_policy_of_its_own_is_refused(
    runtime: Runtime, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_dead(runtime, replication(runtime), [Outgoing(body("e1"))])
    monkeypatch.setattr(MessageMoves, "has_redrive_policy", lambda *_: True)
    answer = typed("dlq", "list", "replication")
    assert answer.code == 2 and "redrive policy of its own" in answer.stderr


def test_an_empty_look_is_no_all_clear_while_messages_are_hidden(runtime: Runtime, typed: Typed) -> None:
    queue = replication(runtime)
    send_dead(runtime, queue, [Outgoing(body("e1"))])
    assert runtime.queue(queue.name).receive(10, 0, 30)
    found = typed("dlq", "groups", "replication", "--format", "json")
    assert found.code == 1 and found.document["groups"] == [] and found.document["hidden"] == 1
