"""The two drains of replication."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from regworkers_core.adapters.aws.streams import StreamRecord
from regworkers_core.domain.events import ProducerRole
from regworkers_core.domain.messages import MAX_ITEMS, DeadLetter
from regworkers_core.domain.snapshot import Unread
from regworkers_core.drains.runner import DrainSpec, Parts, dead_letter_publisher, queue_parts
from regworkers_core.engine.queue import QUEUE_SERVICE, Received
from regworkers_core.engine.stop import OnStep, StopSignal, no_step
from regworkers_core.replication.enqueue.enqueue_work import EnqueueWork
from regworkers_core.replication.enqueue.stream_source import StreamSource
from regworkers_core.replication.reconcile.classify import Sides
from regworkers_core.replication.saver import OpenDeadLetters, Saver
from regworkers_core.replication.second_look import SecondLook
from regworkers_core.runtime import Runtime


def _enqueue(runtime: Runtime, run_id: str, stop: StopSignal, on_step: OnStep) -> Parts[StreamRecord]:
    source = StreamSource(
        runtime.streams,
        runtime.leases,
        runtime.settings.enqueue,
        runtime.settings.stream,
        # A run that is retried keeps its id, but an owner must be unique.
        owner=f"{run_id}-{uuid.uuid4().hex[:8]}",
        sleep=stop.wait,
        on_step=on_step,
    )
    queue = runtime.queue(runtime.names.replication_queue)
    publisher = dead_letter_publisher(runtime, queue, _NoHistory(), run_id=run_id)
    return Parts(source, EnqueueWork(queue, publisher=publisher, clock=runtime.clock, on_step=on_step))


class _NoHistory:
    """This drain works while MongoDB is unavailable, so the message itself is the only record of a dead letter."""

    def record(self, dead: Sequence[DeadLetter], /, *, at: str, run_id: str) -> None:
        return None


def _save(
    role: ProducerRole, runtime: Runtime, run_id: str, _stop: StopSignal, on_step: OnStep
) -> Parts[Received]:
    settings, look = runtime.settings.save, None
    if settings.second_look_seconds:
        sides = Sides(runtime.demand_table, runtime.replica, runtime.dead_letters)
        look = SecondLook(sides, runtime.queue(runtime.names.replication_queue), settings)
    steps = saver(runtime, run_id, on_step, look, role=role)
    return queue_parts(runtime, SAVE, steps, run_id=run_id, on_step=on_step, beside=look)


def saver(
    runtime: Runtime,
    run_id: str,
    on_step: OnStep = no_step,
    second_look: SecondLook | None = None,
    *,
    role: ProducerRole = ProducerRole.REPLICATION,
) -> Saver:
    """The save steps over the runtime's tables and queues, for a process with the rights of this role."""
    return Saver(
        runtime.demand_table,
        runtime.replica,
        runtime.campaigns,
        runtime.queue(runtime.names.replication_queue),
        runtime.event_queue(role),
        dead_letters=OpenDeadLetters(
            runtime.dead_letters, runtime.names.replication_queue, clock=runtime.clock
        ),
        second_look=second_look,
        parking=runtime.parking,
        run_id=run_id,
        clock=runtime.clock,
        on_step=on_step,
    )


ENQUEUE: DrainSpec[StreamRecord] = DrainSpec(
    name="enqueue",
    worker="enqueueEntries",
    summary="Read the stream of the demand table and queue the keys that changed.",
    job="enqueue_entries",
    duty="replication",
    needs=("dynamodb", "streams", QUEUE_SERVICE),
    outcomes=("received", "sent", "dropped", "dead_lettered", "returned"),
    parts=_enqueue,
    queue="replication-queue",
    keep="enqueue.leaseSeconds",
    most_items=lambda settings: settings.enqueue.batch_records,
    most_drains="drain.maxEnqueueDrains",
    due=lambda snapshot: snapshot.stream if isinstance(snapshot.stream, Unread) else snapshot.stream.due,
    system="aws_dynamodb_streams",
    stalled="alerts.drainStalledSeconds",
    residents=True,
)
SAVE: DrainSpec[Received] = DrainSpec(
    name="save",
    worker="saveEntries",
    summary="Read the replication queue and save the entries' current state into the replica.",
    job="save_entries",
    duty="replication",
    needs=("dynamodb", QUEUE_SERVICE, "mongo"),
    outcomes=(
        "received",
        "applied",
        "removed",
        "unchanged",
        "stale",
        "gone",
        "resurrected",
        "dropped",
        "dead_lettered",
        "resent",
        "returned",
    ),
    parts=partial(_save, ProducerRole.REPLICATION),
    queue="replication-queue",
    keep="save.visibilitySeconds",
    most_items=lambda settings: settings.save.batch_messages * MAX_ITEMS,
    most_drains="drain.maxSaveDrains",
    stalled="alerts.drainStalledSeconds",
    residents=True,
)
# The same with the rights of provisioning, which rebuild the replica after a total failure.
REBUILD = replace(SAVE, parts=partial(_save, ProducerRole.PROVISION))
DRAINS = (ENQUEUE, SAVE)
