"""A review from end to end: read, put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from regworkers_core.domain.drill import DrillResult
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.dependencies import DependencyReport, read_dependencies
from regworkers_core.operations.reviews import monthly, quarterly, weekly
from regworkers_core.operations.reviews.history import DAY_SECONDS
from regworkers_core.operations.reviews.sections import Kind, Part, Review, made
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT

LOCK = PROJECT_ROOT / "requirements.lock"
_DAYS = {Kind.WEEKLY: weekly.DAYS, Kind.MONTHLY: monthly.DAYS, Kind.QUARTERLY: quarterly.DAYS}


def make_review(
    runtime: Runtime,
    kind: Kind,
    *,
    drill: Callable[[], DrillResult] | None = None,
    locked: Callable[[], DependencyReport] = lambda: read_dependencies(LOCK),
    tell: Callable[[str], None] = lambda _text: None,
) -> Review:
    """Always a review, whoever does not answer: its section says so. `drill` belongs to the quarterly one, and is the
    only thing that writes. Raises nothing that a source may raise.
    """
    now = runtime.clock()
    parts: Iterable[Part]
    if kind is Kind.WEEKLY:
        parts = weekly.parts(runtime, now)
    elif kind is Kind.MONTHLY:
        parts = monthly.parts(runtime, now)
    else:
        parts = quarterly.parts(locked, drill)
    since = iso(now - _DAYS[kind] * DAY_SECONDS)
    return Review(kind, runtime.settings.environment, since, iso(now), made(parts, tell))
