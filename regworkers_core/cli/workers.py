"""`regworkers invoke <workerName> '<json>'`: the workers of old, called as an operator always called them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from regworkers_core.domain.reasons import UsageError
from regworkers_core.replication.drains import saver
from regworkers_core.replication.enqueue.work import invoke_enqueue
from regworkers_core.replication.save.work import invoke_save
from regworkers_core.runtime import Runtime

Worker = Callable[[Runtime, Any], Any]


def _enqueue_entries(runtime: Runtime, event: Any) -> Any:
    return invoke_enqueue(event, runtime.queue(runtime.names.replication_queue))


def _save_entries(runtime: Runtime, event: Any) -> Any:
    return invoke_save(event, saver(runtime, f"invoke-{uuid.uuid4().hex}"))


WORKERS: Mapping[str, Worker] = {"enqueueEntries": _enqueue_entries, "saveEntries": _save_entries}


def invoke(worker: str, payload: str) -> Any:
    """The worker's answer to the event in `payload`. Raises UsageError for an unknown worker or bad JSON."""
    if worker not in WORKERS:
        raise UsageError(f"no worker is called {worker}: there are {', '.join(WORKERS)}")
    try:
        event = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise UsageError(f"the event is not JSON (character {error.pos}): quote it with '...'") from None
    return WORKERS[worker](Runtime.load(), event)
