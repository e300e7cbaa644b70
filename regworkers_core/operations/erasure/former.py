"""A fan's former identities. Claims outlive a change of the address, and name the entry by its id. The invite of a
former address is the one whose keyed hash is that of such a claim.

The claims of a campaign are read once for all entries that are erased together, and its invites only if one of the
claims is on an identity that no store shows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import NamedTuple

from regworkers_core.domain.claim import (
    IDENTITY_PREFIX,
    INVITE_PREFIX,
    Claim,
    InviteType,
    TableKey,
    invite_key,
)
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import UsageError
from regworkers_core.eligibility.case import Identity
from regworkers_core.eligibility.identity import SECRET, IdentitySecret
from regworkers_core.operations.erasure.facts import EntryFacts
from regworkers_core.runtime import Runtime

Named = tuple[Identity, str]


class FormerIdentities:
    """Former identities of the entries `keys`. Every method raises TransientFailure when the table or the secret
    store cannot answer.
    """

    def __init__(self, runtime: Runtime, secret: IdentitySecret, keys: Collection[EntryKey]) -> None:
        self._runtime, self._secret, self._keys = runtime, secret, keys
        self._claims: dict[str, dict[EntryKey, list[Claim]]] = {}
        self._invited: dict[str, dict[TableKey, Named]] = {}

    def added_to(self, facts: EntryFacts) -> EntryFacts:
        """The facts, with the claims that name the entry and the identities that their invites show."""
        campaign_id = facts.key.campaign_id
        if campaign_id not in self._claims:
            self._claims[campaign_id] = self.claims(campaign_id)
        claims = tuple(self._claims[campaign_id].get(facts.key, ()))
        unknown = {claim.key for claim in claims} - self.claim_keys(facts)
        if not unknown:
            return replace(facts, claims=claims)
        if campaign_id not in self._invited:
            self._invited[campaign_id] = dict(self._invites_of_claims(campaign_id))
        invited = self._invited[campaign_id]
        former = frozenset(invited[each] for each in unknown if each in invited)
        return replace(facts, claims=claims, former_identities=former)

    def claims(self, campaign_id: str) -> dict[EntryKey, list[Claim]]:
        """The claims of the campaign that name one of the entries, as they are now."""
        wanted = {key.entry_id: key for key in self._keys if key.campaign_id == campaign_id}
        found: dict[EntryKey, list[Claim]] = {}
        for claim in self._runtime.entry_claims.held_by(campaign_id, wanted):
            found.setdefault(wanted[claim.entry_id], []).append(claim)
        return found

    def claim_keys(self, facts: EntryFacts) -> set[TableKey]:
        """The keys of the claims on every known identity."""
        return set(self._named(facts).values())

    def left(self, facts: EntryFacts, claims: Collection[Claim]) -> list[str]:
        """Lines about what is left of the fan's identities: `claims`, and invites as they are now."""
        invites = {
            invite_key(facts.key.campaign_id, InviteType(kind.value), value): claim
            for (kind, value), claim in self._named(facts).items()
        }
        there = self._runtime.invites.ttls(sorted(invites)) if invites else {}
        held = [claim.key for claim in claims]
        return [*_lines("claim", held), *_lines("invite", [invites[key] for key in there])]

    def _named(self, facts: EntryFacts) -> dict[Named, TableKey]:
        hashes = self._secret.existing() if facts.identities else None
        if hashes is None:
            return {}
        return {each: hashes.claim_key(facts.key.campaign_id, *each) for each in facts.identities}

    def _invites_of_claims(self, campaign_id: str) -> Iterator[tuple[TableKey, Named]]:
        """The identity of each invite for which one of the entries has a claim, by the key of the claim."""
        hashes = self._secret.existing()
        if hashes is None:
            raise UsageError(
                f"secret {SECRET} is missing, so the invites of these claims cannot be found: restore it"
            )
        claims = {claim.key for held in self._claims[campaign_id].values() for claim in held}
        kinds = {Identity(kind) for kind, _ in map(_read, claims) if kind in set(Identity)}
        for kind in sorted(kinds):
            for _, sort_key in self._runtime.invites.keys(campaign_id, InviteType(kind.value)):
                value = sort_key.removeprefix(f"{INVITE_PREFIX}{kind.value}#")
                if (claim := hashes.claim_key(campaign_id, kind, value)) in claims:
                    yield claim, (kind, value)


class _Claimed(NamedTuple):
    kind: str
    hashed: str


def _read(claim: TableKey) -> _Claimed:
    """The identity that is claimed."""
    kind, _, hashed = claim[1].removeprefix(IDENTITY_PREFIX).partition("#")
    return _Claimed(kind, hashed)


def _lines(what: str, claims: Collection[TableKey]) -> list[str]:
    by_kind: dict[str, list[str]] = {}
    for kind, hashed in map(_read, sorted(claims)):
        by_kind.setdefault(kind, []).append(hashed)
    return [
        f"left of the fan: {len(hashes)} {what}(s) of type {kind}, hashed {', '.join(hashes)}: repeat the command"
        for kind, hashes in by_kind.items()
    ]
