"""The tests of the bias audit, as numbers in and numbers out.

Chi-square: within a stratum all candidates had the same chance, so its k hits among n candidates are a random subset:
a group of n_g of them expects n_g k/n hits with the hypergeometric covariance. Sums over strata are compared at once
(the generalised Cochran-Mantel-Haenszel test; with one stratum it is Pearson's chi-square).
Source: A. Agresti, Categorical Data Analysis, section "Generalized Cochran-Mantel-Haenszel tests".

Weights: with w tickets of which the lowest counts, a unit is among the first with probability 1 - (1 - t)^w for a
threshold t that all units share. t is chosen so that the expected number of units equals the number found, so the test
has one degree of freedom less than there are weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

Numbers = NDArray[np.float64]
# With fewer expected hits the chi-square distribution is a poor approximation, so groups are pooled.
LEAST_EXPECTED = 5.0
POOLED = "pooled small groups"
# Relative to the greatest variance: far above rounding errors, far below a group of five.
_NO_VARIANCE = 1e-9


@dataclass(frozen=True, slots=True)
class GroupCounts:
    """Numbers of ordered groups (G of them)."""

    labels: tuple[str, ...]
    candidates: Numbers
    # How many candidates of each group were drawn.
    hits: Numbers
    # How many are drawn on average.
    expected: Numbers
    # That of hits - expected (G x G).
    covariance: Numbers

    def merged(self, groups: Sequence[Sequence[int]], labels: Sequence[str]) -> GroupCounts:
        """Sum groups. Each new group is given by the indexes of its members."""
        matrix = np.zeros((len(groups), len(self.labels)))
        for row, members in enumerate(groups):
            matrix[row, list(members)] = 1
        return GroupCounts(
            tuple(labels),
            matrix @ self.candidates,
            matrix @ self.hits,
            matrix @ self.expected,
            matrix @ self.covariance @ matrix.T,
        )


@dataclass(frozen=True, slots=True)
class TestResult:
    """`statistic` with its degrees of `freedom` and `p`; None if there was nothing to compare."""

    statistic: float | None
    freedom: int
    p: float | None


def pooled(counted: GroupCounts, *, in_order: bool) -> GroupCounts:
    """Merge groups with fewer than five expected hits or misses: ordered groups (such as times) with their neighbours,
    others into one group.
    """
    small = np.minimum(counted.expected, counted.candidates - counted.expected) < LEAST_EXPECTED
    if not small.any():
        return counted
    if in_order:
        return _neighbours_pooled(counted)
    kept, rest = np.flatnonzero(~small).tolist(), np.flatnonzero(small).tolist()
    together = counted.merged(
        [[index] for index in kept] + [rest], [*(counted.labels[i] for i in kept), POOLED]
    )
    if kept and _least(together, len(kept)) < LEAST_EXPECTED:
        # The pooled group is still too small: merge it with the smallest of the others.
        smallest = min(kept, key=lambda index: counted.expected[index])
        groups = [[index, *(rest if index == smallest else [])] for index in kept]
        labels = [
            f"{counted.labels[index]} and {POOLED}" if index == smallest else counted.labels[index]
            for index in kept
        ]
        return counted.merged(groups, labels)
    return together


def _least(counted: GroupCounts, index: int) -> float:
    return float(min(counted.expected[index], counted.candidates[index] - counted.expected[index]))


def _neighbours_pooled(counted: GroupCounts) -> GroupCounts:
    groups: list[list[int]] = []
    waiting: list[int] = []
    for index in range(len(counted.labels)):
        waiting.append(index)
        expected, candidates = counted.expected[waiting].sum(), counted.candidates[waiting].sum()
        if min(expected, candidates - expected) >= LEAST_EXPECTED:
            groups.append(waiting)
            waiting = []
    if waiting and groups:
        groups[-1] += waiting
    elif waiting:
        groups.append(waiting)
    return counted.merged(groups, [_span([counted.labels[index] for index in members]) for members in groups])


def _span(labels: Sequence[str]) -> str:
    """Join `a to b` and `b to c` to `a to c`."""
    if len(labels) == 1:
        return labels[0]
    return f"{labels[0].split(' to ')[0]} to {labels[-1].split(' to ')[-1]}"


def chi_square(counted: GroupCounts) -> TestResult:
    """Test whether hits deviate from the expectation by more than chance explains."""
    if len(counted.labels) < 2:
        return TestResult(None, 0, None)
    variances, directions = np.linalg.eigh(counted.covariance)
    # The sums are fixed, so some directions cannot vary. Rounding errors there are not variance.
    free = variances > _NO_VARIANCE * max(float(variances.max()), 0.0)
    freedom = int(free.sum())
    if freedom == 0:
        return TestResult(None, 0, None)
    difference = directions.T @ (counted.hits - counted.expected)
    statistic = float(np.sum(difference[free] ** 2 / variances[free]))
    return TestResult(statistic, freedom, float(chdtrc(freedom, statistic)))


# Every step halves the error; this many reach the last bit of a double.
_HALVINGS = 60


@dataclass(frozen=True, slots=True)
class WeightModel:
    """Per weight: the expected number of units among the first ranks, and the covariance of found - expected."""

    expected: Numbers
    covariance: Numbers


def weight_model(weights: Sequence[int], units: Sequence[float], first: int) -> WeightModel:
    """The model for the first `first` units of the order. `units` are counted by weight; 0 < `first` < all units."""
    w, n = np.asarray(weights, float), np.asarray(units, float)

    threshold = _threshold(w, n, first)
    chance = -np.expm1(w * np.log1p(-threshold))
    # The threshold keeps the sum constant, so each deviation is spread over all weights in proportion to the growth
    # of their expectation.
    growth = n * w * (1 - threshold) ** (w - 1)
    keep = np.eye(len(w)) - np.outer(growth / growth.sum(), np.ones(len(w)))
    return WeightModel(n * chance, keep @ np.diag(n * chance * (1 - chance)) @ keep.T)


def weight_counts(weights: Sequence[int], units: Sequence[float], found: Sequence[float]) -> GroupCounts:
    """Numbers by weight beside what the model expects. Without a choice between weights nothing can deviate."""
    numbers, hits = np.asarray(units, float), np.asarray(found, float)
    expected, covariance = hits, np.zeros((len(weights), len(weights)))
    if len(weights) > 1 and 0 < hits.sum() < numbers.sum():
        model = weight_model(weights, units, round(hits.sum()))
        expected, covariance = model.expected, model.covariance
    return GroupCounts(tuple(map(str, weights)), numbers, hits, expected, covariance)


def _threshold(weights: Numbers, units: Numbers, first: int) -> float:
    """The t for which `first` units are expected, by bisection: the expectation grows with t."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if np.sum(units * -np.expm1(weights * np.log1p(-middle))) < first:
            low = middle
        else:
            high = middle
    return (low + high) / 2
