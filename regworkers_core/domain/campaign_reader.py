"""Reads a campaign from its document, field by field, and says where it is wrong."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from regworkers_core.domain.campaign import (
    LEAST_ROUND_HOURS,
    MAX_SEATS,
    Amendment,
    Campaign,
    CampaignStatus,
    CodeRules,
    Correction,
    DrawRules,
    IssuerKey,
    LoggedTerms,
    Market,
    PassOn,
    RefusedTerms,
    RegistrationLog,
    RegistrationRules,
    Reserve,
    Transition,
)
from regworkers_core.domain.eligibility import EligibilityTerms, WrongTerm
from regworkers_core.domain.keys import is_selection_id
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.selection import is_market_id
from regworkers_core.domain.timestamps import iso, seconds

_HEX = re.compile(r"[0-9a-f]+", re.ASCII)
_MISSING = object()


def read_campaign(document: Mapping[str, Any]) -> Campaign:
    """A document of the `campaigns` collection; unknown fields are not ours and stay unread.

    Raises UsageError with the campaign, the field, and what was found there.
    """
    return _Reader(document).campaign()


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
