"""Backfill: queue the key of every entry of the table, or of one campaign, under a rate limit.

Only keys are sent and the save drain reads the table itself, so a backfill never overwrites a newer change. The
position of a segment is stored once SQS has confirmed what is before it: a kill costs a repeat.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, NamedTuple

import structlog

from fairdraw import scheduling
from fairdraw.documents import as_document
from fairdraw.scheduling import Progress, no_progress
from regworkers_core.domain.keys import is_encodable, quoted
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.dependency import TokenBucket
from regworkers_core.engine.leases import LeaseHolder
from regworkers_core.engine.stop import OnStep, StopSignal, no_step
from regworkers_core.replication.backfill_run import (
    BackfillRows,
    BackfillRun,
    Parameters,
    Segment,
    SegmentReader,
)
from regworkers_core.replication.keys import require_campaign
from regworkers_core.runtime import Runtime

__all__ = ["Backfill", "BackfillReport", "backfill_status", "pause_backfill", "start_backfill"]

log = structlog.get_logger(__name__)

Ended = Literal["finished", "paused", "stopped", "superseded", "counted"]


@dataclass(frozen=True, slots=True)
class BackfillReport:
    """What a backfill did. A dry run ends as `counted`, and has the number that would be sent."""

    backfill_id: str
    campaign_id: str | None
    ended: Ended
    sent: int  # keys since the backfill began
    sent_now: int  # keys of this run
    estimate: int | None  # of all keys, None: not known
    segments: int
    segments_finished: int
    seconds: float
    refused: int = 0  # entries that this run left out, because replication refuses their keys
    refused_example: str = ""  # one of those

    @property
    def finished(self) -> bool:
        return self.ended in ("finished", "counted")

    @property
    def advice(self) -> str:
        if not self.refused:
            return self._next
        return (
            f"{self._next}; {self.refused} entries were left out, for replication refuses their ids (for example"
            f" {self.refused_example}): their writers have to give them others"
        )

    @property
    def _next(self) -> str:
        if self.ended == "counted":
            return "nothing was sent: add --apply to send the keys"
        if self.ended == "finished":
            return "the keys are on the replication queue: `regworkers drain save` saves them"
        if self.ended == "superseded":
            return "another run of this backfill took over: see `regworkers backfill status`"
        return f"to go on where it stopped: `regworkers backfill resume --id {self.backfill_id}`"

    def as_dict(self) -> dict[str, Any]:
        names = ("backfill_id", "campaign_id", "ended", "sent", "sent_now", "refused", "refused_example")
        counts = ("estimate", "segments", "segments_finished", "seconds", "advice")
        return as_document(self, *names, *counts) | {
            "refusedExample": self.refused_example or None,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class Backfill:
    """What to start."""

    campaign_id: str | None = None
    _: KW_ONLY
    rate: float | None = None  # in items a second; None: replication.backfillItemsPerSecond
    segments: int | None = None  # None: replication.scanSegments
    since: str = ""  # only entries whose `updatedAt` is that ISO time or later are sent; all are read
    backfill_id: str | None = None  # None: the campaign's, or `all`
    dry_run: bool = False  # counts, and stores nothing
    only_resume: bool = False


def start_backfill(
    runtime: Runtime,
    backfill: Backfill = Backfill(),
    *,
    stop: StopSignal | None = None,
    on_progress: Progress = no_progress,
    on_step: OnStep = no_step,
) -> BackfillReport:
    """Start the backfill of this id, or resume it. One that is finished starts again unless `only_resume`. Blocks until
    it ends.

    Raises UsageError while the same backfill runs elsewhere, if it was started for something else, and for an unknown
    campaign; TransientFailure when a dependency stays unavailable, and then the position is kept, too.
    """
    stop = stop or StopSignal()
    settings, campaign_id = runtime.settings, backfill.campaign_id
    wanted = settings.replication.backfill_items_per_second if backfill.rate is None else backfill.rate
    if wanted <= 0:
        raise UsageError("the rate of a backfill must be above 0 items a second")
    rows = BackfillRows(runtime.leases, _id(campaign_id, backfill.backfill_id))
    if not backfill.only_resume:
        require_campaign(runtime, campaign_id)
    reader = SegmentReader(runtime.demand_table)
    fresh = Parameters(
        campaign_id,
        1 if campaign_id is not None else backfill.segments or settings.replication.scan_segments,
        iso(runtime.clock()),
        None if campaign_id is not None or backfill.since else estimate_items(runtime),
        backfill.since,
    )
    if backfill.dry_run:
        return _count(rows.id, fresh, reader, stop, on_progress)
    parameters, afresh = _parameters(rows, fresh, campaign_id, backfill.only_resume)
    began = scheduling.monotonic()
    lease_seconds = settings.enqueue.lease_seconds
    holder = LeaseHolder(runtime.leases, uuid.uuid4().hex, lease_seconds=lease_seconds)
    lease = rows.acquire(holder, lease_seconds=lease_seconds, wait=stop.wait)
    if lease is None:
        stored = rows.segments(parameters.segments)
        return _report(rows.id, parameters, "stopped", stored, 0, began, reader)
    run = BackfillRun(
        rows,
        lease,
        parameters,
        reader,
        runtime.queue(runtime.names.replication_queue),
        lambda sleep: TokenBucket(wanted, sleep=sleep),
        rate=wanted,
        heartbeat_seconds=lease_seconds / 3,
        clock=runtime.clock,
        on_progress=on_progress,
        on_step=on_step,
    )
    try:
        ended = run.run(stop, afresh=afresh)
    except TransientFailure as failure:
        hint = f"{failure.error}; the position is kept: `regworkers backfill resume --id {rows.id}`"
        raise TransientFailure(failure.dependency, hint) from failure
    stored = rows.segments(parameters.segments)
    report = _report(rows.id, parameters, ended, stored, run.sent_now, began, reader)
    log.info("backfill ended", **report.as_dict())
    return report


def pause_backfill(
    runtime: Runtime, campaign_id: str | None = None, *, backfill_id: str | None = None
) -> dict[str, Any]:
    """Ask the backfill, wherever it runs, to stop within a second. Returns `backfill_status`. Raises UsageError for one
    that is unknown or finished.
    """
    rows = BackfillRows(runtime.leases, _id(campaign_id, backfill_id))
    row = rows.run()
    if row is None:
        raise _unknown(rows)
    if row.state.get("state") == "finished":
        raise UsageError(f"backfill {rows.id} is finished: there is nothing to pause")
    status = backfill_status(runtime, campaign_id, backfill_id=backfill_id)
    rows.want("paused")
    return {**status, "wanted": "paused"}


def backfill_status(
    runtime: Runtime, campaign_id: str | None = None, *, backfill_id: str | None = None
) -> dict[str, Any]:
    """A JSON document: `state` (running, paused, finished, or interrupted if it should run and has not renewed its
    lease for three lease times), counts, and the segments. Raises UsageError for a name that is unknown. Without a name
    and without a backfill of the whole table, `state` is `none has run` and `known` lists those of campaigns.
    """
    rows = BackfillRows(runtime.leases, _id(campaign_id, backfill_id))
    row = rows.run()
    if row is None:
        if campaign_id is None and backfill_id is None:
            return {"state": "none has run", "sent": 0, "known": rows.known()}
        raise _unknown(rows)
    parameters = Parameters.of(row.state)
    found = rows.segments(parameters.segments)
    state = row.state.get("state", "")
    silent_since = iso(runtime.clock() - 3 * runtime.settings.enqueue.lease_seconds)
    if state == "running" and row.state.get("changedAt", "") < silent_since:
        state = "interrupted"
    return {
        "backfillId": rows.id,
        "campaignId": parameters.campaign_id,
        "state": state,
        "wanted": "paused" if rows.pause_wanted() else "running",
        "sent": sum(segment.sent for segment in found),
        "estimate": parameters.estimate,
        "segments": parameters.segments,
        "segmentsFinished": sum(segment.finished for segment in found),
        "sentBySegment": [segment.sent for segment in found],
        "startedAt": parameters.started_at,
        "changedAt": row.state.get("changedAt"),
    }


def _id(campaign_id: str | None, backfill_id: str | None) -> str:
    chosen = backfill_id if backfill_id is not None else campaign_id or "all"
    if not chosen.strip() or len(chosen) > 200 or not is_encodable(chosen):
        raise UsageError("the id of a backfill must have 1 to 200 characters of UTF-8")
    return chosen


class _Chosen(NamedTuple):
    parameters: Parameters
    afresh: bool  # whether it starts again from the beginning


def _parameters(rows: BackfillRows, fresh: Parameters, campaign_id: str | None, only_resume: bool) -> _Chosen:
    """The parameters of the backfill under this id."""
    row = rows.run()
    finished = row is not None and row.state.get("state") == "finished"
    if only_resume and (row is None or finished):
        raise UsageError(
            f"backfill {quoted(rows.id)} {'is finished' if finished else 'was never started'}: nothing to resume"
        )
    if row is None or finished:
        return _Chosen(fresh, True)
    stored = Parameters.of(row.state)
    if campaign_id is not None and campaign_id != stored.campaign_id:
        of = f"campaign {stored.campaign_id}" if stored.campaign_id else "the whole table"
        raise UsageError(f"backfill {rows.id} covers {of}: choose another id with --id")
    if fresh.since not in ("", stored.since):
        changed = f"what changed since {stored.since}" if stored.since else "all entries"
        raise UsageError(
            f"backfill {rows.id} is unfinished and covers {changed}: choose another id with --id"
        )
    return _Chosen(stored, False)


def estimate_items(runtime: Runtime) -> int | None:
    """Items in the table as its description says (a few hours old on AWS, invites included)."""
    answer = runtime.dependency("dynamodb").call(
        runtime.dynamodb.describe_table, TableName=runtime.names.demand_table
    )
    count = answer["Table"].get("ItemCount")
    return int(count) if count else None


def _count(
    backfill_id: str, parameters: Parameters, reader: SegmentReader, stop: StopSignal, on_progress: Progress
) -> BackfillReport:
    began = scheduling.monotonic()
    progress = [Segment(number) for number in range(parameters.segments)]

    def read(number: int) -> None:
        start_key, sent = None, 0
        while not stop.is_set:
            page = reader.page(parameters, number, start_key)
            sent, start_key = sent + len(page.items), page.next_key
            progress[number] = Segment(number, start_key, sent, finished=start_key is None)
            if start_key is None:
                return

    def total() -> int:
        return sum(segment.sent for segment in progress)

    with scheduling.pool(parameters.segments, "backfill") as pool:
        pending = {pool.submit(read, number) for number in range(parameters.segments)}
        try:
            while pending:
                done, pending = scheduling.wait(pending, timeout=0.2, return_when=scheduling.FIRST_EXCEPTION)
                for future in done:
                    future.result()
                on_progress(total(), parameters.estimate)
        except BaseException:
            # The other threads end after their page.
            stop.set()
            raise
    ended: Ended = "counted" if all(segment.finished for segment in progress) else "stopped"
    return _report(backfill_id, parameters, ended, progress, 0, began, reader)


def _report(
    backfill_id: str,
    parameters: Parameters,
    ended: Ended,
    segments: Sequence[Segment],
    sent_now: int,
    began: float,
    reader: SegmentReader,
) -> BackfillReport:
    return BackfillReport(
        backfill_id,
        parameters.campaign_id,
        ended,
        sum(segment.sent for segment in segments),
        sent_now,
        parameters.estimate,
        parameters.segments,
        sum(segment.finished for segment in segments),
        scheduling.monotonic() - began,
        reader.refused,
        reader.refused_example,
    )


def _unknown(rows: BackfillRows) -> UsageError:
    known = ", ".join(rows.known()) or "none was ever started"
    return UsageError(f"no backfill is called {quoted(rows.id)}; known ones: {known}")
