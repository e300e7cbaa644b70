"""A campaign: its markets with their seats, when it is open, the rules of its draw, and how far it has come."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from fairdraw.documents import as_document
from regworkers_core.domain.eligibility import EligibilityTerms, WrongTerm
from regworkers_core.domain.keys import is_selection_id
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.selection import is_market_id
from regworkers_core.domain.timestamps import iso, seconds

# Far above any venue, and exact in every JSON reader.
MAX_SEATS = 2**31 - 1
_HEX = re.compile(r"[0-9a-f]+", re.ASCII)
_MISSING = object()


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

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Campaign:
        """A document of the `campaigns` collection; unknown fields are not ours and stay unread.

        Raises UsageError with the campaign, the field, and what was found there.
        """
        return _Reader(document).campaign()

    @property
    def definition(self) -> dict[str, Any]:
        """What `DEFINED` names, as in the document."""
        return as_document(self, *DEFINED)

    def defined_as(self, other: Campaign) -> Campaign:
        """This campaign with the definition of `other`."""
        return replace(self, **{name: getattr(other, name) for name in DEFINED})

    def as_document(self) -> dict[str, Any]:
        """The document of the collection; `parse` gives the same campaign back."""
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


class _Reader:
    """Reads a document field by field and says where it is wrong."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        found = document.get("_id")
        self._name = f"campaign {found}" if isinstance(found, str) else "campaign"

    def campaign(self) -> Campaign:
        document = self._document
        campaign_id = self._id(document.get("_id", _MISSING), "_id")
        slug = self._text(document.get("slug", campaign_id), "slug")
        opens_at = self._time(document.get("opensAt", _MISSING), "opensAt")
        closes_at = self._time(document.get("closesAt", _MISSING), "closesAt")
        if opens_at >= closes_at:
            raise self._wrong("closesAt", f"must be after opensAt ({opens_at})", closes_at)
        return Campaign(
            campaign_id=campaign_id,
            slug=slug,
            name=self._text(document.get("name", slug), "name"),
            status=self._status(document.get("status", _MISSING), "status"),
            opens_at=opens_at,
            closes_at=closes_at,
            markets=self._markets(document.get("markets", _MISSING)),
            auto_draw=self._flag(_or(document.get("autoDraw"), False), "autoDraw"),
            eligibility=self._terms(document.get("eligibility")),
            draw=self._draw(self._mapping(_or(document.get("draw"), {}), "draw")),
            event_id=None if (event := document.get("eventId")) is None else self._id(event, "eventId"),
            issuer_keys=self._issuer_keys(_or(document.get("issuerKeys"), [])),
            codes=self._codes(self._mapping(_or(document.get("codes"), {}), "codes")),
            registration=self._registration(
                self._mapping(_or(document.get("registration"), {}), "registration")
            ),
            pass_on=self._pass_on(document.get("passOn")),
            unit_key_hash=None
            if (key := document.get("unitKeyHash")) is None
            else self._hex(key, "unitKeyHash", 64),
            code_key=None if (key := document.get("codeKey")) is None else self._hex(key, "codeKey", 192),
            opened=self._opened(document.get("opened")),
            refused=self._refused(document.get("refused")),
            transitions=self._transitions(_or(document.get("transitions"), [])),
            amendments=self._amendments(_or(document.get("amendments"), [])),
            fence=self._integer(_or(document.get("fence"), 0), "fence", 0),
        )

    def _markets(self, value: Any) -> tuple[Market, ...]:
        markets: list[Market] = []
        for index, each in enumerate(self._list(value, "markets")):
            where = f"markets[{index}]"
            fields = self._mapping(each, where)
            market_id = self._id(fields.get("marketId", _MISSING), f"{where}.marketId")
            if not is_market_id(market_id):
                raise self._wrong(f"{where}.marketId", "must not be a dash alone", market_id)
            if market_id in {market.market_id for market in markets}:
                raise self._wrong(f"{where}.marketId", "is there twice", market_id)
            capacity = self._integer(fields.get("capacity", _MISSING), f"{where}.capacity", 0)
            markets.append(
                Market(
                    market_id,
                    self._text(fields.get("name", market_id), f"{where}.name"),
                    capacity,
                    self._reserves(_or(fields.get("reserves"), []), f"{where}.reserves", capacity),
                    self._reserves(_or(fields.get("laterReserves"), []), f"{where}.laterReserves", None),
                )
            )
        if not markets:
            raise self._wrong("markets", "must hold at least one market", [])
        return tuple(markets)

    def _reserves(self, value: Any, where: str, capacity: int | None) -> tuple[Reserve, ...]:
        reserves: list[Reserve] = []
        for index, each in enumerate(self._list(value, where)):
            fields = self._mapping(each, f"{where}[{index}]")
            segment = self._id(fields.get("segment", _MISSING), f"{where}[{index}].segment")
            if segment in {reserve.segment for reserve in reserves}:
                raise self._wrong(f"{where}[{index}].segment", "has a reserve already", segment)
            seats = self._integer(fields.get("seats", _MISSING), f"{where}[{index}].seats", 1)
            reserves.append(Reserve(segment, seats))
        reserved = sum(reserve.seats for reserve in reserves)
        if capacity is not None and reserved > capacity:
            raise self._wrong(where, f"must not exceed the capacity of {capacity} seats in all", reserved)
        return tuple(reserves)

    def _terms(self, value: Any) -> EligibilityTerms:
        try:
            return EligibilityTerms.parse(self._mapping(_or(value, {}), "eligibility"))
        except WrongTerm as wrong:
            raise self._wrong(f"eligibility.{wrong.field}", wrong.rule, wrong.found) from None

    def _draw(self, fields: Mapping[str, Any]) -> DrawRules:
        waitlist = fields.get("waitlistSize")
        return DrawRules(
            self._integer(_or(fields.get("winsPerUnit"), 1), "draw.winsPerUnit", 1),
            None if waitlist is None else self._integer(waitlist, "draw.waitlistSize", 0),
        )

    def _issuer_keys(self, value: Any) -> tuple[IssuerKey, ...]:
        found: dict[str, IssuerKey] = {}
        for index, each in enumerate(self._list(value, "issuerKeys")):
            where = f"issuerKeys[{index}]"
            fields = self._mapping(each, where)
            key_id = self._id(fields.get("id", _MISSING), f"{where}.id")
            if key_id in found:
                raise self._wrong(f"{where}.id", "is there twice", key_id)
            found[key_id] = IssuerKey(key_id, self._hex(fields.get("key", _MISSING), f"{where}.key", 64))
        return tuple(found.values())

    def _codes(self, fields: Mapping[str, Any]) -> CodeRules:
        hours = fields.get("expireAfterHours")
        return CodeRules(
            self._flag(_or(fields.get("caseless"), False), "codes.caseless"),
            None if hours is None else self._integer(hours, "codes.expireAfterHours", 1),
        )

    def _registration(self, fields: Mapping[str, Any]) -> RegistrationRules:
        value = _or(fields.get("log"), RegistrationLog.OFF)
        # YAML reads `on` and `off` without quotes as true and false.
        if isinstance(value, bool):
            value = RegistrationLog.ON if value else RegistrationLog.OFF
        try:
            return RegistrationRules(RegistrationLog(value))
        except ValueError:
            raise self._wrong("registration.log", "must be on or off", value) from None

    def _pass_on(self, value: Any) -> PassOn | None:
        if value is None:
            return None
        fields = self._mapping(value, "passOn")
        terms = PassOn(
            self._integer(fields.get("rounds", _MISSING), "passOn.rounds", 1),
            self._integer(fields.get("everyHours", _MISSING), "passOn.everyHours", LEAST_ROUND_HOURS),
            str(_or(fields.get("quiet"), "")),
        )
        if terms.problem:
            raise self._wrong("passOn", terms.problem, value)
        return terms

    def _opened(self, value: Any) -> LoggedTerms | None:
        if value is None:
            return None
        fields = self._mapping(value, "opened")
        return LoggedTerms(
            self._hex(fields.get("hash", _MISSING), "opened.hash", 64),
            self._integer(fields.get("index", _MISSING), "opened.index", 0),
            None if (terms := fields.get("terms")) is None else self._hex(terms, "opened.terms", 64),
        )

    def _refused(self, value: Any) -> RefusedTerms | None:
        if value is None:
            return None
        fields = self._mapping(value, "refused")
        return RefusedTerms(
            self._hex(fields.get("terms", _MISSING), "refused.terms", 64),
            self._text(fields.get("why", _MISSING), "refused.why"),
        )

    def _hex(self, value: Any, where: str, digits: int) -> str:
        if not (isinstance(value, str) and len(value) == digits and _HEX.fullmatch(value)):
            raise self._wrong(where, f"must be {digits} lowercase hex digits", value)
        return value

    def _transitions(self, value: Any) -> tuple[Transition, ...]:
        found: list[Transition] = []
        for index, each in enumerate(self._list(value, "transitions")):
            where = f"transitions[{index}]"
            fields = self._mapping(each, where)
            found.append(
                Transition(
                    self._status(fields.get("from", _MISSING), f"{where}.from"),
                    self._status(fields.get("to", _MISSING), f"{where}.to"),
                    self._time(fields.get("at", _MISSING), f"{where}.at"),
                    str(fields.get("reason") or ""),
                    str(fields.get("runId") or ""),
                    self._integer(_or(fields.get("token"), 0), f"{where}.token", 0),
                )
            )
        return tuple(found)

    def _amendments(self, value: Any) -> tuple[Amendment, ...]:
        found: list[Amendment] = []
        for index, each in enumerate(self._list(value, "amendments")):
            where = f"amendments[{index}]"
            fields = self._mapping(each, where)
            changes = [
                self._mapping(one, f"{where}.changes")
                for one in self._list(_or(fields.get("changes"), []), f"{where}.changes")
            ]
            found.append(
                Amendment(
                    self._time(fields.get("at", _MISSING), f"{where}.at"),
                    str(fields.get("reason") or ""),
                    str(fields.get("runId") or ""),
                    tuple(
                        Correction(*(str(one.get(name) or "") for name in ("field", "before", "now")))
                        for one in changes
                    ),
                )
            )
        return tuple(found)

    def _id(self, value: Any, where: str) -> str:
        if not isinstance(value, str) or not is_selection_id(value):
            raise self._wrong(where, "must be 1 to 64 of the characters A-Z a-z 0-9 _ -", value)
        return value

    def _text(self, value: Any, where: str) -> str:
        if not isinstance(value, str) or not value.strip():
            raise self._wrong(where, "must be a text", value)
        return value

    def _status(self, value: Any, where: str) -> CampaignStatus:
        try:
            return CampaignStatus(value)
        except ValueError:
            raise self._wrong(where, f"must be one of {' '.join(CampaignStatus)}", value) from None

    def _time(self, value: Any, where: str) -> str:
        moment = seconds(value) if isinstance(value, str) else None
        if moment is None:
            raise self._wrong(where, "must be a time like 2026-11-25T08:15:00.000Z", value)
        return iso(moment)

    def _integer(self, value: Any, where: str, least: int) -> int:
        # A flag is an integer to Python, and 3.0 seats may be 3.1 tomorrow.
        if type(value) is not int or not least <= value <= MAX_SEATS:
            raise self._wrong(where, f"must be a whole number of at least {least}", value)
        return value

    def _flag(self, value: Any, where: str) -> bool:
        # A server on SQLite gives a flag that was set by an update back as 0 or 1.
        if value not in (True, False):
            raise self._wrong(where, "must be true or false", value)
        return bool(value)

    def _list(self, value: Any, where: str) -> Sequence[Any]:
        if not isinstance(value, list | tuple):
            raise self._wrong(where, "must be a list", value)
        return value

    def _mapping(self, value: Any, where: str) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise self._wrong(where, "must hold named fields", value)
        return value

    def _wrong(self, where: str, rule: str, found: Any) -> UsageError:
        shown_value = "nothing" if found is _MISSING else brief(found)
        return UsageError(f"{self._name}: {where} {rule}, found {shown_value}")


_BRIEF = 80
_brief = reprlib.Repr()
# Before the text is made: that of a large value takes all memory.
_brief.maxstring = _brief.maxother = _brief.maxlong = _BRIEF


def brief(value: Any) -> str:
    """A value as an error shows it, of 80 characters at most."""
    if type(value) is int and value.bit_length() > 256:
        return "a number of more than 256 bits"
    return _brief.repr(value)[:_BRIEF]


def _or(value: Any, default: Any) -> Any:
    """Absent and null mean the default."""
    return default if value is None else value
