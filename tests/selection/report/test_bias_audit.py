"""The bias audit passes a fair draw and finds what decided in an unfair one (invariant 11)."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from regworkers_core.selection.report.audit import bias_audit
from regworkers_core.selection.report.inputs import Workspace
from regworkers_core.selection.report.statistics import GroupCounts, chi_square, pooled, weight_model
from tests.selection.report.world import OPENED, Fan, Seats, World, by_lot, fans

FANS = 3000
MARKETS = {"north": Seats(250), "south": Seats(120), "east": Seats(90)}


def audited(world: World) -> dict[str, Any]:
    with Workspace(world.draw(), memory_mib=200) as work:
        return bias_audit(work)


def world(folder: Path, order: Callable[[Fan], float], seed: int = 1) -> World:
    return World(folder, fans(FANS, random.Random(seed), list(MARKETS), choices=2), MARKETS, order)


def found(audit: dict[str, Any]) -> set[tuple[str, str]]:
    return {(test["dimension"], test["question"]) for test in audit["tests"] if not test["passed"]}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_fair_draw_passes_every_test(tmp_path: Path, seed: int) -> None:
    audit = audited(world(tmp_path, by_lot(seed), seed))
    assert audit["passed"] and audit["findings"] == []
    # Ten tests for five dimensions; no entry has more than one ticket, or a household.
    assert audit["testsMade"] == 10
    assert audit["audited"] == FANS
    assert audit["threshold"] == pytest.approx(1e-5)


def test_winners_from_the_first_two_days_are_found_by_time_and_day(tmp_path: Path) -> None:
    lot = by_lot(1)

    def order(fan: Fan) -> float:
        early = fan.created < OPENED + timedelta(days=2)
        return lot(fan) * (0.1 if early else 1)

    audit = audited(world(tmp_path, order))
    assert {("registrationTime", "order"), ("registrationDay", "order")} <= found(audit)
    assert ("registrationDay", "winners") in found(audit)
    assert ("refPrefix", "order") not in found(audit) and ("mailDomain", "order") not in found(audit)
    day = next(text for text in audit["findings"] if text.startswith("registration day: first ranks"))
    assert "2026-03-01" in day or "2026-03-02" in day


def test_a_draw_sorted_by_ref_is_found(tmp_path: Path) -> None:
    audit = audited(world(tmp_path, lambda fan: int(fan.ref, 16)))
    assert {("refPrefix", "order"), ("refPrefix", "winners")} <= found(audit)
    assert ("registrationTime", "order") not in found(audit)


def test_a_draw_sorted_by_entry_id_is_found(tmp_path: Path) -> None:
    audit = audited(world(tmp_path, lambda fan: int(fan.entry_id.removeprefix("entry-"))))
    assert ("entryIdPrefix", "order") in found(audit)
    assert ("refPrefix", "order") not in found(audit)


def test_a_favoured_mail_domain_is_found_and_named(tmp_path: Path) -> None:
    lot = by_lot(1)
    audit = audited(world(tmp_path, lambda fan: lot(fan) * (0.6 if fan.domain == "post.example" else 1)))
    assert ("mailDomain", "order") in found(audit)
    assert any("post.example" in text for text in audit["findings"])


def test_an_honest_order_with_swapped_winners_is_found(tmp_path: Path) -> None:
    # Ranks stay as they were drawn, but the seats of one market go to the entries that registered last.
    fair = world(tmp_path, by_lot(1))
    files = fair.draw()
    losers = [
        fan for fan in fair.fans if fair.result[fan.ref][2] == "WAITLIST" and "north" in fan.preferences
    ]
    winners = [fan for fan in fair.fans if fair.result[fan.ref][0] == "north"]
    for loser, winner in zip(losers[-200:], winners[:200], strict=True):
        market, rank, outcome = fair.result[winner.ref]
        fair.result[winner.ref] = ("", rank, "WAITLIST")
        fair.result[loser.ref] = (market, fair.result[loser.ref][1], outcome)
    fair._tables()
    with Workspace(files, memory_mib=200) as work:
        audit = bias_audit(work)
    assert {("registrationTime", "winners"), ("registrationDay", "winners")} <= found(audit)
    assert not {("registrationTime", "order"), ("registrationDay", "order")} & found(audit)


def test_preferences_and_segments_that_correlate_with_the_time_are_no_bias(tmp_path: Path) -> None:
    # Early fans want the market that all get into, and late ones the one that few get into.
    made = [
        replace(fan, preferences=("wide",) if fan.created < OPENED + timedelta(days=7) else ("narrow",))
        for fan in fans(FANS, random.Random(4))
    ]
    audit = audited(World(tmp_path, made, {"wide": Seats(1200), "narrow": Seats(40)}, by_lot(4)))
    assert audit["passed"]


def test_strikes_after_the_draw_are_no_bias_in_a_later_phase(tmp_path: Path) -> None:
    first = world(tmp_path / "1", by_lot(1))
    first.draw()
    struck = frozenset(
        fan.ref for fan in first.fans if fan.domain == "post.example" and first.result[fan.ref][2] == "WINNER"
    )
    more = {name: replace(seats, capacity=seats.capacity + 40) for name, seats in MARKETS.items()}
    assert len(struck) > 80
    assert audited(first.next_phase(tmp_path / "2", more, struck))["passed"]


def test_weights_that_do_not_count_are_found(tmp_path: Path) -> None:
    made = [replace(fan, weight=1 + 3 * (n % 3 == 0)) for n, fan in enumerate(fans(FANS, random.Random(2)))]
    fair = audited(World(tmp_path / "fair", made, {"north": Seats(400)}, by_lot(2)))
    assert fair["passed"] and fair["testsMade"] == 11
    forgotten = World(
        tmp_path / "flat", made, {"north": Seats(400)}, lambda fan: by_lot(2)(replace(fan, weight=1))
    )
    assert found(audited(forgotten)) == {("weight", "order")}


def test_weights_that_correlate_with_a_domain_are_no_bias(tmp_path: Path) -> None:
    made = [
        replace(fan, weight=6 if fan.domain == "post.example" and n % 2 else 1)
        for n, fan in enumerate(fans(FANS, random.Random(5)))
    ]
    assert audited(World(tmp_path, made, {"north": Seats(500)}, by_lot(5)))["passed"]


def test_households_are_judged_by_their_best_entry_only(tmp_path: Path) -> None:
    # Four entries of one key follow each other: as four they would look like a crowd at the front.
    made = [
        replace(fan, unit=f"unit{n // 4}", domain="crowd.example" if n < 2000 else fan.domain)
        for n, fan in enumerate(fans(FANS, random.Random(3)))
    ]
    audit = audited(World(tmp_path, made, {"north": Seats(600)}, by_lot(3), wins_per_unit=4))
    assert audit["audited"] == FANS / 4 and audit["passed"]


@pytest.mark.parametrize("weight", [1, 3])
def test_an_order_that_depends_on_the_size_of_the_household_is_found_and_that_of_weights_is_none(
    tmp_path: Path, weight: int
) -> None:
    made = [
        replace(fan, unit=f"unit{n // 6}", weight=weight) if n < 1500 else fan
        for n, fan in enumerate(fans(FANS, random.Random(3)))
    ]
    lot = by_lot(3)
    audit = audited(World(tmp_path / "fair", made, {"north": Seats(600)}, lot))
    sizes = [test for test in audit["tests"] if test["dimension"] == "householdSize"]
    assert audit["passed"] and [test["p"] is not None for test in sizes] == [True, weight == 1]

    def order(fan: Fan) -> float:
        # As if the lot of each entry counted.
        return lot(fan) / (6 if fan.unit else 1)

    mixed = [replace(fan, weight=3) if n % 2 else fan for n, fan in enumerate(made) if n >= 1500] + made[
        :1500
    ]
    biased = World(tmp_path / "biased", mixed, {"north": Seats(600)}, order)
    assert ("householdSize", "order") in found(audited(biased))


def test_no_domain_of_few_fans_is_named(tmp_path: Path) -> None:
    made = [
        replace(fan, domain="family.example" if n < 49 else "club.example" if n < 99 else fan.domain)
        for n, fan in enumerate(fans(FANS, random.Random(6)))
    ]
    audit = audited(World(tmp_path, made, {"north": Seats(900)}, by_lot(6)))
    groups = {
        group["group"]
        for test in audit["tests"]
        if test["dimension"] == "mailDomain"
        for group in test["groups"]
    }
    assert "club.example" in groups and "other domains" in groups
    assert "family.example" not in str(audit)


@pytest.mark.parametrize("count", [0, 1, 12])
def test_too_few_candidates_are_no_finding(tmp_path: Path, count: int) -> None:
    audit = audited(World(tmp_path, fans(count, random.Random(1)), {"north": Seats(1)}, by_lot(1)))
    assert audit["passed"]


def test_missing_and_equal_times_are_groups_of_their_own(tmp_path: Path) -> None:
    made = [replace(fan, created=OPENED) for fan in fans(600, random.Random(1))]
    audit = audited(World(tmp_path, made, {"north": Seats(100)}, by_lot(1)))
    times = [test for test in audit["tests"] if test["dimension"].startswith("registration")]
    assert all(test["p"] is None and len(test["groups"]) == 1 for test in times)


def counted(candidates: list[int], hits: list[int], labels: list[str] | None = None) -> GroupCounts:
    """One stratum with its hypergeometric moments."""
    n, found = np.array(candidates, float), np.array(hits, float)
    total, k = n.sum(), found.sum()
    covariance = k * (total - k) / (total**2 * (total - 1)) * (np.diag(n * total) - np.outer(n, n))
    names = tuple(labels or [str(place) for place in range(len(n))])
    return GroupCounts(names, n, found, n * k / total, covariance)


def test_with_one_stratum_it_is_pearsons_chi_square() -> None:
    candidates, hits = [400, 300, 300], [60, 20, 40]
    outcome = chi_square(counted(candidates, hits))
    table = [hits, [n - o for n, o in zip(candidates, hits, strict=True)]]
    pearson = chi2_contingency(table, correction=False)
    # The exact variance divides by n - 1 where Pearson's divides by n.
    assert outcome.statistic == pytest.approx(pearson.statistic * 999 / 1000)
    assert outcome.freedom == 2
    assert outcome.p == pytest.approx(pearson.pvalue, rel=0.01)


def test_one_group_has_no_p_value() -> None:
    assert chi_square(counted([100], [10])).p is None


def test_rounding_in_a_direction_that_cannot_vary_is_no_deviation() -> None:
    exact = counted([400, 300, 300], [60, 20, 40])
    noisy = replace(exact, covariance=exact.covariance + 1e-12, hits=exact.hits + 1e-5)
    assert chi_square(noisy).freedom == 2
    assert chi_square(noisy).statistic == pytest.approx(chi_square(exact).statistic)


def test_small_times_join_their_neighbours() -> None:
    labels = ["a to b", "b to c", "c to d", "d to e"]
    merged = pooled(counted([100, 10, 10, 200], [10, 1, 1, 20], labels), in_order=True)
    assert merged.labels == ("a to b", "b to e")
    assert merged.candidates.tolist() == [100, 220] and merged.hits.tolist() == [10, 22]


def test_small_groups_without_order_become_one() -> None:
    merged = pooled(counted([100, 20, 20, 20, 200], [10, 2, 2, 2, 20]), in_order=False)
    assert merged.labels == ("0", "4", "pooled small groups")
    assert merged.candidates.tolist() == [100, 200, 60]


def test_a_small_rest_joins_the_smallest_group() -> None:
    merged = pooled(counted([100, 10, 300], [10, 1, 30]), in_order=False)
    assert merged.labels == ("0 and pooled small groups", "2")
    assert merged.candidates.sum() == 410


def test_pooling_keeps_the_covariance_of_the_sums() -> None:
    merged = pooled(counted([100, 20, 20, 20, 200], [10, 2, 2, 2, 20]), in_order=False)
    direct = counted([100, 200, 60], [10, 20, 6])
    assert np.allclose(merged.covariance, direct.covariance)


def test_the_weight_model_adds_up_and_favours_heavier_units_less_than_in_proportion() -> None:
    model = weight_model([1, 2, 10], [1000, 500, 100], 400)
    assert model.expected.sum() == pytest.approx(400)
    one, two, ten = model.expected / np.array([1000, 500, 100])
    assert one < two < 2 * one and ten < 10 * one
    assert np.allclose(model.covariance, model.covariance.T)
    # The sum is fixed, so it has no variance.
    assert model.covariance.sum() == pytest.approx(0, abs=1e-6)


def test_the_weight_model_is_what_drawing_gives() -> None:
    rng = np.random.default_rng(11)
    weights, units = [1, 3, 9], [600, 300, 100]
    of_unit = np.repeat(weights, units)
    shares = []
    for _ in range(400):
        keys = 1 - (1 - rng.random(1000)) ** (1 / of_unit)
        first = of_unit[np.argsort(keys)[:250]]
        shares.append([(first == weight).sum() for weight in weights])
    model = weight_model(weights, units, 250)
    assert np.allclose(np.mean(shares, axis=0), model.expected, atol=1.5)
    assert np.allclose(np.var(shares, axis=0), np.diag(model.covariance), rtol=0.3)
