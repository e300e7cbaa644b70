"""Leases with fencing tokens: who may work on a shard, or on anything else that has a name.

A row carries a counter that its owner keeps moving and a token that grows with every change of hands.
Nobody compares wall clocks: an observer takes a lease over once the counter stood still for one lease time
on its own monotonic clock. Every later write of the old owner then fails, because it carries an old token.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import NamedTuple, Protocol, Self


class LeaseKey(NamedTuple):
    """Key of a row in `worker-leases`."""

    pk: str
    sk: str


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """One row. `owner` is empty when free; `scope` names what `state` belongs to (a stream's ARN, say).

    `position` is a sortable form of how far `state` has come; a write with a smaller one is refused.
    """

    key: LeaseKey
    owner: str = ""
    token: int = 0
    counter: int = 0
    scope: str = ""
    position: str = ""
    state: Mapping[str, str] = field(default_factory=dict)


class LeaseTable(Protocol):
    """Where leases live. Reads are consistent; every method raises TransientFailure."""

    def get(self, key: LeaseKey) -> LeaseRow | None: ...

    def rows(self, pk: str) -> list[LeaseRow]: ...

    def swap(self, row: LeaseRow, seen: LeaseRow | None) -> bool:
        """Put `row` if the table still holds token and counter of `seen` (None: no row); False if not."""
        ...

    def renew(
        self,
        key: LeaseKey,
        owner: str,
        token: int,
        state: Mapping[str, str] | None = None,
        position: str = "",
    ) -> bool:
        """Add 1 to the counter and store `state` and `position` if given; False unless `owner` holds it with
        `token` and `position` is not behind the stored one.
        """
        ...

    def release(self, key: LeaseKey, owner: str, token: int) -> bool:
        """Make it free, keeping token, state and position; False unless `owner` holds it with `token`."""
        ...

    def remove(self, seen: LeaseRow) -> bool:
        """Delete the row if token and counter are still those of `seen`."""
        ...


class Lease:
    """A lease that was acquired. As a context manager it is released at the end."""

    def __init__(self, table: LeaseTable, row: LeaseRow, held_for: float, clock: Callable[[], float]) -> None:
        self._table, self._lease_seconds, self._clock = table, held_for, clock
        self.key, self.owner, self.token, self.scope = row.key, row.owner, row.token, row.scope
        self.state: Mapping[str, str] = row.state
        self.position = row.position
        self._refused = False
        self._renewed_at = clock()

    @property
    def lost(self) -> bool:
        """Whether somebody else may hold it: a write was refused, or one lease time passed without renewal
        (in that case `renew` tells).
        """
        return self._refused or self._clock() - self._renewed_at >= self._lease_seconds

    def renew(self) -> bool:
        """Move the counter; False when the lease is lost for good."""
        return self._write(None, "")

    def save(self, state: Mapping[str, str], position: str = "") -> bool:
        """Store `state` (which renews, too); False when the lease is lost or `position` would go backwards."""
        if self._write(state, position):
            self.state, self.position = state, position or self.position
            return True
        return False

    def release(self) -> None:
        """Free for the next one at once; the state stays. Does nothing when it is lost."""
        if not self._refused:
            self._refused = True
            self._table.release(self.key, self.owner, self.token)

    def _write(self, state: Mapping[str, str] | None, position: str) -> bool:
        # Counted from before the call: the observer's clock may have started at the moment of the write.
        now = self._clock()
        if self._refused or not self._table.renew(self.key, self.owner, self.token, state, position):
            self._refused = True
            return False
        self._renewed_at = max(now, self._renewed_at)
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class LeaseHolder:
    """Acquires leases for one owner. `owner` must be unique to this process and start, never reused."""

    def __init__(
        self,
        table: LeaseTable,
        owner: str,
        *,
        lease_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.table, self.owner = table, owner
        self._lease_seconds, self._clock = lease_seconds, clock
        self._standing: dict[LeaseKey, tuple[tuple[str, int, int], float]] = {}

    def acquire(self, name: str) -> Lease | None:
        """The lease of this name (its `token` fences), or None while another holds it: ask again later, this
        holder remembers since when the counter stands still.
        """
        key = self.key_of(name)
        return self.take(key, self.table.get(key))

    @staticmethod
    def key_of(name: str) -> LeaseKey:
        """Where the lease of this name lies in the table."""
        return LeaseKey(f"LEASE#{name}", "LEASE")

    def take(self, key: LeaseKey, seen: LeaseRow | None, scope: str = "") -> Lease | None:
        """The lease whose row was just read as `seen`, if it is free or expired; the state of another scope is
        not taken over.
        """
        if seen is not None and self.is_live(seen):
            return None
        old = LeaseRow(key) if seen is None else seen
        if old.scope != scope:
            old = replace(old, scope=scope, state={}, position="")
        row = replace(old, owner=self.owner, token=old.token + 1, counter=old.counter + 1)
        lease = Lease(self.table, row, self._lease_seconds, self._clock)
        if self.table.swap(row, seen):
            return lease
        # A write whose answer got lost is refused when it is repeated, and yet it was ours.
        now = self.table.get(key)
        return lease if now is not None and (now.owner, now.token) == (row.owner, row.token) else None

    def is_live(self, row: LeaseRow) -> bool:
        """Whether the row is owned and its counter did not stand still for one lease time before our eyes."""
        if not row.owner:
            return False
        now, mark = self._clock(), (row.owner, row.token, row.counter)
        known, since = self._standing.get(row.key, (None, now))
        if known != mark:
            self._standing[row.key] = (mark, now)
            return True
        return now - since < self._lease_seconds
