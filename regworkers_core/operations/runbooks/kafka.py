"""Kafka: brokers, topics, certificate, what the producer met lately, how old the queue is, when events are lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from regworkers_core.adapters.kafka.admin import Cluster
from regworkers_core.domain.snapshot import Reading, Unread
from regworkers_core.operations.certificates.checking import CertificateReport, State
from regworkers_core.operations.health.status import command_in
from regworkers_core.operations.runbooks.runbook_report import Finding, Row, RunbookReport
from regworkers_core.operations.runbooks.worked import Worked

NAME = "kafka"
_DAY_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """On the analytics queue: messages, and in seconds the least age of the oldest and what is left until SQS drops it;
    None: not known.
    """

    messages: int
    oldest_seconds: float | None
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class Look:
    """All that is asked; `wanted` are the topics that there should be."""

    cluster: Reading[Cluster]
    certificate: Reading[CertificateReport]
    waiting: Reading[Waiting]
    producer: Reading[Worked | None]
    wanted: Sequence[str] = field(default=())
    warn_seconds: float = 10 * _DAY_SECONDS


def judged(look: Look) -> RunbookReport:
    """What is wrong, the cause before its effects."""
    findings = [
        *_of_brokers(look.cluster, look.wanted),
        *_of_certificate(look.certificate),
        *_of_producer(look.producer),
        *_of_queue(look.waiting, look.warn_seconds, up=not isinstance(look.cluster, Unread)),
    ]
    facts, topics = _numbers(look)
    if findings:
        summary = findings[0].text
    else:
        summary = f"{facts.get('brokers')} brokers answer, {facts.get('waiting')} messages wait"
    return RunbookReport(NAME, summary, facts, {"topics": topics} if topics else {}, tuple(findings))


def _of_brokers(cluster: Reading[Cluster], wanted: Sequence[str]) -> list[Finding]:
    if isinstance(cluster, Unread):
        return [
            Finding(
                f"Kafka: {cluster.why}", "nothing is lost yet: see how much time is left, then the brokers"
            )
        ]
    found = [
        Finding(f"topic {name} is missing", "regworkers provision")
        for name in wanted
        if name not in cluster.topics
    ]
    for name in wanted:
        topic = cluster.topics.get(name)
        if topic is None:
            continue
        if topic.without_leader:
            found.append(
                Finding(f"{topic.without_leader} partitions of {name} have no leader", "look at the brokers")
            )
        if topic.short_of_replicas:
            text = f"{topic.short_of_replicas} partitions of {name} have replicas that are not in sync"
            found.append(Finding(text, "look at the brokers: writing waits for all in-sync replicas"))
    return found


def _of_certificate(certificate: Reading[CertificateReport]) -> list[Finding]:
    if isinstance(certificate, Unread):
        return [Finding(f"certificate: {certificate.why}", "regworkers certs check")]
    if certificate.inspection is None:
        return []
    return [
        Finding(f"certificate: {each.text}", "regworkers certs generate")
        for each in certificate.inspection.findings
    ]


def _of_producer(producer: Reading[Worked | None]) -> list[Finding]:
    if isinstance(producer, Unread):
        return [
            Finding(
                f"what the publish drains did could not be read: {producer.why}",
                command_in(producer.why),
            )
        ]
    if producer is None:
        return []
    found = []
    if producer.ends["dependency_down"]:
        text = (
            f"{producer.ends['dependency_down']} publish drains ended because Kafka did not take their events"
        )
        found.append(Finding(text, "nothing once it answers: the sensor starts the next drain"))
    if dead := producer.counts["dead_lettered"]:
        found.append(Finding(f"{dead} events became dead letters", "see docs/runbooks/dead-letters.md"))
    return found


def _of_queue(waiting: Reading[Waiting], warn_seconds: float, *, up: bool) -> list[Finding]:
    if isinstance(waiting, Unread):
        return [Finding(f"the analytics queue: {waiting.why}", command_in(waiting.why))]
    if waiting.seconds_left is None or waiting.seconds_left > warn_seconds:
        return []
    left = waiting.seconds_left / _DAY_SECONDS
    advice = (
        "regworkers drain publish" if up else "bring Kafka back before that, or read the queue out by hand"
    )
    return [Finding(f"the oldest event is lost in {left:.1f} days", advice)]


def _numbers(look: Look) -> tuple[dict[str, object], list[Row]]:
    facts: dict[str, object] = {}
    topics: list[Row] = []
    if not isinstance(look.cluster, Unread):
        facts["brokers"] = look.cluster.brokers
        topics = [
            {
                "topic": name,
                "partitions": topic.partitions,
                "withoutLeader": topic.without_leader,
                "shortOfReplicas": topic.short_of_replicas,
            }
            for name, topic in sorted(look.cluster.topics.items())
            if name in look.wanted
        ]
    if not isinstance(look.certificate, Unread):
        inspected = look.certificate.inspection
        facts["certificate"] = look.certificate.state.value
        if (
            look.certificate.state is not State.NONE
            and inspected is not None
            and inspected.days_left is not None
        ):
            facts["certificateDaysLeft"] = round(inspected.days_left, 1)
    if not isinstance(look.waiting, Unread):
        facts["waiting"] = look.waiting.messages
        facts["oldestSeconds"] = _rounded(look.waiting.oldest_seconds)
        facts["secondsToDataLoss"] = _rounded(look.waiting.seconds_left)
    if not isinstance(look.producer, Unread):
        facts["sentLately"] = look.producer.counts["sent"] if look.producer else 0
    return facts, topics


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number)
