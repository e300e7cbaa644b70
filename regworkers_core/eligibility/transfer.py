"""doTransfer: an entry is written once for each person, in single steps each of which a repeat finds done.

1. Claim every identity that the entry has (mail, globalUserId, memberId), by a conditional put: at most one entry
   of a campaign holds each of them, so of two racing writers one is told ALREADY_ENTERED.
2. Write the entry where there is none. From here it stands, and flows on to the replica by itself.
3. Queue the event `eligibility.judged`. It comes last, because an event must not tell of an entry that may never be;
   when it cannot be queued, the entry stands all the same, and a repeat of the call, which finds the entry at its first
   version, queues the event again under the same id.

A crash between 1 and 2 leaves claims without an entry. The repeat derives the same entry id, finds the claims its own,
and goes on. Another entry of the same person takes them over once they are older than `CLAIM_LEASE_SECONDS` and their
entry is not there, by a condition on exactly what was read. A writer that is slow gives up before its claims get that
old. Claims are never taken back, since another call for the same entry may rely on them. So a removed entry blocks
nobody, and the person may enter again under any id.
"""

from __future__ import annotations

import secrets as randomness
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from regworkers_core.domain.claim import CLAIM_LEASE_SECONDS, Claim, TableKey
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.order import Order, lenient_order
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.timestamps import iso
from regworkers_core.eligibility.gather import TableReads
from regworkers_core.eligibility.request import Check
from regworkers_core.eligibility.standing import Item, Standing, identities_of, is_young
from regworkers_core.eligibility.subject import Identity
from regworkers_core.engine.steps import OnStep, no_step

# Others may claim and let go while we look; then somebody else is at it.
_ROUNDS = 4
_REF_BYTES = 16
# A third of the lease for a claim's age, a third for claiming; the last is more than writing the entry can take.
_SAFE_SECONDS = CLAIM_LEASE_SECONDS / 3


class TableWrites(TableReads, Protocol):
    def claim(self, claim: Claim, over: Claim | None) -> bool: ...
    def put_entry(self, item: dict[str, Any]) -> bool: ...


@dataclass(frozen=True, slots=True)
class Transferred:
    """The entry stands. `created` by this call, or before it."""

    key: EntryKey
    order: Order
    created: bool

    def as_answer(self) -> dict[str, Any]:
        return {
            "entryId": self.key.entry_id,
            "state": "created" if self.created else "existing",
            "version": self.order.version,
        }


@dataclass(frozen=True, slots=True)
class TakenBy:
    """Another entry of the same person holds this identity."""

    identity: Identity


class IdTaken:
    """The entry id that the caller named is an entry of somebody else."""


REFUSED = {"entryId": None, "state": "refused", "version": None}


class Transfer:
    """Safe to share between threads."""

    def __init__(
        self,
        table: TableWrites,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        new_ref: Callable[[], str] = lambda: randomness.token_urlsafe(_REF_BYTES),
        new_token: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._table, self._clock, self._monotonic = table, clock, monotonic
        self._new_ref, self._new_token = new_ref, new_token

    def existing(self, standing: Standing, check: Check) -> Transferred | IdTaken | None:
        """The entry that stands under the subject's own id, as it was read; None when there is none."""
        own, item = standing.own, standing.entry()
        return None if own is None or item is None else _standing(own, item, check)

    def write(
        self, own: EntryKey, standing: Standing, check: Check, on_step: OnStep = no_step
    ) -> Transferred | TakenBy | IdTaken:
        """Write the entry `own` of a subject that was found eligible.

        Raises TransientFailure when DynamoDB does not answer, or answers too slowly: then the entry may stand or not,
        and a repeat finds out.
        """
        began = self._monotonic()
        for kind, table_key in standing.claim_keys.items():
            if not self._claim(own, standing, kind, table_key):
                return TakenBy(kind)
        on_step("transfer.after_claims")
        if self._monotonic() - began > _SAFE_SECONDS:
            raise TransientFailure("dynamodb", "claiming took too long to go on safely")
        item = self._item(own, check)
        if self._table.put_entry(item):
            on_step("transfer.after_entry")
            return Transferred(own, lenient_order(item), True)
        stands = self._read((own.pk, own.sk))
        if stands is None:
            raise TransientFailure("dynamodb", "the entry came and went while it was written")
        return _standing(own, stands, check)

    def _claim(self, own: EntryKey, standing: Standing, kind: Identity, table_key: TableKey) -> bool:
        """False when another entry of the same person holds the identity."""
        before = standing.claim(kind)
        stands = before if isinstance(before, Claim) else None
        young = stands is not None and is_young(stands, self._clock())
        held = stands is not None and standing.holds(stands, kind, if_absent=young) is not False
        for _ in range(_ROUNDS):
            if held:
                return False
            now = self._clock()
            if stands and stands.entry_id == own.entry_id and abs(now - stands.claimed_at) < _SAFE_SECONDS:
                return True
            wanted = Claim(table_key, own.entry_id, round(now, 3), self._new_token())
            if self._table.claim(wanted, stands):
                return True
            item = self._read(table_key)
            stands = None if item is None else Claim.of(item)
            held = stands is not None and self._holds(stands, own, standing.subject.identities[kind], kind)
        raise TransientFailure("dynamodb", "a claim stays contested by other writers")

    def _holds(self, claim: Claim, own: EntryKey, value: str, kind: Identity) -> bool:
        """As `Standing.holds`, read anew; the entry of a young claim may be on its way."""
        if claim.entry_id in ("", own.entry_id):
            return False
        other = EntryKey(own.campaign_id, claim.entry_id)
        item = self._read((other.pk, other.sk))
        return is_young(claim, self._clock()) if item is None else identities_of(item).get(kind) == value

    def _read(self, key: TableKey) -> Item | None:
        return self._table.read([key]).get(key)

    def _item(self, own: EntryKey, check: Check) -> dict[str, Any]:
        now = iso(self._clock())
        return {
            **check.fields,
            "PK": own.pk,
            "SK": own.sk,
            "entityType": "ENTRY",
            "campaignId": own.campaign_id,
            "entryId": own.entry_id,
            "ref": self._new_ref(),
            "version": 1,
            "createdAt": now,
            "updatedAt": now,
            "correlationId": check.correlation_id,
            "needsReplication": True,
        }


def _standing(own: EntryKey, item: Item, check: Check) -> Transferred | IdTaken:
    """An entry under the subject's own id; it must be the same person's when the caller named the id."""
    have = identities_of(item)
    same = any(have.get(kind) == value for kind, value in check.subject.identities.items())
    if check.is_id_given and not same:
        return IdTaken()
    return Transferred(own, lenient_order(item), False)
