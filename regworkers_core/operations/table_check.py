"""What the demand table and the replica of the old system hold that the workers would refuse, miss or change.

Both are read once, and nothing is written. Examples are keys of entries, never a fan's data.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, Self

import duckdb
import pyarrow as pa

from fairdraw import scheduling
from fairdraw.large.engine import spilling
from fairdraw.scheduling import Progress, no_progress
from regworkers_core.adapters.aws.demand_table import DemandTable
from regworkers_core.adapters.mongo.entry_documents import UNSTORABLE, Stored
from regworkers_core.domain.claim import comparable
from regworkers_core.domain.entry import ORDER_FIELDS, Entry, lenient_order
from regworkers_core.domain.keys import EntryKey, is_selection_id, shown
from regworkers_core.domain.reasons import PermanentFailure, UsageError
from regworkers_core.domain.timestamps import seconds
from regworkers_core.engine.dependency import TokenBucket
from regworkers_core.infrastructure.indexes import INDEXES
from regworkers_core.replication.reconcile.classify import (
    EntrySide,
    Kind,
    Pair,
    classify,
    digest,
    of_replica,
)
from regworkers_core.replication.reconcile.comparison import Comparison, PairProgress
from regworkers_core.runtime import Runtime

EXAMPLES = 5
_CHUNK = 1000
_DAY_SECONDS = 24 * 3600.0
_DIGEST_BYTES = 8
_REPEATS_MEMORY_MIB = 256


class Trait(StrEnum):
    """What is reported, in the order of the report."""

    STREAM = "stream"
    KEY = "key_refused"
    REFUSED = "entry_refused"
    REF_TWICE = "ref_twice"
    DOCUMENT_ID = "document_id"
    MISSING = "missing"
    STALE = "content"
    ORPHANED = "orphaned"
    FLAG_LEFT = "flag_left"
    NOT_YET = "not_yet"
    NO_CREATED_AT = "no_created_at"
    NO_VERSION = "no_version"
    NO_UPDATED_AT = "no_updated_at"
    TEXT_NUMBER = "number_as_text"
    NOT_DRAWABLE = "not_drawable"
    EMAIL_TWICE = "email_twice"
    INDEX = "index_missing"


# What it means and what helps; and whether it has to be decided before the cut-over.
TRAITS: Mapping[Trait, tuple[str, bool]] = {
    Trait.STREAM: ("without it no change is seen", True),
    Trait.KEY: ("ids outside the grammar: every change becomes a dead letter; give them other ids", True),
    Trait.REFUSED: ("every change becomes a dead letter: correct the field with a new version", True),
    Trait.REF_TWICE: ("entries of one campaign share a ref: no draw takes them; give each its own", True),
    Trait.DOCUMENT_ID: ("documents whose _id is not campaignId:entryId: a save inserts them again", True),
    Trait.MISSING: ("not in the replica: a backfill after the cut-over adds them", True),
    Trait.STALE: ("other content than the source: a backfill after the cut-over corrects them", True),
    Trait.ORPHANED: ("only in the replica: `regworkers reconcile --repair` removes them", True),
    Trait.FLAG_LEFT: ("flag set for more than a day, so that no record is left: a backfill saves them", True),
    Trait.NOT_YET: ("changed within the lag objective: not compared", False),
    Trait.NO_CREATED_AT: ("without createdAt: the smallest; a fan who enters again needs a later one", False),
    Trait.NO_VERSION: ("without version: counts as 0; later changes need one, or a later updatedAt", False),
    Trait.NO_UPDATED_AT: ("without updatedAt: their lag is not measured", False),
    Trait.TEXT_NUMBER: ("version or weight as text: read as a number", False),
    Trait.NOT_DRAWABLE: ("an id outside [A-Za-z0-9_-]{1,64}: saved, and left out of draws and events", False),
    Trait.EMAIL_TWICE: ("another entry of the campaign has the address: its terms decide in a draw", False),
    Trait.INDEX: ("`regworkers provision` builds it", False),
}
_ABSENT = {
    "createdAt": Trait.NO_CREATED_AT,
    "version": Trait.NO_VERSION,
    "updatedAt": Trait.NO_UPDATED_AT,
}


@dataclass(frozen=True, slots=True)
class TableCheck:
    """What was found in the demand table."""

    # Entries that were read.
    entries: int
    # Documents of the replica that were read.
    documents: int
    seconds: float
    # Items by trait; only traits that were found.
    counts: Mapping[Trait, int]
    # Ids by trait.
    examples: Mapping[Trait, Sequence[str]]

    @property
    def ready(self) -> bool:
        """Whether nothing has to be decided first."""
        return not any(TRAITS[trait][1] for trait in self.counts)

    def as_dict(self) -> dict[str, Any]:
        return {
            "ready": self.ready,
            "entries": self.entries,
            "documents": self.documents,
            "seconds": round(self.seconds, 3),
            "findings": [
                {
                    "finding": trait.value,
                    "count": self.counts[trait],
                    "decideFirst": TRAITS[trait][1],
                    "examples": list(self.examples.get(trait, ())),
                    "meaning": TRAITS[trait][0],
                }
                for trait in Trait
                if self.counts.get(trait)
            ],
        }


class _Findings:
    """Counts with a few examples, from several threads."""

    def __init__(self) -> None:
        self.counts: Counter[Trait] = Counter()
        self.examples: dict[Trait, list[str]] = {}
        self._lock = scheduling.lock()

    def add(self, trait: Trait, example: str, number: int = 1) -> None:
        with self._lock:
            self.counts[trait] += number
            examples = self.examples.setdefault(trait, [])
            if len(examples) < EXAMPLES:
                examples.append(example)


class _Repeats:
    """Finds values that several entries of a campaign have, in bounded memory: a file of digests."""

    def __init__(self, memory_mib: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="regworkers-check-")
        folder = Path(self._folder.name)
        self._database = duckdb.connect(str(folder / "values.duckdb"), config=spilling(folder, memory_mib))
        self._database.execute(
            "CREATE TABLE given (campaign VARCHAR, entry VARCHAR, trait VARCHAR, value BLOB)"
        )
        self._lock = scheduling.lock()

    def add(self, values: Sequence[tuple[EntryKey, Trait, str]]) -> None:
        rows = [
            (*key, trait.value, hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).digest())
            for key, trait, text in values
        ]
        if rows:
            names, columns = ("campaign", "entry", "trait", "value"), zip(*rows, strict=True)
            with self._lock:
                self._database.register("chunk", pa.table(list(map(pa.array, columns)), names=list(names)))
                self._database.execute("INSERT INTO given SELECT * FROM chunk")
                self._database.unregister("chunk")

    def report(self, findings: _Findings) -> None:
        rows = self._database.execute(
            "SELECT trait, campaign, min(entry), count(*) FROM given GROUP BY trait, campaign, value"
            " HAVING count(*) > 1 ORDER BY 1, 2, 3"
        )
        while found := rows.fetchmany(_CHUNK):
            for trait, campaign, entry, number in found:
                findings.add(Trait(trait), f"{EntryKey(campaign, entry).shown} and {number - 1} more", number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()
        self._folder.cleanup()


def check_tables(
    runtime: Runtime,
    *,
    per_second: float,
    on_progress: Progress = no_progress,
    on_phase: Callable[[str], None] = lambda _text: None,
) -> TableCheck:
    """Read all entries of the demand table and of the replica once, up to `per_second` of both together, and compare
    them. `on_progress` gets the number read so far, from several threads but one at a time.

    Blocks for that time. Raises TransientFailure, UsageError without the table.
    """
    began, settings = runtime.clock(), runtime.settings.replication
    findings, read = _Findings(), Counter[str]()
    bucket, lock = TokenBucket(per_second), scheduling.lock()
    _structure(runtime, findings)

    def note(side: str, number: int) -> None:
        with lock:
            read[side] += number
            on_progress(read.total())
        bucket.take(number)

    with Comparison(settings.compare_memory_mib) as comparison, _Repeats(_REPEATS_MEMORY_MIB) as repeats:

        def take(items: Sequence[tuple[EntryKey, Mapping[str, Any]]]) -> None:
            comparison.expect([_source(key, item, findings, began) for key, item in items])
            repeats.add([value for key, item in items for value in _values(key, item)])
            note("entries", len(items))

        on_phase("reading the demand table")
        _read_source(runtime.demand_table, settings.scan_segments, take)
        on_phase("reading the replica")
        documents = runtime.replica.documents()
        while chunk := list(islice(documents, _CHUNK)):
            comparison.meet(list(_replica(chunk, findings)))
            note("documents", len(chunk))
        on_phase("comparing")
        repeats.report(findings)
        for page in comparison.pages(PairProgress.FOUND):
            for each in page:
                objective = settings.lag_objective_seconds
                _differs(each.pair, findings, began - objective, runtime.clock() + objective)
    return TableCheck(
        read["entries"], read["documents"], runtime.clock() - began, findings.counts, findings.examples
    )


def _read_source(
    table: DemandTable, segments: int, take: Callable[[Sequence[tuple[EntryKey, Mapping[str, Any]]]], None]
) -> None:
    """A parallel scan in `segments` threads, each of which hands its pages to `take`."""
    cancelled = scheduling.event()

    def read(segment: int) -> None:
        for page in table.pages(None, segment, segments):
            if cancelled.is_set():
                return
            take(page.items)

    with scheduling.pool(segments, "check") as pool:
        futures = [pool.submit(read, segment) for segment in range(segments)]
        try:
            done, _ = scheduling.wait(futures, return_when=scheduling.FIRST_EXCEPTION)
            for future in done:
                future.result()
        finally:
            # The others end with their page when one failed or the caller is interrupted.
            cancelled.set()


def _structure(runtime: Runtime, findings: _Findings) -> None:
    try:
        runtime.streams.latest_stream()
    except UsageError as error:
        runtime.demand_table.probe()
        findings.add(Trait.STREAM, str(error).partition(":")[0])
    for name in ("entries", "campaigns"):
        found = runtime.dependency("mongo").call(runtime.database[name].index_information).values()
        for index in INDEXES[name]:
            alike = [each for each in found if tuple(each["key"]) == index.keys]
            if not any(not index.differing(each) for each in alike):
                findings.add(
                    Trait.INDEX, f"{name}.{'_'.join(index.fields)}{' (other options)' if alike else ''}"
                )


def _source(key: EntryKey, item: Mapping[str, Any], findings: _Findings, now: float) -> EntrySide:
    """The entry's state; what is unusual about it goes to `findings`."""
    order = lenient_order(item)
    for name, trait in _ABSENT.items():
        if item.get(name) is None:
            findings.add(trait, key.shown)
    if any(isinstance(item.get(name), str) for name in ("version", "weight")):
        findings.add(Trait.TEXT_NUMBER, key.shown)
    updated_at = seconds(order.updated_at)
    if item.get("needsReplication") is True and updated_at is not None and updated_at < now - _DAY_SECONDS:
        findings.add(Trait.FLAG_LEFT, key.shown)
    if problem := key.problem:
        findings.add(Trait.KEY, f"{key.shown} ({problem})")
        return EntrySide(key, order, invalid=True)
    try:
        entry = Entry.parse(key, item)
        state = EntrySide(key, entry.order, content=digest(entry.fields))
    except PermanentFailure as failure:
        findings.add(Trait.REFUSED, f"{key.shown} ({failure.error})")
        return EntrySide(key, order, invalid=True)
    except UNSTORABLE:
        findings.add(Trait.REFUSED, f"{key.shown} (a field that MongoDB cannot hold)")
        return EntrySide(key, order, invalid=True)
    if not all(map(is_selection_id, _selection_ids(key, entry.fields))):
        findings.add(Trait.NOT_DRAWABLE, key.shown)
    return state


