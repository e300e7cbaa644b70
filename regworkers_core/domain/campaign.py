"""A campaign: its markets with their seats, when it is open, the rules of its draw, and how far it has come."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from fairdraw.documents import as_document
from regworkers_core.domain.eligibility import EligibilityTerms

# Far above any venue, and exact in every JSON reader.
MAX_SEATS = 2**31 - 1


class CampaignStatus(StrEnum):
    """A campaign goes through them in this order and only forward, one step at a time."""

    DRAFT = "DRAFT"
    OPEN = "OPEN"
    CLOSED = "CLOSED"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"

    @property
    def next(self) -> CampaignStatus | None:
        """The one status that may follow."""
        order = list(CampaignStatus)
        position = order.index(self) + 1
        return order[position] if position < len(order) else None

    def is_before(self, other: CampaignStatus) -> bool:
        order = list(CampaignStatus)
        return order.index(self) < order.index(other)


@dataclass(frozen=True, slots=True)
class Reserve:
    """`seats` of a market that entries of `segment` get first."""

    segment: str
    seats: int


@dataclass(frozen=True, slots=True)
class Market:
    """The seats of one place or date."""

    market_id: str
    name: str
    capacity: int  # seats, the reserved ones among them
    reserves: tuple[Reserve, ...] = ()  # those kept for segments, in precedence order
    # The most that all later phases together may keep for a segment, in precedence order; no capacity bounds them.
    later_reserves: tuple[Reserve, ...] = ()


@dataclass(frozen=True, slots=True)
class DrawRules:
    """What a campaign promises of its draw."""

    wins_per_unit: int = 1
    waitlist_size: int | None = None  # None keeps every non-winner waiting


@dataclass(frozen=True, slots=True)
class CodeRules:
    """How the campaign's access codes are read, and how long a winner has for the own one."""

    caseless: bool = False  # A-Z count as a-z, for partners who print codes in either
    # From when the winner may be notified; None: a code does not expire.
    expire_after_hours: int | None = None


class RegistrationLog(StrEnum):
    """Whether each registration goes into the campaign's public tree before the draw."""

    ON = "on"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class RegistrationRules:
    """What the campaign promises of its registrations."""

    log: RegistrationLog = RegistrationLog.OFF


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """An Ed25519 key by which the issuer of the codes signs what it says of them; two while one replaces the other."""

    id: str
    key: str  # 64 hex digits


# `22:00-08:00 Europe/Berlin`: local times of the hours in which no round begins.
_QUIET = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d) (\S+)", re.ASCII)
# A seat that lapses less than a day after the result before is a finding for everybody.
LEAST_ROUND_HOURS = 24


@dataclass(frozen=True, slots=True)
class PassOn:
    """That seats which no one claimed pass on by themselves."""

    rounds: int  # at most
    every_hours: int  # between the publication of a phase and the next round, at least
    quiet: str = ""  # `22:00-08:00 Europe/Berlin`; empty: a round may begin at any hour

    @property
    def problem(self) -> str:
        """What is wrong with it; empty if nothing is."""
        if self.rounds < 1:
            return "rounds should be at least 1"
        if self.every_hours < LEAST_ROUND_HOURS:
            return (
                f"everyHours should be at least {LEAST_ROUND_HOURS}: winners need a day to claim their seats"
            )
        if not self.quiet:
            return ""
        found = _QUIET.fullmatch(self.quiet)
        try:
            zone = ZoneInfo(found[5]) if found else None
        except (KeyError, ValueError, OSError):
            zone = None
        return "" if zone else "quiet should be two times and a zone, as 22:00-08:00 Europe/Berlin"

    def is_quiet(self, at: float) -> bool:
        """Whether no round may begin at this time (epoch seconds)."""
        found = _QUIET.fullmatch(self.quiet)
        if found is None:
            return False
        local = datetime.fromtimestamp(at, ZoneInfo(found[5]))
        now, begin, end = (f"{local:%H:%M}", f"{found[1]}:{found[2]}", f"{found[3]}:{found[4]}")
        return begin <= now < end if begin <= end else now >= begin or now < end


@dataclass(frozen=True, slots=True)
class LoggedTerms:
    """The last file about the campaign in the public log."""

    hash: str  # of the file: what the platform confirms to a fan as `openedHash`
    index: int  # of its leaf
    # The hash of the file's terms, without `previous` and `reason`; None until the leaf is published.
    terms: str | None = None


