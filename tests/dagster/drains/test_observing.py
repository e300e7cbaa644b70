"""When a verdict on the dependencies is written."""

from __future__ import annotations

from regworkers_dagster.drains.observing import SILENT_PROBES, RecordedState


def probes(*unavailable: set[str]) -> list[set[str] | None]:
    """What each look in turn has written, the cursor kept as the daemon keeps it."""
    recorded, written = RecordedState({}, {}), []
    for each in unavailable:
        written.append(recorded.listen(each))
        recorded = RecordedState.parse(recorded.cursor())
    return written


def test_the_first_look_at_which_all_answer_is_a_verdict_also_when_an_earlier_one_met_a_start() -> None:
    assert probes(set(), set()) == [set(), None]
    assert probes({"mongo"}, set(), set()) == [None, set(), None]


def test_who_is_silent_for_some_looks_in_a_row_fails_it_once_and_whose_return_is_written_too() -> None:
    silent = [{"mongo"}] * SILENT_PROBES
    assert probes(set(), *silent, {"mongo"}, set()) == [
        set(),
        *[None] * (SILENT_PROBES - 1),
        {"mongo"},
        None,
        set(),
    ]
