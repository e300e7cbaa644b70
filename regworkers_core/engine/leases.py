"""Leases with fencing tokens: who may work on a shard, a draw, or anything else that has a name.

A row carries a counter that its owner keeps moving, and a token that grows with every change of owner. No two clocks
are compared: an observer takes a lease over once the counter has not moved for one lease time on its own monotonic
clock. Every later write of the old owner then fails, because it carries an old token.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, Protocol, Self

import structlog

from fairdraw import scheduling
from regworkers_core.domain.reasons import Failure
from regworkers_core.observability.logs import describe

log = structlog.get_logger(__name__)
# Lease times to wait for a held lease: its counter must not move for one of them, and a little more.
PATIENCE_LEASES = 1.3
# The part of a lease time between two attempts to get it.
POLL_SHARE = 1 / 20


class LeaseKey(NamedTuple):
    pk: str
    sk: str


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """One row. A write with a smaller `position` is refused."""

    key: LeaseKey
    owner: str = ""  # empty: the row is free
    token: int = 0  # grows with every owner
    counter: int = 0  # grows with every renewal
    scope: str = ""  # what `state` belongs to, such as a stream's ARN
    position: str = ""  # a sortable form of how far `state` has come
    state: Mapping[str, str] = field(default_factory=dict)  # what the owner keeps, such as a checkpoint


class LeaseTable(Protocol):
    """Where leases are stored. Reads are consistent. Every method blocks for one call and raises TransientFailure."""

    def get(self, key: LeaseKey) -> LeaseRow | None: ...

    def rows(self, pk: str) -> list[LeaseRow]: ...

    def swap(self, row: LeaseRow, seen: LeaseRow | None) -> bool:
        """Put `row` if the table still has token and counter of `seen` (None: no row); False if not."""
        ...

    def renew(
        self,
        key: LeaseKey,
        owner: str,
        token: int,
        state: Mapping[str, str] | None = None,
        position: str = "",
    ) -> bool:
        """Add 1 to the counter and store `state` and `position` if given. False unless `owner` holds it with `token`
        and `position` is not behind the stored one.
        """
        ...

    def release(self, key: LeaseKey, owner: str, token: int) -> bool:
        """Free it, keeping token, state and position. False unless `owner` holds it with `token`."""
        ...

    def remove(self, seen: LeaseRow) -> bool:
        """Delete the row if token and counter are still those of `seen`."""
        ...


class LeasesBelow:
    """The rows of another table whose partition keys begin with `prefix`, which no caller sees: what works on these
    never touches the others.
    """

    def __init__(self, table: LeaseTable, prefix: str) -> None:
        self._table, self._prefix = table, prefix

    def get(self, key: LeaseKey) -> LeaseRow | None:
        row = self._table.get(self._inner(key))
        return None if row is None else replace(row, key=key)

    def rows(self, pk: str) -> list[LeaseRow]:
        found = self._table.rows(self._prefix + pk)
        return [replace(row, key=row.key._replace(pk=pk)) for row in found]

    def swap(self, row: LeaseRow, seen: LeaseRow | None) -> bool:
        return self._table.swap(replace(row, key=self._inner(row.key)), seen)

    def renew(
        self,
        key: LeaseKey,
        owner: str,
        token: int,
        state: Mapping[str, str] | None = None,
        position: str = "",
    ) -> bool:
        return self._table.renew(self._inner(key), owner, token, state, position)

    def release(self, key: LeaseKey, owner: str, token: int) -> bool:
        return self._table.release(self._inner(key), owner, token)

    def remove(self, seen: LeaseRow) -> bool:
        return self._table.remove(replace(seen, key=self._inner(seen.key)))

    def _inner(self, key: LeaseKey) -> LeaseKey:
        return LeaseKey(self._prefix + key.pk, key.sk)


class Lease:
    """A lease that was acquired. As a context manager it is released at the end. Every method that writes raises
    TransientFailure.
    """

    def __init__(self, table: LeaseTable, row: LeaseRow, held_for: float, clock: Callable[[], float]) -> None:
        self._table, self._lease_seconds, self._clock = table, held_for, clock
        self.key, self.owner, self.token, self.scope = row.key, row.owner, row.token, row.scope
        self.state: Mapping[str, str] = row.state
        self.position = row.position
        self._refused = False
        self._renewed_at = clock()

    @property
    def lost(self) -> bool:
        """Whether another may hold it: a write was refused, or one lease time passed without renewal (in that case
        `renew` finds out).
        """
        return self._refused or self._clock() - self._renewed_at >= self._lease_seconds

    def renew(self) -> bool:
        """Move the counter; False when the lease is lost for good."""
        return self._write(None, "")

    def save(self, state: Mapping[str, str], position: str = "") -> bool:
        """Store `state`, which also renews. False when the lease is lost or `position` would go backwards."""
        if self._write(state, position):
            self.state, self.position = state, position or self.position
            return True
        return False

    def release(self) -> None:
        """Free it for the next owner at once; the state stays. Does nothing when it is lost."""
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

    def __exit__(self, *_: object) -> None:
        self.release()


class LeaseHolder:
    """Acquires leases for one owner. `owner` must be unique to this process and start, never reused."""

    def __init__(
        self,
        table: LeaseTable,
        owner: str,
        *,
        lease_seconds: float,
        clock: Callable[[], float] = scheduling.monotonic,
    ) -> None:
        self.table, self.owner = table, owner
        self._lease_seconds, self._clock = lease_seconds, clock
        # Owner, token and counter of each row as last seen, and since when.
        self._observed: dict[LeaseKey, tuple[tuple[str, int, int], float]] = {}

    def acquire(self, name: str) -> Lease | None:
        """The lease of this name (its `token` fences), or None while another holds it. Call again later: this holder
        remembers since when the counter has not moved. Raises TransientFailure.
        """
        key = self.key_of(name)
        return self.take(key, self.table.get(key))

    @staticmethod
    def key_of(name: str) -> LeaseKey:
        return LeaseKey(f"LEASE#{name}", "LEASE")

    def take(self, key: LeaseKey, seen: LeaseRow | None, scope: str = "") -> Lease | None:
        """The lease whose row was just read as `seen`, if it is free or expired. The state of another scope is dropped.
        Raises TransientFailure.
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
        # If the answer to a write was lost, its repeat is refused although the write was ours.
        now = self.table.get(key)
        return lease if now is not None and (now.owner, now.token) == (row.owner, row.token) else None

    def is_live(self, row: LeaseRow) -> bool:
        """Whether the row has an owner whose counter moved within one lease time, as far as this holder has seen."""
        if not row.owner:
            return False
        now, mark = self._clock(), (row.owner, row.token, row.counter)
        known, since = self._observed.get(row.key, (None, now))
        if known != mark:
            self._observed[row.key] = (mark, now)
            return True
        return now - since < self._lease_seconds


