"""Topics in memory that are trimmed on demand, and an archiver from them into a store."""

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

from regworkers_core.adapters.kafka.log import KafkaRecord, Partition, RecordChunk, Span
from regworkers_core.analytics.archive.archiver import Archiver, ArchiveReport, Limits
from regworkers_core.analytics.archive.manifest import ArchiveManifest, Ledger, read_manifest
from regworkers_core.engine.stop import OnStep, StopSignal, no_step
from regworkers_core.settings import ArchiveSettings
from tests.support.in_memory import MemoryObjects

TOPIC = "regworkers.entries.v1"
FIRST, SECOND = Partition(TOPIC, 0), Partition(TOPIC, 1)
NOW = 1_800_000_000.0


class Killed(BaseException):
    """The process ends here: nothing catches it."""


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
    objects: MemoryObjects,
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
    with tempfile.TemporaryDirectory() as folder:
        Archiver(
            objects,
            source,
            Ledger(objects, token),
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


def manifest_in(objects: MemoryObjects) -> ArchiveManifest:
    return read_manifest(objects)[0]


def rows_in(objects: MemoryObjects) -> list[dict[str, Any]]:
    """Every row of the files that the manifest names, with its day and type of the path."""
    found: list[dict[str, Any]] = []
    for file in manifest_in(objects).files:
        table = pq.read_table(pa.BufferReader(objects.stored[file.key]))
        assert table.num_rows == file.rows
        found += [{**row, "place": (file.date, file.type)} for row in table.to_pylist()]
    return found


def ids_in(objects: MemoryObjects) -> Counter[str]:
    return Counter(row["id"] for row in rows_in(objects))
