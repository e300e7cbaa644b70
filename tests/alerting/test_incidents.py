"""Incidents open and close by themselves, and each channel is told once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from regworkers_core.adapters.incidents import Incident
from regworkers_core.alerting import Alerting
from regworkers_core.domain.alert import Alert, Change, Severity
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.runtime import Runtime
from tests.support.shared import emptied, shared_namespace

KAFKA = Alert("analytics:kafka", Severity.CRITICAL, "Kafka does not answer", "analytics.md")
AGE = Alert("analytics:age", Severity.WARNING, "the oldest message is 3 days old", "analytics.md")


@dataclass(slots=True)
class Told:
    """A channel that remembers, and can be away."""

    name: str = "told"
    severities: frozenset[Severity] = frozenset(Severity)
    heard: list[tuple[str, Change]] = field(default_factory=list)
    away: bool = False

    def tell(self, incident: Incident, change: Change) -> None:
        if self.away:
            raise TransientFailure(self.name, "no answer")
        self.heard.append((incident.dedup_key, change))


@pytest.fixture(scope="module")
def shared() -> Iterator[Runtime]:
    with shared_namespace() as made:
        yield made


@pytest.fixture
def runtime(shared: Runtime) -> Runtime:
    return emptied(shared)


@pytest.fixture
def channel() -> Told:
    return Told()


@pytest.fixture
def alerting(runtime: Runtime, channel: Told) -> Alerting:
    return Alerting(runtime.incidents, [channel], clock=lambda: 1_790_000_000.0)


def test_trouble_that_stays_is_told_once_and_its_end_once(alerting: Alerting, channel: Told) -> None:
    for _ in range(3):
        (incident,) = alerting.settle("analytics", [KAFKA])
    assert incident.open and incident.alert == KAFKA
    for _ in range(3):
        assert alerting.settle("analytics", []) == []
    assert channel.heard == [
        ("analytics:kafka#1", Change.OPENED),
        ("analytics:kafka#1", Change.RESOLVED),
    ]


def test_trouble_that_comes_back_is_another_incident(alerting: Alerting, channel: Told) -> None:
    for holding in ([KAFKA], [], [KAFKA]):
        alerting.settle("analytics", holding)
    assert channel.heard[-1] == ("analytics:kafka#2", Change.OPENED)


def test_a_channel_that_is_away_is_told_when_it_is_back(alerting: Alerting, channel: Told) -> None:
    channel.away = True
    alerting.settle("analytics", [KAFKA, AGE])
    channel.away = False
    alerting.settle("analytics", [KAFKA, AGE])
    alerting.settle("analytics", [KAFKA, AGE])
    assert sorted(channel.heard) == [
        ("analytics:age#1", Change.OPENED),
        ("analytics:kafka#1", Change.OPENED),
    ]


def test_what_was_over_before_a_channel_heard_of_it_is_not_told(alerting: Alerting, channel: Told) -> None:
    channel.away = True
    alerting.settle("analytics", [KAFKA])
    channel.away = False
    alerting.settle("analytics", [])
    assert channel.heard == []


def test_a_channel_hears_only_of_the_severities_that_it_wants(runtime: Runtime) -> None:
    pager = Told("pager", frozenset({Severity.CRITICAL}))
    Alerting(runtime.incidents, [pager], clock=lambda: 0.0).settle("analytics", [KAFKA, AGE])
    assert pager.heard == [("analytics:kafka#1", Change.OPENED)]


def test_the_incidents_of_another_scope_are_left_alone(alerting: Alerting, runtime: Runtime) -> None:
    alerting.settle("analytics", [KAFKA])
    alerting.settle("certificates", [])
    assert [incident.alert for incident in runtime.incidents.all_open()] == [KAFKA]


def test_the_numbers_of_open_trouble_are_those_of_the_last_look(alerting: Alerting) -> None:
    alerting.settle("analytics", [AGE])
    worse = Alert(AGE.key, Severity.CRITICAL, "the oldest message is 12 days old", AGE.runbook, {"days": 12})
    (incident,) = alerting.settle("analytics", [worse])
    assert incident.alert == worse and incident.serial == 1


def test_an_incident_that_was_opened_again_is_not_closed_by_an_old_look(
    alerting: Alerting, runtime: Runtime
) -> None:
    (seen,) = alerting.settle("analytics", [KAFKA])
    alerting.settle("analytics", [])
    alerting.settle("analytics", [KAFKA])
    runtime.incidents.is_over(seen, "2026-11-25T00:00:00.000Z")
    assert runtime.incidents.all_open()
