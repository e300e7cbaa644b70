"""What must hold of every draw, whatever the pool: the seed is held fixed where an input changes."""

from __future__ import annotations

import itertools
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fairdraw.large.allocate import allocate_seats
from fairdraw.large.columns import write_leaves
from fairdraw.large.engine import Engine
from fairdraw.large.rank import rank_leaves
from fairdraw.maths.files import CUTOFFS, LEAVES, RESULT, parse_canonical
from fairdraw.maths.leaves import parse_leaf
from fairdraw.maths.rules import entry_key, keys_of, market_of, parse_cutoffs, unit_key
from tests.fairdraw.maths import oracle
from tests.fairdraw.maths.draws import (
    compute_phase,
    compute_with_any_seed,
    first_terms,
    later_terms,
    market_terms,
    order_of,
    outcomes_of,
    pools,
    set_seed,
    taken_seats,
    write_phase,
    write_pool,
)
from tests.fairdraw.maths.oracle import OracleLeaf, OracleMarket
from tests.fairdraw.proof.draws import CAMPAIGN, Terms

few = settings(max_examples=6)
Outcomes = dict[str, tuple[str, int, str]]


@contextmanager
def scratch() -> Iterator[tuple[Path, Engine]]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder), Engine(Path(folder) / "spill")


def draw_once(
    leaves: list[OracleLeaf],
    terms: Terms,
    name: str,
    folder: Path,
    engine: Engine,
    seed_of: Path | None = None,
) -> Path:
    """One phase 1; with the seed of another draw where only the terms differ."""
    made = write_phase(folder / name, leaves, terms, seed_of=seed_of)
    compute_with_any_seed(made, engine)
    return made


def some_refs(leaves: list[OracleLeaf]) -> st.SearchStrategy[set[str]]:
    return st.sets(st.sampled_from([leaf[0] for leaf in leaves]), max_size=3) if leaves else st.just(set())


def winners(outcomes: Outcomes) -> set[str]:
    return {ref for ref, (_, _, outcome) in outcomes.items() if outcome == "WINNER"}


@few
@given(
    pools(),
    market_terms(),
    st.randoms(use_true_random=False),
    st.sampled_from((1, 2)),
    st.sampled_from((1, 7)),
)
def test_order_of_rows_threads_and_batches_do_not_change_the_result(
    leaves: list[OracleLeaf], markets: list[OracleMarket], shuffler: random.Random, threads: int, rows: int
) -> None:
    with scratch() as (folder, engine):
        first = draw_once(leaves, Terms(markets), "first", folder, engine)
        shuffled = shuffler.sample(leaves, len(leaves))
        other = Engine(folder / "spill", threads=threads, batch_rows=rows)
        write_leaves(write_pool(folder / "pool.parquet", shuffled), folder / LEAVES, engine=other)
        assert (folder / LEAVES).read_bytes() == (first / LEAVES).read_bytes()
        again = write_phase(folder / "again", shuffled, Terms(markets))
        assert compute_phase(again, other).result_hash == compute_phase(first, engine).result_hash


