"""The judgement of a whole campaign as a Parquet file: one row for each entry, as it was at one moment.

The judge writes it and a draw takes its pool from it, without reading the entries again: what is drawn is exactly what
was judged. It holds ids, and the domain of a mail address if enough entrants share it: a rare one may be a person's
name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import pyarrow as pa
import pyarrow.parquet as pq

from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.entry import Voucher
from regworkers_core.domain.keys import EntryKey, is_selection_id

JUDGED = "judged.parquet"
# A mail domain is kept if at least this number and this share of a campaign's entrants have it; others are one class.
DOMAIN_ENTRANTS, DOMAIN_SHARE = 1_000, 0.01
OTHER_DOMAINS = "other"
# A report of the judgement for people, if the judge makes one.
PAGE = "eligibility.html"
# Rows held before they are written: about 20 MB.
_ROWS = 50_000
# The largest integer in the file. A weight beyond it is invalid.
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
    pa.field("vouched_by", pa.string()),
]
JUDGED_SCHEMA = pa.schema(_FIELDS)
# What a draw freezes of it: the entries that can take part, and why the others cannot.
POOL = "pool.parquet"
EXCLUSIONS = "exclusions.parquet"
_TEXT: pa.DataType = pa.string()
POOL_SCHEMA = pa.schema(
    {
        "ref": _TEXT,
        "unit": _TEXT,
        "weight": pa.int32(),
        "segments": _TEXTS,
        "preferences": _TEXTS,
        "entry_id": _TEXT,
        "created_at": _TEXT,
        "mail_domain": _TEXT,
        "vouched_by": _TEXT,
    }
)
EXCLUSION_SCHEMA = pa.schema({"entry_id": _TEXT, "ref": _TEXT, "reason": _TEXT, "reasons": _TEXTS})


Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge returns beside its file: `facts` are numbers for the record, `markdown` has tables and pictures by
    name for people.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    markdown: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReplicationProgress:
    """The progress of a campaign's replication. `open` describes what is not replicated; empty if everything is.
    `differences` counts confirmed differences by class if nothing else is open: an operator may accept them by name.
    """

    open: tuple[str, ...] = ()
    differences: Mapping[str, int] = field(default_factory=dict)


class Judge(Protocol):
    """Judges every live entry of a campaign at one moment."""

    def __call__(self, campaign: Campaign, *, as_of: str, folder: Path, tell: Tell) -> Judgement:
        """Write `folder/judged.parquet`, and `folder/eligibility.html` where there is a report. Raises
        TransientFailure if a fact could not be read: no entry is left out because a dependency did not answer.
        """
        ...


class JudgedEntry(NamedTuple):
    """One live entry."""

    entry_id: str
    ref: str | None  # None: it has none
    unit: str | None  # None: it has none
    weight: int  # its share of chances, 1 for most
    segments: Sequence[str]
    markets: Sequence[str]  # in the fan's order
    created_at: str
    mail_domain: str  # normalised, or `OTHER_DOMAINS`
    reasons: Sequence[str] = ()  # all rules that it fails, the primary one first; empty for an eligible entry
    is_rejected: bool = False  # replication refuses a newer state of the entry, so this one is out of date
    vouched_by: Voucher | None = None  # None: the entry does not say

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
        """From the fields of the replica. An invalid id becomes empty, because it may be a fan's data."""
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
            vouched_by=next((each for each in Voucher if each == fields.get("vouchedBy")), None),
        )


def _id(value: object) -> str | None:
    return value if value is None or (isinstance(value, str) and is_selection_id(value)) else ""


def _ids(value: object) -> Sequence[str]:
    if not isinstance(value, list | tuple):
        return () if value is None else ("",)
    return [_id(each) or "" for each in value]


class JudgedWriter:
    """A context manager that writes `folder/judged.parquet` in constant memory."""

    def __init__(self, folder: Path) -> None:
        self._writer = pq.ParquetWriter(folder / JUDGED, JUDGED_SCHEMA, compression="zstd")
        self._rows: list[JudgedEntry] = []

    def add(self, entry: JudgedEntry) -> None:
        self._rows.append(entry)
        if len(self._rows) == _ROWS:
            self._flush()

    def _flush(self) -> None:
        columns = zip(*self._rows, strict=True)
        arrays = [pa.array(column, each.type) for column, each in zip(columns, _FIELDS, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=JUDGED_SCHEMA))
        self._rows.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._rows:
            self._flush()
        self._writer.close()


def read_judged(folder: Path) -> Iterator[JudgedEntry]:
    """The rows of `folder/judged.parquet` in their order, in constant memory."""
    with pq.ParquetFile(folder / JUDGED) as file:
        for batch in file.iter_batches(_ROWS):
            columns = [column.to_pylist() for column in batch.columns]
            for row in zip(*columns, strict=True):
                yield JudgedEntry(*row)
