"""Kafka failures: brokers, topics, certificate, producer and the queue before it."""

from __future__ import annotations

from regworkers_core.domain.snapshot import Reading, Unread
from regworkers_core.operations.alerts import analytics_queue
from regworkers_core.operations.certificates.checking import check_certificate
from regworkers_core.operations.runbooks import kafka
from regworkers_core.operations.runbooks.runbook_report import RunbookReport
from regworkers_core.operations.runbooks.unread import reading, worked_lately
from regworkers_core.runtime import Runtime

_DAY_SECONDS = 24 * 3600.0


def read_kafka(runtime: Runtime, *, minutes: float = 60.0) -> RunbookReport:
    """Brokers, topics, certificate, producer, queue. Changes nothing; whoever does not answer is a finding."""
    names = runtime.names
    look = kafka.Look(
        reading(lambda: runtime.kafka_admin.cluster()),
        reading(lambda: check_certificate(runtime, runtime.settings.environment)),
        _analytics_queue(runtime),
        reading(lambda: worked_lately(runtime, minutes).get("publish")),
        names.topics,
        runtime.settings.analytics.warn_days_left * _DAY_SECONDS,
    )
    return kafka.judged(look)


def _analytics_queue(runtime: Runtime) -> Reading[kafka.Waiting]:
    seen = analytics_queue.look(runtime)
    if seen.waiting is None:
        return Unread("it does not answer")
    return kafka.Waiting(seen.waiting, seen.age.known, seen.age.seconds_left)
