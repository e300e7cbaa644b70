"""A night of dead letters and every runbook, over GraphQL alone: as an operator behind the proxy has them in the UI.

The web application, the daemon and the runs are processes of their own, on the servers of the tests. Nothing but
GraphQL is asked after the preparation, except for the stores at the end.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import httpx2
import pytest

from regworkers_core.adapters.mongo.draws import PhaseStatus
from regworkers_core.domain.snapshot import Alert, Severity
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime
from regworkers_core.selection.drains import NOTIFICATIONS, SELECTIONS
from regworkers_core.selection.notify import work
from regworkers_core.settings import PROJECT_ROOT
from regworkers_local.dagster_server import DagsterProcess
from tests.dagster.support import use
from tests.fairdraw.proof.draws import ROUND, SIGNATURE
from tests.operations.dead_letters.world import FAST, correct, depths, refuse
from tests.selection.draw.beacons import committed_to_a_recorded_round
from tests.selection.draw.world import CAMPAIGN, entry
from tests.support.drains import replicate_all, run
from tests.support.draws import add_codes, confirmed, publish, raising_for, result
from tests.support.entries import document, key, put
from tests.support.shared import shared_namespace
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.night]

WEB = {
    "REGWORKERS_WEB__OPERATOR_HEADER": "X-Forwarded-Email",
    "REGWORKERS_WEB__GROUPS_HEADER": "X-Forwarded-Groups",
    "REGWORKERS_WEB__PROXIES": '["127.0.0.1"]',
    "REGWORKERS_WEB__GROUPS": '{"operator": ["ops"], "manager": ["box-office"]}',
    # What drains does so because the operator says so.
    "REGWORKERS_SENSORS_ON": "false",
}
ADA, BOB = "ada@example.com", "bob@example.com"
AUTUMN = "autumn"
ALERT = "dead-letters:replication-queue"
LAUNCH = """mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
RUN = """query ($id: ID!) { runOrError(runId: $id) { ... on Run { status eventConnection { events {
  ... on ExecutionStepOutputEvent { metadataEntries { ...Shown } }
  ... on ExecutionStepFailureEvent { error { message } failureMetadata { metadataEntries { ...Shown } } }
} } } } }
fragment Shown on MetadataEntry { label ... on IntMetadataEntry { intValue } ... on TextMetadataEntry { text }
  ... on MarkdownMetadataEntry { mdStr } ... on JsonMetadataEntry { jsonString }
  ... on BoolMetadataEntry { boolValue } }"""
_VALUES = ("intValue", "text", "mdStr", "jsonString", "boolValue")
RUNBOOKS = (
    ("stream_lag", {}),
    ("total_failure", {"apply": True}),
    ("out_of_sync", {"apply": True}),
    ("selection_failures", {"apply": True}),
    ("campaign_configuration", {"apply": True}),
    ("kafka", {}),
    ("time_outs", {}),
    ("cost", {}),
)


@dataclass(frozen=True)
class Ended:
    """A run: its status, the metadata that the UI shows, and the error in words."""

    status: str
    shown: dict[str, Any]
    error: str


class Browser:
    """What the UI of one person sends."""

    def __init__(self, url: str, name: str, groups: str) -> None:
        self._url = url + "/graphql"
        self._headers = {"x-forwarded-email": name, "x-forwarded-groups": groups}

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        sent = {"query": query, "variables": variables}
        answer = httpx2.post(self._url, json=sent, headers=self._headers, timeout=60)
        found: dict[str, Any] = answer.json()["data"]
        return found

    def launch(self, job: str, config: Any = None, partition: str = "") -> dict[str, Any]:
        selector = {
            "repositoryLocationName": "regworkers_dagster.definitions",
            "repositoryName": "__repository__",
            "jobName": job,
        }
        tags = [{"key": "dagster/partition", "value": partition}] if partition else []
        params = {
            "selector": selector,
            "runConfigData": config or {},
            "executionMetadata": {"tags": tags},
        }
        launched: dict[str, Any] = self.ask(LAUNCH, params=params)
        found: dict[str, Any] = launched["launchRun"]
        return found

    def started(self, job: str, config: Any = None, partition: str = "") -> str:
        found = self.launch(job, config, partition)
        assert found["__typename"] == "LaunchRunSuccess", (job, found)
        return str(found["run"]["runId"])

    def ended(self, run_id: str) -> Ended:
        def over() -> dict[str, Any] | None:
            # Between two questions: each costs the UI as much as the run.
            threading.Event().wait(0.5)
            run: dict[str, Any] = self.ask(RUN, id=run_id)["runOrError"]
            return run if run["status"] in ("SUCCESS", "FAILURE", "CANCELED") else None

        run = wait_until(over, seconds=240, what=f"the end of {run_id}")
        shown: dict[str, Any] = {}
        errors: list[str] = []
        for event in run["eventConnection"]["events"]:
            entries = event.get("metadataEntries") or (event.get("failureMetadata") or {}).get(
                "metadataEntries"
            )
            for one in entries or ():
                shown[one["label"]] = next((one[name] for name in _VALUES if name in one), None)
            errors += [event["error"]["message"]] if event.get("error") else []
        return Ended(run["status"], shown, "\n".join(errors))

    def done(self, job: str, **config: Any) -> Ended:
        return self.ended(self.started(job, config))


