"""Whether the replica holds all that a campaign's writers wrote: what a draw waits for."""

from __future__ import annotations

import time
from collections.abc import Callable

from regworkers_core.adapters.files.judged_entries import Settlement
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.replication.enqueue.stream_probe import has_unread
from regworkers_core.replication.reconcile import Kind, reconcile
from regworkers_core.replication.reconcile.acceptance import how_to_accept
from regworkers_core.runtime import Runtime

_POLL_SECONDS = 2.0
# Enough for some thousand shards; less than all of them proves nothing.
_STREAM_SECONDS = 30.0
_IN_NO_POOL = frozenset({Kind.ERASED, Kind.REJECTED})


def lag_warnings(runtime: Runtime) -> list[str]:
    """What of the entries may be missing in the replica right now, in words; empty when nothing waits. Of all
    campaigns, and in a moment: for a preview alone.
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
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Settlement:
    """What is still open; nothing when the campaign's entries are replicated to the last one. Erased entries are none
    of it, nor those of which replication refuses a state: neither takes part in a draw.

    Waits up to `selection.settleSeconds` for stream and queue to run dry. Other campaigns share them and may
    keep them busy, so it is the comparison of this campaign, with nothing on its way, that decides.
    What did not move at all in that time needs a drain, and the last line names it. Raises TransientFailure when a
    store cannot answer.
    """
    give_up = clock() + runtime.settings.selection.settle_seconds
    queue = runtime.queue(runtime.names.replication_queue)
    looks: set[tuple[bool, int]] = set()
    while True:
        unread = has_unread(runtime.streams, runtime.leases, within_seconds=_STREAM_SECONDS)
        depth = queue.depth().total
        looks.add((unread, depth))
        if not unread and not depth:
            break
        if clock() >= give_up:
            break
        on_phase(f"replication is at work: {depth} messages wait{', the stream has more' if unread else ''}")
        sleep(_POLL_SECONDS)
    stuck = (unread or depth) and len(looks) == 1
    result = reconcile(runtime, campaign_id, on_phase=on_phase)
    counts = {kind: number for kind, number in result.counts.items() if number and kind not in _IN_NO_POOL}
    if not counts:
        return Settlement()
    open_now = [f"{number} {kind.value}" for kind, number in counts.items()]
    if depth:
        open_now.append(f"{depth} messages wait on {queue.name}")
    if unread:
        open_now.append("the stream has unread records")
    if Kind.AHEAD in counts:
        open_now.append(how_to_accept(campaign_id))
    differences: dict[str, int] = {}
    # An entry that still waits there is no difference that an operator could accept.
    if Kind.NOT_YET not in counts and not unread and not depth:
        differences = {kind.value: number for kind, number in counts.items()}
    if stuck:
        # A repair would queue the same entries again, behind those that no drain takes.
        drains = [*(["`regworkers drain enqueue`"] if unread else []), "`regworkers drain save`"]
        help_ = f"nothing moved meanwhile: is no drain running? By hand: {', then '.join(drains)}"
        return Settlement((*open_now, help_), differences)
    if list(counts) != [Kind.AHEAD]:
        open_now.append(f"`regworkers reconcile --campaign {campaign_id} --repair` repairs it and says more")
    return Settlement(tuple(open_now), differences)
