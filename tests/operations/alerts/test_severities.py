"""How urgent each condition is, and from where on it holds, are settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from regworkers_core.domain.snapshot import (
    BeaconState,
    BlownFuse,
    CampaignState,
    CertificateState,
    FailedRun,
    FunctionState,
    LinesState,
    ParityState,
    PausedDrain,
    RegistrationsState,
    SchedulerState,
    Severity,
    StreamState,
    TickState,
)
from regworkers_core.operations.alerts.conditions import TABLE, availability, work
from regworkers_core.operations.alerts.conditions.blindness import gaps_of
from regworkers_core.operations.alerts.conditions.campaigns import NOT_LOGGED, UNJUDGED
from regworkers_core.operations.alerts.conditions.condition import Assessment
from regworkers_core.operations.alerts.conditions.work import expiry
from regworkers_core.settings import PROJECT_ROOT, AlertSettings, Settings
from regworkers_core.settings.operations import AlertSeverities
from tests.operations.alerts.world import (
    BLIND,
    DAY,
    NOW,
    SETTINGS,
    WELL,
    ago,
    assessed,
    drain,
    found,
    given,
    queue,
)

# Pages that single findings name in place of their check's.
MORE = (*availability._PAGES.values(), *work._PAGES.values(), "dead-letters.md")
# Something of every condition, and of both steps or kinds where there are two.
ILL = replace(
    WELL,
    dependencies={**WELL.dependencies, "sqs": "no answer", "redis": "no answer"},
    queues=(
        queue("replication-queue", 30_000, oldest_seconds=2.1 * DAY),
        queue("selection-queue", 1, oldest_seconds=3.1 * DAY),
        queue("analytics-queue-dlq", 2),
        queue("analytics-queue", 1, oldest_at_most_seconds=13 * DAY),
    ),
    stream=StreamState(1, 700.0),
    drains=(drain("save", received=100, failed=50, batch_p95_seconds=59.0, batch_limit_seconds=60.0),),
    campaigns=(
        CampaignState(
            "c",
            "PROCESSING",
            ago(DAY),
            None,
            held_since=ago(2 * DAY),
            paused_since=ago(DAY),
            failed_messages=1,
            stopped="a file differs",
            unjudged_since=ago(DAY),
            not_logged="opening",
            round_stopped="codes are missing",
            keys="qa-campaign-keys/c",
        ),
    ),
    registrations=(RegistrationsState("c", 9, 4, None, ago(300)),),
    certificates=(CertificateState("qa", 10.0), CertificateState("old", 1.0)),
    scheduler=SchedulerState(
        {"SENSOR": None}, (TickState("sensor", 3.0, None),), (FailedRun("r", "top_up", ago(60)),)
    ),
    parity=ParityState(ago(60), {"missing": 200}),
    fuses=(BlownFuse("save", "f1", "DEFECT: KeyError at saver.py:7", ago(60), "run1"),),
    pauses=(PausedDrain("save", ago(DAY), "ada", "a test"),),
    forged=1,
    function=FunctionState(300.0, 10, 10, 10, 10, 28.0, 29.0),
    lines=LinesState("/qa-regworkers", 900.0, arrived=False),
    beacon=BeaconState("of-this-machine", 1, ago(2), 2.0, 5, None),
)


def settings(**alerts: Any) -> Settings:
    return SETTINGS.model_copy(update={"alerts": AlertSettings.model_validate(alerts)})


def severities(**changed: str) -> dict[str, set[str]]:
    still = {"drain:save": 900.0, "drain:publish": 900.0, UNJUDGED.key("c"): 1800.0}
    still |= {NOT_LOGGED.key("c"): 300.0}
    facts = {"settings": settings(severity=changed), "sensor_seen_at": NOW - 900, "still_seconds": still}
    names = [each.name for each in TABLE if each.name not in ("mongo-away", "blind", "certificate-renewal")]
    seen = {name: {severity for _, severity, _ in found(name, ILL, **facts)} for name in names}
    missing = [name for name in names if not seen[name]]
    assert not missing, f"ILL has nothing on which {missing} fires: add it there"
    return seen


def test_as_the_manual_has_them() -> None:
    usual = severities()
    assert usual["dead-letters"] == usual["stream-lag"] == {"critical"}
    assert usual["queue-depth"] == usual["batch-time"] == {"warning"}
    late = found("stream-lag", replace(WELL, stream=StreamState(1, 61.0)))
    assert [severity for _, severity, _ in late] == ["critical"]


@pytest.mark.parametrize("severity", ["warning", "critical"])
def test_every_condition_takes_the_severity_of_the_settings(severity: str) -> None:
    every = dict.fromkeys(AlertSeverities.model_fields, severity)
    assert severities(**every) == {name: {severity} for name in severities()}


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("warning", "critical", {"warning", "critical"}),
        ("critical", "warning", {"critical"}),
        ("warning", "warning", {"warning"}),
    ],
)
@pytest.mark.parametrize("name", ["data_loss", "certificates"])
def test_of_two_steps_the_worse_counts(name: str, first: str, second: str, expected: set[str]) -> None:
    changed = {name: first, f"{name}_critical": second}
    assert severities(**changed)[name.replace("_", "-")] == expected


@pytest.mark.parametrize("loss", ["warning", "critical"])
def test_a_dead_letter_that_expires_is_as_urgent_as_a_loss_and_not_as_dead_letters(loss: str) -> None:
    other = "warning" if loss == "critical" else "critical"
    changed = settings(severity={"data_loss_critical": loss, "dead_letters": other})
    old = replace(WELL, queues=(queue("analytics-queue-dlq", 1, oldest_seconds=11 * DAY),))
    expires = expiry.assess(given(old, settings=changed))
    assert isinstance(expires, Assessment) and [each.severity.value for each in expires.findings] == [loss]
    assert [severity for _, severity, _ in found("dead-letters", old, settings=changed)] == [other]


def test_every_condition_has_a_field_and_its_highest_severity_is_that_of_its_blindness() -> None:
    for each in TABLE:
        if each.name != "blind":
            assert SETTINGS.alerts.severity.worst_of(each.name)
    mild = settings(severity={"stream_lag": "warning", "stream_lag_critical": "warning"})
    blind = {each.name: assessed(each.name, BLIND, settings=mild) for each in TABLE}
    by_key = {each.key: each.severity for each in gaps_of(TABLE, blind, mild.alerts)}
    assert by_key["stream-lag"] is Severity.WARNING and by_key["dead-letters"] is Severity.CRITICAL


@pytest.mark.parametrize("severity", ["loud", "", None, 1])
def test_there_are_two_severities(severity: Any) -> None:
    with pytest.raises(ValidationError):
        AlertSettings.model_validate({"severity": {"queueDepth": severity}})
    with pytest.raises(ValidationError):
        AlertSettings.model_validate({"severity": {"queueDeep": "warning"}})


def test_thresholds_of_dead_letters_drift_and_ticks_are_settings() -> None:
    some = settings(dead_letters=2, drift_entries=300, drift_critical=500, silent_intervals=100)
    assert found("dead-letters", ILL, settings=some) == [] == found("drift", ILL, settings=some)
    late = replace(WELL, scheduler=SchedulerState({}, (TickState("hourly", 3600.0, ago(4 * 3600.0)),)))
    assert found("scheduler", late) and not found("scheduler", late, settings=some)


@pytest.mark.parametrize("page", sorted({*(each.runbook for each in TABLE), *MORE}))
def test_every_runbook_is_a_page(page: str) -> None:
    assert (PROJECT_ROOT / "docs/runbooks" / page).is_file()


def test_scopes_are_unique() -> None:
    names = [each.name for each in TABLE]
    assert len(set(names)) == len(names) and not any(":" in name for name in names)