def one_message_failed(runtime: Runtime, campaign_id: str) -> None:
    """The second of two messages of a drawn campaign is sent."""
    rows = result({"berlin": 2})
    confirmed(runtime, rows, ["berlin"], campaign_id=campaign_id)
    add_codes(runtime, "berlin", 2, campaign_id=campaign_id)
    publish(runtime, campaign_id=campaign_id)
    run(runtime, SELECTIONS)
    with mock.patch.object(work, "notification_queued", raising_for(rows[0].ref)):
        assert run(runtime, NOTIFICATIONS).counts["dead_lettered"] == 1


@dataclass(frozen=True)
class Night:
    runtime: Runtime
    url: str


@pytest.fixture(scope="module")
def night() -> Iterator[Night]:
    with shared_namespace(dead_letters=FAST) as runtime, pytest.MonkeyPatch.context() as patch:
        # A draw that waits for a round of the beacon, and two messages of another one: the first failed.
        committed_to_a_recorded_round(runtime, entries=[entry(number) for number in range(100, 120)])
        one_message_failed(runtime, AUTUMN)
        # e1 and e2 are valid by now and were refused; e3 has a newer state that is saved; e4 is still refused.
        refuse(runtime, "e1", "e2", "e3", "e4")
        correct(runtime, "e1", "e2")
        put(runtime, key("e3"), version=2)
        replicate_all(runtime)
        put(runtime, key("e5"))
        replicate_all(runtime)
        alert = Alert(ALERT, Severity.CRITICAL, "4 dead letters", "runbooks/dead-letters.md")
        runtime.incidents.open(alert, iso(runtime.clock()), [])
        use(patch, runtime, **WEB)
        dagster = DagsterProcess(PROJECT_ROOT, f"test-night-{os.getpid()}")
        try:
            with dagster:
                yield Night(runtime, dagster.url)
        finally:
            shutil.rmtree(dagster.folder, ignore_errors=True)


