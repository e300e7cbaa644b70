"""The recovery drill: rebuild the replica in a scratch database, compare it with the source, measure, drop it.

Entries take the steps of the save drain, and nothing of the real flow is touched: no flag is cleared, no event and no
key is sent, no dead letter is opened or closed.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import structlog

from fairdraw import scheduling
from fairdraw.scheduling import Progress, no_progress
from regworkers_core.adapters.aws.demand_table import Cleared
from regworkers_core.adapters.aws.sqs import EventQueue
from regworkers_core.adapters.mongo.replica import Replica
from regworkers_core.domain.drill import DrillResult, Ended
from regworkers_core.domain.entry import Entry
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import MAX_ITEMS
from regworkers_core.domain.reasons import Failure, PermanentFailure, TransientFailure
from regworkers_core.engine.dependency import TokenBucket
from regworkers_core.engine.queue import (
    DepthAndRetention,
    NotHidden,
    Outgoing,
    QueueDepth,
    Received,
    SendFailure,
)
from regworkers_core.engine.stop import OnStep, StopSignal, no_step
from regworkers_core.replication.backfill import estimate_items
from regworkers_core.replication.keys import KeyRequest
from regworkers_core.replication.reconcile.classify import SourceReads, classify, of_replica, of_source
from regworkers_core.replication.reconcile.comparison import PAGE, Comparison, PairProgress
from regworkers_core.replication.saver import Saver
from regworkers_core.replication.scratch_database import Scratch
from regworkers_core.runtime import Runtime

_MESSAGE_ID = "recovery-drill"
# Entries by outcome, and the id of one that was refused.
_Outcomes = tuple[Counter[str], str]


@dataclass(slots=True)
class _Found:
    """The result so far, which a drill that ends early still reports."""

    ended: Ended = "finished"
    unavailable: str = ""  # the dependency that ended it
    counts: Counter[str] = field(default_factory=Counter)  # entries by outcome
    complete: bool = False  # whether all requested ones were replayed
    refused_example: str = ""  # the id of an entry that was refused, as it may be shown
    differences: Counter[str] = field(default_factory=Counter)  # entries by class
    samples: list[str] = field(default_factory=list)  # ids of those
    seconds: float = 0.0
    compare_seconds: float = 0.0
    dropped: bool = False  # whether the rebuilt database was deleted

    @property
    def read(self) -> int:
        return self.counts.total()


@dataclass(eq=False)
class Replay:
    """All entries of the source, saved once more into another replica."""

    table: SourceReads
    replica: Replica
    comparison: Comparison
    bucket: TokenBucket
    _: KW_ONLY
    # Entries at a time.
    batch: int
    # Batches at once.
    concurrency: int
    # The most entries; None: all.
    most: int | None
    run_id: str
    clock: Callable[[], float]
    on_progress: Progress

    def __post_init__(self) -> None:
        self._saver = Saver(
            _Recording(self.table, self.comparison),
            self.replica,
            _EveryCampaign(),
            _Nowhere(),
            EventQueue(_Nowhere(), sign=lambda _body: ""),
            run_id=self.run_id,
            clock=self.clock,
            # The trace of an entry has what happened to it, and a drill is none of that.
            traced=False,
        )

    def run(self, stop: StopSignal, done: _Found) -> None:
        """Run until the source ends, `most` entries were read, or the stop signal; `done` has the progress. Raises
        TransientFailure.
        """
        pending = set[scheduling.Future[_Outcomes]]()

        def settle(futures: set[scheduling.Future[_Outcomes]]) -> None:
            for future in futures:
                counts, refused = future.result()
                done.counts.update(counts)
                done.refused_example = done.refused_example or refused
            self.on_progress(done.read)

        listed = self._listed()
        with scheduling.pool(self.concurrency, "drill") as pool:
            try:
                while not stop.is_set and (keys := list(islice(listed, self.batch))):
                    if not self.bucket.take(len(keys)):
                        break
                    if len(pending) >= self.concurrency:
                        finished, pending = scheduling.wait(pending, return_when=scheduling.FIRST_COMPLETED)
                        settle(finished)
                    pending.add(pool.submit(self._save, keys))
                else:
                    done.complete = not stop.is_set
            finally:
                finished, _ = scheduling.wait(pending)
            settle(finished)

    def _listed(self) -> Iterator[EntryKey]:
        keys = (key for page in self.table.pages(None) for key, _item in page.items)
        return islice(keys, self.most)

    def _save(self, keys: Sequence[EntryKey]) -> _Outcomes:
        # No message names such a key, so no save handles it.
        refused = [key for key in keys if key.problem]
        saved = self._saver.save(
            {key: KeyRequest(_MESSAGE_ID, _MESSAGE_ID) for key in keys if not key.problem}
        )
        counts = Counter(_in_short(outcome) for outcome in saved.outcomes.values())
        refused += [key for key, outcome in saved.outcomes.items() if isinstance(outcome, PermanentFailure)]
        counts["refused"] = len(refused)
        return counts, refused[0].shown if refused else ""


def _in_short(outcome: str | Failure) -> str:
    if isinstance(outcome, PermanentFailure):
        return "refused"
    if isinstance(outcome, Failure):
        # It is a difference, too, because the replica lacks the entry.
        return "failed"
    return "gone" if outcome == "gone" else "saved"


class _Recording:
    """Reads of the demand table that keep each state for the comparison as it was read: a later change is live traffic,
    and not a fault of the rebuild.
    """

    def __init__(self, table: SourceReads, comparison: Comparison) -> None:
        self._table, self._comparison = table, comparison

    def get(self, keys: Sequence[EntryKey]) -> dict[EntryKey, dict[str, Any]]:
        found = {key: dict(item) for key, item in self._table.get(keys).items()}
        self._comparison.expect([of_source(key, item) for key, item in found.items()])
        return found

    def clear_flags(self, entries: Sequence[Entry], replicated_at: str) -> Cleared:
        return Cleared([], [])


class _EveryCampaign:
    def known(self, ids: set[str]) -> set[str]:
        return ids


class _Nowhere:
    """A queue that takes everything and keeps nothing."""

    name = "nowhere"

    def send(self, messages: Sequence[Outgoing], *, within_seconds: float | None = None) -> list[SendFailure]:
        return []

    def receive(self, limit: int, wait_seconds: float, visibility_seconds: int) -> list[Received]:
        return []

    def delete(self, messages: Sequence[Received]) -> list[Received]:
        return []

    def change_visibility(self, messages: Sequence[tuple[Received, int]]) -> NotHidden:
        return NotHidden()

    def depth(self) -> QueueDepth:
        return QueueDepth(0, 0, 0)

    def state(self) -> DepthAndRetention:
        return DepthAndRetention(self.depth(), 0.0)


log = structlog.get_logger(__name__)
_SAMPLES = 5


def recovery_drill(
    runtime: Runtime,
    *,
    most: int | None = None,
    stop: StopSignal | None = None,
    on_progress: Progress = no_progress,
    on_phase: Callable[[str], None] = lambda _text: None,
    on_step: OnStep = no_step,
) -> DrillResult:
    """Rebuild up to `most` entries (None: all) into a scratch database at the rate of a backfill, compare them with
    what was read, and drop it in any case. Blocks until it ends.

    Raises UsageError when tables or addresses are missing, or when another drill began in the same second. A dependency
    that becomes unavailable is named in the result.
    """
    stop, found, scratch = stop or StopSignal(), _Found(), Scratch(runtime)
    total = None
    try:
        total = estimate_items(runtime)
        with runtime.operator_actions.recorded("drill recovery", scratch.name, {"most": most}) as noted:
            expected = total if most is None or (total is not None and total < most) else most
            on_progress = partial(on_progress, total=expected)
            _drill(runtime, scratch, found, most, stop, on_progress, on_phase, on_step)
            noted |= {"read": found.read, "differences": found.differences.total()}
    except TransientFailure as failure:
        found.ended, found.unavailable = "dependency_down", failure.dependency
        log.warning("recovery drill interrupted", dependency=failure.dependency, error=failure.error)
    counts, settings = found.counts, runtime.settings
    result = DrillResult(
        ended=found.ended,
        read=found.read,
        saved=counts["saved"],
        refused=counts["refused"],
        refused_example=found.refused_example,
        gone=counts["gone"],
        differences=dict(found.differences),
        samples=tuple(found.samples),
        seconds=found.seconds,
        compare_seconds=found.compare_seconds,
        total=found.read if found.complete and found.ended == "finished" else total,
        limit_per_second=settings.replication.backfill_items_per_second,
        objective_seconds=settings.replication.recovery_objective_seconds,
        scratch=scratch.name,
        dropped=found.dropped,
        unavailable=found.unavailable,
    )
    log.info("recovery drill ended", **{k: v for k, v in result.as_dict().items() if k != "samples"})
    return result


def _drill(
    runtime: Runtime,
    scratch: Scratch,
    found: _Found,
    most: int | None,
    stop: StopSignal,
    on_progress: Progress,
    on_phase: Callable[[str], None],
    on_step: OnStep,
) -> None:
    settings = runtime.settings
    collection = scratch.make()
    try:
        replica = Replica(collection, runtime.dependency("mongo"))
        with Comparison(settings.replication.compare_memory_mib) as comparison:
            on_phase(f"rebuilding into {scratch.name}")
            began = scheduling.monotonic()
            replay = Replay(
                runtime.demand_table,
                replica,
                comparison,
                TokenBucket(settings.replication.backfill_items_per_second, sleep=stop.wait),
                batch=settings.save.batch_messages * MAX_ITEMS,
                concurrency=settings.save.concurrency,
                most=most,
                run_id=f"drill-{uuid.uuid4().hex[:12]}",
                clock=runtime.clock,
                on_progress=on_progress,
            )
            try:
                replay.run(stop, found)
            finally:
                found.seconds = scheduling.monotonic() - began
            on_step("drill.after_rebuild")
            if not found.complete:
                found.ended = "stopped"
                return
            if most is not None and found.read >= most:
                found.ended = "most_entries"
            on_phase("comparing with the source as it was read")
            began = scheduling.monotonic()
            _compare(comparison, replica, found)
            found.compare_seconds = scheduling.monotonic() - began
    finally:
        on_phase(f"dropping {scratch.name}")
        found.dropped = scratch.drop_quietly()


def _compare(comparison: Comparison, replica: Replica, found: _Found) -> None:
    documents = replica.scan()
    while chunk := list(islice(documents, PAGE)):
        comparison.meet([of_replica(key, stored) for key, stored in chunk])
    for page in comparison.pages(PairProgress.FOUND):
        for difference in page:
            source, rebuilt = difference.pair
            if source is not None and source.invalid and rebuilt is None:
                # Counted as refused: no save would write it.
                continue
            kind = classify(source, rebuilt)
            if kind is not None:
                found.differences[kind.value] += 1
                if len(found.samples) < _SAMPLES:
                    found.samples.append(difference.key.shown)
