"""A store and topics in memory that fail, are trimmed and die on demand, and an archiver on them."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from regworkers_core.adapters.aws.objects import MissingObject, Tagged
from regworkers_core.adapters.kafka.log import KafkaRecord, Partition, RecordChunk, Span
from regworkers_core.analytics.archive.archiver import Archiver, ArchiveReport, Limits
from regworkers_core.analytics.archive.manifest import ArchiveManifest, Ledger, read_manifest
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.stop import OnStep, StopSignal, no_step
from regworkers_core.settings import ArchiveSettings

TOPIC = "regworkers.entries.v1"
FIRST, SECOND = Partition(TOPIC, 0), Partition(TOPIC, 1)
NOW = 1_800_000_000.0


class Killed(BaseException):
    """The process ends here: nothing catches it."""


class FakeObjects:
    """What the archive uses of ObjectStore. `down_from` makes every call fail from the given number on."""

    def __init__(self) -> None:
        self.bucket = "bucket"
        self.stored: dict[str, bytes] = {}
        self.calls = 0
        self.down_from: int | None = None
        self.writes = 0

    def get_tagged(self, key: str) -> Tagged | None:
        self._enter()
        return Tagged(self.stored[key], self._tag(key), 0.0) if key in self.stored else None

    def put_over(self, key: str, data: bytes, tag: str | None) -> str | None:
        self._enter()
        if tag != (self._tag(key) if key in self.stored else None):
            return None
        self.put_bytes(key, data)
        return self._tag(key)

    def put_bytes(self, key: str, data: bytes) -> None:
        self._enter()
        self.writes += 1
        self.stored[key] = data

    def put_file(self, key: str, path: Path) -> None:
        self.put_bytes(key, path.read_bytes())

    def get_bytes(self, key: str) -> bytes:
        self._enter()
        if key not in self.stored:
            raise MissingObject(self.bucket, key)
        return self.stored[key]

    def get_file(self, key: str, path: Path) -> None:
        path.write_bytes(self.get_bytes(key))

    def delete(self, key: str) -> None:
        self._enter()
        self.stored.pop(key, None)

    def list(self, prefix: str) -> list[str]:
        self._enter()
        return sorted(key for key in self.stored if key.startswith(prefix))

    def _enter(self) -> None:
        self.calls += 1
        if self.down_from is not None and self.calls >= self.down_from:
            raise TransientFailure("s3", "EndpointConnectionError")

    def _tag(self, key: str) -> str:
        return str(hash(self.stored[key]))


class FakeLog:
    """Partitions as lists of values; `low` is the oldest offset that is kept. Chunks hold `chunk` records each."""

    def __init__(self, *partitions: Sequence[dict[str, Any] | bytes | None], chunk: int = 2) -> None:
        self.values = {
            Partition(TOPIC, number): [_body(value) for value in values]
            for number, values in enumerate(partitions)
        }
        self.low: dict[Partition, int] = {}
        self._chunk = chunk

    def partitions(self, topics: Sequence[str]) -> dict[str, list[Partition]]:
        return {TOPIC: list(self.values)} if TOPIC in topics else {}

    def bounds(self, partitions: Sequence[Partition]) -> dict[Partition, Span]:
        return {each: Span(self.low.get(each, 0), len(self.values[each])) for each in partitions}

    def read(self, spans: Mapping[Partition, Span]) -> Iterator[RecordChunk]:
        for partition, (start, end) in spans.items():
            for first in range(start, end, self._chunk):
                last = min(first + self._chunk, end)
                values = enumerate(self.values[partition][first:last], first)
                records = [KafkaRecord(partition, offset, b"key", value) for offset, value in values]
                yield RecordChunk(records, {partition: last})


def _body(value: dict[str, Any] | bytes | None) -> bytes | None:
    return orjson.dumps(value) if isinstance(value, dict) else value


def limits(*, stop: StopSignal | None = None) -> Limits:
    return Limits(deadline=math.inf, stop=stop or StopSignal())


def run(
    objects: FakeObjects,
    source: FakeLog,
    *,
    token: int = 1,
    on_step: OnStep = no_step,
    now: Callable[[], float] = lambda: NOW,
    holds: Callable[[], bool] = lambda: True,
    stop: StopSignal | None = None,
    topics: Sequence[str] = (TOPIC,),
    **settings: Any,
) -> ArchiveReport:
    """One run on the fakes. Raises what ends it early."""
    report = ArchiveReport()
    chosen = ArchiveSettings(
        **{"batch_events": 3, "compact_files": 3, "keep_replaced_seconds": 0, **settings}
    )
    store: Any = objects
    with tempfile.TemporaryDirectory() as folder:
        Archiver(
            store,
            source,
            Ledger(store, token),
            chosen,
            Path(folder),
            report=report,
            limits=limits(stop=stop),
            holds=holds,
            now=now,
            on_step=on_step,
        ).run(topics)
    assert report.adds_up, report.as_dict()
    return report


def manifest_in(objects: FakeObjects) -> ArchiveManifest:
    store: Any = objects
    return read_manifest(store)[0]


def rows_in(objects: FakeObjects) -> list[dict[str, Any]]:
    """Every row of the files that the manifest names, with its day and type of the path."""
    found: list[dict[str, Any]] = []
    for file in manifest_in(objects).files:
        table = pq.read_table(pa.BufferReader(objects.stored[file.key]))
        assert table.num_rows == file.rows
        found += [{**row, "place": (file.date, file.type)} for row in table.to_pylist()]
    return found


def ids_in(objects: FakeObjects) -> Counter[str]:
    return Counter(row["id"] for row in rows_in(objects))
