"""The chi-square of the audit against known answers, and how small groups are pooled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from regworkers_core.selection.report.statistics import GroupCounts, chi_square, pooled, weight_model


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
