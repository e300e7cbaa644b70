"""One run of the archive: from where the last one stopped to the current end of the topics.

Order of a batch: read, drop repeats, write the files, then write the manifest, which names them and advances the
offsets in one conditional write. A crash before that write repeats the batch and leaves files that no manifest names;
after it nothing is missing. `on_step` names the moments in between, where a crash would hurt most.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import structlog

from fairdraw import scheduling
from fairdraw.documents import as_document
from fairdraw.scheduling import Progress, no_progress
from regworkers_core.adapters.aws.objects import ObjectStore
from regworkers_core.adapters.kafka.log import KafkaRecord, Partition, RecordChunk, Span
from regworkers_core.analytics.archive import files
from regworkers_core.analytics.archive.files import Compaction, KnownIds, delete_replaced, sweep
from regworkers_core.analytics.archive.manifest import LEASE, ArchiveSuperseded, Ledger, lag, plan_reading
from regworkers_core.analytics.archive.rows import Damaged, EventRow, other_body, parse
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.leases import LeaseBusy, held_lease
from regworkers_core.engine.stop import OnStep, StopSignal, no_step
from regworkers_core.observability.tracing import span
from regworkers_core.runtime import Runtime
from regworkers_core.settings import ArchiveSettings

Ended = Literal["caught_up", "stopped", "max_seconds", "busy", "dependency_down", "superseded"]


@dataclass(slots=True)
class ArchiveReport:
    """What a run did."""

    ended: Ended = "caught_up"
    dependency: str | None = None  # what was unavailable at its end
    read: int = 0  # events
    written: int = 0  # rows
    repeats: int = 0  # events that the archive had
    damaged: int = 0  # events that cannot be a row
    lost: int = 0  # offsets that were deleted before they were read
    batches: int = 0
    files: int = 0
    merged_files: int = 0
    orphans: int = 0  # files that no manifest names, deleted now
    rows: int | None = None  # the total of the archive
    # How many offsets of each topic are left of those that existed at the start; None: Kafka was not asked.
    lag: dict[str, int] | None = None
    missing_topics: list[str] = field(default_factory=list)
    # Partitions that were created again and are read from their beginning.
    restarted: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def adds_up(self) -> bool:
        return self.read == self.written + self.repeats + self.damaged

    @property
    def began(self) -> bool:
        """Whether the run got as far as reading the archive."""
        return self.rows is not None

    @property
    def finding(self) -> bool:
        """Whether an operator has to act."""
        interrupted = self.ended in ("dependency_down", "superseded")
        return bool(interrupted or self.damaged or self.lost or self.missing_topics or self.restarted)

    def as_dict(self) -> dict[str, Any]:
        return as_document(self) | {"seconds": round(self.seconds, 3), "addsUp": self.adds_up}


log = structlog.get_logger(__name__)

_MIB = 1024 * 1024
_OURS = re.compile(r"[0-9a-f]{64}")


class Log(Protocol):
    """What the archive reads of Kafka; see adapters/kafka/log.py."""

    def partitions(self, topics: Sequence[str]) -> dict[str, list[Partition]]: ...

    def bounds(self, partitions: Sequence[Partition]) -> dict[Partition, Span]: ...

    def read(self, spans: Mapping[Partition, Span]) -> Iterator[RecordChunk]: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """When a run ends: at `deadline` (monotonic), or at a stop signal; both between two batches."""

    deadline: float
    stop: StopSignal

    @property
    def reached(self) -> Ended | None:
        if self.stop.is_set:
            return "stopped"
        return "max_seconds" if scheduling.monotonic() >= self.deadline else None


@span("archive")
def archive_events(
    runtime: Runtime,
    *,
    run_id: str,
    max_seconds: float | None = None,
    stop: StopSignal | None = None,
    open_log: Callable[[], AbstractContextManager[Log]] | None = None,
    on_step: OnStep = no_step,
    on_progress: Progress = no_progress,
) -> ArchiveReport:
    """Archive the events of the topics. One run at a time: a second one ends `busy` and does nothing.

    A dependency that does not answer ends the run; what was committed remains, and the next run continues after it.
    Raises UsageError for a missing bucket, a missing address or a manifest that cannot be read.
    """
    report, began = ArchiveReport(), scheduling.monotonic()
    settings = runtime.settings
    limits = Limits(began + (max_seconds or settings.drain.max_seconds), stop or StopSignal())
    connect = open_log or (lambda: runtime.kafka_log(LEASE))
    try:
        unavailable = runtime.probe("s3", *(() if open_log else ("kafka",)))
        if unavailable is not None:
            raise TransientFailure(unavailable, "does not answer")
        with (
            held_lease(
                runtime.leases,
                LEASE,
                run_id,
                lease_seconds=settings.archive.lease_seconds,
            ) as lease,
            connect() as source,
            tempfile.TemporaryDirectory(prefix="regworkers-archive-") as folder,
        ):
            archiver = Archiver(
                runtime.objects,
                source,
                Ledger(runtime.objects, lease.token),
                settings.archive,
                Path(folder),
                report=report,
                limits=limits,
                holds=lambda: not lease.lost,
                now=runtime.clock,
                on_step=on_step,
                on_progress=on_progress,
            )
            archiver.run(runtime.names.topics)
    except LeaseBusy:
        report.ended = "busy"
    except ArchiveSuperseded:
        report.ended = "superseded"
    except TransientFailure as failure:
        report.ended, report.dependency = "dependency_down", failure.dependency
        log.warning("archive interrupted", dependency=failure.dependency, error=failure.error)
    report.seconds = scheduling.monotonic() - began
    return report


@dataclass(slots=True)
class Archiver:
    """A run that holds the lease."""

    objects: ObjectStore
    source: Log
    ledger: Ledger
    settings: ArchiveSettings
    folder: Path
    _: KW_ONLY
    report: ArchiveReport
    limits: Limits
    holds: Callable[[], bool] = lambda: True  # whether it still does
    now: Callable[[], float] = scheduling.now  # epoch seconds
    on_step: OnStep = no_step
    on_progress: Progress = no_progress
    known: KnownIds = field(init=False)
    compaction: Compaction = field(init=False)

    def __post_init__(self) -> None:
        self.known = KnownIds(self.objects, self.folder)
        self.compaction = Compaction(self.objects, self.folder, self.settings, self.on_step)

    def run(self, topics: Sequence[str]) -> None:
        """Archive the topics. Raises Superseded and TransientFailure; the report then has what was committed."""
        report, before = self.report, self.ledger.manifest
        report.rows = before.rows
        found = self.source.partitions(topics)
        report.missing_topics = sorted(set(topics) - set(found))
        bounds = self.source.bounds([each for numbers in found.values() for each in numbers])
        plan = plan_reading(before, bounds, self._at)
        report.restarted = [f"{topic}/{number}" for topic, number in plan.restarted]
        report.lag = lag(plan.spans, before)
        if not (plan.anything or before.open or self._has_leftovers()):
            return
        # From here on a run that lost the lease cannot commit, so the files that it left may be deleted.
        lost = [Partition(loss.topic, loss.partition) for loss in plan.losses]
        passed = {each: plan.spans[each].start for each in (*plan.restarted, *lost)}
        lossy = before.with_losses(plan.losses)
        self._commit(open=True, offsets=before.moved(passed), losses=lossy.losses, lost=lossy.lost)
        report.lost = lossy.lost - before.lost
        if before.open:
            report.orphans = sweep(self.objects, self.ledger.manifest)
        for records, positions in self._batches(self.source.read(plan.spans)):
            self._archive(records, positions)
            report.lag = lag(plan.spans, self.ledger.manifest)
        self._close()
        report.ended = (self.limits.reached if any(report.lag.values()) else None) or "caught_up"

    def _batches(
        self, chunks: Iterable[RecordChunk]
    ) -> Iterator[tuple[list[KafkaRecord], dict[Partition, int]]]:
        """Yield chunks joined up to the size of a batch; ends early at a limit, after what was read so far."""
        records, positions, size = list[KafkaRecord](), dict[Partition, int](), 0
        most = self.settings.batch_mib * _MIB
        for chunk in chunks:
            records += chunk.records
            positions |= chunk.positions
            size += sum(len(record.value or b"") for record in chunk.records)
            if self.limits.reached:
                break
            if len(records) >= self.settings.batch_events or size >= most:
                yield records, positions
                records, positions, size = [], {}, 0
        if positions:
            yield records, positions

    def _archive(self, records: Sequence[KafkaRecord], positions: Mapping[Partition, int]) -> None:
        manifest, report = self.ledger.manifest, self.report
        damaged: list[Damaged] = []
        events: list[tuple[KafkaRecord, EventRow]] = []
        for record in records:
            parsed = parse(record)
            if isinstance(parsed, Damaged):
                damaged.append(parsed)
            else:
                events.append((record, parsed))
        known = self.known.among({row.digest for _, row in events}, manifest.ids)
        rows: list[EventRow] = []
        for record, row in events:
            if row.digest not in known:
                # The one of two with one id counts that Kafka had first.
                known[row.digest] = row.content
                rows.append(row)
            elif known[row.digest] != row.content:
                damaged.append(other_body(record))
                log.error(
                    "another body under a known event id",
                    # Only that of our form: another may be anything.
                    eventId=event_id if _OURS.fullmatch(event_id := row.values[0]) else "",
                    topic=record.partition.topic,
                    partition=record.partition.number,
                    offset=record.offset,
                )
        repeats = len(records) - len(rows) - len(damaged)
        name = files.batch_name(manifest.generation + 1, manifest.token)
        written = files.write_rows(self.objects, rows, name)
        self.on_step("archive.after_files")
        aside = files.write_damaged(self.objects, damaged, name)
        ids = files.write_ids(self.objects, rows, name)
        self.on_step("archive.before_manifest")
        self._commit(
            offsets=manifest.moved(positions),
            files=(*manifest.files, *written),
            ids=(*manifest.ids, *ids),
            damaged=(*manifest.damaged, *aside),
            read=manifest.read + len(records),
            repeats=manifest.repeats + repeats,
        )
        self.on_step("archive.after_manifest")
        report.batches += 1
        report.files += len(written)
        report.read += len(records)
        report.written += len(rows)
        report.repeats += repeats
        report.damaged += len(damaged)
        report.rows = self.ledger.manifest.rows
        self.on_progress(report.read)

    def _close(self) -> None:
        """Compact what is due while there is time, delete replaced files, and close the manifest."""
        while (places := self.compaction.due(self.ledger.manifest)) and not self.limits.reached:
            self._check_lease()
            self.report.merged_files += self.compaction.merge(self.ledger, places[0], self._at, self.now())
        if self.compaction.sides_due(self.ledger.manifest) and not self.limits.reached:
            self._check_lease()
            self.compaction.merge_sides(self.ledger, self._at, self.now())
        left = delete_replaced(self.objects, self.ledger.manifest, self._delete_before)
        self._commit(open=False, replaced=left)
        self.report.rows = self.ledger.manifest.rows

    def _has_leftovers(self) -> bool:
        manifest = self.ledger.manifest
        old = any(each.at <= self._delete_before for each in manifest.replaced)
        return old or bool(self.compaction.due(manifest)) or self.compaction.sides_due(manifest)

    @property
    def _delete_before(self) -> float:
        return self.now() - self.settings.keep_replaced_seconds

    @property
    def _at(self) -> str:
        return iso(self.now())

    def _check_lease(self) -> None:
        if not self.holds():
            raise ArchiveSuperseded

    def _commit(self, **changes: object) -> None:
        self._check_lease()
        self.ledger.commit(self._at, **changes)
