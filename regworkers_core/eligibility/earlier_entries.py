"""Finds the earlier entries of the same person or household: pure rules over what the table and the replica hold.

An entry belongs to the same person if the table holds it *now* under the same identity. A claim (`transfer.py`) refers
to such an entry, and so does the replica, for entries of other writers: it may lag, so the table decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from regworkers_core.adapters.mongo.entrants import (
    EMAIL,
    GLOBAL_USER_ID,
    MEMBER_ID,
    UNIT,
    Entrant,
    FoundEntrants,
    Trace,
)
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.claim import CLAIM_LEASE_SECONDS, Claim, TableKey, comparable
from regworkers_core.domain.eligibility import NOT_ASKED, Fact, FactSource, Known, Missing
from regworkers_core.domain.keys import EntryKey
from regworkers_core.eligibility.case import Identity, Subject

Item = dict[str, Any]
_PATHS = {Identity.EMAIL: EMAIL, Identity.GLOBAL_USER_ID: GLOBAL_USER_ID, Identity.MEMBER_ID: MEMBER_ID}


class ReplicaMatches:
    """The entries that the replica found, by trace."""

    def __init__(self, found: FoundEntrants | Missing) -> None:
        self.missing = found if isinstance(found, Missing) else None
        self.whole = isinstance(found, FoundEntrants) and found.whole
        self._by_trace: dict[Trace, list[Entrant]] = {}
        for entrant in found.entrants if isinstance(found, FoundEntrants) else ():
            for path, value in entrant.values.items():
                self._by_trace.setdefault(Trace(entrant.campaign_id, path, value), []).append(entrant)

    def of(self, trace: Trace) -> Sequence[Entrant]:
        return self._by_trace.get(trace, ())


def traces_of(campaign: Campaign, subject: Subject) -> Iterable[Trace]:
    """Yield what to look for in the replica."""
    for kind, value in subject.identities.items():
        yield Trace(campaign.campaign_id, _PATHS[kind], value)
    if campaign.eligibility.max_per_unit is not None and subject.unit is not None:
        yield Trace(campaign.campaign_id, UNIT, subject.unit)


class TableItems:
    """What the table holds under each key: an item, None, or Missing if it could not be read. `unreadable` says why no
    claim could be looked up.
    """

    def __init__(self, unreadable: Missing | None = None) -> None:
        self._found: dict[TableKey, Item | Missing | None] = {}
        self.unreadable = unreadable

    def __contains__(self, key: TableKey) -> bool:
        return key in self._found

    def __getitem__(self, key: TableKey) -> Item | Missing | None:
        return self._found.get(key, NOT_ASKED)

    def add(self, keys: Sequence[TableKey], answer: dict[TableKey, Item] | Missing) -> None:
        for key in keys:
            self._found[key] = answer if isinstance(answer, Missing) else answer.get(key)


def identities_of(item: Item) -> dict[Identity, str]:
    """Return the comparable identities of an entry as the table holds it."""
    found: dict[Identity, str] = {}
    for kind in Identity:
        value = item.get(kind.value)
        if isinstance(value, str) and value.strip():
            found[kind] = comparable(value) if kind is Identity.EMAIL else value.strip()
    return found


def is_young(claim: Claim, now: float) -> bool:
    """Return whether the claim is within its lease, in either direction: a writer's clock may be far ahead."""
    return abs(now - claim.claimed_at) < CLAIM_LEASE_SECONDS


class EarlierEntries:
    """The entries that count as earlier than one subject in one campaign."""

    def __init__(
        self,
        campaign: Campaign,
        subject: Subject,
        claim_keys: Mapping[Identity, TableKey],
        items: TableItems,
        matches: ReplicaMatches,
    ) -> None:
        self._campaign, self.subject, self.claim_keys = campaign, subject, claim_keys
        self._items, self._matches = items, matches

    @property
    def own(self) -> EntryKey | None:
        """The key of the subject's own entry, whether that exists or not."""
        id_ = self.subject.entry_id
        return None if id_ is None else EntryKey(self._campaign.campaign_id, id_)

    def entry(self) -> Item | None:
        """Return the subject's own entry if it is known to exist."""
        own = self.own
        item = None if own is None else self._items[own.pk, own.sk]
        return None if isinstance(item, Missing) else item

    def claim(self, kind: Identity) -> Claim | Missing | None:
        item = self._items[self.claim_keys[kind]]
        return item if isinstance(item, Missing) or item is None else Claim.of(item)

    def candidates(self) -> Iterable[TableKey]:
        """Yield the keys of entries that may be the same person's."""
        for kind in self.claim_keys:
            claim = self.claim(kind)
            if isinstance(claim, Claim) and claim.entry_id not in ("", self.subject.entry_id):
                yield self._key(claim.entry_id)
        for entrant in self._entrants():
            yield self._key(entrant.entry_id)

    def holds(self, claim: Claim, kind: Identity, *, if_absent: bool = False) -> bool | Missing:
        """Return whether another entry has the identity by this claim; `if_absent` if that entry does not exist."""
        if claim.entry_id in ("", self.subject.entry_id):
            return False
        item = self._items[self._key(claim.entry_id)]
        if isinstance(item, Missing):
            return item
        if item is None:
            return if_absent
        # An entry whose address was changed no longer has the old one.
        return identities_of(item).get(kind) == self.subject.identities[kind]

    def duplicates(self) -> Fact[frozenset[Identity]]:
        """Return `Facts.duplicates`. A duplicate that was found outweighs what could not be read."""
        kinds: set[Identity] = set()
        missing: Missing | None = self._items.unreadable
        for kind in self.claim_keys:
            claim = self.claim(kind)
            held = self.holds(claim, kind) if isinstance(claim, Claim) else claim or False
            if isinstance(held, Missing):
                missing = held
            elif held:
                kinds.add(kind)
        missing = self._matches.missing or missing
        for entrant in self._entrants():
            item = self._items[self._key(entrant.entry_id)]
            if isinstance(item, Missing):
                missing = item
            elif item is not None:
                have = identities_of(item)
                kinds.update(k for k, value in self.subject.identities.items() if have.get(k) == value)
        if missing is None and not self._matches.whole:
            missing = Missing("mongo", "more entries share an identity than are read")
        if kinds or missing is None:
            return Known(frozenset(kinds), FactSource.DATABASE)
        return missing

    def household(self) -> Fact[int]:
        """Return `Facts.household` from the replica, which may lag. The judgement before the draw counts again."""
        limit, unit = self._campaign.eligibility.max_per_unit, self.subject.unit
        if limit is None or unit is None:
            return NOT_ASKED
        if self._matches.missing is not None:
            return self._matches.missing
        entrants = self._matches.of(Trace(self._campaign.campaign_id, UNIT, unit))
        count = sum(map(self._is_earlier, entrants))
        if count < limit and not self._matches.whole:
            return Missing("mongo", "more entries share a unit than are read")
        return Known(count, FactSource.DATABASE)

    def _entrants(self) -> Iterable[Entrant]:
        """Yield the replica's entries that share an identity with the subject."""
        for kind, value in self.subject.identities.items():
            trace = Trace(self._campaign.campaign_id, _PATHS[kind], value)
            yield from filter(self._is_earlier, self._matches.of(trace))

    def _is_earlier(self, entrant: Entrant) -> bool:
        """Return whether the entry counts as earlier: for a fan who asks now, every entry but their own."""
        return entrant.entry_id != self.subject.entry_id

    def _key(self, entry_id: str) -> TableKey:
        key = EntryKey(self._campaign.campaign_id, entry_id)
        return key.pk, key.sk
