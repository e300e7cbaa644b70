"""A file of all entries of a campaign, and a query that relates them to each other out of core.

The file contains personal data, so it is in a folder that no other user may read, and is deleted after the judgement.
Fields that no rule and no draw reads are left out: free attributes may contain anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from fairdraw.large.engine import spilling
from regworkers_core.adapters.judged_entries import DOMAIN_ENTRANTS, DOMAIN_SHARE, OTHER_DOMAINS
from regworkers_core.domain.entry import FIELDS
from regworkers_core.domain.keys import EntryKey
from regworkers_core.eligibility.case import Identity, Subject
from regworkers_core.eligibility.request import read_attributes

# Rows of one row group of the file, and of one batch of results: about 10 MB.
ROWS = 5_000
# DuckDB spills beyond this.
_MEMORY_MIB = 300
_FIELDS: list[pa.Field[Any]] = [
    pa.field("n", pa.int64()),
    pa.field("entry_id", pa.string()),
    pa.field("entered_at", pa.string()),
    pa.field("is_dated", pa.bool_()),
    *(pa.field(identity.value, pa.string()) for identity in Identity),
    pa.field("unit", pa.string()),
    pa.field("codes", pa.list_(pa.string())),
    pa.field("fields", pa.binary()),
]
_SCHEMA = pa.schema(_FIELDS)
# Which change wrote an entry says nothing about the fan, and no two entries share it: it would fill the file.
_UNJUDGED = ("correlationId",)


class StagedEntry(NamedTuple):
    """An entry as it was judged alone, and its earlier entries (see `Facts`)."""

    entry_id: str
    entered_at: str
    fields: Mapping[str, Any]  # those that a second judgement reads
    codes: Sequence[str]  # why it failed when judged alone
    duplicates: frozenset[Identity]  # identities that earlier entries share with it
    household: int  # how many earlier entries are of its unit
    mail_domain: str  # a common domain, or `OTHER_DOMAINS`


class Staging:
    """A context manager; `add` every entry, then read them back once with `entries`."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / "staged.parquet"
        self._writer = pq.ParquetWriter(self._path, _SCHEMA, compression="zstd")
        self._rows: list[tuple[object, ...]] = []
        self.count = 0

    def add(
        self,
        key: EntryKey,
        subject: Subject,
        fields: Mapping[str, Any],
        codes: Sequence[str],
        *,
        is_dated: bool = True,
    ) -> None:
        """Add an entry. `subject.entered_at` and the key give the order of the entries; entries without a readable
        time (`is_dated` False) come last.
        """
        identities = subject.identities
        self._rows.append(
            (
                self.count,
                key.entry_id,
                subject.entered_at,
                is_dated,
                *(identities.get(identity) for identity in Identity),
                subject.unit,
                codes,
                orjson.dumps(_kept(fields), default=_nothing),
            )
        )
        self.count += 1
        if len(self._rows) == ROWS:
            self._flush()

    def entries(self) -> Iterator[list[StagedEntry]]:
        """Yield every entry, up to `ROWS` at a time, in no order."""
        self._close()
        with duckdb.connect(config=spilling(self._folder, _MEMORY_MIB)) as database:
            database.read_parquet(str(self._path)).create_view("staged")
            database.execute(_BEFORE)
            database.execute(_DOMAINS)
            reader: Any = database.sql(_JOINED).to_arrow_reader(ROWS)
            for batch in reader:
                columns = [column.to_pylist() for column in batch.columns]
                yield [_staged(*row) for row in zip(*columns, strict=True)]

    def _flush(self) -> None:
        if self._rows:
            columns = zip(*self._rows, strict=True)
            arrays = [pa.array(column, each.type) for column, each in zip(columns, _FIELDS, strict=True)]
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=_SCHEMA))
            self._rows.clear()

    def _close(self) -> None:
        self._flush()
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()


def _kept(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a second judgement and a judged entry may read: each field of the contract, and of the free
    attributes those that rules read.
    """
    kept = {name: fields[name] for name in (*FIELDS, "createdAt") if name in fields and name not in _UNJUDGED}
    if "attributes" in kept:
        kept["attributes"] = read_attributes(fields)
    return kept


def _nothing(_value: object) -> None:
    """Write a value of a type that no valid entry has as null."""


def _places(column: str) -> str:
    """Return a query for the number of earlier entries with the same value, for values that occur more than once: see
    `Facts`, which also has the order.
    """
    return f"""SELECT n, '{column}' AS what,
    count(*) FILTER (WHERE len(codes) = 0) OVER (
        PARTITION BY "{column}" ORDER BY is_dated DESC, entered_at, entry_id
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
FROM staged WHERE "{column}" IN (
    SELECT "{column}" FROM staged WHERE "{column}" IS NOT NULL GROUP BY ALL HAVING count(*) > 1)"""


# DuckDB compares texts by code points, as Python does, so both have the same order.
_BEFORE = f"""CREATE TABLE before AS
SELECT n, list(what) FILTER (WHERE what <> 'unit') AS identities, coalesce(max(before) FILTER (WHERE what = 'unit'), 0)
    AS household
FROM ({" UNION ALL ".join(_places(column) for column in (*(identity.value for identity in Identity), "unit"))})
WHERE before > 0 GROUP BY n"""
# The address is in its comparable form, and so is the part after its last @.
_DOMAIN = f"split_part({Identity.EMAIL.value}, '@', -1)"
_DOMAINS = f"""CREATE TABLE shown AS SELECT {_DOMAIN} AS domain FROM staged WHERE {Identity.EMAIL.value} IS NOT NULL
GROUP BY ALL HAVING count(*) >= {DOMAIN_ENTRANTS} AND count(*) >= {DOMAIN_SHARE} * (SELECT count(*) FROM staged)"""
_JOINED = f"""SELECT entry_id, entered_at, fields, codes, identities, household, coalesce(domain, '{OTHER_DOMAINS}')
FROM staged LEFT JOIN before USING (n) LEFT JOIN shown ON domain = {_DOMAIN}"""


def _staged(
    entry_id: str,
    entered_at: str,
    fields: bytes,
    codes: list[str],
    identities: list[str] | None,
    household: int | None,
    mail_domain: str,
) -> StagedEntry:
    duplicates = frozenset(map(Identity, identities or ()))
    return StagedEntry(
        entry_id, entered_at, orjson.loads(fields), codes, duplicates, household or 0, mail_domain
    )
