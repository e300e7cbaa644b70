"""PagerDuty: what it receives, under which key, and which failures are transient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from regworkers_core.adapters.alert_channels import PagerDutyChannel, classify_pagerduty
from regworkers_core.adapters.mongo.incidents import Incident
from regworkers_core.domain.alert import Alert, IncidentChange, Severity
from regworkers_core.domain.reasons import ItemFailure, TransientFailure, UsageError
from regworkers_core.engine.dependency import Dependency, RetryPolicy
from tests.operations.alerts.receiver import ROUTING_KEY, Receiver, receiving

ALERT = Alert(
    "queue-depth:analytics-queue",
    Severity.CRITICAL,
    "60000 messages wait on analytics-queue, above 50000",
    "runbooks/kafka.md",
    {"waiting": 60_000},
)
INCIDENT = Incident(ALERT, True, 3, "2026-11-25T03:00:00.000Z", "2026-11-25T03:01:00.000Z", None, {})


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def channel(base_url: str, *, docs_url: str = "https://docs.example/regworkers/") -> PagerDutyChannel:
    dependency = Dependency("pagerduty", classify_pagerduty, policy=RetryPolicy(attempts=1))
    return PagerDutyChannel(
        ROUTING_KEY,
        dependency,
        base_url=base_url,
        environment="qa",
        docs_url=docs_url,
        timeout_seconds=0.3,
    )


def test_a_trigger_says_what_where_since_when_and_what_to_do(receiver: Receiver) -> None:
    channel(f"http://127.0.0.1:{receiver.port}").notify(INCIDENT, IncidentChange.OPENED)
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
    sender = channel(f"http://127.0.0.1:{receiver.port}", docs_url="")
    for change in (IncidentChange.OPENED, IncidentChange.ACKNOWLEDGED, IncidentChange.RESOLVED):
        sender.notify(INCIDENT, change)
    assert [event["event_action"] for event in receiver.events] == ["trigger", "acknowledge", "resolve"]
    assert len({event["dedup_key"] for event in receiver.events}) == 1
    assert "links" not in receiver.events[0]


def test_long_texts_are_cut_and_keys_stay_unique(receiver: Receiver) -> None:
    sender = channel(f"http://127.0.0.1:{receiver.port}")
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
        channel(f"http://127.0.0.1:{receiver.port}").notify(INCIDENT, IncidentChange.OPENED)
    assert ROUTING_KEY[-4:] not in str(caught.value)


def test_an_unreachable_server_and_a_late_answer_are_transient(receiver: Receiver) -> None:
    with pytest.raises(TransientFailure):
        channel("http://127.0.0.1:9").notify(INCIDENT, IncidentChange.OPENED)
    receiver.gate.clear()
    with pytest.raises(TransientFailure):
        channel(f"http://127.0.0.1:{receiver.port}").notify(INCIDENT, IncidentChange.OPENED)
