"""Creates what the workers need, and adopts what exists: tables, queues, keys of events, the bucket, indexes, topics,
log groups.

Idempotent: the outcome of each resource says whether it was created, existed or differs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from regworkers_core.adapters.kafka.admin import TopicState
from regworkers_core.domain.reasons import UsageError
from regworkers_core.infrastructure.desired import desired
from regworkers_core.infrastructure.indexes import provision_indexes
from regworkers_core.infrastructure.provision_aws import (
    OnLine,
    Provisioned,
    ProvisionOutcome,
    provision_bucket,
    provision_log_group,
    provision_producer_keys,
    provision_queues,
)
from regworkers_core.infrastructure.provision_tables import provision_table
from regworkers_core.runtime import Runtime
from regworkers_core.settings import KafkaSettings

_RETENTION = "retention.ms"
# Kafka's defaults. With others it deletes events before they are old enough.
_KEEPS_EVENTS = {"cleanup.policy": "delete", "retention.bytes": "-1"}


@dataclass(slots=True)
class TopicDifference:
    """What a topic lacks."""

    config: dict[str, str] = field(default_factory=dict)  # settings to set
    partitions: int = 0  # to add, 0: none
    notes: list[str] = field(default_factory=list)  # what differs, in words
    by_hand: list[str] = field(default_factory=list)  # what only an operator can change


def difference(state: TopicState, config: Mapping[str, str], wanted: KafkaSettings) -> TopicDifference:
    """Pure. More partitions, more replicas and a longer retention than wanted are no difference: partitions and
    retention cannot be reduced without losing events or their order.
    """
    found = TopicDifference()
    for name, value in (_KEEPS_EVENTS | wanted.topic_config).items():
        has = config.get(name, _KEEPS_EVENTS.get(name))
        if has != value and not (name == _RETENTION and _is_longer(has, value)):
            found.config[name] = value
            found.notes.append(f"{name} {has or 'from the brokers'}, wanted {value}")
    if state.partitions < wanted.partitions:
        found.partitions = wanted.partitions
        found.notes.append(
            f"{state.partitions} partitions, wanted {wanted.partitions}: later events of an entry then go to another "
            "partition than earlier ones"
        )
    if state.replicas < wanted.replication_factor:
        found.by_hand.append(
            f"replication factor {state.replicas}, wanted {wanted.replication_factor}: an operator moves the "
            "partitions with kafka-reassign-partitions"
        )
    return found


def _is_longer(has: str | None, wanted: str) -> bool:
    """-1 keeps events for ever."""
    return has is not None and (int(has) < 0 or int(has) > int(wanted))


def provision_topics(runtime: Runtime, *, change: bool) -> Iterator[Provisioned]:
    """Raises TransientFailure, and UsageError where a topic cannot be created."""
    admin, names = runtime.kafka_admin, runtime.names.topics
    created = set(admin.create(names))
    yield from (Provisioned("topic", name, ProvisionOutcome.CREATED) for name in names if name in created)
    # One that another process has just created may be missing here, and has the settings.
    topics = admin.cluster().topics if len(created) < len(names) else {}
    for name in (each for each in names if each in topics and each not in created):
        found = TopicDifference()
        try:
            found = difference(topics[name], admin.configs([name])[name], runtime.settings.kafka)
            if change and found.config:
                admin.set_config(name, found.config)
            if change and found.partitions:
                admin.grow(name, found.partitions)
        except UsageError as error:
            found.by_hand.append(str(error))
        outcome = ProvisionOutcome.EXISTED
        if found.by_hand:
            outcome = ProvisionOutcome.BLOCKED
        elif found.notes:
            outcome = ProvisionOutcome.CHANGED if change else ProvisionOutcome.DIFFERS
        yield Provisioned("topic", name, outcome, "; ".join((*found.notes, *found.by_hand)))


def provision(
    runtime: Runtime,
    *,
    change: bool = True,
    keep: Collection[str] = (),
    on_line: OnLine = lambda _line: None,
) -> Iterator[Provisioned]:
    """Yield each resource once it is ready. Without `change` only create what is missing, and report what differs.
    Indexes named in `keep` (`entries.byMail`) stay as they are; `on_line` gets the progress of long builds.

    Raises TransientFailure when a service does not answer.
    """
    wanted = desired(runtime.settings)
    for table in wanted.tables:
        yield provision_table(runtime, table, change=change)
    yield from provision_queues(runtime, wanted.queues, change=change)
    yield from provision_producer_keys(runtime)
    yield provision_bucket(runtime, change=change)
    yield from provision_indexes(runtime, change=change, keep=keep, on_line=on_line)
    yield from provision_topics(runtime, change=change)
    yield provision_log_group(runtime, wanted.log_group, change=change)
