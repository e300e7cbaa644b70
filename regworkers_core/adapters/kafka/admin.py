"""Kafka's cluster and topics: reading their state, and creating topics."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from regworkers_core.adapters.kafka.credentials import Credentials
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.dependency import Dependency
from regworkers_core.settings import KafkaSettings

DEPENDENCY = "kafka"
_SILENT = logging.getLogger("regworkers.librdkafka")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False


def classify_kafka(error: Exception) -> Exception:
    """Missing answers of the broker are transient, a refused login is the operator's; other errors are returned."""
    if isinstance(error, KafkaException):
        kafka_error = error.args[0]
        if not isinstance(kafka_error, KafkaError):
            return error
        if kafka_error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL):
            return UsageError(
                "Kafka refuses the login or the certificate: check kafka.options and `regworkers certs check`"
            )
        if kafka_error.retriable() or kafka_error.code() < 0:
            return TransientFailure(DEPENDENCY, kafka_error.name())
    return error


@dataclass(frozen=True, slots=True)
class TopicState:
    """Partitions of a topic; `short_of_replicas` counts those with a replica that is not in sync."""

    partitions: int
    without_leader: int
    short_of_replicas: int


@dataclass(frozen=True, slots=True)
class Cluster:
    """The brokers that answer, and every topic by name."""

    brokers: int
    topics: Mapping[str, TopicState]


class KafkaAdmin:
    """The admin client. Its first call after `credentials` have a renewed certificate uses that."""

    def __init__(self, settings: KafkaSettings, dependency: Dependency, credentials: Credentials) -> None:
        if settings.bootstrap is None:
            raise UsageError("no Kafka address: set REGWORKERS_KAFKA__BOOTSTRAP")
        self._settings = settings
        self._dependency = dependency
        self._credentials = credentials
        self._connected: tuple[str, Any] | None = None

    def _client(self) -> Any:
        accepted = self._credentials.fresh()
        connected = self._connected
        if connected is None or connected[0] != accepted.fingerprint:
            # librdkafka also logs connection errors; they reach us as exceptions.
            options: dict[str, Any] = {
                "bootstrap.servers": self._settings.bootstrap,
                "log_level": 0,
                **accepted.options,
            }
            try:
                connected = accepted.fingerprint, AdminClient(options, logger=_SILENT)
            except KafkaException:
                raise UsageError(
                    "Kafka's options or certificate cannot be used: check kafka.options and `regworkers certs check`"
                ) from None
            self._connected = connected
        return connected[1]

    def topics(self) -> set[str]:
        """Names of the topics that exist."""
        return set(self._metadata().topics)

    def cluster(self) -> Cluster:
        """Brokers and topics, as the brokers report them. Raises TransientFailure."""
        metadata = self._metadata()
        return Cluster(
            len(metadata.brokers),
            {
                name: TopicState(
                    len(topic.partitions),
                    # A partition without a leader names -1.
                    sum(each.leader < 0 for each in topic.partitions.values()),
                    sum(len(each.isrs) < len(each.replicas) for each in topic.partitions.values()),
                )
                for name, topic in metadata.topics.items()
            },
        )

    def _metadata(self) -> Any:
        timeout, client = self._settings.timeout_seconds, self._client()
        return self._dependency.call(client.list_topics, timeout=timeout)

    def create(self, names: Sequence[str]) -> list[str]:
        """Create missing topics and return their names. Another process may create one at the same time."""
        missing = sorted(set(names) - self.topics())
        if not missing:
            return []
        settings, client = self._settings, self._client()
        futures = self._dependency.call(
            client.create_topics,
            [
                NewTopic(
                    name,
                    num_partitions=settings.partitions,
                    replication_factor=settings.replication_factor,
                )
                for name in missing
            ],
            request_timeout=settings.timeout_seconds,
        )
        created = []
        for name, future in futures.items():
            try:
                future.result(timeout=settings.timeout_seconds)
                created.append(name)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise classify_kafka(error) from error
        return created

    def probe(self, wanted: Sequence[str]) -> None:
        """Make one cheap call. Raises TransientFailure, or UsageError if one of the topics `wanted` is missing."""
        if missing := set(wanted) - self.topics():
            raise UsageError(f"topic {min(missing)} does not exist: run `regworkers provision`")
