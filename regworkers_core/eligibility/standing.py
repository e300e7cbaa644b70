"""Who stands before a fan that asks: pure rules over what was read in the table and in the replica.

An entry of the same person is one that the table holds *now* under the same identity. A claim (`transfer.py`) points at
one, and so does the replica, for entries that other writers put: it may lag, so the table has the last word.
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
    Found,
    Trace,
)
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.claim import CLAIM_LEASE_SECONDS, Claim, TableKey
from regworkers_core.domain.eligibility import NOT_ASKED, Fact, Known, Missing, Source
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.mail import comparable
from regworkers_core.eligibility.subject import Identity, Subject

Item = dict[str, Any]
_PATHS = {Identity.EMAIL: EMAIL, Identity.GLOBAL_USER_ID: GLOBAL_USER_ID, Identity.MEMBER_ID: MEMBER_ID}


class Candidates:
    """What the replica answered, by what it was asked for."""

    def __init__(self, found: Found | Missing) -> None:
        self.missing = found if isinstance(found, Missing) else None
        self.whole = isinstance(found, Found) and found.whole
        self._by_trace: dict[Trace, list[Entrant]] = {}
        for entrant in found.entrants if isinstance(found, Found) else ():
            for path, value in entrant.values.items():
                self._by_trace.setdefault(Trace(entrant.campaign_id, path, value), []).append(entrant)

    def of(self, trace: Trace) -> Sequence[Entrant]:
        return self._by_trace.get(trace, ())


def traces_of(campaign: Campaign, subject: Subject) -> Iterable[Trace]:
    """What to ask the replica about a subject."""
    for kind, value in subject.identities.items():
        yield Trace(campaign.campaign_id, _PATHS[kind], value)
    if campaign.eligibility.max_per_unit is not None and subject.unit is not None:
        yield Trace(campaign.campaign_id, UNIT, subject.unit)


class Read:
    """What is known of keys of the table: an item, None for none, or that it could not be read."""

    def __init__(self, unreadable: Missing | None = None) -> None:
        self._found: dict[TableKey, Item | Missing | None] = {}
        self.no_claims = unreadable

    def __contains__(self, key: TableKey) -> bool:
        return key in self._found

    def __getitem__(self, key: TableKey) -> Item | Missing | None:
        return self._found.get(key, NOT_ASKED)

    def add(self, keys: Sequence[TableKey], answer: dict[TableKey, Item] | Missing) -> None:
        for key in keys:
            self._found[key] = answer if isinstance(answer, Missing) else answer.get(key)


def identities_of(item: Item) -> dict[Identity, str]:
    """Comparable, of an entry as the table holds it."""
    found: dict[Identity, str] = {}
    for kind in Identity:
        value = item.get(kind.value)
        if isinstance(value, str) and value.strip():
            found[kind] = comparable(value) if kind is Identity.EMAIL else value.strip()
    return found


def is_young(claim: Claim, now: float) -> bool:
    """Either way, so that a writer whose clock is far ahead does not block for long."""
    return abs(now - claim.claimed_at) < CLAIM_LEASE_SECONDS


class Standing:
    """Of one subject in one campaign."""

    def __init__(
        self,
        campaign: Campaign,
        subject: Subject,
        claim_keys: Mapping[Identity, TableKey],
        read: Read,
        candidates: Candidates,
    ) -> None:
        self._campaign, self.subject, self.claim_keys = campaign, subject, claim_keys
        self._read, self._candidates = read, candidates

    @property
    def own(self) -> EntryKey | None:
        """The key of the subject's own entry, whether it is there or not."""
        id_ = self.subject.entry_id
        return None if id_ is None else EntryKey(self._campaign.campaign_id, id_)

    def entry(self) -> Item | None:
        """The subject's own entry, where it is known to be there."""
        own = self.own
        item = None if own is None else self._read[own.pk, own.sk]
        return None if isinstance(item, Missing) else item

    def claim(self, kind: Identity) -> Claim | Missing | None:
        item = self._read[self.claim_keys[kind]]
        return item if isinstance(item, Missing) or item is None else Claim.of(item)

    def others(self) -> Iterable[TableKey]:
        """Keys of the entries that may be the same person's."""
        for kind in self.claim_keys:
            claim = self.claim(kind)
            if isinstance(claim, Claim) and claim.entry_id not in ("", self.subject.entry_id):
                yield self._key(claim.entry_id)
        for entrant in self._entrants():
            yield self._key(entrant.entry_id)

    def holds(self, claim: Claim, kind: Identity, *, if_absent: bool = False) -> bool | Missing:
        """Whether somebody else's entry has the identity by right of this claim; `if_absent` where it is not there."""
        if claim.entry_id in ("", self.subject.entry_id):
            return False
        item = self._read[self._key(claim.entry_id)]
        if isinstance(item, Missing):
            return item
        if item is None:
            return if_absent
        # An entry whose address was changed has let go of it.
        return identities_of(item).get(kind) == self.subject.identities[kind]

    def duplicates(self) -> Fact[frozenset[Identity]]:
        """See `Facts.duplicates`. One that is found outweighs what could not be read."""
        kinds: set[Identity] = set()
        missing: Missing | None = self._read.no_claims
        for kind in self.claim_keys:
            claim = self.claim(kind)
            held = self.holds(claim, kind) if isinstance(claim, Claim) else claim or False
            if isinstance(held, Missing):
                missing = held
            elif held:
                kinds.add(kind)
        missing = self._candidates.missing or missing
        for entrant in self._entrants():
            item = self._read[self._key(entrant.entry_id)]
            if isinstance(item, Missing):
                missing = item
            elif item is not None:
                have = identities_of(item)
                kinds.update(k for k, value in self.subject.identities.items() if have.get(k) == value)
        if missing is None and not self._candidates.whole:
            missing = Missing("mongo", "more entries share an identity than are looked at")
        if kinds or missing is None:
            return Known(frozenset(kinds), Source.DATABASE)
        return missing

    def household(self) -> Fact[int]:
        """See `Facts.household`: as the replica knows it, which may lag a little. The draw counts again."""
        limit, unit = self._campaign.eligibility.max_per_unit, self.subject.unit
        if limit is None or unit is None:
            return NOT_ASKED
        if self._candidates.missing is not None:
            return self._candidates.missing
        entrants = self._candidates.of(Trace(self._campaign.campaign_id, UNIT, unit))
        count = sum(map(self._stands_before, entrants))
        if count < limit and not self._candidates.whole:
            return Missing("mongo", "more entries share a unit than are looked at")
        return Known(count, Source.DATABASE)

    def _entrants(self) -> Iterable[Entrant]:
        """Those of the replica that share an identity with the subject."""
        for kind, value in self.subject.identities.items():
            trace = Trace(self._campaign.campaign_id, _PATHS[kind], value)
            yield from filter(self._stands_before, self._candidates.of(trace))

    def _stands_before(self, entrant: Entrant) -> bool:
        """See `Facts`: for somebody who asks now, every entry but the own one."""
        return entrant.entry_id != self.subject.entry_id

    def _key(self, entry_id: str) -> TableKey:
        key = EntryKey(self._campaign.campaign_id, entry_id)
        return key.pk, key.sk
