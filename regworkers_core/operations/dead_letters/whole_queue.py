"""A whole queue by SQS itself, where the endpoint can: no message passes through here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from regworkers_core.adapters.aws.message_moves import MoveTask, Unsupported
from regworkers_core.domain.reasons import UsageError
from regworkers_core.operations.dead_letters.queues import DeadQueue

_POLL_SECONDS = 1.0
COMPLETED, CANCELLED = "COMPLETED", "CANCELLED"


class Moves(Protocol):
    def latest(self, queue: str) -> MoveTask | None: ...
    def start(self, queue: str, destination: str, per_second: int) -> str: ...
    def cancel(self, handle: str) -> None: ...


@dataclass(frozen=True, slots=True)
class WholeMove:
    """`moved` is approximate, as SQS counts; `status` COMPLETED, CANCELLED or FAILED with its `failure`."""

    moved: int
    status: str
    failure: str = ""


def move_whole(
    moves: Moves,
    queue: DeadQueue,
    *,
    per_second: float,
    stopped: Callable[[], bool],
    on_progress: Callable[[int], None],
    sleep: Callable[[float], object] = time.sleep,
) -> WholeMove | None:
    """Start SQS's task and follow it to its end, cancel it when `stopped`; None: the endpoint has no such thing.

    Raises UsageError while another task of this queue runs, TransientFailure when SQS does not answer.
    """
    try:
        latest = moves.latest(queue.name)
        if latest is not None and latest.runs:
            raise UsageError(f"SQS moves {queue.name} already, {latest.moved} messages so far: wait for it")
        handle = moves.start(queue.name, queue.source, int(per_second))
    except Unsupported:
        return None
    cancelled = False
    while True:
        task = moves.latest(queue.name)
        if task is not None:
            on_progress(task.moved)
            if not task.runs:
                return WholeMove(task.moved, task.status, task.failure)
        if stopped() and not cancelled:
            moves.cancel(handle)
            cancelled = True
        sleep(_POLL_SECONDS)
