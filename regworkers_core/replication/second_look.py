"""Every save is compared once more a minute later: the guard decides what is written, and this sees whether it stayed.

It finds what no guard can: a confirmed write that an election of MongoDB rolled back, another writer's change of the
replica, a change of the source under the same order whose key never came, a field that the save itself gets wrong. What
a newer order explains is on its way, and has a second look of its own. The rest is counted by class and its key is sent
again, which the guard makes harmless. A removal that never came, and saves that are not looked at, are left to the next
cycle of reconcile.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import structlog

from fairdraw import scheduling
from regworkers_core.adapters.mongo.entry_documents import Write
from regworkers_core.domain.entry import Order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import Op, ReplicationItem
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.dependency import TokenBucket
from regworkers_core.engine.queue import Queue
from regworkers_core.observability.logs import describe
from regworkers_core.replication.keys import send_keys
from regworkers_core.replication.reconcile.classify import Kind, Pair, Sides, classify
from regworkers_core.settings import SaveSettings

log = structlog.get_logger(__name__)
# The share of the seconds after a save that lies between two rounds.
_ROUND_SHARE = 1 / 4
_PAGE = 100
# What is counted of each class.
COUNTED = {kind: f"second_look_{kind.value}" for kind in Kind}
_SENT_AGAIN = {Kind.MISSING: Op.UPSERT, Kind.STALE: Op.UPSERT, Kind.ORPHANED: Op.REMOVE}
# Separates what is kept of a save, as one text to take little memory: neither ids nor times hold control characters.
_SEPARATOR = "\n"


class _Saved(NamedTuple):
    order: Order
    live: bool


class SecondLook:
    """Beside one save drain, in a thread of its own; `note` and `counts` may be called from any thread."""

    def __init__(self, sides: Sides, queue: Queue, settings: SaveSettings) -> None:
        self._sides, self._queue = sides, queue
        self._after, self._most = settings.second_look_seconds, settings.second_look_entries
        self._done = scheduling.event()
        self._bucket = TokenBucket(settings.second_look_per_second, sleep=self._done.wait)
        self._lock = scheduling.lock()
        # When each was saved, and what.
        self._waiting: deque[tuple[float, str]] = deque()
        self._taken: list[tuple[float, str]] = []
        self._counts: Counter[str] = Counter()
        self._thread: scheduling.Thread | None = None

    def note(self, saved: Sequence[Write]) -> None:
        """These were written now. Beyond the limit the oldest are dropped."""
        now = scheduling.monotonic()
        kept = [
            (now, _SEPARATOR.join((*each.key, *map(str, each.order), "" if each.fields is None else "live")))
            for each in saved
        ]
        with self._lock:
            self._waiting.extend(kept)
            while len(self._waiting) > self._most:
                self._waiting.popleft()
                self._counts["second_look_skipped"] += 1
            if self._thread is None:
                self._thread = scheduling.start(self._run, "second-look")

    def counts(self) -> Counter[str]:
        """What was counted since the last call."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return counts

    def close(self) -> None:
        """End without waiting; what was not looked at is counted as skipped."""
        self._done.set()
        with self._lock:
            self._counts["second_look_skipped"] += len(self._waiting) + len(self._taken)
            self._waiting.clear()
            self._taken = []

    def _run(self) -> None:
        while not self._done.wait(self._after * _ROUND_SHARE):
            try:
                while (page := self._take()) and self._bucket.take(len(page)):
                    self._settle(self._compare(page))
            except TransientFailure as failure:
                log.warning("second look put off", dependency=failure.dependency, error=failure.error)
                self._put_back()
            except Exception as error:
                # After the end the connections of the drain may be closed.
                if not self._done.is_set():
                    log.error("second look failed", error=describe(error))
                self._settle(Counter(second_look_skipped=len(self._taken)))

    def _take(self) -> dict[EntryKey, _Saved]:
        until = scheduling.monotonic() - self._after
        with self._lock:
            while len(self._taken) < _PAGE and self._waiting and self._waiting[0][0] <= until:
                self._taken.append(self._waiting.popleft())
            # The last of several saves of an entry explains the others.
            return dict(_read(text) for _, text in self._taken)

    def _put_back(self) -> None:
        with self._lock:
            self._waiting.extendleft(reversed(self._taken))
            self._taken = []

    def _settle(self, found: Counter[str]) -> None:
        with self._lock:
            if self._taken:
                self._counts.update(found)
                self._taken = []

    def _compare(self, saved: Mapping[EntryKey, _Saved]) -> Counter[str]:
        """What became of these. Raises TransientFailure."""
        counts = Counter(second_look=len(saved))
        looked = self._sides.read(list(saved), consistent=False)
        differing = [key for key, pair in looked.items() if classify(*pair) is not None]
        again = []
        # One that is not consistent may show what was there before.
        for key, pair in self._sides.read(differing).items() if differing else ():
            kind = classify(*pair)
            if kind is None:
                continue
            if _is_explained(pair, saved[key]):
                counts["second_look_changed"] += 1
                continue
            counts[COUNTED[kind]] += 1
            log.error(
                "an entry that was saved differs", campaignId=key.campaign_id, entryId=key.entry_id, kind=kind
            )
            if kind in _SENT_AGAIN:
                order = max(side.order for side in pair if side is not None)
                again.append(ReplicationItem(key, _SENT_AGAIN[kind], order))
        if again:
            send_keys(self._queue, again)
        return counts


class _Taken(NamedTuple):
    key: EntryKey
    saved: _Saved


def _read(text: str) -> _Taken:
    campaign_id, entry_id, created_at, version, updated_at, live = text.split(_SEPARATOR)
    saved = _Saved(Order(created_at, int(version), updated_at), bool(live))
    return _Taken(EntryKey(campaign_id, entry_id), saved)


def _is_explained(pair: Pair, saved: _Saved) -> bool:
    """Whether a newer change is on its way: of the source, or its removal, where the replica has what was saved."""
    source, replica = pair
    if source is not None:
        return source.order > saved.order
    if replica is None:
        return False
    return replica.order >= saved.order if saved.live else replica.order > saved.order
