"""One run of a backfill: a thread for each segment, and a main thread that listens and renews the lease.

Its rows in `worker-leases` survive a kill, and carry the wish to pause:

- `PK=BACKFILLS, SK=<id>`: the lease of the run, whose token fences, with its parameters and state.
- `PK=BACKFILL#<id>, SK=SEGMENT#<n>`: position and counts of a segment, written under the run's token.
- `PK=BACKFILL#<id>, SK=CONTROL`: what an operator wants, obeyed by the process that runs it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Literal, Protocol

import orjson

from fairdraw import scheduling
from fairdraw.scheduling import Progress, no_progress
from regworkers_core.adapters.aws.demand_table import TablePage
from regworkers_core.domain.entry import lenient_order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import MAX_ITEMS, Op, ReplicationItem, fit_correlation_id
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.dependency import TokenBucket
from regworkers_core.engine.leases import Lease, LeaseHolder, LeaseKey, LeaseRow, LeaseTable
from regworkers_core.engine.queue import Queue
from regworkers_core.engine.stop import OnStep, StopSignal, no_step
from regworkers_core.observability.tracing import span
from regworkers_core.replication.keys import send_keys

RUNS = "BACKFILLS"
RunState = Literal["running", "paused", "finished"]
Wanted = Literal["running", "paused"]
# Reads of a lease within one lease time, while another run may hold it.
_READS_PER_LEASE = 10
_WRITE_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a backfill covers."""

    campaign_id: str | None
    segments: int
    started_at: str  # an ISO time
    estimate: int | None = None  # the expected number of entries, None: not known
    since: str = ""  # Only what changed from this ISO time on; empty: all

    def as_state(self, state: RunState, at: str) -> dict[str, str]:
        return {
            "state": state,
            "changedAt": at,
            "campaignId": self.campaign_id or "",
            "segments": str(self.segments),
            "startedAt": self.started_at,
            "estimate": "" if self.estimate is None else str(self.estimate),
            "since": self.since,
        }

    @classmethod
    def of(cls, state: Mapping[str, str]) -> Parameters:
        estimate = state.get("estimate", "")
        return cls(
            state.get("campaignId") or None,
            int(state.get("segments") or 1),
            state.get("startedAt", ""),
            int(estimate) if estimate else None,
            state.get("since", ""),
        )


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the table."""

    number: int  # counts from 0
    # The table key up to which everything is confirmed, None before the first.
    last_key: Mapping[str, Any] | None = None
    sent: int = 0  # keys so far
    finished: bool = False  # nothing is left of it


class BackfillSuperseded(Exception):
    """Another run of this backfill took over: this one must not write any more."""


class BackfillRows:
    """The rows of one backfill. Every method raises TransientFailure."""

    def __init__(self, table: LeaseTable, backfill_id: str) -> None:
        self._table = table
        self.id = backfill_id
        self._rows: dict[int, LeaseRow] = {}

    def run(self) -> LeaseRow | None:
        """The row of the run with its state, None for a backfill that was never started."""
        row = self._table.get(LeaseKey(RUNS, self.id))
        return row if row is not None and row.state else None

    def known(self) -> list[str]:
        return [row.key.sk for row in self._table.rows(RUNS)]

    def acquire(
        self, holder: LeaseHolder, *, lease_seconds: float, wait: Callable[[float], bool]
    ) -> Lease | None:
        """The run's lease, after one lease time if its owner died; None when `wait` was interrupted. Raises UsageError
        while it runs elsewhere.
        """
        key = LeaseKey(RUNS, self.id)
        first = row = self._table.get(key)
        for _ in range(2 * _READS_PER_LEASE):
            lease = holder.take(key, row)
            if lease is not None:
                return lease
            if wait(lease_seconds / _READS_PER_LEASE):
                return None
            row = self._table.get(key)
            if row is not None and first is not None and row.owner and row.counter != first.counter:
                break
        raise UsageError(f"backfill {self.id} is running elsewhere: pause it there first")

    def claim(self, token: int, segments: int, *, afresh: bool) -> list[Segment]:
        """Take over every segment's row under `token`, so that an older run cannot write to it any more. Returns their
        progress; `afresh` starts each from the beginning. Raises Superseded.
        """
        found = []
        for number in range(segments):
            key = LeaseKey(f"BACKFILL#{self.id}", f"SEGMENT#{number:04d}")
            for _ in range(_WRITE_ROUNDS):
                seen = self._table.get(key)
                old = seen or LeaseRow(key)
                if old.token > token:
                    raise BackfillSuperseded
                state = {} if afresh else old.state
                mine = replace(old, token=token, counter=old.counter + 1, state=state)
                if self._write(mine, seen):
                    break
            else:
                raise BackfillSuperseded
            self._rows[number] = mine
            found.append(_segment(number, mine.state))
        return found

    def save(self, segment: Segment) -> None:
        """Store a claimed segment's progress. Raises Superseded after a takeover."""
        seen = self._rows[segment.number]
        state = {
            "lastKey": orjson.dumps(segment.last_key).decode() if segment.last_key else "",
            "sent": str(segment.sent),
            "finished": "true" if segment.finished else "",
        }
        mine = replace(seen, counter=seen.counter + 1, state=state)
        if not self._write(mine, seen):
            raise BackfillSuperseded
        self._rows[segment.number] = mine

    def segments(self, segments: int) -> list[Segment]:
        """The first `segments` segments as stored; an earlier round may have had more."""
        found = {row.key.sk: row.state for row in self._table.rows(f"BACKFILL#{self.id}")}
        return [_segment(number, found.get(f"SEGMENT#{number:04d}", {})) for number in range(segments)]

    def want(self, wanted: Wanted) -> None:
        """Store what an operator wants; the process that runs it obeys."""
        for _ in range(_WRITE_ROUNDS):
            seen = self._table.get(self._control)
            old = seen or LeaseRow(self._control)
            if self._write(replace(old, counter=old.counter + 1, state={"wanted": wanted}), seen):
                return
        raise UsageError(f"backfill {self.id}: its control row changed repeatedly: try again")

    def pause_wanted(self) -> bool:
        row = self._table.get(self._control)
        return row is not None and row.state.get("wanted") == "paused"

    @property
    def _control(self) -> LeaseKey:
        return LeaseKey(f"BACKFILL#{self.id}", "CONTROL")

    def _write(self, row: LeaseRow, seen: LeaseRow | None) -> bool:
        # If the answer to a write was lost, its repeat is refused although the write was ours.
        return self._table.swap(row, seen) or self._table.get(row.key) == row


