"""Old reviews on S3."""

from __future__ import annotations

from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.retention.results import Part, Size, Tidied
from regworkers_core.operations.reviews.sections import ROOT, date_of
from regworkers_core.runtime import Runtime

_NAME = "reviews"
_DAY_SECONDS = 24 * 3600.0


def part(runtime: Runtime) -> Part:
    days = runtime.settings.housekeeping.reviews_days
    return Part(_NAME, days, lambda dry_run: tidy(runtime, days or 0, dry_run=dry_run))


def tidy(runtime: Runtime, days: int, *, dry_run: bool) -> Tidied:
    """By the date in the key; what is no review's stays. Raises TransientFailure and UsageError."""
    objects = runtime.objects
    sizes = objects.sizes(ROOT)
    first = iso(runtime.clock() - days * _DAY_SECONDS)[:10]
    over = [key for key in sizes if (date := date_of(key)) is not None and date < first]
    before = Size(len(sizes), sum(sizes.values()))
    if dry_run:
        return Tidied(_NAME, days, len(over), 0, before, before)
    for key in over:
        objects.delete(key)
    after = Size(before.number - len(over), sum(sizes.values()) - sum(sizes[key] for key in over))
    # The bucket keeps every version of an object.
    return Tidied(_NAME, days, len(over), len(over), before, after)