@few
@given(pools(), market_terms())
def test_a_rerun_from_any_step_gives_the_same_files(
    leaves: list[OracleLeaf], markets: list[OracleMarket]
) -> None:
    with scratch() as (folder, engine):
        first = draw_once(leaves, Terms(markets), "first", folder, engine)
        kept = {path.name: path.read_bytes() for path in first.iterdir()}
        for _ in range(2):
            rank_leaves(first, folder / "ranked.parquet", engine=engine)
        # What a run that died half way through left behind does not matter.
        (first / RESULT).write_bytes(kept[RESULT][: len(kept[RESULT]) // 2])
        allocate_seats(first, None, folder / "ranked.parquet", first, engine=engine)
        assert {path.name: path.read_bytes() for path in first.iterdir()} == kept


@few
@given(pools(), market_terms(), st.data())
def test_a_strike_changes_no_rank_promotes_at_most_one_and_no_other_entry_loses(
    leaves: list[OracleLeaf], markets: list[OracleMarket], data: st.DataObject
) -> None:
    assume(leaves)
    struck = data.draw(st.sampled_from(leaves))[0]
    with scratch() as (folder, engine):
        before = draw_once(leaves, Terms(markets), "before", folder, engine)
        after = draw_once(leaves, Terms(markets, {struck: "FRAUD"}), "after", folder, engine, seed_of=before)
        old, new = outcomes_of(before), outcomes_of(after)
    assert {ref: row[1] for ref, row in old.items()} == {ref: row[1] for ref, row in new.items()}
    assert new[struck][0] == "" and new[struck][2] == "STRUCK"
    assert winners(old) - winners(new) <= {struck}
    assert len(winners(new) - winners(old)) <= 1


@few
@given(pools(markets=("east",)), st.integers(0, 6), st.data())
def test_in_one_market_without_reserves_a_struck_winner_makes_room_for_the_best_ranked_waiting(
    leaves: list[OracleLeaf], seats: int, data: st.DataObject
) -> None:
    assume(leaves)
    struck = data.draw(st.sampled_from(leaves))[0]
    markets: list[OracleMarket] = [("east", seats, [])]
    with scratch() as (folder, engine):
        before = draw_once(leaves, Terms(markets), "before", folder, engine)
        after = draw_once(leaves, Terms(markets, {struck: "FRAUD"}), "after", folder, engine, seed_of=before)
        old, new = outcomes_of(before), outcomes_of(after)
    waiting = sorted((row[1], ref) for ref, row in old.items() if row[2] == "WAITLIST")
    promoted = {waiting[0][1]} if waiting and struck in winners(old) else set()
    assert winners(new) - winners(old) == promoted


@few
@given(pools(), market_terms(reserves=False), st.data())
def test_more_capacity_never_costs_an_entry_its_seat(
    leaves: list[OracleLeaf], markets: list[OracleMarket], data: st.DataObject
) -> None:
    more = [(market, seats + data.draw(st.integers(0, 3)), reserves) for market, seats, reserves in markets]
    with scratch() as (folder, engine):
        before = draw_once(leaves, Terms(markets), "before", folder, engine)
        after = draw_once(leaves, Terms(more), "after", folder, engine, seed_of=before)
        old, new = outcomes_of(before), outcomes_of(after)
    assert winners(old) <= winners(new)
    assert {ref: row[1] for ref, row in old.items()} == {ref: row[1] for ref, row in new.items()}


@few
@given(pools(), market_terms(), st.data())
def test_no_market_is_overfull_and_no_seat_stays_free_that_a_candidate_listed(
    leaves: list[OracleLeaf], markets: list[OracleMarket], data: st.DataObject
) -> None:
    strikes = dict.fromkeys(
        data.draw(st.sets(st.sampled_from([leaf[0] for leaf in leaves])) if leaves else st.just(set())),
        "FRAUD",
    )
    with scratch() as (folder, engine):
        made = draw_once(leaves, Terms(markets, strikes), "draw", folder, engine)
        outcomes = outcomes_of(made)
    homes = [market for market, _, _ in outcomes.values()]
    for market, capacity, _ in markets:
        assert homes.count(market) <= capacity
        if homes.count(market) < capacity:
            waiting = [leaf for leaf in leaves if outcomes[leaf[0]][2] in ("WAITLIST", "UNSELECTED")]
            assert not any(market in leaf[4] for leaf in waiting)


@few
@given(pools(), st.data())
def test_the_cutoffs_alone_give_every_free_candidate_the_outcome_in_each_phase(
    leaves: list[OracleLeaf], data: st.DataObject
) -> None:
    with scratch() as (folder, engine):
        terms = data.draw(first_terms())
        first = draw_once(leaves, Terms(terms), "phase-1", folder, engine)
        strikes = dict.fromkeys(data.draw(some_refs(leaves)), "FRAUD")
        more = Terms(data.draw(later_terms([terms], taken_seats(first, strikes))), strikes)
        second = write_phase(folder / "phase-2", leaves, more, first)
        compute_phase(second, engine, first)
        pinned = {ref for ref in winners(outcomes_of(first)) if ref not in strikes}
        for phase, apart in ((first, set[str]()), (second, pinned)):
            seed, outcomes = set_seed(phase), outcomes_of(phase)
            cutoffs = parse_cutoffs(parse_canonical((phase / CUTOFFS).read_bytes(), CUTOFFS))
            for line in (phase / LEAVES).read_text().splitlines():
                leaf = parse_leaf(line)
                market, place, outcome = outcomes[leaf.ref]
                if place and leaf.ref not in apart and outcome != "STRUCK":
                    key = unit_key(seed, CAMPAIGN, leaf.unit, leaf.weight)
                    own = entry_key(seed, leaf.ref)
                    found = market_of(leaf.preferences, leaf.segments, key, own, cutoffs)
                    assert (found or "") == market


@settings(few, max_examples=4)
@given(pools(most=5, markets=("east", "north", "south")), market_terms(), st.data())
def test_no_other_order_of_preferences_gets_an_entry_a_better_market(
    leaves: list[OracleLeaf], markets: list[OracleMarket], data: st.DataObject
) -> None:
    assume(leaves)
    number = data.draw(st.integers(0, len(leaves) - 1))
    ref, unit, weight, segments, wishes = leaves[number]
    with scratch() as (folder, engine):
        honest = draw_once(leaves, Terms(markets), "honest", folder, engine)
        # Preferences do not enter the order, so it is made once.
        order = order_of(honest, engine)
        home = outcomes_of(honest)[ref][0]
        place = wishes.index(home) if home else len(wishes)
        for size in (1, 2, 3):
            for lie in itertools.permutations(("east", "north", "south"), size):
                stated = [*leaves[:number], (ref, unit, weight, segments, lie), *leaves[number + 1 :]]
                lied = write_phase(folder / "lied", stated, Terms(markets), seed_of=honest)
                compute_with_any_seed(lied, engine, order)
                got = outcomes_of(lied)[ref][0]
                assert (wishes.index(got) if got in wishes else len(wishes)) >= place


@few
@given(pools(), market_terms())
def test_reserves_are_filled_as_far_as_members_want_the_market(
    leaves: list[OracleLeaf], markets: list[OracleMarket]
) -> None:
    with scratch() as (folder, engine):
        outcomes = outcomes_of(draw_once(leaves, Terms(markets), "draw", folder, engine))
    for market, _, reserves in markets:
        for segment, seats in reserves:
            admitted = wanting = 0
            for ref, _, _, segments, preferences in leaves:
                home, place, _ = outcomes[ref]
                if place and segment in segments and market in preferences:
                    admitted += home == market
                    ahead = preferences[: preferences.index(market)]
                    wanting += home not in ahead
            assert admitted >= min(seats, wanting)


@few
@given(st.integers(1, 63), st.text("abc", min_size=1, max_size=5))
def test_a_higher_weight_never_worsens_a_key(weight: int, unit: str) -> None:
    seed = oracle.sha("any")
    assert unit_key(seed, CAMPAIGN, unit, weight + 1) <= unit_key(seed, CAMPAIGN, unit, weight)
    assert keys_of(seed, CAMPAIGN, unit, weight + 1)[:weight] == keys_of(seed, CAMPAIGN, unit, weight)


@few
@given(pools(), market_terms(), st.integers(1, 3))
def test_no_unit_wins_more_often_than_the_limit(
    leaves: list[OracleLeaf], markets: list[OracleMarket], wins: int
) -> None:
    with scratch() as (folder, engine):
        outcomes = outcomes_of(draw_once(leaves, Terms(markets, wins_per_unit=wins), "draw", folder, engine))
    for unit in {leaf[1] for leaf in leaves}:
        own = [outcomes[leaf[0]] for leaf in leaves if leaf[1] == unit]
        assert sum(place > 0 for _, place, _ in own) == min(len(own), wins)
        assert sum(outcome == "WINNER" for _, _, outcome in own) <= wins


@few
@given(pools(), market_terms(reserves=False))
def test_without_reserves_the_allocation_is_serial_dictatorship(
    leaves: list[OracleLeaf], markets: list[OracleMarket]
) -> None:
    with scratch() as (folder, engine):
        outcomes = outcomes_of(draw_once(leaves, Terms(markets), "draw", folder, engine))
    ordered = sorted((leaf for leaf in leaves if outcomes[leaf[0]][1]), key=lambda leaf: outcomes[leaf[0]][1])
    homes = oracle.serial_dictatorship(ordered, {market: seats for market, seats, _ in markets})
    assert homes == {ref: market for ref, (market, _, outcome) in outcomes.items() if outcome == "WINNER"}
