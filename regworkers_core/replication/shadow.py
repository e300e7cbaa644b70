"""The shadow: reads the stream as its second reader, waits the lag objective, and compares what a save would write with
what the old system wrote. It receives from no queue, and writes nothing but its own rows in `worker-leases`.

All of these are below `shadow/`: the rows of shards with their checkpoints, one lease for the whole shadow with its
report, and the checkpoints of the last hour, from which a cut-over starts.
"""

from __future__ import annotations

import math
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from fairdraw import scheduling
from fairdraw.scheduling import Progress, no_progress
from regworkers_core.adapters.aws.streams import MAX_RECORDS, StreamRecord
from regworkers_core.domain.entry import Entry, Order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import Op
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.drains.heartbeat import BEAT_SECONDS, beats
from regworkers_core.engine.drain import Drain, DrainLimits, Settlement
from regworkers_core.engine.drain_report import DrainReport
from regworkers_core.engine.leases import (
    Lease,
    LeaseBusy,
    LeaseHolder,
    LeaseKey,
    LeaseRow,
    LeasesBelow,
    held_lease,
)
from regworkers_core.engine.stop import OnStep, StopSignal, no_step
from regworkers_core.replication.drains import ENQUEUE
from regworkers_core.replication.enqueue.changes import (
    RecordChange,
    drop,
    flag_cleared_after,
    one_of_each_key,
)
from regworkers_core.replication.enqueue.shard_rows import partition, split_rows
from regworkers_core.replication.enqueue.stream_source import StreamSource
from regworkers_core.replication.keys import KeyRequest, states_to_save
from regworkers_core.replication.reconcile.classify import Kind, ReplicaAccess, SourceReads
from regworkers_core.replication.shadow_report import Deviation, ShadowReport, deviation
from regworkers_core.runtime import Runtime

SHADOW = "shadow"
PREFIX = f"{SHADOW}/"
# The service rounds the time of a record to the second.
_ROUNDING_SECONDS = 1.0
_AGAIN_SECONDS = 2.0
# Checkpoints are kept in turn in this number of rows, one each five minutes: the oldest is more than an hour old.
_HISTORY_ROWS = 15
_HISTORY_SECONDS = 300.0
# AWS serves five reads a second and shard to all readers together, and Lambda makes four: one is left. The thousand
# records that it brings are as many as a partition takes in a second.
_READS_PER_SECOND = 1.0
_NEEDS = ("dynamodb", "streams", "mongo")


