"""All parts, one after the other: one that cannot be tidied keeps no other from being tidied."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.engine.stop import StopSignal
from regworkers_core.operations.retention.results import Housekeeping, Part, Tidied

KEPT = "kept for ever: no setting says otherwise"


def tidy_up(
    parts: Iterable[Part],
    *,
    dry_run: bool,
    stop: StopSignal | None = None,
    tell: Callable[[str], None] = lambda _name: None,
) -> Housekeeping:
    """`tell` hears the name of each part before it begins. A stop signal ends it between two parts."""
    done = []
    for part in parts:
        if stop is not None and stop.is_set:
            done.append(Tidied(part.name, part.older_than_days, trouble="stopped before its turn"))
            continue
        tell(part.name)
        if part.older_than_days is None:
            done.append(Tidied(part.name, None, note=KEPT))
            continue
        try:
            done.append(part.tidy(dry_run))
        except (Failure, UsageError) as error:
            done.append(Tidied(part.name, part.older_than_days, trouble=str(error)))
    return Housekeeping(tuple(done), dry_run)
