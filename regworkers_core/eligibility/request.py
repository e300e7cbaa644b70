"""What somebody asks, read leniently and totally: whatever is malformed becomes a fact for the rules about fields.

Nothing in here raises for what the input holds. A number stands for its digits where an id is due; null is absent.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from regworkers_core.domain.keys import is_selection_id
from regworkers_core.domain.mail import MAX_LENGTH, comparable, is_mail
from regworkers_core.domain.messages import fit_correlation_id
from regworkers_core.domain.order import whole_number
from regworkers_core.domain.terms import comparable_region
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.eligibility import texts
from regworkers_core.eligibility.caller import NOT_A_FANS, TRUSTED, Caller
from regworkers_core.eligibility.subject import Identity, Problem, Subject

# What a draw takes.
_MAX_WEIGHT = 64
_NOT_OWN = "is not one that the caller's identity vouches for"
# What is kept of an entry beside the mail address, when it is written: the contract's optional fields as read.
Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Check:
    """One question. `campaign_slug` (or id) is empty when there is none that could be looked up. `fields` are the
    contract's fields of the entry to write, clean as far as `subject` has no complaint. `is_id_given`: the caller
    named the entry, so that its id is not derived from who the fan is. `is_a_fans`: the answer goes to a fan;
    `not_taken` names what they said that is not theirs to say.
    """

    campaign_slug: str
    subject: Subject
    fields: Fields = field(default_factory=dict)
    do_transfer: bool = False
    correlation_id: str = ""
    is_id_given: bool = False
    is_a_fans: bool = False
    not_taken: tuple[str, ...] = ()


def _new_id() -> str:
    return uuid.uuid4().hex


def read_check(raw: object, caller: Caller = TRUSTED, *, new_id: Callable[[], str] = _new_id) -> Check:
    """One raw item: `{"campaignSlug", "entry": {...}, "doTransfer", "entryId"?, "correlationId"?}`."""
    if not isinstance(raw, Mapping):
        subject = Subject(invalid=(Problem("item", texts.wrong_type("an object", raw)),))
        return Check("", subject, correlation_id=new_id(), is_a_fans=not caller.is_trusted)
    missing: list[str] = []
    invalid: list[Problem] = []
    slug = _slug(raw.get("campaignSlug"), missing, invalid)
    entry = raw.get("entry")
    if entry is not None and not isinstance(entry, Mapping):
        invalid.append(Problem("entry", texts.wrong_type("an object", entry)))
    entry = entry if isinstance(entry, Mapping) else {}
    entry_id = _entry_id(raw.get("entryId", entry.get("entryId")), invalid)
    do_transfer = raw.get("doTransfer")
    if do_transfer not in (None, True, False):
        invalid.append(Problem("doTransfer", texts.wrong_type("true or false", do_transfer)))
    not_taken: tuple[str, ...] = ()
    if not caller.is_trusted:
        not_taken = tuple(name for name in NOT_A_FANS if entry.get(name) is not None)
        entry = _as_a_fans(entry, caller)
    subject = subject_of(entry, entry_id=entry_id)
    if not caller.is_trusted:
        subject = _vouched(subject, caller, is_asking=do_transfer is not True)
    fields = _fields(entry, subject, invalid)
    if missing or invalid:
        subject = replace(subject, missing=(*missing, *subject.missing), invalid=(*subject.invalid, *invalid))
    correlation_id = fit_correlation_id(raw.get("correlationId")) or new_id()
    return Check(
        slug,
        subject,
        fields,
        do_transfer is True,
        correlation_id,
        entry_id is not None,
        not caller.is_trusted,
        not_taken,
    )


def _as_a_fans(entry: Mapping[str, Any], caller: Caller) -> Mapping[str, Any]:
    """Without what is not a fan's to say, and with the identities that are vouched for."""
    said = {name: value for name, value in entry.items() if name not in NOT_A_FANS}
    for kind, value in caller.vouched.items():
        given = said.get(kind.value)
        if given is None or (isinstance(given, str) and not given.strip()):
            said[kind.value] = value
    return said


