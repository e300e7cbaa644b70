"""Who is judged: a fan who asks now, or an entry that stands, in the one form that the rules look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Any, NamedTuple

from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.eligibility import NOT_ASKED, Fact, Known, Missing, T
from regworkers_core.domain.invite import InviteType
from regworkers_core.domain.timestamps import iso
from regworkers_core.domain.timestamps import seconds as moment_of
from regworkers_core.domain.user import User


class Identity(StrEnum):
    """By what two entries of a campaign are the same person's, in the order in which they are looked for."""

    EMAIL = "email"
    GLOBAL_USER_ID = "globalUserId"
    MEMBER_ID = "memberId"


class Problem(NamedTuple):
    """What is wrong with a field, never its value: `should be a text, found int`."""

    field: str
    what: str

    def __str__(self) -> str:
        return f"{self.field} {self.what}"


@dataclass(frozen=True, slots=True)
class Subject:
    """`request.subject_of` reads it from the fields of an entry.

    `mail` is the comparable form, None when the address is missing or no address; so are the other fields that
    were not given or could not be read. What was wrong stands in `missing` (names of required fields), `invalid`
    and `invalid_mail` (what is wrong with it). `region` is comparable.

    `entry_id` is the entry's own: none of its traces makes it a duplicate of itself. None is a fan who asks
    without an entry. `entered_at` is the `createdAt` of an entry that stands (ISO-8601 with milliseconds, empty
    when it has none that can be read), None for somebody who asks now.
    """

    mail: str | None = None
    global_user_id: str | None = None
    member_id: str | None = None
    unit: str | None = None
    markets: tuple[str, ...] = ()
    region: str | None = None
    birth_date: date | None = None
    missing: tuple[str, ...] = ()
    invalid: tuple[Problem, ...] = ()
    invalid_mail: str | None = None
    entry_id: str | None = None
    entered_at: str | None = None
    # Of a person who asks without entering: what is not vouched for. Others may have entered or be invited by it,
    # which is not for everybody to learn, so it is as if it were not given.
    withheld: frozenset[Identity] = frozenset()
    # What of the three it has, comparable; made once, since it is asked for at every turn.
    identities: Mapping[Identity, str] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        found = (
            (Identity.EMAIL, self.mail),
            (Identity.GLOBAL_USER_ID, self.global_user_id),
            (Identity.MEMBER_ID, self.member_id),
        )
        have = {kind: value for kind, value in found if value is not None and kind not in self.withheld}
        object.__setattr__(self, "identities", have)


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one subject. Whoever gathers leaves at NOT_ASKED what no rule of the campaign wants to know.

    `campaign`: None when there is none of that slug or id.
    `invites`: the `ttl` (epoch seconds) of each invite that stands for the subject, expired ones included.
    `duplicates`: by which identities an entry of the campaign that *stands before* the subject is the same person's;
    empty when there is none.
    `household`: how many entries of the subject's unit *stand before* it.
    `user`: None when the service knows nobody of that id, or the subject has none.

    An entry stands before the subject when it is live, is not the subject's own (`entry_id`), and

    - for somebody who asks now: always. Whether it will be in the draw is not known yet, and one entry a person is
      what the table promises.
    - for an entry in the judgement of its campaign: when no other rule excludes it (judged as if it were alone, it
      has no reasons), and it was entered earlier, see `was_entered_before`. Otherwise an entry that is out itself
      would take its owner's other entry along. So a run over a whole campaign needs one sorted pass: for each of the
      three identities, whether such an entry had the value before; for each unit, how many did.
    """

    campaign: Fact[Campaign | None]
    invites: Fact[Mapping[InviteType, int]] = NOT_ASKED
    duplicates: Fact[frozenset[Identity]] = NOT_ASKED
    household: Fact[int] = NOT_ASKED
    user: Fact[User | None] = NOT_ASKED

    def sources(self) -> dict[str, dict[str, Any]]:
        """Of every fact that is known: `{"source": "cache", "fresh": true}`."""
        return {
            name: {"source": fact.source.value, "fresh": fact.fresh}
            for name, fact in self._each()
            if isinstance(fact, Known)
        }

    def _each(self) -> Iterator[tuple[str, Fact[Any]]]:
        yield "campaign", self.campaign
        yield "invites", self.invites
        yield "duplicates", self.duplicates
        yield "household", self.household
        yield "user", self.user


def was_entered_before(other: tuple[str, str], own: tuple[str, str]) -> bool:
    """Whether the entry `other` (`createdAt`, `entryId`) comes before `own`. One without a time of its own (empty)
    comes after all that have one: nobody gets ahead by it.
    """
    return _place(*other) < _place(*own)


def _place(created_at: str, entry_id: str) -> tuple[bool, str, str]:
    return not created_at, created_at, entry_id


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
