"""Incidents open and close by themselves, and each channel is notified once."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from regworkers_core.adapters.mongo.incidents import Incident
from regworkers_core.domain.alert import Alert, IncidentChange, Severity
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.operations.alerts.notifier import Notifier
from regworkers_core.runtime import Runtime

pytestmark = pytest.mark.namespace("module")

KAFKA = Alert("analytics:kafka", Severity.CRITICAL, "Kafka does not answer", "analytics.md")
AGE = Alert("analytics:age", Severity.WARNING, "the oldest message is 3 days old", "analytics.md")


@dataclass(slots=True)
class FakeChannel:
    """A channel that records what it received, and can be down."""

    name: str = "channel"
    severities: frozenset[Severity] = frozenset(Severity)
    received: list[tuple[str, IncidentChange]] = field(default_factory=list)
    down: bool = False

    def notify(self, incident: Incident, change: IncidentChange) -> None:
        if self.down:
            raise TransientFailure(self.name, "no answer")
        self.received.append((incident.dedup_key, change))


@pytest.fixture
def channel() -> FakeChannel:
    return FakeChannel()


@pytest.fixture
def notifier(runtime: Runtime, channel: FakeChannel) -> Notifier:
    return Notifier(runtime.incidents, [channel], clock=lambda: 1_790_000_000.0)


def test_a_lasting_incident_is_sent_once_and_its_end_once(notifier: Notifier, channel: FakeChannel) -> None:
    for _ in range(3):
        (incident,) = notifier.settle("analytics", [KAFKA])
    assert incident.open and incident.alert == KAFKA
    for _ in range(3):
        assert notifier.settle("analytics", []) == []
    assert channel.received == [
        ("analytics:kafka#1", IncidentChange.OPENED),
        ("analytics:kafka#1", IncidentChange.RESOLVED),
    ]


def test_a_condition_that_holds_again_is_another_incident(notifier: Notifier, channel: FakeChannel) -> None:
    for holding in ([KAFKA], [], [KAFKA]):
        notifier.settle("analytics", holding)
    assert channel.received[-1] == ("analytics:kafka#2", IncidentChange.OPENED)


def test_an_unavailable_channel_is_notified_when_it_is_back(notifier: Notifier, channel: FakeChannel) -> None:
    channel.down = True
    notifier.settle("analytics", [KAFKA, AGE])
    channel.down = False
    notifier.settle("analytics", [KAFKA, AGE])
    notifier.settle("analytics", [KAFKA, AGE])
    assert sorted(channel.received) == [
        ("analytics:age#1", IncidentChange.OPENED),
        ("analytics:kafka#1", IncidentChange.OPENED),
    ]


def test_an_incident_that_closed_before_a_channel_received_it_is_not_sent(
    notifier: Notifier, channel: FakeChannel
) -> None:
    channel.down = True
    notifier.settle("analytics", [KAFKA])
    channel.down = False
    notifier.settle("analytics", [])
    assert channel.received == []


def test_trouble_that_comes_back_before_its_end_was_notified_stays_the_same_incident(
    runtime: Runtime, channel: FakeChannel
) -> None:
    other, now = FakeChannel("other"), iter(float(second) for second in range(100))
    notifier = Notifier(runtime.incidents, [channel, other], clock=lambda: next(now))
    notifier.settle("analytics", [KAFKA])
    channel.down = True
    notifier.settle("analytics", [])
    (incident,) = notifier.settle("analytics", [KAFKA])
    channel.down = False
    notifier.settle("analytics", [KAFKA])
    notifier.settle("analytics", [])
    # It knew of it all the time, and it is closed there.
    assert channel.received == [
        ("analytics:kafka#1", IncidentChange.OPENED),
        ("analytics:kafka#1", IncidentChange.RESOLVED),
    ]
    assert [change for _, change in other.received] == [IncidentChange.OPENED, IncidentChange.RESOLVED] * 2
    assert incident.serial == 1
    (incident,) = notifier.settle("analytics", [KAFKA])
    assert incident.serial == 2


def test_a_channel_that_is_no_more_does_not_keep_an_incident_from_being_another_one(
    runtime: Runtime, channel: FakeChannel
) -> None:
    removed = FakeChannel("removed")
    Notifier(runtime.incidents, [channel, removed], clock=lambda: 0.0).settle("analytics", [KAFKA])
    left = Notifier(runtime.incidents, [channel], clock=lambda: 1.0)
    left.settle("analytics", [])
    (incident,) = left.settle("analytics", [KAFKA])
    assert incident.serial == 2


def test_an_old_look_does_not_close_the_same_incident_that_was_opened_again(
    runtime: Runtime, channel: FakeChannel
) -> None:
    now = iter(float(second) for second in range(100))
    notifier = Notifier(runtime.incidents, [channel], clock=lambda: next(now))
    (seen,) = notifier.settle("analytics", [KAFKA])
    channel.down = True
    notifier.settle("analytics", [])
    (again,) = notifier.settle("analytics", [KAFKA])
    assert again.serial == seen.serial
    runtime.incidents.resolve(seen, "2026-11-25T00:00:00.000Z")
    assert runtime.incidents.all_open()


def test_a_channel_with_a_defect_does_not_keep_the_others_silent(
    runtime: Runtime, channel: FakeChannel
) -> None:
    class Defect(FakeChannel):
        def notify(self, incident: Incident, change: IncidentChange) -> None:
            raise ValueError("a summary that it cannot take")

    channels = [Defect("defect"), channel]
    with capture_logs() as logs:
        Notifier(runtime.incidents, channels, clock=lambda: 0.0).settle("analytics", [KAFKA])
    assert channel.received == [("analytics:kafka#1", IncidentChange.OPENED)]
    (line,) = [each for each in logs if each["event"] == "alert not delivered"]
    assert (
        line["channel"] == "defect" and "ValueError at " in line["error"] and "summary" not in line["error"]
    )


def test_a_channel_is_notified_the_end_of_what_became_less_severe(runtime: Runtime) -> None:
    pager = FakeChannel("pager", frozenset({Severity.CRITICAL}))
    notifier = Notifier(runtime.incidents, [pager], clock=lambda: 0.0)
    notifier.settle("analytics", [KAFKA])
    notifier.settle("analytics", [Alert(KAFKA.key, Severity.WARNING, "slow", KAFKA.runbook)])
    notifier.settle("analytics", [])
    assert pager.received == [
        ("analytics:kafka#1", IncidentChange.OPENED),
        ("analytics:kafka#1", IncidentChange.RESOLVED),
    ]


def test_a_channel_hears_only_of_the_severities_that_it_wants(runtime: Runtime) -> None:
    pager = FakeChannel("pager", frozenset({Severity.CRITICAL}))
    Notifier(runtime.incidents, [pager], clock=lambda: 0.0).settle("analytics", [KAFKA, AGE])
    assert pager.received == [("analytics:kafka#1", IncidentChange.OPENED)]


def test_the_incidents_of_another_scope_are_left_alone(notifier: Notifier, runtime: Runtime) -> None:
    notifier.settle("analytics", [KAFKA])
    notifier.settle("certificates", [])
    assert [incident.alert for incident in runtime.incidents.all_open()] == [KAFKA]


def test_an_open_incident_has_the_numbers_of_the_last_evaluation(notifier: Notifier) -> None:
    notifier.settle("analytics", [AGE])
    worse = Alert(AGE.key, Severity.CRITICAL, "the oldest message is 12 days old", AGE.runbook, {"days": 12})
    (incident,) = notifier.settle("analytics", [worse])
    assert incident.alert == worse and incident.serial == 1


def test_an_incident_that_was_opened_again_is_not_closed_by_an_old_evaluation(
    notifier: Notifier, runtime: Runtime
) -> None:
    (seen,) = notifier.settle("analytics", [KAFKA])
    notifier.settle("analytics", [])
    notifier.settle("analytics", [KAFKA])
    runtime.incidents.resolve(seen, "2026-11-25T00:00:00.000Z")
    assert runtime.incidents.all_open()
