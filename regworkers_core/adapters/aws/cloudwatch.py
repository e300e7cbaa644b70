"""CloudWatch: the metrics of this process, what AWS measures of a queue, and log lines of processes whose stderr no
agent collects.

A thread of its own sends lines, so a line never waits for AWS. What does not fit into the buffer is dropped and
counted: logs must neither block a drain nor fill its memory.
"""

from __future__ import annotations

import atexit
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog

from fairdraw import scheduling
from regworkers_core.adapters.aws.answers import error_code
from regworkers_core.engine.dependency import Dependency
from regworkers_core.observability.logs import describe
from regworkers_core.observability.metrics import Histogram, Instrument, Metering

log = structlog.get_logger(__name__)
# SQS reports every minute or five, some minutes late.
_LOOK_BACK_SECONDS = 900.0
# Limits of PutMetricData: metrics of a call, different values of a metric.
_CALL_METRICS, _VALUES = 1000, 150


@dataclass(frozen=True, slots=True)
class Strain:
    """Retried and throttled calls by dependency, and dead letters that their queue did not confirm."""

    retries: Mapping[str, int] = field(default_factory=dict)
    throttles: Mapping[str, int] = field(default_factory=dict)
    unsent_dead_letters: int = 0

    def since(self, before: Strain) -> Strain:
        """The difference to an earlier state, without dependencies at zero."""
        return Strain(
            _more(self.retries, before.retries),
            _more(self.throttles, before.throttles),
            self.unsent_dead_letters - before.unsent_dead_letters,
        )

    @property
    def any(self) -> bool:
        return bool(self.retries or self.throttles or self.unsent_dead_letters)


