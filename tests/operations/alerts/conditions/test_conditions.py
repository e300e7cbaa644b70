"""Each condition: when it holds, how urgent it is, what its line says, and when it is not known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from regworkers_core.domain.snapshot import (
    BlownFuse,
    CampaignState,
    CertificateState,
    FailedRun,
    FunctionState,
    LastAcknowledged,
    LinesState,
    ParityState,
    PausedDrain,
    RegistrationsState,
    SchedulerState,
    Snapshot,
    StreamState,
    TickState,
    UnarchivedEvents,
    Unread,
)
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.operations.alerts.conditions import TABLE
from regworkers_core.operations.alerts.conditions.availability import renewal as RENEWAL
from regworkers_core.operations.alerts.conditions.condition import Assessment
from regworkers_core.operations.alerts.evaluate import assess, watched
from regworkers_core.operations.health.scheduler import schedule_state
from regworkers_core.settings import AlertSettings
from tests.operations.alerts.world import (
    BLIND,
    DAY,
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
    queue,
)

READ = [
    each
    for each in TABLE
    if each.name
    not in ("mongo-away", "dependency-down", "blind", "watcher", "data-loss", "certificate-renewal")
]


@pytest.mark.parametrize("each", [each for each in TABLE if each != RENEWAL], ids=lambda each: each.name)
def test_where_all_is_well_no_condition_holds(each: Any) -> None:
    assert each.assess(given(WELL)) == Assessment()


@pytest.mark.parametrize("each", READ, ids=lambda each: each.name)
def test_what_could_not_be_read_is_not_known(each: Any) -> None:
    assert isinstance(each.assess(given(BLIND)), Unread)


def test_a_dependency_that_does_not_answer() -> None:
    down = {**WELL.dependencies, "sqs": "does not answer", "redis": "no answer within 3 s"}
    assert found("dependency-down", replace(WELL, dependencies=down)) == [
        ("sqs", "critical", "sqs does not answer"),
        ("redis", "warning", "redis cannot be used: no answer within 3 s"),
    ]


def scheduler(**facts: Any) -> Snapshot:
    assert isinstance(WELL.scheduler, SchedulerState)
    return replace(WELL, scheduler=replace(WELL.scheduler, **facts))


def test_daemons_that_are_silent_are_one_finding() -> None:
    ((subject, severity, line),) = found(
        "scheduler", scheduler(daemons={"SENSOR": ago(200), "SCHEDULER": None, "ASSET": ago(100)})
    )
    assert (subject, severity) == ("daemons", "critical")
    assert line == ("2 of 3 Dagster daemons are silent, last heartbeat: SCHEDULER never, SENSOR 3 min ago")


@pytest.mark.parametrize(
    ("tick", "says"),
    [
        (TickState("a", 30.0, ago(100)), None),
        (TickState("a", 30.0, ago(181)), "last ticked 3 min ago; it is due every 30 s"),
        (TickState("a", 3600.0, ago(3 * 3600)), None),
        (TickState("a", 3600.0, ago(3 * 3600 + 1)), "ticked 3.0 h ago"),
        (TickState("a", 30.0, None, since=ago(100)), None),
        (TickState("a", 30.0, None, since=ago(181)), "never ticked"),
        (TickState("a", 30.0, ago(5), "KeyError"), "the last tick of a failed: KeyError"),
    ],
)
def test_ticks_are_awaited_for_three_intervals(tick: TickState, says: str | None) -> None:
    lines = [line for _, _, line in found("scheduler", scheduler(ticks=(tick,)))]
    assert (len(lines) == 1 and says in lines[0]) if says else not lines


@pytest.mark.parametrize(
    ("cron", "interval"), [("*/5 * * * *", 300.0), ("0 * * * *", 3600.0), ("0 9 * * 1", 7 * DAY)]
)
@pytest.mark.parametrize("ticked", [False, True])
def test_a_schedule_is_late_one_interval_and_a_minute_after_it_was_due(
    cron: str, interval: float, ticked: bool
) -> None:
    begun = NOW - 20 * DAY
    tick = schedule_state("a", cron, begun + 1 if ticked else None, "", begun)
    due = seconds(tick.due_at or "")
    assert due is not None and begun < due <= begun + 1 + interval

    def late(moment: float) -> bool:
        look = replace(scheduler(ticks=(tick,)), at=iso(moment))
        return any(subject == "a" for subject, _, _ in found("scheduler", look))

    assert not late(begun + 1), "on a fresh start"
    assert not late(due + interval + 59)
    assert late(due + interval + 61)


@pytest.mark.parametrize(
    ("at_least", "at_most", "holds"),
    [
        (None, None, False),
        (0.0, 3.9 * DAY, False),
        (0.0, 4.1 * DAY, True),
        (0.0, 13 * DAY, True),
        # What is certain is a finding of `data-loss`.
        (4.1 * DAY, 5 * DAY, False),
        (20 * DAY, 20 * DAY, False),
    ],
)
def test_an_analytics_queue_that_is_never_empty_may_hold_stuck_messages(
    at_least: float | None, at_most: float | None, holds: bool
) -> None:
    busy = queue("analytics-queue", 1, oldest_seconds=at_least, oldest_at_most_seconds=at_most)
    assert [each[:2] for each in found("analytics", replace(WELL, queues=(busy,)))] == (
        [("age", "warning")] if holds else []
    )
    empty = replace(busy, visible=0)
    assert found("analytics", replace(WELL, queues=(empty,))) == []


def test_an_analytics_queue_that_could_not_be_read_opens_and_closes_nothing() -> None:
    unread = replace(WELL, queues=(), unread_queues={"qa-analytics-queue": UNREAD})
    assert assessed("analytics", unread) == Assessment(unknown={"age": UNREAD})
    no_age = replace(WELL, queues=(queue("analytics-queue", 1, age_unread=UNREAD),))
    assert assessed("analytics", no_age) == Assessment(unknown={"age": UNREAD})


def test_what_is_not_known_to_be_switched_on_is_not_late() -> None:
    assessment = assessed("scheduler", scheduler(ticks=(TickState("nightly", DAY, None),)))
    assert assessment == Assessment(early=frozenset({"nightly"}))


def test_an_evaluation_from_outside_sees_a_sensor_that_does_not_evaluate() -> None:
    assert found("watcher", WELL, sensor_seen_at=NOW - 170) == []
    ((subject, severity, _),) = found("watcher", WELL, sensor_seen_at=NOW - 190)
    assert (subject, severity) == ("alerts_sensor", "critical")


@pytest.mark.parametrize(
    ("received", "failed", "holds"),
    [(100, 5, False), (100, 6, True), (30, 2, False), (4, 3, True), (0, 0, False)],
)
def test_more_than_one_in_twenty_failed_and_more_than_two(received: int, failed: int, holds: bool) -> None:
    lines = found("error-rate", replace(WELL, drains=(drain("save", received=received, failed=failed),)))
    assert bool(lines) is holds
    if holds:
        assert f"{failed} of {received} items" in lines[0][2] and lines[0][1] == "critical"


def test_a_drain_that_has_stopped_itself_names_the_defect_and_what_starts_it_again() -> None:
    fuse = BlownFuse("save", "f1", "DEFECT: KeyError at saver.py:7", ago(60), "run1")
    ((subject, severity, line),) = found("drain-fuse", replace(WELL, fuses=(fuse,)))
    assert (subject, severity) == ("save", "critical")
    for part in ("KeyError at saver.py:7", "fingerprint f1", "`regworkers drain resume save`"):
        assert part in line


def test_a_forged_event_pages_and_its_dead_letter_is_no_second_incident() -> None:
    ((subject, severity, line),) = found("forged-events", replace(WELL, forged=2))
    assert (subject, severity) == ("analytics-queue", "critical")
    assert "2 messages on analytics-queue were not signed" in line
    dead = replace(
        WELL, queues=(queue("analytics-queue-dlq", waiting=2), queue("selection-queue-dlq", waiting=1))
    )
    assessment = assessed("dead-letters", dead)
    assert isinstance(assessment, Assessment)
    assert {each.subject: each.because for each in assessment.findings} == {
        "analytics-queue-dlq": ("forged-events:analytics-queue",),
        "selection-queue-dlq": (),
    }


@pytest.mark.parametrize("lasts", [60.0, 1800.0, 86_400.0])
def test_a_drain_that_is_paused_beyond_the_end_of_its_pause_pages(lasts: float) -> None:
    def paused(began: float) -> Snapshot:
        until = ago(began - lasts)
        return replace(
            WELL, pauses=(PausedDrain("save", ago(began), "ada", "the replica is restored", until),)
        )

    assert found("drain-paused", paused(lasts - 1)) == []
    ((subject, severity, line),) = found("drain-paused", paused(lasts))
    assert (subject, severity) == ("save", "critical")
    for part in ("by ada", "the replica is restored", "that time is over", "`regworkers drain resume save`"):
        assert part in line


@pytest.mark.parametrize(("since", "is_over"), [(1799.0, False), (1800.0, True), (None, True)])
def test_a_pause_that_does_not_say_for_how_long_lasts_half_an_hour(
    since: float | None, is_over: bool
) -> None:
    paused = PausedDrain("save", "not a time" if since is None else ago(since), "ada", "a restore")
    assert bool(found("drain-paused", replace(WELL, pauses=(paused,)))) is is_over


def test_batches_that_take_nearly_as_long_as_they_may() -> None:
    def of(took: float | None, **facts: Any) -> Snapshot:
        return replace(
            WELL, drains=(drain("save", batch_p95_seconds=took, batch_limit_seconds=60.0, **facts),)
        )

    assert found("batch-time", of(48.0)) == []
    assert found("batch-time", of(48.5)) == [
        ("save", "warning", "a batch of the drain save takes 48.5 s (p95), its limit is 60 s")
    ]
    assert assessed("batch-time", of(None, received=5)) == Assessment(
        unknown={"save": Unread("the drain save has completed no batch")}
    )


def test_a_stream_that_is_read_late() -> None:
    def of(age: float | None) -> Snapshot:
        return replace(WELL, stream=StreamState(1, age))

    assert found("stream-lag", of(60)) == []
    assert [each[1] for each in found("stream-lag", of(61))] == ["critical"]
    steps = SETTINGS.model_copy(
        update={"alerts": AlertSettings.model_validate({"severity": {"streamLag": "warning"}})}
    )
    assert [each[1] for each in found("stream-lag", of(600), settings=steps)] == ["warning"]
    assert [each[1] for each in found("stream-lag", of(601), settings=steps)] == ["critical"]
    assert isinstance(assessed("stream-lag", of(None)), Unread)


def test_a_queue_above_its_own_threshold() -> None:
    depths = replace(
        WELL,
        queues=(queue("replication-queue", 20_000), queue("selection-queue", 1_998, in_flight=2, delayed=1)),
    )
    assert found("queue-depth", depths) == [
        ("selection-queue", "warning", "2001 messages wait on selection-queue, above 2000")
    ]


def test_a_dead_letter_queue_that_is_not_empty() -> None:
    depths = replace(WELL, queues=(queue("replication-queue", 5), queue("analytics-queue-dlq", 2)))
    assert found("dead-letters", depths) == [
        ("analytics-queue-dlq", "critical", "2 dead letters on analytics-queue-dlq")
    ]


@pytest.mark.parametrize(
    ("name", "age", "severity"),
    [
        ("replication-queue", 1.9 * DAY, None),
        ("replication-queue", 2.1 * DAY, "warning"),
        ("replication-queue", 3.1 * DAY, "critical"),
        ("replication-queue-dlq", 6.9 * DAY, None),
        ("replication-queue-dlq", 7.1 * DAY, "warning"),
        ("analytics-queue", 3.9 * DAY, None),
        ("analytics-queue", 4.1 * DAY, "warning"),
        ("analytics-queue", 10.1 * DAY, "critical"),
        ("analytics-queue", 20 * DAY, "critical"),
    ],
)
def test_the_time_until_a_message_is_lost(name: str, age: float, severity: str | None) -> None:
    severities = [
        each[1] for each in found("data-loss", replace(WELL, queues=(queue(name, 1, oldest_seconds=age),)))
    ]
    assert severities == ([severity] if severity else [])


def test_the_time_until_the_stream_loses_a_record() -> None:
    ((subject, severity, line),) = found("data-loss", replace(WELL, stream=StreamState(1, 19 * 3600.0)))
    assert (subject, severity) == ("demand-table-stream", "critical")
    assert "lost in 5.0 h" in line


@pytest.mark.parametrize(
    ("waiting", "age", "kept", "severity"),
    [
        (5, 3 * DAY, 7 * DAY, None),
        (5, 4 * DAY, 7 * DAY, "warning"),
        (5, 6.9 * DAY, 7 * DAY, "critical"),
        (5, 9 * DAY, 7 * DAY, "critical"),
        (0, None, 7 * DAY, None),
        (5, 900 * DAY, None, None),
    ],
)
def test_the_time_until_kafka_deletes_an_event_that_is_not_archived(
    waiting: int, age: float | None, kept: float | None, severity: str | None
) -> None:
    topic = UnarchivedEvents("qa-regworkers.entries.v1", waiting, age, kept)
    findings = found("data-loss", replace(WELL, archive=(topic,)))
    assert [each[:2] for each in findings] == ([("regworkers.entries.v1", severity)] if severity else [])
    assert all("regworkers archive run" in each[2] for each in findings)


def test_an_archive_that_cannot_be_read_is_not_fine() -> None:
    assessment = assessed("data-loss", replace(WELL, archive=UNREAD))
    assert isinstance(assessment, Assessment) and set(assessment.unknown) == {"event-archive"}


def test_an_unknown_age_is_unknown_of_that_queue_alone() -> None:
    queues = (
        queue("replication-queue", 1, oldest_seconds=None),
        queue("analytics-queue", 0, oldest_seconds=None),
    )
    assessment = assessed("data-loss", replace(WELL, queues=queues))
    assert isinstance(assessment, Assessment) and set(assessment.unknown) == {"replication-queue"}


def test_the_stream_is_judged_where_queues_are_not_known() -> None:
    assessment = assessed(
        "data-loss", replace(WELL, queues=Unread("sqs does not answer"), stream=StreamState(1, 20 * 3600.0))
    )
    assert isinstance(assessment, Assessment) and len(assessment.findings) == 1
    assert {"replication-queue", "analytics-queue-dlq"} <= assessment.unknown.keys()


def test_a_selection_run_that_failed() -> None:
    failed = (
        FailedRun("r1", "draw", ago(60), "spring"),
        FailedRun("r2", "reconcile_entries", ago(60)),
        FailedRun("r3", "send_notifications", ago(60)),
    )
    subjects = [each[0] for each in found("selection-run", scheduler(failed_runs=failed))]
    assert subjects == ["draw/spring", "send_notifications"]


@pytest.mark.parametrize(
    ("job", "snapshot", "reported"),
    [
        ("top_up", {"draws": ((ago(900), ago(800)), (ago(300), None))}, True),
        ("top_up", {"draws": ((ago(900), ago(800)), (ago(300), ago(30)))}, False),
        ("retry_market_selection", {"status": "COMPLETED"}, False),
        ("retry_market_selection", {"open_markets": 1}, True),
        ("confirm_draw", {"open_markets": 1}, True),
    ],
)
def test_a_failed_run_whose_work_was_done_in_another_way_is_no_longer_reported(
    job: str, snapshot: dict[str, Any], reported: bool
) -> None:
    state = CampaignState("spring", snapshot.pop("status", "PROCESSING"), ago(900), None, **snapshot)
    failed = scheduler(failed_runs=(FailedRun("r1", job, ago(60), "spring"),))
    lines = [line for _, _, line in found("selection-run", replace(failed, campaigns=(state,)))]
    closes = iso(NOW - 60 + DAY)
    assert lines == (
        [
            f"the run {job} of spring failed at {ago(60)}; this closes with the next one that succeeds, or by itself "
            f"at {closes}"
        ]
        if reported
        else []
    )


@pytest.mark.parametrize(("at", "reported"), [(ago(90), True), (ago(30), False)])
def test_a_failed_run_of_a_drain_is_reported_until_that_drain_acknowledges_work(
    at: str, reported: bool
) -> None:
    failed = scheduler(failed_runs=(FailedRun("r1", "process_selections", ago(60)),))
    done = replace(failed, acknowledged=(LastAcknowledged("selections", 3, at),))
    assert bool(found("selection-run", done)) is reported
    blind = assessed("selection-run", replace(failed, acknowledged=UNREAD))
    assert isinstance(blind, Assessment) and blind.unknown == {"process_selections": UNREAD}


@pytest.mark.parametrize(
    ("campaigns", "reported", "unknown"),
    [
        ((CampaignState("spring", "CLOSED", ago(60), None),), True, False),
        ((CampaignState("spring", "PROCESSING", ago(60), None),), True, False),
        ((), True, False),
        # Done from a terminal, of which Dagster knows nothing.
        ((CampaignState("spring", "PROCESSING", ago(60), None, open_markets=1),), False, False),
        ((CampaignState("spring", "COMPLETED", ago(60), None),), False, False),
        (Unread("mongo away"), False, True),
    ],
)
def test_a_failed_draw_is_reported_until_it_succeeds_anywhere(
    campaigns: Any, reported: bool, unknown: bool
) -> None:
    snapshot = replace(
        scheduler(failed_runs=(FailedRun("r1", "draw", ago(60), "spring"),)), campaigns=campaigns
    )
    assessment = assessed("selection-run", snapshot)
    assert isinstance(assessment, Assessment)
    assert bool(assessment.findings) is reported and bool(assessment.unknown) is unknown


@pytest.mark.parametrize(
    ("state", "still", "holds"),
    [
        (CampaignState("c", "PROCESSING", ago(901), None), 0, True),
        (CampaignState("c", "PROCESSING", ago(899), None), 0, False),
        (CampaignState("c", "CLOSED", ago(9_000), None), 0, False),
        # A run works on it; a run did, and has died.
        (CampaignState("c", "PROCESSING", ago(9_000), None, "run1", lease_beat="1/7"), 59, False),
        (CampaignState("c", "PROCESSING", ago(9_000), None, "run1", lease_beat="1/7"), 61, True),
        # It waits for the beacon: the round is to come, was signed just now, and long ago.
        (CampaignState("c", "PROCESSING", ago(9_000), None, round_due_at=ago(-400)), 0, False),
        (CampaignState("c", "PROCESSING", ago(9_000), None, round_due_at=ago(899)), 0, False),
        (CampaignState("c", "PROCESSING", ago(9_000), None, round_due_at=ago(901)), 0, True),
        # Winners get their codes and messages, which takes no lease; or they do not.
        (CampaignState("c", "PROCESSING", ago(9_000), None, open_markets=2), 0, False),
        (
            CampaignState("c", "PROCESSING", ago(9_000), None, open_markets=2, failed="market m: no codes"),
            0,
            True,
        ),
    ],
)
def test_a_campaign_that_no_run_works_on(state: CampaignState, still: float, holds: bool) -> None:
    lines = found("campaign-stuck", replace(WELL, campaigns=(state,)), still_seconds={"c": still})
    assert bool(lines) is holds
    assert state.failed in "".join(line for _, _, line in lines)


@pytest.mark.parametrize(
    ("since", "status", "holds"),
    [
        (None, "OPEN", False),
        (ago(14_340), "OPEN", False),
        (ago(14_460), "OPEN", True),
        (ago(14_460), "CLOSED", True),
    ],
)
def test_a_pause_of_a_campaign_that_was_forgotten(since: str | None, status: str, holds: bool) -> None:
    state = CampaignState("c", status, ago(9_000), None, paused_since=since)
    lines = found("campaign-paused", replace(WELL, campaigns=(state,)))
    assert [line[:2] for line in lines] == ([("c", "warning")] if holds else [])
    assert "4.0 h" in "".join(line for _, _, line in lines) or not holds


@pytest.mark.parametrize(("since", "holds"), [(None, False), (ago(DAY - 60), False), (ago(DAY + 60), True)])
def test_messages_that_wait_for_a_further_phase_for_a_day(since: str | None, holds: bool) -> None:
    state = CampaignState("c", "COMPLETED", ago(9_000), None, held_since=since)
    lines = found("messages-waiting", replace(WELL, campaigns=(state,)))
    assert [line[:2] for line in lines] == ([("c", "warning")] if holds else [])


@pytest.mark.parametrize(
    ("since", "seen", "holds"),
    [
        (None, 0.0, False),
        (ago(1_860), 1_740.0, False),
        (ago(1_860), 1_800.0, True),
        # It completed with an earlier version, and the first evaluation of this one comes before the first check.
        (ago(90 * DAY), 0.0, False),
    ],
)
def test_a_phase_that_evaluations_saw_complete_and_not_judged_for_long(
    since: str | None, seen: float, holds: bool
) -> None:
    state = CampaignState("c", "COMPLETED", ago(9_000), None, unjudged_since=since)
    snapshot = replace(WELL, campaigns=(state,))
    still = dict.fromkeys(watched(snapshot, SETTINGS), seen)
    lines = found("selection-not-judged", snapshot, still_seconds=still)
    assert [line[:2] for line in lines] == ([("c", "critical")] if holds else [])


@pytest.mark.parametrize(
    ("lacks", "seen", "holds"), [("", 0.0, False), ("x", 240.0, False), ("x", 300.0, True)]
)
def test_an_open_campaign_that_the_log_lacks_for_long(lacks: str, seen: float, holds: bool) -> None:
    snapshot = replace(WELL, campaigns=(CampaignState("c", "OPEN", ago(900), None, not_logged=lacks),))
    still = dict.fromkeys(watched(snapshot, SETTINGS), seen)
    lines = found("campaign-not-logged", snapshot, still_seconds=still)
    assert [line[:2] for line in lines] == ([("c", "warning")] if holds else [])


def test_an_open_campaign_that_the_log_can_never_have_as_it_is_is_found_at_once() -> None:
    why = "campaign c cannot be in the public log as it was changed: eventId may never change"
    state = CampaignState("c", "OPEN", ago(900), None, not_logged="x", refused=why)
    assert found("campaign-not-logged", replace(WELL, campaigns=(state,))) == [("c", "warning", why)]


def test_a_campaign_whose_seats_do_not_pass_on_because_a_person_is_needed() -> None:
    state = CampaignState("c", "COMPLETED", ago(900), None, round_stopped="market berlin needs 2 fresh codes")
    line = "no seat of c passes on: market berlin needs 2 fresh codes"
    assert found("round-stopped", replace(WELL, campaigns=(state,))) == [("c", "critical", line)]
    assert found("round-stopped", replace(WELL, campaigns=(replace(state, round_stopped=""),))) == []


def test_a_campaign_whose_keys_the_secret_store_lacks() -> None:
    state = CampaignState("c", "OPEN", ago(900), None, keys="campaign-keys/c")
    lost = replace(WELL, campaigns=(state,), campaign_keys=frozenset({"campaign-keys/d"}))
    ((subject, severity, line),) = found("campaign-keys", lost)
    assert (subject, severity) == ("c", "critical") and "restore the secret campaign-keys/c" in line
    assert found("campaign-keys", replace(lost, campaign_keys=frozenset({"campaign-keys/c"}))) == []
    assert isinstance(assessed("campaign-keys", replace(lost, campaign_keys=UNREAD)), Unread)


@pytest.mark.parametrize(
    ("since", "closes", "says"),
    [
        (None, ago(-60), None),
        (ago(299), ago(-60), None),
        (ago(300), ago(-60), "5 registrations of c behind, for 5 min: they are registered"),
        (ago(300), ago(400), "behind, for 5 min: they are registered"),
        (ago(1_200), ago(600), f"nothing from {ago(1_500)} to now, over the close at {ago(600)}"),
    ],
)
def test_registrations_that_the_log_lacks_for_long(since: str | None, closes: str, says: str | None) -> None:
    state = RegistrationsState("c", 9, 4, logged_at=ago(1_500), lacks_since=since, closes_at=closes)
    lines = found("registrations-not-logged", replace(WELL, registrations=(state,)))
    assert [line[:2] for line in lines] == ([("c", "warning")] if says else [])
    assert all(says in line[2] for line in lines if says)


def test_registrations_that_cannot_be_read() -> None:
    trouble = replace(WELL, registrations=(RegistrationsState("c", trouble="checkpoint: no"),))
    ((subject, severity, line),) = found("registrations-not-logged", trouble)
    assert (subject, severity) == ("c", "warning") and "cannot be read: checkpoint: no" in line
    assert isinstance(assessed("registrations-not-logged", replace(WELL, registrations=UNREAD)), Unread)


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({}, ""),
        ({"ago_seconds": 60.0}, ""),
        ({"ago_seconds": 61.0}, "has signed nothing for 61 s: draws wait for it"),
        ({"ago_seconds": -15.0}, ""),
        ({"ago_seconds": -16.0}, "is 16 s ahead of this machine's clock"),
        ({"trusted_lead_seconds": None}, "is in no trust file, so its lead is unknown"),
        (
            {"trusted_lead_seconds": 601},
            "seeds draws with a lead of 600 s (selection.beacon.leadSeconds), and",
        ),
        ({"trusted_lead_seconds": 599}, ""),
    ],
)
def test_a_beacon_that_cannot_seed_draws(facts: dict[str, Any], says: str) -> None:
    beacon = replace(WELL.beacon, **facts)  # type: ignore[type-var]
    lines = found("beacon", replace(WELL, beacon=beacon))
    assert [line[:2] for line in lines] == ([("quicknet", "warning")] if says else [])
    assert not says or f"the beacon quicknet {says}" in lines[0][2]


def test_a_beacon_that_could_not_be_read_is_not_fine() -> None:
    assert isinstance(assessed("beacon", replace(WELL, beacon=UNREAD)), Unread)


def test_messages_that_failed() -> None:
    state = CampaignState("c", "COMPLETED", ago(9_000), None, failed_messages=2)
    ((subject, severity, line),) = found("messages-failed", replace(WELL, campaigns=(state,)))
    assert (subject, severity) == ("c", "critical") and "notifications retry c" in line


@pytest.mark.parametrize("since", [None, ago(-60)])
def test_a_campaign_with_an_unknown_start_is_unknown(since: str | None) -> None:
    states = (CampaignState("c", "PROCESSING", since, None),)
    assessment = assessed("campaign-stuck", replace(WELL, campaigns=states))
    assert isinstance(assessment, Assessment) and set(assessment.unknown) == {"c"}


def test_a_draw_that_stopped_at_a_file_that_differs_is_the_cause_of_what_follows() -> None:
    stopped = "draws/c/phase-1/seed.json is missing, the draw wrote ab"
    state = CampaignState("c", "PROCESSING", ago(9_000), None, stopped=stopped)
    snapshot = replace(scheduler(failed_runs=(FailedRun("r1", "draw", ago(60), "c"),)), campaigns=(state,))
    ((subject, severity, line),) = found("draw-input-differs", snapshot)
    assert (subject, severity) == ("c", "critical") and stopped in line
    for name in ("campaign-stuck", "selection-run"):
        assessment = assessed(name, snapshot)
        assert isinstance(assessment, Assessment)
        assert "draw-input-differs:c" in assessment.findings[0].because
    assert found("draw-input-differs", replace(WELL, campaigns=(replace(state, stopped=""),))) == []


def test_drift_of_which_reconcile_tells() -> None:
    def of(**differences: int) -> Snapshot:
        return replace(WELL, parity=ParityState(ago(60), differences))

    ((subject, severity, line),) = found("drift", of(missing=2, not_yet=5, stale=1))
    assert (subject, severity) == ("replica", "warning")
    assert line == "the replica differs from its source in 3 entries: 2 missing, 1 stale"
    assert found("drift", of(missing=100))[0][1] == "critical"
    assert assessed("drift", replace(WELL, parity=None)) == Assessment(early=frozenset({"replica"}))


def test_drift_that_a_second_look_found_counts_also_while_the_result_of_reconcile_is_unread() -> None:
    one, many = (drain("save", differing={"stale": number, "not_yet": 9}) for number in (1, 100))
    line = "what the drain save had saved differs a minute later in 1 entry: 1 stale"
    for parity in (WELL.parity, None, UNREAD):
        assert found("drift", replace(WELL, drains=(one,), parity=parity)) == [("save", "warning", line)]
    assert found("drift", replace(WELL, drains=(many,)))[0][:2] == ("save", "critical")
    both = replace(WELL, drains=(one,), parity=ParityState(ago(60), {"missing": 1}))
    assert [each[0] for each in found("drift", both)] == ["replica", "save"]
    for part, subject in (("parity", "replica"), ("drains", "save")):
        assert assessed("drift", replace(WELL, **{part: UNREAD})) == Assessment(unknown={subject: UNREAD})


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (CertificateState("qa", 20.0), []),
        (CertificateState("qa", 19.9), [("qa-ends", "warning")]),
        (CertificateState("qa", 4.9), [("qa-ends", "critical")]),
        (CertificateState("qa", -1.0), [("qa-ends", "critical")]),
        (CertificateState("qa", None), []),
        (CertificateState("qa", None, trouble="no such secret"), [("qa-trouble", "warning")]),
        (CertificateState("qa", 60.0, trouble="another key", unusable=True), [("qa-trouble", "critical")]),
    ],
)
def test_a_certificate_that_ends_or_does_not_fit(state: CertificateState, expected: list[Any]) -> None:
    lines = found("certificates", replace(WELL, certificates=(state,)))
    assert [each[:2] for each in lines] == expected


@pytest.mark.parametrize("ahead", [-61.0, 61.0, 365 * DAY])
def test_with_a_wrong_clock_only_conditions_without_times_are_assessed(ahead: float) -> None:
    bad = replace(WELL, queues=(queue("analytics-queue-dlq", 2),), stream=StreamState(1, 19 * 3600.0))
    look = given(bad)
    unread = assess(condition("data-loss"), look, clock_ahead_seconds=ahead)
    assert isinstance(unread, Unread) and unread.dependency == "clock"
    dead = assess(condition("dead-letters"), look, clock_ahead_seconds=ahead)
    assert isinstance(dead, Assessment) and dead.findings
    assert isinstance(assess(condition("data-loss"), look, clock_ahead_seconds=50), Assessment)


def test_conditions_that_compare_times_say_so() -> None:
    later = replace(WELL, at=ago(-400 * DAY))
    context = given(later, sensor_seen_at=NOW)
    changed = {each.name for each in TABLE if each != RENEWAL and each.assess(context) != Assessment()}
    assert changed == {"scheduler", "watcher"}
    assert all(condition(name).timed for name in changed)


def test_a_defect_of_one_condition_is_not_known_and_harms_no_other() -> None:
    def defect(_: Any) -> Assessment:
        raise KeyError("ada@example.com")

    broken = replace(condition("drift"), assess=defect)
    answer = assess(broken, given(WELL), clock_ahead_seconds=0)
    assert answer == Unread("defect in the condition: KeyError")


FUNCTION = WELL.function


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"errors": 400}, ("errors", "critical", "400 of 5000 calls of checkEligibility ended in an error")),
        ({"errors": 250}, None),
        ({"calls": 2, "errors": 2}, None),
        (
            {"calls": 0, "throttles": 3},
            ("throttles", "critical", "3 of 3 calls of checkEligibility were thr"),
        ),
        ({"unknown": 300}, ("unknown", "critical", "300 of 5000 verdicts of checkEligibility were UNKNOWN")),
        ({"duration_p95_seconds": 23.0}, None),
        (
            {"duration_p95_seconds": 23.3},
            ("duration", "warning", "calls of checkEligibility take 23.3 s (p95)"),
        ),
        ({"duration_p95_seconds": None, "calls": 0, "errors": 0, "unknown": 0}, None),
    ],
)
def test_the_function_that_fans_ask_is_watched_like_a_drain(
    facts: dict[str, Any], expected: tuple[str, str, str] | None
) -> None:
    assert isinstance(FUNCTION, FunctionState)
    lines = found("eligibility", replace(WELL, function=replace(FUNCTION, **facts)))
    assert len(lines) == (expected is not None)
    if expected:
        assert lines[0][:2] == expected[:2] and lines[0][2].startswith(expected[2])


def test_verdicts_that_an_outage_makes_unknown_come_of_it() -> None:
    assert isinstance(FUNCTION, FunctionState)
    read = assessed("eligibility", replace(WELL, function=replace(FUNCTION, unknown=5000)))
    assert isinstance(read, Assessment)
    assert "dependency-down:mongo" in read.findings[0].because


def test_lines_that_no_longer_come_are_a_finding_where_an_agent_collects_them() -> None:
    assert isinstance(WELL.lines, LinesState)
    none = replace(WELL, lines=replace(WELL.lines, arrived=False))
    ((subject, severity, line),) = found("log-lines", none)
    assert (subject, severity) == ("log-group", "warning")
    assert line.startswith("no line of a pod came to /qa-regworkers for 15 min")
    assert found("log-lines", replace(WELL, lines=None)) == []
