"""The figures of docs/fairness.md about the log of registrations: who sees entries that were left out, and how far
invented ones show in the published arrivals.

Chances are exact, arrivals are expected numbers; tests compare both with simulated campaigns.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from regworkers_core.selection.report.arrivals import bins
from tests.fairdraw.registrations.campaigns import Operator
from tests.fairdraw.registrations.planted import PLANTED, Seer, seers

# Registrations of the campaign of the table.
ENTRIES = 1_000_000
LEFT_OUT = (1, 3, 10, 30, 100, 300, 1_000)
# How many registrations an auditor has opened.
SAMPLES = (1_000, 10_000, 100_000)
# The share of fans who look.
SHARES = (0.001, 0.01, 0.05, 0.2)
# From this chance on a cell says "> 99.99 %".
_SURE = 0.9999
# The campaign of the arrivals: entries of a day by hour, few at night; the first and the last day have more of them.
DAYS, INVENTED = 14, 10_000
CAMPAIGNS = 100
CROWDS = (100_000, 1_000_000, 3_500_000)
_BY_HOUR = (8, 4, 3, 2, 2, 4, 10, 20, 35, 50, 60, 65, 70, 65, 60, 60, 65, 75, 90, 95, 85, 60, 35, 17)
_RUSH = 3.0
# The hour with which the eighth day begins.
_BEGIN = 7 * 24


def chance_by_sample(left_out: int, sample: int, entries: int = ENTRIES) -> float:
    """The chance that a sample of that many registrations, each of them once, has at least one of those left out."""
    missed = math.prod(max(0, entries - sample - each) / (entries - each) for each in range(left_out))
    return 1.0 - missed


def chance_by_fans(left_out: int, share: float) -> float:
    """The chance that at least one of the fans left out looks, if each does with that chance, whatever others do."""
    return 1.0 - (1.0 - share) ** left_out


def chances_table() -> str:
    """Who sees that entries were left out, by their number."""
    columns = (
        "left out",
        *(f"{100 * share:g} % of fans look" for share in SHARES),
        *(f"{sample:,} opened" for sample in SAMPLES),
        "all opened",
    )
    rows = [
        (
            f"{number:,}",
            *(_percent(chance_by_fans(number, share)) for share in SHARES),
            *(_percent(chance_by_sample(number, sample)) for sample in SAMPLES),
            "100 %",
        )
        for number in LEFT_OUT
    ]
    return _table(columns, rows, texts=0)


def planted_table(campaigns: int = CAMPAIGNS) -> str:
    """Who sees frauds, each planted in this number of campaigns, and in how many of them."""
    rows = []
    for fraud in PLANTED:
        found = Counter[Seer]()
        for number in range(campaigns):
            operator = Operator(number)
            found.update(seers(operator, fraud.plant(operator)))
        rows.append((fraud.name, *(str(found[seer]) for seer in Seer)))
    return _table(("planted", *Seer), rows, texts=1)


@dataclass(frozen=True, slots=True)
class Spread:
    """Over which hours the invented entries come, counted from the beginning of the eighth day."""

    name: str
    hours: Sequence[int]
    # With the rhythm of the day, in place of the same number in each hour.
    as_others: bool = False
    # The share of all fans who have the same market, which the curve shows by itself.
    market: float = 1.0


_NIGHT, _DAY = range(1, 5), range(24)
SPREADS = (
    Spread("a night, from 1 to 5 o'clock", _NIGHT),
    Spread("a night, and all want a market of a tenth of the fans", _NIGHT, market=0.1),
    Spread("a day, as the others", _DAY, as_others=True),
    Spread("a day, as the others, and all want a market of a tenth", _DAY, as_others=True, market=0.1),
    Spread("all 14 days, as the others", range(-_BEGIN, DAYS * 24 - _BEGIN), as_others=True),
)
HONEST = Spread("none", (), as_others=True)


class Unlike(NamedTuple):
    """The most unlike hours of a campaign."""

    hours: int
    # Times as many entries as on other days: with the invented ones, and by chance.
    factor: float
    chance: float

    @property
    def excess(self) -> float:
        return self.factor / self.chance

    def __str__(self) -> str:
        when = "hour" if self.hours == 1 else "day"
        shown = f"{self.factor:.2f} ({when}; by chance {self.chance:.2f})"
        return shown if self.excess > 1 else f"not seen: {shown}"


def expected(entries: int, spread: Spread = HONEST) -> NDArray[np.float64]:
    """The expected number of entries of each hour on the curve that shows the invented ones best."""
    days = np.ones(DAYS)
    days[0] = days[-1] = _RUSH
    honest = np.outer(days, np.array(_BY_HOUR, float)).ravel()
    honest *= entries * spread.market / honest.sum()
    hours = np.array(spread.hours, dtype=np.int64) + _BEGIN
    share = honest[hours] if spread.as_others else np.ones(len(hours))
    made = honest.copy()
    made[hours] += INVENTED * share / share.sum()
    return made


def published(arrivals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entries of each hour as the published curve has them: hours with few entries are joined."""
    counts = {hour: {"": round(number)} for hour, number in enumerate(arrivals)}
    rates, first = np.empty(len(arrivals)), 0
    for each in bins(counts):
        rates[first : first + each.hours] = each.entries[""] / each.hours
        first += each.hours
    return rates


def most_unlike(arrivals: NDArray[np.float64], hours: int) -> float:
    """The greatest factor of `hours` of the published curve (one, or a day) over the median of the same hours of
    the other days, without the first and the last day.
    """
    days = published(arrivals).reshape(DAYS, -1, hours).sum(axis=2)[1:-1]
    return float((days / np.median(days, axis=0)).max())


@cache
def simulated(entries: int, spread: Spread, hours: int) -> Sequence[float]:
    """`most_unlike` of campaigns in which each fan comes by itself, in order."""
    rng = np.random.default_rng((4, entries))
    mean = expected(entries, spread)
    drawn = (rng.poisson(mean).astype(np.float64) for _ in range(CAMPAIGNS))
    return sorted(most_unlike(each, hours) for each in drawn)


def unlike(entries: int, spread: Spread, hours: int) -> Unlike:
    """What the median campaign shows, and the most of the honest ones."""
    found = simulated(entries, spread, hours)
    honest = simulated(entries, replace(HONEST, market=spread.market), hours)
    return Unlike(hours, found[len(found) // 2], honest[-1])


def arrivals_table() -> str:
    """How far 10,000 invented entries make an hour, or a day, unlike the others: the one that shows them best."""
    columns = ("10,000 invented over", *(f"among {_count(entries)}" for entries in CROWDS))
    rows = [
        (
            spread.name,
            *(
                str(max((unlike(entries, spread, hours) for hours in (1, 24)), key=lambda each: each.excess))
                for entries in CROWDS
            ),
        )
        for spread in SPREADS
    ]
    return _table(columns, rows, texts=1)


def _count(entries: int) -> str:
    return f"{entries:,}" if entries < 1_000_000 else f"{entries / 1_000_000:g} million"


def _percent(chance: float) -> str:
    return "> 99.99 %" if chance > _SURE else f"{100 * chance:.3g} %"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, texts: int) -> str:
    marks = ["---"] * texts + ["---:"] * (len(columns) - texts)
    return "".join(f"| {' | '.join(line)} |\n" for line in (columns, marks, *rows))
