"""A closed campaign with entries in a replica that is a list, and fakes of the services that a judgement asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from regworkers_core.adapters.judged_entries import read_judged
from regworkers_core.adapters.mongo.entry_documents import Stored
from regworkers_core.domain.campaign import Campaign, CampaignStatus
from regworkers_core.domain.claim import InviteType, TableKey, User, invite_key
from regworkers_core.domain.entry import Order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.eligibility.judging import Tally, judge_entries
from tests.eligibility.world import CAMPAIGN, campaign

OPENS, CLOSES = "2026-01-01T00:00:00.000Z", "2026-02-01T00:00:00.000Z"
AS_OF = "2026-02-02T12:00:00.000Z"


def closed(**changes: Any) -> Campaign:
    """Closed at its time; `eligibility` and the like by their contract names."""
    times = {"opensAt": OPENS, "closesAt": CLOSES, "status": CampaignStatus.CLOSED.value}
    return campaign(CAMPAIGN, **{**times, **changes})


def entry(entry_id: str, *, day: int = 10, **changes: Any) -> dict[str, Any]:
    """As the replica holds its fields; `field=None` leaves the field out."""
    fields = {
        "campaignId": CAMPAIGN,
        "entryId": entry_id,
        "ref": f"ref-{entry_id}",
        "email": f"{entry_id}@example.com",
        "firstName": "Zoë",
        "lastName": "Łukasz",
        "markets": ["berlin"],
        "createdAt": f"2026-01-{day:02d}T08:00:00.000Z",
        **changes,
    }
    return {name: value for name, value in fields.items() if value is not None}


@dataclass(slots=True)
class World:
    """`users` None: the User Service is unavailable. `asked`: the number of keys in each read of invites."""

    entries: Sequence[Mapping[str, Any]] = ()
    invites: dict[TableKey, int] = field(default_factory=dict)
    users: dict[str, User] | None = None
    lookups: str = "required"
    asked: list[int] = field(default_factory=list)
    asked_users: set[str] = field(default_factory=set)
    tally: Tally | None = None
    # The orders of states that replication has refused, by entry id.
    refused: dict[str, set[Order]] = field(default_factory=dict)

    def invite(self, value: str, ttl: int, kind: InviteType = InviteType.EMAIL) -> None:
        self.invites[invite_key(CAMPAIGN, kind, value)] = ttl

    def judge(self, folder: Path, of: Campaign | None = None) -> dict[str, list[str]]:
        """The codes of every judged entry."""
        runtime: Any = SimpleNamespace(
            replica=SimpleNamespace(entries=self._entries),
            invites=SimpleNamespace(ttls=self._ttls),
            dead_letters=SimpleNamespace(open_orders=self._open_orders),
            services=SimpleNamespace(user=SimpleNamespace(get=self._user)),
            settings=SimpleNamespace(
                eligibility=SimpleNamespace(threads=4, campaign_user_lookups=self.lookups)
            ),
        )
        self.tally = judge_entries(
            runtime, of or closed(), as_of=AS_OF, folder=folder, tell=lambda _text: None
        )
        return {each.entry_id: list(each.reasons) for each in read_judged(folder)}

    def _entries(self, campaign_id: str) -> Iterator[tuple[EntryKey, Stored]]:
        for fields in self.entries:
            # Nothing but its id is left of a removed one.
            removed = "email" not in fields and "ref" not in fields
            key = EntryKey(campaign_id, fields["entryId"])
            yield key, Stored(Order(), None if removed else fields, {}, AS_OF if removed else None)

    def _open_orders(self, keys: Sequence[EntryKey]) -> dict[EntryKey, set[Order]]:
        return {key: self.refused[key.entry_id] for key in keys if key.entry_id in self.refused}

    def _ttls(self, keys: Sequence[TableKey]) -> dict[TableKey, int]:
        self.asked.append(len(keys))
        return {key: self.invites[key] for key in keys if key in self.invites}

    def _user(self, global_user_id: str) -> User | None:
        self.asked_users.add(global_user_id)
        if self.users is None:
            raise TransientFailure("service-user", "no answer")
        return self.users.get(global_user_id)
