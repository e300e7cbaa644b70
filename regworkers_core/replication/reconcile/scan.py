"""Reading both sides as a whole: the demand table first, so that the replica is never the older picture."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

from regworkers_core.replication.reconcile.compare import Comparison
from regworkers_core.replication.reconcile.sides import ReplicaAccess, SourceReads
from regworkers_core.replication.reconcile.states import of_replica, of_source

T = TypeVar("T")
Tick = Callable[[int], None]
_CHUNK = 5000


def load_source(
    comparison: Comparison, table: SourceReads, campaign_id: str | None, segments: int, tick: Tick
) -> None:
    """A parallel scan in `segments` threads, or a query of one campaign, which is one partition."""
    cancelled = threading.Event()

    def read(segment: int) -> None:
        for page in table.pages(campaign_id, segment, segments):
            if cancelled.is_set():
                return
            comparison.add("source", [of_source(key, item) for key, item in page.items])
            tick(len(page.items))

    segments = segments if campaign_id is None else 1
    with ThreadPoolExecutor(segments, thread_name_prefix="reconcile") as pool:
        futures = [pool.submit(read, segment) for segment in range(segments)]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        finally:
            # The others end with their page when one failed or the caller is interrupted.
            cancelled.set()


def load_replica(comparison: Comparison, replica: ReplicaAccess, campaign_id: str | None, tick: Tick) -> None:
    """Every document, tombstones included."""
    for chunk in _chunks(replica.scan(campaign_id), _CHUNK):
        comparison.add("replica", [of_replica(key, stored) for key, stored in chunk])
        tick(len(chunk))


def _chunks(values: Iterable[T], size: int) -> Iterator[list[T]]:
    remaining = iter(values)
    while chunk := list(islice(remaining, size)):
        yield chunk
