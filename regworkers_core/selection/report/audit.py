"""The bias audit (invariant 11): does anything influence winning that must not?

Two questions, for registration time, the first distinguishing character of ref and entry id, mail domain, and size of
household:
- *order*: are the first ranks spread evenly over the groups? Only the lottery number decides the rank, so this is exact
  for all preferences and reserves. It detects a broken seed or sort.
- *winners*: are the winners spread evenly? Only candidates with the same preferences and segments are compared, among
  whom only the rank may decide. It detects a wrong allocation or a manipulated result.
Both use units of weight 1, one candidate of each. The order is also tested for what each weight should give, and for
the size of household over all units, compared within each weight: one key decides for a unit, whatever its size. A
household that was put together before the commit is no bias of the order, and passes; the report shows how each size
fared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np

from fairdraw.terms import OF_STRUCK_SQL
from regworkers_core.selection.report.inputs import Workspace
from regworkers_core.selection.report.statistics import GroupCounts, chi_square, pooled, weight_counts

# A fair draw raises a false alarm once in 10,000 audits: rare enough to take every alarm seriously.
ALPHA = 1e-4
# Half-width of the band on plots, in standard deviations: 99.9 %.
BAND = 3.29
TIME_BINS = 20
_MOST_DAY_BINS = 30
DAY_MS = 86_400_000
# More than half of the order adds no information, and fewer ranks cannot fill the groups.
_MOST_FIRST, _LEAST_FIRST = 0.5, 200

_AUDITED = f"""
CREATE TABLE audited AS
SELECT rank, {{time}} AS time, {{day}} AS day, ref_class AS ref, entry_class AS entry, domain_class AS domain,
       outcome NOT IN {OF_STRUCK_SQL} AND previous <> 'WINNER' AS competes,
       outcome = 'WINNER' AS won, preferences, segments, size, weight
FROM leaf WHERE first
"""
_COUNTED = """
CREATE OR REPLACE TABLE counted AS
SELECT {stratum}, {dimension}::VARCHAR AS g, count(*) AS n, count(*) FILTER (WHERE {hit}) AS hits
FROM audited WHERE {among} GROUP BY ALL
"""
# Only strata with both winners and losers are informative.
_STRATA = """
CREATE OR REPLACE TABLE informative AS
SELECT c.stratum, c.g, c.n::DOUBLE AS n, c.hits, s.n::DOUBLE AS total, s.hits::DOUBLE AS k
FROM counted c JOIN (SELECT stratum, sum(n) AS n, sum(hits) AS hits FROM counted GROUP BY stratum) s
  ON s.stratum = c.stratum
