"""Depths, lag and sizes as observations of the assets, written to the event log when they changed enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import dagster as dg
import orjson

from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.runtime import Runtime
from regworkers_dagster.draining.decisions import worth_recording

T = TypeVar("T")
# None where a number could not be read.
Numbers = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Reading:
    """Numbers of one asset, by its name."""

    asset: str
    numbers: Numbers

    @classmethod
    def of(cls, spec: dg.AssetSpec, numbers: Numbers) -> Reading:
        return cls(spec.key.to_user_string(), numbers)

    @property
    def total(self) -> int | None:
        """The sum of what could be read, None when nothing could."""
        known = [number for number in self.numbers.values() if number is not None]
        return int(sum(known)) if known else None


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


def in_words(readings: Sequence[Reading]) -> str:
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


def observed(
    cursor: str | None,
    readings: Sequence[Reading],
    judge: Callable[[Reading], dg.AssetCheckEvaluation | None],
) -> dg.SensorResult:
    """Writes what changed enough since it was last written, with what `judge` makes of it."""
    now = time.time()
    recorded = Recorded.parse(cursor)
    events: list[dg.AssetObservation | dg.AssetCheckEvaluation] = []
    for reading in readings:
        if not recorded.take(reading, now):
            continue
        events.append(observation(reading))
        verdict = judge(reading)
        if verdict is not None:
            events.append(verdict)
    return dg.SensorResult(asset_events=events, cursor=recorded.cursor(), skip_reason=in_words(readings))


def depth_of(runtime: Runtime, queue: str) -> Numbers:
    """Messages of a queue that wait and that are in flight."""
    depth = or_none(lambda: runtime.queue(queue).depth())
    if depth is None:
        return {"waiting": None, "in_flight": None}
    return {"waiting": float(depth.visible + depth.delayed), "in_flight": float(depth.in_flight)}


def or_none(read: Callable[[], T]) -> T | None:
    """What could be read; a service that is away is no reason to read nothing else."""
    try:
        return read()
    except (Failure, UsageError):
        return None
