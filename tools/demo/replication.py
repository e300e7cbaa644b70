"""The first half of the demo: entries are written, and sensors and drains bring them to the replica."""

from __future__ import annotations

import bisect
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from rich.console import Console
from rich.live import Live
from rich.table import Table

from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.domain.timestamps import seconds
from regworkers_core.engine.drain_report import OUTCOMES
from regworkers_core.engine.percentiles import Percentiles
from regworkers_core.engine.stop import StopSignal
from regworkers_core.replication.enqueue.stream_probe import has_unread
from regworkers_core.replication.reconcile import reconcile
from regworkers_core.runtime import Runtime
from regworkers_local.dagster_server import DagsterProcess
from regworkers_local.load import Loaded, Loader, LoadPlan

# The asset that each drain materialises, and the tag that marks its runs.
ASSETS: Mapping[str, str] = {"enqueue": "replication_queue", "save": "entries"}
DRAIN_TAG = "regworkers/drain"
_ACTIVE = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]


class DrainRuns:
    """The reports of a Dagster instance's drains, summed over their runs.

    Relative folders in its storage resolve against the working directory.
    """

    def __init__(self, home: Path, since: float) -> None:
        self._instance = dg.DagsterInstance.from_config(str(home))
        self._since = since

    def active(self) -> int:
        """Drains that are queued or running."""
        filters = dg.RunsFilter(tags={DRAIN_TAG: list(ASSETS)}, statuses=_ACTIVE)
        return self._instance.get_runs_count(filters)

    def counts(self) -> dict[str, Counter[str]]:
        """Item counts of each drain over all its runs since `since`."""
        summed: dict[str, Counter[str]] = {}
        for drain, asset in ASSETS.items():
            records = self._instance.fetch_materializations(
                dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), after_timestamp=self._since), limit=1000
            ).records
            counts: Counter[str] = Counter()
            for record in records:
                materialization = record.asset_materialization
                for name, value in (materialization.metadata if materialization else {}).items():
                    if isinstance(value, dg.IntMetadataValue):
                        counts[name] += value.value or 0
            summed[drain] = counts
        return summed


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

    def note(self, loaded: Loaded) -> None:
        """Record a write of the loader."""
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

    def update(self) -> bool:
        """Show the current state. True if everything has arrived."""
        try:
            queue = self._runtime.queue(self._runtime.names.replication_queue).depth().total
            replica = self._runtime.replica.count()
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
        if self._live is not None:
            table = Table("", "written", "updated", "removed", "queue", "replica", "lag")
            cells = (loaded.inserted, loaded.updated, loaded.removed, queue, replica)
            table.add_row(f"{elapsed:4.0f} s", *(f"{cell:,}" for cell in cells), f"{lag:.1f} s")
            self._live.update(table)
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
    """The final table, and whether its numbers add up.

    `drains` has the summed counters of each drain's runs; `comparison` the numbers of reconcile.
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
    table.add_row("first entry, idle system", f"{first_seconds:.1f} s", "a tick and two runs start")
    table.add_row("lag", f"p50 {lag['p50']} s", f"p95 {lag['p95']} s, p99 {lag['p99']} s, max {lag['max']} s")
    return table, sums.equal


def _outcomes(counts: Counter[str]) -> dict[str, int]:
    return {name: counts[name] for name in OUTCOMES}


def _joined(parts: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in parts.items())


def replicate(
    runtime: Runtime,
    dagster: DagsterProcess,
    plan: LoadPlan,
    stop: StopSignal,
    console: Console,
    give_up_seconds: float,
) -> bool:
    """Write the plan and wait until it has arrived. True if the replica equals the source."""
    runs = DrainRuns(dagster.home, time.time())
    loader = Loader(runtime, plan)
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
    console.print("all arrived; comparing both sides and waiting for the drains to end")
    result = reconcile(runtime)
    while runs.active() and time.monotonic() < give_up and not stop.wait(_PAUSE_SECONDS):
        pass
    dead = runtime.queue(runtime.names.dead_letter_queue(runtime.names.replication_queue)).depth().total
    table, adds_up = summary(
        loader.loaded,
        runs.counts(),
        result.totals,
        lag_of_replica(runtime),
        progress.finished - progress.started,
        dead,
        first_seconds,
    )
    Console(soft_wrap=True).print(table)
    if not result.clean:
        console.print("replica and source differ: `regworkers reconcile` names the entries")
    if not adds_up:
        console.print("the numbers do not add up")
    return result.clean and adds_up


def _await_first(
    runtime: Runtime, loader: Loader, stop: StopSignal, console: Console, give_up_seconds: float
) -> float:
    """Seconds until the first entry on an idle system arrived: a sensor's tick and the start of two runs."""
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
