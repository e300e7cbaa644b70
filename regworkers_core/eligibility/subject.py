"""Who is judged: a fan who asks now, or an entry that stands, in the one form that the rules look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import NamedTuple


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
