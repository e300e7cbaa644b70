"""Reads a check leniently: a malformed field becomes a fact for the rules, never an exception.

A number is accepted as an id; null is absent. The checks of texts accept any input and are fast on hostile input.
"""

from __future__ import annotations

import unicodedata
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, NamedTuple

from regworkers_core.domain.claim import MAX_LENGTH, comparable, is_mail
from regworkers_core.domain.eligibility import comparable_region
from regworkers_core.domain.entry import whole_number
from regworkers_core.domain.keys import field_name_problem, is_personal, is_selection_id
from regworkers_core.domain.messages import fit_correlation_id
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.eligibility.case import FieldProblem, Identity, Subject
from regworkers_core.eligibility.identity import NOT_A_FANS, TRUSTED, Caller

# Characters: far above the longest names, far below what an item of the table can hold.
MAX_NAME = 200
# Characters of globalUserId and memberId: as part of an invite's key they must fit into the table's 1,024 bytes.
MAX_ID = 128
MAX_SLUG = 128
MAX_REGION = 64
MAX_MARKETS = 100
# Limits of `attributes`: all values, all characters (keys included), levels. DynamoDB allows 400 KB and 32 levels.
MAX_VALUES, MAX_CHARACTERS, MAX_LEVELS = 1_000, 32_768, 16
_INT64 = 2**63

# The Unicode property Bidi_Control. They make a text look like another one, and no name needs them: characters have
# an inherent direction.
BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Control characters and unpaired surrogates.
_REFUSED_CATEGORIES = ("Cc", "Cs")
_UNSEEN = ("Cf", "Zs", "Zl", "Zp", "Mn")


def wrong_type(wanted: str, value: object) -> str:
    return f"should be {wanted}, found {type(value).__name__}"


def text_problem(text: str, most: int) -> str | None:
    """Return what is wrong with a text of at most `most` characters, or None. Every script is accepted."""
    if len(text) > most:
        return f"is longer than {most} characters"
    if text.isascii() and text.isprintable():
        return None
    for character in text:
        if character in BIDI_CONTROLS:
            return (
                f"holds a control character of writing direction (U+{ord(character):04X}), which is refused"
            )
        if unicodedata.category(character) in _REFUSED_CATEGORIES:
            return f"holds a control character (U+{ord(character):04X}), which is refused"
    return None


def is_blank(text: str) -> bool:
    """Return whether a text has no visible character. Check its length first."""
    stripped = text.strip()
    if stripped.isascii():
        return not stripped
    return all(unicodedata.category(character) in _UNSEEN for character in stripped)


def attributes_problem(value: Mapping[Any, Any]) -> str | None:
    """Return what is wrong with the free `attributes`: too large, too deep, or not storable. None if nothing is."""
    values = characters = 0
    left: list[tuple[Any, int]] = [(value, 1)]
    while left:
        each, level = left.pop()
        values += 1
        if values > MAX_VALUES:
            return f"holds more than {MAX_VALUES} values"
        if level > MAX_LEVELS:
            return f"is nested deeper than {MAX_LEVELS} levels"
        if isinstance(each, Mapping):
            for name in each:
                if not isinstance(name, str):
                    return f"has a name that {wrong_type('a text', name)}"
                if problem := field_name_problem(name):
                    return problem
                left.append((name, level))
            left.extend((item, level + 1) for item in each.values())
        elif isinstance(each, list | tuple):
            left.extend((item, level + 1) for item in each)
        elif isinstance(each, str):
            characters += len(each)
            if characters > MAX_CHARACTERS:
                return f"holds more than {MAX_CHARACTERS} characters"
            if problem := text_problem(each.replace("\n", " ").replace("\t", " "), MAX_CHARACTERS):
                return problem
        elif isinstance(each, float):
            if each and not 1e-130 < abs(each) < 1e125:
                return "holds a number that no table can hold"
        elif isinstance(each, int) and not -_INT64 <= each < _INT64:
            return "holds a number of more than 64 bits"
        elif each is not None and not isinstance(each, int):
            return f"holds a value that {wrong_type('JSON', each)}"
    return None


