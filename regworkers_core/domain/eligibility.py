"""What a judgement of eligibility rests on and what it says: plain types, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

T = TypeVar("T")


class Status(StrEnum):
    """UNKNOWN: a dependency could not answer, and no rule has failed for certain."""

    ELIGIBLE = "ELIGIBLE"
    INELIGIBLE = "INELIGIBLE"
    UNKNOWN = "UNKNOWN"


class Source(StrEnum):
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
    source: Source
    fresh: bool = True


@dataclass(frozen=True, slots=True)
class Missing:
    """A fact that `dependency` could not give: could not read, which is not the same as there is none."""

    dependency: str
    error: str


Fact = Known[T] | Missing
# Not read, because no rule of this campaign needs it. A rule that does says UNKNOWN, never a guess.
NOT_ASKED = Missing("none", "not asked")
