"""doTransfer: writes one entry per person, in single steps that a repeated call finds done.

1. Claim every identity of the entry (mail, globalUserId, memberId) by a conditional put. At most one entry of a
   campaign holds each identity, so of two racing writers one gets ALREADY_ENTERED.
2. Put the entry if it does not exist. From here the entry exists, and the stream carries it to the replica.
3. Queue the event `eligibility.judged`. It comes last because an event must not announce an entry that may never
   exist. If it cannot be queued, the entry exists all the same; a repeated call, which finds the entry at its first
   version, queues the event again under the same id.

A crash between 1 and 2 leaves claims without an entry. The repeat derives the same entry id, finds its own claims, and
continues. Another entry of the same person takes them over once they are older than `CLAIM_LEASE_SECONDS` and their
entry does not exist, by a condition on exactly what was read.

An entry's `createdAt` is the moment of its judgement, to the millisecond, and the entry is written within
`WRITE_GRACE_SECONDS` of it or never. The judgement of the closed campaign waits that long, and so misses no fan who got
ELIGIBLE. A slower writer gets TooOld and judges again; its claims stay younger than their lease. Claims are never
removed here, since another call for the same entry may rely on them (erasure removes them once they are older than
their lease). A claim without its entry does not count, so a removed entry blocks no fan, under any id.
"""

from __future__ import annotations

import math
import secrets as randomness
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from fairdraw import scheduling
from regworkers_core.domain.claim import (
    CLAIM_LEASE_SECONDS,
    CLOCKS_SECONDS,
    WRITE_GRACE_SECONDS,
    Claim,
    TableKey,
)
from regworkers_core.domain.entry import Order, Voucher, lenient_order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.eligibility.case import AsOf, Identity
from regworkers_core.eligibility.earlier_entries import EarlierEntries, Item, identities_of, is_young
from regworkers_core.eligibility.gather import TableReads
from regworkers_core.eligibility.request import Check
from regworkers_core.engine.stop import OnStep, no_step

# Other writers may claim and release meanwhile.
_ROUNDS = 4
_REF_BYTES = 16
# Up to this age our own claim is not renewed: the entry follows within WRITE_GRACE_SECONDS, so the claim is still
# younger than its lease then.
_SAFE_SECONDS = (CLAIM_LEASE_SECONDS - WRITE_GRACE_SECONDS) * 2 / 3


class TableWrites(TableReads, Protocol):
    def claim(self, claim: Claim, over: Claim | None, *, within_seconds: float | None = None) -> bool: ...
    def put_entry(self, item: dict[str, Any], *, within_seconds: float | None = None) -> bool: ...


@dataclass(frozen=True, slots=True)
class Transferred:
    """The entry exists; `created` says whether this call wrote it."""

    key: EntryKey
    order: Order
    created: bool

    def as_answer(self, *, names_it: bool) -> dict[str, Any]:
        """A fan who types an address that may be another person's gets neither id nor version of its entry."""
        return {
            "entryId": self.key.entry_id if names_it else None,
            "state": "created" if self.created else "existing",
            "version": self.order.version if names_it else None,
        }


@dataclass(frozen=True, slots=True)
class TakenBy:
    """Another entry of the same person holds this identity."""

    identity: Identity


class IdTaken:
    """The entry id that the caller named belongs to another person's entry."""


class TooOld:
    """The judgement is too old: nothing was put, and the entry has to be judged again."""


REFUSED = {"entryId": None, "state": "refused", "version": None}


