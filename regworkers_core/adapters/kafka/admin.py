"""Kafka's cluster and topics: reading their state, creating topics, and changing their settings."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
)

from regworkers_core.adapters.kafka.security import Credentials
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.dependency import Dependency
from regworkers_core.settings import KafkaSettings

DEPENDENCY = "kafka"
_SILENT = logging.getLogger("regworkers.librdkafka")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False


_REFUSED_LOGIN = frozenset(
    {KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError.SASL_AUTHENTICATION_FAILED}
)
_REFUSED_ACCESS = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
# More replicas than brokers, a setting that a managed cluster does not allow, a call that the broker does not know.
_REFUSED_SETTINGS = frozenset(
    {
        KafkaError.INVALID_REPLICATION_FACTOR,
        KafkaError.INVALID_PARTITIONS,
        KafkaError.INVALID_CONFIG,
        KafkaError.POLICY_VIOLATION,
        KafkaError.UNSUPPORTED_VERSION,
        KafkaError._UNSUPPORTED_FEATURE,
    }
)


def classify_kafka(error: Exception) -> Exception:
    """Missing answers of the broker are transient, a refused login is the operator's; other errors are returned."""
    if isinstance(error, KafkaException):
        kafka_error = error.args[0]
        if not isinstance(kafka_error, KafkaError):
            return error
        if kafka_error.code() in _REFUSED_LOGIN:
            return UsageError(
                "Kafka refuses the login or the certificate: check kafka.options and `regworkers certs check`"
            )
        if kafka_error.code() in _REFUSED_ACCESS:
            return UsageError(
                f"Kafka refuses the access ({kafka_error.name()}): docs/analytics.md lists the rights that each needs"
            )
        if kafka_error.code() in _REFUSED_SETTINGS:
            return UsageError(f"the brokers refuse the settings or their change: {kafka_error.name()}")
        if kafka_error.retriable() or kafka_error.code() < 0:
            return TransientFailure(DEPENDENCY, kafka_error.name())
    return error


def existing(wanted: Iterable[str], metadata: Any) -> dict[str, Any]:
    """The topics that the brokers list. Raises TransientFailure for one with an error, UsageError for one denied."""
    found = {topic: metadata.topics[topic] for topic in wanted if topic in metadata.topics}
    for error in filter(None, (topic.error for topic in found.values())):
        meaning = classify_kafka(KafkaException(error))
        raise meaning if isinstance(meaning, UsageError) else TransientFailure(DEPENDENCY, error.name())
    return found


@dataclass(frozen=True, slots=True)
class TopicState:
    """Partitions of a topic."""

    partitions: int
    without_leader: int
    short_of_replicas: int  # those with a replica that is not in sync
    replicas: int = 0  # the lowest number that a partition has


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
                    min((len(each.replicas) for each in topic.partitions.values()), default=0),
                )
                for name, topic in metadata.topics.items()
            },
        )

    def _metadata(self) -> Any:
        timeout, client = self._settings.timeout_seconds, self._client()
        return self._dependency.call(client.list_topics, timeout=timeout)

    def create(self, names: Sequence[str]) -> list[str]:
        """Create missing topics and return their names. Another process may create one at the same time."""
        settings = self._settings
        topics = [
            NewTopic(
                name,
                num_partitions=settings.partitions,
                replication_factor=settings.replication_factor,
                config=settings.topic_config,
            )
            for name in sorted({*names} - self._metadata().topics.keys())
        ]
        if not topics:
            return []
        answers = self._await("create_topics", topics, KafkaError.TOPIC_ALREADY_EXISTS)
        return [name for name, answer in answers.items() if not isinstance(answer, KafkaException)]

    def configs(self, topics: Iterable[str]) -> dict[str, dict[str, str]]:
        """The settings of topics that exist, those from the brokers included; embedded brokers list only a topic's own.

        Raises UsageError where DescribeConfigs is refused, TransientFailure.
        """
        asked = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in topics]
        found = self._await("describe_configs", asked) if asked else {}
        return {
            resource.name: {name: entry.value for name, entry in config.items() if entry.value is not None}
            for resource, config in found.items()
        }

    def set_config(self, topic: str, config: Mapping[str, str]) -> None:
        """Change these settings of a topic and no other. Raises as `configs`."""
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
            for name, value in config.items()
        ]
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
        self._await("incremental_alter_configs", [resource])

    def grow(self, topic: str, partitions: int) -> None:
        """Add partitions up to this number. Raises as `configs`."""
        self._await("create_partitions", [NewPartitions(topic, partitions)])

    def _await(self, call: str, items: Any, tolerated: int | None = None) -> dict[Any, Any]:
        """The brokers' answers to a call; an error of the code `tolerated` is an answer."""
        timeout, client = self._settings.timeout_seconds, self._client()

        def answer(future: Any) -> Any:
            try:
                # A little longer than the client itself waits.
                return future.result(timeout=timeout + 1)
            except TimeoutError:
                raise TransientFailure(DEPENDENCY, f"no answer to {call}") from None
            except KafkaException as error:
                if error.args[0].code() == tolerated:
                    return error
                raise

        def once() -> dict[Any, Any]:
            futures = getattr(client, call)(items, request_timeout=timeout)
            return {item: answer(future) for item, future in futures.items()}

        return self._dependency.call(once)

    def probe(self, wanted: Sequence[str]) -> None:
        """Make one cheap call. Raises TransientFailure, or UsageError if a topic of `wanted` is missing or denied."""
        if missing := sorted({*wanted} - existing(wanted, self._metadata()).keys()):
            # A list leaves out what is denied; asked for by name, the brokers say so.
            named = TopicCollection(missing[:1])
            self._await("describe_topics", named, KafkaError.UNKNOWN_TOPIC_OR_PART)
            raise UsageError(f"topic {missing[0]} does not exist: run `regworkers provision`")
