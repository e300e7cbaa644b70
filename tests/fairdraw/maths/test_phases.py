"""Phases: what may change between them, and inputs that cannot be drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fairdraw.errors import DrawError
from fairdraw.large.allocate import LargeEngine as Engine
from fairdraw.large.allocate import compute
from fairdraw.maths.files import LEAVES, MANIFEST, RESULT, SEED, STRIKES, file_hash, sha256_hex
from fairdraw.maths.manifest import (
    Manifest,
    MarketTerms,
    Registrations,
    ReserveTerms,
    SeedFile,
    changed_terms,
)
from fairdraw.maths.plain import PlainEngine
from tests.fairdraw.maths.draws import compute_phase, outcomes_of, write_phase
from tests.fairdraw.maths.oracle import OracleLeaf
from tests.fairdraw.proof.draws import BEACON, SIGNATURE, Terms

LEAVES_OF_TEN: list[OracleLeaf] = [(f"r{number}", f"r{number}", 1, (), ("east",)) for number in range(10)]
LATER = (ReserveTerms("vip", 2), ReserveTerms("crew", 1))
TERMS = Terms([MarketTerms("east", 3, (), LATER), MarketTerms("west", 1)])


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path / "spill")


@pytest.fixture
def phases(tmp_path: Path, engine: Engine) -> tuple[Path, Path]:
    """A first phase that is drawn, and the inputs of a second one."""
    first = write_phase(tmp_path / "phase-1", LEAVES_OF_TEN, TERMS)
    compute_phase(first, engine)
    return first, write_phase(tmp_path / "phase-2", LEAVES_OF_TEN, TERMS, first)


def change_manifest(folder: Path, **changes: object) -> None:
    """Rewrite manifest.json with other fields."""
    manifest = Manifest.parse((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_bytes(replace(manifest, **changes).to_bytes())  # type: ignore[arg-type]


def markets(
    capacity: int, *reserves: ReserveTerms, later: tuple[ReserveTerms, ...] = LATER
) -> tuple[MarketTerms, ...]:
    """Both markets, of which east differs."""
    return (MarketTerms("east", capacity, reserves, later), MarketTerms("west", 1))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"as_of": "2026-11-25T09:00:00.000Z"}, "asOf: the phase before has"),
        ({"wins_per_unit": 2}, "winsPerUnit: the phase before has"),
        ({"waitlist_size": 2}, "waitlistSize: the phase before has"),
        ({"root": sha256_hex(b"other")}, "root: the phase before has"),
        ({"registrations": Registrations(0, 0, 0, "0" * 64, 10, 0)}, "registrations: the phase before has"),
        ({"seed_source": replace(BEACON, round=7)}, "seedSource: the phase before has"),
        ({"campaign_id": "other", "draw_id": "other"}, "campaignId: the phase before has"),
        ({"markets": markets(3)[:1]}, "markets: the phase before has others"),
        ({"markets": markets(3, later=LATER[:1])}, r"markets\[0\].laterReserves: not those"),
        ({"phase": 3}, "one by one"),
        ({"previous": {"manifestHash": "0" * 64, "resultHash": "0" * 64}}, "previous.manifestHash"),
        ({"markets": markets(2)}, r"markets\[0\].capacity: 2, less than 3 before"),
        ({"markets": markets(4, ReserveTerms("vip", 2))}, "2 seats are reserved, 1 are offered"),
        ({"strikes_hash": sha256_hex(b"other")}, "strikesHash"),
        ({"strikes_root": sha256_hex(b"other")}, "strikesRoot"),
    ],
)
def test_a_later_phase_may_not_change_this(
    phases: tuple[Path, Path], engine: Engine, changes: dict[str, object], complaint: str
) -> None:
    first, second = phases
    change_manifest(second, **changes)
    with pytest.raises(DrawError, match=complaint):
        compute_phase(second, engine, first)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (LEAVES, lambda data: data.replace(b"r4|r4|1|", b"r4|r4|2|")),
        (LEAVES, lambda data: data[: data.rindex(b"r9")]),
        (SEED, lambda _: SeedFile.of("0" * 64, BEACON, SIGNATURE).to_bytes()),
    ],
)
def test_leaves_and_seed_are_the_same_in_all_phases(
    phases: tuple[Path, Path], engine: Engine, name: str, change: Callable[[bytes], bytes]
) -> None:
    first, second = phases
    (second / name).write_bytes(change((second / name).read_bytes()))
    with pytest.raises(DrawError) as caught:
        compute_phase(second, engine, first)
    assert caught.value.artefact == name


def test_a_changed_result_of_the_phase_before_is_noticed(phases: tuple[Path, Path], engine: Engine) -> None:
    first, second = phases
    (first / RESULT).write_bytes((first / RESULT).read_bytes().replace(b"WAITLIST", b"UNSELECTED"))
    with pytest.raises(DrawError, match=r"previous\.resultHash"):
        compute_phase(second, engine, first)


def test_a_result_about_other_refs_is_noticed_even_when_its_hash_was_committed_to(
    phases: tuple[Path, Path], engine: Engine
) -> None:
    first, second = phases
    (first / RESULT).write_bytes((first / RESULT).read_bytes().replace(b"r9|", b"rx|"))
    before = Manifest.parse((first / MANIFEST).read_bytes()).hash
    change_manifest(second, previous={"manifestHash": before, "resultHash": file_hash(first / RESULT)})
    with pytest.raises(DrawError, match="not about the same refs"):
        compute_phase(second, engine, first)


def test_the_phase_before_is_needed_from_the_second_on_and_only_then(
    phases: tuple[Path, Path], engine: Engine
) -> None:
    first, second = phases
    for folder, previous in ((first, first), (second, None)):
        with pytest.raises(DrawError, match="the phase before is needed"):
            compute_phase(folder, engine, previous)


def test_winners_keep_their_seats_unless_they_are_struck(tmp_path: Path, engine: Engine) -> None:
    first = write_phase(tmp_path / "phase-1", LEAVES_OF_TEN, TERMS)
    compute_phase(first, engine)
    old = outcomes_of(first)
    won = sorted(ref for ref, row in old.items() if row[2] == "WINNER")
    terms = Terms(markets(4), {won[0]: "FRAUD"})
    second = write_phase(tmp_path / "phase-2", LEAVES_OF_TEN, terms, first)
    summary = compute_phase(second, engine, first)
    new = outcomes_of(second)
    assert new[won[0]] == ("", old[won[0]][1], "STRUCK")
    assert all(new[ref] == old[ref] for ref in won[1:])
    assert (summary.markets["east"].new, summary.markets["east"].winners) == (2, 4)


def test_a_strike_of_no_leaf_is_refused(tmp_path: Path, engine: Engine) -> None:
    folder = write_phase(tmp_path / "phase-1", LEAVES_OF_TEN, Terms(TERMS.markets, {"unknown": "FRAUD"}))
    with pytest.raises(DrawError, match="1 refs are struck, 0 of them have a leaf") as caught:
        compute_phase(folder, engine)
    assert caught.value.artefact == STRIKES


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("r9|r9|1||nowhere", "market 'nowhere' is not in the manifest"),
        ("r9|r9|1||east,east", "duplicate preference in east,east"),
        ("r9|r9|1||east,", "ids are 1 to 64"),
        ("r9|r9|1||", "at least one preference"),
        ("r9|r9|1|b,a|east", "segments must be sorted"),
        ("r9|r9|1|a,,b|east", "ids are 1 to 64"),
    ],
)
def test_leaves_that_cannot_be_drawn_are_refused(
    tmp_path: Path, engine: Engine, line: str, complaint: str
) -> None:
    folder = write_phase(tmp_path / "phase-1", LEAVES_OF_TEN, TERMS)
    text = (folder / LEAVES).read_text().splitlines()
    (folder / LEAVES).write_text("\n".join([*text[:-1], line]) + "\n")
    with pytest.raises(DrawError, match=complaint) as caught:
        compute_phase(folder, engine)
    assert caught.value.artefact == LEAVES


@pytest.mark.parametrize("count", [9, 11, 10**12])
def test_another_number_of_leaves_than_was_committed_to_is_refused(
    tmp_path: Path, engine: Engine, count: int
) -> None:
    folder = write_phase(tmp_path / "phase-1", LEAVES_OF_TEN, TERMS)
    change_manifest(folder, count=count)
    manifest_hash = Manifest.parse((folder / MANIFEST).read_bytes()).hash
    seed = SeedFile.of(manifest_hash, BEACON, SIGNATURE)
    (folder / SEED).write_bytes(seed.to_bytes())
    with pytest.raises(DrawError, match="were committed to") as caught:
        compute_phase(folder, engine)
    assert caught.value.artefact == LEAVES


def test_a_draw_without_leaves_is_valid(tmp_path: Path, engine: Engine) -> None:
    folder = write_phase(tmp_path / "phase-1", [], TERMS)
    summary = compute_phase(folder, engine)
    assert (folder / RESULT).read_bytes() == b""
    assert summary.result_hash == sha256_hex(b"")
    assert sum(summary.outcomes.values()) == 0
    second = write_phase(tmp_path / "phase-2", [], TERMS, folder)
    assert compute(second, folder, tmp_path / "out", engine=engine).result_hash == sha256_hex(b"")


def test_capacity_above_the_pool_and_none_at_all(tmp_path: Path, engine: Engine) -> None:
    folder = write_phase(tmp_path / "phase-1", LEAVES_OF_TEN, Terms([("east", 11, []), ("west", 0, [])]))
    assert compute_phase(folder, engine).outcomes["WINNER"] == 10
    nothing = write_phase(
        tmp_path / "nothing", LEAVES_OF_TEN, Terms([("east", 0, []), ("west", 0, [])], {}, 4)
    )
    outcomes = compute_phase(nothing, engine).outcomes
    assert (outcomes["WINNER"], outcomes["WAITLIST"], outcomes["UNSELECTED"]) == (0, 4, 6)


@pytest.mark.parametrize(
    ("reserves", "complaint"),
    [
        ((ReserveTerms("vip", 2), ReserveTerms("crew", 0)), ""),
        ((ReserveTerms("crew", 1),), ""),
        ((ReserveTerms("vip", 3),), "3 seats for vip since phase 2, laterReserves of market east have 2"),
        ((ReserveTerms("crew", 1), ReserveTerms("vip", 1)), "segment vip is not next in laterReserves"),
        ((ReserveTerms("staff", 0),), "segment staff is not next in laterReserves"),
    ],
)
def test_reserves_of_a_later_phase_are_those_that_the_first_one_declared(
    phases: tuple[Path, Path], reserves: tuple[ReserveTerms, ...], complaint: str
) -> None:
    _, second = phases
    terms = markets(9, *reserves)
    if not complaint:
        change_manifest(second, markets=terms)
        return
    with pytest.raises(DrawError, match=complaint):
        change_manifest(second, markets=terms)


def test_what_reserves_of_all_later_phases_declare_counts_filled_or_not(phases: tuple[Path, Path]) -> None:
    first, second = (Manifest.parse((folder / MANIFEST).read_bytes()) for folder in phases)
    second = replace(second, markets=markets(9, ReserveTerms("vip", 1), ReserveTerms("crew", 1)))
    assert list(changed_terms([first], second)) == []
    for seats, complaint in ((1, ""), (2, "3 seats for vip since phase 2")):
        third = replace(second, phase=3, markets=markets(9, ReserveTerms("vip", seats)))
        found = [str(each) for each in changed_terms([first, second], third)]
        assert len(found) == bool(complaint) and complaint in "".join(found)


def test_a_seat_lapses_only_for_a_winner_of_the_phase_before_and_for_ever(
    tmp_path: Path, engine: Engine
) -> None:
    one = write_phase(tmp_path / "phase-1", LEAVES_OF_TEN, TERMS)
    compute_phase(one, engine)
    old = outcomes_of(one)
    won = next(ref for ref, row in old.items() if row[2] == "WINNER")
    lost = next(ref for ref, row in old.items() if row[2] == "WAITLIST")
    before = one
    for phase in (2, 3):
        folder = write_phase(
            tmp_path / f"phase-{phase}", LEAVES_OF_TEN, Terms(TERMS.markets, {won: "UNCLAIMED"}), before
        )
        for made in (
            compute_phase(folder, engine, before),
            PlainEngine(tmp_path).compute(folder, before, folder),
        ):
            assert (made.outcomes["UNCLAIMED"], made.outcomes["WINNER"], made.outcomes["STRUCK"]) == (1, 3, 0)
            assert made.markets["east"].new == (1 if phase == 2 else 0)
        assert outcomes_of(folder)[won] == ("", old[won][1], "UNCLAIMED")
        before = folder
    late = Terms(TERMS.markets, {lost: "UNCLAIMED"})
    first = write_phase(tmp_path / "in-phase-1", LEAVES_OF_TEN, late)
    second = write_phase(tmp_path / "in-phase-2", LEAVES_OF_TEN, late, one)
    for draw in (engine.compute, PlainEngine(tmp_path).compute):
        with pytest.raises(DrawError, match=f"{lost} is UNCLAIMED in phase 1"):
            draw(first, None, first)
        with pytest.raises(DrawError, match=f"{lost} is UNCLAIMED, and was no winner") as caught:
            draw(second, one, second)
        assert caught.value.artefact == STRIKES