class Transfer:
    """Writes the entries of transfers. Safe to share between threads. `attempt_seconds` is the longest that one attempt
    at the table can take.
    """

    def __init__(
        self,
        table: TableWrites,
        *,
        attempt_seconds: float = 5.0,
        clock: Callable[[], float] = scheduling.now,
        monotonic: Callable[[], float] = scheduling.monotonic,
    ) -> None:
        self._table, self._clock, self._monotonic = table, clock, monotonic
        self._put_begins_seconds = WRITE_GRACE_SECONDS - CLOCKS_SECONDS - attempt_seconds

    def existing(self, earlier: EarlierEntries, check: Check) -> Transferred | IdTaken | None:
        """Return the entry that exists under the subject's own id, as it was read, or None."""
        own, item = earlier.own, earlier.entry()
        return None if own is None or item is None else _existing(own, item, check)

    def write(
        self,
        own: EntryKey,
        earlier: EarlierEntries,
        check: Check,
        as_of: AsOf,
        *,
        end: float = math.inf,
        on_step: OnStep = no_step,
    ) -> Transferred | TakenBy | IdTaken | TooOld:
        """Write the entry `own` of a subject that was eligible at `as_of`. No attempt begins after `end` (monotonic
        seconds).

        Raises TransientFailure if DynamoDB does not answer in time: then the entry may exist or not, and a repeated
        call finds out.
        """
        began = self._monotonic()
        for kind, table_key in earlier.claim_keys.items():
            if not self._claim(own, earlier, kind, table_key, end):
                return TakenBy(kind)
        on_step("transfer.after_claims")
        # Both clocks count: one may be set, the other may stop while the machine is suspended.
        age = max(self._monotonic() - began, self._clock() - as_of.seconds)
        if age > self._put_begins_seconds:
            return TooOld()
        item = self._item(own, check, as_of)
        if self._table.put_entry(item, within_seconds=min(self._left(end), self._put_begins_seconds - age)):
            on_step("transfer.after_entry")
            return Transferred(own, lenient_order(item), True)
        found = self._read((own.pk, own.sk), end)
        if found is None:
            raise TransientFailure("dynamodb", "another writer put and removed the entry meanwhile")
        return _existing(own, found, check)

    def _left(self, end: float) -> float:
        """Return the seconds until `end`. Raises TransientFailure if there are none."""
        left = end - self._monotonic()
        if left <= 0:
            raise TransientFailure("dynamodb", "the time of this call is over")
        return left

    def _claim(
        self, own: EntryKey, earlier: EarlierEntries, kind: Identity, table_key: TableKey, end: float
    ) -> bool:
        """Claim an identity. Returns False if another entry of the same person holds it."""
        read = earlier.claim(kind)
        claim = read if isinstance(read, Claim) else None
        young = claim is not None and is_young(claim, self._clock())
        held = claim is not None and earlier.holds(claim, kind, if_absent=young) is not False
        for _ in range(_ROUNDS):
            if held:
                return False
            now = self._clock()
            if claim and claim.entry_id == own.entry_id and abs(now - claim.claimed_at) < _SAFE_SECONDS:
                return True
            wanted = Claim(table_key, own.entry_id, round(now, 3), uuid.uuid4().hex)
            if self._table.claim(wanted, claim, within_seconds=self._left(end)):
                return True
            item = self._read(table_key, end)
            claim = None if item is None else Claim.of(item)
            held = claim is not None and self._holds(claim, own, earlier.subject.identities[kind], kind, end)
        raise TransientFailure("dynamodb", f"other writers keep changing the claim of this {kind.value}")

    def _holds(self, claim: Claim, own: EntryKey, value: str, kind: Identity, end: float) -> bool:
        """Do as `EarlierEntries.holds`, with a new read; the entry of a young claim may still be written."""
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
            "ref": randomness.token_urlsafe(_REF_BYTES),
            "vouchedBy": _voucher(check),
            "version": 1,
            "createdAt": as_of.text,
            "updatedAt": as_of.text,
            "correlationId": check.correlation_id,
            "needsReplication": True,
        }


def _voucher(check: Check) -> str:
    if not check.is_a_fans:
        return Voucher.CALLER.value
    return (Voucher.PROVIDER if check.is_vouched_for else Voucher.UNVERIFIED).value


def _existing(own: EntryKey, item: Item, check: Check) -> Transferred | IdTaken:
    """Judge an entry under the subject's own id: if the caller named the id, it must be the same person's."""
    have = identities_of(item)
    same = any(have.get(kind) == value for kind, value in check.subject.identities.items())
    if check.is_id_given and not same:
        return IdTaken()
    return Transferred(own, lenient_order(item), False)