def _vouched(subject: Subject, caller: Caller, *, is_asking: bool) -> Subject:
    """The subject without identities that are another's for all that is known: nothing is looked up by them."""
    own = subject_of({kind.value: value for kind, value in caller.vouched.items()}).identities
    others = [
        kind for kind, value in subject.identities.items() if kind in caller.bound and value != own.get(kind)
    ]
    withheld = {kind for kind, value in subject.identities.items() if is_asking and value != own.get(kind)}
    return replace(
        subject,
        mail=None if Identity.EMAIL in others else subject.mail,
        global_user_id=None if Identity.GLOBAL_USER_ID in others else subject.global_user_id,
        member_id=None if Identity.MEMBER_ID in others else subject.member_id,
        invalid=(*subject.invalid, *(Problem(kind.value, _NOT_OWN) for kind in others)),
        withheld=frozenset(withheld.difference(others)),
    )


def subject_of(
    entry: Mapping[str, Any], *, entry_id: str | None = None, created_at: str | None = None
) -> Subject:
    """Who is behind the fields of an entry, as a request or the replica holds them.

    `created_at` is that of an entry that stands: pass its `createdAt`, an empty text when it has none. Without it
    the subject asks now.
    """
    missing: list[str] = []
    invalid: list[Problem] = []
    mail, invalid_mail = _mail(entry.get("email"), missing)
    for name in ("firstName", "lastName"):
        _name(name, entry.get(name), missing, invalid)
    attributes = entry.get("attributes")
    free: Mapping[str, Any] = attributes if isinstance(attributes, Mapping) else {}
    return Subject(
        mail,
        _id("globalUserId", entry.get("globalUserId"), invalid),
        _id("memberId", entry.get("memberId"), invalid),
        _unit(entry.get("unit"), invalid),
        _list_of_texts("markets", entry.get("markets"), invalid),
        _region(entry.get("region"), free.get("region"), invalid),
        _birth_date(entry.get("birthDate"), free.get("birthDate"), invalid),
        tuple(missing),
        tuple(invalid),
        invalid_mail,
        entry_id,
        None if created_at is None else _canonical(created_at),
    )


def _slug(value: object, missing: list[str], invalid: list[Problem]) -> str:
    if value is None or (isinstance(value, str) and len(value) <= texts.MAX_SLUG and not value.strip()):
        missing.append("campaignSlug")
    elif not isinstance(value, str):
        invalid.append(Problem("campaignSlug", texts.wrong_type("a text", value)))
    elif problem := texts.text_problem(value, texts.MAX_SLUG):
        invalid.append(Problem("campaignSlug", problem))
    else:
        return value.strip()
    return ""


def _entry_id(value: object, invalid: list[Problem]) -> str | None:
    if value is None:
        return None
    if isinstance(value, str) and is_selection_id(value):
        return value
    invalid.append(Problem("entryId", "should be 1 to 64 of the characters A-Z a-z 0-9 _ -"))
    return None


def _mail(value: object, missing: list[str]) -> tuple[str | None, str | None]:
    """The comparable form, and what is wrong with the address."""
    if value is None:
        missing.append("email")
        return None, None
    if not isinstance(value, str):
        return None, texts.wrong_type("a text", value)
    # White space around it is the fan's keyboard, not the address.
    trimmed = value.strip()
    if not trimmed:
        missing.append("email")
        return None, None
    if problem := texts.text_problem(trimmed, MAX_LENGTH):
        return None, problem
    return (comparable(trimmed), None) if is_mail(trimmed) else (None, "is not the syntax of a mail address")


def _name(name: str, value: object, missing: list[str], invalid: list[Problem]) -> None:
    if value is None:
        missing.append(name)
    elif not isinstance(value, str):
        invalid.append(Problem(name, texts.wrong_type("a text", value)))
    elif problem := texts.text_problem(value, texts.MAX_NAME):
        invalid.append(Problem(name, problem))
    elif texts.is_blank(value):
        missing.append(name)


