"""Depths, lag and sizes as observations of assets, written to the event log when they changed enough."""

import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, TypeVar

import dagster as dg
import orjson

from regworkers_core.adapters.mongo.activity import minute_of
from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.domain.snapshot import PausedDrain, QueueState
from regworkers_core.drains.runner import DrainSpec
from regworkers_core.engine.defects import hold_of
from regworkers_core.operations.alerts.conditions.condition import Assessment
from regworkers_core.operations.alerts.conditions.work import dead_letters
from regworkers_core.operations.dependency_status import UP
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Names, Settings
from regworkers_dagster.drains.decisions import worth_recording
from regworkers_dagster.metadata import facts_as_metadata, of_table
from regworkers_dagster.resources import AwsResource, plain_failures, runtime_with

T = TypeVar("T")
# A single failed probe may be a restart.
SILENT_PROBES = 3
# The names of assets that are dead-letter queues end with this.
_DLQ = "_dlq"
_EVALUATED_AT = "evaluated_at"
# The ages in a finding, which change with every look.
_NUMBER = re.compile(r"[\d.,:]+")
_REPEAT_SECONDS = 300.0
# A drain has written a minute so long after its end; what is older than the second is not observed any more.
_WRITTEN_SECONDS, _OLDEST_SECONDS = 30.0, 600.0
# With a version per event, everything downstream would be shown as out of date after each.
SAME_VERSION = {"dagster/data_version": "continuous"}
# The number that counts the rows of a collection.
DOCUMENTS = "documents"
# None for a number that could not be read.
Numbers = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Reading:
    """Numbers of one asset, by its name. `fresh`: the asset has a freshness policy and was found to be up to date."""

    asset: str
    numbers: Numbers
    fresh: bool = False

    @classmethod
    def of(cls, spec: dg.AssetSpec, numbers: Numbers, *, current: bool = True) -> "Reading":
        """`current`: nothing is left to be done for the asset."""
        known = current and None not in numbers.values()
        return cls(spec.key.to_user_string(), numbers, known and spec.freshness_policy is not None)

    @property
    def total(self) -> int | None:
        """The sum of what could be read, None when nothing could."""
        known = [number for number in self.numbers.values() if number is not None]
        return int(sum(known)) if known else None


def recorded_event(reading: Reading) -> dg.AssetObservation | dg.AssetMaterialization:
    """A materialisation of what was found to be up to date: Dagster judges freshness by those alone. An observation of
    all else, which names the numbers that could not be read, so that they are not taken for zero.
    """
    numbers = {key: None if number is None else float(number) for key, number in reading.numbers.items()}
    unread = ", ".join(sorted(key for key, number in numbers.items() if number is None))
    metadata = facts_as_metadata({**numbers, "could_not_read": unread or None})
    if (rows := reading.numbers.get(DOCUMENTS)) is not None:
        metadata |= of_table(int(rows))
    if reading.fresh:
        return dg.AssetMaterialization(reading.asset, metadata=metadata, tags=SAME_VERSION)
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
class RecordedState:
    """What was last written to the event log, kept in the sensor's cursor; a lost cursor costs a repeat."""

    # When (epoch seconds), by what was written.
    at: dict[str, float]
    # The numbers that were written.
    numbers: dict[str, Numbers]
    # For each dependency that does not answer, the probes in a row that failed.
    silent: dict[str, int] = field(default_factory=dict)
    # Those in the last result of the check; None before the first one.
    lost: frozenset[str] | None = None
    # Minutes of the drain log before it were observed.
    minute: str = ""

    @classmethod
    def parse(cls, cursor: str | None) -> "RecordedState":
        try:
            document: Any = orjson.loads(cursor or "{}")
            return cls(
                {str(asset): float(at) for asset, at in document["at"].items()},
                {str(asset): dict(numbers) for asset, numbers in document["numbers"].items()},
                _counts(document.get("silent")),
                None if document.get("lost") is None else frozenset(map(str, document["lost"])),
                str(document.get("minute", "")),
            )
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
            return cls({}, {})

    def cursor(self) -> str:
        lost = None if self.lost is None else sorted(self.lost)
        document = {"at": self.at, "numbers": self.numbers, "silent": self.silent, "lost": lost}
        return orjson.dumps(document | {"minute": self.minute}).decode()

    def take(self, reading: Reading, now: float) -> bool:
        """Whether the reading is to be written now; if so, it is recorded as written."""
        before = self.numbers.get(reading.asset)
        since = now - self.at.get(reading.asset, 0.0)
        if before is not None and not any(
            worth_recording(before.get(key), number, since) for key, number in reading.numbers.items()
        ):
            return False
        self.at[reading.asset], self.numbers[reading.asset] = now, reading.numbers
        return True

    def listen(self, unavailable: Collection[str]) -> frozenset[str] | None:
        """The dependencies that failed several probes in a row, if that is to be written: it changed. The first probe
        is written as it is, so that the check has a result from the start.
        """
        before = self.lost
        self.silent = {name: self.silent.get(name, 0) + 1 for name in unavailable}
        self.lost = frozenset(
            name
            for name, probes in self.silent.items()
            if before is None or name in before or probes >= SILENT_PROBES
        )
        return None if self.lost == before else self.lost


