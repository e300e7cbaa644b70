"""A queue as a drain's source: small prefetch, visibility kept up while work lasts."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

import structlog

from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.marks import UNANSWERED
from regworkers_core.engine.ports import NotHidden, Queue, Received

log = structlog.get_logger(__name__)
_RECEIVE = 10


class QueueSource:
    """Implements `Source[Received]`. Messages are held from their receive until they are settled."""

    def __init__(
        self, queue: Queue, *, batch_messages: int, wait_seconds: float, visibility_seconds: int
    ) -> None:
        self._queue = queue
        self._batch_messages = batch_messages
        self._wait_seconds = wait_seconds
        self._visibility_seconds = visibility_seconds
        self._lock = threading.Lock()
        self._held: dict[str, Received] = {}
        self._deleting: set[str] = set()
        self._counts: Counter[str] = Counter()

    def receive(self) -> list[Received]:
        """Up to `batch_messages`: more calls follow the first only while they come back full."""
        batch: list[Received] = []
        while len(batch) < self._batch_messages:
            limit = min(_RECEIVE, self._batch_messages - len(batch))
            wait_seconds = 0.0 if batch else self._wait_seconds
            try:
                messages = self._queue.receive(limit, wait_seconds, self._visibility_seconds)
            except TransientFailure:
                # What came before is held already: it would stay hidden until the end of the drain.
                if not batch:
                    raise
                break
            with self._lock:
                self._held.update((message.receipt, message) for message in messages)
            batch.extend(messages)
            if len(messages) < limit:
                break
        if often := [message for message in batch if message.receive_count > UNANSWERED]:
            # What may kill this process shall be visible again soon after that. It is a wish: the batch stands.
            with suppress(TransientFailure):
                self._hide([(message, self._keep_seconds(message)) for message in often])
        return batch

    def acknowledge(self, done: Sequence[Received]) -> None:
        with self._lock:
            self._deleting.update(message.receipt for message in done)
        try:
            left = self._queue.delete(done)
        finally:
            self._release(done)
        if left:
            log.warning("messages not deleted, they will come again", count=len(left))

    def give_back(self, again: Sequence[tuple[Received, float]]) -> None:
        self._release([message for message, _ in again])
        if again:
            self._hide([(message, round(seconds)) for message, seconds in again])

    def heartbeat(self) -> None:
        """Hide what is held for another visibility time. A message that is lost is let go, for others may have it by
        now; one that could not be hidden is tried again with the next beat.
        """
        with self._lock:
            held = list(self._held.values())
        if not held:
            return
        lost, failed = self._hide([(message, self._keep_seconds(message)) for message in held])
        with self._lock:
            # What was settled meanwhile is gone because we are done with it.
            taken = [each for each in lost if each.receipt in self._held.keys() - self._deleting]
            extended = len(held) - len(lost) - len(failed)
            self._counts.update(visibility_extended=extended, visibility_lost=len(taken))
        self._release(taken)
        if taken:
            log.warning("messages lost to others before they were settled", count=len(taken))

    def may_idle(self) -> bool:
        return True

    def close(self) -> None:
        with self._lock:
            held, self._held = list(self._held.values()), {}
        if held:
            self._hide([(message, 0) for message in held])

    def _hide(self, messages: Sequence[tuple[Received, int]]) -> NotHidden:
        missed = self._queue.change_visibility(messages)
        if missed.failed:
            with self._lock:
                self._counts["visibility_failed"] += len(missed.failed)
            log.warning("visibility not changed", count=len(missed.failed))
        return missed

    def counts(self) -> Counter[str]:
        return self._counts

    def _keep_seconds(self, message: Received) -> int:
        """Heartbeats come three in a visibility time. Of messages that came often, one may be late instead of two."""
        whole = self._visibility_seconds
        return whole if message.receive_count <= UNANSWERED else math.ceil(whole / 2)

    def _release(self, messages: Sequence[Received]) -> None:
        with self._lock:
            for message in messages:
                self._held.pop(message.receipt, None)
                self._deleting.discard(message.receipt)
