"""Who takes part: every entry is judged once, and everybody left out has a reason."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from fairdraw.maths.leaves import UNIT, unit_of
from regworkers_core.adapters.judged_entries import EXCLUSIONS, POOL, JudgedEntry
from regworkers_core.domain.keys import EntryKey
from regworkers_core.selection.draw.freezing import PoolCounts, write_pool
from tests.selection.draw.world import CAMPAIGN, entry

MARKETS = frozenset({"berlin", "paris"})
published_unit = partial(unit_of, bytes(32), CAMPAIGN)


def pooled(folder: Path, *entries: dict[str, Any]) -> tuple[PoolCounts, list[dict[str, Any]], dict[str, str]]:
    """Counts, rows of the pool, and the reason of every excluded entry."""
    judged = [JudgedEntry.of(EntryKey(CAMPAIGN, each["entryId"]), each) for each in entries]
    counts = write_pool(judged, MARKETS, folder, published_unit)
    excluded = pq.read_table(folder / EXCLUSIONS).to_pylist()
    return (
        counts,
        pq.read_table(folder / POOL).to_pylist(),
        {row["entry_id"]: row["reason"] for row in excluded},
    )


def test_an_entry_without_unit_and_weight_is_its_own_unit_with_one_ticket(tmp_path: Path) -> None:
    _, (row,), _ = pooled(tmp_path, entry(1, unit=None, weight=None))
    assert (row["unit"], row["weight"]) == (row["ref"], 1)


def test_a_household_is_published_under_the_campaigns_key_and_never_as_it_is_stored(tmp_path: Path) -> None:
    _, rows, _ = pooled(tmp_path, entry(1, unit="home-7"), entry(2, unit="home-7"), entry(3, unit="home-8"))
    assert [row["unit"] for row in rows] == [*map(published_unit, ["home-7", "home-7", "home-8"])]
    assert all(UNIT.fullmatch(row["unit"]) for row in rows) and rows[0]["unit"] != rows[2]["unit"]


@pytest.mark.parametrize("name", ["ref", "unit", "segments", "markets"])
def test_what_is_no_id_is_in_no_file_of_a_draw(tmp_path: Path, name: str) -> None:
    planted = "fan@planted.example"
    odd = entry(1, **{name: [planted, "loyal"] if name in ("segments", "markets") else planted})
    counts, _, excluded = pooled(tmp_path, odd, entry(2))
    assert counts.entries == 2 and len(excluded) == 1
    for path in tmp_path.iterdir():
        assert planted not in str(pq.read_table(path).to_pylist())


def test_segments_are_sorted_and_unique(tmp_path: Path) -> None:
    _, (row,), _ = pooled(tmp_path, entry(1, segments=["vip", "loyal", "vip"]))
    assert row["segments"] == ["loyal", "vip"]


def test_unknown_and_repeated_markets_are_dropped_and_counted(tmp_path: Path) -> None:
    counts, (row,), _ = pooled(tmp_path, entry(1, markets=["paris", "atlantis", "paris", "berlin"]))
    assert row["preferences"] == ["paris", "berlin"]
    assert counts.dropped_preferences == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"markets": ["atlantis"]}, "NO_MARKET"),
        ({"markets": None}, "NO_MARKET"),
        ({"ref": None}, "INVALID_REF"),
        ({"ref": "a|b"}, "INVALID_REF"),
        ({"ref": "a\nb"}, "INVALID_REF"),
        ({"ref": "a" * 65}, "INVALID_REF"),
        ({"ref": "u-" + "a" * 43}, "INVALID_REF"),
        ({"unit": "house 7"}, "INVALID_UNIT"),
        ({"weight": 0}, "INVALID_WEIGHT"),
        ({"weight": 65}, "INVALID_WEIGHT"),
        ({"segments": ["loyal|vip"]}, "INVALID_SEGMENT"),
    ],
)
def test_an_entry_that_cannot_take_part_is_left_out_with_its_reason(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    counts, rows, excluded = pooled(tmp_path, entry(1, **changes), entry(2))
    assert excluded == {"e1": reason}
    assert [row["entry_id"] for row in rows] == ["e2"]
    assert counts.entries == counts.eligible + sum(counts.excluded.values()) == 2


def test_an_entry_of_which_a_newer_state_is_refused_takes_no_part(tmp_path: Path) -> None:
    judged = [
        JudgedEntry.of(EntryKey(CAMPAIGN, each["entryId"]), each, is_rejected=number == 1)
        for number, each in enumerate((entry(1), entry(2)), 1)
    ]
    counts = write_pool(judged, MARKETS, tmp_path, published_unit)
    assert (counts.entries, counts.eligible, dict(counts.excluded)) == (2, 1, {"REJECTED": 1})


def test_nothing_of_a_mail_address_is_kept_but_the_domain_that_was_judged_to_be_one_of_many(
    tmp_path: Path,
) -> None:
    _, (row,), _ = pooled(tmp_path, entry(1, email="Zoë.Łukasz@Example.COM"))
    assert row["mail_domain"] == "other"
    assert "Zo" not in str(row) and "example" not in str(row).lower()