def _counts(silent: Any) -> dict[str, int]:
    return {str(name): int(probes) for name, probes in (silent or {}).items()}


@dataclass(frozen=True, slots=True)
class Answering:
    """The state of each dependency (`up` or what is wrong), and the asset check for it."""

    states: Mapping[str, str]
    check: str
    asset: dg.AssetKey

    @property
    def unavailable(self) -> dict[str, str]:
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


def minutes_outside(
    instance: dg.DagsterInstance,
    runtime: Runtime,
    drains: Mapping[dg.AssetKey, DrainSpec[Any]],
    since: str,
    until: str,
) -> list[dg.AssetObservation]:
    """An observation, as a run makes one, of each minute before `until` in which processes that are no runs of Dagster
    worked on an asset: their numbers together. Raises TransientFailure.
    """
    worked = [each for each in runtime.drain_log.between(since, until) if each.counts.get("received")]
    ids = sorted({each.run_id for each in worked})
    records = instance.get_run_records(dg.RunsFilter(run_ids=ids)) if ids else ()
    runs = {record.dagster_run.run_id for record in records}
    found = []
    for asset, spec in drains.items():
        mine = (each for each in worked if each.drain == spec.name and each.run_id not in runs)
        for minute, group in groupby(mine, key=lambda each: each.minute):
            parts, counts = list(group), Counter[str]()
            for part in parts:
                counts.update(part.counts)
                counts.update({f"calls_{name}": number for name, number in part.calls.items()})
            facts = {
                **dict.fromkeys(spec.outcomes, 0),
                **counts,
                "minute": minute,
                "items_per_second": round(counts["received"] / 60, 1),
                "lag_p95_seconds": max(part.lag_p95_seconds or 0.0 for part in parts) or None,
            }
            found.append(dg.AssetObservation(asset, metadata=facts_as_metadata(facts)))
    return found


def observed(
    settings: Settings,
    cursor: str | None,
    readings: Sequence[Reading],
    answering: Answering | None = None,
    *,
    news: Callable[[dg.AssetCheckEvaluation], Sequence[dg.AssetCheckEvaluation]] = lambda _found: (),
    on_minutes: Callable[[str, str], Sequence[dg.AssetObservation]] = lambda _since, _until: (),
) -> dg.SensorResult:
    """Write what changed enough since it was last written, with the check of each dead-letter queue, and the
    dependencies that have not answered for a while: the page of the asset shows both. `news` returns a verdict on the
    same dependencies if it has to be written nevertheless. `on_minutes` observes the drain log from one minute on until
    another.
    """
    now = time.time()
    recorded = RecordedState.parse(cursor)
    events: list[dg.AssetObservation | dg.AssetMaterialization | dg.AssetCheckEvaluation] = []
    for reading in readings:
        if not recorded.take(reading, now):
            continue
        events.append(recorded_event(reading))
        if reading.asset.endswith(_DLQ) and reading.total is not None:
            events.append(is_empty(settings, reading.asset, reading.total))
    if answering is not None:
        changed = recorded.listen(answering.unavailable)
        verdict = answering.evaluation(recorded.lost or ())
        events += news(verdict) if changed is None else [verdict]
    until = minute_of(now - _WRITTEN_SECONDS)
    if recorded.minute < until:
        since = max(recorded.minute or until, minute_of(now - _OLDEST_SECONDS))
        minutes = or_none(lambda: on_minutes(since, until))
        if minutes is not None:
            events += minutes
            recorded.minute = until
    return dg.SensorResult(asset_events=events, cursor=recorded.cursor(), skip_reason=in_words(readings))


def last_evaluation(instance: dg.DagsterInstance, check: dg.AssetCheckKey) -> Any:
    """Dagster's record of the check's last evaluation; None without one."""
    return instance.event_log_storage.get_latest_asset_check_execution_by_key([check]).get(check)