def _selection_ids(key: EntryKey, fields: Mapping[str, Any]) -> Iterable[str]:
    yield from (key.campaign_id, fields.get("ref", ""))
    yield from ([fields["unit"]] if "unit" in fields else [])
    yield from (*fields.get("segments", ()), *fields.get("markets", ()))


def _values(key: EntryKey, item: Mapping[str, Any]) -> Iterable[tuple[EntryKey, Trait, str]]:
    ref, email = item.get("ref"), item.get("email")
    if isinstance(ref, str) and ref and not key.problem:
        yield key, Trait.REF_TWICE, ref
    if isinstance(email, str) and email.strip() and not key.problem:
        yield key, Trait.EMAIL_TWICE, comparable(email)


def _replica(
    documents: Iterable[tuple[object, EntryKey | None, Stored]], findings: _Findings
) -> Iterable[EntrySide]:
    for document_id, key, stored in documents:
        if key is None or document_id != key.document_id:
            findings.add(Trait.DOCUMENT_ID, shown(str(document_id)))
            continue
        side = of_replica(key, stored)
        if stored.fields is not None:
            # The old system stores the order among the fields only, also over a document that a save had written.
            side = replace(
                side, order=lenient_order({name: stored.fields.get(name) for name in ORDER_FIELDS})
            )
        yield side


def _differs(pair: Pair, findings: _Findings, young_from: float, young_until: float) -> None:
    """An entry that changed between these two (epoch seconds) may have done so between the two reads. A later time is
    a mistake of its writer.
    """
    side, kind = pair.source or pair.replica, classify(*pair)
    if side is None or kind in (None, Kind.REJECTED) or (pair.source is not None and pair.source.invalid):
        # Equal, or reported by a trait of the entry itself.
        return
    young = side.updated_at is not None and young_from < side.updated_at <= young_until
    found = {Kind.MISSING: Trait.MISSING, Kind.ORPHANED: Trait.ORPHANED}.get(kind, Trait.STALE)
    findings.add(Trait.NOT_YET if young else found, side.key.shown)
