"""What the demo shows while it runs and at its end."""

from __future__ import annotations

import bisect
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from regworkers_core.domain.reasons import Failure
from regworkers_core.domain.timestamps import seconds
from regworkers_core.engine.drain import OUTCOMES
from regworkers_core.engine.percentiles import Percentiles
from regworkers_core.replication.enqueue.stream_probe import has_unread
from regworkers_core.runtime import Runtime
from regworkers_local.load import Loaded, Loader, LoadPlan

# Without a terminal a line this often.
_LINE_SECONDS = 5.0


class Progress:
    """Source, queue, replica and lag, read once a second with cheap calls."""

    def __init__(self, runtime: Runtime, loader: Loader, plan: LoadPlan) -> None:
        self._runtime, self._loader, self._plan = runtime, loader, plan
        # When so many entries were written: the replica's count then tells how far it is behind.
        self._written: list[int] = []
        self._written_at: list[float] = []
        self._live: Live | None = None
        self._console: Console | None = None
        self._told_at = 0.0
        self.started = time.monotonic()
        self.finished = self.started

    def note(self, loaded: Loaded) -> None:
        """Called by the loader after each write."""
        if not self._written or loaded.inserted > self._written[-1]:
            self._written.append(loaded.inserted)
            self._written_at.append(time.monotonic())

    @contextmanager
    def live(self, console: Console) -> Iterator[None]:
        """A table that refreshes on a terminal; lines elsewhere."""
        self._console = console
        if not console.is_terminal:
            yield
            return
        with Live(console=console, refresh_per_second=2, transient=True) as self._live:
            yield

    def look(self) -> bool:
        """Show where things stand; True when nothing is on its way any more."""
        try:
            queue = self._runtime.queue(self._runtime.names.replication_queue).depth().total
            replica = self._runtime.replica.count()
            unread = has_unread(self._runtime.streams, self._runtime.leases)
        except Failure:
            # A busy server may miss its time-out; the next look will tell.
            return False
        loaded = self._loader.loaded
        self._show(loaded, queue, replica, self._lag(replica))
        done = loaded.inserted == self._plan.entries and not queue and not unread
        if done:
            self.finished = time.monotonic()
        return done

    def _lag(self, replica: int) -> float:
        """Seconds since the oldest entry was written that the replica does not have yet."""
        index = bisect.bisect_right(self._written, replica)
        return 0.0 if index >= len(self._written) else time.monotonic() - self._written_at[index]

    def _show(self, loaded: Loaded, queue: int, replica: int, lag: float) -> None:
        elapsed = time.monotonic() - self.started
        if self._live is not None:
            table = Table("", "written", "updated", "removed", "queue", "replica", "lag")
            cells = (loaded.inserted, loaded.updated, loaded.removed, queue, replica)
            table.add_row(f"{elapsed:4.0f} s", *(f"{cell:,}" for cell in cells), f"{lag:.1f} s")
            self._live.update(table)
        elif self._console is not None and time.monotonic() - self._told_at >= _LINE_SECONDS:
            self._told_at = time.monotonic()
            self._console.print(
                f"{elapsed:4.0f} s  source {loaded.inserted:,} written, {loaded.updated:,} updated, "
                f"{loaded.removed:,} removed | queue {queue:,} messages | replica {replica:,} | lag {lag:.1f} s"
            )


def lag_of_replica(runtime: Runtime) -> Percentiles:
    """Seconds from each entry's last change to its replica, from the custody fields."""
    lags = Percentiles()
    for _, stored in runtime.replica.scan(None):
        changed = seconds(str(stored.custody.get("updatedAt", "")))
        saved = seconds(str(stored.custody.get("replicatedAt", "")))
        if stored.deleted_at is None and changed is not None and saved is not None:
            lags.add(saved - changed)
    return lags


def summary(
    loaded: Loaded,
    drains: Mapping[str, Counter[str]],
    comparison: Mapping[str, Any],
    lags: Percentiles,
    seconds_taken: float,
    dead_letters: int,
    first_seconds: float,
) -> tuple[Table, bool]:
    """The table at the end, and whether its numbers add up.

    `drains` has the summed counters of each drain's runs; `comparison` the numbers of reconcile.
    """
    table = Table("", "", "adds up to", title="Replication of two campaigns")
    fine = True

    def row(name: str, value: int, parts: Mapping[str, int]) -> None:
        nonlocal fine
        equal = value == sum(parts.values())
        fine = fine and equal
        text = " + ".join(f"{part:,} {label}" for label, part in parts.items() if part) or "0"
        table.add_row(name, f"{value:,}", f"{'=' if equal else '≠'} {text.replace('+ -', '− ')}")

    enqueue, save = drains["enqueue"], drains["save"]
    changes = {"inserted": loaded.inserted, "updated": loaded.updated, "removed": loaded.removed}
    table.add_row("changes written", f"{sum(changes.values()):,}", _joined(changes))
    row("stream records received", enqueue["received"], _outcomes(enqueue))
    row("keys received by save", save["received"], _outcomes(save))
    row(
        "entries in the source",
        comparison["source"],
        {"inserted": loaded.inserted, "removed": -loaded.removed},
    )
    row("entries in the replica", comparison["replica"], {"in the source": comparison["source"]})
    table.add_row("tombstones", f"{comparison['tombstones']:,}", "removed after their first save")
    row("dead letters", dead_letters, {})
    events = save["events"]
    table.add_row("events queued", f"{events:,}", "one per saved state; a repeat has the same id")
    rate = sum(changes.values()) / max(seconds_taken, 0.001)
    table.add_row("time", f"{seconds_taken:.1f} s", f"{rate:,.0f} changes/s, from first write to last")
    lag = lags.summary()
    table.add_row("first entry, idle system", f"{first_seconds:.1f} s", "a tick and two runs start")
    table.add_row("lag", f"p50 {lag['p50']} s", f"p95 {lag['p95']} s, p99 {lag['p99']} s, max {lag['max']} s")
    return table, fine


def _outcomes(counts: Counter[str]) -> dict[str, int]:
    return {name: counts[name] for name in OUTCOMES}


def _joined(parts: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in parts.items())
