"""Depths, lag and sizes as observations of the assets, written to the event log when they changed enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import dagster as dg
import orjson

from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.replication.enqueue.peek import stream_lag
from regworkers_core.runtime import Runtime
from regworkers_dagster.replication.decisions import worth_recording
from regworkers_dagster.replication.glance import MAX_SHARDS, bounded
from regworkers_dagster.replication.specs import (
    ANALYTICS_QUEUE,
    DEMAND_TABLE,
    ENTRIES,
    REPLICATION_DLQ,
    REPLICATION_QUEUE,
)

T = TypeVar("T")
# None where a number could not be read.
Numbers = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Reading:
    """Numbers of one asset, by its name."""

    asset: str
    numbers: Numbers


def read_all(runtime: Runtime) -> list[Reading]:
    """Every asset of replication, in the order of the flow. Never raises for what is away."""
    names = runtime.names
    return [
        Reading(_name(DEMAND_TABLE), {"oldest_unread_seconds": _or_none(lambda: _lag(runtime))}),
        Reading(_name(REPLICATION_QUEUE), _depth(runtime, names.replication_queue)),
        Reading(_name(REPLICATION_DLQ), _depth(runtime, names.dead_letter_queue(names.replication_queue))),
        Reading(_name(ENTRIES), {"documents": _or_none(runtime.replica.count)}),
        Reading(_name(ANALYTICS_QUEUE), _depth(runtime, names.analytics_queue)),
    ]


def observation(reading: Reading) -> dg.AssetObservation:
    """What could not be read is named, so that it is not taken for zero."""
    known = {
        key: dg.MetadataValue.float(float(number))
        for key, number in reading.numbers.items()
        if number is not None
    }
    unread = sorted(reading.numbers.keys() - known.keys())
    metadata: dict[str, dg.MetadataValue] = {**known}
    if unread:
        metadata["could_not_read"] = dg.MetadataValue.text(", ".join(unread))
    return dg.AssetObservation(reading.asset, metadata=metadata)


def in_words(readings: list[Reading]) -> str:
    """One line for the list of ticks."""

    def number(value: float | None) -> str:
        return "?" if value is None else f"{value:g}"

    return "; ".join(
        f"{reading.asset} " + ", ".join(f"{key} {number(value)}" for key, value in reading.numbers.items())
        for reading in readings
    )


@dataclass(slots=True)
class Recorded:
    """What was last written to the event log, kept in the sensor's cursor; a lost cursor costs a repeat."""

    at: dict[str, float]
    numbers: dict[str, Numbers]

    @classmethod
    def parse(cls, cursor: str | None) -> Recorded:
        try:
            document: Any = orjson.loads(cursor or "{}")
            return cls(
                {str(asset): float(at) for asset, at in document["at"].items()},
                {str(asset): dict(numbers) for asset, numbers in document["numbers"].items()},
            )
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
            return cls({}, {})

    def cursor(self) -> str:
        return orjson.dumps({"at": self.at, "numbers": self.numbers}).decode()

    def take(self, reading: Reading, now: float) -> bool:
        """Whether the reading is to be written now; if so it is taken for written."""
        before = self.numbers.get(reading.asset)
        since = now - self.at.get(reading.asset, 0.0)
        if before is not None and not any(
            worth_recording(before.get(key), number, since) for key, number in reading.numbers.items()
        ):
            return False
        self.at[reading.asset], self.numbers[reading.asset] = now, reading.numbers
        return True


def _name(spec: dg.AssetSpec) -> str:
    return spec.key.to_user_string()


def _depth(runtime: Runtime, queue: str) -> Numbers:
    depth = _or_none(lambda: runtime.queue(queue).depth())
    if depth is None:
        return {"waiting": None, "in_flight": None}
    return {"waiting": float(depth.visible + depth.delayed), "in_flight": float(depth.in_flight)}


def _lag(runtime: Runtime) -> float | None:
    lag = stream_lag(bounded(runtime.streams), runtime.leases, now=runtime.clock(), max_shards=MAX_SHARDS)
    return None if lag is None else round(max(0.0, lag), 1)


def _or_none(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except (Failure, UsageError):
        return None
