"""What a rule reads: the subject (a fan who asks now, or a saved entry), the facts about it, and the moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from enum import StrEnum
from typing import Any, NamedTuple

from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.claim import InviteType, TableKey, User, invite_key
from regworkers_core.domain.eligibility import NOT_ASKED, Fact, Known, Missing, T
from regworkers_core.domain.timestamps import iso
from regworkers_core.domain.timestamps import seconds as moment_of


class Identity(StrEnum):
    """What makes two entries of a campaign the same person's, in the order of the search."""

    EMAIL = "email"
    GLOBAL_USER_ID = "globalUserId"
    MEMBER_ID = "memberId"


class FieldProblem(NamedTuple):
    """What is wrong with a field, without its value: `should be a text, found int`."""

    field: str
    what: str

    def __str__(self) -> str:
        return f"{self.field} {self.what}"


@dataclass(frozen=True, slots=True)
class Subject:
    """A fan or an entry; `request.subject_of` reads it from the fields of an entry. A field that was not given or could
    not be read is None.
    """

    mail: str | None = None  # in comparable form
    global_user_id: str | None = None
    member_id: str | None = None
    unit: str | None = None
    markets: tuple[str, ...] = ()
    region: str | None = None  # in comparable form
    birth_date: date | None = None
    missing: tuple[str, ...] = ()  # names of required fields
    invalid: tuple[FieldProblem, ...] = ()  # what was wrong with fields
    invalid_mail: str | None = None  # what was wrong with the address
    # The subject's own entry, which is never a duplicate of itself; None for a fan without an entry.
    entry_id: str | None = None
    # The `createdAt` of a saved entry (ISO-8601 with milliseconds, empty if it cannot be read), None for a fan who
    # asks now.
    entered_at: str | None = None
    # Identities that nothing vouches for, of a person who asks without entering. Whether another person has entered or
    # is invited under them is private, so they are treated as not given.
    withheld: frozenset[Identity] = frozenset()
    # The identities that it has, comparable; computed once, since every step reads them.
    identities: Mapping[Identity, str] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        found = (
            (Identity.EMAIL, self.mail),
            (Identity.GLOBAL_USER_ID, self.global_user_id),
            (Identity.MEMBER_ID, self.member_id),
        )
        have = {kind: value for kind, value in found if value is not None and kind not in self.withheld}
        object.__setattr__(self, "identities", have)


def invite_keys(campaign: Campaign, subject: Subject) -> dict[InviteType, TableKey]:
    """Return the table keys of the invites by which the campaign may admit the subject."""
    given = {kind.value: value for kind, value in subject.identities.items()}
    return {
        kind: invite_key(campaign.campaign_id, kind, given[kind.value])
        for kind in campaign.eligibility.invite_types
        if kind.value in given
    }


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rules need beside one subject, each fact with its source. Facts that no rule of the campaign needs are
    NOT_ASKED.

    An entry counts as earlier if it is live, is not the subject's own (`entry_id`), and

    - for a fan who asks now: always. Whether it will be in the draw is not known yet, and the table guarantees one
      entry per person.
    - for an entry, when its campaign is judged: if no other rule excludes it (judged alone, it has no reasons) and it
      was entered before, by `createdAt`, then by `entryId`; an entry without a readable time comes last, so that its
      owner gains nothing by it. Otherwise an entry that is excluded itself would exclude its owner's other entry. So
      judging a whole campaign takes one sorted pass: for each of the three identities, whether such an
      entry had the value before; for each unit, how many did.
    """

    campaign: Fact[Campaign | None]  # None: no campaign has that slug or id
    # The `ttl` (epoch seconds) of each invite of the subject, expired ones included.
    invites: Fact[Mapping[InviteType, int]] = NOT_ASKED
    # The identities that an *earlier* entry of the campaign shares with the subject.
    duplicates: Fact[frozenset[Identity]] = NOT_ASKED
    household: Fact[int] = NOT_ASKED  # how many *earlier* entries have the subject's unit
    # None: the User Service has no record of the id, or the subject has no id.
    user: Fact[User | None] = NOT_ASKED

    @property
    def opened_hash(self) -> str | None:
        """What the platform shows a fan of what the campaign promises; None while the log does not have it."""
        campaign = self.campaign.value if isinstance(self.campaign, Known) else None
        return None if campaign is None or campaign.opened is None else campaign.opened.hash

    def sources(self) -> dict[str, dict[str, Any]]:
        """Return the source of every known fact: `{"source": "cache", "fresh": true}`."""
        return {
            each.name: {"source": fact.source.value, "fresh": fact.fresh}
            for each in fields(self)
            if isinstance(fact := getattr(self, each.name), Known)
        }


class FactMissing(Exception):
    """A rule needs this fact. `judge` catches it; a rule raises nothing else but NoCampaign."""

    def __init__(self, fact: str, missing: Missing) -> None:
        super().__init__(fact)
        self.fact, self.missing = fact, missing


class NoCampaign(Exception):
    """The campaign does not exist, so rules about it do not apply."""


class AsOf(NamedTuple):
    """The moment of a judgement, in both forms, one for all subjects that are judged together. It becomes the
    `createdAt` of an entry that is written, so that a later judgement sees the same moment.
    """

    seconds: float
    text: str

    @classmethod
    def at(cls, seconds: float) -> AsOf:
        """Round to the millisecond, which is what the text holds."""
        text = iso(seconds)
        return cls(moment_of(text) or 0.0, text)


@dataclass(frozen=True, slots=True)
class Case:
    """A subject with its facts at one moment. Each fact is a property that returns its value or raises FactMissing."""

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
        """When the subject entered or asks (ISO-8601); windows, invites and ages are measured by it."""
        entered_at = self.subject.entered_at
        if entered_at is None:
            return self.as_of.text
        if not entered_at:
            raise FactMissing("createdAt", Missing("entry", "its createdAt cannot be read"))
        return entered_at

    @property
    def moment_seconds(self) -> float:
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
        """The user's record; None if there is none, which is certain for a subject without an id."""
        return _value("user", self.facts.user) if self.subject.global_user_id is not None else None

    @property
    def user_if_known(self) -> User | None:
        """The user's record, for a rule that does not depend on it."""
        fact = self.facts.user
        return None if isinstance(fact, Missing) or self.subject.global_user_id is None else fact.value


def _value(name: str, fact: Fact[T]) -> T:
    if isinstance(fact, Missing):
        raise FactMissing(name, fact)
    return fact.value
