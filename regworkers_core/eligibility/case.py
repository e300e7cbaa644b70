"""One subject with its facts at one moment: all that a rule may look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.eligibility import Fact, Missing, T
from regworkers_core.domain.invite import InviteType
from regworkers_core.domain.timestamps import iso
from regworkers_core.domain.timestamps import seconds as moment_of
from regworkers_core.domain.user import User
from regworkers_core.eligibility.facts import Facts
from regworkers_core.eligibility.subject import Identity, Subject


class FactMissing(Exception):
    """A rule cannot tell without this fact. The judge catches it: nothing else raises out of a rule."""

    def __init__(self, fact: str, missing: Missing) -> None:
        super().__init__(fact)
        self.fact, self.missing = fact, missing


class NoCampaign(Exception):
    """There is no such campaign, so a rule about it has nothing to say."""


class AsOf(NamedTuple):
    """The moment of a judgement, in both forms: made once for all subjects that are judged together. Where an entry
    is written, it is the entry's `createdAt`, so that whoever judges the entry later sees the very same moment.
    """

    seconds: float
    text: str

    @classmethod
    def at(cls, seconds: float) -> AsOf:
        """To the millisecond, which is what a text holds."""
        text = iso(seconds)
        return cls(moment_of(text) or 0.0, text)


@dataclass(frozen=True, slots=True)
class Case:
    """Every fact is a property that gives its value, or tells the judge that it is missing."""

    subject: Subject
    facts: Facts
    as_of: AsOf

    @property
    def campaign(self) -> Campaign:
        campaign = _value("campaign", self.facts.campaign)
        if campaign is None:
            raise NoCampaign
        return campaign

    @property
    def is_campaign_known(self) -> bool:
        return _value("campaign", self.facts.campaign) is not None

    @property
    def moment(self) -> str:
        """When the subject entered, or asks: what windows, invites and ages are measured by (ISO-8601)."""
        entered_at = self.subject.entered_at
        if entered_at is None:
            return self.as_of.text
        if not entered_at:
            raise FactMissing("createdAt", Missing("entry", "it has no createdAt that can be read"))
        return entered_at

    @property
    def moment_seconds(self) -> float:
        """The same in seconds since the epoch."""
        if self.subject.entered_at is None:
            return self.as_of.seconds
        return moment_of(self.moment) or 0.0

    @property
    def invites(self) -> Mapping[InviteType, int]:
        return _value("invites", self.facts.invites)

    @property
    def duplicates(self) -> frozenset[Identity]:
        return _value("duplicates", self.facts.duplicates)

    @property
    def household(self) -> int:
        return _value("household", self.facts.household)

    @property
    def user(self) -> User | None:
        """None when nobody is known under the id. Without an id there is nothing that could be looked up, so that
        is certain, too.
        """
        return _value("user", self.facts.user) if self.subject.global_user_id is not None else None

    @property
    def user_if_known(self) -> User | None:
        """The same for a rule that does without."""
        fact = self.facts.user
        return None if isinstance(fact, Missing) or self.subject.global_user_id is None else fact.value


def _value(name: str, fact: Fact[T]) -> T:
    if isinstance(fact, Missing):
        raise FactMissing(name, fact)
    return fact.value
