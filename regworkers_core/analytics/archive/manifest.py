"""The manifest: the one small document that lists the archive's files, and the offsets to continue from.

Files are written first and never changed; an event is archived once the manifest names its file, in the same write
that advances the offsets. Each write replaces exactly the state that was read, so of two writers one is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import orjson

from regworkers_core.adapters.aws.objects import ObjectStore
from regworkers_core.adapters.kafka.log import Partition, Span
from regworkers_core.domain.reasons import Failure, UsageError

ROOT = "archive/"
MANIFEST = ROOT + "manifest.json"
FORMAT = 1
# The lease of everything that changes the archive.
LEASE = "event-archive"
# Losses that are listed; `lost` counts all of them.
_LOSSES = 200


class ArchiveSuperseded(Failure):
    """Another run has written the manifest: what this run has not committed is not archived."""

    def __init__(self) -> None:
        super().__init__("another run has written the archive; nothing is lost, that run continues")


@dataclass(frozen=True, slots=True)
class DataFile:
    """Rows of one day and type."""

    key: str  # where it is in the bucket
    date: str  # the day (UTC) of its events
    type: str  # that of its events
    rows: int
    bytes: int  # its size


@dataclass(frozen=True, slots=True)
class SideFile:
    """Digests of archived ids, or damaged records."""

    key: str
    rows: int


@dataclass(frozen=True, slots=True)
class ReplacedFile:
    """A file that is no longer part of the archive since `at` (epoch seconds); readers may still use it."""

    key: str
    at: float


@dataclass(frozen=True, slots=True)
class Loss:
    """Offsets of a partition that were deleted before they were read."""

    topic: str
    partition: int
    first: int  # the first of them
    end: int  # the one behind the last
    at: str  # ISO time at which it was noticed


@dataclass(frozen=True)
class ArchiveManifest:
    """One state of the archive. What was read is the sum of the rows, expired ones, repeats and damaged ones, over all
    runs.
    """

    generation: int = 0  # grows with every write
    token: int = 0  # grows with every run: usually the fencing token of its lease
    open: bool = False  # while a run works; if the next run finds it, a run has died
    at: str = ""  # an ISO time
    # Where to continue, by topic and partition.
    offsets: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    files: tuple[DataFile, ...] = ()
    ids: tuple[SideFile, ...] = ()  # files of the index of event ids
    damaged: tuple[SideFile, ...] = ()  # files of events that cannot be a row
    replaced: tuple[ReplacedFile, ...] = ()  # files that a compaction replaced
    losses: tuple[Loss, ...] = ()  # events that Kafka deleted first
    read: int = 0  # events
    repeats: int = 0  # events that the archive had
    lost: int = 0  # offsets of all losses
    expired: int = 0  # rows of days that are no longer kept

    @cached_property
    def rows(self) -> int:
        return sum(each.rows for each in self.files)

    @cached_property
    def damaged_rows(self) -> int:
        return sum(each.rows for each in self.damaged)

    @property
    def keys(self) -> set[str]:
        """The keys of all objects of the archive, replaced ones that are not deleted yet included."""
        groups = (self.files, self.ids, self.damaged, self.replaced)
        return {each.key for group in groups for each in group}

    def offset(self, partition: Partition) -> int | None:
        """Return the offset to continue from; None for a partition that was never read."""
        return self.offsets.get(partition.topic, {}).get(str(partition.number))

    def moved(self, positions: Mapping[Partition, int]) -> dict[str, dict[str, int]]:
        """Return the offsets with `positions` replaced."""
        moved = {topic: dict(numbers) for topic, numbers in self.offsets.items()}
        for partition, offset in positions.items():
            moved.setdefault(partition.topic, {})[str(partition.number)] = offset
        return moved

    def with_losses(self, losses: tuple[Loss, ...]) -> ArchiveManifest:
        lost = self.lost + sum(each.end - each.first for each in losses)
        return replace(self, losses=(*self.losses, *losses)[-_LOSSES:], lost=lost)

    def as_json(self) -> bytes:
        return orjson.dumps({"format": FORMAT, **asdict(self)})

    @classmethod
    def parse(cls, data: bytes, where: str) -> ArchiveManifest:
        """Parse a manifest. Raises UsageError for anything else, and for another format."""
        try:
            document = orjson.loads(data)
            found = document.pop("format")
            if found == FORMAT:
                return cls(**{name: _part(name, value) for name, value in document.items()})
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
            raise UsageError(f"{where} is damaged: restore an older version of that object") from None
        raise UsageError(f"{where} has format {found}, this release reads {FORMAT}: use a newer release")


_PARTS: Mapping[str, Any] = {
    "files": DataFile,
    "ids": SideFile,
    "damaged": SideFile,
    "replaced": ReplacedFile,
    "losses": Loss,
}


def _part(name: str, value: Any) -> Any:
    kind = _PARTS.get(name)
    return value if kind is None else tuple(kind(**each) for each in value)


class ManifestRead(NamedTuple):
    manifest: ArchiveManifest  # empty if nothing was archived yet
    tag: str | None  # of exactly that state


def read_manifest(objects: ObjectStore) -> ManifestRead:
    found = objects.get_tagged(MANIFEST)
    if found is None:
        return ManifestRead(ArchiveManifest(), None)
    parsed = ArchiveManifest.parse(found.data, f"s3://{objects.bucket}/{MANIFEST}")
    return ManifestRead(parsed, found.tag)


class Ledger:
    """The manifest as one run changes it. `token` is that of its lease."""

    def __init__(self, objects: ObjectStore, token: int) -> None:
        self._objects = objects
        self.manifest, self._tag = read_manifest(objects)
        # If the lease table was lost, tokens start at 1 again.
        self._token = max(token, self.manifest.token + 1)

    def commit(self, at: str, **changes: Any) -> None:
        """Write the next state. Raises Superseded if another run has written since. Afterwards no earlier holder of the
        lease can commit.
        """
        following = replace(
            self.manifest, generation=self.manifest.generation + 1, token=self._token, at=at, **changes
        )
        tag = self._objects.put_over(MANIFEST, following.as_json(), self._tag)
        if tag is None:
            raise ArchiveSuperseded
        self.manifest, self._tag = following, tag


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """`spans` are what to read, empty ones included. `restarted` partitions end before the offset that was read: they
    were created again, and are read from their beginning.
    """

    spans: Mapping[Partition, Span]
    losses: tuple[Loss, ...]
    restarted: tuple[Partition, ...]

    @property
    def anything(self) -> bool:
        return bool(self.losses or self.restarted) or any(
            span.start < span.end for span in self.spans.values()
        )


def plan_reading(manifest: ArchiveManifest, bounds: Mapping[Partition, Span], at: str) -> ReadPlan:
    """Plan what to read; `bounds` are the offsets that the partitions have now."""
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
    return ReadPlan(spans, tuple(losses), tuple(restarted))


def lag(spans: Mapping[Partition, Span], manifest: ArchiveManifest) -> dict[str, int]:
    """Return by topic how many offsets the archive is behind the ends of the spans."""
    behind: dict[str, int] = {}
    for partition, span in spans.items():
        offset = manifest.offset(partition)
        left = span.end - (span.start if offset is None else offset)
        behind[partition.topic] = behind.get(partition.topic, 0) + max(left, 0)
    return behind
