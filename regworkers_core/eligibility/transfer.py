"""doTransfer: an entry is written once for each person, in single steps each of which a repeat finds done.

1. Claim every identity that the entry has (mail, globalUserId, memberId), by a conditional put: at most one entry
   of a campaign holds each of them, so of two racing writers one is told ALREADY_ENTERED.
2. Write the entry where there is none. From here it stands, and flows on to the replica by itself.
3. Queue the event `eligibility.judged`. It comes last, because an event must not tell of an entry that may never be;
   when it cannot be queued, the entry stands all the same, and a repeat of the call, which finds the entry at its first
   version, queues the event again under the same id.

A crash between 1 and 2 leaves claims without an entry. The repeat derives the same entry id, finds the claims its own,
and goes on. Another entry of the same person takes them over once they are older than `CLAIM_LEASE_SECONDS` and their
entry is not there, by a condition on exactly what was read.

An entry's `createdAt` is the moment at which it was judged, to the millisecond, and it lands within
`WRITE_GRACE_SECONDS` of it or never: whoever judges the closed campaign waits so long and then misses nobody who was
told ELIGIBLE. A writer that is slower than that is told so, and judges anew; its claims are younger than their lease
all the time. Claims are never taken back, since another call for the same entry may rely on them (an erasure does it,
once they are older than their lease). So a removed entry blocks nobody, and the person may enter again under any id.
"""

from __future__ import annotations

import math
import secrets as randomness
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from regworkers_core.domain.claim import (
    CLAIM_LEASE_SECONDS,
    CLOCKS_SECONDS,
    WRITE_GRACE_SECONDS,
    Claim,
    TableKey,
)
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.order import Order, lenient_order
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.eligibility.case import AsOf
from regworkers_core.eligibility.gather import TableReads
from regworkers_core.eligibility.request import Check
from regworkers_core.eligibility.standing import Item, Standing, identities_of, is_young
from regworkers_core.eligibility.subject import Identity
from regworkers_core.engine.stop import OnStep, no_step

# Others may claim and let go while we look; then somebody else is at it.
_ROUNDS = 4
_REF_BYTES = 16
# The age up to which a claim of ours is left as it is: the entry follows within WRITE_GRACE_SECONDS, which leaves it
# younger than its lease.
_SAFE_SECONDS = (CLAIM_LEASE_SECONDS - WRITE_GRACE_SECONDS) * 2 / 3


class TableWrites(TableReads, Protocol):
    def claim(self, claim: Claim, over: Claim | None, *, within_seconds: float | None = None) -> bool: ...
    def put_entry(self, item: dict[str, Any], *, within_seconds: float | None = None) -> bool: ...


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


class TooOld:
    """The judgement: nothing was put, and the entry has to be judged anew."""


REFUSED = {"entryId": None, "state": "refused", "version": None}


class Transfer:
    """Safe to share between threads. `attempt_seconds` is what one attempt at the table can take."""

    def __init__(
        self,
        table: TableWrites,
        *,
        attempt_seconds: float = 5.0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        new_ref: Callable[[], str] = lambda: randomness.token_urlsafe(_REF_BYTES),
        new_token: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._table, self._clock, self._monotonic = table, clock, monotonic
        self._new_ref, self._new_token = new_ref, new_token
        self._put_begins_seconds = WRITE_GRACE_SECONDS - CLOCKS_SECONDS - attempt_seconds

    def existing(self, standing: Standing, check: Check) -> Transferred | IdTaken | None:
        """The entry that stands under the subject's own id, as it was read; None when there is none."""
        own, item = standing.own, standing.entry()
        return None if own is None or item is None else _standing(own, item, check)

    def write(
        self,
        own: EntryKey,
        standing: Standing,
        check: Check,
        as_of: AsOf,
        *,
        end: float = math.inf,
        on_step: OnStep = no_step,
    ) -> Transferred | TakenBy | IdTaken | TooOld:
        """Write the entry `own` of a subject that was found eligible at `as_of`. No attempt begins after `end`
        (monotonic seconds).

        Raises TransientFailure when DynamoDB does not answer, or answers too slowly: then the entry may stand or not,
        and a repeat finds out.
        """
        began = self._monotonic()
        for kind, table_key in standing.claim_keys.items():
            if not self._claim(own, standing, kind, table_key, end):
                return TakenBy(kind)
        on_step("transfer.after_claims")
        # By both clocks: one may be set, the other may stand still while the machine does.
        age = max(self._monotonic() - began, self._clock() - as_of.seconds)
        if age > self._put_begins_seconds:
            return TooOld()
        item = self._item(own, check, as_of)
        if self._table.put_entry(item, within_seconds=min(self._left(end), self._put_begins_seconds - age)):
            on_step("transfer.after_entry")
            return Transferred(own, lenient_order(item), True)
        stands = self._read((own.pk, own.sk), end)
        if stands is None:
            raise TransientFailure("dynamodb", "the entry came and went while it was written")
        return _standing(own, stands, check)

    def _left(self, end: float) -> float:
        """Seconds. Raises TransientFailure when there are none."""
        left = end - self._monotonic()
        if left <= 0:
            raise TransientFailure("dynamodb", "no time is left in this call")
        return left

    def _claim(
        self, own: EntryKey, standing: Standing, kind: Identity, table_key: TableKey, end: float
    ) -> bool:
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
            if self._table.claim(wanted, stands, within_seconds=self._left(end)):
                return True
            item = self._read(table_key, end)
            stands = None if item is None else Claim.of(item)
            held = stands is not None and self._holds(
                stands, own, standing.subject.identities[kind], kind, end
            )
        raise TransientFailure("dynamodb", "a claim stays contested by other writers")

    def _holds(self, claim: Claim, own: EntryKey, value: str, kind: Identity, end: float) -> bool:
        """As `Standing.holds`, read anew; the entry of a young claim may be on its way."""
        if claim.entry_id in ("", own.entry_id):
            return False
        other = EntryKey(own.campaign_id, claim.entry_id)
        item = self._read((other.pk, other.sk), end)
        return is_young(claim, self._clock()) if item is None else identities_of(item).get(kind) == value

    def _read(self, key: TableKey, end: float) -> Item | None:
        return self._table.read([key], within_seconds=self._left(end)).get(key)

    def _item(self, own: EntryKey, check: Check, as_of: AsOf) -> dict[str, Any]:
        return {
            **check.fields,
            "PK": own.pk,
            "SK": own.sk,
            "entityType": "ENTRY",
            "campaignId": own.campaign_id,
            "entryId": own.entry_id,
            "ref": self._new_ref(),
            "version": 1,
            "createdAt": as_of.text,
            "updatedAt": as_of.text,
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
