"""Many readings at once, none of which holds up the others for longer than agreed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextvars import copy_context
from typing import Any

import structlog

from regworkers_core.domain.reasons import Failure, TransientFailure, UsageError
from regworkers_core.domain.snapshot import Unread
from regworkers_core.observability.logs import describe

log = structlog.get_logger(__name__)
# One dependency that has a second guard, or another name where it is called.
_GUARDED = {"drain-log": "mongo", "dynamodb-streams": "streams"}


def at_once(
    readers: Mapping[str, Callable[[], Any]],
    within_seconds: float,
    asks: Callable[[str], str] = lambda name: "",
) -> dict[str, Any]:
    """What each reader returned, by its name; Unread for one that raised or did not answer in time. Never raises.
    `asks` names the dependency of a reader that does not say itself which one failed it.

    Whoever is late goes on in a daemon thread of its own and is not listened to any more.
    """
    found: dict[str, Any] = {}

    def read(name: str, reader: Callable[[], Any]) -> None:
        try:
            found[name] = reader()
        except TransientFailure as failure:
            found[name] = Unread(str(failure), _GUARDED.get(failure.dependency, failure.dependency))
        except (Failure, UsageError) as error:
            found[name] = Unread(str(error), asks(name))
        except Exception as error:
            # A defect in one reading must not blind all the others.
            log.error("reading failed", reading=name, error=describe(error))
            found[name] = Unread(f"defect in reading it: {type(error).__name__}")

    give_up = time.monotonic() + within_seconds
    threads = [
        threading.Thread(
            target=copy_context().run, args=(read, name, reader), name=f"read {name}", daemon=True
        )
        for name, reader in readers.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, give_up - time.monotonic()))
    late = f"no answer within {within_seconds:.1f} s"
    return {name: found[name] if name in found else Unread(late, asks(name)) for name in readers}
