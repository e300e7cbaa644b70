"""The stages of the funnel, and each source as a narrow Parquet file of ids, markets, segments and days."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from regworkers_core.adapters.judged_entries import POOL
from regworkers_core.adapters.mongo.draws import DrawRecord, PhaseRecord, PhaseStatus
from regworkers_core.adapters.mongo.outbox import RowStatus
from regworkers_core.domain.selection import NoticeType, pipeline_key
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.runtime import Runtime


class Stage(StrEnum):
    """The stages in the order in which an entry passes them."""

    REGISTERED = "registered"
    REPLICATED = "replicated"
    ELIGIBLE = "eligible"
    WON = "won"
    CODED = "coded"
    NOTIFIED = "notified"

    @property
    def source(self) -> str:
        return _SOURCES[self]


STAGES = tuple(Stage)
# These stages count an entry in every market of its preferences, the later ones in the market where it won.
LISTED = (Stage.REGISTERED, Stage.REPLICATED, Stage.ELIGIBLE)
# Means no market of the campaign, no segment, or an invalid day.
NONE = "–"
_SOURCES = {
    Stage.REGISTERED: "entries in the demand table now, by a consistent read; removed entries are not "
    "included",
    Stage.REPLICATED: "current live entries of the replica (MongoDB `entries`)",
    Stage.ELIGIBLE: "entries of the pool that the draw froze (`pool.parquet`): eligible, and able to take "
    "part",
    Stage.WON: "entries with the outcome WINNER in the latest drawn phase (`outcomes.parquet`)",
    Stage.CODED: "entries with a row in `selections` in any phase: each has an access code",
    Stage.NOTIFIED: "entries whose winner message the mailer's queue confirmed (`outbox`: SENT)",
}


# A file of the draw in the object store, one per phase.
OUTCOMES = "outcomes.parquet"
SOURCE, REPLICA, FROZEN = "source.parquet", "replica.parquet", "frozen.parquet"
CODED, MESSAGES = "coded.parquet", "messages.parquet"
_POOL_COLUMNS = ["entry_id", "preferences", "segments", "created_at"]
# Rows that are buffered before they are written: about 10 MB.
_ROWS = 50_000
_TEXT: pa.DataType = pa.string()
_TEXTS: pa.DataType = pa.list_(pa.string())
_ENTRY = {"entry_id": _TEXT, "markets": _TEXTS, "segments": _TEXTS, "day": _TEXT}
_CODED = {"entry_id": _TEXT, "market": _TEXT, "phase": pa.int32()}
_MESSAGE = {**_CODED, "type": _TEXT, "status": _TEXT}


@dataclass(frozen=True, slots=True)
class StagedFiles:
    """Files by name in a folder, of the draw as far as it has progressed."""

    folder: Path
    draw: DrawRecord | None
    frozen: PhaseRecord | None  # the phase whose pool is fixed
    drawn: PhaseRecord | None  # the phase that was drawn
    removed: int  # tombstones

    def path(self, name: str) -> Path | None:
        """The path of a file, None if the draw has not progressed that far."""
        there = {FROZEN: self.frozen is not None, OUTCOMES: self.drawn is not None}
        return self.folder / name if there.get(name, True) else None


def stage(
    runtime: Runtime, campaign_id: str, folder: Path, tell: Callable[[str], None] = lambda _text: None
) -> StagedFiles:
    """Read all sources, from the last stage to the first. An entry that progresses meanwhile is then missing in the
    later stage, never in the earlier one. Raises TransientFailure.
    """
    tell("messages")
    _write(folder / MESSAGES, _MESSAGE, map(_message, runtime.outbox.entries(campaign_id)))
    tell("codes")
    _write(folder / CODED, _CODED, map(_coded, runtime.selections.entries(campaign_id)))
    tell("draw")
    record = runtime.draws.get(campaign_id)
    phases = [] if record is None else list(record.phases.values())
    frozen = next((phase for phase in phases if phase.freeze), None)
    drawn = next((phase for phase in reversed(phases) if phase.reached(PhaseStatus.DRAWN)), None)
    if record is not None and frozen is not None:
        runtime.objects.get_file(record.frozen_key(POOL), folder / POOL)
        _write(folder / FROZEN, _ENTRY, _of_the_pool(folder / POOL))
    if drawn is not None:
        key = pipeline_key(campaign_id, drawn.phase, OUTCOMES)
        runtime.objects.get_file(key, folder / OUTCOMES)
    removed = 0

    def replicated() -> Iterator[tuple[Any, ...]]:
        nonlocal removed
        for key, stored in runtime.replica.entries(campaign_id):
            if stored.fields is None:
                removed += 1
            else:
                yield _entry(key.entry_id, stored.fields)

    tell("entries of the replica")
    _write(folder / REPLICA, _ENTRY, replicated())
    tell("entries of the demand table")
    pages = runtime.demand_table.pages(campaign_id)
    _write(
        folder / SOURCE, _ENTRY, (_entry(key.entry_id, item) for page in pages for key, item in page.items)
    )
    return StagedFiles(folder, record, frozen, drawn, removed)


def _of_the_pool(path: Path) -> Iterator[tuple[Any, ...]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROWS, columns=_POOL_COLUMNS):
            columns = [column.to_pylist() for column in batch.select(_POOL_COLUMNS).columns]
            for entry_id, preferences, segments, created_at in zip(*columns, strict=True):
                yield entry_id, preferences, segments, _day(created_at)


def _entry(entry_id: str, fields: Mapping[str, Any]) -> tuple[Any, ...]:
    return (
        entry_id,
        _texts(fields.get("markets")),
        _texts(fields.get("segments")),
        _day(fields.get("createdAt")),
    )


def _day(created_at: object) -> str:
    """The day in UTC, as in the eligibility report."""
    moment = seconds(created_at) if isinstance(created_at, str) else None
    return NONE if moment is None else iso(moment)[:10]


def _texts(value: object) -> list[str]:
    """The texts in a list; the demand table may contain anything else."""
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _coded(document: Mapping[str, Any]) -> tuple[Any, ...]:
    return document["entryId"], document["marketId"], document["phase"]


def _message(document: Mapping[str, Any]) -> tuple[Any, ...]:
    return *_coded(document), NoticeType(document["type"]).value, RowStatus(document["status"]).value


def _write(path: Path, columns: Mapping[str, Any], rows: Iterable[tuple[Any, ...]]) -> None:
    fields: list[pa.Field[Any]] = [pa.field(name, kind) for name, kind in columns.items()]
    schema, held = pa.schema(fields), list[tuple[Any, ...]]()
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:

        def flush() -> None:
            if held:
                arrays = [
                    pa.array(column, kind)
                    for column, kind in zip(zip(*held, strict=True), columns.values(), strict=True)
                ]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
                held.clear()

        for row in rows:
            held.append(row)
            if len(held) == _ROWS:
                flush()
        flush()