def _id(name: str, value: object, invalid: list[Problem]) -> str | None:
    """An id of another system: any text. Blank is absent."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return str(value)
    if not isinstance(value, str):
        invalid.append(Problem(name, texts.wrong_type("a text", value)))
        return None
    if problem := texts.text_problem(value, texts.MAX_ID):
        invalid.append(Problem(name, problem))
        return None
    return value.strip() or None


def _unit(value: object, invalid: list[Problem]) -> str | None:
    unit = _id("unit", value, invalid)
    if unit is None or is_selection_id(unit):
        return unit
    invalid.append(Problem("unit", "should be 1 to 64 of the characters A-Z a-z 0-9 _ -"))
    return None


def _list_of_texts(name: str, value: object, invalid: list[Problem]) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        invalid.append(Problem(name, texts.wrong_type("a list of texts", value)))
        return ()
    if len(value) > texts.MAX_MARKETS:
        invalid.append(Problem(name, f"holds more than {texts.MAX_MARKETS} texts"))
        return ()
    for index, each in enumerate(value):
        if not isinstance(each, str):
            invalid.append(Problem(f"{name}[{index}]", texts.wrong_type("a text", each)))
            return ()
        if problem := texts.text_problem(each, texts.MAX_ID):
            invalid.append(Problem(f"{name}[{index}]", problem))
            return ()
    return tuple(value)


def _region(value: object, free: object, invalid: list[Problem]) -> str | None:
    """The contract's own field is held to its form; what stands in the free attributes counts where it fits."""
    if value is None:
        fits = isinstance(free, str) and len(free) <= texts.MAX_REGION
        return (comparable_region(str(free)) or None) if fits else None
    if not isinstance(value, str):
        invalid.append(Problem("region", texts.wrong_type("a text", value)))
    elif problem := texts.text_problem(value, texts.MAX_REGION):
        invalid.append(Problem("region", problem))
    else:
        return comparable_region(value) or None
    return None


def _birth_date(value: object, free: object, invalid: list[Problem]) -> date | None:
    if value is None:
        return _date(free)
    found = _date(value)
    if found is None:
        invalid.append(Problem("birthDate", "should be a date like 1990-12-31"))
    return found


def _date(value: object) -> date | None:
    if not isinstance(value, str) or len(value) != len("1990-12-31"):
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        return None


def _canonical(created_at: str) -> str:
    """Comparable with a campaign's times, as text; empty when it is no time."""
    moment = seconds(created_at)
    return "" if moment is None else iso(moment)


def _fields(entry: Mapping[str, Any], subject: Subject, invalid: list[Problem]) -> Fields:
    """The fields to write. A region or a date of birth at the top goes where the contract has room for it."""
    fields: dict[str, Any] = {
        "email": entry.get("email"),
        "firstName": entry.get("firstName"),
        "lastName": entry.get("lastName"),
        "globalUserId": subject.global_user_id,
        "memberId": subject.member_id,
        "unit": subject.unit,
        "markets": list(subject.markets),
    }
    if entry.get("segments") is not None:
        segments = _list_of_texts("segments", entry["segments"], invalid)
        if not all(map(is_selection_id, segments)):
            invalid.append(Problem("segments", "should hold 1 to 64 of the characters A-Z a-z 0-9 _ - each"))
        fields["segments"] = list(segments)
    if entry.get("weight") is not None:
        weight = whole_number(entry["weight"])
        if weight is None or not 1 <= weight <= _MAX_WEIGHT:
            invalid.append(Problem("weight", f"should be a whole number from 1 to {_MAX_WEIGHT}"))
        fields["weight"] = weight
    attributes = entry.get("attributes")
    if attributes is not None and not isinstance(attributes, Mapping):
        invalid.append(Problem("attributes", texts.wrong_type("an object", attributes)))
    elif attributes and (problem := texts.attributes_problem(attributes)):
        invalid.append(Problem("attributes", problem))
    else:
        named = {name: entry[name] for name in ("region", "birthDate") if entry.get(name) is not None}
        fields["attributes"] = {**(attributes or {}), **named}
    return {name: value for name, value in fields.items() if value is not None}
