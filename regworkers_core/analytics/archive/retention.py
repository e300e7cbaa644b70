"""Days of the archive that are older than they have to be kept: off by default, for the archive is the record.

The manifest lets go of the files in one write; a later run of the archive deletes them, once nobody reads them any
more.
Digests of ids stay: an event that Kafka shows again must not come back as a new one.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass

from regworkers_core.analytics.archive.archiver import LEASE
from regworkers_core.analytics.archive.manifest import DataFile, Ledger, Manifest, Replaced, read_manifest
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.leases import held_lease
from regworkers_core.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Expired:
    """Files and rows of days before `first_day`; `left_files` and `left_bytes` are those that stay."""

    first_day: str
    files: int
    rows: int
    bytes: int
    left_files: int
    left_bytes: int


def expire(
    runtime: Runtime, *, first_day: str, dry_run: bool, patience_seconds: float | None = None
) -> Expired:
    """Let go of every day before `first_day` (`2026-11-25`). Repeating it does nothing more.

    Raises LeaseBusy when the archive was at work all the time that it was waited for (default: so long that a dead run
    is out), Superseded when it moved on meanwhile, TransientFailure.
    """
    manifest, _ = read_manifest(runtime.objects)
    gone, found = _split(manifest, first_day)
    if dry_run or not gone:
        return found
    with held_lease(
        runtime.leases,
        LEASE,
        f"expire-{uuid.uuid4().hex[:12]}",
        lease_seconds=runtime.settings.archive.lease_seconds,
        patience_seconds=patience_seconds,
    ) as lease:
        ledger = Ledger(runtime.objects, lease.token)
        return let_days_go(ledger, first_day, runtime.clock())


def let_days_go(ledger: Ledger, first_day: str, now: float, at: Callable[[float], str] = iso) -> Expired:
    """The same in the hands of one who holds the lease. Raises Superseded."""
    manifest = ledger.manifest
    gone, found = _split(manifest, first_day)
    if gone:
        ledger.commit(
            at(now),
            files=tuple(file for file in manifest.files if file.date >= first_day),
            replaced=(*manifest.replaced, *(Replaced(file.key, now) for file in gone)),
            expired=manifest.expired + found.rows,
        )
    return found


def _split(manifest: Manifest, first_day: str) -> tuple[list[DataFile], Expired]:
    gone = [file for file in manifest.files if file.date < first_day]
    left = [file for file in manifest.files if file.date >= first_day]
    sizes = (sum(file.rows for file in gone), sum(file.bytes for file in gone))
    return gone, Expired(first_day, len(gone), *sizes, len(left), sum(file.bytes for file in left))
