"""The first half of the demo: entries are written, and sensors and drains bring them to the replica."""

from __future__ import annotations

import bisect
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.live import Live
from rich.table import Table

from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.domain.timestamps import seconds
from regworkers_core.drains.heartbeat import beats
from regworkers_core.drains.residency import WORKING
from regworkers_core.engine.drain_report import OUTCOMES, Percentiles
from regworkers_core.engine.stop import StopSignal
from regworkers_core.operations.health.activity import Activity, Window
from regworkers_core.replication.enqueue.stream_probe import has_unread
from regworkers_core.replication.reconcile.reconciliation import reconcile
from regworkers_core.runtime import Runtime
from regworkers_local.load import Loaded, Loader, LoadPlan
from tools.demo.life import Console

_DRAINS = ("enqueue", "save")
# Residents record their numbers every 15 s, and start within some 15 s.
_RECORDED_SECONDS = 30.0
_READY_SECONDS = 60.0


def recorded(runtime: Runtime, since: float) -> dict[str, Counter[str]]:
    """Item counts of each drain since that minute, in all its runs."""
    found = Activity(runtime).over(Window(since, runtime.clock()))
    return {drain: found[drain].counts if drain in found else Counter() for drain in _DRAINS}


# Without a terminal, a line of progress this often.
_LINE_SECONDS = 5.0
_PAUSE_SECONDS = 1.0


class Progress:
    """Shows source, queue, replica and lag, from cheap calls once a second."""

    def __init__(self, runtime: Runtime, loader: Loader, plan: LoadPlan) -> None:
        self._runtime, self._loader, self._plan = runtime, loader, plan
        # Numbers of written entries and their times. With the replica's count they give the lag.
        self._written: list[int] = []
        self._written_at: list[float] = []
        self._live: Live | None = None
        self._console: Console | None = None
        self._printed_at = 0.0
        self.started = time.monotonic()
        self.finished = self.started

    def note(self, done: int, total: int | None = None, unit: str = "") -> None:
        """Record a write of the loader."""
        if not self._written or done > self._written[-1]:
            self._written.append(done)
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

    def update(self) -> bool:
        """Show the current state. True if everything has arrived."""
        try:
            queue = self._runtime.queue(self._runtime.names.replication_queue).depth().total
            replica = self._runtime.replica.estimate()
            unread = has_unread(self._runtime.streams, self._runtime.leases)
        except Failure:
            # A busy server may miss its time-out; the next call decides.
            return False
        loaded = self._loader.loaded
        self._show(loaded, queue, replica, self._lag(replica))
        done = loaded.inserted == self._plan.entries and not queue and not unread
        if done:
            self.finished = time.monotonic()
        return done

    def _lag(self, replica: int) -> float:
        """Seconds since the oldest entry that is missing in the replica was written."""
        index = bisect.bisect_right(self._written, replica)
        return 0.0 if index >= len(self._written) else time.monotonic() - self._written_at[index]

    def _show(self, loaded: Loaded, queue: int, replica: int, lag: float) -> None:
        elapsed = time.monotonic() - self.started
        if self._live is not None and self._console is not None:
            table = Table("", "written", "updated", "removed", "queue", "replica", "lag")
            cells = (loaded.inserted, loaded.updated, loaded.removed, queue, replica)
            table.add_row(f"{elapsed:4.0f} s", *(f"{cell:,}" for cell in cells), f"{lag:.1f} s")
            self._live.update(table)
            self._console.seen()
        elif self._console is not None and time.monotonic() - self._printed_at >= _LINE_SECONDS:
            self._printed_at = time.monotonic()
            self._console.print(
                f"{elapsed:4.0f} s  source {loaded.inserted:,} written, {loaded.updated:,} updated, "
                f"{loaded.removed:,} removed | queue {queue:,} messages | replica {replica:,} | lag {lag:.1f} s"
            )


class Sums:
    """A table of numbers and the parts that add up to them; `equal` while all do."""

    def __init__(self, title: str) -> None:
        self.table = Table("", "", "adds up to", title=title)
        self.equal = True

    def row(self, name: str, value: int, parts: Mapping[str, int]) -> None:
        equal = value == sum(parts.values())
        self.equal = self.equal and equal
        text = " + ".join(f"{part:,} {label}" for label, part in parts.items() if part) or "0"
        self.table.add_row(name, f"{value:,}", f"{'=' if equal else '≠'} {text.replace('+ -', '− ')}")


