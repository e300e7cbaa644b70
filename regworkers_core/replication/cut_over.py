"""The cut-over: `enqueue` starts at the checkpoints that the shadow had an hour before its last ones.

What the old system did in that hour is done once more. The guard of every write makes repeats harmless.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from regworkers_core.adapters.aws.streams import lister_key
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import seconds
from regworkers_core.engine.leases import LeaseBusy, LeaseRow, held_lease
from regworkers_core.replication.enqueue.shard_rows import (
    checkpoint_of,
    partition,
    position_of,
    shard_key,
    split_rows,
)
from regworkers_core.replication.shadow import SHADOW, Checkpoints, ShadowRows, require_no_enqueue
from regworkers_core.replication.shadow_report import ShadowReport
from regworkers_core.runtime import Runtime

BACK_SECONDS = 3600.0
# DynamoDB keeps the records of a stream for 24 hours.
_STREAM_SECONDS = 24 * 3600.0
_MINUTE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class CutOver:
    """Where `enqueue` starts, and whether it may."""

    report: ShadowReport | None
    start: Checkpoints | None  # after these checkpoints; None: at the first record of the stream
    existing: int  # enqueue's own checkpoints
    obstacles: tuple[str, ...]  # reasons not to
    applied: bool = False  # whether it was done

    def as_dict(self) -> dict[str, Any]:
        return {
            "applied": self.applied,
            "startsAt": None if self.start is None else self.start.at,
            "shards": 0 if self.start is None else len(self.start.shards),
            "existingCheckpoints": self.existing,
            "differences": None if self.report is None else self.report.differences,
            "agreementPercent": None if self.report is None else self.report.agreement_percent,
            "obstacles": list(self.obstacles),
        }


def cut_over(
    runtime: Runtime,
    *,
    apply: bool = False,
    accept_differences: int | None = None,
    replace: bool = False,
    back_seconds: float = BACK_SECONDS,
) -> CutOver:
    """Say where `enqueue` would start, and with `apply` write its checkpoints, unless there are obstacles. `replace`:
    also in place of checkpoints that it has. `accept_differences` is the number of differences that the shadow found.

    Blocks for some seconds if a shadow or an enqueue drain ended without saying so. Raises TransientFailure, and
    UsageError without table or stream.
    """
    rows, table = ShadowRows(runtime), runtime.names.demand_table
    obstacles: list[str] = []
    try:
        lease_seconds = runtime.settings.enqueue.lease_seconds
        # Held, so that no shadow starts meanwhile.
        with held_lease(rows.table, SHADOW, "cut-over", lease_seconds=lease_seconds):
            try:
                require_no_enqueue(runtime)
            except UsageError as running:
                obstacles.append(str(running))
            report = rows.report()
            existing, _ = split_rows(runtime.leases.rows(partition(table)))
            start = _start(rows, back_seconds)
            obstacles += _objections(report, accept_differences)
            obstacles += _of_checkpoints(runtime, start, existing, replace=replace)
            if apply and not obstacles:
                _write(runtime, start, existing)
            applied = apply and not obstacles
            return CutOver(report, start, len(existing), tuple(obstacles), applied)
    except LeaseBusy:
        return CutOver(rows.report(), None, 0, ("a shadow runs: stop it first",))


def _start(rows: ShadowRows, back_seconds: float) -> Checkpoints | None:
    """The newest checkpoints that are old enough."""
    history = rows.history()
    if not history:
        return None
    latest = (seconds(history[-1].at) or 0.0) - back_seconds
    old_enough = [each for each in history if (seconds(each.at) or 0.0) <= latest]
    return old_enough[-1] if old_enough else None


def _objections(report: ShadowReport | None, accepted: int | None) -> Iterator[str]:
    if report is None or not report.compared:
        yield "no shadow has compared anything: run `regworkers migrate shadow` first"
        return
    if report.differences and report.differences != accepted:
        yield (
            f"the shadow found {report.differences} differences: correct the cause and run it with --afresh, or"
            f" accept them with --accept-differences {report.differences}"
        )
    if report.trimmed:
        yield "the shadow lost records of the stream: run it again with --afresh"


def _of_checkpoints(
    runtime: Runtime, start: Checkpoints | None, existing: Mapping[str, LeaseRow], *, replace: bool
) -> Iterator[str]:
    if start is not None:
        age = runtime.clock() - (seconds(start.at) or 0.0)
        if age >= _STREAM_SECONDS - _MINUTE_SECONDS:
            yield f"the shadow's checkpoints are of {start.at}, and the stream keeps 24 hours: run it again"
        elif start.arn != runtime.streams.latest_stream():
            yield "the table has another stream by now: run `regworkers migrate shadow --afresh`"
    if existing and not replace:
        yield f"enqueue has rows of {len(existing)} shards, of an earlier start: --replace replaces its checkpoints"


def _write(runtime: Runtime, start: Checkpoints | None, existing: Mapping[str, LeaseRow]) -> None:
    table, leases = runtime.names.demand_table, runtime.leases
    shards = {} if start is None else start.shards
    for shard_id, row in existing.items():
        if shard_id not in shards and not leases.remove(row):
            raise _changed()
    for shard_id, state in shards.items():
        seen = existing.get(shard_id)
        row = LeaseRow(
            shard_key(table, shard_id),
            token=0 if seen is None else seen.token + 1,
            counter=0 if seen is None else seen.counter + 1,
            scope="" if start is None else start.arn,
            state=state,
            position=position_of(checkpoint_of(state)),
        )
        if not leases.swap(row, seen):
            raise _changed()
    # The drain lists all shards before it counts itself as idle: those that came since have no row yet.
    lister = leases.get(lister_key(table))
    if lister is not None and not leases.remove(lister):
        raise _changed()


def _changed() -> UsageError:
    return UsageError(
        "the rows of enqueue changed meanwhile: is a drain running? Run the command again with --replace"
    )
