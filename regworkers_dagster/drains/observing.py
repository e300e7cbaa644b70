"""Depths, lag and sizes as observations of the assets, written to the event log when they changed enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import dagster as dg
import orjson

from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.operations.health.dependency_status import UP
from regworkers_core.runtime import Runtime
from regworkers_dagster.drains.decisions import worth_recording

T = TypeVar("T")
# One look may meet no more than a restart.
SILENT_LOOKS = 3
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
    """What was last written to the event log, kept in the sensor's cursor; a lost cursor costs a repeat.

    `silent` has for each dependency that does not answer how many looks in a row found it so; `judged`: a verdict on
    them was written.
    """

    at: dict[str, float]
    numbers: dict[str, Numbers]
    silent: dict[str, int] = field(default_factory=dict)
    judged: bool = False

    @classmethod
    def parse(cls, cursor: str | None) -> Recorded:
        try:
            document: Any = orjson.loads(cursor or "{}")
            return cls(
                {str(asset): float(at) for asset, at in document["at"].items()},
                {str(asset): dict(numbers) for asset, numbers in document["numbers"].items()},
                _looks(document.get("silent")),
                document.get("judged") is True,
            )
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
            return cls({}, {})

    def cursor(self) -> str:
        document = {"at": self.at, "numbers": self.numbers, "silent": self.silent, "judged": self.judged}
        return orjson.dumps(document).decode()

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

    def listen(self, away: Collection[str]) -> set[str] | None:
        """Who did not answer for some looks in a row, when that is to be written: it changed, or nothing was written
        yet and all answer. A first look may meet a start, so it is no verdict while one of them is away.
        """
        known = self.silent
        self.silent = {name: known.get(name, 0) + 1 for name in away}
        lost = {name for name, looks in self.silent.items() if looks >= SILENT_LOOKS}
        changed = lost != {name for name, looks in known.items() if looks >= SILENT_LOOKS}
        if not changed and (self.judged or away):
            return None
        self.judged = True
        return lost


def _looks(silent: Any) -> dict[str, int]:
    return {str(name): int(looks) for name, looks in (silent or {}).items()}


@dataclass(frozen=True, slots=True)
class Answering:
    """What dependencies say of themselves (`up` or what is wrong), and the check that judges it."""

    states: Mapping[str, str]
    check: str
    asset: dg.AssetKey

    @property
    def away(self) -> dict[str, str]:
        return {name: state for name, state in self.states.items() if state != UP}

    def evaluation(self, lost: Collection[str]) -> dg.AssetCheckEvaluation:
        wrong = "; ".join(f"{name}: {self.states[name]}" for name in sorted(lost))
        return dg.AssetCheckEvaluation(
            check_name=self.check,
            asset_key=self.asset,
            passed=not lost,
            description=wrong or "all answer",
            metadata={name: dg.MetadataValue.text(state) for name, state in self.states.items()},
        )


def observed(
    cursor: str | None,
    readings: Sequence[Reading],
    judge: Callable[[Reading], dg.AssetCheckEvaluation | None],
    answering: Answering | None = None,
) -> dg.SensorResult:
    """Writes what changed enough since it was last written, with what `judge` makes of it, and who has not been
    answering for a while: nobody opens the list of ticks of a sensor that merely starts nothing.
    """
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
    if answering is not None:
        lost = recorded.listen(answering.away)
        if lost is not None:
            events.append(answering.evaluation(lost))
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
