"""Codes that fans hold: whether they and the selections are one to one, and those that must not count.

Of winners who were struck later, and of an annulled draw, the issuer has to block the codes.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from fairdraw.documents import as_document
from regworkers_core.adapters.files import in_batches, masked
from regworkers_core.adapters.mongo.codes import CodeStatus
from regworkers_core.adapters.mongo.outbox import RowStatus
from regworkers_core.domain.selection import MarketPhase
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime

_PAGE = 1_000
_HELD = (CodeStatus.ASSIGNED, CodeStatus.REDEEMED)
_NOTIFIED = "told"
_COLUMNS = ("code", "marketId", "status", "ref", _NOTIFIED, "blocked")


@dataclass(frozen=True, slots=True)
class StruckCode:
    """A code to block."""

    # The code itself.
    code: str
    market_id: str
    phase: int
    # The fan's entry in the draw.
    ref: str
    status: CodeStatus
    # The fan got the message that they won.
    notified: bool
    # The issuer refuses the code.
    blocked: bool

    @property
    def to_block(self) -> bool:
        return self.status in _HELD and not self.blocked

    def as_dict(self) -> dict[str, object]:
        """Return the document with the code masked: a code is worth a seat to any reader."""
        return as_document(self, "code", "market_id", "phase", "ref", "status") | {
            "code": masked(self.code),
            _NOTIFIED: self.notified,
            "blocked": self.blocked,
        }


def struck_codes(runtime: Runtime, campaign_id: str) -> list[StruckCode]:
    """Return the codes of refs that a confirmed phase has struck and that hold a code, or got the message that they
    won, by market, phase and ref; of an annulled draw, every code that was given.

    Three queries for each thousand struck refs. Raises TransientFailure.
    """
    record = runtime.draws.get(campaign_id)
    if record is not None and record.annulled:
        return sorted(_given(runtime, campaign_id), key=lambda each: (each.market_id, each.phase, each.ref))
    confirmed = [
        phase for phase in (record.phases if record else {}).values() if "confirmedAt" in phase.fields
    ]
    strikes = confirmed[-1].strikes if confirmed else ()
    found: list[StruckCode] = []
    for start in range(0, len(strikes), _PAGE):
        refs = [ref for ref, _ in strikes[start : start + _PAGE]]
        won = runtime.selections.of_refs(campaign_id, refs)
        codes = runtime.codes.get([each["code"] for each in won])
        keys = {each["_id"]: each for each in won}
        statuses = runtime.outbox.statuses(list(keys))
        for key, each in keys.items():
            code = codes.get(each["code"])
            notified = statuses.get(key) == RowStatus.SENT
            holds = code is not None and code.status in _HELD and code.ref == each["ref"]
            if code is not None and (holds or notified):
                market = MarketPhase(campaign_id, each["marketId"], each["phase"])
                found.append(
                    StruckCode(
                        code.code,
                        market.market_id,
                        market.phase,
                        each["ref"],
                        code.status,
                        notified,
                        code.blocked,
                    )
                )
    return sorted(found, key=lambda each: (each.market_id, each.phase, each.ref))


def _given(runtime: Runtime, campaign_id: str) -> Iterator[StruckCode]:
    for batch in runtime.codes.of_campaign(campaign_id, _PAGE):
        codes = runtime.codes.get([each["_id"] for each in batch])
        keys = {
            each["_id"]: MarketPhase(campaign_id, each["marketId"], each.get("phase", 1)).key(each["ref"])
            for each in batch
        }
        statuses = runtime.outbox.statuses(list(keys.values()))
        for each in batch:
            code = codes.get(each["_id"])
            if code is not None:
                notified = statuses.get(keys[code.code]) == RowStatus.SENT
                phase = each.get("phase", 1)
                yield StruckCode(
                    code.code, code.market_id, phase, code.ref, code.status, notified, code.blocked
                )


def write_csv(codes: Iterable[StruckCode], file: TextIO) -> None:
    """Write the unmasked codes for the issuer: a header and one line per code."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for each in codes:
        notified, blocked = ("yes" if flag else "no" for flag in (each.notified, each.blocked))
        writer.writerow((each.code, each.market_id, each.status.value, each.ref, notified, blocked))


def mark_blocked(runtime: Runtime, campaign_id: str, *, reason: str, run_id: str) -> int:
    """Record that the issuer refuses all codes that struck refs hold, REDEEMED ones too; return how many are new. They
    keep their status: what was given stays on record. Raises TransientFailure.
    """
    at = iso(runtime.clock())
    return sum(
        runtime.codes.block(campaign_id, page, at=at, reason=reason, run_id=run_id)
        for page in in_batches(
            (each.code for each in struck_codes(runtime, campaign_id) if each.to_block), _PAGE
        )
    )


_COMPARED = ("ref", "marketId", "position")


def count_pairs(runtime: Runtime, campaign_id: str) -> dict[str, int]:
    """Count `selections`, `codesGiven` and every kind of mismatch between them. Raises TransientFailure."""
    # A late import: it loads DuckDB, which the commands about codes do not need.
    from fairdraw.large.engine import Engine

    settings = runtime.settings.selection
    with tempfile.TemporaryDirectory(prefix="regworkers-pairs-") as scratch:
        folder = Path(scratch)
        selections, codes = folder / "selections.parquet", folder / "codes.parquet"
        _write(selections, "code", runtime.selections.of_campaign(campaign_id))
        _write(codes, "_id", runtime.codes.of_campaign(campaign_id))
        engine = Engine(threads=settings.threads, memory_mib=settings.memory_mib, scratch=folder)
        with engine.connection() as connection:
            connection.read_parquet(str(selections)).create_view("s")
            connection.read_parquet(str(codes)).create_view("c")
            return {name: int(connection.execute(query).fetchall()[0][0]) for name, query in _COUNTS.items()}


_DIFFERENT = " OR ".join(f's."{name}" <> c."{name}"' for name in _COMPARED)
_COUNTS = {
    "selections": "SELECT count(*) FROM s",
    "codesGiven": "SELECT count(*) FROM c",
    "codesTwice": "SELECT count(*) - count(DISTINCT code) FROM s",
    "selectionsWithoutCode": "SELECT count(DISTINCT code) FROM s ANTI JOIN c USING (code)",
    "codesWithoutSelection": "SELECT count(*) FROM c ANTI JOIN s USING (code)",
    "differ": f"SELECT count(*) FROM s JOIN c USING (code) WHERE {_DIFFERENT}",
}


def _write(path: Path, code: str, batches: Iterable[list[dict[str, Any]]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([pa.field(name, pa.string()) for name in ("code", *_COMPARED)])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_table(pa.Table.from_pylist([_row(each, code) for each in batch], schema=schema))


def _row(document: Mapping[str, Any], code: str) -> dict[str, str]:
    """Write values as Python's repr: text and numbers stay different, and an absent value is one, too."""
    values = {"code": document.get(code), **{name: document.get(name) for name in _COMPARED}}
    return {name: repr(value) for name, value in values.items()}
