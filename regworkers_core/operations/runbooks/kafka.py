"""Kafka failures: brokers, topics, certificate, the publish drains, and how long until events are lost: on the queue,
and in the topics before the archive reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from regworkers_core.adapters.kafka.admin import Cluster
from regworkers_core.analytics.publishing import PUBLISH
from regworkers_core.domain.activity import DrainWindow
from regworkers_core.domain.snapshot import QueueState, Reading, UnarchivedEvents, Unread
from regworkers_core.operation import Remark, Report
from regworkers_core.operations.certificates import CertificateReport, RenewalState, check_certificate
from regworkers_core.operations.dependency_status import command_in
from regworkers_core.operations.health.activity import Activity
from regworkers_core.operations.health.sources import read_analytics_queue, read_unarchived
from regworkers_core.operations.runbook import Row, read_or_unread, runbook_report
from regworkers_core.runtime import Runtime

NAME = "kafka"
_DAY_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class KafkaReading:
    """What the runbook reads."""

    cluster: Reading[Cluster]
    # The client's.
    certificate: Reading[CertificateReport]
    # The queue of events.
    queue: Reading[QueueState]
    # The work of the publish drain.
    producer: Reading[DrainWindow | None]
    # Those that should exist.
    topics: Sequence[str] = ()
    # An event with less time left on the queue is a finding.
    warn_seconds: float = 10 * _DAY_SECONDS
    # Events that are not archived.
    archive: Reading[tuple[UnarchivedEvents, ...]] = ()
    # An event with less of its topic's retention left is a finding.
    warn_share: float = 0.25


def run(runtime: Runtime, *, minutes: float = 60.0) -> Report:
    """Changes nothing. Whatever does not answer is a finding."""
    reading = KafkaReading(
        read_or_unread(lambda: runtime.kafka_admin.cluster()),
        read_or_unread(lambda: check_certificate(runtime, runtime.settings.environment)),
        read_analytics_queue(runtime) or Unread("it does not answer"),
        read_or_unread(lambda: Activity(runtime).last(60 * minutes).get(PUBLISH.name)),
        runtime.names.topics,
        runtime.settings.analytics.warn_days_left * _DAY_SECONDS,
        read_or_unread(lambda: read_unarchived(runtime)),
        runtime.settings.alerts.loss_share_left,
    )
    return assess(reading)


def assess(reading: KafkaReading) -> Report:
    """Findings in the order of cause and effect."""
    findings = [
        *_broker_findings(reading),
        *_certificate_findings(reading.certificate),
        *_producer_findings(reading.producer),
        *_queue_findings(reading),
        *_archive_findings(reading),
    ]
    facts, topics = _numbers(reading)
    if findings:
        summary = findings[0].text
    else:
        summary = f"{facts.get('brokers')} brokers answer, {facts.get('waiting')} messages wait"
    return runbook_report(NAME, summary, facts, {"topics": topics} if topics else {}, tuple(findings))


def _broker_findings(reading: KafkaReading) -> Iterator[Remark]:
    cluster = reading.cluster
    if isinstance(cluster, Unread):
        advice = "nothing is lost yet: check how much time is left, then the brokers"
        yield Remark("finding", f"Kafka: {cluster.why}", advice)
        return
    for name in reading.topics:
        topic = cluster.topics.get(name)
        if topic is None:
            yield Remark("finding", f"topic {name} is missing", "regworkers provision")
            continue
        if topic.without_leader:
            text = f"{topic.without_leader} partitions of {name} have no leader"
            yield Remark("finding", text, "check the brokers")
        if topic.short_of_replicas:
            text = f"{topic.short_of_replicas} partitions of {name} have replicas that are not in sync"
            yield Remark("finding", text, "check the brokers: writes wait for all in-sync replicas")


def _certificate_findings(certificate: Reading[CertificateReport]) -> list[Remark]:
    if isinstance(certificate, Unread):
        return [Remark("finding", f"certificate: {certificate.why}", "regworkers certs check")]
    if certificate.inspection is None:
        return []
    return [
        Remark("finding", f"certificate: {each.text}", "regworkers certs generate")
        for each in certificate.inspection.findings
    ]


def _producer_findings(producer: Reading[DrainWindow | None]) -> Iterator[Remark]:
    if isinstance(producer, Unread):
        text = f"the work of the publish drains could not be read: {producer.why}"
        yield Remark("finding", text, command_in(producer.why))
        return
    if producer is None:
        return
    if down := producer.ends["dependency_down"]:
        text = f"{down} publish drains ended because Kafka did not accept their events"
        yield Remark("finding", text, "nothing once it answers: the sensor starts the next drain")
    if dead := producer.counts["dead_lettered"]:
        yield Remark("finding", f"{dead} events became dead letters", "see docs/runbooks/dead-letters.md")


def _queue_findings(reading: KafkaReading) -> list[Remark]:
    queue = reading.queue
    if isinstance(queue, Unread):
        return [Remark("finding", f"the analytics queue: {queue.why}", command_in(queue.why))]
    if queue.seconds_left is None or queue.seconds_left > reading.warn_seconds:
        return []
    days = queue.seconds_left / _DAY_SECONDS
    if isinstance(reading.cluster, Unread):
        advice = "restore Kafka before that, or save the messages of the queue elsewhere"
    else:
        advice = "regworkers drain publish"
    return [Remark("finding", f"the oldest event is lost in {days:.1f} days", advice)]


def _archive_findings(reading: KafkaReading) -> Iterator[Remark]:
    if isinstance(reading.cluster, Unread):
        return
    if isinstance(reading.archive, Unread):
        text = f"how far the archive is could not be read: {reading.archive.why}"
        yield Remark("finding", text, command_in(reading.archive.why))
        return
    for topic in reading.archive:
        age, kept = topic.oldest_seconds, topic.retention_seconds
        if not topic.waiting or age is None or kept is None or kept - age > reading.warn_share * kept:
            continue
        days = max(0.0, kept - age) / _DAY_SECONDS
        text = f"{topic.topic}: the oldest event that is not archived is lost in {days:.1f} days"
        yield Remark("finding", text, "regworkers archive run")


class _Numbers(NamedTuple):
    facts: dict[str, object]
    topics: list[Row]


def _numbers(reading: KafkaReading) -> _Numbers:
    facts: dict[str, object] = {}
    topics: list[Row] = []
    cluster, certificate, queue = reading.cluster, reading.certificate, reading.queue
    unarchived: dict[str, Row] = {}
    if not isinstance(reading.archive, Unread):
        unarchived = {each.topic: {"notArchived": each.waiting} for each in reading.archive}
    if not isinstance(cluster, Unread):
        facts["brokers"] = cluster.brokers
        topics = [
            {
                "topic": name,
                "partitions": topic.partitions,
                "withoutLeader": topic.without_leader,
                "shortOfReplicas": topic.short_of_replicas,
                **unarchived.get(name, {}),
            }
            for name, topic in sorted(cluster.topics.items())
            if name in reading.topics
        ]
    if not isinstance(certificate, Unread):
        inspected = certificate.inspection
        facts["certificate"] = certificate.state.value
        if (
            certificate.state is not RenewalState.NONE
            and inspected is not None
            and inspected.days_left is not None
        ):
            facts["certificateDaysLeft"] = round(inspected.days_left, 1)
    if not isinstance(queue, Unread):
        facts["waiting"] = queue.waiting
        facts["oldestSeconds"] = None if queue.oldest_seconds is None else round(queue.oldest_seconds)
        facts["secondsToDataLoss"] = None if queue.seconds_left is None else round(queue.seconds_left)
    if not isinstance(reading.producer, Unread):
        facts["sentLately"] = reading.producer.counts["sent"] if reading.producer else 0
    return _Numbers(facts, topics)
