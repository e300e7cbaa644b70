"""The drains of selection and their dependencies."""

from __future__ import annotations

import uuid
from typing import Any

from regworkers_core.adapters.mongo.draws import SENDER
from regworkers_core.domain.messages import MAX_ITEMS
from regworkers_core.domain.snapshot import Reading, Unread
from regworkers_core.drains.runner import DrainSpec, Parts, queue_parts
from regworkers_core.engine.queue import QUEUE_SERVICE, Received
from regworkers_core.engine.stop import OnStep, StopSignal
from regworkers_core.runtime import Runtime
from regworkers_core.selection.codes.redeeming import Redeeming
from regworkers_core.selection.notify.source import PARCELS, OutboxSource, Parcel
from regworkers_core.selection.notify.work import NotifyWork
from regworkers_core.selection.registrations.source import RegistrationSource, Round
from regworkers_core.selection.registrations.work import RegisterWork


def _selections(runtime: Runtime, run_id: str, stop: StopSignal, on_step: OnStep) -> Parts[Received]:
    # Imported late: it brings pyarrow and DuckDB, which a caller that only names this drain does not need.
    from regworkers_core.selection.assign.assigner import Assigner

    assigner = Assigner(runtime, run_id=run_id, on_step=on_step)
    return queue_parts(runtime, SELECTIONS, assigner, run_id=run_id, on_step=on_step)


def _notifications(runtime: Runtime, run_id: str, stop: StopSignal, on_step: OnStep) -> Parts[Parcel]:
    source = OutboxSource(runtime, owner=_owner(run_id), sleep=stop.wait)
    return Parts(source, NotifyWork(runtime, run_id=run_id, may_send=source.may_send, on_step=on_step))


def _register(runtime: Runtime, run_id: str, stop: StopSignal, on_step: OnStep) -> Parts[Round]:
    source = RegistrationSource(runtime, owner=_owner(run_id), sleep=stop.wait, on_step=on_step)
    return Parts(source, RegisterWork(runtime, source))


def _redeem(runtime: Runtime, run_id: str, stop: StopSignal, on_step: OnStep) -> Parts[Received]:
    return queue_parts(
        runtime, REDEEM, Redeeming(runtime, run_id=run_id, on_step=on_step), run_id=run_id, on_step=on_step
    )


def _owner(run_id: str) -> str:
    """Who holds the lease of a campaign's draw. A retried run keeps its id, but an owner must be unique."""
    return f"{SENDER}{run_id}-{uuid.uuid4().hex[:8]}"


def _said(due: Reading[bool], what: str) -> Reading[str]:
    return due if isinstance(due, Unread) else what * due


SELECTIONS: DrainSpec[Received] = DrainSpec(
    name="selections",
    worker="processSelections",
    summary="Take chunks of winners off the selection queue: claim codes, write selections and the outbox.",
    job="process_selections",
    duty="selection",
    needs=(QUEUE_SERVICE, "mongo", "s3", "dynamodb"),
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
    parts=_selections,
    queue="selection-queue",
    keep="selection.visibilitySeconds",
    most_items=lambda settings: settings.selection.batch_messages * MAX_ITEMS,
    most_drains=4,
    # A message is a chunk of up to 500 winners: half a minute of work for one drain.
    messages_each=100,
    runbook="selection-failures.md",
)
NOTIFICATIONS: DrainSpec[Parcel] = DrainSpec(
    name="notifications",
    worker="sendNotifications",
    summary="Send what the outbox owes to the notification queue: canary first, one sender at a time.",
    job="send_notifications",
    duty="selection",
    needs=(QUEUE_SERVICE, "mongo", "s3", "dynamodb"),
    outcomes=(
        "received",
        "sent",
        "dead_lettered",
        "returned",
        "superseded",
        "markets_delivered",
        "campaigns_paused",
    ),
    parts=_notifications,
    queue="notification-queue",
    keep="selection.leaseSeconds",
    most_items=lambda _: PARCELS * MAX_ITEMS,
    # One sender works on all markets whose messages are due.
    most_drains=1,
    messages_each=1,
    due=lambda snapshot: _said(snapshot.messages_due, "messages of the outbox are due"),
    system="mongodb",
    runbook="selection-failures.md",
)
REGISTER: DrainSpec[Round] = DrainSpec(
    name="register",
    worker="logRegistrations",
    summary="Append a leaf for each entry that was saved to the public tree of its campaign's registrations.",
    job="log_registrations",
    duty="selection",
    needs=(QUEUE_SERVICE, "mongo", "s3", "dynamodb"),
    outcomes=(
        "received",
        "applied",
        "stale",
        "returned",
        "registered",
        "withdrawn",
        "erased",
        "other_unit",
        "campaigns_failed",
    ),
    parts=_register,
    queue="analytics-queue",
    keep="selection.leaseSeconds",
    most_items=lambda settings: settings.registrations.batch_entries,
    # One holder of a tree appends, in order.
    most_drains=1,
    messages_each=1,
    due=lambda snapshot: _said(snapshot.registrations_due, "registrations are not in their tree"),
    system="mongodb",
    runbook="registrations.md",
)
REDEEM: DrainSpec[Received] = DrainSpec(
    name="redeem",
    worker="redeemCodes",
    summary="Take what the issuer of the codes says: redeemed, blocked, complete up to a time.",
    job="redeem_codes",
    duty="selection",
    needs=(QUEUE_SERVICE, "mongo", "dynamodb"),
    outcomes=(
        "received",
        "applied",
        "unchanged",
        "dropped",
        "dead_lettered",
        "returned",
        "redeemed",
        "blocked",
        "completed",
    ),
    parts=_redeem,
    queue="redemption-queue",
    keep="selection.visibilitySeconds",
    most_items=lambda settings: settings.selection.batch_messages * MAX_ITEMS,
    # What is stated last is more often taken last.
    most_drains=1,
    can_wait=True,
    runbook="redemptions.md",
)
DRAINS: tuple[DrainSpec[Any], ...] = (SELECTIONS, NOTIFICATIONS, REGISTER, REDEEM)
