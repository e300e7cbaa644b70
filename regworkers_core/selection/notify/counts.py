"""The count lock: winners, refs with a code, and refs whose last message says that they won must be the same.

They are compared ref by ref, in files, so that memory does not grow with the number of winners. Struck refs are left
out, since they keep an earlier code or message, and so are refs whose fan's data were erased.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fairdraw.terms import OF_STRUCK_SQL
from regworkers_core.adapters.files import in_batches
from regworkers_core.adapters.mongo.draws import DrawRecord
from regworkers_core.adapters.mongo.outbox import ERASED, RowStatus
from regworkers_core.domain.reasons import PermanentFailure, Reason
from regworkers_core.domain.selection import NON_WINNERS, MarketPhase, NoticeType, Outcome
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.committed import committed
from regworkers_core.selection.notify.outbox import to_lock

_ROWS = 10_000
_KEYS = 1_000
_CODES = pa.schema({"ref": pa.string()})
_MESSAGE_FIELDS: list[pa.Field[Any]] = [
    pa.field("ref", pa.string()),
    pa.field("phase", pa.int32()),
    *(pa.field(name, pa.bool_()) for name in ("winner", "superseded", "erased")),
]
_MESSAGES = pa.schema(_MESSAGE_FIELDS)
_ASIDE = (
    f"SELECT ref FROM outcomes WHERE outcome IN {OF_STRUCK_SQL} UNION SELECT ref FROM messages WHERE erased"
)
# If one phase has two messages, the one that is not to a winner counts as the last: for a winner that is an error.
_LAST = "arg_max(winner, phase * 2 + (NOT winner)::INT)"
_SETS = {
    "won": f"SELECT ref FROM outcomes WHERE outcome = '{Outcome.WINNER}'",
    "coded": "SELECT DISTINCT ref FROM codes",
    "notified": f"SELECT ref FROM messages WHERE NOT superseded GROUP BY ref HAVING {_LAST}",
}
_DIFFERENCES = {
    "wonWithoutCode": ("won", "coded"),
    "codeWithoutWin": ("coded", "won"),
    "wonNotNotified": ("won", "notified"),
    "notifiedWithoutWin": ("notified", "won"),
}


def lock_counts(runtime: Runtime, record: DrawRecord) -> bool:
    """Compare, and record that nothing differs. Returns False if another phase was confirmed meanwhile: then the
    numbers belong to no phase.

    Raises PermanentFailure COUNT_MISMATCH with the numbers, TransientFailure.
    """
    phase = to_lock(record)
    if phase is None:
        return True
    numbers = compare(runtime, record.campaign_id, phase.phase)
    now = runtime.draws.light(record.campaign_id)
    latest = None if now is None else to_lock(now)
    if latest is None or latest.phase != phase.phase:
        return False
    if wrong := differences(numbers):
        raise PermanentFailure(
            Reason.COUNT_MISMATCH,
            f"counts locked: in phase {phase.phase} winners, codes and messages have different refs: {wrong}",
        )
    runtime.draw_markets.lock_counts(record.campaign_id, phase.phase, iso(runtime.clock()))
    return True


def differences(numbers: dict[str, int]) -> str:
    """Return what differs as text; empty if nothing does."""
    return ", ".join(f"{name} {numbers[name]}" for name in (*_DIFFERENCES, "notifiedTwice") if numbers[name])


def compare(runtime: Runtime, campaign_id: str, number: int) -> dict[str, int]:
    """Count `won`, `coded`, `notified` and `aside` after a phase whose markets are complete; the differences between
    the first three; and `notifiedTwice`: winners of the first phase who get another message in it, too. Two reads for
    each thousand winners, and one for each thousand messages of later phases. Raises TransientFailure, PermanentFailure
    RESULT_MISMATCH.
    """
    record = runtime.draws.get(campaign_id)
    if record is None:
        raise PermanentFailure(Reason.RESULT_MISMATCH, f"campaign {campaign_id} has no draw")
    with tempfile.TemporaryDirectory(prefix="regworkers-counts-") as scratch:
        codes, messages = Path(scratch) / "codes.parquet", Path(scratch) / "messages.parquet"
        given = runtime.codes.of_campaign(campaign_id)
        _write(codes, _CODES, ([{"ref": str(code.get("ref"))} for code in page] for page in given))
        _write(messages, _MESSAGES, in_batches(_messages(runtime, record, number), _ROWS))
        with committed(runtime, campaign_id, number, record.phases[number].fields) as result:
            connection = result.connection
            for name, path in (("codes", codes), ("messages", messages)):
                connection.read_parquet(str(path)).create_view(name)
            connection.execute(f"CREATE TEMP TABLE aside AS {_ASIDE}")
            for name, query in _SETS.items():
                connection.execute(f"CREATE TEMP TABLE {name} AS {query}")
            queries = {name: f"SELECT count(*) FROM {name}" for name in ("won", "coded", "notified", "aside")}
            for name, (one, other) in _DIFFERENCES.items():
                queries[name] = (
                    f"SELECT count(*) FROM {one} ANTI JOIN {other} USING (ref) ANTI JOIN aside USING (ref)"
                )
            numbers = {
                name: int(connection.execute(query).fetchall()[0][0]) for name, query in queries.items()
            }
            first = connection.execute("SELECT ref FROM messages WHERE phase = 1 AND NOT superseded")
            numbers["notifiedTwice"] = 0
            others = MarketPhase(campaign_id, NON_WINNERS, 1)
            while rows := first.fetchmany(_KEYS):
                statuses = runtime.outbox.statuses([others.key(ref) for (ref,) in rows])
                numbers["notifiedTwice"] += sum(
                    status != RowStatus.SUPERSEDED for status in statuses.values()
                )
            return numbers


def _messages(runtime: Runtime, record: DrawRecord, number: int) -> Iterator[dict[str, Any]]:
    """Yield all messages but those to the others of the first phase, which are nearly all: none of them may be a
    winner's last message, and whether a winner has one, too, is looked up by key.
    """
    for phase in record.phases.values():
        if phase.phase > number:
            continue
        for market_id in phase.markets:
            market = MarketPhase(record.campaign_id, market_id, phase.phase)
            if market_id == NON_WINNERS and phase.phase == 1:
                continue
            for row in runtime.outbox.of_market(market):
                yield {
                    "ref": row["ref"],
                    "phase": phase.phase,
                    "winner": row["type"] == NoticeType.WINNER,
                    "superseded": row["status"] == RowStatus.SUPERSEDED,
                    "erased": row.get("why") == ERASED,
                }


def _write(path: Path, schema: pa.Schema, pages: Iterable[list[dict[str, Any]]]) -> None:
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for page in pages:
            writer.write_table(pa.Table.from_pylist(page, schema=schema))
