"""Waits until the replica has all entries of a campaign, before a draw."""

from __future__ import annotations

from collections.abc import Callable

from fairdraw import scheduling
from regworkers_core.adapters.judged_entries import ReplicationProgress
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.replication.enqueue.stream_probe import has_unread
from regworkers_core.replication.reconcile.acceptance import how_to_accept
from regworkers_core.replication.reconcile.classify import WAITING, Kind
from regworkers_core.replication.reconcile.reconciliation import Comparing, reconcile
from regworkers_core.runtime import Runtime

_POLL_SECONDS = 2.0
# Enough for a few thousand shards: all of them have to be read.
_STREAM_SECONDS = 30.0
_IN_NO_POOL = frozenset({Kind.ERASED, Kind.REJECTED})


def lag_warnings(runtime: Runtime) -> list[str]:
    """Warnings that entries may be missing in the replica now; empty if nothing waits. A quick check of all campaigns
    together, for previews only.
    """
    try:
        depth = runtime.queue(runtime.names.replication_queue).depth().total
        unread = has_unread(runtime.streams, runtime.leases, within_seconds=_POLL_SECONDS)
    except TransientFailure as failure:
        return [f"whether replication is behind could not be read: {failure}"]
    waits = [f"{depth:,} messages wait"] if depth else []
    waits += ["the stream has unread records"] if unread else []
    return [f"replication is behind, so entries may be missing here: {' and '.join(waits)}"] if waits else []


def settled(
    runtime: Runtime,
    campaign_id: str,
    *,
    on_phase: Callable[[str], None] = lambda _text: None,
    sleep: Callable[[float], object] = scheduling.sleep,
    clock: Callable[[], float] = scheduling.monotonic,
) -> ReplicationProgress:
    """What is still open; empty if all entries of the campaign are replicated. Erased entries, and those of which
    replication refuses a state, do not count: neither takes part in a draw.

    Blocks for up to `selection.settleSeconds` until stream and queue are empty. Other campaigns share them and may keep
    them busy, so the comparison of this campaign decides. If nothing moved in that time, the last line names the
    drains to run. Raises TransientFailure when a store cannot answer.
    """
    give_up = clock() + runtime.settings.selection.settle_seconds
    queue = runtime.queue(runtime.names.replication_queue)
    seen: set[tuple[bool, int]] = set()
    while True:
        unread = has_unread(runtime.streams, runtime.leases, within_seconds=_STREAM_SECONDS)
        depth = queue.depth().total
        seen.add((unread, depth))
        if not unread and not depth:
            break
        if clock() >= give_up:
            break
        on_phase(f"replication is at work: {depth} messages wait{', the stream has more' if unread else ''}")
        sleep(_POLL_SECONDS)
    stuck = (unread or depth) and len(seen) == 1
    if (paused := runtime.parking.of(campaign_id)) is not None:
        # Its entries wait, and a repair would park them again.
        help_ = f"its replication is paused since {paused.at}: `regworkers campaign resume {campaign_id}`"
        return ReplicationProgress((help_,))
    result = reconcile(runtime, Comparing(campaign_id), on_phase=on_phase)
    counts = {kind: number for kind, number in result.counts.items() if number and kind not in _IN_NO_POOL}
    if not counts:
        return ReplicationProgress()
    open_now = [f"{number} {kind.value}" for kind, number in counts.items()]
    if depth:
        open_now.append(f"{depth} messages wait on {queue.name}")
    if unread:
        open_now.append("the stream has unread records")
    if Kind.AHEAD in counts:
        open_now.append(how_to_accept(campaign_id))
    differences: dict[str, int] = {}
    # An entry that still waits is not a difference that an operator could accept.
    if not WAITING & counts.keys() and not unread and not depth:
        differences = {kind.value: number for kind, number in counts.items()}
    if stuck:
        # A repair would queue the same entries again, behind those that no drain receives.
        drains = [*(["`regworkers drain enqueue`"] if unread else []), "`regworkers drain save`"]
        help_ = f"nothing moved meanwhile: is no drain running? By hand: {', then '.join(drains)}"
        return ReplicationProgress((*open_now, help_), differences)
    if list(counts) != [Kind.AHEAD]:
        open_now.append(f"`regworkers reconcile --campaign {campaign_id} --repair --apply` repairs it")
    return ReplicationProgress(tuple(open_now), differences)
