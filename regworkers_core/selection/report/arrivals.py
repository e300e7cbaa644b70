"""When entries were made: curves by hour, for all, for each market and by size of household, and the share of entries
for which a trusted caller or an identity provider vouched.

Invented entries need a time, markets and a household, too: ten thousand in one night are a peak that the curves show.
The time of an entry is not public, so no number here is of a group of fewer than LEAST_GROUP entries, and none follows
from the difference of two: hours are joined until each class of a partition has none or enough.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
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
# The class of entries that do not say who vouched for them, and that of vouchers of too few entries.
NOT_SAID, OTHERS = "not said", "others"
# What the page says of the share of each voucher, in order.
VOUCHED = {
    Voucher.CALLER: "came from a system that the organiser trusts",
    Voucher.PROVIDER: "with a mail address that an identity provider had verified",
    Voucher.UNVERIFIED: "with an address that was only typed",
    NOT_SAID: "do not say who vouched for the address: another program wrote them",
    OTHERS: "are of another voucher, or do not say",
}
_VOUCHER = f"coalesce(vouched_by, '{NOT_SAID}')"
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
    market; `vouchedShares` by voucher, of all entries; and `undated`, the number of entries that no curve has because
    they have no readable time, None for too few to name and where none has one. A curve of too few entries is empty.
    """
    sizes = _counted(_by_hour(work, "size::VARCHAR"))
    vouched: dict[str, int] = dict(work.rows(f"SELECT {_VOUCHER}, count(*) FROM leaf GROUP BY ALL"))
    total, is_said = sum(vouched.values()), any(each != NOT_SAID for each in vouched)
    undated = work.number("SELECT count(*) FROM leaf WHERE created IS NULL")
    made = {
        "all": bins(_counted(_by_hour(work, f"'{ALL}'"))),
        "householdSizes": bins(pooled_sizes(sizes)),
        "markets": {market: bins(_counted(work.rows(_OF_MARKET, {"market": market}))) for market in markets},
        "undated": undated if undated < total and not 0 < undated < LEAST_GROUP else None,
        "vouchers": bins(pooled_vouchers(_counted(_by_hour(work, _VOUCHER)))) if is_said else [],
        "vouchedShares": {each: n / total for each, n in pooled_vouchers({0: vouched})[0].items()}
        if is_said and total >= LEAST_GROUP
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
    return _pooled(counts, lambda size, _entries: int(size), lambda sizes: f"{min(map(int, sizes))} or more")


def pooled_vouchers(counts: Counts) -> Counts:
    """The same with the rarest vouchers together: else one entry of another voucher would leave no curve."""
    return _pooled(counts, lambda _name, entries: -entries, lambda _names: OTHERS)


def _pooled(
    counts: Counts, place: Callable[[str, int], int], named: Callable[[Sequence[str]], str]
) -> Counts:
    """Join classes, from the last `place` of a class and its entries on, until each has enough entries."""
    totals = Counter[str]()
    for classes in counts.values():
        totals.update(classes)
    alone, joined = sorted(totals, key=lambda each: place(each, totals[each])), list[str]()
    while alone and (
        0 < sum(totals[each] for each in joined) < LEAST_GROUP
        or min(totals[each] for each in alone) < LEAST_GROUP
    ):
        joined.append(alone.pop())
    rest = named(joined) if joined else ""
    pooled: dict[int, Mapping[str, int]] = {}
    for hour, classes in counts.items():
        mine = Counter[str]()
        for each, entries in classes.items():
            mine[rest if each in joined else each] += entries
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