def test_a_night_of_dead_letters_is_worked_off_and_every_act_has_the_operators_name(night: Night) -> None:
    runtime, ada = night.runtime, Browser(night.url, ADA, "ops")
    manager, stranger = Browser(night.url, BOB, "box-office"), Browser(night.url, "eve@example.com", "all")
    for other in (manager, stranger):
        assert "none of your groups" in other.launch("redrive_dead_letters", {"apply": True})["message"]
    assert "LaunchRunSuccess" in str(manager.launch("notifications_status"))

    # What is open, and who takes it on.
    listed = ada.done("acknowledge_alert")
    assert ALERT in listed.shown["incidents"] and listed.status == "SUCCESS"
    assert ADA in ada.done("acknowledge_alert", alert=ALERT, reason="on call").shown["incidents"]

    # The causes; then one group, message by message.
    causes = ada.done("review_dead_letters", queue="replication-queue")
    assert causes.shown["messages"] == 4 and causes.shown["causes"] == 1
    (cause,) = set(re.findall(r"\| ([0-9a-f]{8,}) \|", causes.shown["groups"]))
    group = ada.done("review_dead_letters", queue="replication-queue", fingerprint=cause, messages=10)
    assert all(f"summer:e{number}" in group.shown["single_messages"] for number in (1, 2, 3, 4))

    assert (
        ada.done("name_cause", fingerprint=cause, name="no mail", note="asked the form").status == "SUCCESS"
    )

    # What is still needed, with a drain beside it; then what is settled.
    counted = ada.done("redrive_dead_letters", queue="replication-queue", fingerprint=cause)
    assert "no mail" in counted.shown["groups"]
    assert counted.shown["dryRun"] is True and depths(runtime)[1] == 4
    drain = {"idle_seconds": 20.0, "max_seconds": 60.0}
    saving = ada.started("save_entries", {"ops": {"save": {"config": drain}}})
    ada.done("redrive_dead_letters", queue="replication-queue", fingerprint=cause, apply=True)
    ada.ended(saving)
    dropped = ada.done(
        "drop_dead_letters", queue="replication-queue", confirm=runtime.names.replication_queue
    )
    assert dropped.shown["dropped"] == 1, dropped
    assert all(document(runtime, key(entry)) for entry in ("e1", "e2", "e3"))
    assert document(runtime, key("e4")) is None and depths(runtime)[1] == 1

    # One entry.
    assert ada.done("trace_entry", campaign_id="summer", entry_id="e1").shown["verdict"] == "in_sync"
    assert "rejected" in ada.done("trace_entry", campaign_id="summer", entry_id="e4").error
    assert ada.done("replicate_entry", campaign_id="summer", entry_id="e1").shown["sent"] is True
    assert ada.done("repeat_erasures", confirm=0).shown["found"] == 0
    assert "there is no acceptance" in str(ada.done("undo_acceptance"))

    # The morning: who did what.
    log = ada.done("show_audit", what="dlq")
    assert log.shown["log"].count(ADA) == 3
    actions = runtime.operator_actions.history(limit=100)
    assert {each.who for each in actions} == {ADA}
    assert {each.what for each in actions} >= {
        "alerts ack",
        "dlq redrive",
        "dlq drop",
        "replicate",
        "erasures repeat",
    }
    # The redrive stopped its cause when e4 failed again.
    assert {each.what for each in actions if each.outcome != "done"} == {"dlq redrive"}
    assert "running" not in {each.outcome for each in actions}


def test_every_runbook_is_done_without_a_terminal(night: Night) -> None:
    ada = Browser(night.url, ADA, "ops")
    began = {name: ada.started(f"runbook_{name}", config or {}) for name, config in RUNBOOKS}
    for name, run_id in began.items():
        ended = ada.ended(run_id)
        assert ended.status in ("SUCCESS", "FAILURE") and ended.shown.get("summary"), (name, ended)
    acts = {f"runbook {name.replace('_', '-')}" for name, config in RUNBOOKS if config}
    found = night.runtime.operator_actions.history(what="runbook", limit=100)
    assert {each.what for each in found} == acts
    assert {each.who for each in found} == {ADA}


def test_a_draw_gets_its_signature_and_failed_messages_are_sent_again_by_their_manager(night: Night) -> None:
    bob, runtime = Browser(night.url, BOB, "box-office"), night.runtime
    assert (
        f"round {ROUND} of the beacon" in bob.done("campaign_status", campaign_id=CAMPAIGN).shown["waits_for"]
    )
    wrong = bob.done("enter_signature", campaign_id=CAMPAIGN, signature=SIGNATURE[::-1])
    assert f"it must be that of round {ROUND}" in wrong.error
    stored = bob.done("enter_signature", campaign_id=CAMPAIGN, signature=SIGNATURE)
    assert stored.status == "SUCCESS", stored
    bob.ended(bob.started("draw", partition=CAMPAIGN))
    record = runtime.draws.get(CAMPAIGN)
    assert record is not None and record.latest.reached(PhaseStatus.DRAWN)

    before = bob.done("notifications_status", campaign_id=AUTUMN)
    assert (before.shown["sent"], before.shown["waiting"]) == (1, 0)
    assert bob.done("retry_notifications", campaign_id=AUTUMN).shown["messages"] == 1
    drain = {"idle_seconds": 1.0, "max_seconds": 60.0}
    Browser(night.url, ADA, "ops").done("send_notifications", ops={"notifications": {"config": drain}})
    assert bob.done("notifications_status", campaign_id=AUTUMN).shown["sent"] == 2

    actions = runtime.operator_actions.history(limit=100)
    names = ("draw", "enter_signature", "retry_notifications")
    # A draw is an act for each of its steps.
    assert {(each.what, each.target, each.outcome) for each in actions if each.what in names} == {
        ("draw", CAMPAIGN, "done"),
        ("enter_signature", CAMPAIGN, "done"),
        ("enter_signature", CAMPAIGN, "failed"),
        ("retry_notifications", AUTUMN, "done"),
    }
    assert {each.who for each in actions if each.what in names} == {BOB}
