"""Reads the committed result, and checks it against its hashes before anything is assigned."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa

from fairdraw.large.engine import Engine
from fairdraw.maths.files import OUTCOMES
from fairdraw.terms import OF_STRUCK_SQL
from regworkers_core.adapters.aws.objects import MissingObject
from regworkers_core.domain.reasons import PermanentFailure, Reason
from regworkers_core.domain.selection import NOTICES, NoticeType, Outcome, pipeline_key
from regworkers_core.runtime import Runtime
from regworkers_core.selection.draw.held import ResultDiffers, entries_hash, result_hash

_BATCH_ROWS = 50_000
_CHANGED_ROWS = 5_000


@dataclass(frozen=True, slots=True)
class Committed:
    """The result of one phase."""

    # Queries run on it, from one thread.
    connection: duckdb.DuckDBPyConnection
    result_hash: str
    # New winners by market.
    winners: Mapping[str, int]
    # Messages to the others by type.
    notices: Mapping[NoticeType, int]

    def new_winners(self, market_id: str) -> Iterator[pa.RecordBatch]:
        """Yield (ref, entry_id, rank) of this phase's winners in a market, by rank."""
        reader = self.connection.sql(
            "SELECT ref, entry_id, rank FROM new_winners WHERE market = $market ORDER BY rank, ref",
            params={"market": market_id},
        ).to_arrow_reader(_BATCH_ROWS)
        yield from reader

    def others(self) -> Iterator[pa.RecordBatch]:
        """Yield (ref, entry_id, type) of all fans who get another message than a seat, by ref."""
        reader = self.connection.sql(
            f"SELECT ref, entry_id, {_TYPE} AS type FROM outcomes WHERE {_NOTIFIED} ORDER BY ref"
        ).to_arrow_reader(_BATCH_ROWS)
        yield from reader

    def winners_among(self, refs: Sequence[str]) -> list[str]:
        """Return the `refs` that have won by the end of this phase."""
        found = self.connection.execute(
            f"SELECT ref FROM outcomes WHERE outcome = '{Outcome.WINNER}' AND list_contains(?, ref)",
            [list(refs)],
        )
        return [ref for (ref,) in found.fetchall()]

    def changed(self) -> Iterator[tuple[list[str], list[str]]]:
        """Yield the refs whose outcome differs from the previous phase, with the market that each had won by then
        (empty: none), a few thousand at a time.
        """
        found = self.connection.execute(
            "SELECT ref, previous_market FROM outcomes WHERE previous <> '' AND outcome <> previous ORDER BY ref"
        )
        while rows := found.fetchmany(_CHANGED_ROWS):
            refs, markets = zip(*rows, strict=True)
            yield list(refs), list(markets)


_TYPE = " ".join(
    [
        "CASE outcome",
        *(f"WHEN '{outcome}' THEN '{kind}'" for outcome, kind in NOTICES.items()),
        "END",
    ]
)
# Later phases notify only fans whose outcome changed; `previous` is empty in the first phase.
_NOTIFIED = f"outcome <> '{Outcome.WINNER}' AND outcome NOT IN {OF_STRUCK_SQL} AND outcome <> previous"


@contextmanager
def committed(
    runtime: Runtime, campaign_id: str, phase: int, fields: Mapping[str, Any]
) -> Iterator[Committed]:
    """Open the result of a phase whose record is `fields`.

    Raises ResultDiffers if the file in the store is missing, is not the committed result, or has other entries than the
    draw wrote; PermanentFailure COUNT_MISMATCH if the number of winners differs from the summary.
    """
    key = pipeline_key(campaign_id, phase, OUTCOMES)
    settings = runtime.settings.selection
    with tempfile.TemporaryDirectory(prefix="regworkers-assign-") as folder:
        path = Path(folder) / OUTCOMES
        try:
            runtime.objects.get_file(key, path)
        except MissingObject:
            raise ResultDiffers(key, fields["resultHash"], "") from None
        engine = Engine(threads=settings.threads, memory_mib=settings.memory_mib, scratch=Path(folder))
        with engine.connection() as connection:
            try:
                connection.read_parquet(str(path)).create_view("outcomes")
                _check_hashes(connection, Path(folder), fields, key)
            except (duckdb.InvalidInputException, duckdb.BinderException):
                # Not a Parquet file, or one with other columns.
                raise ResultDiffers(key, fields["resultHash"], "") from None
            found = _read(connection, fields["resultHash"])
            _check_counts(found, fields, campaign_id, phase)
            yield found


def _read(connection: duckdb.DuckDBPyConnection, result_hash: str) -> Committed:
    connection.execute(
        f"""
        CREATE TEMP TABLE new_winners AS SELECT ref, entry_id, market, rank FROM outcomes
        WHERE outcome = '{Outcome.WINNER}' AND previous <> '{Outcome.WINNER}'
        """
    )
    winners = connection.execute("SELECT market, count(*) FROM new_winners GROUP BY market").fetchall()
    notices = connection.execute(
        f"SELECT {_TYPE} AS type, count(*) FROM outcomes WHERE {_NOTIFIED} GROUP BY type"
    ).fetchall()
    return Committed(
        connection,
        result_hash,
        dict(winners),
        {NoticeType(kind): number for kind, number in notices},
    )


def _check_hashes(
    connection: duckdb.DuckDBPyConnection, folder: Path, fields: Mapping[str, Any], key: str
) -> None:
    for hash_of, expected in (
        (result_hash, fields["resultHash"]),
        (entries_hash, fields.get("entriesHash", "")),
    ):
        if (found := hash_of(connection, "outcomes", folder)) != expected:
            raise ResultDiffers(key, expected, found)


def _check_counts(found: Committed, fields: Mapping[str, Any], campaign_id: str, phase: int) -> None:
    summary = orjson.loads(fields["summary"])
    counted = {market: numbers["new"] for market, numbers in summary["markets"].items() if numbers["new"]}
    if counted != dict(found.winners):
        raise PermanentFailure(
            Reason.COUNT_MISMATCH,
            f"campaign {campaign_id}, phase {phase}: the summary counts {sum(counted.values())} new winners,"
            f" the result has {sum(found.winners.values())}",
        )
