"""When entries were made: curves by hour, for all, for each market and by size of household, and the share of entries
for which a trusted caller or an identity provider vouched.

Invented entries need a time, markets and a household, too: ten thousand in one night are a peak that the curves show.
The time of an entry is not public, so no number here is of a group of fewer than LEAST_GROUP entries, and none follows
from the difference of two: hours are joined until each class of a partition has none or enough.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairdraw.documents import as_json
from regworkers_core.domain.entry import Voucher
from regworkers_core.domain.timestamps import iso
from regworkers_core.selection.report.inputs import LEAST_GROUP, Workspace

HOUR_SECONDS = 3600
_HOUR = f"created // {1000 * HOUR_SECONDS}"
_OF_MARKET = f"""
SELECT {_HOUR} AS hour, list_contains(l.list, $market)::VARCHAR AS class, count(*)
FROM leaf JOIN preference_list l ON l.n = leaf.preferences WHERE created IS NOT NULL GROUP BY ALL
"""
# The classes of all entries, and of those that listed a market.
ALL, LISTED = "entries", "true"
# The class of entries that do not say who vouched for them.
NOT_SAID = "not said"
# Entries by hour since the epoch and class.
Counts = Mapping[int, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Bin:
    """Consecutive hours, counted together."""

    from_: str  # an ISO time, the beginning of an hour
    hours: int
    entries: Mapping[str, int]  # by class, each none or at least LEAST_GROUP


def arrivals(work: Workspace, markets: Sequence[str]) -> dict[str, Any]:
    """The curves `all`, `householdSizes` and `vouchers` as bins, `markets` as bins by id, where class `true` listed the
    market; and `vouchedShares` by voucher, of the entries that name one. A curve of too few entries is empty.
    """
    sizes = _counted(_by_hour(work, "size::VARCHAR"))
    vouched = dict(
        work.rows("SELECT vouched_by, count(*) FROM leaf WHERE vouched_by IS NOT NULL GROUP BY ALL")
    )
    known = sum(vouched.values())
    made = {
        "all": bins(_counted(_by_hour(work, f"'{ALL}'"))),
        "householdSizes": bins(pooled_sizes(sizes)),
        "markets": {market: bins(_counted(work.rows(_OF_MARKET, {"market": market}))) for market in markets},
        "vouchers": bins(_counted(_by_hour(work, f"coalesce(vouched_by, '{NOT_SAID}')"))) if known else [],
        "vouchedShares": {each: vouched.get(each, 0) / known for each in Voucher}
        if known >= LEAST_GROUP
        else None,
    }
    shown: dict[str, Any] = as_json(made)
    return shown


def _by_hour(work: Workspace, class_: str) -> list[tuple[Any, ...]]:
    return work.rows(
        f"SELECT {_HOUR} AS hour, {class_} AS class, count(*) FROM leaf WHERE created IS NOT NULL GROUP BY ALL"
    )


def _counted(rows: Iterable[tuple[Any, ...]]) -> dict[int, dict[str, int]]:
    found: dict[int, dict[str, int]] = {}
    for hour, class_, entries in rows:
        found.setdefault(hour, {})[class_] = entries
    return found


def pooled_sizes(counts: Counts) -> Counts:
    """The same with the largest households together, so that no class has too few entries."""
    totals = Counter[int]()
    for classes in counts.values():
        totals.update({int(size): entries for size, entries in classes.items()})
    alone, together = sorted(totals), 0
    while alone and (0 < together < LEAST_GROUP or min(totals[size] for size in alone) < LEAST_GROUP):
        together += totals[alone.pop()]
    rest = f"{min(set(totals) - set(alone))} or more" if together else ""
    pooled: dict[int, Mapping[str, int]] = {}
    for hour, classes in counts.items():
        mine = Counter[str]()
        for size, entries in classes.items():
            mine[size if int(size) in alone else rest] += entries
        pooled[hour] = mine
    return pooled


def bins(counts: Counts) -> list[Bin]:
    """Join hours until each class has none or at least LEAST_GROUP entries; too few at the end go with those before."""
    made: list[_Open] = []
    open_ = _Open()
    for hour in sorted(counts):
        open_.add([hour], counts[hour])
        if open_.is_enough:
            made.append(open_)
            open_ = _Open()
    while open_.hours and made and not open_.is_enough:
        last = made.pop()
        open_.add(last.hours, last.entries)
    if open_.is_enough:
        made.append(open_)
    return [each.closed() for each in made]


@dataclass(slots=True)
class _Open:
    hours: list[int] = field(default_factory=list)
    entries: Counter[str] = field(default_factory=Counter)

    def add(self, hours: Sequence[int], entries: Mapping[str, int]) -> None:
        self.hours += hours
        self.entries.update(entries)

    @property
    def is_enough(self) -> bool:
        found = [each for each in self.entries.values() if each]
        return bool(found) and min(found) >= LEAST_GROUP

    def closed(self) -> Bin:
        first, last = min(self.hours), max(self.hours)
        return Bin(iso(first * HOUR_SECONDS), last + 1 - first, dict(sorted(self.entries.items())))
