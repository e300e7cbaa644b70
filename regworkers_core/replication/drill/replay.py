"""Entries of the demand table through the save path into another replica: nothing of the real flow is touched.

The steps are those of the save drain. What would leave them goes nowhere: no flag is cleared, no event and no key is
sent, no dead letter is opened or closed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from regworkers_core.adapters.aws.demand_table import Cleared
from regworkers_core.adapters.mongo.replica import Replica
from regworkers_core.domain.entry import Entry
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import Failure, PermanentFailure
from regworkers_core.engine.ports import NotHidden, Outgoing, QueueDepth, Received, SendFailure
from regworkers_core.engine.rate import TokenBucket
from regworkers_core.engine.stop import StopSignal
from regworkers_core.replication.reconcile.compare import Comparison
from regworkers_core.replication.reconcile.sides import SourceReads
from regworkers_core.replication.reconcile.states import of_source
from regworkers_core.replication.save.saver import Saver, Wanted

_MESSAGE_ID = "recovery-drill"
# How many came to what, and one that was refused.
_Outcomes = tuple[Counter[str], str]


@dataclass(slots=True)
class Replayed:
    """Entries by what became of them; `complete` when all that was asked for was replayed. `refused_example` is the id
    of an entry that was refused, as it may be shown.
    """

    counts: Counter[str] = field(default_factory=Counter)
    complete: bool = False
    refused_example: str = ""

    @property
    def read(self) -> int:
        return self.counts.total()


class Replay:
    """`batch` entries at a time, `concurrency` batches at once; at most `most` entries (None: all)."""

    def __init__(
        self,
        table: SourceReads,
        replica: Replica,
        comparison: Comparison,
        bucket: TokenBucket,
        *,
        batch: int,
        concurrency: int,
        most: int | None,
        run_id: str,
        clock: Callable[[], float],
        on_progress: Callable[[int], None],
    ) -> None:
        self._table, self._bucket = table, bucket
        self._batch, self._concurrency, self._most = batch, concurrency, most
        self._on_progress = on_progress
        self._saver = Saver(
            _Recording(table, comparison),
            replica,
            _EveryCampaign(),
            _Nowhere(),
            _Nowhere(),
            run_id=run_id,
            clock=clock,
        )

    def run(self, stop: StopSignal, done: Replayed) -> None:
        """Until the source ends, `most` entries were read, or the stop signal; `done` says how far it came. Raises
        TransientFailure.
        """
        pending = set[Future[_Outcomes]]()

        def settle(futures: set[Future[_Outcomes]]) -> None:
            for future in futures:
                counts, refused = future.result()
                done.counts.update(counts)
                done.refused_example = done.refused_example or refused
            self._on_progress(done.read)

        listed = self._listed()
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix="drill") as pool:
            try:
                while not stop.is_set and (keys := list(islice(listed, self._batch))):
                    if not self._bucket.take(len(keys)):
                        break
                    if len(pending) >= self._concurrency:
                        finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                        settle(finished)
                    pending.add(pool.submit(self._save, keys))
                else:
                    done.complete = not stop.is_set
            finally:
                finished, _ = wait(pending)
            settle(finished)

    def _listed(self) -> Iterator[EntryKey]:
        keys = (key for page in self._table.pages(None) for key, _item in page.items)
        return islice(keys, self._most)

    def _save(self, keys: Sequence[EntryKey]) -> _Outcomes:
        # No message would name such a key, so that no save meets it.
        refused = [key for key in keys if key.problem]
        saved = self._saver.save({key: Wanted(_MESSAGE_ID, _MESSAGE_ID) for key in keys if not key.problem})
        counts = Counter(_in_short(outcome) for outcome in saved.outcomes.values())
        refused += [key for key, outcome in saved.outcomes.items() if isinstance(outcome, PermanentFailure)]
        counts["refused"] = len(refused)
        return counts, refused[0].shown if refused else ""


def _in_short(outcome: str | Failure) -> str:
    if isinstance(outcome, PermanentFailure):
        return "refused"
    if isinstance(outcome, Failure):
        # It counts as a difference, too: the replica lacks the entry.
        return "failed"
    return "gone" if outcome == "gone" else "saved"


class _Recording:
    """Reads of the demand table, each state kept for the comparison as it was read: whatever changes later is live
    traffic, and no fault of the rebuild.
    """

    def __init__(self, table: SourceReads, comparison: Comparison) -> None:
        self._table, self._comparison = table, comparison

    def get(self, keys: Sequence[EntryKey]) -> dict[EntryKey, dict[str, Any]]:
        found = {key: dict(item) for key, item in self._table.get(keys).items()}
        self._comparison.add("source", [of_source(key, item) for key, item in found.items()])
        return found

    def clear_flags(self, entries: Sequence[Entry], replicated_at: str) -> Cleared:
        return Cleared([], [])


class _EveryCampaign:
    def known(self, ids: set[str]) -> set[str]:
        return ids


class _Nowhere:
    """A queue that takes everything and keeps nothing."""

    name = "nowhere"

    def send(self, messages: Sequence[Outgoing]) -> list[SendFailure]:
        return []

    def receive(self, limit: int, wait_seconds: float, visibility_seconds: int) -> list[Received]:
        return []

    def delete(self, messages: Sequence[Received]) -> list[Received]:
        return []

    def change_visibility(self, messages: Sequence[tuple[Received, int]]) -> NotHidden:
        return NotHidden()

    def depth(self) -> QueueDepth:
        return QueueDepth(0, 0, 0)
