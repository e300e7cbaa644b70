"""How a judgement of a whole campaign is handed on: a file with one row an entry, as it was at one moment.

Whoever judges writes it, a draw takes its pool from it, and nobody reads the entries again in between: so what is
drawn is exactly what was judged. It holds ids, and of a mail address its domain where that is one of many: a domain of
few may be a person's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

import pyarrow as pa
import pyarrow.parquet as pq

from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.keys import EntryKey, is_selection_id

JUDGED = "judged.parquet"
# A mail domain is kept if a campaign has at least this number of its entrants, and this share of all; others are one
# class.
DOMAIN_ENTRANTS, DOMAIN_SHARE = 1_000, 0.01
OTHER_DOMAINS = "other"
# A report of the judgement for people, where the judge makes one.
PAGE = "eligibility.html"
# Rows that are held before they are written: some 20 MB.
_ROWS = 50_000
# What a whole number may be in the file; a weight beyond it is as invalid as any other that is no weight.
_MOST = 2**31 - 1
_TEXTS: pa.DataType = pa.list_(pa.string())
_FIELDS: list[pa.Field[Any]] = [
    pa.field("entry_id", pa.string()),
    pa.field("ref", pa.string()),
    pa.field("unit", pa.string()),
    pa.field("weight", pa.int32()),
    pa.field("segments", _TEXTS),
    pa.field("markets", _TEXTS),
    pa.field("created_at", pa.string()),
    pa.field("mail_domain", pa.string()),
    pa.field("reasons", _TEXTS),
    pa.field("is_rejected", pa.bool_()),
]
_SCHEMA = pa.schema(_FIELDS)


Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge tells beside its file: `facts` are numbers for the record, `markdown` tables and pictures by
    name for people.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    markdown: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settlement:
    """How far a campaign's replication has come. `open` says in words what is not replicated, empty when all is.
    `differences` counts by class what differs for certain while nothing is on its way: then they are all that is open,
    and a person may accept them by name.
    """

    open: tuple[str, ...] = ()
    differences: Mapping[str, int] = field(default_factory=dict)


class Judge(Protocol):
    """Judges every live entry of a campaign at one moment."""

    def __call__(self, campaign: Campaign, *, as_of: str, folder: Path, tell: Tell) -> Judgement:
        """Write `folder/judged.parquet`, and `folder/eligibility.html` where there is a report. Raises
        TransientFailure where a fact could not be read: nobody is left out because somebody else did not answer.
        """
        ...


class JudgedEntry(NamedTuple):
    """One live entry. `ref` and `unit` are None where it has none, `markets` are as the fan gave them; `reasons`
    are all the rules that it fails, the primary one first, and empty for an eligible entry. `mail_domain` is
    comparable, or `OTHER_DOMAINS`. `is_rejected`: replication refuses a newer state of the entry, so that this is not
    what its fan wants.
    """

    entry_id: str
    ref: str | None
    unit: str | None
    weight: int
    segments: Sequence[str]
    markets: Sequence[str]
    created_at: str
    mail_domain: str
    reasons: Sequence[str] = ()
    is_rejected: bool = False

    @classmethod
    def of(
        cls,
        key: EntryKey,
        fields: Mapping[str, Any],
        reasons: Sequence[str] = (),
        mail_domain: str = OTHER_DOMAINS,
        *,
        is_rejected: bool = False,
    ) -> JudgedEntry:
        """From the fields of the replica. An id that is none of a draw's becomes empty: it may be a fan's data, and
        is invalid whatever it is.
        """
        weight, created_at = fields.get("weight", 1), fields.get("createdAt")
        return cls(
            key.entry_id,
            _id(fields.get("ref")),
            _id(fields.get("unit")),
            weight if isinstance(weight, int) and 0 <= weight <= _MOST else 0,
            _ids(fields.get("segments")),
            _ids(fields.get("markets")),
            created_at if isinstance(created_at, str) else "",
            mail_domain,
            reasons,
            is_rejected,
        )


def _id(value: object) -> str | None:
    return value if value is None or (isinstance(value, str) and is_selection_id(value)) else ""


def _ids(value: object) -> Sequence[str]:
    if not isinstance(value, list | tuple):
        return () if value is None else ("",)
    return [_id(each) or "" for each in value]


class JudgedWriter:
    """Writes `folder/judged.parquet` at constant memory; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._writer = pq.ParquetWriter(folder / JUDGED, _SCHEMA, compression="zstd")
        self._rows: list[JudgedEntry] = []

    def add(self, entry: JudgedEntry) -> None:
        self._rows.append(entry)
        if len(self._rows) == _ROWS:
            self._flush()

    def _flush(self) -> None:
        columns = zip(*self._rows, strict=True)
        arrays = [pa.array(column, each.type) for column, each in zip(columns, _FIELDS, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=_SCHEMA))
        self._rows.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._rows:
            self._flush()
        self._writer.close()


def read_judged(folder: Path) -> Iterator[JudgedEntry]:
    """The rows of `folder/judged.parquet`, in their order, at constant memory."""
    with pq.ParquetFile(folder / JUDGED) as file:
        for batch in file.iter_batches(_ROWS):
            columns = [column.to_pylist() for column in batch.columns]
            yield from map(JudgedEntry._make, zip(*columns, strict=True))
