"""One run of a backfill: a thread for each segment, and a main thread that listens and stays alive."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from regworkers_core.adapters.aws.demand_table import Page
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import MAX_ITEMS, Op, ReplicationItem, fit_correlation_id
from regworkers_core.domain.order import lenient_order
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.leases import Lease
from regworkers_core.engine.ports import Queue
from regworkers_core.engine.rate import TokenBucket
from regworkers_core.engine.steps import OnStep, no_step
from regworkers_core.engine.stop import StopSignal
from regworkers_core.replication.backfill.progress import (
    BackfillRows,
    Parameters,
    RunState,
    Segment,
    Superseded,
)
from regworkers_core.replication.send import send_keys

PAGE = 1000
# How often stop, pause and lease are looked after: a pause is obeyed within a second.
_BEAT_SECONDS = 0.3
# A chunk is at most so much of the rate: a run that is told to end has little under way.
_CHUNK_SECONDS = 0.5

Ended = Literal["finished", "paused", "stopped", "superseded"]
Item = tuple[EntryKey, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class BackfillProgress:
    """Keys sent since the backfill began, and the expected number of them if known."""

    sent: int
    estimate: int | None


OnProgress = Callable[[BackfillProgress], None]


def no_progress(_progress: BackfillProgress) -> None:
    """The default of `on_progress`."""


class TablePages(Protocol):
    """Consistent pages of the demand table."""

    def scan(
        self,
        segment: int,
        segments: int,
        start_key: Mapping[str, Any] | None = None,
        limit: int | None = None,
    ) -> Page: ...

    def query(
        self, campaign_id: str, start_key: Mapping[str, Any] | None = None, limit: int | None = None
    ) -> Page: ...


class SegmentReader:
    """Pages of a segment of the table, or of the one partition that a campaign is; from any thread. `refused` counts
    the entries left out because replication refuses their keys, `refused_example` is the id of one, as it may be shown.
    """

    def __init__(self, table: TablePages) -> None:
        self._table = table
        self._lock = threading.Lock()
        self.refused = 0
        self.refused_example = ""

    def page(self, of: Parameters, segment: int, start_key: Mapping[str, Any] | None) -> Page:
        page = (
            self._table.query(of.campaign_id, start_key, PAGE)
            if of.campaign_id is not None
            else self._table.scan(segment, of.segments, start_key, PAGE)
        )
        refused = [key for key, _ in page.items if key.problem]
        if not refused:
            return page
        with self._lock:
            self.refused += len(refused)
            self.refused_example = self.refused_example or refused[0].shown
        return replace(page, items=[item for item in page.items if not item[0].problem])


class BackfillRun:
    """Holds `lease` while it runs; `bucket` makes the rate limit around an interruptible sleep."""

    def __init__(
        self,
        rows: BackfillRows,
        lease: Lease,
        parameters: Parameters,
        reader: SegmentReader,
        queue: Queue,
        bucket: Callable[[Callable[[float], object]], TokenBucket],
        *,
        rate: float,
        heartbeat_seconds: float,
        clock: Callable[[], float] = time.time,
        on_progress: OnProgress = no_progress,
        on_step: OnStep = no_step,
    ) -> None:
        self._rows, self._lease, self._parameters = rows, lease, parameters
        self._reader, self._queue = reader, queue
        self._halt = threading.Event()
        self._bucket = bucket(self._halt.wait)
        self._chunk = _chunk_size(rate / parameters.segments)
        self._heartbeat = heartbeat_seconds
        self._clock, self._on_progress, self._on_step = clock, on_progress, on_step
        self._correlation_id = fit_correlation_id(f"backfill-{rows.id}") or f"backfill-{uuid.uuid4().hex}"
        self._segments: list[Segment] = []
        self._sent_before = 0

    @property
    def sent_now(self) -> int:
        """Keys sent and stored as sent by this run."""
        return sum(segment.sent for segment in self._segments) - self._sent_before

    def run(self, stop: StopSignal, *, afresh: bool) -> Ended:
        """To the end, or until a stop signal, a pause or another run ends it. Raises TransientFailure."""
        with self._lease:
            try:
                # The old positions go before the new round is announced: a kill in between starts afresh again.
                self._segments = self._rows.claim(self._lease.token, self._parameters.segments, afresh=afresh)
                self._sent_before = sum(segment.sent for segment in self._segments)
                self._rows.want("running")
                self._announce("running")
                ended = self._work(stop)
            except Superseded:
                return "superseded"
            except BaseException:
                self._leave("paused")
                raise
            if ended != "superseded":
                self._leave("finished" if ended == "finished" else "paused")
            return ended

    def _work(self, stop: StopSignal) -> Ended:
        ended: Ended = "finished"
        beat_at = time.monotonic() + self._heartbeat
        unfinished = [segment for segment in self._segments if not segment.finished]
        with ThreadPoolExecutor(len(self._segments), thread_name_prefix="backfill") as pool:
            pending = {pool.submit(self._segment, segment) for segment in unfinished}
            try:
                while pending:
                    done, pending = wait(pending, timeout=_BEAT_SECONDS, return_when=FIRST_EXCEPTION)
                    for future in done:
                        future.result()
                    self._report()
                    if pending and not self._halt.is_set() and (reason := self._told_to_end(stop)):
                        ended = reason
                        self._halt.set()
                    if time.monotonic() >= beat_at:
                        self._announce("running")
                        beat_at = time.monotonic() + self._heartbeat
            finally:
                self._halt.set()
        return "finished" if all(segment.finished for segment in self._segments) else ended

    def _told_to_end(self, stop: StopSignal) -> Ended | None:
        if stop.is_set:
            return "stopped"
        # Could not read is not paused: the next beat asks again.
        with suppress(TransientFailure):
            if self._rows.pause_wanted():
                return "paused"
        return None

    def _segment(self, segment: Segment) -> None:
        while not self._halt.is_set():
            page = self._reader.page(self._parameters, segment.number, segment.last_key)
            runs = list(self._chunks(page.items))
            for index, run in enumerate(runs):
                if not self._bucket.take(len(run)) or self._halt.is_set():
                    return
                items = [ReplicationItem(key, Op.UPSERT, lenient_order(item)) for key, item in run]
                send_keys(self._queue, items, self._correlation_id)
                self._on_step("backfill.after_send")
                is_last = index == len(runs) - 1
                segment = self._advance(segment, len(run), page.next_key if is_last else _table_key(run[-1]))
            if not runs:
                # A page of invites, or one that a filter emptied, moves the position all the same.
                segment = self._advance(segment, 0, page.next_key)
            if segment.finished:
                return

    def _advance(self, before: Segment, sent: int, last_key: Mapping[str, Any] | None) -> Segment:
        segment = Segment(before.number, last_key, before.sent + sent, finished=last_key is None)
        self._rows.save(segment)
        self._segments[segment.number] = segment
        return segment

    def _chunks(self, items: list[Item]) -> Iterator[list[Item]]:
        for start in range(0, len(items), self._chunk):
            yield items[start : start + self._chunk]

    def _report(self) -> None:
        sent = sum(segment.sent for segment in self._segments)
        self._on_progress(BackfillProgress(sent, self._parameters.estimate))

    def _announce(self, state: RunState) -> None:
        """Store the state, which renews the lease. Raises Superseded."""
        try:
            held = self._lease.save(self._parameters.as_state(state, iso(self._clock())))
        except TransientFailure:
            # One beat may fail; a lease that expires meanwhile shows at the next write.
            return
        if not held:
            raise Superseded

    def _leave(self, state: RunState) -> None:
        with suppress(Superseded):
            self._announce(state)


def _chunk_size(per_second: float) -> int:
    """Items sent at a time by a segment with this share of the rate: whole messages where that is enough."""
    size = max(1, int(per_second * _CHUNK_SECONDS))
    return size if size < MAX_ITEMS else min(PAGE, size - size % MAX_ITEMS)


def _table_key(item: Item) -> dict[str, Any]:
    """As DynamoDB takes it for a start key."""
    return {"PK": {"S": item[0].pk}, "SK": {"S": item[0].sk}}
