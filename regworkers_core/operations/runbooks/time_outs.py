"""Time-outs: which dependencies the drains waited for, and how long each takes to answer now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from fairdraw import scheduling
from regworkers_core.domain.activity import DrainWindow
from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.engine.queue import QUEUE_SERVICE
from regworkers_core.flows import DRAIN
from regworkers_core.operation import Remark, Report
from regworkers_core.operations.dependency_status import DEPENDENCIES, SERVICES, way_out
from regworkers_core.operations.health.activity import Activity
from regworkers_core.operations.runbook import Row, runbook_report
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Settings

# Share of its time-out from which on an answer is slow.
_NEAR = 0.5
# A mean hides the slow calls: a quarter of the time-out is far more than a healthy dependency takes. With fewer calls
# the mean says nothing, since the first of them connects.
_MEAN_NEAR = 0.25
_MEAN_CALLS = 20
# Share of the time for which a drain owns a batch without a heartbeat.
_BATCH_NEAR = 0.8
_SETTINGS: Mapping[str, str] = {
    "dynamodb": "aws.readTimeoutSeconds",
    "streams": "aws.readTimeoutSeconds",
    "stream-listing": "aws.readTimeoutSeconds",
    QUEUE_SERVICE: "aws.readTimeoutSeconds",
    "s3": "aws.readTimeoutSeconds",
    "mongo": "mongo.socketTimeoutSeconds",
    "redis": "redis.timeoutSeconds",
    "kafka": "kafka.timeoutSeconds",
}
_OF_SERVICES = "services.answerSeconds"


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds of one call on an open connection, or what is wrong."""

    seconds: float | None
    error: str | None = None


def run(
    runtime: Runtime,
    *,
    minutes: float = 30.0,
    settings: Settings | None = None,
) -> Report:
    """Changes nothing. `settings` are those in force if `runtime` has short time-outs. A dependency that does not
    answer is a finding. Raises UsageError when no address is configured.
    """
    limits = settings or runtime.settings
    latencies = measure(runtime)
    try:
        by_drain = Activity(runtime).last(60 * minutes)
    except Failure as failure:
        unread: Remark | None = Remark(
            "finding",
            f"the work of the drains could not be read: {failure}",
            _restore("mongo", str(failure), limits),
        )
        return assess(latencies, {}, limits, minutes, unread)
    return assess(latencies, by_drain, limits, minutes)


def measure(runtime: Runtime) -> dict[str, Latency]:
    """Calls each dependency twice, all in parallel: the first call connects, the second is timed."""
    services = [f"service-{name}" for name in SERVICES if getattr(runtime.settings.services, name).base_url]
    names = [*DEPENDENCIES, *services]
    # Create the clients before threads need them.
    _ = runtime.replica, runtime.demand_table, runtime.streams, runtime.sqs, runtime.objects, runtime.services

    def measure_one(name: str) -> Latency:
        try:
            if runtime.probe(name) is not None:
                return Latency(None, "does not answer")
            began = scheduling.monotonic()
            failure = runtime.probe(name)
            took = scheduling.monotonic() - began
        except (Failure, UsageError) as error:
            return Latency(None, str(error))
        return Latency(None, "does not answer") if failure is not None else Latency(took)

    with ThreadPoolExecutor(len(names), thread_name_prefix="latency") as pool:
        return dict(zip(names, pool.map(measure_one, names), strict=True))


def assess(
    latencies: Mapping[str, Latency],
    by_drain: Mapping[str, DrainWindow],
    settings: Settings,
    minutes: float,
    unread: Remark | None = None,
) -> Report:
    rows = _dependency_rows(latencies, by_drain, settings)
    findings = [*_slow_now(latencies, settings), *_slow_drains(rows, by_drain, settings)]
    if unread is not None:
        findings.append(unread)
    slowest = rows[0] if rows else None
    if slowest and slowest["waitedSeconds"]:
        summary = (
            f"drains waited most for {slowest['dependency']}: {slowest['waitedSeconds']} s within {minutes:g} minutes,"
            f" {slowest['meanMs']} ms a call"
        )
    else:
        summary = f"no drain waited for a dependency within {minutes:g} minutes"
    drains = [
        {
            "drain": name,
            "batchP95Seconds": _rounded(each.batch_p95_seconds),
            "limitSeconds": _rounded(each.batch_limit_seconds),
            "ends": ", ".join(f"{number} {how}" for how, number in sorted(each.ends.items())),
        }
        for name, each in sorted(by_drain.items())
    ]
    return runbook_report(
        "time-outs", summary, {"minutes": minutes}, {"dependencies": rows, "drains": drains}, tuple(findings)
    )


