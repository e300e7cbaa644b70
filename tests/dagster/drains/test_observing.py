"""When a verdict on the dependencies is written, and what counts as fresh."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from regworkers_core.adapters.mongo.activity import minute_of
from regworkers_core.domain.activity import DrainMinute
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.replication.drains import SAVE
from regworkers_core.settings import Settings
from regworkers_dagster.drains import observing
from regworkers_dagster.drains.observing import (
    SILENT_PROBES,
    Answering,
    Reading,
    RecordedState,
    is_empty,
    minutes_outside,
    observed,
    recorded_event,
    unless_known,
)
from regworkers_dagster.replication import ENTRIES
from regworkers_dagster.selection.specs import OUTBOX
from tests.dagster.support import plain


def probes(*unavailable: set[str]) -> list[frozenset[str] | None]:
    """What each look in turn has written, the cursor kept as the daemon keeps it."""
    recorded, written = RecordedState({}, {}), []
    for each in unavailable:
        written.append(recorded.listen(each))
        recorded = RecordedState.parse(recorded.cursor())
    return written


def test_the_first_look_is_a_verdict_as_it_is_so_that_a_check_never_waits_for_its_result() -> None:
    assert probes(set(), set()) == [set(), None]
    assert probes({"mongo"}, {"mongo"}, set(), set()) == [{"mongo"}, None, set(), None]
    assert probes({"mongo"}, {"sqs"}, {"sqs"}, {"sqs"}) == [{"mongo"}, set(), None, {"sqs"}]


def test_who_is_silent_for_some_looks_in_a_row_fails_it_once_and_whose_return_is_written_too() -> None:
    silent = [{"mongo"}] * SILENT_PROBES
    assert probes(set(), *silent, {"mongo"}, set()) == [
        set(),
        *[None] * (SILENT_PROBES - 1),
        {"mongo"},
        None,
        set(),
    ]


def test_what_is_up_to_date_is_a_materialisation_and_all_else_an_observation() -> None:
    def kind(reading: Reading) -> type:
        return type(recorded_event(reading))

    assert kind(Reading.of(ENTRIES, {"documents": 3.0})) is dg.AssetMaterialization
    assert kind(Reading.of(ENTRIES, {"documents": 3.0}, current=False)) is dg.AssetObservation
    assert kind(Reading.of(ENTRIES, {"documents": None})) is dg.AssetObservation, "unknown is not fresh"
    assert kind(Reading.of(OUTBOX, {"markets_due": 0.0})) is dg.AssetObservation, "it has no policy"
    event = recorded_event(Reading.of(ENTRIES, {"documents": 3.0}))
    assert event.tags == {"dagster/data_version": "continuous"}, "or all downstream is out of date"


class Log:
    """A drain log. `unavailable`: it cannot be read."""

    def __init__(self, *minutes: DrainMinute) -> None:
        self.minutes, self.unavailable = minutes, False

    def between(self, start: str, end: str) -> list[DrainMinute]:
        if self.unavailable:
            raise TransientFailure("mongo", "AutoReconnect")
        return [each for each in self.minutes if start <= each.minute < end]


def test_minutes_of_drains_that_are_no_runs_are_observed_once_and_an_outage_only_delays_them() -> None:
    now = time.time()
    counts = {"received": 60, "applied": 59, "stale": 1}
    first = DrainMinute("save", "pod-1", minute_of(now - 300), counts, 1, 0.1, 0.1, 5.0, 0.4, {"mongo": 2})
    log = Log(
        first,
        replace(first, run_id="pod-2", lag_p95_seconds=0.7),
        replace(first, run_id="a-run"),
        replace(first, drain="publish"),
        replace(first, minute=minute_of(now - 240), counts={"second_look": 60}),
        replace(first, minute=minute_of(now - 180), lag_p95_seconds=None),
        # Not complete yet, and too old.
        replace(first, minute=minute_of(now)),
        replace(first, minute=minute_of(now - 3600)),
    )
    run = SimpleNamespace(dagster_run=SimpleNamespace(run_id="a-run"))
    instance: Any = SimpleNamespace(get_run_records=lambda _: [run])

    runtime: Any = SimpleNamespace(drain_log=log)

    def look(cursor: str) -> dg.SensorResult:
        on_minutes = partial(minutes_outside, instance, runtime, {ENTRIES.key: SAVE})
        return observed(Settings(), cursor, [], on_minutes=on_minutes)

    cursor = RecordedState({}, {}, minute=minute_of(now - 7200)).cursor()
    log.unavailable = True
    delayed = look(cursor)
    assert not delayed.asset_events and delayed.cursor
    log.unavailable = False
    found = look(delayed.cursor)
    together, alone = (
        {name: each.value for name, each in event.metadata.items()} for event in found.asset_events
    )
    assert together == {
        **dict.fromkeys(SAVE.outcomes, 0),
        **{name: 2 * number for name, number in counts.items()},
        "minute": first.minute,
        "items_per_second": 2.0,
        "lag_p95_seconds": 0.7,
        "calls_mongo": 4,
    }
    assert alone["received"] == 60 and "lag_p95_seconds" not in alone
    assert found.cursor and not look(found.cursor).asset_events
    assert not look("").asset_events, "what was before the first look is not observed"


def finding(description: str, *, passed: bool = False) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("system_health"),
        check_name="doctor_finds_nothing",
        passed=passed,
        description=description,
        severity=dg.AssetCheckSeverity.ERROR,
    )


def test_a_finding_is_written_when_it_changes_and_not_at_each_look(monkeypatch: pytest.MonkeyPatch) -> None:
    with dg.DagsterInstance.ephemeral() as instance:

        def written(description: str, *, passed: bool = False) -> bool:
            found = unless_known(instance, finding(description, passed=passed))
            for each in found:
                instance.report_runless_asset_event(each)
            return bool(found)

        assert written("critical: the oldest unread record is 97 s old")
        assert not written("critical: the oldest unread record is 98.5 s old"), "only its age changed"
        assert written("critical: 3 dead letters"), "as severe, and another one"
        assert not written("critical: 4 dead letters")
        monkeypatch.setattr(observing, "_REPEAT_SECONDS", 0.0)
        assert written("critical: 4 dead letters"), "after a while the numbers count, too"
        assert not written("critical: 4 dead letters"), "nothing changed"
        assert written("nothing is wrong", passed=True)
        assert not written("nothing at all is wrong", passed=True)


def test_who_does_not_answer_and_why_is_written_when_the_reason_changes() -> None:
    asset = dg.AssetKey("entries")
    cursor, said = None, []
    with dg.DagsterInstance.ephemeral() as instance:
        for state in ("time-out", "time-out", "refused"):
            answering = Answering({"mongo": state}, "dependencies_answer", asset)
            answer = observed(Settings(), cursor, [], answering, news=partial(unless_known, instance))
            cursor = answer.cursor
            for event in answer.asset_events:
                instance.report_runless_asset_event(event)
                said.append(event.description)
    assert said == ["mongo: time-out", "mongo: refused"]


def test_a_dead_letter_queue_is_judged_as_by_the_alerts() -> None:
    some = Settings.model_validate({"alerts": {"deadLetters": 2}})
    for settings, number, passed in (
        (Settings(), 0, True),
        (Settings(), 1, False),
        (some, 2, True),
        (some, 3, False),
    ):
        found = is_empty(settings, "replication_dlq", number)
        assert (found.passed, plain(found.metadata)) == (passed, {"messages": number})
