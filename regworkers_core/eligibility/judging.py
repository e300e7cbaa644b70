"""Judges every live entry of a campaign at one moment, by the rules that judge a fan who asks.

One pass reads the replica and judges each entry as if it were the only one, with its invites and its user's record.
Relations between entries (same person, same household) are found out of core; the few entries that have an earlier
one are judged again with that fact. The numbers by reason, market and day add up and contain no fan's data.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from fairdraw import scheduling
from regworkers_core.adapters.aws.tables import MAX_GET
from regworkers_core.adapters.files import in_batches, write_private
from regworkers_core.adapters.judged_entries import PAGE, JudgedEntry, JudgedWriter, Judgement, Tell
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.claim import InviteType, TableKey, User
from regworkers_core.domain.eligibility import Fact, FactSource, Known, Missing
from regworkers_core.domain.entry import Order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import PermanentFailure, TransientFailure
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.eligibility.case import AsOf, Facts, Identity, Subject, invite_keys
from regworkers_core.eligibility.request import subject_of
from regworkers_core.eligibility.rules import RULES, judge, rule_set
from regworkers_core.eligibility.staging import ROWS, StagedEntry, Staging
from regworkers_core.runtime import Runtime

Invites = Mapping[InviteType, int]
NO_INVITES: Fact[Invites] = Known({}, FactSource.REQUEST)
NO_USER: Fact[User | None] = Known(None, FactSource.REQUEST)
# Some fans have deleted their account. A service without a record of any of more than this number is broken or empty.
MOST_UNKNOWN = 20


@dataclass(frozen=True, slots=True)
class OutsideFacts:
    """The facts about one subject that come from other services."""

    invites: Fact[Invites]
    user: Fact[User | None]


class Outside:
    """Reads invites and users' records. A record that cannot be read is Missing, for the rules to judge; if the
    settings require every record it raises TransientFailure, as it does for invites.
    """

    def __init__(self, runtime: Runtime, campaign: Campaign, pool: scheduling.Pool) -> None:
        self._runtime, self._campaign, self._pool = runtime, campaign, pool
        terms = campaign.eligibility
        self._always = runtime.settings.eligibility.campaign_user_lookups == "always"
        # The record's region and age take precedence over what the fan wrote in the entry.
        needs_record = terms.require_verified_phone or bool(terms.regions) or terms.min_age is not None
        self._asks = needs_record or self._always
        # Ids without a record, until the first record is found; no more than `require_a_record` needs.
        self._unknown: set[str] = set()
        self._found_a_record = False

    def facts(self, subjects: Sequence[Subject]) -> list[OutsideFacts]:
        """Return the facts in the order of `subjects`."""
        return [
            OutsideFacts(invites, user)
            for invites, user in zip(self._invites(subjects), self._users(subjects), strict=True)
        ]

    def require_a_record(self) -> None:
        """Raise TransientFailure if the User Service had no record of any of many fans: then it is broken or empty."""
        if len(self._unknown) > MOST_UNKNOWN and not self._found_a_record:
            raise TransientFailure(
                "service-user",
                f"it has no record of any of more than {MOST_UNKNOWN} fans: check its address and its data",
            )

    def _invites(self, subjects: Sequence[Subject]) -> list[Fact[Invites]]:
        if not self._campaign.eligibility.invite_only:
            return [NO_INVITES] * len(subjects)
        wanted = [invite_keys(self._campaign, subject) for subject in subjects]
        keys = dict.fromkeys(key for each in wanted for key in each.values())
        found: dict[TableKey, int] = {}
        for part in self._pool.map(self._runtime.invites.ttls, in_batches(keys, MAX_GET)):
            found |= part
        return [
            Known({kind: found[key] for kind, key in each.items() if key in found}, FactSource.DATABASE)
            for each in wanted
        ]

    def _users(self, subjects: Sequence[Subject]) -> list[Fact[User | None]]:
        ids = {each.global_user_id for each in subjects if each.global_user_id} if self._asks else set()
        known = dict(zip(ids, self._pool.map(self._user, ids), strict=True))
        for id_, fact in known.items():
            self._note(id_, fact)
        return [
            known.get(each.global_user_id, NO_USER) if each.global_user_id else NO_USER for each in subjects
        ]

    def _note(self, global_user_id: str, fact: Fact[User | None]) -> None:
        if isinstance(fact, Missing):
            return
        self._found_a_record = self._found_a_record or fact.value is not None
        if not self._found_a_record and len(self._unknown) <= MOST_UNKNOWN:
            self._unknown.add(global_user_id)

    def _user(self, global_user_id: str) -> Fact[User | None]:
        try:
            return Known(self._runtime.services.user.get(global_user_id), FactSource.SERVICE)
        except PermanentFailure:
            # An id that the service refuses, or that no request can carry, has no record.
            return Known(None, FactSource.SERVICE)
        except TransientFailure as failure:
            if self._always:
                raise
            return Missing(failure.dependency, failure.error)


ELIGIBLE = "ELIGIBLE"
# The key of entries that list no market of the campaign, or have no day.
NONE = "–"


@dataclass(slots=True)
class Tally:
    """The numbers. An entry counts by its primary reason (ELIGIBLE if there is none)."""

    campaign: Campaign
    as_of: str  # ISO time of the judgement
    entries: int = 0
    undated: int = 0  # entries without a readable time
    rejected: int = 0  # judged in their state before a change that replication refuses
    primary: Counter[str] = field(default_factory=Counter)  # entries by primary reason
    failed: Counter[str] = field(default_factory=Counter)  # entries by each rule that failed
    by_market: dict[str, Counter[str]] = field(default_factory=dict)  # the same for each market of an entry
    by_day: dict[str, Counter[str]] = field(default_factory=dict)  # the same by the day (UTC) of its creation

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
        notes = []
        if self.undated:
            notes.append(
                f"{self.undated:,} entries have no readable createdAt: they count as entered when the campaign opened,"
                " after all others."
            )
        if self.rejected:
            notes.append(
                f"{self.rejected:,} entries are judged in their state before a change that replication refuses (see"
                " their dead letters): a draw excludes them with REJECTED."
            )
        if uninvited := self.failed["NOT_INVITED"]:
            notes.append(
                f"NOT_INVITED ({uninvited:,}): an expired invite that DynamoDB has deleted looks like no invite."
            )
        return notes

    def numbers(self) -> dict[str, Any]:
        """Return a JSON document: `entries` = `eligible` + `ineligible`; `primaryReasons` add up to `ineligible`."""
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
        """Write the report as `page` into `folder`. The late import costs a second, for the plots."""
        from regworkers_core.eligibility.eligibility_report import made_report

        numbers = self.numbers()
        report = made_report(self.campaign, numbers, self.codes)
        write_private(folder / page, report.html)
        facts = {name: value for name, value in numbers.items() if name not in ("asOf", "days", "notes")}
        return Judgement(facts, report.markdown)


def _sorted(counts: Mapping[str, Counter[str]], order: Any) -> dict[str, dict[str, int]]:
    return {name: dict(counts[name]) for name in order if name in counts}


_ALONE: frozenset[Identity] = frozenset()


class _Read(NamedTuple):
    key: EntryKey
    order: Order
    fields: Mapping[str, Any]  # what the replica stores of it
    subject: Subject
    is_dated: bool


def judge_campaign(
    runtime: Runtime, campaign: Campaign, *, as_of: str, folder: Path, tell: Tell
) -> Judgement:
    """Implement `regworkers_core.adapters.judged_entries.Judge` by the rules of eligibility, with a report."""
    return judge_entries(runtime, campaign, as_of=as_of, folder=folder, tell=tell).judgement(folder)


def judge_entries(
    runtime: Runtime, campaign: Campaign, *, as_of: str, folder: Path, tell: Tell, most: int | None = None
) -> Tally:
    """Write `folder/judged.parquet` and return the numbers; with `most` those of the first entries, by id.

    An entry without a readable time counts as entered when the campaign opened, but comes after all others of the same
    person or household. Raises TransientFailure if MongoDB, the demand table (invites) or a service that the campaign
    requires does not answer, or if the User Service has no record of any of many fans.
    """
    tally = Tally(campaign, as_of)
    with (
        tempfile.TemporaryDirectory(prefix="regworkers-eligibility-") as private,
        Staging(Path(private)) as staging,
        JudgedWriter(folder) as writer,
        scheduling.pool(runtime.settings.eligibility.threads, "eligibility") as pool,
    ):
        services = Outside(runtime, campaign, pool)
        work = _CampaignJudge(campaign, as_of, services)
        for batch in in_batches(islice(_read(runtime, campaign, tally), most), ROWS):
            work.rejected |= _rejected(runtime, batch)
            for read, codes in zip(batch, work.alone(batch), strict=True):
                staging.add(read.key, read.subject, read.fields, codes, is_dated=read.is_dated)
            tell(f"{staging.count:,} entries judged")
        services.require_a_record()
        tally.rejected = len(work.rejected)
        tell("comparing the entries with each other")
        for entries in staging.entries():
            for judged in work.together(entries):
                writer.add(judged)
                tally.add(judged)
    return tally


class _CampaignJudge:
    def __init__(self, campaign: Campaign, as_of: str, outside: Outside) -> None:
        self._campaign: Fact[Campaign | None] = Known(campaign, FactSource.DATABASE)
        self._campaign_id = campaign.campaign_id
        self._as_of = AsOf(seconds(as_of) or 0.0, as_of)
        self._outside = outside
        # Ids of entries whose newer state replication refuses; each has an open dead letter, so they are few.
        self.rejected: set[str] = set()

    def alone(self, batch: Sequence[_Read]) -> list[list[str]]:
        """Return the codes of each entry as if it were the only one."""
        subjects = [read.subject for read in batch]
        return [
            self._codes(subject, known, _ALONE, 0)
            for subject, known in zip(subjects, self._outside.facts(subjects), strict=True)
        ]

    def together(self, entries: Sequence[StagedEntry]) -> Iterator[JudgedEntry]:
        """Yield the entries with their codes, judged among all others."""
        again = [each for each in entries if each.duplicates or each.household]
        subjects = [
            subject_of(each.fields, entry_id=each.entry_id, created_at=each.entered_at) for each in again
        ]
        codes = {
            each.entry_id: self._codes(subject, known, each.duplicates, each.household)
            for each, subject, known in zip(again, subjects, self._outside.facts(subjects), strict=True)
        }
        for each in entries:
            key = EntryKey(self._campaign_id, each.entry_id)
            yield JudgedEntry.of(
                key,
                each.fields,
                codes.get(each.entry_id, each.codes),
                each.mail_domain,
                is_rejected=each.entry_id in self.rejected,
            )

    def _codes(
        self, subject: Subject, known: OutsideFacts, duplicates: frozenset[Identity], household: int
    ) -> list[str]:
        facts = Facts(
            self._campaign,
            known.invites,
            Known(duplicates, FactSource.DATABASE),
            Known(household, FactSource.DATABASE),
            known.user,
        )
        verdict = judge(subject, facts, self._as_of)
        if verdict.missing and not verdict.reasons:
            missing = next(iter(verdict.missing.values()))
            raise TransientFailure(missing.dependency, missing.error)
        return [reason.code for reason in verdict.reasons]


def _read(runtime: Runtime, campaign: Campaign, tally: Tally) -> Iterator[_Read]:
    """Yield the live entries of the replica."""
    for key, stored in runtime.replica.entries(campaign.campaign_id):
        if stored.fields is None:
            continue
        subject = subject_of(
            stored.fields, entry_id=key.entry_id, created_at=str(stored.fields.get("createdAt") or "")
        )
        is_dated = bool(subject.entered_at)
        if not is_dated:
            tally.undated += 1
            subject = subject_of(stored.fields, entry_id=key.entry_id, created_at=campaign.opens_at)
        yield _Read(key, stored.order, stored.fields, subject, is_dated)


def _rejected(runtime: Runtime, batch: Sequence[_Read]) -> set[str]:
    """Return the ids of entries with an open dead letter for a newer state than the one that was read."""
    refused = runtime.dead_letters.open_orders([read.key for read in batch])
    return {
        read.key.entry_id for read in batch if any(order > read.order for order in refused.get(read.key, ()))
    }
