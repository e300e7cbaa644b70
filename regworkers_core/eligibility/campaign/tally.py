"""The numbers of a campaign's judgement: by reason, market and day. They add up, and hold nothing of a fan's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regworkers_core.adapters.files.judged_entries import PAGE, JudgedEntry, Judgement
from regworkers_core.adapters.files.private_files import write_private
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.eligibility.rules import RULES, rule_set

ELIGIBLE = "ELIGIBLE"
# Entries that list no market of the campaign, or have no day of their own.
NONE = "–"


@dataclass(slots=True)
class Tally:
    """`by_market` and `by_day` count entries by their primary reason (ELIGIBLE where there is none): an entry in
    each of its markets, and on the day (UTC) on which it was created. `failed` counts every rule that failed.
    """

    campaign: Campaign
    as_of: str
    entries: int = 0
    undated: int = 0
    rejected: int = 0
    primary: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    by_market: dict[str, Counter[str]] = field(default_factory=dict)
    by_day: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, entry: JudgedEntry) -> None:
        primary = entry.reasons[0] if entry.reasons else ELIGIBLE
        self.entries += 1
        self.primary[primary] += 1
        self.failed.update(entry.reasons)
        known = self.campaign.market_ids
        for market in dict.fromkeys(each for each in entry.markets if each in known) or (NONE,):
            self.by_market.setdefault(market, Counter())[primary] += 1
        moment = seconds(entry.created_at)
        day = NONE if moment is None else iso(moment)[:10]
        self.by_day.setdefault(day, Counter())[primary] += 1

    @property
    def codes(self) -> list[str]:
        """ELIGIBLE, then the primary reasons that occurred, in the order of the rules."""
        return [code for code in (ELIGIBLE, *(rule.code for rule in RULES)) if self.primary[code]]

    @property
    def notes(self) -> list[str]:
        """What a reader of the numbers must know."""
        notes = []
        if self.undated:
            notes.append(
                f"{self.undated:,} entries have no createdAt that can be read: they count as entered when the campaign"
                " opened, after all others."
            )
        if self.rejected:
            notes.append(
                f"{self.rejected:,} entries are judged as they were before a change that replication refuses (see their"
                " dead letters): a draw leaves them out with REJECTED."
            )
        if uninvited := self.failed["NOT_INVITED"]:
            notes.append(
                f"NOT_INVITED ({uninvited:,}): invites that have expired since can not be told from none."
            )
        return notes

    def numbers(self) -> dict[str, Any]:
        """A JSON document: `entries` = `eligible` + `ineligible` = the sum of `primaryReasons` and `eligible`."""
        eligible = self.primary[ELIGIBLE]
        return {
            "asOf": self.as_of,
            "ruleSet": rule_set(),
            "entries": self.entries,
            "eligible": eligible,
            "ineligible": self.entries - eligible,
            "undated": self.undated,
            "rejected": self.rejected,
            "notes": self.notes,
            "primaryReasons": {code: self.primary[code] for code in self.codes if code != ELIGIBLE},
            "failedRules": {rule.code: self.failed[rule.code] for rule in RULES if self.failed[rule.code]},
            "markets": _sorted(self.by_market, (*self.campaign.market_ids, NONE)),
            "days": _sorted(self.by_day, sorted(self.by_day)),
        }

    def judgement(self, folder: Path, page: str = PAGE) -> Judgement:
        """With the report as `page` in `folder`. Plots are made here, so a second goes for their library."""
        from regworkers_core.eligibility.campaign.eligibility_report import made_report

        numbers = self.numbers()
        report = made_report(self.campaign, numbers, self.codes)
        write_private(folder / page, report.html)
        facts = {name: value for name, value in numbers.items() if name not in ("asOf", "days", "notes")}
        return Judgement(facts, report.markdown)


def _sorted(counts: Mapping[str, Counter[str]], order: Any) -> dict[str, dict[str, int]]:
    return {name: dict(counts[name]) for name in order if name in counts}
