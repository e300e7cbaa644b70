"""Lag through Dagster's daemon, its sensors and the drains that they start, seen from outside: the clock runs
from an entry's `updatedAt` until a reader of the replica finds it.
"""

from __future__ import annotations

import math
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from benchmarks.replication.data import Entries, Item, settings, write
from regworkers_core.infrastructure.provision import provision
from regworkers_core.runtime import Runtime
from regworkers_core.settings import PROJECT_ROOT
from regworkers_local.dagster_server import DagsterProcess
from regworkers_local.load import CAMPAIGNS
from regworkers_local.stack import Stack

PER_SECOND = 200.0
SECONDS = 60.0
FIRST_ENTRIES = 3
# Drains end early so that the system is soon idle again; under load they continue.
IDLE_SECONDS = 5.0
_BATCH = 10
_LOOK_EVERY_SECONDS = 0.05
# Number of the longest awaited entries that one read requests.
_LOOK_AT = 500
_PATIENCE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Lag:
    """Percentiles in seconds; `running` is of the entries that were written once the first had arrived."""

    entries: int
    per_second: float
    all: dict[str, float | None]
    running: dict[str, float | None]
    first_entry_seconds: list[float]


def measure(stack: Stack, say: Callable[[str], None]) -> Lag:
    """On an instance of its own, with sensors on."""
    runtime = Runtime(settings(stack.state, ""))
    list(provision(runtime))
    runtime.database["campaigns"].insert_many([campaign.document() for campaign in CAMPAIGNS])
    os.environ["REGWORKERS_DRAIN__RESIDENT_IDLE_SECONDS"] = f"{IDLE_SECONDS:g}"
    try:
        process = DagsterProcess(PROJECT_ROOT, stack.instance)
        with process, dg.DagsterInstance.from_config(str(process.home)) as instance:
            entries, phase = Entries(), random.Random(7)
            firsts = []
            for _ in range(FIRST_ENTRIES):
                _until_idle(instance)
                # Sensors tick every five seconds: begin at a random moment between two ticks.
                time.sleep(phase.uniform(0, 5))
                firsts.append(_first_entry(runtime, entries))
                say(f"first entry on an idle system: {firsts[-1]:.1f} s")
            _until_idle(instance)
            written, seen = _load(runtime, entries, say)
    finally:
        del os.environ["REGWORKERS_DRAIN__RESIDENT_IDLE_SECONDS"]
    running_since = min(seen.values())
    lags = {id_: seen[id_] - at for id_, at in written.items()}
    return Lag(
        entries=len(written),
        per_second=PER_SECOND,
        all=_percentiles(list(lags.values())),
        running=_percentiles([lag for id_, lag in lags.items() if written[id_] >= running_since]),
        first_entry_seconds=[round(seconds, 2) for seconds in firsts],
    )


def _until_idle(instance: dg.DagsterInstance) -> None:
    active = dg.RunsFilter(
        statuses=[
            dg.DagsterRunStatus.QUEUED,
            dg.DagsterRunStatus.STARTING,
            dg.DagsterRunStatus.STARTED,
        ]
    )
    _wait(lambda: not instance.get_runs(active, limit=1), "the drains did not end")


def _first_entry(runtime: Runtime, entries: Entries) -> float:
    (item,) = entries.round(1, time.time())
    started = time.time()
    write(runtime, [item])
    _wait(lambda: bool(_visible(runtime, [_id(item)])), "the first entry did not arrive")
    return time.time() - started


def _load(
    runtime: Runtime, entries: Entries, say: Callable[[str], None]
) -> tuple[dict[str, float], dict[str, float]]:
    """When each entry was updated and when it was seen, by id."""
    written: dict[str, float] = {}
    seen: dict[str, float] = {}
    over = threading.Event()
    started = time.time()

    def put_all() -> None:
        while time.time() - started < SECONDS:
            due = started + len(written) / PER_SECOND
            time.sleep(max(0.0, due - time.time()))
            now = time.time()
            items = entries.round(_BATCH, now)
            write(runtime, items)
            # As stored: cut to the millisecond, like `updatedAt`.
            written.update((_id(item), math.floor(now * 1000) / 1000) for item in items)
        over.set()

    writer = threading.Thread(target=put_all, name="writer", daemon=True)
    writer.start()
    give_up = started + SECONDS + _PATIENCE_SECONDS
    while not (over.is_set() and len(seen) == len(written)):
        awaited = [id_ for id_ in list(written) if id_ not in seen][:_LOOK_AT]
        found = _visible(runtime, awaited) if awaited else []
        now = time.time()
        seen.update((id_, now) for id_ in found)
        if now > give_up:
            raise RuntimeError(f"{len(written) - len(seen)} of {len(written)} entries did not arrive")
        if len(found) < _LOOK_AT:
            time.sleep(_LOOK_EVERY_SECONDS)
    writer.join()
    say(f"{len(written)} entries in {time.time() - started:.0f} s")
    return written, seen


def _visible(runtime: Runtime, ids: Sequence[str]) -> list[str]:
    query: dict[str, Any] = {"_id": {"$in": list(ids)}}
    return [document["_id"] for document in runtime.database["entries"].find(query, {"_id": 1})]


def _id(item: Item) -> str:
    return f"{item['campaignId']}:{item['entryId']}"


def _wait(condition: Callable[[], bool], otherwise: str) -> None:
    give_up = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > give_up:
            raise RuntimeError(otherwise)
        time.sleep(0.02)


def _percentiles(lags: Sequence[float]) -> dict[str, float | None]:
    ordered = sorted(lags)

    def at(percent: float) -> float | None:
        return round(ordered[math.ceil(len(ordered) * percent / 100) - 1], 3) if ordered else None

    return {"p50": at(50), "p95": at(95), "p99": at(99), "max": at(100)}
