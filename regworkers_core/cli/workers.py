"""`regworkers invoke <workerName> '<json>'`: the workers of old, called as an operator always called them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from regworkers_core.analytics.publishing import invoke_publish, publisher
from regworkers_core.cli.changes import audited
from regworkers_core.domain.keys import is_selection_id
from regworkers_core.domain.reasons import UsageError
from regworkers_core.eligibility.handler import respond
from regworkers_core.replication.drains import saver
from regworkers_core.replication.enqueue.enqueue_work import invoke_enqueue
from regworkers_core.replication.saver import invoke_save
from regworkers_core.runtime import Runtime

Worker = Callable[[Runtime, Any], Any]


def _enqueue_entries(runtime: Runtime, event: Any) -> Any:
    return invoke_enqueue(event, runtime.queue(runtime.names.replication_queue))


def _save_entries(runtime: Runtime, event: Any) -> Any:
    return invoke_save(event, saver(runtime, f"invoke-{uuid.uuid4().hex}"))


def _send_data(runtime: Runtime, event: Any) -> Any:
    return invoke_publish(event, publisher(runtime))


def _enqueue_market_selections(runtime: Runtime, event: Any) -> Any:
    """Take up one market of a draw again. The answer says what was done; `BLOCKED` is a finding."""
    fields = event if isinstance(event, dict) else {}
    for name in ("campaignId", "marketId"):
        if not isinstance(fields.get(name), str) or not is_selection_id(fields[name]):
            raise UsageError(
                f'the event is {{"campaignId": "...", "marketId": "..."}}: {name} is missing or not an id'
            )
    # Late, for it brings pyarrow and DuckDB.
    from regworkers_core.selection.assign.release import retry_market

    # The one worker of old that an operator calls to decide something; the others do what they do with every event.
    target, run_id = f"{fields['campaignId']}:{fields['marketId']}", f"invoke-{uuid.uuid4().hex}"
    with audited(runtime, "invoke enqueueMarketSelections", target, {"runId": run_id}) as result:
        done = retry_market(runtime, fields["campaignId"], fields["marketId"], run_id=run_id)
        result["status"] = done.get("status")
    return done


def _check_eligibility(runtime: Runtime, event: Any) -> Any:
    """Judged is fine, whatever the verdicts."""
    return respond(runtime, event)


WORKERS: Mapping[str, Worker] = {
    "enqueueEntries": _enqueue_entries,
    "saveEntries": _save_entries,
    "enqueueMarketSelections": _enqueue_market_selections,
    "sendData": _send_data,
    "checkEligibility": _check_eligibility,
}


def invoke(worker: str, payload: str) -> Any:
    """The worker's answer to the event in `payload`. Raises UsageError for an unknown worker or bad JSON."""
    if worker not in WORKERS:
        raise UsageError(f"no worker is called {worker}: there are {', '.join(WORKERS)}")
    try:
        event = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise UsageError(f"the event is not JSON (character {error.pos}): quote it with '...'") from None
    return WORKERS[worker](Runtime.load(), event)