def _more(now: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    return {name: more for name, number in now.items() if (more := number - before.get(name, 0))}


class Metrics:
    """Puts readings. With `client` None, CloudWatch gets none."""

    def __init__(self, client: Any, dependency: Dependency, namespace: str, environment: str) -> None:
        self._client = client
        self._dependency = dependency
        self._namespace = namespace
        self._environment = environment

    def put(self, readings: Sequence[Metering]) -> None:
        """CloudWatch adds the dimension `Environment`. A metric that cannot be put is logged and lost: it must never
        fail a drain.
        """
        if self._client is None:
            return
        data = [self._datum(reading) for reading in readings]
        for begin in range(0, len(data), _CALL_METRICS):
            some = data[begin : begin + _CALL_METRICS]
            try:
                self._dependency.once(
                    self._client.put_metric_data, Namespace=self._namespace, MetricData=some
                )
            except Exception as error:
                log.warning("metrics not published", error=describe(error))

    @property
    def enabled(self) -> bool:
        return self._client is not None

    def _datum(self, reading: Metering) -> dict[str, Any]:
        named = {**reading.dimensions, "Environment": self._environment}
        value = reading.value
        return {
            "MetricName": reading.instrument.name,
            "Unit": reading.instrument.unit,
            "Dimensions": [{"Name": name, "Value": text} for name, text in named.items()],
            **({"Value": float(value)} if isinstance(value, int | float) else _distribution(value)),
        }

    def oldest_message_seconds(self, queue: str, now: float) -> float | None:
        """SQS's own `ApproximateAgeOfOldestMessage`, the latest of the last quarter of an hour; None without one.

        Raises TransientFailure.
        """
        if self._client is None:
            return None
        where = {"QueueName": queue}
        ages = self.values(
            "AWS/SQS", "ApproximateAgeOfOldestMessage", where, "Maximum", now, _LOOK_BACK_SECONDS
        )
        return ages[-1] if ages else None

    def own_values(self, instrument: Instrument, now: float, seconds: float) -> list[float]:
        """What `values` gives, for a counter of ours."""
        where = {"Environment": self._environment}
        return self.values(self._namespace, instrument.name, where, "Sum", now, seconds)

    def values(
        self,
        namespace: str,
        metric: str,
        where: Mapping[str, str],
        statistic: str,
        now: float,
        seconds: float,
    ) -> list[float]:
        """The value of each minute until `now` (epoch seconds) that has one, oldest first; `statistic` is `Sum`,
        `Maximum` or a percentile (`p95`). Raises TransientFailure.
        """
        percentile = statistic.startswith("p")
        answer = self._dependency.once(
            self._client.get_metric_statistics,
            Namespace=namespace,
            MetricName=metric,
            Dimensions=[{"Name": name, "Value": value} for name, value in where.items()],
            StartTime=datetime.fromtimestamp(now - seconds, UTC),
            EndTime=datetime.fromtimestamp(now, UTC),
            Period=60,
            **{"ExtendedStatistics" if percentile else "Statistics": [statistic]},
        )
        points = sorted(answer.get("Datapoints", ()), key=lambda point: point["Timestamp"])
        return [
            float(point["ExtendedStatistics"][statistic] if percentile else point[statistic])
            for point in points
        ]


def _distribution(value: Histogram) -> dict[str, list[float]]:
    """All values with their counts, of which CloudWatch computes percentiles; neighbours are joined above its limit."""
    found = list(value.buckets().items())
    size = -(-len(found) // _VALUES) or 1
    groups = [found[begin : begin + size] for begin in range(0, len(found), size)]
    return {
        "Values": [group[-1][0] for group in groups],
        "Counts": [float(sum(number for _, number in group)) for group in groups],
    }


# About 25,000 lines: some seconds of the fastest drain, while CloudWatch does not answer.
BUFFER_BYTES = 8 * 1024 * 1024
# Limits of PutLogEvents; it counts 26 bytes for each event, and its events may be a day apart.
_CALL_BYTES, _CALL_EVENTS, _EVENT_BYTES = 1024 * 1024, 10_000, 26
_CALL_MILLISECONDS = 24 * 3600 * 1000
# A longer line is cut: none of ours is, and one event may have 1 MiB with its 26 bytes.
_LONGEST = 200_000
SEND_SECONDS = 1.0
# After a failed call; it doubles up to the second.
_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 30.0
# What the end of a process may wait for the lines that are still in the buffer.
EXIT_SECONDS = 3.0

_Event = tuple[int, str]


class LogGroupLines:
    """Sends lines to `stream` of `group`, which has to exist; the stream is created. `make_client` is called in the
    thread, with the first line. `dropped` counts lines that did not fit or that CloudWatch refused.
    """

    def __init__(
        self,
        make_client: Callable[[], Any],
        group: str,
        stream: str,
        *,
        buffer_bytes: int = BUFFER_BYTES,
        clock: Callable[[], float] = scheduling.now,
    ) -> None:
        self.group, self._stream = group, stream
        self._make_client, self._clock, self._buffer_bytes = make_client, clock, buffer_bytes
        self._client: Any = None
        self._buffer: deque[_Event] = deque()
        self._waiting_bytes = 0
        self.dropped = 0
        self._lock = scheduling.lock()
        self._wake = scheduling.event()
        self._ended = scheduling.event()
        self._thread: scheduling.Thread | None = None

    def __call__(self, text: str) -> None:
        """Take a line, or several separated by newlines. Never blocks, never raises."""
        at = int(self._clock() * 1000)
        with self._lock:
            for line in text.split("\n"):
                size = len(line) + _EVENT_BYTES
                if self._ended.is_set() or self._waiting_bytes + size > self._buffer_bytes:
                    self.dropped += 1
                    continue
                self._buffer.append((at, line))
                self._waiting_bytes += size
            if self._buffer and (self._thread is None or not self._thread.is_alive()):
                self._begin()
        if self._waiting_bytes >= _CALL_BYTES:
            self._wake.set()

    def _begin(self) -> None:
        # A daemon: CloudWatch that hangs must not keep the process.
        # Python starts no thread while it ends.
        with suppress(RuntimeError):
            self._thread = scheduling.start(self._run, "log-group")
            atexit.register(self.close)

    def close(self, seconds: float = EXIT_SECONDS) -> None:
        """Send what is left, for at most these seconds. Later lines are dropped."""
        self._ended.set()
        self._wake.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(seconds)

    def _run(self) -> None:
        pause = _PAUSE_SECONDS
        while self._buffer or not self._ended.is_set():
            self._wake.wait(SEND_SECONDS)
            self._wake.clear()
            try:
                self._send_all()
                pause = _PAUSE_SECONDS
            except Exception as error:
                # Once per outage; the terminal or Dagster's own log shows it.
                if pause == _PAUSE_SECONDS:
                    log.warning("log lines not sent", logGroup=self.group, error=describe(error))
                if self._ended.is_set():
                    return
                self._ended.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _send_all(self) -> None:
        while self._buffer:
            with self._lock:
                events = list(_one_call(self._buffer))
                dropped, self.dropped = self.dropped, 0
            if dropped:
                events.append((events[-1][0], _dropped_line(dropped, self._clock())))
            try:
                refused = self._put(events)
            except Exception:
                self.dropped += dropped
                raise
            with self._lock:
                for _ in range(len(events) - bool(dropped)):
                    _, line = self._buffer.popleft()
                    self._waiting_bytes -= len(line) + _EVENT_BYTES
                self.dropped += refused

    def _put(self, events: list[_Event]) -> int:
        """Returns how many CloudWatch did not take: those too old or too new."""
        self._client = self._client or self._make_client()
        request = {
            "logGroupName": self.group,
            "logStreamName": self._stream,
            # CloudWatch requires this order, and a clock may be set back.
            "logEvents": [{"timestamp": at, "message": line} for at, line in sorted(events, key=_at)],
        }
        try:
            answer = self._client.put_log_events(**request)
        except Exception as error:
            if error_code(error) != "ResourceNotFoundException":
                raise
            self._create_stream()
            answer = self._client.put_log_events(**request)
        rejected = answer.get("rejectedLogEventsInfo") or {}
        too_old = max(rejected.get("tooOldLogEventEndIndex", 0), rejected.get("expiredLogEventEndIndex", 0))
        too_new = rejected.get("tooNewLogEventStartIndex", len(events))
        return int(too_old + len(events) - too_new)

    def _create_stream(self) -> None:
        try:
            self._client.create_log_stream(logGroupName=self.group, logStreamName=self._stream)
        except Exception as error:
            # Another process of this machine was first.
            if error_code(error) != "ResourceAlreadyExistsException":
                raise


def _at(event: _Event) -> int:
    return event[0]


def _one_call(buffer: Iterable[_Event]) -> Iterator[_Event]:
    """The first events, as many as one call takes."""
    total, first, last = 0, 0, 0
    for number, (at, line) in enumerate(buffer):
        first, last = (min(first, at), max(last, at)) if number else (at, at)
        text = line if len(line) <= _LONGEST else line[:_LONGEST]
        total += (len(text) if text.isascii() else len(text.encode(errors="replace"))) + _EVENT_BYTES
        # One place is left for the count of dropped lines.
        too_much = total > _CALL_BYTES - 1000 or number >= _CALL_EVENTS - 1
        if number and (too_much or last - first > _CALL_MILLISECONDS):
            return
        yield at, text


def _dropped_line(number: int, now: float) -> str:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    line = {"event": "log lines dropped", "level": "WARNING", "timestamp": at, "dropped": number}
    return orjson.dumps(line).decode()