def _segment(number: int, state: Mapping[str, str]) -> Segment:
    last_key = state.get("lastKey", "")
    return Segment(
        number,
        orjson.loads(last_key) if last_key else None,
        int(state.get("sent") or 0),
        bool(state.get("finished")),
    )


PAGE = 1000
# How often stop, pause and lease are checked: a pause is obeyed within a second.
_BEAT_SECONDS = 0.3
# A chunk is at most this much of the rate, so a run that is asked to end has little in flight.
_CHUNK_SECONDS = 0.5

Ended = Literal["finished", "paused", "stopped", "superseded"]
Item = tuple[EntryKey, dict[str, Any]]


class TablePages(Protocol):
    """Consistent pages of the demand table."""

    def scan(
        self,
        segment: int,
        segments: int,
        start_key: Mapping[str, Any] | None = None,
        limit: int | None = None,
        since: str = "",
    ) -> TablePage: ...

    def query(
        self,
        campaign_id: str,
        start_key: Mapping[str, Any] | None = None,
        limit: int | None = None,
        since: str = "",
    ) -> TablePage: ...


class SegmentReader:
    """Pages of a segment of the table, or of the one partition that a campaign is; from any thread. `refused` counts
    the entries left out because replication refuses their keys, `refused_example` is the id of one, as it may be shown.
    """

    def __init__(self, table: TablePages) -> None:
        self._table = table
        self._lock = scheduling.lock()
        self.refused = 0
        self.refused_example = ""

    def page(self, of: Parameters, segment: int, start_key: Mapping[str, Any] | None) -> TablePage:
        page = (
            self._table.query(of.campaign_id, start_key, PAGE, of.since)
            if of.campaign_id is not None
            else self._table.scan(segment, of.segments, start_key, PAGE, of.since)
        )
        refused = [key for key, _ in page.items if key.problem]
        if not refused:
            return page
        with self._lock:
            self.refused += len(refused)
            self.refused_example = self.refused_example or refused[0].shown
        return replace(page, items=[item for item in page.items if not item[0].problem])


