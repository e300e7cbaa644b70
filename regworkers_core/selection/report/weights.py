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
from scipy.optimize import brentq

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class WeightModel:
    """Per weight: the expected number of units among the first, and the covariance of found - expected."""

    expected: Numbers
    covariance: Numbers


def weight_model(weights: Sequence[int], units: Sequence[int], first: int) -> WeightModel:
    """`first` of all `units` (counted by weight) lead the order; 0 < `first` < all units."""
    w, n = np.asarray(weights, float), np.asarray(units, float)

    def missing(threshold: float) -> float:
        return float(np.sum(n * -np.expm1(w * np.log1p(-threshold))) - first)

    threshold = float(brentq(missing, 0.0, 1 - 1e-12, xtol=1e-15))
    chance = -np.expm1(w * np.log1p(-threshold))
    # The threshold moves so that the sum is kept: each deviation is spread over all weights by how fast their
    # expectation grows with it.
    growth = n * w * (1 - threshold) ** (w - 1)
    keep = np.eye(len(w)) - np.outer(growth / growth.sum(), np.ones(len(w)))
    return WeightModel(n * chance, keep @ np.diag(n * chance * (1 - chance)) @ keep.T)
