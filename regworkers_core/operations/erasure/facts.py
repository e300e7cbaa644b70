"""By what a fan's entry is known, read from every place that still has it. It stays in memory, and in no log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from regworkers_core.adapters.mongo.entry_documents import Stored
from regworkers_core.domain.claim import TableKey
from regworkers_core.domain.invite import InviteType, invite_key
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.order import Order, lenient_order, life
from regworkers_core.domain.selection import NON_WINNERS, MarketPhase
from regworkers_core.eligibility.case import Identity
from regworkers_core.eligibility.earlier_entries import identities_of
from regworkers_core.runtime import Runtime

# What is too short to be looked for in texts: it would be found in others.
_SHORTEST = 6
_NAMES = ("email", *(identity.value for identity in Identity))


@dataclass(frozen=True, slots=True)
class Facts:
    """`source` is the item of the demand table, `replica` what MongoDB holds, either None where it has nothing;
    `former` are versions that an acceptance replaced.
    """

    key: EntryKey
    source: Mapping[str, Any] | None
    replica: Stored | None
    former: tuple[Mapping[str, Any], ...] = ()
    _versions: tuple[Mapping[str, Any], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        stored = self.replica.fields if self.replica is not None else None
        versions = (self.source, stored, *self.former)
        object.__setattr__(self, "_versions", tuple(each for each in versions if each is not None))

    @property
    def known(self) -> bool:
        """Whether any place has the entry, or its tombstone."""
        return bool(self._versions) or self.replica is not None

    @property
    def live(self) -> bool:
        """Whether the replica holds more than a tombstone."""
        return self.replica is not None and self.replica.fields is not None

    @property
    def source_order(self) -> Order:
        return lenient_order(self.source or {})

    def newest(self) -> str:
        """When the latest live state was created, in the contract's form; empty without any that says so."""
        states = [life(self.source_order.created_at)] if self.source is not None else []
        if self.live and self.replica is not None:
            states.append(life(self.replica.order.created_at))
        return max(states, default="")

    @property
    def identities(self) -> set[tuple[Identity, str]]:
        """Comparable, of every version that is known."""
        return {each for version in self._versions for each in identities_of(dict(version)).items()}

    @property
    def invites(self) -> list[TableKey]:
        """Where invites of these identities would lie."""
        campaign_id = self.key.campaign_id
        return sorted(
            {invite_key(campaign_id, InviteType(kind.value), value) for kind, value in self.identities}
        )

    @property
    def refs(self) -> set[str]:
        return {version["ref"] for version in self._versions if isinstance(version.get("ref"), str)}

    @property
    def texts(self) -> frozenset[str]:
        """What names the fan, as it was written and as it is compared: for a look through bodies."""
        written = {version.get(name) for version in self._versions for name in _NAMES}
        both = {*written, *(value for _, value in self.identities)}
        return frozenset(each for each in both if isinstance(each, str) and len(each) >= _SHORTEST)


def read_facts(runtime: Runtime, key: EntryKey) -> Facts:
    """Raises TransientFailure when a store cannot answer."""
    stored = runtime.replica.get([key]).get(key)
    item = runtime.demand_table.get([key]).get(key)
    return Facts(key, item, stored, tuple(runtime.superseded_entries.of_entry(key)))


def drawn_keys(runtime: Runtime, facts: Facts) -> list[str]:
    """The ids under which the draw may have kept something of the entry: of selections and of rows of the outbox."""
    record = runtime.draws.get(facts.key.campaign_id)
    if record is None:
        return []
    return [
        MarketPhase(facts.key.campaign_id, market_id, phase).key(ref)
        for phase, phase_record in record.phases.items()
        for market_id in {*phase_record.markets, NON_WINNERS}
        for ref in sorted(facts.refs)
    ]