def lag_of_replica(runtime: Runtime) -> Percentiles:
    """The lag of each entry in seconds, from the custody fields."""
    lags = Percentiles()
    for _, stored in runtime.replica.scan():
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
    """The final table, and whether its numbers add up.

    `drains` has the summed counters of each drain; `comparison` the numbers of reconcile.
    """
    sums = Sums("Replication of two campaigns")
    table, row = sums.table, sums.row
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
    table.add_row("first entry, idle system", f"{first_seconds:.1f} s", "drains are ready before it")
    table.add_row("lag", f"p50 {lag['p50']} s", f"p95 {lag['p95']} s, p99 {lag['p99']} s, max {lag['max']} s")
    # A change is a record, and a key that is sent is received.
    whole = enqueue["received"] >= sum(changes.values()) and save["received"] >= enqueue["sent"]
    return table, sums.equal and whole


def _outcomes(counts: Counter[str]) -> dict[str, int]:
    return {name: counts[name] for name in OUTCOMES}


def _joined(parts: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in parts.items())


def replicate(
    runtime: Runtime,
    plan: LoadPlan,
    stop: StopSignal,
    console: Console,
    give_up_seconds: float,
) -> bool:
    """Write the plan and wait until it has arrived. True if the replica equals the source."""
    since = runtime.clock()
    before = recorded(runtime, since)
    loader = Loader(runtime, plan)
    loader.write_campaigns()
    _await_residents(runtime, stop, console)
    first_seconds = _await_first(runtime, loader, stop, console, give_up_seconds)
    progress = Progress(runtime, loader, plan)
    failure: list[Exception] = []

    def write() -> None:
        try:
            loader.run(stop, progress.note)
        except (Failure, UsageError) as error:
            failure.append(error)
            stop.set()

    writer = threading.Thread(target=write, name="loader")
    writer.start()
    give_up = time.monotonic() + give_up_seconds
    with progress.live(console):
        while not stop.wait(_PAUSE_SECONDS) and time.monotonic() < give_up:
            if progress.update() and not writer.is_alive():
                break
    writer.join()
    if failure:
        raise failure[0]
    if stop.is_set:
        raise UsageError("stopped")
    console.print("all arrived; comparing both sides and waiting for the numbers of the drains")
    result = reconcile(runtime)
    dead = runtime.queue(runtime.names.dead_letter_queue(runtime.names.replication_queue)).depth().total
    give_up, adds_up = time.monotonic() + _RECORDED_SECONDS, False
    while not adds_up:
        counts = {drain: now - before[drain] for drain, now in recorded(runtime, since).items()}
        table, adds_up = summary(
            loader.loaded,
            counts,
            result.totals,
            lag_of_replica(runtime),
            progress.finished - progress.started,
            dead,
            first_seconds,
        )
        if time.monotonic() > give_up or stop.wait(_PAUSE_SECONDS):
            break
    Console(soft_wrap=True).print(table)
    if not result.clean:
        console.print("replica and source differ: `regworkers reconcile` names the entries")
    if not adds_up:
        console.print("the numbers do not add up")
    return result.clean and adds_up


def _await_residents(runtime: Runtime, stop: StopSignal, console: Console) -> None:
    """A campaign is open: sensors start drains, which stay."""
    console.print("two campaigns are open; waiting for the drains that sensors start for them")
    give_up = time.monotonic() + _READY_SECONDS
    while time.monotonic() < give_up and not stop.wait(_PAUSE_SECONDS):
        roles = [{beat.role for beat in beats(runtime.leases, drain)} for drain in _DRAINS]
        if all(WORKING in each for each in roles):
            return


def _await_first(
    runtime: Runtime, loader: Loader, stop: StopSignal, console: Console, give_up_seconds: float
) -> float:
    """Seconds until the first entry on an idle system arrived."""
    began = time.monotonic()
    key = loader.insert_first()
    console.print("one entry written; waiting for sensors and drains to replicate it")
    while not runtime.replica.get([key]):
        if stop.wait(0.2):
            raise UsageError("stopped")
        if time.monotonic() - began > give_up_seconds:
            raise UsageError("the first entry did not arrive: see the runs in the Dagster UI")
    seconds = time.monotonic() - began
    console.print(f"it arrived after {seconds:.1f} s; now the rest")
    return seconds