# The free attributes that rules read: a subject has no other, and a staged entry keeps these.
ATTRIBUTES = ("region", "birthDate")
# What a draw accepts.
_MAX_WEIGHT = 64
_ID_FORM = "should be 1 to 64 of the characters A-Z a-z 0-9 _ -"
_NOT_OWN = "is not one that the caller's identity vouches for"
# The fields of an entry that are written, as the contract names them.
Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Check:
    """One check."""

    campaign_slug: str  # slug or id, empty if it cannot be looked up
    subject: Subject
    # Those of the entry to write, valid unless the subject says otherwise.
    fields: Fields = field(default_factory=dict)
    do_transfer: bool = False  # whether to write the entry
    correlation_id: str = ""
    # The caller named the entry, so that its id is not derived from the fan's identity.
    is_id_given: bool = False
    is_a_fans: bool = False  # the answer goes to a fan
    not_taken: tuple[str, ...] = ()  # names of the fields that a fan sent and may not set
    is_vouched_for: bool = True  # the address is surely the fan's own


def _new_id() -> str:
    return uuid.uuid4().hex


def read_check(raw: object, caller: Caller = TRUSTED, *, new_id: Callable[[], str] = _new_id) -> Check:
    """Read one raw item: `{"campaignSlug", "entry": {...}, "doTransfer", "entryId"?, "correlationId"?}`."""
    if not isinstance(raw, Mapping):
        subject = Subject(invalid=(FieldProblem("item", wrong_type("an object", raw)),))
        return Check("", subject, correlation_id=new_id(), is_a_fans=not caller.is_trusted)
    missing: list[str] = []
    invalid: list[FieldProblem] = []
    slug = _slug(raw.get("campaignSlug"), missing, invalid)
    entry = raw.get("entry")
    if entry is not None and not isinstance(entry, Mapping):
        invalid.append(FieldProblem("entry", wrong_type("an object", entry)))
    entry = entry if isinstance(entry, Mapping) else {}
    named = raw.get("entryId", entry.get("entryId"))
    do_transfer = raw.get("doTransfer")
    if do_transfer not in (None, True, False):
        invalid.append(FieldProblem("doTransfer", wrong_type("true or false", do_transfer)))
    not_taken: tuple[str, ...] = ()
    entry_id: str | None = None
    if caller.is_trusted:
        entry_id = _entry_id(named, invalid)
    else:
        if isinstance(named, str) and is_personal(named):
            invalid.append(FieldProblem("entryId", "is a mail address or a phone number"))
        said = {**entry, "entryId": named}
        not_taken = tuple(name for name in NOT_A_FANS if said.get(name) is not None)
        entry = _as_a_fans(entry, caller)
    subject = subject_of(entry, entry_id=entry_id)
    own_mail = subject_of({kind.value: value for kind, value in caller.vouched.items()}).mail
    is_vouched_for = caller.is_trusted or (subject.mail is not None and subject.mail == own_mail)
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
        is_vouched_for,
    )


def _as_a_fans(entry: Mapping[str, Any], caller: Caller) -> Mapping[str, Any]:
    """Drop the fields that a fan may not set and fill in the identities that are vouched for."""
    said = {name: value for name, value in entry.items() if name not in NOT_A_FANS}
    for kind, value in caller.vouched.items():
        given = said.get(kind.value)
        if given is None or (isinstance(given, str) and not given.strip()):
            said[kind.value] = value
    return said


def _vouched(subject: Subject, caller: Caller, *, is_asking: bool) -> Subject:
    """Drop identities that may be another person's: nothing is looked up by them."""
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
        invalid=(*subject.invalid, *(FieldProblem(kind.value, _NOT_OWN) for kind in others)),
        withheld=frozenset(withheld.difference(others)),
    )


def subject_of(
    entry: Mapping[str, Any], *, entry_id: str | None = None, created_at: str | None = None
) -> Subject:
    """Read the subject from the fields of an entry, as a request or the replica holds them.

    For a saved entry pass its `createdAt`, empty if it has none. Without `created_at` the subject asks now.
    """
    missing: list[str] = []
    invalid: list[FieldProblem] = []
    mail, invalid_mail = _mail(entry.get("email"), missing)
    for name in ("firstName", "lastName"):
        _name(name, entry.get(name), missing, invalid)
    free = read_attributes(entry)
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


