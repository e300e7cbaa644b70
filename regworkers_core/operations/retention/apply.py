"""Housekeeping over all flows: what the core keeps and when each of it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.stop import StopSignal
from regworkers_core.operations.retention import campaigns, documents, reports
from regworkers_core.operations.retention.parts import tidy_up
from regworkers_core.operations.retention.results import Housekeeping, Part, Size, Tidied
from regworkers_core.runtime import Runtime

_DAY_SECONDS = 24 * 3600.0
# Longer than any drill takes: what is older was left by one that was killed.
_SCRATCH_DAYS = 1.0
# A run of the archive ends within.
_ARCHIVE_PATIENCE_SECONDS = 180.0


def keep_house(
    runtime: Runtime,
    *,
    dry_run: bool,
    stop: StopSignal | None = None,
    tell: Callable[[str], None] = lambda _name: None,
) -> Housekeeping:
    """Delete what is older than the settings say, or only count it. Whoever does not answer is in the result."""
    return tidy_up(all_parts(runtime), dry_run=dry_run, stop=stop, tell=tell)


def all_parts(runtime: Runtime) -> Iterator[Part]:
    yield from campaigns.parts(runtime)
    yield from documents.parts(runtime)
    yield reports.part(runtime)
    days = runtime.settings.housekeeping.archive_days
    yield Part("archive", days, lambda dry_run: _archive(runtime, days or 0, dry_run))
    yield Part("drill_databases", _SCRATCH_DAYS, lambda dry_run: _scratch(runtime, dry_run))


def _archive(runtime: Runtime, days: int, dry_run: bool) -> Tidied:
    # Late, for it brings DuckDB and pyarrow.
    from regworkers_core.analytics.archive.compaction import expire

    first_day = iso(runtime.clock() - days * _DAY_SECONDS)[:10]
    found = expire(runtime, first_day=first_day, dry_run=dry_run, patience_seconds=_ARCHIVE_PATIENCE_SECONDS)
    before = Size(found.files + found.left_files, found.bytes + found.left_bytes)
    return Tidied(
        "archive",
        days,
        found.files,
        0 if dry_run else found.files,
        before,
        before if dry_run else Size(found.left_files, found.left_bytes),
        note="" if dry_run or not found.files else "the next run of archive_events deletes these files",
    )


def _scratch(runtime: Runtime, dry_run: bool) -> Tidied:
    from regworkers_core.replication.scratch_database import left_behind

    found = list(left_behind(runtime, older_than_seconds=_SCRATCH_DAYS * _DAY_SECONDS))
    if not dry_run:
        for each in found:
            each.drop()
    number = len(found)
    after = Size(number if dry_run else 0)
    return Tidied("drill_databases", _SCRATCH_DAYS, number, 0 if dry_run else number, Size(number), after)