class ShadowSource(StreamSource):
    """Hands out a record once it is one lag objective old. Until then it counts as unacknowledged, so memory is bounded
    and a kill costs a repeat. It rests between any two reads of a shard. What `on_beat`, called with each heartbeat,
    raises as UsageError ends it.
    """

    def __init__(
        self,
        *arguments: Any,
        wait_seconds: float,
        now: Callable[[], float],
        on_beat: Callable[[], object] = lambda: None,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._wait_seconds, self._now = wait_seconds + _ROUNDING_SECONDS, now
        self._on_beat, self._ends = on_beat, list[UsageError]()

    def heartbeat(self) -> None:
        try:
            super().heartbeat()
            self._on_beat()
        except UsageError as error:
            self._ends.append(error)

    @property
    def trimmed(self) -> int:
        """How often records may have been lost. For any thread: it does not walk counters that others add to."""
        return self._counts["trimmed"] + self._discovery.counts["trimmed"]

    def receive(self) -> list[StreamRecord]:
        if self._ends:
            raise self._ends[0]
        due, young = [], []
        for record in super().receive():
            left = 0.0 if record.created_at is None else record.created_at + self._wait_seconds - self._now()
            if left > 0:
                young.append((record, left))
            else:
                due.append(record)
        self.give_back(young)
        return due


class ShadowWork:
    """`engine.drain.Work[StreamRecord]`: compares the changes of a batch, safe to share between threads. What differs
    is compared once more when it is two objectives old, because the old system may have been late.
    """

    def __init__(
        self,
        table: SourceReads,
        replica: ReplicaAccess,
        report: ShadowReport,
        *,
        objective_seconds: float,
        clock: Callable[[], float] = scheduling.now,
    ) -> None:
        self._table, self._replica, self._report = table, replica, report
        self._objective, self._clock = objective_seconds, clock

    def __call__(self, records: Sequence[StreamRecord]) -> Settlement[StreamRecord]:
        settlement = Settlement[StreamRecord]()
        settlement.counts["received"] = len(records)
        changes, refused = one_of_each_key(records, settlement)
        keys = [each.change.item.key for each in changes]
        try:
            # The replica first: it cannot be newer than the source that is read after it.
            stored = self._replica.get(keys) if keys else {}
            items = self._table.get(keys) if keys else {}
        except TransientFailure:
            again = [(record, _AGAIN_SECONDS) for record in records]
            return Settlement(again=again, counts=Counter(received=len(records), returned=len(records)))
        for record in records:
            if (cleared := flag_cleared_after(record)) is not None:
                self._report.add_lag(cleared)
        for record, failure in refused:
            key = EntryKey.parse(*(record.keys[name].get("S") for name in ("PK", "SK")))
            if key is not None:
                self._report.add_difference(key, Deviation(Kind.REJECTED, (failure.error,)), _time_of(record))
            settlement.done.append(record)
        states = states_to_save({each.change.item.key: _wanted(each) for each in changes}, items)
        writes = {write.key: write for write in states.writes}
        for each in changes:
            key = each.change.item.key
            if key in states.refused:
                found: Deviation | None = Deviation(Kind.REJECTED, (states.refused[key][1].error,))
            elif key not in writes or self._overtaken(each, states.entries.get(key)):
                self._report.add_overtaken()
                self._settle(each, settlement)
                continue
            else:
                found = deviation(writes[key], stored.get(key))
            self._note(each, found, settlement)
        return settlement

    def _overtaken(self, each: RecordChange, entry: Entry | None) -> bool:
        """Whether the source has a younger state than this record: that one has a record of its own."""
        if entry is None or entry.order <= each.change.item.order:
            return False
        updated_at, now = seconds(entry.order.updated_at), self._clock()
        # A time in the future says nothing about when it was written.
        return updated_at is None or now - self._objective < updated_at <= now + self._objective

    def _note(
        self, each: RecordChange, found: Deviation | None, settlement: Settlement[StreamRecord]
    ) -> None:
        created_at = each.record.created_at
        if found is not None and found.kind is not Kind.REJECTED and created_at is not None:
            left = created_at + 2 * self._objective + _ROUNDING_SECONDS - self._clock()
            if left > 0:
                self._report.add_late()
                settlement.again.extend((record, left) for record in (*each.before, each.record))
                return
        if found is None:
            self._report.add_agreed(1, _time_of(each.record))
        else:
            self._report.add_difference(each.change.item.key, found, _time_of(each.record))
        self._settle(each, settlement)

    @staticmethod
    def _settle(each: RecordChange, settlement: Settlement[StreamRecord]) -> None:
        for earlier in each.before:
            drop(settlement, earlier, "coalesced")
        settlement.done.append(each.record)


def _wanted(each: RecordChange) -> KeyRequest:
    item = each.change.item
    removed: Order | None = item.order if item.op is Op.REMOVE else None
    return KeyRequest(SHADOW, each.change.correlation_id, removed)


def _time_of(record: StreamRecord) -> str:
    return "" if record.created_at is None else iso(record.created_at)


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The states of all shard rows, by shard, as they were at `at` (ISO-8601)."""

    at: str
    arn: str
    shards: Mapping[str, Mapping[str, str]]


class ShadowRows:
    """The shadow's rows. Every method raises TransientFailure."""

    def __init__(self, runtime: Runtime) -> None:
        self.table = LeasesBelow(runtime.leases, PREFIX)
        self._runtime = runtime
        self._history_pk = f"HISTORY#{runtime.names.demand_table}"

    def report(self) -> ShadowReport | None:
        row = self.table.get(LeaseHolder.key_of(SHADOW))
        return None if row is None else ShadowReport.of_state(row.state)

    def history(self) -> list[Checkpoints]:
        found = [row.state for row in self.table.rows(self._history_pk) if row.state.get("at")]
        kept = [Checkpoints(each["at"], each["arn"], orjson.loads(each["shards"])) for each in found]
        return sorted(kept, key=lambda each: each.at)

    def keep(self, at: float) -> bool:
        """Keep the checkpoints of now, in place of the oldest. False while no shard is known."""
        rows, _ = split_rows(self.table.rows(partition(self._runtime.names.demand_table)))
        arn = next((row.scope for row in rows.values() if row.scope), "")
        if not arn:
            return False
        shards = {shard_id: dict(row.state) for shard_id, row in rows.items() if row.scope == arn}
        key = LeaseKey(self._history_pk, f"{int(at // _HISTORY_SECONDS) % _HISTORY_ROWS:02d}")
        seen = self.table.get(key)
        state = {"at": iso(at), "arn": arn, "shards": orjson.dumps(shards).decode()}
        row = LeaseRow(key, counter=0 if seen is None else seen.counter + 1, state=state)
        return self.table.swap(row, seen)


class _Keeper:
    """Stores the report before each checkpoint, so that no difference is lost by a kill, and keeps checkpoints."""

    def __init__(
        self, rows: ShadowRows, lease: Lease, report: ShadowReport, clock: Callable[[], float]
    ) -> None:
        self._rows, self._lease, self._report, self._clock = rows, lease, report, clock
        # Threads of the drain call it for their shards, and an older report must not replace a newer one.
        self._lock = scheduling.lock()
        self._stored: Mapping[str, str] = lease.state
        self._kept_at = -math.inf

    def __call__(self) -> None:
        with self._lock:
            state = self._report.as_state()
            if state != self._stored:
                if not self._lease.save(state):
                    raise UsageError("another shadow has taken over")
                self._stored = state
            now = self._clock()
            if now - self._kept_at >= _HISTORY_SECONDS and self._rows.keep(now):
                self._kept_at = now


class Shadowed(NamedTuple):
    report: ShadowReport
    drain: DrainReport


def shadow(
    runtime: Runtime,
    *,
    stop: StopSignal,
    max_seconds: float,
    idle_seconds: float = math.inf,
    afresh: bool = False,
    on_progress: Progress = no_progress,
    on_step: OnStep = no_step,
) -> Shadowed:
    """Compare until the stop signal, for `max_seconds`, or until no record came for `idle_seconds`. Goes on where the
    last shadow ended; `afresh` begins a new report. Blocks for that time.

    Raises UsageError while another shadow or an enqueue drain runs or once one starts, and without table or stream.
    """
    rows, settings = ShadowRows(runtime), runtime.settings
    require_no_enqueue(runtime)
    enqueues = _counters(runtime)
    run_id = f"{SHADOW}-{uuid.uuid4().hex[:8]}"
    objective = settings.replication.lag_objective_seconds
    lease_seconds = settings.enqueue.lease_seconds
    try:
        with held_lease(rows.table, SHADOW, run_id, lease_seconds=lease_seconds) as lease:
            report = None if afresh else ShadowReport.of_state(lease.state)
            report = report or ShadowReport(iso(runtime.clock()))
            keeper, trimmed_before = _Keeper(rows, lease, report, runtime.clock), report.trimmed

            def step(name: str) -> None:
                report.trimmed = trimmed_before + source.trimmed
                keeper()
                on_step(name)

            def beat() -> None:
                nonlocal enqueues
                step("shadow.heartbeat")
                enqueues = _require_still(enqueues, _counters(runtime))

            source = ShadowSource(
                runtime.streams,
                rows.table,
                settings.enqueue.model_copy(update={"batch_records": MAX_RECORDS}),
                settings.stream.model_copy(update={"reads_per_second": _READS_PER_SECOND}),
                owner=run_id,
                sleep=stop.wait,
                on_step=step,
                wait_seconds=objective,
                now=runtime.clock,
                on_beat=beat,
            )
            work = ShadowWork(
                runtime.demand_table,
                runtime.replica,
                report,
                objective_seconds=objective,
                clock=runtime.clock,
            )
            limits = DrainLimits(
                idle_seconds=idle_seconds,
                max_seconds=max_seconds,
                concurrency=settings.enqueue.concurrency,
                prefetch=settings.enqueue.prefetch,
                heartbeat_seconds=lease_seconds / 3,
                blind_seconds=settings.alerts.blind_seconds,
                outage_seconds=settings.drain.outage_seconds,
            )
            ended = Drain(
                SHADOW,
                source,
                work,
                limits,
                # The stream is found by the first receive: its probe would need the rows of the enqueue drain.
                probe=lambda *_names: runtime.probe("dynamodb", "mongo"),
                down=lambda: runtime.dependencies.down(*_NEEDS),
                stop=stop,
                on_progress=lambda _drain: on_progress(
                    report.compared,
                    unit=f"changes, {report.differences} differ, at {report.until or 'the beginning'}",
                ),
            ).run()
            step("shadow.end")
            return Shadowed(report, ended)
    except LeaseBusy:
        raise UsageError("another shadow runs: stop it first") from None


def require_no_enqueue(runtime: Runtime) -> None:
    """Raises UsageError while an enqueue drain runs: a shard has room for two readers, the old system and one of ours.
    Blocks for some seconds if there are heartbeats, which may be those of dead processes.
    """
    before = _counters(runtime)
    if before:
        scheduling.sleep(2 * BEAT_SECONDS)
        _require_still(before, _counters(runtime))


def _counters(runtime: Runtime) -> Mapping[str, int]:
    return {beat.run_id: beat.counter for beat in beats(runtime.leases, ENQUEUE.name)}


def _require_still(before: Mapping[str, int], now: Mapping[str, int]) -> Mapping[str, int]:
    """`now`, unless a heartbeat moved in between: those of dead processes do not."""
    if any(before.get(run_id) != counter for run_id, counter in now.items()):
        raise UsageError(
            "an enqueue drain runs: turn its sensor off and wait for its end"
            " (a shard of the stream has room for two readers)"
        )
    return now