def read_attributes(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the free attributes that rules read, as far as the entry has them."""
    free = entry.get("attributes")
    return {name: free[name] for name in ATTRIBUTES if name in free} if isinstance(free, Mapping) else {}


def _text(name: str, value: object, most: int, invalid: list[FieldProblem]) -> str | None:
    """Return a valid text of at most `most` characters; for any other value add the problem and return None."""
    if not isinstance(value, str):
        invalid.append(FieldProblem(name, wrong_type("a text", value)))
    elif problem := text_problem(value, most):
        invalid.append(FieldProblem(name, problem))
    else:
        return value
    return None


def _slug(value: object, missing: list[str], invalid: list[FieldProblem]) -> str:
    if value is None or (isinstance(value, str) and len(value) <= MAX_SLUG and not value.strip()):
        missing.append("campaignSlug")
        return ""
    return (_text("campaignSlug", value, MAX_SLUG, invalid) or "").strip()


def _entry_id(value: object, invalid: list[FieldProblem]) -> str | None:
    if value is None:
        return None
    if isinstance(value, str) and is_selection_id(value):
        return value
    invalid.append(FieldProblem("entryId", _ID_FORM))
    return None


class _Mail(NamedTuple):
    comparable: str | None = None
    problem: str | None = None  # what is wrong with the address


def _mail(value: object, missing: list[str]) -> _Mail:
    if value is None:
        missing.append("email")
        return _Mail()
    if not isinstance(value, str):
        return _Mail(problem=wrong_type("a text", value))
    # White space around the address comes from the fan's keyboard.
    trimmed = value.strip()
    if not trimmed:
        missing.append("email")
        return _Mail()
    if problem := text_problem(trimmed, MAX_LENGTH):
        return _Mail(problem=problem)
    if not is_mail(trimmed):
        return _Mail(problem="is not the syntax of a mail address")
    return _Mail(comparable(trimmed))


def _name(name: str, value: object, missing: list[str], invalid: list[FieldProblem]) -> None:
    text = None if value is None else _text(name, value, MAX_NAME, invalid)
    if value is None or (text is not None and is_blank(text)):
        missing.append(name)


def _id(name: str, value: object, invalid: list[FieldProblem]) -> str | None:
    """Read the id of another system: any text. Blank is absent."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _INT64:
        return str(value)
    return (_text(name, value, MAX_ID, invalid) or "").strip() or None


def _unit(value: object, invalid: list[FieldProblem]) -> str | None:
    unit = _id("unit", value, invalid)
    if unit is None or is_selection_id(unit):
        return unit
    invalid.append(FieldProblem("unit", _ID_FORM))
    return None


def _list_of_texts(name: str, value: object, invalid: list[FieldProblem]) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        invalid.append(FieldProblem(name, wrong_type("a list of texts", value)))
        return ()
    if len(value) > MAX_MARKETS:
        invalid.append(FieldProblem(name, f"holds more than {MAX_MARKETS} texts"))
        return ()
    for index, each in enumerate(value):
        if _text(f"{name}[{index}]", each, MAX_ID, invalid) is None:
            return ()
    return tuple(value)


def _region(value: object, free: object, invalid: list[FieldProblem]) -> str | None:
    """Read the contract's field, which must be valid, else the free attribute, which is ignored if invalid."""
    if value is None:
        fits = isinstance(free, str) and len(free) <= MAX_REGION
        return (comparable_region(str(free)) or None) if fits else None
    return comparable_region(_text("region", value, MAX_REGION, invalid) or "") or None


def _birth_date(value: object, free: object, invalid: list[FieldProblem]) -> date | None:
    if value is None:
        return _date(free)
    found = _date(value)
    if found is None:
        invalid.append(FieldProblem("birthDate", "should be a date like 1990-12-31"))
    return found


def _date(value: object) -> date | None:
    if not isinstance(value, str) or len(value) != len("1990-12-31"):
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        return None


def _canonical(created_at: str) -> str:
    """Return a time that compares with a campaign's as text; empty if it is not a time."""
    moment = seconds(created_at)
    return "" if moment is None else iso(moment)


def _fields(entry: Mapping[str, Any], subject: Subject, invalid: list[FieldProblem]) -> Fields:
    """Return the fields to write. A region or a date of birth moves to the attributes, as the contract has it."""
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
            invalid.append(
                FieldProblem("segments", "should hold 1 to 64 of the characters A-Z a-z 0-9 _ - each")
            )
        fields["segments"] = list(segments)
    if entry.get("weight") is not None:
        weight = whole_number(entry["weight"])
        if weight is None or not 1 <= weight <= _MAX_WEIGHT:
            invalid.append(FieldProblem("weight", f"should be a whole number from 1 to {_MAX_WEIGHT}"))
        fields["weight"] = weight
    attributes = entry.get("attributes")
    if attributes is not None and not isinstance(attributes, Mapping):
        invalid.append(FieldProblem("attributes", wrong_type("an object", attributes)))
    elif attributes and (problem := attributes_problem(attributes)):
        invalid.append(FieldProblem("attributes", problem))
    else:
        named = {name: entry[name] for name in ATTRIBUTES if entry.get(name) is not None}
        fields["attributes"] = {**(attributes or {}), **named}
    return {name: value for name, value in fields.items() if value is not None}
