"""What the rules must know beside the subject itself, each fact with where it came from, or that it is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.eligibility import NOT_ASKED, Fact, Known
from regworkers_core.domain.invite import InviteType
from regworkers_core.domain.user import User
from regworkers_core.eligibility.subject import Identity


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one subject. Whoever gathers leaves at NOT_ASKED what no rule of the campaign wants to know.

    `campaign`: None when there is none of that slug or id.
    `invites`: the `ttl` (epoch seconds) of each invite that stands for the subject, expired ones included.
    `duplicates`: by which identities an entry of the campaign that *stands before* the subject is the same person's;
    empty when there is none.
    `household`: how many entries of the subject's unit *stand before* it.
    `user`: None when the service knows nobody of that id, or the subject has none.

    An entry stands before the subject when it is live, is not the subject's own (`entry_id`), and

    - for somebody who asks now: always. Whether it will be in the draw is not known yet, and one entry a person is
      what the table promises.
    - for an entry in the judgement of its campaign: when no other rule excludes it (judged as if it were alone, it
      has no reasons), and it was entered earlier, see `was_entered_before`. Otherwise an entry that is out itself
      would take its owner's other entry along. So a run over a whole campaign needs one sorted pass: for each of the
      three identities, whether such an entry had the value before; for each unit, how many did.
    """

    campaign: Fact[Campaign | None]
    invites: Fact[Mapping[InviteType, int]] = NOT_ASKED
    duplicates: Fact[frozenset[Identity]] = NOT_ASKED
    household: Fact[int] = NOT_ASKED
    user: Fact[User | None] = NOT_ASKED

    def sources(self) -> dict[str, dict[str, Any]]:
        """Of every fact that is known: `{"source": "cache", "fresh": true}`."""
        return {
            name: {"source": fact.source.value, "fresh": fact.fresh}
            for name, fact in self._each()
            if isinstance(fact, Known)
        }

    def _each(self) -> Iterator[tuple[str, Fact[Any]]]:
        yield "campaign", self.campaign
        yield "invites", self.invites
        yield "duplicates", self.duplicates
        yield "household", self.household
        yield "user", self.user


def was_entered_before(other: tuple[str, str], own: tuple[str, str]) -> bool:
    """Whether the entry `other` (`createdAt`, `entryId`) comes before `own`. One without a time of its own (empty)
    comes after all that have one: nobody gets ahead by it.
    """
    return _place(*other) < _place(*own)


def _place(created_at: str, entry_id: str) -> tuple[bool, str, str]:
    return not created_at, created_at, entry_id
