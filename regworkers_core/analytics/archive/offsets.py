"""Where to read on, partition by partition, and what was gone before it was read. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from regworkers_core.adapters.kafka.log import Partition, Span
from regworkers_core.analytics.archive.manifest import Loss, Manifest


@dataclass(frozen=True, slots=True)
class Plan:
    """`spans` are what to read, empty ones included. `restarted` partitions are shorter than what was read of them:
    somebody made them anew, and they are read from their beginning.
    """

    spans: Mapping[Partition, Span]
    losses: tuple[Loss, ...]
    restarted: tuple[Partition, ...]

    @property
    def anything(self) -> bool:
        return bool(self.losses or self.restarted) or any(
            span.start < span.end for span in self.spans.values()
        )


def plan_reading(manifest: Manifest, bounds: Mapping[Partition, Span], at: str) -> Plan:
    """`bounds` are what the partitions hold now."""
    spans: dict[Partition, Span] = {}
    losses: list[Loss] = []
    restarted: list[Partition] = []
    for partition, held in bounds.items():
        offset = manifest.offset(partition)
        start = held.start if offset is None else offset
        if start > held.end:
            restarted.append(partition)
            start = held.start
        elif start < held.start:
            losses.append(Loss(*partition, start, held.start, at))
            start = held.start
        spans[partition] = Span(start, held.end)
    return Plan(spans, tuple(losses), tuple(restarted))


def lag(spans: Mapping[Partition, Span], manifest: Manifest) -> dict[str, int]:
    """By topic: how far the archive is behind the ends of the spans, in offsets."""
    behind: dict[str, int] = {}
    for partition, span in spans.items():
        offset = manifest.offset(partition)
        left = span.end - (span.start if offset is None else offset)
        behind[partition.topic] = behind.get(partition.topic, 0) + max(left, 0)
    return behind
