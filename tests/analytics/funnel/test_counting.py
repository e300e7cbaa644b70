"""The numbers of the funnel on files as the sources leave them, and the remarks on those that do not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairdraw.terms import ALGORITHM
from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseRecord
from regworkers_core.analytics.funnel import assess
from regworkers_core.analytics.funnel_counting import (
    CODED,
    FROZEN,
    MESSAGES,
    NONE,
    OUTCOMES,
    REPLICA,
    SOURCE,
    STAGES,
    Counting,
    Counts,
    Stage,
    StagedFiles,
)
from regworkers_core.operation import Remark

MARKETS = ("berlin", "paris")
DAY, AS_OF = "2026-01-15", "2026-02-01T00:00:00.000Z"
_TEXT, _TEXTS = pa.string(), pa.list_(pa.string())
_ENTRY = {"entry_id": _TEXT, "markets": _TEXTS, "segments": _TEXTS, "day": _TEXT}
_COLUMNS: Mapping[str, Mapping[str, Any]] = {
    SOURCE: _ENTRY,
    REPLICA: _ENTRY,
    FROZEN: _ENTRY,
    OUTCOMES: {"entry_id": _TEXT, "market": _TEXT, "outcome": _TEXT},
    CODED: {"entry_id": _TEXT, "market": _TEXT, "phase": pa.int32()},
    MESSAGES: {"entry_id": _TEXT, "market": _TEXT, "phase": pa.int32(), "type": _TEXT, "status": _TEXT},
}


def staged(folder: Path, files: Mapping[str, Sequence[tuple[Any, ...]]], **phase: Any) -> StagedFiles:
    """Files with these rows; the draw has come as far as there are files of it. `phase` are fields of its record."""
    for name, columns in _COLUMNS.items():
        rows = [dict(zip(columns, row, strict=True)) for row in files.get(name, ())]
        schema = pa.schema([pa.field(column, kind) for column, kind in columns.items()])
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / name)
    number = phase.pop("number", 1)
    pool, outcomes = files.get(FROZEN, ()), files.get(OUTCOMES, ())
    fields = {
        "status": "COMPLETED" if OUTCOMES in files else "FROZEN",
        "asOf": AS_OF,
        "terms": {"algorithm": ALGORITHM},
        "freeze": {"count": len(pool), "entries": len(pool)},
        "outcomes": {"WINNER": sum(row[2] == "WINNER" for row in outcomes)},
        **phase,
    }
    record = PhaseRecord(number, fields)
    draw = DrawRecord("summer", "summer", 1, {number: record}, {}, {})
    has_pool, has_result = FROZEN in files, OUTCOMES in files
    return StagedFiles(
        folder,
        draw if has_pool else None,
        record if has_pool else None,
        record if has_result else None,
        removed=0,
    )


def entry(number: int, markets: Sequence[str] = MARKETS, segments: Sequence[str] = ()) -> tuple[Any, ...]:
    return f"e{number}", list(markets), list(segments), DAY


def counted(files: StagedFiles, markets: Sequence[str] = MARKETS) -> Counts:
    (files.folder / "funnel.duckdb").unlink(missing_ok=True)
    with Counting(files.folder, 64) as counting:
        return counting.count(files, markets)


def assessed(files: StagedFiles) -> tuple[Mapping[Stage, str], tuple[Remark, ...]]:
    return assess("summer", counted(files), files)


def said(files: StagedFiles) -> list[tuple[str, str]]:
    return [(remark.level, remark.text) for remark in assessed(files)[1]]


def drawn(number: int = 2, market: str = "paris") -> dict[str, list[tuple[Any, ...]]]:
    """Entries that are all winners of one market, coded and notified."""
    entries = [entry(each) for each in range(number)]
    return {
        SOURCE: entries,
        REPLICA: entries,
        FROZEN: entries,
        OUTCOMES: [(each[0], market, "WINNER") for each in entries],
        CODED: [(each[0], market, 1) for each in entries],
        MESSAGES: [(each[0], market, 1, "winner", "SENT") for each in entries],
    }


def test_a_completed_campaign_has_no_remarks(tmp_path: Path) -> None:
    files = staged(tmp_path, drawn())
    assert counted(files).totals == dict.fromkeys(STAGES, 2)
    assert assessed(files) == ({}, ())


def test_an_entry_counts_in_each_preference_up_to_eligible_and_then_where_it_won(tmp_path: Path) -> None:
    rows = drawn(3)
    rows[OUTCOMES][0] = ("e0", "berlin", "WINNER")
    rows[OUTCOMES][2] = ("e2", "", "WAITLIST")
    markets = counted(staged(tmp_path, rows)).markets
    assert markets["eligible"].to_dict() == {"berlin": 3, "paris": 3}
    assert markets["won"].to_dict() == {"berlin": 1, "paris": 1}


def test_invalid_markets_segments_and_days_count_as_none(tmp_path: Path) -> None:
    rows = [("e1", ["atlantis"], [], NONE), ("e2", ["paris", "paris", "x"], ["a", "a", "b"], DAY)]
    counts = counted(staged(tmp_path, {SOURCE: rows}))
    assert counts.markets["registered"].to_dict() == {"berlin": 0, "paris": 1, NONE: 1}
    assert counts.segments["registered"].to_dict() == {"a": 1, "b": 1, NONE: 1}
    assert counts.days["registered"].to_dict() == {"2026-01-15": 1, NONE: 1}


def test_a_campaign_without_markets_or_entries_has_numbers(tmp_path: Path) -> None:
    counts = counted(staged(tmp_path, {}), ())
    assert counts.totals == dict.fromkeys(STAGES, 0)
    assert counts.markets.empty and counts.days.empty


def test_preferences_come_from_the_pool_once_it_exists(tmp_path: Path) -> None:
    now, frozen = entry(1, ["berlin"]), entry(1, ["paris"], ["loyal"])
    counts = counted(staged(tmp_path, {SOURCE: [now], REPLICA: [now], FROZEN: [frozen]}))
    assert counts.markets["registered"].to_dict() == {"berlin": 0, "paris": 1}
    assert list(counts.segments.index) == ["loyal"]


def test_an_entry_of_two_phases_counts_once_where_it_is_in_the_later_one(tmp_path: Path) -> None:
    rows = drawn(1)
    rows[CODED].append(("e0", "berlin", 2))
    counts = counted(staged(tmp_path, rows))
    assert counts.totals[Stage.CODED] == 1
    assert counts.markets["coded"].to_dict() == {"berlin": 1, "paris": 0}


def test_superseded_messages_are_counted_separately(tmp_path: Path) -> None:
    rows = drawn(2)
    rows[MESSAGES] = [("e0", "paris", 1, "winner", "SUPERSEDED"), ("e1", "paris", 1, "winner", "SENT")]
    counts = counted(staged(tmp_path, rows))
    assert counts.superseded == {"winner": 1} and counts.totals[Stage.NOTIFIED] == 1


def test_unsent_messages_and_those_of_other_entries_do_not_count_as_notified(tmp_path: Path) -> None:
    rows = drawn(2)
    rows[MESSAGES] = [("e0", "paris", 1, "winner", "PENDING"), ("e1", "-", 1, "waitlisted", "SENT")]
    files = staged(tmp_path, rows)
    assert counted(files).sent == {"waitlisted": 1}
    assert assessed(files)[0] == {Stage.NOTIFIED: "no winner has been notified yet"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({SOURCE: [entry(0)]}, "warning: 1 entry in the replica but not in the demand table"),
        ({REPLICA: [entry(0)]}, "warning: 1 entry not replicated"),
        ({FROZEN: [entry(0)]}, "finding: 1 entry won without being in the pool"),
        (
            {OUTCOMES: [("e0", "paris", "WINNER")]},
            "finding: 1 entry with a code but without a seat in phase 1",
        ),
        ({CODED: [("e0", "paris", 1)]}, "finding: 1 entry notified of a win but without a code"),
        (
            {CODED: [("e0", "berlin", 1), ("e1", "paris", 1)]},
            "finding: 1 entry with a code of another market",
        ),
        (
            {MESSAGES: [("e0", "paris", 1, "winner", "SENT")]},
            "note: 1 entry with a code but not notified yet",
        ),
    ],
)
def test_an_inconsistent_number_is_reported_with_its_reason(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    assert [
        line
        for level, text in said(staged(tmp_path, {**drawn(), **change}))
        if (line := f"{level}: {text}").startswith(expected)
    ]


def test_files_of_the_draw_that_are_not_what_it_recorded_are_findings(tmp_path: Path) -> None:
    files = staged(tmp_path, drawn(), freeze={"count": 3}, outcomes={"WINNER": 5})
    assert said(files) == [
        ("finding", "the draw froze 3 entries, its file contains 2"),
        ("finding", "the draw recorded 5 winners, its file contains 2"),
    ]


def test_a_seat_lost_in_a_later_phase_is_a_warning_and_a_market_without_codes_is_named(
    tmp_path: Path,
) -> None:
    rows = drawn(3)
    rows[OUTCOMES][0] = ("e0", "", "STRUCK")
    rows[CODED] = rows[CODED][:2]
    rows[MESSAGES] = rows[MESSAGES][:2]
    blocked = {"paris": {"status": "BLOCKED"}, "berlin": {"status": "COMPLETED"}}
    files = staged(tmp_path, rows, number=2, status="PUBLISHED", markets=blocked)
    assert said(files) == [
        ("warning", "1 entry with a code but without a seat in phase 2"),
        ("warning", "1 entry with a seat but without a code; too few codes in paris"),
    ]


STEPS = st.lists(st.sets(st.sampled_from(range(6))), max_size=12)


@settings(max_examples=10)
@given(passed=STEPS)
def test_whatever_the_sources_hold_every_day_column_adds_up_to_its_stage(
    tmp_path_factory: pytest.TempPathFactory, passed: list[set[int]]
) -> None:
    rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in _COLUMNS}
    for number, reached in enumerate(passed):
        made = {
            SOURCE: entry(number),
            REPLICA: entry(number),
            FROZEN: entry(number),
            OUTCOMES: (f"e{number}", "paris", "WINNER"),
            CODED: (f"e{number}", "paris", 1),
            MESSAGES: (f"e{number}", "paris", 1, "winner", "SENT"),
        }
        for at, (name, row) in enumerate(made.items()):
            if at in reached:
                rows[name].append(row)
    files = staged(tmp_path_factory.mktemp("funnel"), rows)
    counts = counted(files)
    for at, stage in enumerate(STAGES):
        assert counts.totals[stage] == sum(at in reached for reached in passed)
        assert int(counts.days[stage.value].sum()) == counts.totals[stage]
    clean = all(reached == set(range(len(reached))) for reached in passed)
    if clean and not any(len(reached) == 4 for reached in passed):
        assert not [level for level, _ in said(files) if level == "finding"]