@dataclass(frozen=True, slots=True)
class RefusedTerms:
    """What the public log can never have: the campaign as another writer changed it in MongoDB."""

    terms: str  # the hash of its terms
    why: str  # and the way out


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of status."""

    from_: CampaignStatus  # the status before
    to: CampaignStatus  # the status after
    at: str  # an ISO time
    reason: str
    run_id: str
    token: int  # the fencing token of the lease under which it was made


@dataclass(frozen=True, slots=True)
class Correction:
    """A field of the definition that an operator changed, with its values in words; empty: none."""

    field: str
    before: str
    now: str


@dataclass(frozen=True, slots=True)
class Amendment:
    """One correction of a campaign."""

    at: str  # an ISO time
    reason: str
    run_id: str
    changes: tuple[Correction, ...]  # one of each field


# What a definition says; all else of a campaign follows from its life.
DEFINED = (
    "slug",
    "name",
    "opens_at",
    "closes_at",
    "eligibility",
    "markets",
    "auto_draw",
    "draw",
    "event_id",
    "issuer_keys",
    "codes",
    "registration",
)


@dataclass(frozen=True, slots=True)
class Campaign:
    """One campaign. Times are ISO-8601 UTC with milliseconds."""

    campaign_id: str
    slug: str  # its name in links
    name: str
    status: CampaignStatus
    opens_at: str
    closes_at: str
    markets: tuple[Market, ...]
    auto_draw: bool = False
    eligibility: EligibilityTerms = EligibilityTerms()
    draw: DrawRules = DrawRules()
    event_id: str | None = None  # that of all campaigns for the seats of one event
    issuer_keys: tuple[IssuerKey, ...] = ()
    codes: CodeRules = CodeRules()
    registration: RegistrationRules = RegistrationRules()
    pass_on: PassOn | None = None  # None: a person passes seats on
    # The public halves of the campaign's keys, once they are made: the SHA-256 of the unit key, and the code key in G2.
    unit_key_hash: str | None = None
    code_key: str | None = None
    opened: LoggedTerms | None = None  # None: it is not in the log
    refused: RefusedTerms | None = None  # the last terms that the log cannot have
    transitions: tuple[Transition, ...] = ()  # changes of status, the oldest first
    amendments: tuple[Amendment, ...] = ()  # corrections by operators, the oldest first
    fence: int = 0  # the greatest token that changed the status

    @property
    def market_ids(self) -> tuple[str, ...]:
        return tuple(market.market_id for market in self.markets)

    @property
    def logs_registrations(self) -> bool:
        return self.registration.log is RegistrationLog.ON

    @property
    def corrected_at(self) -> str | None:
        """When an operator corrected it last; None: never."""
        return self.amendments[-1].at if self.amendments else None

    def market(self, market_id: str) -> Market | None:
        return next((market for market in self.markets if market.market_id == market_id), None)

    @property
    def takes_entries_from(self) -> str:
        """`opens_at`, or the opening itself where that was seen and came later: a draft takes no entries."""
        opened = [each.at for each in self.transitions if each.to is CampaignStatus.OPEN]
        return max([self.opens_at, *opened[:1]])

    @property
    def early_closing(self) -> Transition | None:
        """The closing by an operator, where that came before `closes_at`."""
        closed = [each for each in self.transitions if each.to is CampaignStatus.CLOSED]
        early = (each for each in closed if each.at < self.closes_at)
        return min(early, key=lambda each: each.at, default=None)

    @property
    def closed_early(self) -> str | None:
        """Why it was closed before `closes_at`, in words, and when that was to be; None: it was not."""
        early = self.early_closing
        if early is None:
            return None
        return f"{early.reason.strip() or 'no reason given'} (it was to close at {self.closes_at})"

    @property
    def takes_entries_until(self) -> str:
        """`closes_at`, or when an operator closed it before that."""
        early = self.early_closing
        return self.closes_at if early is None else early.at

    @property
    def definition(self) -> dict[str, Any]:
        """What `DEFINED` names, as in the document."""
        return as_document(self, *DEFINED)

    def defined_as(self, other: Campaign) -> Campaign:
        """This campaign with the definition of `other`."""
        return replace(self, **{name: getattr(other, name) for name in DEFINED})

    def as_document(self) -> dict[str, Any]:
        """The document of the collection; `read_campaign` gives the same campaign back."""
        document: dict[str, Any] = {"_id": self.campaign_id, "status": self.status.value, **self.definition}
        names = (
            "pass_on",
            "unit_key_hash",
            "code_key",
            "opened",
            "refused",
            "transitions",
            "amendments",
            "fence",
        )
        made = as_document(self, *names)
        return document | {name: value for name, value in made.items() if value}