class LeaseBusy(Failure):
    """Another run holds the lease of this name and kept it for as long as we waited."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is being worked on by another run")
        self.name = name


@contextmanager
def held_lease(
    table: LeaseTable,
    name: str,
    run_id: str,
    *,
    lease_seconds: float,
    patience_seconds: float | None = None,
) -> Iterator[Lease]:
    """Hold `name` inside; a thread renews it. Blocks while another holds it; a holder that died costs one lease time.

    Raises LeaseBusy after `patience_seconds` (default: enough for a dead holder to expire), TransientFailure when the
    table cannot answer.
    """
    patience = lease_seconds * PATIENCE_LEASES if patience_seconds is None else patience_seconds
    # Unique to this start: two attempts of one run must not take each other for the holder.
    holder = LeaseHolder(table, f"{run_id}-{uuid.uuid4().hex[:8]}", lease_seconds=lease_seconds)
    # From the end of the first check, since when the row is observed, to the start of the last: each may take long.
    give_up: float | None = None
    checked_at = scheduling.monotonic()
    while (lease := holder.acquire(name)) is None:
        if give_up is None:
            give_up = scheduling.monotonic() + patience
        elif checked_at >= give_up:
            raise LeaseBusy(name)
        scheduling.sleep(lease_seconds * POLL_SHARE)
        checked_at = scheduling.monotonic()
    done = scheduling.event()
    renewing = scheduling.start(partial(_renew, lease, done, lease_seconds / 3), "lease")
    try:
        yield lease
    finally:
        done.set()
        renewing.join()
        try:
            lease.release()
        except Exception as error:
            # It expires by itself, and this must not hide how the work inside ended.
            log.warning("lease not released", lease=name, error=describe(error))


def _renew(lease: Lease, done: scheduling.Event, every_seconds: float) -> None:
    while not done.wait(every_seconds):
        try:
            if not lease.renew():
                return
        except Exception as error:
            # The next renewal may succeed; a lease that is lost shows it in `lost`.
            log.warning("lease not renewed", error=describe(error))
