"""Judge every live entry of a campaign at one moment: by the rules that judge a fan who asks.

One pass reads the replica and judges each entry as if it were the only one. What entries have to do with each other
(the same person's, the same household's) is found out of core, and those few that something stands before are
judged again with that fact.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from regworkers_core.adapters.files.judged_entries import JudgedEntry, JudgedWriter, Judgement, Tell
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.eligibility import Fact, Known, Source
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.order import Order
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.timestamps import seconds
from regworkers_core.eligibility.campaign.outside import Asked, Outside, outside
from regworkers_core.eligibility.campaign.staging import ROWS, Staged, Staging
from regworkers_core.eligibility.campaign.tally import Tally
from regworkers_core.eligibility.case import AsOf, Facts, Identity, Subject
from regworkers_core.eligibility.request import subject_of
from regworkers_core.eligibility.rules import judge
from regworkers_core.runtime import Runtime

_ALONE: frozenset[Identity] = frozenset()


class _Read(NamedTuple):
    key: EntryKey
    order: Order
    fields: Mapping[str, Any]
    subject: Subject
    is_dated: bool


def judge_campaign(
    runtime: Runtime, campaign: Campaign, *, as_of: str, folder: Path, tell: Tell
) -> Judgement:
    """`regworkers_core.adapters.files.judged_entries.Judge`, by the rules of eligibility, with a report for people."""
    return judge_entries(runtime, campaign, as_of=as_of, folder=folder, tell=tell).judgement(folder)


def judge_entries(runtime: Runtime, campaign: Campaign, *, as_of: str, folder: Path, tell: Tell) -> Tally:
    """Write `folder/judged.parquet` and return the numbers.

    An entry without a time of its own is not refused for it: it counts as entered when the campaign opened, but
    comes after all others of the same person or household. Raises
    TransientFailure when MongoDB, the demand table (invites) or a service that the campaign requires cannot answer,
    or knows nobody of many.
    """
    tally = Tally(campaign, as_of)
    with (
        tempfile.TemporaryDirectory(prefix="regworkers-eligibility-") as private,
        Staging(Path(private)) as staging,
        JudgedWriter(folder) as writer,
        outside(runtime, campaign) as asked,
    ):
        work = _CampaignJudge(campaign, as_of, asked)
        for batch in _read(runtime, campaign, tally):
            work.rejected |= _rejected(runtime, batch)
            for read, codes in zip(batch, work.alone(batch), strict=True):
                staging.add(read.key, read.subject, read.fields, codes, is_dated=read.is_dated)
            tell(f"{staging.count:,} entries judged")
        asked.require_that_somebody_is_known()
        tally.rejected = len(work.rejected)
        tell("comparing the entries with each other")
        for entries in staging.entries():
            for judged in work.together(entries):
                writer.add(judged)
                tally.add(judged)
    return tally


class _CampaignJudge:
    def __init__(self, campaign: Campaign, as_of: str, outside: Outside) -> None:
        self._campaign: Fact[Campaign | None] = Known(campaign, Source.DATABASE)
        self._campaign_id = campaign.campaign_id
        self._as_of = AsOf(seconds(as_of) or 0.0, as_of)
        self._outside = outside
        # Ids of entries of which replication refuses a newer state: each has an open dead letter, so they are few.
        self.rejected: set[str] = set()

    def alone(self, batch: Sequence[_Read]) -> list[list[str]]:
        """The codes of each entry as if there were no other."""
        subjects = [read.subject for read in batch]
        return [
            self._codes(subject, asked, _ALONE, 0)
            for subject, asked in zip(subjects, self._outside.ask(subjects), strict=True)
        ]

    def together(self, entries: Sequence[Staged]) -> Iterator[JudgedEntry]:
        """The entries with the codes that they have among the others."""
        again = [each for each in entries if each.duplicates or each.household]
        subjects = [
            subject_of(each.fields, entry_id=each.entry_id, created_at=each.entered_at) for each in again
        ]
        codes = {
            each.entry_id: self._codes(subject, asked, each.duplicates, each.household)
            for each, subject, asked in zip(again, subjects, self._outside.ask(subjects), strict=True)
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
        self, subject: Subject, asked: Asked, duplicates: frozenset[Identity], household: int
    ) -> list[str]:
        facts = Facts(
            self._campaign,
            asked.invites,
            Known(duplicates, Source.DATABASE),
            Known(household, Source.DATABASE),
            asked.user,
        )
        found = judge(subject, facts, self._as_of)
        if found.missing and not found.reasons:
            missing = next(iter(found.missing.values()))
            raise TransientFailure(missing.dependency, missing.error)
        return [reason.code for reason in found.reasons]


def _read(runtime: Runtime, campaign: Campaign, tally: Tally) -> Iterator[list[_Read]]:
    """Live entries of the replica in batches."""
    batch: list[_Read] = []
    for key, stored in runtime.replica.scan(campaign.campaign_id):
        if stored.fields is None:
            continue
        subject = subject_of(
            stored.fields, entry_id=key.entry_id, created_at=str(stored.fields.get("createdAt") or "")
        )
        is_dated = bool(subject.entered_at)
        if not is_dated:
            tally.undated += 1
            subject = subject_of(stored.fields, entry_id=key.entry_id, created_at=campaign.opens_at)
        batch.append(_Read(key, stored.order, stored.fields, subject, is_dated))
        if len(batch) == ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _rejected(runtime: Runtime, batch: Sequence[_Read]) -> set[str]:
    """Entries with an open dead letter about a newer state than the one that was read: it cannot be saved."""
    refused = runtime.dead_letters.open_orders([read.key for read in batch])
    return {
        read.key.entry_id for read in batch if any(order > read.order for order in refused.get(read.key, ()))
    }
