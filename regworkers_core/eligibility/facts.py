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

    An entry stands before the subject when it is live, is not the subject's own (`entry_id`), and was entered
    earlier: for somebody who asks now that is every such entry, for an entry those with a smaller (`createdAt`,
    `entryId`): see `stands_before`. So a run over a whole campaign needs one sorted pass: for each of the three
    identities, whether the value was seen before; for each unit, the number of its entries so far.
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


def stands_before(other: tuple[str, str], own: tuple[str | None, str | None]) -> bool:
    """Whether the live entry `other` (`createdAt`, `entryId`) stands before the subject `own` (`entered_at`,
    `entry_id`).
    """
    entered_at, entry_id = own
    if other[1] == entry_id:
        return False
    return entered_at is None or other < (entered_at, entry_id or "")
