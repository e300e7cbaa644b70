"""From findings to alerts: one cause is one alert, and what it explains neither opens nor closes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import given as generated
from hypothesis import settings as generation
from hypothesis import strategies as st

from regworkers_core.adapters.mongo.incidents import Incident
from regworkers_core.domain.snapshot import (
    Alert,
    BlownFuse,
    CampaignState,
    FailedRun,
    SchedulerState,
    Severity,
    Snapshot,
    Unread,
)
from regworkers_core.operations.alerts.conditions import TABLE
from regworkers_core.operations.alerts.conditions.condition import Assessment, Context, Finding
from regworkers_core.operations.alerts.grouping import Grouped, Previous, group_and_inhibit
from regworkers_core.operations.alerts.notifier import ScopeState
from tests.operations.alerts.world import (
    BLIND,
    NOW,
    SETTINGS,
    UNREAD,
    WELL,
    ago,
    condition,
    drain,
    incident,
    queue,
)

LIMITS = SETTINGS.alerts
LONG_AGO = NOW - 60


def folded(
    snapshot: Snapshot, *, incidents: Sequence[Incident] = (), suspected: Mapping[str, float] | None = None
) -> Grouped:
    """Everything that could be patient has been suspected for a minute, unless the test says otherwise."""
    assessed = {each.name: each.assess(Context(snapshot, SETTINGS)) for each in TABLE}
    if suspected is None:
        suspected = {
            each.key_of(finding.subject): LONG_AGO
            for each in TABLE
            if isinstance(found := assessed[each.name], Assessment)
            for finding in found.findings
        }
    return group_and_inhibit(TABLE, assessed, Previous(incidents, suspected, NOW), LIMITS)


def alerts(found: Grouped) -> dict[str, Alert]:
    return {alert.key: alert for scope in found.scopes.values() for alert in scope.alerts}


def unavailable(*names: str, **changes: Any) -> Snapshot:
    dependencies = {**WELL.dependencies, **dict.fromkeys(names, "does not answer")}
    return replace(WELL, dependencies=dependencies, **changes)


def stuck(count: int) -> tuple[CampaignState, ...]:
    return tuple(CampaignState(f"c{n:04}", "PROCESSING", ago(9_000), None) for n in range(count))


DEEP = (queue("analytics-queue", 60_000), queue("replication-queue", 30_000))


def test_a_healthy_system_has_no_alerts_and_no_unknowns() -> None:
    scopes = dict(folded(WELL).scopes)
    assert scopes.pop("certificate-renewal") == ScopeState(kept=frozenset({"certificate-renewal:kafka"}))
    assert set(scopes.values()) == {ScopeState()}


def test_what_could_not_be_read_closes_nothing() -> None:
    held = folded(BLIND).scopes
    assert held["queue-depth"].blind and held["queue-depth"].keeps("queue-depth:analytics-queue")
    assert not held["dependency-down"].blind


def test_a_thousand_campaigns_are_one_alert_with_their_number_and_some_of_their_ids() -> None:
    (alert,) = alerts(folded(replace(WELL, campaigns=stuck(1000)))).values()
    assert alert.key == "campaign-stuck:several" and alert.severity is Severity.CRITICAL
    assert alert.summary == (
        "1000 campaigns are stuck in PROCESSING: c0000, c0001, c0002, c0003, c0004 and 995 more"
    )
    assert alert.details["count"] == 1000 and len(alert.details["members"]) == 10
    assert alert.runbook == "runbooks/selection-failures.md"


def test_a_few_findings_are_reported_one_by_one() -> None:
    assert len(alerts(folded(replace(WELL, campaigns=stuck(3))))) == 3
    assert len(alerts(folded(replace(WELL, campaigns=stuck(4))))) == 1


def test_many_stay_one_until_the_last_of_them_is_gone() -> None:
    several = next(iter(alerts(folded(replace(WELL, campaigns=stuck(9)))).values()))
    found = folded(replace(WELL, campaigns=stuck(1)), incidents=[incident(several)])
    assert list(alerts(found)) == ["campaign-stuck:several"]
    assert alerts(folded(WELL, incidents=[incident(several)])) == {}
    assert not folded(WELL, incidents=[incident(several)]).scopes["campaign-stuck"].keeps(several.key)


def test_a_single_alert_keeps_its_incident_beside_a_group_that_does_not_count_it() -> None:
    alone = next(iter(alerts(folded(replace(WELL, campaigns=stuck(1)))).values()))
    held = folded(replace(WELL, campaigns=stuck(9)), incidents=[incident(alone)]).scopes["campaign-stuck"]
    own, several = sorted(held.alerts, key=lambda alert: alert.key != alone.key)
    assert (own.key, several.key) == (alone.key, "campaign-stuck:several")
    assert several.details["count"] == 8 and alone.key.partition(":")[2] not in several.details["members"]
    assert held.keeps(alone.key) and not held.keeps("campaign-stuck:another")


def test_when_one_of_a_group_and_one_with_its_own_incident_are_left_each_is_one_incident() -> None:
    alone = next(iter(alerts(folded(replace(WELL, campaigns=stuck(1)))).values()))
    several = alerts(folded(replace(WELL, campaigns=stuck(9)), incidents=[incident(alone)]))
    both = [incident(alone), incident(several["campaign-stuck:several"])]
    left = alerts(folded(replace(WELL, campaigns=stuck(1)), incidents=both))
    assert list(left) == [alone.key], "the group has no finding any more"
    one = alerts(folded(replace(WELL, campaigns=stuck(1)), incidents=both[1:]))
    assert one["campaign-stuck:several"].summary == alone.summary, "and is not `1 campaigns`"


def test_stuck_campaigns_are_a_consequence_of_mongodb_or_the_daemons() -> None:
    for snapshot, cause in (
        (unavailable("mongo", campaigns=stuck(1000)), "dependency-down:mongo"),
        (
            replace(WELL, campaigns=stuck(1000), scheduler=SchedulerState({"SENSOR": ago(900)})),
            "scheduler:daemons",
        ),
    ):
        (alert,) = alerts(folded(snapshot)).values()
        assert alert.key == cause
        assert alert.details["consequencesCount"] == 1000 and len(alert.details["consequences"]) == 10


def test_a_cause_began_when_it_was_first_seen_and_not_when_it_opened() -> None:
    cause = next(iter(alerts(folded(unavailable("mongo"))).values()))
    opened = replace(incident(cause), opened_at=ago(10))
    snapshot = unavailable("mongo", campaigns=stuck(1))
    for seen, reported in ((100, 1), (30, 2)):
        suspected = {"dependency-down:mongo": NOW - seen, "campaign-stuck:c0000": NOW - 50}
        assert len(alerts(folded(snapshot, incidents=[opened], suspected=suspected))) == reported


def test_a_queue_that_grows_behind_a_dependency_is_no_page_of_its_own_and_makes_the_cause_one() -> None:
    (alert,) = alerts(folded(unavailable("kafka"))).values()
    assert alert.severity is Severity.WARNING
    found = alerts(folded(unavailable("kafka", queues=DEEP)))
    assert set(found) == {"dependency-down:kafka", "queue-depth:replication-queue"}
    assert found["dependency-down:kafka"].severity is Severity.WARNING
    assert found["dependency-down:kafka"].details["consequences"] == [
        "60000 messages wait on analytics-queue, above 50000"
    ]
    failing = (drain("publish", received=100, failed=50),)
    found = alerts(folded(unavailable("kafka", queues=DEEP, drains=failing)))
    assert set(found) == {"dependency-down:kafka", "queue-depth:replication-queue"}
    assert found["dependency-down:kafka"].severity is Severity.CRITICAL


def test_a_consequence_waits_with_its_cause_and_stays_open_if_it_was_reported_before() -> None:
    held = folded(unavailable("kafka", queues=DEEP[:1]), suspected={}).scopes
    assert not held["dependency-down"].alerts and not held["queue-depth"].alerts
    assert held["queue-depth"].keeps("queue-depth:analytics-queue")


def test_after_its_cause_a_consequence_has_some_time_to_go() -> None:
    cause = next(iter(alerts(folded(unavailable("kafka"))).values()))
    snapshot = replace(WELL, queues=DEEP[:1])
    for ended, reported in ((30, False), (599, False), (601, True), (-3600, True)):
        before = incident(cause, open=False, resolved_at=ago(ended))
        assert bool(alerts(folded(snapshot, incidents=[before]))) is reported, ended


def test_aws_is_one_dependency_and_its_members_explain_as_each_of_them_would() -> None:
    snapshot = unavailable("sqs", "dynamodb", "streams", queues=DEEP)
    found = alerts(folded(snapshot))
    assert set(found) == {"dependency-down:aws"}
    assert found["dependency-down:aws"].details["members"] == ["dynamodb", "sqs", "streams"]
    assert found["dependency-down:aws"].details["consequencesCount"] == 2
    after = incident(found["dependency-down:aws"], open=False, resolved_at=ago(30))
    assert alerts(folded(replace(WELL, queues=DEEP), incidents=[after])) == {}


def test_a_queue_behind_a_drain_that_has_stopped_itself_is_its_consequence() -> None:
    fuse = BlownFuse("save", "f1", "DEFECT: KeyError", ago(60), "run1")
    found = alerts(folded(replace(WELL, fuses=(fuse,), queues=DEEP)))
    assert set(found) == {"drain-fuse:save", "queue-depth:analytics-queue"}
    assert found["drain-fuse:save"].details["consequencesCount"] == 1


def test_a_failed_draw_and_its_stuck_campaign_are_one_alert() -> None:
    failed = SchedulerState({"SENSOR": ago(5)}, failed_runs=(FailedRun("r", "draw", ago(60), "c0000"),))
    found = alerts(folded(replace(WELL, scheduler=failed, campaigns=stuck(2))))
    assert set(found) == {"selection-run:draw/c0000", "campaign-stuck:c0001"}
    assert found["selection-run:draw/c0000"].details["consequencesCount"] == 1


def test_a_blip_is_no_outage() -> None:
    first = folded(unavailable("kafka"), suspected={})
    assert alerts(first) == {} and first.suspected == {"dependency-down:kafka"}
    assert first.scopes["dependency-down"].keeps("dependency-down:kafka")
    soon = folded(unavailable("kafka"), suspected={"dependency-down:kafka": NOW - 19})
    assert alerts(soon) == {}
    assert set(alerts(folded(unavailable("kafka"), suspected={"dependency-down:kafka": NOW - 20}))) == {
        "dependency-down:kafka"
    }
    over = folded(WELL, suspected={"dependency-down:kafka": NOW - 20})
    assert over.cleared == {"dependency-down:kafka"} and not over.suspected


def test_an_unread_condition_clears_no_suspicion() -> None:
    assert folded(BLIND, suspected={"scheduler:daemons": LONG_AGO}).cleared == frozenset()


def test_an_unknown_subject_keeps_its_incident_and_that_of_many_but_not_that_of_another() -> None:
    several = incident(Alert("data-loss:several", Severity.WARNING, "", "", {"members": ["a"]}))
    queues = (queue("replication-queue", 1, oldest_seconds=None),)
    held = folded(replace(WELL, queues=queues), incidents=[several]).scopes["data-loss"]
    assert held.keeps("data-loss:replication-queue") and held.keeps("data-loss:several")
    assert not held.keeps("data-loss:analytics-queue")


_SUBJECTS = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8)


@generation(max_examples=60)
@generated(_SUBJECTS, _SUBJECTS, _SUBJECTS, st.booleans())
def test_every_finding_is_reported_or_kept_and_nothing_else_is_reported(
    holding: list[str], unknown: list[str], before: list[str], group_open: bool
) -> None:
    drift = condition("drift")
    findings = tuple(Finding(each, Severity.WARNING, each) for each in holding)
    quiet = {name.name: Assessment() for name in TABLE}
    assessed: dict[str, Assessment | Unread] = {
        **quiet,
        "drift": Assessment(findings, {each: UNREAD for each in unknown if each not in holding}),
    }
    known = [incident(Alert(drift.key_of(each), Severity.WARNING, "", "")) for each in before]
    if group_open:
        members = {"members": before}
        known.append(incident(Alert("drift:several", Severity.WARNING, "", "", members)))
    held = group_and_inhibit(TABLE, assessed, Previous(known, {}, NOW), LIMITS).scopes["drift"]
    reported = {alert.key for alert in held.alerts}
    assert reported <= {drift.key_of(each) for each in holding} | {"drift:several"}
    assert bool(reported) is bool(holding)
    assert len(reported - {each.alert.key for each in known}) <= LIMITS.group_above, "new incidents"
    for each in (*holding, *assessed["drift"].unknown):  # type: ignore[union-attr]
        assert held.keeps(drift.key_of(each))
    for each in set(before) - set(holding) - set(unknown):
        assert not held.keeps(drift.key_of(each)), "it is over"


def test_a_finding_that_began_before_its_possible_cause_is_reported_by_itself() -> None:
    snapshot = unavailable("kafka", queues=DEEP[:1])
    deep = next(iter(alerts(folded(replace(WELL, queues=DEEP[:1]))).values()))
    for opened, suspected, reported in ((600, 300, True), (300, 600, False), (300, 300, False)):
        found = folded(
            snapshot,
            incidents=[replace(incident(deep), opened_at=ago(opened))],
            suspected={"dependency-down:kafka": NOW - suspected},
        )
        assert (deep.key in alerts(found)) is reported, (opened, suspected)
        assert ("consequences" in alerts(found)["dependency-down:kafka"].details) is not reported


def test_items_that_failed_by_their_own_fault_are_no_consequence_of_a_dependency() -> None:
    for dead, reported in ((60, True), (0, False)):
        failing = tuple(
            drain("save", received=100, failed=60, dead_lettered=dead) if each.name == "save" else each
            for each in WELL.drains  # type: ignore[union-attr]
        )
        assert ("error-rate:save" in alerts(folded(unavailable("sqs", drains=failing)))) is reported
