"""The two drains of selection and their dependencies."""

from __future__ import annotations

import uuid
from typing import Any

from regworkers_core.adapters.mongo.draws import SENDER
from regworkers_core.domain.selection import Chunk
from regworkers_core.drains.runner import DrainSpec, Pace, queue_parts
from regworkers_core.engine.message_work import MessageWork
from regworkers_core.engine.queue import QueueSource, Received
from regworkers_core.engine.stop import OnStep, StopSignal
from regworkers_core.runtime import Runtime
from regworkers_core.selection.notify.source import OutboxSource, Parcel
from regworkers_core.selection.notify.work import NotifyWork


def _selections(
    runtime: Runtime, run_id: str, stop: StopSignal, on_step: OnStep
) -> tuple[QueueSource, MessageWork[Chunk]]:
    # Imported late: it brings pyarrow and DuckDB, which a caller that only names this drain does not need.
    from regworkers_core.selection.assign.assigner import Assigner

    return queue_parts(
        runtime,
        "selections",
        runtime.names.selection_queue,
        Assigner(runtime, run_id=run_id, on_step=on_step),
        runtime.settings.selection,
        run_id=run_id,
        on_step=on_step,
    )


def _notifications(
    runtime: Runtime, run_id: str, stop: StopSignal, on_step: OnStep
) -> tuple[OutboxSource, NotifyWork]:
    # A retried run keeps its id, but an owner must be unique.
    source = OutboxSource(runtime, owner=f"{SENDER}{run_id}-{uuid.uuid4().hex[:8]}", sleep=stop.wait)
    return source, NotifyWork(runtime, run_id=run_id, may_send=source.may_send, on_step=on_step)


SELECTIONS: DrainSpec[Received] = DrainSpec(
    name="selections",
    worker="processSelections",
    summary="Take chunks of winners off the selection queue: claim codes, write selections and the outbox.",
    needs=("sqs", "mongo", "s3", "dynamodb"),
    outcomes=(
        "received",
        "applied",
        "unchanged",
        "dead_lettered",
        "returned",
        "claimed",
        "written",
        "enqueued",
    ),
    pace=lambda settings: Pace.of(settings.selection, settings.selection.visibility_seconds),
    parts=_selections,
)
NOTIFICATIONS: DrainSpec[Parcel] = DrainSpec(
    name="notifications",
    worker="sendNotifications",
    summary="Send what the outbox owes to the notification queue: canary first, one sender at a time.",
    needs=("sqs", "mongo", "s3", "dynamodb"),
    outcomes=(
        "received",
        "sent",
        "dead_lettered",
        "returned",
        "superseded",
        "markets_delivered",
        "campaigns_paused",
    ),
    pace=lambda settings: Pace.of(settings.selection, settings.selection.lease_seconds),
    parts=_notifications,
)
DRAINS: tuple[DrainSpec[Any], ...] = (SELECTIONS, NOTIFICATIONS)
