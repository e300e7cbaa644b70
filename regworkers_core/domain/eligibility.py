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
    """Where a fact came from: Redis, MongoDB, the demand table (both `database`), or one of the services."""

    CACHE = "cache"
    DATABASE = "database"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Known(Generic[T]):
    """A fact. Not `fresh`: read earlier than it should be, because whoever knows better did not answer."""

    value: T
    source: Source
    fresh: bool = True


@dataclass(frozen=True, slots=True)
class Missing:
    """A fact that `dependency` could not give: could not read, which is not the same as there is none."""

    dependency: str
    error: str


Fact = Known[T] | Missing
