"""Lag through Dagster's daemon, its sensors and the drains that they start, seen from outside: the clock runs
from an entry's `updatedAt` until a reader of the replica finds it. The drains are the only readers of the stream.
"""

from __future__ import annotations

import math
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from typing import Any

import psutil

from benchmarks.replication.data import Entries, Item, system, write
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.drains.heartbeat import beats
from regworkers_core.drains.residency import WORKING
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from regworkers_local import processes
from regworkers_local.dagster_server import DagsterProcess
from regworkers_local.state import read_json, write_json
from tests.support.waiting import wait_until

PER_SECOND = 200.0
FIRST_ENTRIES, LATER_PART = 5, 10
HAND_OVERS = 5
NEW_RUN = "new run of"
_DRAINS = ("enqueue", "save")
_BATCH = 10
_LOOK_EVERY_SECONDS = 0.05
# Number of the longest awaited entries that one read requests.
_LOOK_AT = 500
_PATIENCE_SECONDS = 300.0
# Of the plot.
_BIN_SECONDS = 5
# Before the daemon goes and after it is back.
_AROUND_SECONDS = 60.0

Say = Callable[[str], None]
Figures = dict[str, Any]


def steady(minutes: float, say: Say) -> Figures:
    """Under load, with drains that are replaced at least four times."""
    with _scene(say, resident_max_seconds=minutes * 60 / HAND_OVERS) as scene:
        return scene.load(minutes * 60)


def first(minutes: float, say: Say) -> Figures:
    """One entry after this time without any, and four more after a tenth of it each."""
    phase = random.Random(7)
    found = []
    with _scene(say) as scene:
        for number in range(FIRST_ENTRIES):
            idle = minutes / LATER_PART if number else minutes
            # Sensors tick every five seconds: at a random moment between two ticks.
            time.sleep(idle * 60 + phase.uniform(0, 5))
            seconds = scene.one()
            say(f"first entry after {idle:g} idle minutes: {seconds:.2f} s")
            found.append({"idleMinutes": idle, "seconds": seconds})
    return {"entries": found, "worst": max(each["seconds"] for each in found)}


def kill(minutes: float, say: Say) -> Figures:
    """Under load, with a run at work killed once a minute, `enqueue` and `save` in turn."""
    with _scene(say) as scene:

        def strike() -> None:
            for number in range(max(int(minutes), 1)):
                scene.sleep_until((number + 0.5) * 60)
                scene.kill(_DRAINS[number % len(_DRAINS)])

        return scene.load(max(minutes, 1) * 60, strike)


def no_daemon(minutes: float, say: Say) -> Figures:
    """Under load, with the daemon killed and started again after this time."""
    with _scene(say) as scene:

        def strike() -> None:
            scene.sleep_until(_AROUND_SECONDS)
            with scene.without_daemon():
                time.sleep(minutes * 60)

        return scene.load(minutes * 60 + 2 * _AROUND_SECONDS, strike)


def no_daemon_kill(minutes: float, say: Say) -> Figures:
    """As `no_daemon`, and a run of both drains is killed meanwhile."""
    with _scene(say) as scene:

        def strike() -> None:
            scene.sleep_until(_AROUND_SECONDS)
            with scene.without_daemon():
                time.sleep(minutes * 30)
                for drain in _DRAINS:
                    scene.kill(drain)
                time.sleep(minutes * 30)

        return scene.load(minutes * 60 + 2 * _AROUND_SECONDS, strike)