class Limit(NamedTuple):
    setting: str
    seconds: float | None


def limit_of(name: str, settings: Settings) -> Limit:
    """What limits an answer of a dependency."""
    setting = _OF_SERVICES if name.startswith("service-") else _SETTINGS.get(name, "")
    return Limit(setting, float(settings.at(setting)) if setting else None)


def _dependency_rows(
    latencies: Mapping[str, Latency], by_drain: Mapping[str, DrainWindow], settings: Settings
) -> Sequence[Row]:
    """The dependency that the drains waited for longest comes first."""
    names = sorted({*latencies, *(name for each in by_drain.values() for name in each.calls)})
    found = []
    for name in names:
        calls = sum(each.calls[name] for each in by_drain.values())
        waited = sum(each.waited_seconds.get(name, 0.0) for each in by_drain.values())
        setting, limit = limit_of(name, settings)
        now = latencies.get(name)
        found.append(
            {
                "dependency": name,
                "calls": calls,
                "waitedSeconds": round(waited, 3),
                "meanMs": round(1000 * waited / calls, 1) if calls else None,
                "throttled": sum(each.throttles[name] for each in by_drain.values()),
                "nowMs": round(1000 * now.seconds, 1) if now and now.seconds is not None else None,
                "limitSeconds": limit,
                "setting": setting,
                "error": now.error if now else None,
            }
        )
    return sorted(found, key=lambda row: -float(str(row["waitedSeconds"])))


def _slow_now(latencies: Mapping[str, Latency], settings: Settings) -> Iterator[Remark]:
    for name, latency in latencies.items():
        setting, limit = limit_of(name, settings)
        if latency.error is not None:
            yield Remark("finding", f"{name}: {latency.error}", _restore(name, latency.error, settings))
        elif latency.seconds is not None and limit is not None and latency.seconds > _NEAR * limit:
            text = f"{name} takes {latency.seconds:.1f} s now, and {setting} is {limit:g} s"
            yield Remark("finding", text, f"check {name}; until it has recovered raise {setting}")


def _slow_drains(
    rows: Sequence[Row], by_drain: Mapping[str, DrainWindow], settings: Settings
) -> Iterator[Remark]:
    for row in rows:
        mean, limit = row["meanMs"], row["limitSeconds"]
        # A read of the queue waits for work, which is not slow.
        idle = settings.save.receive_wait_seconds if row["dependency"] == QUEUE_SERVICE else 0.0
        if mean is None or limit is None or row["calls"] < _MEAN_CALLS:
            continue
        if mean / 1000 - idle > _MEAN_NEAR * limit:
            text = f"a call of {row['dependency']} took {mean / 1000:.1f} s on average, its time-out is {limit:g} s"
            yield Remark(
                "finding", text, f"check {row['dependency']}; until it has recovered raise {row['setting']}"
            )
    for name, each in sorted(by_drain.items()):
        p95, limit = each.batch_p95_seconds, each.batch_limit_seconds
        if p95 is not None and limit and p95 > _BATCH_NEAR * limit:
            text = (
                f"a batch of {name} took {p95:.1f} s (p95) and is owned for {limit:g} s without a heartbeat"
            )
            setting = DRAIN[name].keep if name in DRAIN else "its time"
            yield Remark("finding", text, f"raise {setting}, or make its batches smaller")
        if each.ends["dependency_down"]:
            text = f"{each.ends['dependency_down']} runs of {name} ended because a dependency was down"
            yield Remark("finding", text, "regworkers alerts list: which one, and since when")


def _restore(name: str, error: str, settings: Settings) -> str:
    address = "regworkers config show has its address"
    return way_out(error, settings, name) or f"restore {name}; {address}"


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 3)
