"""Whom a campaign admits (its field `eligibility`, data contract v1), and the facts that a judgement rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Generic, TypeVar

from fairdraw.documents import camel
from regworkers_core.domain.claim import InviteType

T = TypeVar("T")


class Status(StrEnum):
    """UNKNOWN: a dependency could not answer, and no rule has failed for certain."""

    ELIGIBLE = "ELIGIBLE"
    INELIGIBLE = "INELIGIBLE"
    UNKNOWN = "UNKNOWN"


class FactSource(StrEnum):
    """Where a fact came from: Redis, MongoDB, the demand table (both `database`), one of the services, or the
    request itself, which named nothing that could be looked up.
    """

    CACHE = "cache"
    DATABASE = "database"
    SERVICE = "service"
    REQUEST = "request"


@dataclass(frozen=True, slots=True)
class Known(Generic[T]):
    """A fact. Not `fresh`: an older value, because its source did not answer."""

    value: T
    source: FactSource
    fresh: bool = True


@dataclass(frozen=True, slots=True)
class Missing:
    """A fact that `dependency` could not return: unknown, which is not the same as absent."""

    dependency: str
    error: str


Fact = Known[T] | Missing
# Not read, because no rule of this campaign needs it. A rule that does says UNKNOWN, never a guess.
NOT_ASKED = Missing("none", "not asked")


# An upper bound of human age, to catch typing errors.
MAX_AGE = 150


class WrongTerm(ValueError):
    """`field` of the terms breaks `rule`."""

    def __init__(self, field: str, rule: str, found: Any) -> None:
        super().__init__(f"{field} {rule}")
        self.field, self.rule, self.found = field, rule, found


@dataclass(frozen=True, slots=True)
class EligibilityTerms:
    """What a campaign requires of a fan. An absent term requires nothing."""

    invite_only: bool = False
    # These count with `invite_only` alone. Never empty: an empty list means all.
    invite_types: tuple[InviteType, ...] = tuple(InviteType)
    regions: tuple[str, ...] = ()  # in the form of `comparable_region`; empty admits every region
    min_age: int | None = None
    require_verified_phone: bool = False
    max_per_unit: int | None = None

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> EligibilityTerms:
        """Null is absent, unknown fields are not ours and stay unread. Raises WrongTerm."""
        return cls(
            invite_only=_flag(given, "inviteOnly"),
            invite_types=_invite_types(given),
            regions=_regions(given),
            min_age=_number(given, "minAge", 0, MAX_AGE),
            require_verified_phone=_flag(given, "requireVerifiedPhone"),
            max_per_unit=_number(given, "maxPerUnit", 1, 2**31 - 1),
        )

    def as_document(self) -> dict[str, Any]:
        """What a campaign's document holds, without what asks for nothing; `parse` gives the same terms back."""
        values = ((each, getattr(self, each.name)) for each in fields(self))
        return {
            camel(each.name): [*map(str, value)] if isinstance(value, tuple) else value
            for each, value in values
            if value != each.default
        }


TERMS = tuple(each.name for each in fields(EligibilityTerms))


def comparable_region(text: str) -> str:
    """The form in which two regions are compared: trimmed, upper case, as in ISO 3166."""
    return text.strip().upper()


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name)
    # A server on SQLite gives a flag that was set by an update back as 0 or 1.
    if value not in (None, True, False):
        raise WrongTerm(name, "must be true or false", value)
    return bool(value)


def _invite_types(fields: Mapping[str, Any]) -> tuple[InviteType, ...]:
    value = fields.get("inviteTypes")
    known = {each.value: each for each in InviteType}
    if value is None:
        return tuple(InviteType)
    if not isinstance(value, list | tuple) or not all(isinstance(e, str) and e in known for e in value):
        raise WrongTerm("inviteTypes", f"must be a list of {', '.join(known)}", value)
    return tuple(each for each in InviteType if each.value in value) or tuple(InviteType)


def _regions(fields: Mapping[str, Any]) -> tuple[str, ...]:
    value = fields.get("regions")
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not all(
        isinstance(each, str) and each.strip() for each in value
    ):
        raise WrongTerm("regions", "must be a list of texts", value)
    return tuple(dict.fromkeys(comparable_region(each) for each in value))


def _number(fields: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    # A flag is an integer to Python.
    if type(value) is not int or not least <= value <= most:
        raise WrongTerm(name, f"must be a whole number from {least} to {most}", value)
    return value