def has_ended(last: Any) -> bool:
    """Whether the evaluation has a result. A run begins one for each of its checks when it starts."""
    return isinstance(last.evaluation, dg.AssetCheckEvaluation)


def is_outdated(instance: dg.DagsterInstance, last: Any) -> bool:
    """Whether the asset was materialised after this evaluation, which the UI then shows as not evaluated."""
    latest = instance.get_latest_materialization_event(last.key.asset_key)
    if latest is None or latest.run_id == last.run_id:
        return False
    return bool(latest.timestamp >= last.create_timestamp)


def unless_known(
    instance: dg.DagsterInstance, found: dg.AssetCheckEvaluation
) -> list[dg.AssetCheckEvaluation]:
    """`found`, if the UI does not show the same already: result, severity, and what was found. A finding of which only
    the numbers changed is repeated every five minutes.
    """
    last = last_evaluation(instance, found.asset_check_key)
    if last is None or not has_ended(last) or is_outdated(instance, last):
        return [found]
    before = last.evaluation
    if (before.passed, before.severity) != (found.passed, found.severity):
        return [found]
    if found.passed or _said(before) == _said(found):
        return []
    other = _NUMBER.sub("", before.description or "") != _NUMBER.sub("", found.description or "")
    return [found] if other or time.time() - last.create_timestamp >= _REPEAT_SECONDS else []


def _said(found: dg.AssetCheckEvaluation) -> dict[str, Any]:
    """What a reader sees of it."""
    shown = {name: value for name, value in found.metadata.items() if name != _EVALUATED_AT}
    return {**shown, "": found.description}


def repeated(last: Any) -> dg.AssetCheckEvaluation:
    """The same result for the asset as it is now, with the time at which it was found."""
    found = last.evaluation
    at = found.metadata.get(_EVALUATED_AT) or dg.MetadataValue.timestamp(last.create_timestamp)
    return dg.AssetCheckEvaluation(
        asset_key=last.key.asset_key,
        check_name=last.key.name,
        passed=found.passed,
        severity=found.severity,
        description=found.description,
        metadata={**found.metadata, _EVALUATED_AT: at},
    )


def dlq_check(
    asset: dg.AssetSpec, queue: Callable[[Names], str], *, sensor: str, lost: str
) -> dg.AssetChecksDefinition:
    """The check `<asset>_empty` of the dead-letter queue of `queue`; `lost` names what it holds."""

    @dg.asset_check(
        asset=asset.key,
        name=f"{asset.key.to_user_string()}_empty",
        description=f"No {lost} was given up. The sensor `{sensor}` checks this every half minute; a run of the "
        "check reads it now.",
        config_schema={},
    )
    def empty(aws: AwsResource) -> dg.AssetCheckResult:
        with plain_failures():
            runtime = runtime_with(aws)
            names = runtime.names
            depth = runtime.queue(names.dead_letter_queue(queue(names))).depth().total
        found = is_empty(runtime.settings, asset.key.to_user_string(), depth)
        return dg.AssetCheckResult(passed=found.passed, metadata=found.metadata)

    return empty


def is_empty(settings: Settings, asset: str, number: int) -> dg.AssetCheckEvaluation:
    """What the check `dead-letters` of the alerts finds with this number of messages."""
    queue = QueueState(asset, number, 0, 0, True, 0.0)
    found = dead_letters.of(settings, time.time(), queues=(queue,))
    return dg.AssetCheckEvaluation(
        check_name=f"{asset}_empty",
        asset_key=dg.AssetKey(asset),
        passed=isinstance(found, Assessment) and not found.findings,
        metadata={"messages": dg.MetadataValue.int(number)},
    )


def depth_of(runtime: Runtime, queue: str) -> Numbers:
    """The messages of a queue that wait and that are in flight."""
    depth = or_none(lambda: runtime.queue(queue).depth())
    if depth is None:
        return {"waiting": None, "in_flight": None}
    return {"waiting": float(depth.visible + depth.delayed), "in_flight": float(depth.in_flight)}


def pause_state(runtime: Runtime, drain: str) -> Numbers:
    """`paused` is 1 while an operator keeps the drain from its work; the drain's sensor says who and why."""
    return {"paused": or_none(lambda: float(hold_of(runtime.leases, PausedDrain, drain) is not None))}


def or_none(read: Callable[[], T]) -> T | None:
    """The value, or None if it could not be read: an unavailable service does not stop the other readings."""
    try:
        return read()
    except (Failure, UsageError):
        return None
