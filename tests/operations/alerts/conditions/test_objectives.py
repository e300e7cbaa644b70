"""Objectives: their events, their burn rates, and the incidents that they share with thresholds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from regworkers_core.adapters.mongo.activity import minute_of
from regworkers_core.domain.activity import DrainMinute
from regworkers_core.domain.snapshot import (
    CORRECTNESS,
    DELIVERY,
    DRAWS,
    FRESHNESS,
    CampaignState,
    ObjectiveState,
    QueueState,
    Severity,
    Share,
    Snapshot,
    StreamState,
)
from regworkers_core.domain.timestamps import iso
from regworkers_core.domain.timestamps import seconds as moment
from regworkers_core.operations.alerts.conditions import TABLE
from regworkers_core.operations.alerts.conditions.condition import Assessment, Finding
from regworkers_core.operations.alerts.conditions.objectives import burning
from regworkers_core.operations.alerts.grouping import Grouped, Previous, group_and_inhibit
from regworkers_core.operations.health.objectives import (
    SUBJECTS,
    Key,
    budgets,
    draw_states,
    objective_states,
    timelines,
)
from regworkers_core.settings import ObjectivesSettings
from tests.operations.alerts.world import (
    NOW,
    SETTINGS,
    UNREAD,
    WELL,
    ago,
    assessed,
    condition,
    drain,
    found,
    given,
    incident,
    queue,
)

LIMITS = SETTINGS.objectives
HOUR = 3600.0


def state(objective: str, subject: str, **shares: tuple[int, int]) -> ObjectiveState:
    """With shares as `hour=(events, bad)`; every window that has no share is like the one before."""
    names = {"five": 300.0, "half": 1800.0, "hour": HOUR, "six": 6 * HOUR, "days": 72 * HOUR}
    windows, last = {}, (1000, 0)
    for name, seconds in names.items():
        last = shares.get(name, last)
        windows[seconds] = Share(*last)
    return ObjectiveState(objective, subject, windows, windows)


def with_states(*states: ObjectiveState, snapshot: Snapshot = WELL) -> Snapshot:
    return replace(snapshot, objectives=states)


def minute(seconds_ago: float, drain: str = "save", **changes: Any) -> DrainMinute:
    counts = {"received": 100, "dead_lettered": 0, "returned": 0, **changes.pop("counts", {})}
    return DrainMinute(drain, "run", minute_of(NOW - seconds_ago), counts, 1, 1.0, 1.0, 60.0, **changes)


def test_items_count_for_delivery_and_correctness_and_lags_for_freshness() -> None:
    rows = [
        minute(120, counts={"returned": 3, "dead_lettered": 2}, measured=95, late=4),
        minute(120, "publish", counts={"dead_lettered": 1}, measured=50, late=50),
        minute(5 * HOUR, counts={"returned": 50}),
    ]
    found = timelines(rows, (), LIMITS.draw_seconds, NOW)
    states = {(each.objective, each.subject): each.windows for each in objective_states(found, LIMITS, NOW)}
    assert states[DELIVERY, "save"][300.0] == Share(100, 5)
    assert states[DELIVERY, "save"][6 * HOUR] == Share(200, 55)
    assert states[CORRECTNESS, "replication-queue-dlq"][HOUR] == Share(100, 2)
    assert states[CORRECTNESS, "analytics-queue-dlq"][HOUR] == Share(100, 1)
    assert states[FRESHNESS, "demand-table"][HOUR] == Share(95, 4)
    assert (DRAWS, "all") not in states


def test_minutes_of_a_version_without_lags_count_no_events_for_freshness() -> None:
    found = timelines([minute(60)], (), LIMITS.draw_seconds, NOW)
    assert found[Key(FRESHNESS, "demand-table")].share(0, NOW) == Share(0, 0)


def test_a_draw_is_late_when_its_time_is_over_whether_it_is_drawn_or_not() -> None:
    def draws(*pairs: tuple[float, float | None]) -> Share:
        phases = tuple((ago(began), None if drawn is None else ago(drawn)) for began, drawn in pairs)
        campaign = CampaignState("c", "PROCESSING", None, None, draws=phases)
        states = draw_states((campaign,), LIMITS, NOW)
        return states[0].windows[72 * HOUR] if states else Share()

    assert draws((HOUR, 0.5 * HOUR)) == Share(1, 0)
    assert draws((HOUR, None)) == Share()
    assert draws((3 * HOUR, None)) == draws((5 * HOUR, HOUR)) == Share(1, 1)
    assert draws((200 * HOUR, 199 * HOUR)) == Share()


@pytest.mark.parametrize(("bad_minutes", "pages"), [(2, False), (3, True)])
def test_two_bad_minutes_after_a_quiet_hour_page_no_one(bad_minutes: int, pages: bool) -> None:
    quiet = [minute(each * 60.0, measured=2, late=0) for each in range(bad_minutes, 60)]
    # Two drains of one queue in each bad minute.
    bad = [
        minute(each * 60.0, drain, counts={"dead_lettered": 40}, measured=60, late=50)
        for each in range(bad_minutes)
        for drain in ("save", "enqueue")
    ]
    states = objective_states(timelines([*quiet, *bad], (), LIMITS.draw_seconds, NOW), LIMITS, NOW)
    burns = [each for each in states if each.objective in (FRESHNESS, CORRECTNESS)]
    assert [each.windows[300.0].bad for each in burns] == [50 * bad_minutes, 80 * bad_minutes]
    assert [burning(each, SETTINGS) == LIMITS.page_fast for each in burns] == [pages] * 2


def test_budgets_are_of_all_drains_and_are_overdrawn_below_zero() -> None:
    rows = [minute(60, counts={"returned": 1}), minute(60, "publish", counts={"received": 900})]
    left = {each.objective: each for each in budgets(timelines(rows, (), 1.0, NOW), LIMITS, NOW)}
    assert left[DELIVERY].share == Share(1000, 1) and left[DELIVERY].left == pytest.approx(0.0)
    assert left[DRAWS].left == left[CORRECTNESS].left == 1.0
    rows += [minute(60, "enqueue", counts={"dead_lettered": 1})]
    worse = {each.objective: each.left for each in budgets(timelines(rows, (), 1.0, NOW), LIMITS, NOW)}
    assert worse[DELIVERY] < 0 and worse[CORRECTNESS] < 0


@pytest.mark.parametrize(
    ("shares", "severity"),
    [
        ({"five": (100, 2), "hour": (1000, 20)}, "critical"),
        # The cause is over: nothing fails any more.
        ({"five": (100, 0), "half": (600, 0), "hour": (1000, 20), "six": (60_000, 20)}, None),
        # A peak: the hour is good.
        ({"five": (100, 10), "half": (600, 10), "hour": (2000, 10), "six": (12_000, 10)}, None),
        ({"five": (100, 0), "half": (600, 5), "hour": (1000, 0), "six": (6000, 40)}, "critical"),
        (
            {"five": (100, 0), "half": (600, 0), "hour": (1000, 0), "six": (6000, 12), "days": (60_000, 90)},
            "warning",
        ),
        # Fewer than a hundred events, and fewer than three failures, are no proof.
        ({"five": (10, 5), "half": (20, 5), "hour": (99, 50), "six": (99, 50), "days": (99, 50)}, None),
        ({"five": (10, 2), "half": (20, 2), "hour": (100, 2), "six": (100, 2), "days": (100, 2)}, None),
    ],
)
def test_two_rates_page_and_one_warns_in_a_long_and_a_short_window(
    shares: dict[str, tuple[int, int]], severity: str | None
) -> None:
    lines = found("error-rate", with_states(state(DELIVERY, "save", **shares)))
    assert [each[:2] for each in lines] == ([] if severity is None else [("save", severity)])


def test_a_burn_says_its_numbers() -> None:
    ((_, _, line),) = found(
        "error-rate", with_states(state(DELIVERY, "save", five=(100, 2), hour=(1000, 20)))
    )
    assert "delivery burns 20.0 times too fast: within 60 min 20 of 1,000 items failed" in line


BAD = {"five": (100, 50), "hour": (1000, 200)}


@pytest.mark.parametrize(
    ("name", "objective", "subject", "threshold"),
    [
        ("stream-lag", FRESHNESS, "demand-table", {"stream": StreamState(1, 61.0)}),
        ("error-rate", DELIVERY, "save", {"drains": (drain("save", received=100, failed=50),)}),
        (
            "dead-letters",
            CORRECTNESS,
            "replication-queue-dlq",
            {"queues": (queue("replication-queue-dlq", 5),)},
        ),
    ],
)
def test_a_threshold_and_its_objective_are_one_incident(
    name: str, objective: str, subject: str, threshold: dict[str, Any]
) -> None:
    burns = with_states(state(objective, subject, **BAD))
    assert [each[0] for each in found(name, burns)] == [subject]
    ((shared, severity, line),) = found(name, replace(burns, **threshold))
    assert (shared, severity) == (subject, "critical") and "; the budget of" in line
    ((alone, _, line),) = found(name, replace(WELL, **threshold))
    assert alone == subject and "budget" not in line


def test_a_peak_of_errors_warns_while_the_hour_is_good_and_pages_without_enough_events() -> None:
    peak = replace(WELL, drains=(drain("save", received=100, failed=10),))
    many = state(DELIVERY, "save", five=(100, 10), hour=(5000, 10))
    few = state(DELIVERY, "save", five=(30, 10), hour=(99, 10))
    assert [each[1] for each in found("error-rate", with_states(many, snapshot=peak))] == ["warning"]
    assert [each[1] for each in found("error-rate", with_states(few, snapshot=peak))] == ["critical"]
    assert [each[1] for each in found("error-rate", peak)] == ["critical"]


def test_many_late_draws_are_one_incident_beside_those_of_stuck_campaigns() -> None:
    stuck = CampaignState("c", "PROCESSING", ago(HOUR), None)
    lines = found(
        "campaign-stuck",
        replace(with_states(state(DRAWS, "all", hour=(120, 100), five=(10, 9))), campaigns=(stuck,)),
    )
    assert [each[:2] for each in lines] == [("c", "critical"), ("all", "critical")]


def test_what_a_burn_rate_opened_stays_open_while_the_log_cannot_be_read() -> None:
    unread = replace(WELL, objectives=UNREAD)
    for name, objective in (
        ("stream-lag", FRESHNESS),
        ("error-rate", DELIVERY),
        ("dead-letters", CORRECTNESS),
    ):
        assessment = assessed(name, unread)
        assert isinstance(assessment, Assessment) and assessment.unknown.keys() >= set(SUBJECTS[objective])
    seen = assessed("stream-lag", replace(unread, stream=StreamState(1, 61.0)))
    assert isinstance(seen, Assessment) and seen.findings and not seen.unknown
    assert assessed("stream-lag", replace(unread, stream=UNREAD)) == UNREAD


def test_a_burn_rate_pages_while_the_threshold_cannot_be_read() -> None:
    burns = with_states(state(FRESHNESS, "demand-table", **BAD), snapshot=replace(WELL, stream=UNREAD))
    assert [each[0] for each in found("stream-lag", burns)] == ["demand-table"]


def grouped(snapshot: Snapshot, *, ended: float | None) -> Grouped:
    """With an outage of MongoDB that ended some seconds ago (None: it lasts)."""
    down = condition("dependency-down").alert
    outage = incident(down(Finding("mongo", Severity.CRITICAL, "no answer")), open=ended is None)
    if ended is not None:
        outage = replace(outage, opened_at=ago(ended + 600), resolved_at=ago(ended))
    results = {
        each.name: Assessment() if each.name in ("blind", "watcher") else each.assess(given(snapshot))
        for each in TABLE
    }
    return group_and_inhibit(TABLE, results, Previous([outage], {}, NOW), SETTINGS.alerts)


def test_a_burn_after_an_outage_is_its_consequence_for_as_long_as_its_short_window_remembers_it() -> None:
    slow = {"five": (100, 0), "half": (600, 20), "hour": (1000, 0), "six": (6000, 100)}
    burns = with_states(state(DELIVERY, "save", **slow))
    assert grouped(burns, ended=1500.0).scopes["error-rate"].alerts == ()
    (alert,) = grouped(burns, ended=2500.0).scopes["error-rate"].alerts
    assert alert.key == "error-rate:save"


def test_a_target_that_could_never_page_is_refused() -> None:
    with pytest.raises(ValidationError, match="should be higher"):
        ObjectivesSettings(delivery=0.9)
    rate = {"rate": 10, "longSeconds": 7200, "shortSeconds": 600}
    assert ObjectivesSettings.model_validate({"pageFast": rate}).page_fast.long_seconds == 7200


def test_a_budget_that_a_few_items_have_used_up_says_when_it_closes() -> None:
    def lines(last_bad: float | None, *dead: QueueState) -> list[str]:
        few = replace(
            state(DELIVERY, "save", hour=(800, 0), six=(829, 12)),
            last_bad_at=None if last_bad is None else NOW - last_bad,
        )
        correct = replace(few, objective=CORRECTNESS, subject="replication-queue-dlq")
        snapshot = with_states(few, correct, snapshot=replace(WELL, queues=dead or WELL.queues))
        return [line for name in ("error-rate", "dead-letters") for _, _, line in found(name, snapshot)]

    for known in (None, 200.0):
        assert len(lines(known)) == 2
        assert not any("nothing to do" in line for line in lines(known))
    closes = iso(NOW - 1200.0 + 6 * HOUR)
    for line in lines(1200.0):
        assert f"none for 20 min: nothing to do, this closes by itself by about {closes[11:16]} UTC" in line
    _, correct = lines(1200.0, queue("replication-queue-dlq", 2))
    assert "nothing to do" not in correct, "the dead letters are still there"


def test_a_late_draw_is_never_left_to_close_by_itself() -> None:
    late = replace(state(DRAWS, "all", five=(200, 50)), last_bad_at=NOW - HOUR)
    ((_, _, line),) = found("campaign-stuck", with_states(late))
    assert "nothing to do" not in line


def test_the_last_bad_event_of_an_objective_is_known() -> None:
    rows = [minute(600, counts={"returned": 1}), minute(120)]
    lines = timelines(rows, (), 7200.0, NOW)
    states = {each.objective: each for each in objective_states(lines, LIMITS, NOW)}
    assert states[DELIVERY].last_bad_at == moment(minute_of(NOW - 600))
    assert states[CORRECTNESS].last_bad_at is None
