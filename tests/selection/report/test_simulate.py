"""A simulation shows what rules would do, by the draw's own maths, and is never the draw."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fairdraw.errors import DrawError
from fairdraw.large.engine import Engine
from fairdraw.maths.leaves import unit_of
from regworkers_core.domain.campaign import Market, Reserve
from regworkers_core.domain.reasons import UsageError
from regworkers_core.selection.report.simulate import (
    can_be_quick,
    simulate,
    simulation_seeds,
    write_synthetic_pool,
)
from regworkers_core.selection.report.simulation import Scenario, Simulation
from tests.fairdraw.proof.draws import CAMPAIGN, UNIT_KEY
from tests.selection.report.world import Fan, Seats, World, by_lot, fans

ONE = Scenario((Market("north", "North", 40),))
TWO = Scenario((Market("north", "North", 60), Market("south", "South", 30)))
NO_CHANGE: Mapping[str, int] = {}


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(scratch=tmp_path / "scratch", memory_mib=300)


def words(text: str = "test") -> Iterator[str]:
    return simulation_seeds(text, lambda: "")


def pool_of(folder: Path, members: list[Fan]) -> Path:
    """Only the pool of a world is read."""
    World(folder, members, {"north": Seats(1), "south": Seats(1)}, by_lot(1)).draw()
    return folder / "pool.parquet"


def run(
    pool: Path, scenario: Scenario, engine: Engine, rounds: int = 3, quick: bool | None = None
) -> Simulation:
    return simulate(pool, scenario, rounds=rounds, seeds=words(), engine=engine, quick=quick)


def homes(count: int, members: int, weights: tuple[int, ...] = (1,)) -> list[Fan]:
    rng = random.Random(9)
    return [
        replace(fan, unit=unit_of(UNIT_KEY, CAMPAIGN, f"home{n // members}"), weight=rng.choice(weights))
        for n, fan in enumerate(fans(count, rng))
    ]


@pytest.mark.parametrize(
    ("members", "weights", "seats", "wins"),
    [
        (1, (1,), 40, 1),
        (1, (1, 2, 64), 40, 1),
        # Tickets are counted once for each entry of a household, so the first bound is far too low.
        (10, (64,), 20, 1),
        (3, (1, 5), 60, 2),
        (1, (1,), 299, 1),
        (1, (1,), 300, 1),
        (1, (1,), 5000, 1),
        (4, (1,), 100, 1),
    ],
)
def test_the_short_way_gives_the_winners_of_the_whole_draw(
    tmp_path: Path, engine: Engine, members: int, weights: tuple[int, ...], seats: int, wins: int
) -> None:
    pool = pool_of(tmp_path / "pool", homes(300, members, weights))
    scenario = Scenario((Market("north", "North", seats),), wins_per_unit=wins)
    short, whole = (run(pool, scenario, engine, 2, quick) for quick in (True, False))
    assert short.winners == whole.winners and short.last_ranks == whole.last_ranks
    assert short.entries == whole.entries


def test_the_short_way_is_taken_only_where_it_is_exact() -> None:
    assert can_be_quick(ONE)
    assert not can_be_quick(TWO)
    assert not can_be_quick(Scenario((Market("north", "North", 40, (Reserve("local", 5),)),)))
    assert not can_be_quick(Scenario((Market("north", "North", 0),)))


def test_odds_are_winners_among_entries_with_their_spread(tmp_path: Path, engine: Engine) -> None:
    pool = pool_of(tmp_path / "pool", fans(300, random.Random(1), ["north", "south"], choices=2))
    made = run(pool, TWO, engine, rounds=4)
    document = made.as_dict()
    assert document["rounds"] == 4 and document["entries"] == 300 and document["simulation"] is True
    assert document["winners"] == {"mean": 90, "low": 90, "high": 90}
    north = document["markets"][0]
    assert north["winners"]["mean"] == 60 and north["odds"]["mean"] == pytest.approx(60 / 300)
    assert north["full"] == 4 and 60 <= north["lastRank"]["low"] <= north["lastRank"]["high"] <= 90
    kept = [won["kept", "north"] / made.entries["first", "north"] for won in made.winners]
    assert north["firstChoiceOdds"] == pytest.approx(
        {"mean": np.mean(kept), "low": min(kept), "high": max(kept)}
    )
    assert sum(place["winners"]["mean"] for place in document["choices"]) == pytest.approx(90)


def test_a_market_that_is_not_full_has_no_last_rank(tmp_path: Path, engine: Engine) -> None:
    pool = pool_of(tmp_path / "pool", fans(20, random.Random(1)))
    market = run(pool, ONE, engine).as_dict()["markets"][0]
    assert market["full"] == 0 and market["lastRank"] is None and market["odds"]["low"] == 1


def test_weights_of_a_segment_raise_its_chance_and_replace_the_entries_own(
    tmp_path: Path, engine: Engine
) -> None:
    members = [
        replace(fan, weight=9, segments=("member",)) if n % 2 else fan for n, fan in enumerate(homes(300, 1))
    ]
    pool = pool_of(tmp_path / "pool", members)
    even = run(pool, replace(ONE, weights={"member": 1}), engine, rounds=6).as_dict()
    raised = run(pool, replace(ONE, weights={"member": 8}), engine, rounds=6).as_dict()
    chance = {row["segment"]: row["odds"]["mean"] for row in raised["segments"]}
    assert chance["member"] > 3 * chance[""]
    assert [row["weight"] for row in even["weights"]] == [1]
    assert [row["weight"] for row in raised["weights"]] == [1, 8]


def test_a_reserve_gives_its_segment_at_least_its_seats(tmp_path: Path, engine: Engine) -> None:
    members = [
        replace(fan, segments=("local",) if n < 30 else ())
        for n, fan in enumerate(fans(300, random.Random(1)))
    ]
    pool = pool_of(tmp_path / "pool", members)
    scenario = ONE.changed(capacities=NO_CHANGE, reserves={"north": {"local": 25}}, weights=NO_CHANGE)
    local = next(
        row for row in run(pool, scenario, engine).as_dict()["segments"] if row["segment"] == "local"
    )
    assert local["winners"]["low"] >= 25


def test_a_repeated_ref_is_refused_as_in_a_draw(tmp_path: Path, engine: Engine) -> None:
    members = fans(10, random.Random(1))
    twice = [*members, replace(members[0], entry_id="entry-again")]
    pool = tmp_path / "twice.parquet"
    World(tmp_path / "pool", members, {"north": Seats(1)}, by_lot(1)).draw()
    table = pq.read_table(tmp_path / "pool" / "pool.parquet")
    pq.write_table(table.take([*range(len(members)), 0]), pool)
    assert len(twice) == pq.read_metadata(pool).num_rows
    for quick in (True, False):
        with pytest.raises(DrawError, match="duplicate ref"):
            run(pool, ONE, engine, 1, quick)


def test_an_empty_pool_has_no_odds(tmp_path: Path, engine: Engine) -> None:
    pool = pool_of(tmp_path / "pool", [])
    for scenario in (ONE, TWO):
        document = run(pool, scenario, engine).as_dict()
        assert document["entries"] == 0 and document["odds"] is None


def test_rounds_repeat_with_a_seed_word_and_differ_without(tmp_path: Path, engine: Engine) -> None:
    pool = pool_of(tmp_path / "pool", fans(300, random.Random(1), ["north", "south"], choices=2))
    assert run(pool, TWO, engine).winners == run(pool, TWO, engine).winners
    other = simulate(pool, TWO, rounds=3, seeds=words("other"), engine=engine)
    assert other.winners != run(pool, TWO, engine).winners
    lots = random.Random(1)
    fresh = simulation_seeds(None, lambda: lots.randbytes(32).hex())
    assert next(fresh) != next(fresh)


@pytest.mark.parametrize("secret", ["ab" * 32, " " + "AB" * 32])
def test_a_seed_or_secret_of_a_draw_is_refused(secret: str) -> None:
    with pytest.raises(UsageError, match="which a simulation must not use"):
        simulation_seeds(secret, lambda: "")


def test_a_word_is_never_a_secret_itself() -> None:
    secret = hashlib.sha256(b"winter").hexdigest()
    assert next(words("winter")) != secret


def test_rules_that_cannot_be_drawn_are_refused_with_advice() -> None:
    reserved = Scenario((Market("north", "North", 10, (Reserve("local", 8),)),))

    def change(
        capacities: Mapping[str, int] = NO_CHANGE,
        reserves: Mapping[str, Mapping[str, int]] | None = None,
        weights: Mapping[str, int] = NO_CHANGE,
    ) -> Scenario:
        return reserved.changed(capacities=capacities, reserves=reserves or {}, weights=weights)

    with pytest.raises(UsageError, match="market 'west' is not in the campaign: it has north"):
        change({"west": 5})
    with pytest.raises(UsageError, match=r"reserves of 8 seats exceed its 5 \(local 8\); lower them"):
        change({"north": 5})
    with pytest.raises(UsageError, match="expected 1 to 64, found 65"):
        change(weights={"local": 65})
    with pytest.raises(UsageError, match=r"an id has 1 to 64 .*, found .no id, so not repeated"):
        change(reserves={"north": {"a|b": 1}})
    for wrong in ({"capacities": {"north": -1}}, {"reserves": {"north": {"local": -1}}}):
        with pytest.raises(UsageError, match=r"expected 0 to \d+ seats, found -1"):
            change(**wrong)
    for wrong, said in (
        ({"wins_per_unit": 0}, "winners per household: expected 1 or more"),
        ({"waitlist_size": -1}, "size of the waitlist: expected 0 or more"),
    ):
        with pytest.raises(UsageError, match=said):
            reserved.changed(capacities={}, reserves={}, weights={}, **wrong)
    assert change({"north": 5}, {"north": {"local": 0}}).markets == (Market("north", "North", 5),)
    ordered = change(reserves={"north": {"access": 2, "local": 3}}).markets[0].reserves
    assert ordered == (Reserve("local", 3), Reserve("access", 2))


def test_a_synthetic_pool_is_reproducible_and_well_formed(tmp_path: Path, engine: Engine) -> None:
    markets, segments = ["a", "b", "c", "d", "e"], ["local", "member"]
    tables = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_synthetic_pool(tmp_path / name, 2000, markets, segments, np.random.default_rng(5))
        tables.append(pq.read_table(tmp_path / name / "pool.parquet"))
    assert tables[0].equals(tables[1])
    wishes = tables[0]["preferences"].to_pylist()
    assert all(1 <= len(each) <= 3 and len(set(each)) == len(each) for each in wishes)
    first = [sum(each[0] == market for each in wishes) for market in markets]
    assert first == sorted(first, reverse=True) and min(first) > 0
    member = sum("member" in each for each in tables[0]["segments"].to_pylist())
    assert 300 < member < 500
    scenario = Scenario.of_capacities(dict.fromkeys(markets, 100))
    document = run(tmp_path / "one" / "pool.parquet", scenario, engine, 1).as_dict()
    assert document["winners"]["mean"] == 500
