"""What several runbooks read; what cannot be read says why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.domain.snapshot import Reading, Unread
from regworkers_core.operations.runbooks.worked import Worked, minute_before, worked
from regworkers_core.runtime import Runtime

T = TypeVar("T")
Tell = Callable[[str], None]


def silent(_line: str) -> None:
    """Nobody listens."""


def reading(read: Callable[[], T]) -> Reading[T]:
    """What it gives, or why it did not."""
    try:
        return read()
    except (Failure, UsageError) as error:
        return Unread(str(error))


def worked_lately(runtime: Runtime, minutes: float) -> Mapping[str, Worked]:
    """What each drain did. Raises TransientFailure."""
    now = runtime.clock()
    return worked(runtime.drain_log.since(minute_before(now, minutes)), now=now)