WHERE s.hits > 0 AND s.hits < s.n
"""
_EXPECTED = """
SELECT g, sum(n), sum(hits), sum(n * k / total), sum(k * (total - k) / (total * (total - 1)) * n)
FROM informative GROUP BY g
"""
_COVARIANCE = """
SELECT a.g, b.g, sum(a.k * (a.total - a.k) / (a.total * a.total * (a.total - 1)) * a.n * b.n)
FROM informative a JOIN informative b ON a.stratum = b.stratum GROUP BY ALL
"""


@dataclass(frozen=True, slots=True)
class Dimension:
    """What groups are compared by. `labels` name the groups, in the order of a plot."""

    name: str
    title: str
    in_order: bool
    labels: Mapping[str, str]


def bias_audit(work: Workspace) -> dict[str, Any]:
    """Make all tests. The document has `tests` (each with its groups), `alpha`, `threshold` = alpha / tests made
    (Bonferroni), `passed`, and the `findings` as sentences.
    """
    dimensions = _prepare(work)
    units, audited = work.row("SELECT count(*), count(*) FILTER (WHERE weight = 1) FROM audited")
    winners, candidates = work.row(
        "SELECT count(*) FILTER (WHERE outcome = 'WINNER'), count(*) FROM leaf WHERE rank > 0"
    )
    everyone = _last_rank("true", first_tested(units, winners, candidates), work)
    last = _last_rank("weight = 1", first_tested(audited, winners, candidates), work)
    tests = [_weights(work, everyone)]
    for dimension in dimensions:
        if dimension.name == "householdSize":
            tests.append(
                _tested(work, dimension, "order", f"rank <= {everyone}", "true", "weight AS stratum")
            )
        else:
            tests.append(_tested(work, dimension, "order", f"rank <= {last}", "weight = 1", "0 AS stratum"))
        stratum = "(preferences::BIGINT << 32) + segments AS stratum"
        tests.append(_tested(work, dimension, "winners", "won", "competes AND weight = 1", stratum))
    made = [test for test in tests if test["p"] is not None]
    threshold = ALPHA / max(len(made), 1)
    for test in tests:
        test["passed"] = test["p"] is None or test["p"] >= threshold
        test["adjustedP"] = None if test["p"] is None else min(1.0, test["p"] * len(made))
    return {
        "alpha": ALPHA,
        "threshold": threshold,
        "testsMade": len(made),
        "audited": audited,
        "passed": all(test["passed"] for test in tests),
        "findings": [_sentence(test) for test in tests if not test["passed"]],
        "tests": tests,
    }


def _prepare(work: Workspace) -> list[Dimension]:
    """Create the table `audited`, with registration times as numbered bins."""
    marks = [n / TIME_BINS for n in range(1, TIME_BINS)]
    low, high, bounds = work.row(
        f"SELECT min(created), max(created), quantile_disc(created, {marks}) FROM leaf WHERE first AND weight = 1"
    )
    bounds = sorted(set(bounds or ()))
    time = " + ".join(f"(created > {bound})::INTEGER" for bound in bounds) or "0"
    days = 0 if low is None else (high // DAY_MS) - (low // DAY_MS) + 1
    width = max(1, -(-days // _MOST_DAY_BINS))
    day = "0" if low is None else f"(created // {DAY_MS} - {low // DAY_MS}) // {width}"
    work.execute(_AUDITED.format(time=time, day=day))
    sizes = [str(size) for (size,) in work.rows("SELECT DISTINCT size FROM audited ORDER BY size")]
    return [
        Dimension("registrationTime", "registration time", True, _time_labels(low, high, bounds)),
        Dimension("registrationDay", "registration day", True, _day_labels(low, days, width)),
        Dimension("refPrefix", "first character of the ref", False, {}),
        Dimension("entryIdPrefix", "first distinguishing character of the entry id", False, {}),
        Dimension("mailDomain", "mail domain", False, {"": "other domains"}),
        Dimension("householdSize", "size of household", True, dict(zip(sizes, sizes, strict=True))),
    ]


_COLUMNS = {
    "registrationTime": "time",
    "registrationDay": "day",
    "refPrefix": "ref",
    "entryIdPrefix": "entry",
    "mailDomain": "domain",
    "householdSize": "size",
}


def first_tested(audited: int, winners: int, candidates: int) -> int:
    """The number of first ranks to test: as many as win, within bounds."""
    share = winners / candidates if candidates else 0.0
    return min(int(audited * _MOST_FIRST), max(round(audited * share), _LEAST_FIRST))


def _last_rank(among: str, first: int, work: Workspace) -> int:
    """The rank of the `first`-th of these units."""
    if first < 1:
        return 0
    return work.number(f"SELECT rank FROM audited WHERE {among} ORDER BY rank LIMIT 1 OFFSET {first - 1}")


def _tested(
    work: Workspace, dimension: Dimension, question: str, hit: str, among: str, stratum: str
) -> dict[str, Any]:
    column = _COLUMNS[dimension.name]
    work.execute(_COUNTED.format(dimension=column, hit=hit, among=among, stratum=stratum))
    work.execute(_STRATA)
    counts = work.rows(_EXPECTED)
    # Missing times (null) are one group.
    found = {row[0] or "" for row in counts}
    names = [name for name in dimension.labels if name in found] + sorted(found - dimension.labels.keys())
    index = {name: place for place, name in enumerate(names)}
    size = len(names)
    candidates, hits, expected, covariance = (
        np.zeros(size),
        np.zeros(size),
        np.zeros(size),
        np.zeros((size, size)),
    )
    for name, n, found, wanted, own in counts:
        at = index[name or ""]
        candidates[at], hits[at], expected[at], covariance[at, at] = n, found, wanted, own
    for one, other, shared in work.rows(_COVARIANCE):
        covariance[index[one or ""], index[other or ""]] -= shared
    labels = tuple(dimension.labels.get(name, name or "unknown") for name in names)
    counted = GroupCounts(labels, candidates, hits, expected, covariance)
    return _test(dimension.name, dimension.title, question, pooled(counted, in_order=dimension.in_order))


def _weights(work: Workspace, last: int) -> dict[str, Any]:
    rows = work.rows(
        f"SELECT weight, count(*), count(*) FILTER (WHERE rank <= {last}) FROM audited GROUP BY weight ORDER BY weight"
    )
    counted = weight_counts(*([row[column] for row in rows] for column in range(3)))
    return _test("weight", "weight", "order", pooled(counted, in_order=True))


def _test(name: str, title: str, question: str, counted: GroupCounts) -> dict[str, Any]:
    outcome = chi_square(counted)
    deviations = (
        np.sqrt(np.clip(np.diag(counted.covariance), 0, None)) if len(counted.labels) else np.zeros(0)
    )
    return {
        "dimension": name,
        "title": title,
        "question": question,
        "statistic": outcome.statistic,
        "freedom": outcome.freedom,
        "p": outcome.p,
        "groups": [
            {
                "group": label,
                "candidates": int(candidates),
                "hits": int(hits),
                "expected": float(expected),
                "low": max(0.0, float(expected - BAND * deviation)),
                "high": min(float(candidates), float(expected + BAND * deviation)),
            }
            for label, candidates, hits, expected, deviation in zip(
                counted.labels, counted.candidates, counted.hits, counted.expected, deviations, strict=True
            )
        ],
    }


def _sentence(test: Mapping[str, Any]) -> str:
    def surprise(group: Mapping[str, Any]) -> float:
        return float(abs(group["hits"] - group["expected"]) / max(group["high"] - group["low"], 1.0))

    worst = max(test["groups"], key=surprise)
    what = "first ranks" if test["question"] == "order" else "winners"
    return (
        f"{test['title']}: {what} are not spread randomly (p = {test['p']:.1e});"
        f" {worst['group']} has {worst['hits']:,} of the {what}, expected {worst['expected']:,.0f}"
        f" ({worst['low']:,.0f} to {worst['high']:,.0f})"
    )


def _time_labels(low: int | None, high: int | None, bounds: Sequence[int]) -> dict[str, str]:
    if low is None or high is None:
        return {}
    edges = [low, *(bound for bound in bounds if bound < high), high]
    stamps = _stamps(edges)
    return {str(n): f"{start} to {end}" for n, (start, end) in enumerate(pairwise(stamps))}


def _stamps(edges: Sequence[int]) -> list[str]:
    """Times in milliseconds as text, to the minute or as precisely as needed to distinguish them."""
    moments = [datetime.fromtimestamp(edge / 1000, UTC) for edge in edges]
    for precise in ("minutes", "seconds", "milliseconds"):
        stamps = [moment.replace(tzinfo=None).isoformat(" ", precise) for moment in moments]
        if len(set(stamps)) == len(set(edges)):
            break
    return stamps


def _day_labels(low: int | None, days: int, width: int) -> dict[str, str]:
    if low is None:
        return {}
    start = datetime.fromtimestamp(low / 1000, UTC).date()
    labels = {}
    for n in range(-(-days // width)):
        first = start + timedelta(days=n * width)
        last = min(first + timedelta(days=width - 1), start + timedelta(days=days - 1))
        labels[str(n)] = f"{first}" if first == last else f"{first} to {last}"
    return labels
