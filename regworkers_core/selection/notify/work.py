"""Sends parcels: first the message, then its events, then the rows become SENT.

A crash in between repeats the message with the same keys, and the mailer drops keys that it knows. A row that raises an
exception delays no other: it alone becomes FAILED, with an open dead letter in the history, until it is retried.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from regworkers_core.adapters.mongo.outbox import SOURCE
from regworkers_core.domain.events import ProducerRole, notification_queued
from regworkers_core.domain.messages import DeadLetter, ItemSubject, MessageType, encode
from regworkers_core.domain.reasons import PermanentFailure, TransientFailure, UsageError
from regworkers_core.domain.selection import Notice
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.engine.defects import Fuse, FuseBlown, NotRepeatable, bisect, defect_of
from regworkers_core.engine.dependency import REDELIVERY
from regworkers_core.engine.drain import DEFECT_PAUSE_SECONDS, Settlement
from regworkers_core.engine.queue import Outgoing, Queue
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.observability.logs import Passed, describe, entries_passed
from regworkers_core.observability.tracing import inject, span
from regworkers_core.runtime import Runtime
from regworkers_core.selection.notify.source import Parcel

log = structlog.get_logger(__name__)


class NotifyWork:
    """A `Work[Parcel]`. `counts` are of fans' messages, not of queue messages. `may_send` is called right before a send
    and returns False once a lease is lost.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        run_id: str,
        may_send: Callable[[], bool],
        on_step: OnStep = no_step,
    ) -> None:
        self._runtime, self._run_id, self._may_send, self._on_step = runtime, run_id, may_send, on_step
        self._fuse = Fuse()

    def __call__(self, parcels: Sequence[Parcel]) -> Settlement[Parcel]:
        settlement = Settlement[Parcel]()
        with span("notifications", parcels=len(parcels)):
            for part in bisect(parcels, self._together, lambda parcel, _: self._row_by_row(parcel)):
                settlement.add(part)
        settlement.blown = self._fuse.blown
        return settlement

    def _together(self, parcels: Sequence[Parcel]) -> Settlement[Parcel]:
        settlement = Settlement[Parcel]()
        queue = self._runtime.queue(self._runtime.names.notification_queue)
        now = self._runtime.clock()
        # Everything that may raise for a row comes before the send: searching for that row afterwards would send again.
        messages = [_message(parcel) for parcel in parcels]
        events = {parcel: _events(parcel, iso(now)) for parcel in parcels}
        if self._fuse.blown is not None or not self._may_send():
            self._return(parcels, settlement)
            return settlement
        confirmed = self._send(queue, parcels, messages, settlement)
        self._on_step("notifications.after_send")
        try:
            self._settle(confirmed, events, now, settlement)
        except TransientFailure as failure:
            log.warning("sent, but not recorded", dependency=failure.dependency, error=failure.error)
            self._return(confirmed, settlement)
        except UsageError:
            raise
        except Exception as error:
            raise NotRepeatable("messages were sent, but could not be recorded as sent") from error
        return settlement

    def _row_by_row(self, parcel: Parcel) -> Settlement[Parcel]:
        """Send a parcel that raises row by row. A row that raises alone, twice, is not tried again."""
        whole = Settlement[Parcel]()
        for part in bisect(
            parcel.notices,
            lambda notices: self._together([Parcel(tuple(notices))]),
            lambda notice, error: self._failed(parcel, notice, error),
        ):
            whole.add(part)
        # Rows that are SENT or FAILED by now are not read again.
        wait = max((after for _, after in whole.again), default=None)
        whole.done, whole.again = ([parcel], []) if wait is None else ([], [(parcel, wait)])
        return whole

    def _failed(self, parcel: Parcel, notice: Notice, error: Exception) -> Settlement[Parcel]:
        """Record the failure in the history, then in the row: a crash in between repeats both, and the history keeps
        one document. The fuse counts it first: if too many rows raise, it is a bug, and they stay unchanged.
        """
        failure, runtime = defect_of(error), self._runtime
        try:
            self._fuse.failed(failure)
            at = iso(runtime.clock())
            runtime.dead_letters.record(
                [_dead_letter(parcel, notice, failure, at)], at=at, run_id=self._run_id
            )
            runtime.outbox.fail(notice.key, failure, at=at, run_id=self._run_id)
        except (FuseBlown, TransientFailure) as stopped:
            log.warning("a row of the outbox stays unchanged", error=describe(stopped))
            counts = Counter({"received": 1, "returned": 1})
            return Settlement(again=[(parcel, DEFECT_PAUSE_SECONDS)], counts=counts)
        log.error(
            "a row of the outbox raised, twice and alone",
            campaignId=notice.market.campaign_id,
            error=failure.error,
        )
        return Settlement(counts=Counter({"received": 1, "dead_lettered": 1}))

    def _send(
        self,
        queue: Queue,
        parcels: Sequence[Parcel],
        messages: Sequence[Outgoing],
        settlement: Settlement[Parcel],
    ) -> list[Parcel]:
        """Return the parcels that the queue has confirmed; the others are given back."""
        failures = queue.send(messages)
        failed = {failure.index for failure in failures}
        if failures:
            log.warning("not confirmed", queue=queue.name, messages=len(failed), error=failures[0].error)
            self._return([parcels[index] for index in sorted(failed)], settlement)
        return [parcel for index, parcel in enumerate(parcels) if index not in failed]

    def _settle(
        self,
        parcels: Sequence[Parcel],
        events: Mapping[Parcel, Sequence[dict[str, Any]]],
        now: float,
        settlement: Settlement[Parcel],
    ) -> None:
        if not parcels:
            return
        notices = [notice for parcel in parcels for notice in parcel.notices]
        for correlation_id in sorted({_correlation_id(parcel) for parcel in parcels}):
            of_one = [
                event
                for parcel in parcels
                if _correlation_id(parcel) == correlation_id
                for event in events[parcel]
            ]
            self._runtime.event_queue(ProducerRole.SELECTION).send_all(of_one)
        sent = self._runtime.outbox.mark_sent(
            [notice.key for notice in notices], at=iso(now), run_id=self._run_id
        )
        passed = [
            Passed(_correlation_id(parcel), parcel.market.campaign_id, notice.entry_id)
            for parcel in parcels
            for notice in parcel.notices
        ]
        entries_passed("notification queued", passed)
        settlement.done.extend(parcels)
        settlement.counts["received"] += len(notices)
        settlement.counts["sent"] += sent
        # Another sender, whose lease had expired, sent the same rows.
        settlement.counts["unchanged"] += len(notices) - sent
        self._fuse.passed(len(notices))
        settlement.lags.extend(now - (seconds(notice.not_before) or now) for notice in notices)

    def _return(self, parcels: Sequence[Parcel], settlement: Settlement[Parcel]) -> None:
        settlement.again.extend((parcel, max(1.0, REDELIVERY.backoff(1))) for parcel in parcels)
        number = sum(len(parcel.notices) for parcel in parcels)
        settlement.counts["received"] += number
        settlement.counts["returned"] += number


def _dead_letter(parcel: Parcel, notice: Notice, failure: PermanentFailure, at: str) -> DeadLetter:
    ids = {**notice.market.as_fields(), "entryId": notice.entry_id}
    return DeadLetter(SOURCE, notice.key, failure, _correlation_id(parcel), at, ItemSubject(notice.key, ids))


def _correlation_id(parcel: Parcel) -> str:
    return f"draw-{parcel.market.campaign_id}-{parcel.market.phase}"


def _events(parcel: Parcel, at: str) -> list[dict[str, Any]]:
    return [notification_queued(notice, at, _correlation_id(parcel)) for notice in parcel.notices]


def _message(parcel: Parcel) -> Outgoing:
    correlation_id = _correlation_id(parcel)
    body = encode(MessageType.NOTIFY, correlation_id, [notice.as_json() for notice in parcel.notices])
    return Outgoing(body, {"correlationId": correlation_id, "attempt": "1", **inject()})