@dataclass(eq=False)
class BackfillRun:
    """One run of a backfill."""

    rows: BackfillRows
    # It is held while the run works.
    lease: Lease
    parameters: Parameters
    reader: SegmentReader
    queue: Queue
    # Makes the rate limit around an interruptible sleep.
    bucket: Callable[[Callable[[float], object]], TokenBucket]
    _: KW_ONLY
    rate: float  # items a second
    heartbeat_seconds: float
    clock: Callable[[], float] = scheduling.now
    # It gets the keys sent since the backfill began, and the expected number of them if known.
    on_progress: Progress = no_progress
    on_step: OnStep = no_step

    def __post_init__(self) -> None:
        self._halt = scheduling.event()
        self._bucket = self.bucket(self._halt.wait)
        self._chunk = _chunk_size(self.rate / self.parameters.segments)
        self._correlation_id = (
            fit_correlation_id(f"backfill-{self.rows.id}") or f"backfill-{uuid.uuid4().hex}"
        )
        self._segments: list[Segment] = []
        self._sent_before = 0

    @property
    def sent_now(self) -> int:
        """Keys sent and stored as sent by this run."""
        return sum(segment.sent for segment in self._segments) - self._sent_before

    @span("backfill")
    def run(self, stop: StopSignal, *, afresh: bool) -> Ended:
        """To the end, or until a stop signal, a pause or another run ends it. Raises TransientFailure."""
        with self.lease:
            try:
                # The old positions are removed before the new round is stored: a kill in between starts afresh again.
                self._segments = self.rows.claim(self.lease.token, self.parameters.segments, afresh=afresh)
                self._sent_before = sum(segment.sent for segment in self._segments)
                self.rows.want("running")
                self._announce("running")
                ended = self._work(stop)
            except BackfillSuperseded:
                return "superseded"
            except BaseException:
                self._leave("paused")
                raise
            if ended != "superseded":
                self._leave("finished" if ended == "finished" else "paused")
            return ended

    def _work(self, stop: StopSignal) -> Ended:
        ended: Ended = "finished"
        beat_at = scheduling.monotonic() + self.heartbeat_seconds
        unfinished = [segment for segment in self._segments if not segment.finished]
        with scheduling.pool(len(self._segments), "backfill") as pool:
            pending = {pool.submit(self._segment, segment) for segment in unfinished}
            try:
                while pending:
                    done, pending = scheduling.wait(
                        pending, timeout=_BEAT_SECONDS, return_when=scheduling.FIRST_EXCEPTION
                    )
                    for future in done:
                        future.result()
                    self._report()
                    if pending and not self._halt.is_set() and (reason := self._asked_to_end(stop)):
                        ended = reason
                        self._halt.set()
                    if scheduling.monotonic() >= beat_at:
                        self._announce("running")
                        beat_at = scheduling.monotonic() + self.heartbeat_seconds
            finally:
                self._halt.set()
        return "finished" if all(segment.finished for segment in self._segments) else ended

    def _asked_to_end(self, stop: StopSignal) -> Ended | None:
        if stop.is_set:
            return "stopped"
        # If it could not be read, it is not paused: the next check reads it again.
        with suppress(TransientFailure):
            if self.rows.pause_wanted():
                return "paused"
        return None

    def _segment(self, segment: Segment) -> None:
        while not self._halt.is_set():
            page = self.reader.page(self.parameters, segment.number, segment.last_key)
            runs = list(self._chunks(page.items))
            for index, run in enumerate(runs):
                if not self._bucket.take(len(run)) or self._halt.is_set():
                    return
                items = [ReplicationItem(key, Op.UPSERT, lenient_order(item)) for key, item in run]
                send_keys(self.queue, items, self._correlation_id)
                self.on_step("backfill.after_send")
                is_last = index == len(runs) - 1
                segment = self._advance(segment, len(run), page.next_key if is_last else _table_key(run[-1]))
            if not runs:
                # A page without entries (invites, say) also moves the position.
                segment = self._advance(segment, 0, page.next_key)
            if segment.finished:
                return

    def _advance(self, before: Segment, sent: int, last_key: Mapping[str, Any] | None) -> Segment:
        segment = Segment(before.number, last_key, before.sent + sent, finished=last_key is None)
        self.rows.save(segment)
        self._segments[segment.number] = segment
        return segment

    def _chunks(self, items: list[Item]) -> Iterator[list[Item]]:
        for start in range(0, len(items), self._chunk):
            yield items[start : start + self._chunk]

    def _report(self) -> None:
        sent = sum(segment.sent for segment in self._segments)
        self.on_progress(sent, self.parameters.estimate)

    def _announce(self, state: RunState) -> None:
        """Store the state, which renews the lease. Raises Superseded."""
        try:
            held = self.lease.save(self.parameters.as_state(state, iso(self.clock())))
        except TransientFailure:
            # One beat may fail; a lease that expires meanwhile shows at the next write.
            return
        if not held:
            raise BackfillSuperseded

    def _leave(self, state: RunState) -> None:
        with suppress(BackfillSuperseded):
            self._announce(state)


def _chunk_size(per_second: float) -> int:
    """Items sent at a time by a segment with this share of the rate: whole messages where that is enough."""
    size = max(1, int(per_second * _CHUNK_SECONDS))
    return size if size < MAX_ITEMS else min(PAGE, size - size % MAX_ITEMS)


def _table_key(item: Item) -> dict[str, Any]:
    """The key in the form of a start key of DynamoDB."""
    return {"PK": {"S": item[0].pk}, "SK": {"S": item[0].sk}}