@dataclass
class _Scene:
    """A running system; marks are what happened during its load, in seconds after its begin."""

    runtime: Runtime
    dagster: DagsterProcess
    say: Say
    entries: Entries = field(default_factory=Entries)
    marks: list[tuple[float, str]] = field(default_factory=list)
    begun: float = 0.0

    def one(self) -> float:
        """Seconds of one entry."""
        (item,) = self.entries.round(1, time.time())
        at = time.time()
        write(self.runtime, [item])
        wait_until(
            lambda: self.visible([_id(item)]), seconds=_PATIENCE_SECONDS, what="the arrival of an entry"
        )
        return round(time.time() - at, 2)

    def load(self, seconds: float, strike: Callable[[], None] = lambda: None) -> Figures:
        """Entries at an even rate for this time, once drains run; `strike` runs beside it."""
        self.one()
        self.begun = time.time()
        load, over = _Load(self), threading.Event()
        failed: list[BaseException] = []

        def guarded(work: Callable[[], None]) -> None:
            try:
                work()
            except BaseException as error:
                failed.append(error)

        works = (lambda: load.write_all(seconds), strike)
        threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in works]
        known = {run_id for drain in _DRAINS for run_id in self._at_work(drain)}
        observer = threading.Thread(target=self._observe, args=(known, over), daemon=True)
        for each in (*threads, observer):
            each.start()
        load.read_all(lambda: any(each.is_alive() for each in threads))
        over.set()
        observer.join()
        if failed:
            raise failed[0]
        self.say(f"{load.written:,} entries at {PER_SECOND:g}/s, {len(load.awaited)} of them not seen")
        return load.figures() | {
            "newRuns": sum(what.startswith(NEW_RUN) for _, what in self.marks),
            "marks": [[round(at, 1), what] for at, what in sorted(self.marks)],
        }

    def visible(self, ids: Sequence[str]) -> list[str]:
        query: dict[str, Any] = {"_id": {"$in": list(ids)}}
        return [document["_id"] for document in self.runtime.database["entries"].find(query, {"_id": 1})]

    def sleep_until(self, seconds: float) -> None:
        time.sleep(max(0.0, self.begun + seconds - time.time()))

    def kill(self, drain: str) -> None:
        """The run that is at work, without a chance to tell anyone."""
        pids = wait_until(lambda: self._at_work(drain), what=f"a run of {drain}")
        # Marked first: the one that follows is seen afterwards.
        self._mark(f"kill {drain}")
        os.kill(next(iter(pids.values())), signal.SIGKILL)

    @contextmanager
    def without_daemon(self) -> Iterator[None]:
        """Inside there is none, by SIGKILL; its runs stay."""
        file = self.dagster.folder / "dagster.json"
        document = read_json(file)
        daemon = psutil.Process(document["pids"]["daemon"])
        command, environment = daemon.cmdline(), daemon.environ()
        processes.kill(daemon)
        self._mark("daemon killed")
        yield
        again = processes.spawn(
            command, cwd=PROJECT_ROOT, env=environment, log=self.dagster.log_of("daemon"), interruptible=True
        )
        # The first one stays in the file: its session has runs that are to be stopped at the end.
        document["pids"]["daemon again"], document["started"]["daemon again"] = again.pid, again.started
        write_json(file, document)
        self._mark("daemon started")

    def _mark(self, what: str) -> None:
        self.say(f"{time.time() - self.begun:.0f} s: {what}")
        self.marks.append((time.time() - self.begun, what))

    def _at_work(self, drain: str) -> dict[str, int]:
        """Process ids by run."""
        found = {
            beat.run_id: int(beat.process.rpartition(":")[2])
            for beat in beats(self.runtime.heartbeats, drain)
            # One that is no resident has no role.
            if beat.role in ("", WORKING)
        }
        return {run_id: pid for run_id, pid in found.items() if psutil.pid_exists(pid)}

    def _observe(self, known: set[str], over: threading.Event) -> None:
        """Mark each run that begins to work."""
        while not over.wait(1.0):
            for drain in _DRAINS:
                with suppress(TransientFailure):
                    for run_id in self._at_work(drain).keys() - known:
                        known.add(run_id)
                        self._mark(f"{NEW_RUN} {drain}")


class _Load:
    """Entries that a thread writes at an even rate, and when a reader saw them."""

    def __init__(self, scene: _Scene) -> None:
        self._scene = scene
        self._lock = threading.Lock()
        self.written = 0
        # When they were updated, by id, the longest awaited first.
        self.awaited: dict[str, float] = {}
        # Seconds after the begin, and seconds of lag.
        self._lags: list[tuple[float, float]] = []

    def write_all(self, seconds: float) -> None:
        begun = self._scene.begun
        while time.time() - begun < seconds:
            self._scene.sleep_until(self.written / PER_SECOND)
            now = time.time()
            items = self._scene.entries.round(_BATCH, now)
            with self._lock:
                # As stored: cut to the millisecond, like `updatedAt`.
                self.awaited.update((_id(item), math.floor(now * 1000) / 1000) for item in items)
            write(self._scene.runtime, items)
            self.written += len(items)

    def read_all(self, more: Callable[[], bool]) -> None:
        """Until all is seen and there is no more, or nothing was seen for a long time."""
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while (going_on := more()) or self.awaited:
            with self._lock:
                ids = list(islice(self.awaited, _LOOK_AT))
            found = self._scene.visible(ids) if ids else []
            now = time.time()
            with self._lock:
                self._lags += [(at - self._scene.begun, now - at) for at in map(self.awaited.pop, found)]
            if found or going_on:
                give_up = time.monotonic() + _PATIENCE_SECONDS
            if time.monotonic() > give_up:
                return
            if len(found) < _LOOK_AT:
                time.sleep(_LOOK_EVERY_SECONDS)

    def figures(self) -> Figures:
        """Seconds; `series` has the begin of each bin, its median and its worst."""
        bins: dict[int, list[float]] = {}
        for at, lag in self._lags:
            bins.setdefault(int(at) // _BIN_SECONDS * _BIN_SECONDS, []).append(lag)
        return {
            "entries": self.written,
            "perSecond": PER_SECOND,
            **percentiles([lag for _, lag in self._lags]),
            "lost": len(self.awaited),
            "series": [
                [at, round(median(lags), 2), round(max(lags), 2)] for at, lags in sorted(bins.items())
            ],
        }


@contextmanager
def _scene(say: Say, **drain: float) -> Iterator[_Scene]:
    with system("lag", **drain) as (runtime, dagster):
        yield _Scene(runtime, dagster, say)


def _id(item: Item) -> str:
    return f"{item['campaignId']}:{item['entryId']}"


def percentiles(lags: Sequence[float]) -> dict[str, float]:
    """Of at least one."""
    ordered = sorted(lags)

    def at(percent: float) -> float:
        return round(ordered[math.ceil(len(ordered) * percent / 100) - 1], 3)

    return {"p50": at(50), "p95": at(95), "p99": at(99), "worst": at(100)}
