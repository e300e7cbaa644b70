"""Work that is due and not worked off: what counts as due, when it is too long, and that it is reported once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from regworkers_core.domain.snapshot import (
    BlownFuse,
    LastAcknowledged,
    ObjectiveState,
    PausedDrain,
    Severity,
    Share,
    Snapshot,
    StreamState,
    Unread,
)
from regworkers_core.domain.timestamps import duration
from regworkers_core.operations.alerts.conditions import TABLE
from regworkers_core.operations.alerts.conditions.condition import Assessment, Context
from regworkers_core.operations.alerts.evaluate import still_since, watched
from regworkers_core.operations.alerts.grouping import Previous, group_and_inhibit
from tests.operations.alerts.world import NOW, SETTINGS, UNREAD, WELL, ago, assessed, drain, found, queue

QUEUES = {"save": "replication-queue", "selections": "selection-queue", "publish": "analytics-queue"}
REPLICATION = {"enqueue", "save"}


def due(*drains: str, **facts: Any) -> Snapshot:
    """With work for these drains."""
    snapshot = WELL
    if "enqueue" in drains:
        snapshot = replace(snapshot, stream=StreamState(1, 30.0, unread=True))
    queues = tuple(queue(name, 3) for each, name in QUEUES.items() if each in drains)
    return replace(snapshot, queues=queues, messages_due="notifications" in drains, **facts)


def holds(drain: str, still: float, snapshot: Snapshot | None = None) -> list[tuple[str, str, str]]:
    name = "stream-lag" if drain == "enqueue" else "drain-stalled"
    shown = due(drain) if snapshot is None else snapshot
    return found(name, shown, still_seconds={f"drain:{drain}": still})


@pytest.mark.parametrize("name", ["enqueue", "save", "selections", "notifications", "publish"])
def test_work_of_which_nothing_was_acknowledged_for_too_long_is_reported(name: str) -> None:
    limit = 60.0 if name in REPLICATION else 300.0
    # Two evaluations a minute apart may be a little less.
    assert holds(name, limit - 6) == []
    ((subject, severity, line),) = holds(name, limit)
    assert subject == ("demand-table" if name == "enqueue" else name)
    assert severity == ("warning" if name == "publish" else "critical")
    assert f"the drain {name} has acknowledged nothing for {duration(limit)}: " in line


def test_the_line_says_what_waits_and_how_many_runs_live() -> None:
    last = LastAcknowledged("save", 7, ago(600))
    waiting = replace(due("save"), queues=(queue("replication-queue", 9, in_flight=2),), acknowledged=(last,))
    for active, says in ((0, "none of its runs lives"), (1, "1 of its runs live")):
        ((_, _, line),) = holds("save", 61.0, replace(waiting, drains=(drain("save", active_runs=active),)))
        assert line == (
            "the drain save has acknowledged nothing for 61 s: 11 messages wait on replication-queue, 2 of them in "
            f"flight, {says}"
        )
    assessment = assessed("drain-stalled", waiting, still_seconds={"drain:save": 61.0})
    assert isinstance(assessment, Assessment)
    assert assessment.findings[0].details == {"stalledSeconds": 61, "lastAcknowledgedAt": ago(600)}


@pytest.mark.parametrize("name", ["enqueue", "save", "selections", "notifications", "publish"])
def test_without_work_that_is_due_nothing_is_stalled(name: str) -> None:
    assert holds(name, 9999.0, WELL) == []
    paused = PausedDrain(name, ago(60), "ada", "a restore", ago(-1740))
    assert holds(name, 9999.0, due(name, pauses=(paused,))) == []


def test_a_message_that_a_hanging_drain_holds_is_due_and_one_that_is_delayed_is_not() -> None:
    hangs = replace(WELL, queues=(queue("replication-queue", 0, in_flight=1),))
    assert len(holds("save", 61.0, hangs)) == 1
    later = replace(WELL, queues=(queue("replication-queue", 0, delayed=5),))
    assert holds("save", 61.0, later) == []


def test_records_whose_age_is_not_known_are_due() -> None:
    unread = replace(WELL, stream=StreamState(1, None, unread=True))
    assert [each[:2] for each in holds("enqueue", 61.0, unread)] == [("demand-table", "critical")]
    assert isinstance(assessed("stream-lag", unread), Unread), "as long as it may be worked off"


@pytest.mark.parametrize("part", ["pauses", "acknowledged"])
def test_without_pauses_or_acknowledgements_nothing_is_known(part: str) -> None:
    blind = replace(due("save"), **{part: UNREAD})
    assert assessed("drain-stalled", blind, still_seconds={"drain:save": 99.0}) == UNREAD


def test_what_could_not_be_read_is_not_known_of_its_drain_alone() -> None:
    blind = replace(due("selections"), unread_queues={"qa-replication-queue": UNREAD}, messages_due=UNREAD)
    assessment = assessed("drain-stalled", blind, still_seconds={"drain:selections": 300.0})
    assert isinstance(assessment, Assessment)
    assert assessment.unknown == {"save": UNREAD, "notifications": UNREAD}
    assert [each.subject for each in assessment.findings] == ["selections"]


# Looks


def look(
    snapshot: Snapshot, known: Mapping[str, tuple[str, float]], now: float
) -> tuple[dict[str, float], dict[str, tuple[str, float]]]:
    """What one evaluation finds and keeps."""
    beats = {name: beat for name, beat in watched(snapshot, SETTINGS).items() if not isinstance(beat, Unread)}
    still = still_since(beats, known, now)
    return still, {name: known[name] if still.get(name) else (beat, now) for name, beat in beats.items()}


def acknowledged(mark: int) -> tuple[LastAcknowledged, ...]:
    return (LastAcknowledged("save", mark, ago(0)),)


def test_one_look_finds_nothing_and_the_second_counts_from_the_first() -> None:
    still, known = look(due("save"), {}, NOW)
    assert still == {}
    still, known = look(due("save"), known, NOW + 60)
    assert still == {"drain:save": 60}
    still, _ = look(due("save"), known, NOW + 120)
    assert still == {"drain:save": 120}


def test_an_acknowledgement_between_two_looks_begins_again_however_deep_the_queue_is() -> None:
    _, known = look(due("save", acknowledged=acknowledged(4)), {}, NOW)
    still, known = look(due("save", acknowledged=acknowledged(5)), known, NOW + 60)
    assert still == {"drain:save": 0}
    still, known = look(due("save", acknowledged=acknowledged(5)), known, NOW + 120)
    assert still == {"drain:save": 60}


def test_a_queue_that_was_empty_at_an_evaluation_begins_again() -> None:
    _, known = look(due("save"), {}, NOW)
    _, known = look(WELL, known, NOW + 60)
    still, _ = look(due("save"), known, NOW + 120)
    assert still == {}


def test_a_first_acknowledgement_ever_counts() -> None:
    _, known = look(due("save"), {}, NOW)
    still, _ = look(due("save", acknowledged=acknowledged(1)), known, NOW + 60)
    assert still == {"drain:save": 0}


def test_the_first_look_after_a_pause_takes_what_waited_for_an_operator_as_a_warning() -> None:
    paused = PausedDrain("enqueue", ago(60), "ada", "a restore", ago(-600))
    late = replace(due("enqueue"), stream=StreamState(1, 90.0, unread=True))
    _, known = look(replace(late, pauses=(paused,)), {}, NOW)
    still, known = look(late, known, NOW + 60)
    assert [each[1] for each in found("stream-lag", late, still_seconds=still)] == ["warning"]
    still, _ = look(late, known, NOW + 120)
    assert [each[1] for each in found("stream-lag", late, still_seconds=still)] == ["critical"]


# One page


def alerts(snapshot: Snapshot, **still: float) -> dict[str, Severity]:
    context = Context(
        snapshot, SETTINGS, still_seconds={f"drain:{name}": each for name, each in still.items()}
    )
    found = {condition.name: condition.assess(context) for condition in TABLE}
    grouped = group_and_inhibit(TABLE, found, Previous((), {}, NOW), SETTINGS.alerts)
    return {alert.key: alert.severity for scope in grouped.scopes.values() for alert in scope.alerts}


def test_a_stall_of_one_drain_is_one_page() -> None:
    assert alerts(due("save"), save=61.0) == {"drain-stalled:save": Severity.CRITICAL}
    late = replace(due("enqueue"), stream=StreamState(1, 90.0, unread=True))
    assert alerts(late, enqueue=61.0) == {"stream-lag:demand-table": Severity.CRITICAL}


def test_of_all_drains_that_stall_at_once_the_first_is_reported() -> None:
    every = dict.fromkeys(("enqueue", "save", "selections", "notifications", "publish"), 400.0)
    assert alerts(due(*every), **every) == {"stream-lag:demand-table": Severity.CRITICAL}
    del every["enqueue"]
    assert alerts(due(*every), **every) == {"drain-stalled:save": Severity.CRITICAL}


def test_what_keeps_a_drain_from_its_work_is_reported_in_its_place() -> None:
    fuse = BlownFuse("save", "f1", "DEFECT: KeyError at saver.py:7", ago(60), "run1")
    assert alerts(due("save", fuses=(fuse,)), save=61.0) == {"drain-fuse:save": Severity.CRITICAL}


def test_what_is_deep_because_of_a_stall_is_its_consequence() -> None:
    deep = replace(due("save"), queues=(queue("replication-queue", 30_000),))
    assert alerts(deep, save=61.0) == {"drain-stalled:save": Severity.CRITICAL}
    assert alerts(deep, save=0.0) == {"queue-depth:replication-queue": Severity.WARNING}


def test_changes_that_were_late_because_of_a_stall_are_its_consequence() -> None:
    windows = dict.fromkeys((3600.0, 300.0, 21_600.0, 1800.0, 259_200.0), Share(1000, 1000))
    burns = ObjectiveState("freshness", "demand-table", windows, windows)
    assert alerts(due("save", objectives=(burns,)), save=61.0) == {"drain-stalled:save": Severity.CRITICAL}


@pytest.mark.parametrize(
    ("age", "still", "severity"),
    [(61.0, None, "critical"), (61.0, 30.0, "critical"), (61.0, 0.0, "warning"), (601.0, 0.0, "critical")],
)
def test_a_stream_that_lags_and_is_read_warns_up_to_the_second_step(
    age: float, still: float | None, severity: str
) -> None:
    late = replace(WELL, stream=StreamState(1, age, unread=True))
    facts = {} if still is None else {"still_seconds": {"drain:enqueue": still}}
    assert [each[1] for each in found("stream-lag", late, **facts)] == [severity]


def test_a_stream_that_waits_for_a_paused_drain_does_not_page() -> None:
    paused = PausedDrain("enqueue", ago(900), "ada", "a restore", ago(-900))
    late = replace(WELL, stream=StreamState(1, 900.0, unread=True), pauses=(paused,))
    assert alerts(late) == {"stream-lag:demand-table": Severity.WARNING}
    over = replace(late, pauses=(replace(paused, until=ago(1)),))
    assert alerts(over) == {
        "stream-lag:demand-table": Severity.WARNING,
        "drain-paused:enqueue": Severity.CRITICAL,
    }
