"""A fan as the User Service knows one: the facts that rules of eligibility ask for."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date


@dataclass(frozen=True, slots=True)
class User:
    """`region` and `birth_date` are None where the service does not know them. Prints none of its values."""

    verified_phone: bool = field(repr=False)
    blocked: bool = field(repr=False)
    region: str | None = field(default=None, repr=False)
    birth_date: date | None = field(default=None, repr=False)
