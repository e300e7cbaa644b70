"""What the bias audit can see: the smallest bias that it catches, and how often it stops a fair draw.

A bias divides the lottery numbers of the favoured by a factor: they are that many times as likely as the others to be
among the best, as long as not all of them are. `Crowd` is a plain campaign. The mean numbers under a bias go through
the tests of the audit; their chi-square is the noncentrality of the test, and its power follows from the noncentral
chi-square distribution. The same tests judge simulated draws, which checks the formula.
Source: A. Agresti, Categorical Data Analysis, section "Power for chi-squared tests".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import chdtri, chndtr

from regworkers_core.adapters.judged_entries import DOMAIN_ENTRANTS, DOMAIN_SHARE
from regworkers_core.selection.report.audit import ALPHA, DAY_MS, TIME_BINS, first_tested
from regworkers_core.selection.report.statistics import (
    GroupCounts,
    Numbers,
    TestResult,
    chi_square,
    pooled,
    weight_counts,
)

# A bias counts as caught if the audit stops the draw with at least this probability.
CAUGHT = 0.999
# Dimension and question of a test, as in the audit's document.
Test = tuple[str, str]
WEIGHT: Test = ("weight", "order")
# Over all units, compared within each weight.
HOUSEHOLD: Test = ("householdSize", "order")
_IN_ORDER = ("registrationTime", "registrationDay", "householdSize")
_DIMENSIONS = (*_IN_ORDER, "refPrefix", "entryIdPrefix", "mailDomain")

# The campaign: one candidate in ten wins in three markets of different odds, each fan lists one, a fifth has two
# tickets. Another fifth is drawn for a household of two to four entries.
DAYS = 14
_HOUSEHOLDS = (0.8, 0.12, 0.05, 0.03)
_MARKETS, _SEATS = (0.5, 0.3, 0.2), (0.025, 0.03, 0.045)
_HEAVY, _TICKETS = 0.2, (1, 2)
_DOMAINS = (0.5, 0.2, 0.1, 0.05, *(0.01,) * 15)
_PREFIXES = 16
# A larger crowd has the same shares, so its numbers are multiples of these.
_MOST_ROWS = 100_000
# No bias beyond this factor is looked for.
_GREATEST = 1e4


@dataclass(frozen=True, slots=True)
class Bias:
    """Who is favoured, and the tests made to see it. Without `in_ranks` the order is honest and only the seats go
    to the wrong entries.
    """

    name: str
    favoured: str
    seen_by: tuple[Test, ...]
    in_ranks: bool = True


BIASES = (
    Bias(
        "first days",
        "registered in the first two of 14 days",
        tuple((name, "order") for name in _IN_ORDER[:2]),
    ),
    Bias("id prefix", "refs that begin with one of 16 characters", (("refPrefix", "order"),)),
    Bias("weights", "fans with two tickets, beyond what two tickets give", (WEIGHT,)),
    Bias(
        "moved seats",
        "registered on the last of 14 days; the ranks are honest, the seats are not",
        tuple((name, "winners") for name in _IN_ORDER[:2]),
        in_ranks=False,
    ),
    Bias("mail domain", "one mail domain that every tenth fan has", (("mailDomain", "order"),)),
    Bias("households", "households of two to four entries", (HOUSEHOLD,)),
)


class Crowd:
    """`entries` of the campaign as columns, one element per entry; above 100,000 one element for several."""

    def __init__(self, entries: int) -> None:
        self.entries = entries
        rows = min(entries, _MOST_ROWS)
        self._scale = entries / rows
        rng = np.random.default_rng(1)
        self.weights = np.array(_TICKETS)[_dealt((1 - _HEAVY, _HEAVY), rows, rng)]
        self.market = _dealt(_MARKETS, rows, rng)
        self.created = np.arange(rows) * DAYS * DAY_MS // rows
        prefix, entry_prefix = (_dealt((1 / _PREFIXES,) * _PREFIXES, rows, rng) for _ in range(2))
        domain = _dealt(_DOMAINS, rows, rng)
        size = _dealt(_HOUSEHOLDS, rows, rng)
        shown = np.array([share * entries >= DOMAIN_ENTRANTS and share >= DOMAIN_SHARE for share in _DOMAINS])
        marks = np.arange(1, TIME_BINS) / TIME_BINS
        bounds = np.quantile(self.created[self.weights == 1], marks, method="inverted_cdf")
        self.groups: Mapping[str, NDArray[np.int64]] = {
            "registrationTime": np.searchsorted(bounds, self.created),
            "registrationDay": self.created // DAY_MS,
            "refPrefix": prefix,
            "entryIdPrefix": entry_prefix,
            "mailDomain": np.where(shown[domain], domain, len(_DOMAINS)),
            "householdSize": size,
        }
        self.favoured: Mapping[str, NDArray[np.bool_]] = {
            "first days": self.created < 2 * DAY_MS,
            "id prefix": prefix == 0,
            "weights": self.weights > 1,
            "moved seats": self.created >= (DAYS - 1) * DAY_MS,
            "mail domain": domain == 2,
            "households": size > 0,
        }
        self._everyone = np.arange(rows)
        self.audited = np.flatnonzero(self.weights == 1)
        self._of_market = [np.flatnonzero(self.market == n) for n in range(len(_MARKETS))]
        self.seats = [round(share * entries) for share in _SEATS]
        winners = sum(self.seats)
        self._first_units = first_tested(entries, winners, entries)
        self._first_audited = first_tested(round(len(self.audited) * self._scale), winners, entries)
        tests = [(name, question) for name in _DIMENSIONS for question in ("order", "winners")]
        self._numbers = {test: self._counted(test, self._tested_by(test)) for test in tests}
        units = self._by_weight(self._everyone) * self._scale
        # As many are found in every draw, so the model is the same.
        self._weights = weight_counts(_TICKETS, list(units), list(units * self._first_units / entries))

    def _tested_by(self, test: Test) -> NDArray[np.int64]:
        return self._everyone if test == HOUSEHOLD else self.audited

    def _counted(self, test: Test, rows: NDArray[np.int64]) -> Numbers:
        """Numbers of these entries by stratum and group of a test."""
        name, question = test
        group, size = self.groups[name][rows], int(self.groups[name].max()) + 1
        strata = 1
        if question == "winners":
            group, strata = group + size * self.market[rows], len(_MARKETS)
        elif test == HOUSEHOLD:
            group, strata = group + size * (self.weights[rows] > 1), len(_TICKETS)
        found = np.bincount(group, minlength=strata * size).astype(float)
        return found.reshape(strata, size) * self._scale

    def _by_weight(self, rows: NDArray[np.int64]) -> Numbers:
        return np.array([np.count_nonzero(self.weights[rows] == weight) for weight in _TICKETS], float)

    def _weights_tested(self, found: Numbers) -> TestResult:
        return chi_square(pooled(replace(self._weights, hits=found), in_order=True))

    @cached_property
    def threshold(self) -> float:
        """The p below which one test stops the draw: as many tests are made as a fair draw has data for."""
        fair = [self.mean(BIASES[0], 1, test) for test in (WEIGHT, *self._numbers)]
        return ALPHA / sum(result.p is not None for result in fair)

    def mean(self, bias: Bias, factor: float, test: Test) -> TestResult:
        """The result of a test for the mean numbers under a bias: its statistic is the noncentrality."""
        favoured = self.favoured[bias.name]
        # Cells: one ticket or two, favoured or not.
        cell = 2 * (self.weights > 1) + favoured
        weights = np.repeat(_TICKETS, 2)
        factors = np.array([1, factor, 1, factor]) if bias.in_ranks or test[1] == "winners" else np.ones(4)

        def by_cell(rows: NDArray[np.int64]) -> Numbers:
            return np.bincount(cell[rows], minlength=4).astype(float) * self._scale

        def chances(rows: NDArray[np.int64], first: int) -> Numbers:
            return _chances(by_cell(rows), weights, factors, first)

        if test == WEIGHT:
            cells = by_cell(self._everyone) * chances(self._everyone, self._first_units)
            return self._weights_tested(cells.reshape(2, 2).sum(axis=1))
        rows = self._tested_by(test)
        luckier = self._counted(test, rows[favoured[rows]])
        if test == HOUSEHOLD:
            of_cell = chances(rows, self._first_units)
            plain, better = of_cell[::2, None], of_cell[1::2, None]
        elif test[1] == "order":
            plain, better = chances(self.audited, self._first_audited)[:2]
        else:
            found = [chances(rows, seats) for rows, seats in zip(self._of_market, self.seats, strict=True)]
            plain, better = (np.array([each[at] for each in found])[:, None] for at in (0, 1))
        numbers = self._numbers[test]
        return _tested(test, numbers, (numbers - luckier) * plain + luckier * better)

    def lots(
        self, rng: np.random.Generator, bias: Bias | None = None, factor: float = 1
    ) -> tuple[Numbers, Numbers]:
        """Lottery numbers, the lowest wins: those that decide the ranks, and those that decide the seats."""
        # The least of w tickets.
        fair = 1 - (1 - rng.random(len(self.weights))) ** (1 / self.weights)
        if bias is None:
            return fair, fair
        unfair = np.where(self.favoured[bias.name], fair / factor, fair)
        return (unfair if bias.in_ranks else fair), unfair

    def drawn(
        self,
        rng: np.random.Generator,
        bias: Bias | None = None,
        factor: float = 1,
        tests: Sequence[Test] | None = None,
    ) -> dict[Test, TestResult]:
        """The results of these tests, or of all, for one simulated draw, fair without a bias; for crowds of up to
        100,000.
        """
        ranked, seated = self.lots(rng, bias, factor)
        won = np.concatenate(
            [
                rows[_lowest(seated[rows], seats)]
                for rows, seats in zip(self._of_market, self.seats, strict=True)
            ]
        )
        first = _lowest(ranked, self._first_units)
        hits = {
            "order": self.audited[_lowest(ranked[self.audited], self._first_audited)],
            "winners": won[self.weights[won] == 1],
        }
        results = {}
        for test in tests or (WEIGHT, *self._numbers):
            if test == WEIGHT:
                results[test] = self._weights_tested(self._by_weight(first))
            else:
                found = first if test == HOUSEHOLD else hits[test[1]]
                results[test] = _tested(test, self._numbers[test], self._counted(test, found))
        return results


def stopped(results: Mapping[Test, TestResult], alpha: float = ALPHA) -> bool:
    """Whether the audit stops the draw: one test falls below alpha divided by the tests made."""
    made = [result.p for result in results.values() if result.p is not None]
    return min(made, default=1.0) < alpha / max(len(made), 1)


def power(result: TestResult, threshold: float) -> float:
    """The probability that a test falls below `threshold`, if `result` is that of the mean numbers."""
    if result.statistic is None:
        return 0.0
    return float(1 - chndtr(chdtri(result.freedom, threshold), result.freedom, result.statistic))


def caught(crowd: Crowd, bias: Bias, factor: float) -> float:
    """The probability that the test which sees the bias best stops the draw: all tests together stop it at least as
    often.
    """
    return max(power(crowd.mean(bias, factor, test), crowd.threshold) for test in bias.seen_by)


def smallest_caught(crowd: Crowd, bias: Bias, probability: float = CAUGHT) -> float | None:
    """The factor from which a bias is caught with this probability; None if no factor is great enough."""

    def lacking(factor: float) -> float:
        return caught(crowd, bias, factor) - probability

    return float(brentq(lacking, 1, _GREATEST, rtol=1e-6)) if lacking(_GREATEST) >= 0 else None


def _dealt(shares: Sequence[float], rows: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Groups of these shares, in random order."""
    edges = np.round(np.cumsum(shares)[:-1] * rows)
    return rng.permutation(np.searchsorted(edges, np.arange(rows), side="right"))


def _lowest(lots: Numbers, count: int) -> NDArray[np.int64]:
    return np.argpartition(lots, count)[:count]


def _chances(entries: Numbers, weights: Numbers, factors: Numbers, first: float) -> Numbers:
    """By cell, the chance to be among the `first`: lots below a threshold that all share."""

    def below(threshold: float) -> Numbers:
        return 1 - (1 - np.minimum(threshold * factors, 1)) ** weights

    return below(brentq(lambda threshold: float(entries @ below(threshold)) - first, 0, 1, xtol=1e-15))


def _tested(test: Test, numbers: Numbers, hits: Numbers) -> TestResult:
    """The audit's test of `hits` among `numbers`, both strata x groups."""
    totals, k = numbers.sum(axis=1), hits.sum(axis=1)
    variance = k * (totals - k) / (totals * (totals - 1))
    covariance = np.diag(variance @ numbers) - (numbers.T * (variance / totals)) @ numbers
    labels = tuple(map(str, range(numbers.shape[1])))
    counted = GroupCounts(labels, numbers.sum(axis=0), hits.sum(axis=0), (k / totals) @ numbers, covariance)
    return chi_square(pooled(counted, in_order=test[0] in _IN_ORDER))
