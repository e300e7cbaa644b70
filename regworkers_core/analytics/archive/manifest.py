"""What the archive consists of: one small document, and the only thing that says so.

Files are written first and never changed; an event is archived once the manifest names its file, in the same write
that moves the offsets on. Each write goes over exactly the one that was read, so of two writers one is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import orjson

from regworkers_core.adapters.aws.objects import ObjectStore
from regworkers_core.adapters.kafka.log import Partition
from regworkers_core.domain.reasons import Failure, UsageError

ROOT = "archive/"
MANIFEST = ROOT + "manifest.json"
FORMAT = 1
# Losses that are kept with their places; `lost` counts all of them.
_LOSSES = 200


class Superseded(Failure):
    """Somebody else has moved the archive on: what this run has not committed is not archived by it."""

    def __init__(self) -> None:
        super().__init__("the archive was moved on by another run; nothing is lost, that one goes on")


@dataclass(frozen=True, slots=True)
class DataFile:
    """Rows of one day and type."""

    key: str
    date: str
    type: str
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class SideFile:
    """Digests of archived ids, or damaged records."""

    key: str
    rows: int


@dataclass(frozen=True, slots=True)
class Replaced:
    """A file that the archive no longer consists of, and since when: readers may still be at it."""

    key: str
    at: float


@dataclass(frozen=True, slots=True)
class Loss:
    """Offsets `first` up to `end` (exclusive) of a partition were gone before they were read."""

    topic: str
    partition: int
    first: int
    end: int
    at: str


@dataclass(frozen=True)
class Manifest:
    """`generation` grows with every write, `token` with every run: mostly the fencing token of its lease.
    `open` while a run is at work: found by the next one, it says that a run died. `offsets` are where to read on,
    by topic and partition. `read` = `rows` + `expired` + `repeats` + `damaged_rows`, over all runs; `expired` rows were
    of days that are no longer kept.
    """

    generation: int = 0
    token: int = 0
    open: bool = False
    at: str = ""
    offsets: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    files: tuple[DataFile, ...] = ()
    ids: tuple[SideFile, ...] = ()
    damaged: tuple[SideFile, ...] = ()
    replaced: tuple[Replaced, ...] = ()
    losses: tuple[Loss, ...] = ()
    read: int = 0
    repeats: int = 0
    lost: int = 0
    expired: int = 0

    @cached_property
    def rows(self) -> int:
        return sum(each.rows for each in self.files)

    @cached_property
    def damaged_rows(self) -> int:
        return sum(each.rows for each in self.damaged)

    @property
    def keys(self) -> set[str]:
        """Every object that the archive consists of or has not let go yet."""
        groups = (self.files, self.ids, self.damaged, self.replaced)
        return {each.key for group in groups for each in group}

    def offset(self, partition: Partition) -> int | None:
        """Where to read on; None for a partition that was never read."""
        return self.offsets.get(partition.topic, {}).get(str(partition.number))

    def moved(self, positions: Mapping[Partition, int]) -> dict[str, dict[str, int]]:
        """The offsets with these in place of their own."""
        moved = {topic: dict(numbers) for topic, numbers in self.offsets.items()}
        for partition, offset in positions.items():
            moved.setdefault(partition.topic, {})[str(partition.number)] = offset
        return moved

    def with_losses(self, losses: tuple[Loss, ...]) -> Manifest:
        lost = self.lost + sum(each.end - each.first for each in losses)
        return replace(self, losses=(*self.losses, *losses)[-_LOSSES:], lost=lost)

    def as_json(self) -> bytes:
        document = asdict(self)
        if not self.expired:
            # Releases that do not know it read a manifest without it.
            del document["expired"]
        return orjson.dumps({"format": FORMAT, **document})

    @classmethod
    def parse(cls, data: bytes, where: str) -> Manifest:
        """Raises UsageError for what is no manifest of this format."""
        try:
            document = orjson.loads(data)
            found = document.pop("format")
            if found == FORMAT:
                return cls(**{name: _part(name, value) for name, value in document.items()})
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
            raise UsageError(f"{where} is damaged: bring back an older version of that object") from None
        raise UsageError(f"{where} has format {found}, this release reads {FORMAT}: use a newer release")


_PARTS: Mapping[str, Any] = {
    "files": DataFile,
    "ids": SideFile,
    "damaged": SideFile,
    "replaced": Replaced,
    "losses": Loss,
}


def _part(name: str, value: Any) -> Any:
    kind = _PARTS.get(name)
    return value if kind is None else tuple(kind(**each) for each in value)


def read_manifest(objects: ObjectStore) -> tuple[Manifest, str | None]:
    """The manifest and the tag of that very state; an empty one where nothing was archived yet."""
    found = objects.get_tagged(MANIFEST)
    if found is None:
        return Manifest(), None
    return Manifest.parse(found.data, f"s3://{objects.bucket}/{MANIFEST}"), found.tag


class Ledger:
    """The manifest in the hands of one run. `token` is that of its lease."""

    def __init__(self, objects: ObjectStore, token: int) -> None:
        self._objects = objects
        self.manifest, self._tag = read_manifest(objects)
        # Leases whose table was lost count from 1 again.
        self._token = max(token, self.manifest.token + 1)

    def commit(self, at: str, **changes: Any) -> None:
        """Write the next state. Raises Superseded when another run has written since; afterwards no earlier holder of
        the lease can commit any more.
        """
        following = replace(
            self.manifest, generation=self.manifest.generation + 1, token=self._token, at=at, **changes
        )
        tag = self._objects.put_over(MANIFEST, following.as_json(), self._tag)
        if tag is None:
            raise Superseded
        self.manifest, self._tag = following, tag
