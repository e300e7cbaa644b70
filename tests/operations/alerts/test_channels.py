"""Slack, PagerDuty and a file: what they receive, under which key, and which failures are transient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from regworkers_core.adapters.alert_channels import (
    FileChannel,
    PagerDutyChannel,
    SlackChannel,
    classify_pagerduty,
    classify_slack,
)
from regworkers_core.adapters.mongo.incidents import Incident
from regworkers_core.domain.reasons import ItemFailure, TransientFailure, UsageError
from regworkers_core.domain.snapshot import Alert, IncidentChange, Severity
from regworkers_core.engine.dependency import Dependency, RetryPolicy
from tests.operations.alerts.receiver import ROUTING_KEY, Receiver, receiving

KAFKA = Alert("analytics:kafka", Severity.CRITICAL, "Kafka <b1> & b2 do not answer", "analytics.md")
SLACK_INCIDENT = Incident(KAFKA, True, 3, "2026-11-25T03:00:00.000Z", "2026-11-25T03:01:00.000Z", None, {})


def slack_at(address: str) -> SlackChannel:
    dependency = Dependency("slack", classify_slack, policy=RetryPolicy(attempts=1))
    return SlackChannel(
        address,
        dependency,
        environment="qa",
        docs_url="https://docs.example/regworkers/",
        timeout_seconds=1.0,
    )


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def test_slack_is_notified_what_where_since_when_and_what_to_do(receiver: Receiver) -> None:
    slack = slack_at(f"http://127.0.0.1:{receiver.port}/slack")
    slack.notify(SLACK_INCIDENT, IncidentChange.OPENED)
    slack.notify(SLACK_INCIDENT, IncidentChange.RESOLVED)
    message, resolved = receiver.messages
    assert resolved["text"].startswith("[qa] resolved: ")
    assert message["text"] == "[qa] CRITICAL: Kafka &lt;b1&gt; &amp; b2 do not answer"
    said = orjson.dumps(message["blocks"]).decode()
    assert "<https://docs.example/regworkers/analytics.md|what to do>" in said
    assert "2026-11-25T03:00:00.000Z" in said and "analytics:kafka#3" in said


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (500, b"", TransientFailure),
        (429, b"", TransientFailure),
        (200, b"<html>Please log in to this network</html>", TransientFailure),
        # The fault of that message alone: it keeps no other from being notified.
        (400, b"", ItemFailure),
    ],
)
def test_what_slack_does_not_take_is_no_delivery_and_says_whose_fault_it_is(
    receiver: Receiver, status: int, body: bytes, failure: type[Exception]
) -> None:
    receiver.status["slack"], receiver.body = status, body
    with pytest.raises(failure):
        slack_at(f"http://127.0.0.1:{receiver.port}/slack").notify(SLACK_INCIDENT, IncidentChange.OPENED)


def test_an_unreachable_webhook_is_transient_and_its_address_stays_secret() -> None:
    with pytest.raises(TransientFailure) as caught:
        slack_at("http://127.0.0.1:9/T000/B000/secret").notify(SLACK_INCIDENT, IncidentChange.OPENED)
    assert "secret" not in str(caught.value)


def test_a_file_holds_one_document_a_line(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "alerts.jsonl"
    file = FileChannel(path)
    file.notify(SLACK_INCIDENT, IncidentChange.OPENED)
    file.notify(SLACK_INCIDENT, IncidentChange.RESOLVED)
    opened, resolved = map(orjson.loads, path.read_bytes().splitlines())
    assert (opened["change"], opened["key"], opened["severity"]) == (
        "opened",
        "analytics:kafka#3",
        "critical",
    )
    assert resolved["change"] == "resolved"


ALERT = Alert(
    "queue-depth:analytics-queue",
    Severity.CRITICAL,
    "60000 messages wait on analytics-queue, above 50000",
    "runbooks/kafka.md",
    {"waiting": 60_000},
)
INCIDENT = Incident(ALERT, True, 3, "2026-11-25T03:00:00.000Z", "2026-11-25T03:01:00.000Z", None, {})


def pagerduty_at(base_url: str, *, docs_url: str = "https://docs.example/regworkers/") -> PagerDutyChannel:
    dependency = Dependency("pagerduty", classify_pagerduty, policy=RetryPolicy(attempts=1))
    return PagerDutyChannel(
        ROUTING_KEY, dependency, base_url=base_url, environment="qa", docs_url=docs_url, timeout_seconds=0.3
    )


def test_a_trigger_says_what_where_since_when_and_what_to_do(receiver: Receiver) -> None:
    pagerduty_at(f"http://127.0.0.1:{receiver.port}").notify(INCIDENT, IncidentChange.OPENED)
    (event,) = receiver.events
    assert event["event_action"] == "trigger"
    assert event["dedup_key"] == "qa:queue-depth:analytics-queue#3"
    payload = event["payload"]
    assert payload["summary"] == "[qa] 60000 messages wait on analytics-queue, above 50000"
    assert (payload["severity"], payload["source"]) == ("critical", "regworkers-qa")
    assert payload["timestamp"] == "2026-11-25T03:00:00.000Z"
    assert payload["custom_details"] == {"waiting": 60_000, "runbook": "docs/runbooks/kafka.md"}
    assert event["links"] == [
        {"href": "https://docs.example/regworkers/runbooks/kafka.md", "text": "what to do"}
    ]


def test_acknowledgement_and_end_go_by_the_same_key(receiver: Receiver) -> None:
    sender = pagerduty_at(f"http://127.0.0.1:{receiver.port}", docs_url="")
    for change in (IncidentChange.OPENED, IncidentChange.ACKNOWLEDGED, IncidentChange.RESOLVED):
        sender.notify(INCIDENT, change)
    assert [event["event_action"] for event in receiver.events] == ["trigger", "acknowledge", "resolve"]
    assert len({event["dedup_key"] for event in receiver.events}) == 1
    assert "links" not in receiver.events[0]


def test_long_texts_are_cut_and_keys_stay_unique(receiver: Receiver) -> None:
    sender = pagerduty_at(f"http://127.0.0.1:{receiver.port}")
    for subject in ("a" * 300, "b" * 300):
        alert = replace(ALERT, key=f"campaign-stuck:{subject}", summary="x" * 2000)
        sender.notify(replace(INCIDENT, alert=alert), IncidentChange.OPENED)
    first, second = receiver.events
    assert len(first["payload"]["summary"]) == 1024
    assert len(first["dedup_key"]) <= 255 and first["dedup_key"] != second["dedup_key"]


@pytest.mark.parametrize(
    ("status", "failure"),
    [
        (429, TransientFailure),
        (500, TransientFailure),
        (503, TransientFailure),
        (302, TransientFailure),
        (400, ItemFailure),
        (403, UsageError),
    ],
)
def test_a_refusal_says_whose_fault_it_is_and_nothing_of_the_key(
    receiver: Receiver, status: int, failure: type[Exception]
) -> None:
    receiver.status["pagerduty"] = status
    with pytest.raises(failure) as caught:
        pagerduty_at(f"http://127.0.0.1:{receiver.port}").notify(INCIDENT, IncidentChange.OPENED)
    assert ROUTING_KEY[-4:] not in str(caught.value)


def test_an_unreachable_server_and_a_late_answer_are_transient(receiver: Receiver) -> None:
    with pytest.raises(TransientFailure):
        pagerduty_at("http://127.0.0.1:9").notify(INCIDENT, IncidentChange.OPENED)
    receiver.gate.clear()
    with pytest.raises(TransientFailure):
        pagerduty_at(f"http://127.0.0.1:{receiver.port}").notify(INCIDENT, IncidentChange.OPENED)
