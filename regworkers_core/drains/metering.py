"""What a drain publishes as metrics: once a minute while it works, and at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from regworkers_core.adapters.aws.cloudwatch import Strain
from regworkers_core.drains.heartbeat import PeriodicWriter
from regworkers_core.engine.drain_report import DrainReport
from regworkers_core.engine.percentiles import Percentiles
from regworkers_core.observability.metrics import (
    BATCH_DURATION,
    DEPENDENCY_DOWN,
    DONE,
    DRAIN_SECONDS,
    FAILED,
    INVOCATIONS,
    LAG,
    MESSAGES,
    RECEIVED,
    RETRIES,
    THROTTLES,
    UNSENT,
    Histogram,
    Instrument,
    Metering,
)

# CloudWatch's smallest period of our metrics.
PUBLISH_SECONDS = 60.0
# The end of a drain waits for its last values: more than CloudWatch takes for a call.
_LAST_PUT_SECONDS = 5.0
_DONE = ("applied", "removed", "unchanged", "sent")


@dataclass(frozen=True, slots=True)
class _Totals:
    """What a drain did so far."""

    counts: Counter[str] = field(default_factory=Counter)  # items by outcome
    messages: int = 0
    batches: Percentiles = field(default_factory=Percentiles)
    lag: Percentiles = field(default_factory=Percentiles)  # seconds of each item
    strain: Strain = field(default_factory=Strain)

    @classmethod
    def of(cls, report: DrainReport | None, strain: Strain) -> _Totals:
        if report is None:
            return cls(strain=strain)
        # The drain goes on counting: copies, each made at once.
        return cls(
            Counter(report.counts),
            report.deliveries["received"],
            report.batches.since(None),
            report.lag.since(None),
            strain,
        )


class DrainMeter(PeriodicWriter):
    """A context manager around a drain, which leaves its report here as it goes. `strain` is that of the process so
    far, `system` what the drain receives from.
    """

    def __init__(
        self,
        put: Callable[[Sequence[Metering]], None],
        drain: str,
        strain: Callable[[], Strain],
        system: str = "aws_sqs",
    ) -> None:
        super().__init__(
            "drain-metrics",
            self.publish,
            self._publish_last,
            every_seconds=PUBLISH_SECONDS,
            warning="metrics not published",
            last_write_seconds=_LAST_PUT_SECONDS,
        )
        self._put, self._drain, self._strain, self._system = put, drain, strain, system
        self._before = _Totals(strain=strain())
        self.report: DrainReport | None = None

    def publish(self) -> None:
        """What has come since the last time, if anything has."""
        readings = self._since_last_time()
        if readings:
            self._put(readings)

    def _publish_last(self) -> None:
        readings, report = self._since_last_time(), self.report
        ended_by_dependency = report is not None and report.ended == "dependency_down"
        if report is not None and (readings or report.counts["received"] or ended_by_dependency):
            readings.append(self._reading(DRAIN_SECONDS, report.seconds))
            readings.append(self._reading(DEPENDENCY_DOWN, ended_by_dependency))
            self._put(readings)

    def _since_last_time(self) -> list[Metering]:
        before, now = self._before, _Totals.of(self.report, self._strain())
        self._before = now
        counts, strain = now.counts - before.counts, now.strain.since(before.strain)
        batches, lag = now.batches.since(before.batches), now.lag.since(before.lag)
        if not (counts["received"] or batches.count or strain.any):
            return []
        found = [
            self._reading(INVOCATIONS, batches.count),
            self._reading(MESSAGES, now.messages - before.messages),
            self._reading(RECEIVED, counts["received"]),
            self._reading(DONE, sum(counts[name] for name in _DONE)),
            self._reading(FAILED, counts["dead_lettered"] + counts["returned"]),
            self._reading(UNSENT, strain.unsent_dead_letters),
            *self._of_dependencies(strain),
        ]
        found += [self._reading(BATCH_DURATION, batches)] if batches.count else []
        return found + ([self._reading(LAG, lag)] if lag.count else [])

    def _of_dependencies(self, strain: Strain) -> Iterator[Metering]:
        for instrument, numbers in ((RETRIES, strain.retries), (THROTTLES, strain.throttles)):
            yield self._reading(instrument, sum(numbers.values()))
            for dependency, number in numbers.items():
                yield self._reading(instrument, number, Dependency=dependency)

    def _reading(self, instrument: Instrument, value: float | Histogram, **more: str) -> Metering:
        return Metering(instrument, value, {"Drain": self._drain, **more}, self._system)
