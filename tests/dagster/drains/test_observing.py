"""When a verdict on the dependencies is written, and what counts as fresh."""

from __future__ import annotations

import dagster as dg

from regworkers_dagster.drains.observing import SILENT_PROBES, Reading, RecordedState, recorded_event
from regworkers_dagster.replication.assets import ENTRIES
from regworkers_dagster.selection.specs import OUTBOX


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
