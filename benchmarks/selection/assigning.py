"""Winners through claim, write and outbox, against the same bulk writes by a bare client, on its own stack."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pymongo import InsertOne, UpdateOne

from benchmarks.figures import ratio, spread, stack_of
from regworkers_core.drains.runner import drain_limits, run_drain
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime
from regworkers_core.selection.drains import SELECTIONS
from tests.support.draws import CONFIRMED_AT, Row, add_codes, code_at, confirmed, publish, result
from tests.support.runtimes import ADDRESSES, new_runtime, remove_namespace

_MARKETS = tuple(f"market-{number:02d}" for number in range(10))
_BULK = 500
_ROUNDS = 3
_SETTINGS = {"lease_seconds": 15.0, "visibility_seconds": 60}

Say = Callable[[str], None]


def measure(winners: int, say: Say) -> dict[str, Any]:
    """Seconds of both, and their ratio by rates. Bare and product in turn, each in a namespace of its own. The product
    sends an event for each winner on top.
    """
    rows = result(dict.fromkeys(_MARKETS, winners // len(_MARKETS)))
    with stack_of("assign") as stack:
        addresses = {name: stack.state.address(name) for name in ADDRESSES}
        rounds = []
        for number in range(_ROUNDS):
            bare, product = (_once(addresses, rows, each) for each in (_bare, _product))
            say(f"assign, round {number + 1}: bare {bare:.1f} s, product {product:.1f} s")
            rounds.append((bare, product))
    return {
        "winners": len(rows),
        "bareSeconds": spread(bare for bare, _ in rounds),
        "productSeconds": spread(product for _, product in rounds),
        "ofBare": ratio(*zip(*rounds, strict=True)),
    }


def _once(
    addresses: dict[str, str], rows: Sequence[Row], contestant: Callable[[Runtime, Sequence[Row]], float]
) -> float:
    runtime = new_runtime(addresses, selection=_SETTINGS)
    try:
        for market in _MARKETS:
            add_codes(runtime, market, sum(row.market == market for row in rows))
        return contestant(runtime, rows)
    finally:
        remove_namespace(runtime)


def _product(runtime: Runtime, rows: Sequence[Row]) -> float:
    confirmed(runtime, rows, _MARKETS)
    publish(runtime)
    limits = drain_limits(runtime.settings, SELECTIONS, idle_seconds=0.0, max_seconds=3600)
    started = time.monotonic()
    report = run_drain(runtime, SELECTIONS, limits, stop=StopSignal())
    seconds = time.monotonic() - started
    done = (report.counts["claimed"], report.counts["written"], report.counts["enqueued"])
    if set(done) != {len(rows)} or report.counts["markets_completed"] != len(_MARKETS):
        raise RuntimeError(f"the drain did something else: {report.as_dict()}")
    return seconds


def _bare(runtime: Runtime, rows: Sequence[Row]) -> float:
    """Every request is built before the clock starts; as many threads as the drain has."""
    database = runtime.database
    places = dict.fromkeys(_MARKETS, 0)
    operations: dict[str, list[Any]] = {"codes": [], "selections": [], "outbox": []}
    for row in rows:
        places[row.market] += 1
        for name, operation in _writes(row, places[row.market]).items():
            operations[name].append(operation)
    starts = range(0, len(rows), _BULK)

    def one(start: int) -> None:
        for name, all_of_it in operations.items():
            database[name].bulk_write(all_of_it[start : start + _BULK], ordered=False)

    with ThreadPoolExecutor(runtime.settings.selection.concurrency) as pool:
        started = time.monotonic()
        list(pool.map(one, starts))
        return time.monotonic() - started


def _writes(row: Row, position: int) -> dict[str, Any]:
    """The documents that the product writes for one winner."""
    market = {"campaignId": "summer", "marketId": row.market}
    key = {"_id": f"summer:{row.market}:1:{row.ref}", **market, "phase": 1}
    who = {"ref": row.ref, "entryId": row.entry_id}
    free = {"_id": code_at(row.market, position), "status": "AVAILABLE", **market}
    given = {"status": "ASSIGNED", **who, "phase": 1, "assignedAt": CONFIRMED_AT, "runId": "0" * 32}
    made = {"resultHash": "0" * 64, "runId": "0" * 32}
    place = {"code": free["_id"], "position": position, "rank": row.rank, "selectedAt": CONFIRMED_AT}
    notice = {"type": "winner", "notBefore": CONFIRMED_AT, "status": "PENDING", "enqueuedAt": CONFIRMED_AT}
    return {
        "codes": UpdateOne(free, {"$set": given}),
        "selections": InsertOne({**key, **who, **place, **made}),
        "outbox": InsertOne({**key, **who, **notice, **made}),
    }
