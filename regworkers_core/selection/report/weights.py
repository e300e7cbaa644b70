"""Does the order give each weight what it promises?

With w tickets of which the lowest counts, a unit is among the first with probability 1 - (1 - t)^w for a
threshold t that all units share. t is the one for which the expected number of units adds up to those found,
so the test has one degree of freedom less than there are weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
# Each halves the error: this many reach the last bit of a double.
_HALVINGS = 60


@dataclass(frozen=True, slots=True)
class WeightModel:
    """Per weight: the expected number of units among the first, and the covariance of found - expected."""

    expected: Numbers
    covariance: Numbers


def weight_model(weights: Sequence[int], units: Sequence[int], first: int) -> WeightModel:
    """`first` of all `units` (counted by weight) lead the order; 0 < `first` < all units."""
    w, n = np.asarray(weights, float), np.asarray(units, float)

    threshold = _threshold(w, n, first)
    chance = -np.expm1(w * np.log1p(-threshold))
    # The threshold moves so that the sum is kept: each deviation is spread over all weights by how fast their
    # expectation grows with it.
    growth = n * w * (1 - threshold) ** (w - 1)
    keep = np.eye(len(w)) - np.outer(growth / growth.sum(), np.ones(len(w)))
    return WeightModel(n * chance, keep @ np.diag(n * chance * (1 - chance)) @ keep.T)


def _threshold(weights: Numbers, units: Numbers, first: int) -> float:
    """The t for which `first` units are expected, which grow with t."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if np.sum(units * -np.expm1(weights * np.log1p(-middle))) < first:
            low = middle
        else:
            high = middle
    return (low + high) / 2
