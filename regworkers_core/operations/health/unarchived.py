"""How much of each topic the archive has not read, and how long Kafka keeps it."""

from __future__ import annotations

from collections.abc import Collection

from regworkers_core.adapters.kafka.log import Partition
from regworkers_core.analytics.archive.manifest import LEASE, plan_reading, read_manifest
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.snapshot import UnarchivedEvents
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime


def read_unarchived(runtime: Runtime) -> tuple[UnarchivedEvents, ...]:
    """One for each topic. Raises TransientFailure when S3 or Kafka does not answer, UsageError for a missing topic."""
    manifest, _ = read_manifest(runtime.objects)
    now = runtime.clock()
    with runtime.kafka_log(LEASE, peek=True) as log:
        topics = log.partitions(runtime.names.topics)
        if len(topics) < len(runtime.names.topics):
            runtime.kafka_admin.probe(runtime.names.topics)
        bounds = log.watermarks([each for partitions in topics.values() for each in partitions])
        # The archive read on to an end that some brokers list late: the partition was not created again.
        ahead = [each for each, span in bounds.items() if (manifest.offset(each) or 0) > span.end]
        bounds |= log.bounds(ahead)
        spans = plan_reading(manifest, bounds, iso(now)).spans
        times = log.first_times(spans)
    retention = _retention(runtime, topics)

    def oldest(partitions: Collection[Partition]) -> float | None:
        written = [times[each] for each in partitions if each in times]
        return max(0.0, now - min(written)) if written else None

    return tuple(
        UnarchivedEvents(
            topic,
            sum(spans[each].end - spans[each].start for each in partitions),
            oldest(partitions),
            retention[topic],
        )
        for topic, partitions in topics.items()
    )


def _retention(runtime: Runtime, topics: Collection[str]) -> dict[str, float | None]:
    """Seconds by topic. Those of the settings where the topic's own cannot be read."""
    settings = runtime.settings.kafka
    try:
        configs = runtime.kafka_admin.configs(topics)
    except UsageError:
        configs = {}
    wanted = settings.topic_config["retention.ms"]
    milliseconds = {topic: int(configs.get(topic, {}).get("retention.ms", wanted)) for topic in topics}
    return {topic: None if each < 0 else each / 1000 for topic, each in milliseconds.items()}
