"""The plan of a market: which winner gets which code, or which message, fixed before the first one is given.

A plan is a Parquet file with rows numbered `i` from 1. It is valid once the market's record names it, before the first
code is given, and is never made again: so a retry assigns the same codes, whatever happened to them meanwhile.

The planned codes are in the public log before that, as digests: `codes-<k>.txt` beside a phase's artefacts has a line
`market|position|digest` for each code that was planned in the phase so far. A digest is that of the code and its salt,
and the salt is the signature of the code under the campaign's code key. A code has one salt, so equal codes have equal
digests wherever they are planned, and the salt that a winner is given opens no other code.
"""

from __future__ import annotations

import secrets
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from fairdraw import scheduling
from fairdraw.documents import as_document
from fairdraw.log.leaves import Kind
from fairdraw.maths.beside import codes_name
from fairdraw.maths.codes import PlannedLine
from fairdraw.maths.files import file_hash, sha256_hex
from regworkers_core.adapters.aws.objects import MissingObject, ObjectStore
from regworkers_core.adapters.files import in_batches
from regworkers_core.adapters.mongo.codes import CodePosition, Codes
from regworkers_core.adapters.mongo.draws import PhaseRecord
from regworkers_core.domain.reasons import PermanentFailure, Reason, TransientFailure, UsageError
from regworkers_core.domain.selection import (
    NON_WINNERS,
    MarketPhase,
    NoticeType,
    Planned,
    pipeline_key,
    public_key,
)
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.committed import Committed
from regworkers_core.selection.codes.issuing import Salts
from regworkers_core.selection.public.public_log import log_leaves

# A chunk reads whole row groups, so they are small.
_GROUP_ROWS = 10_000
_OPEN_PLANS = 64
_ROWS = 10_000
# Replacements of void codes by market, as a market's record has them: `{row, from, to, ...}`.
Moves = Mapping[str, list[dict[str, Any]]]
_SEATS_FIELDS: list[pa.Field[Any]] = [
    pa.field("i", pa.int64()),
    pa.field("ref", pa.string()),
    pa.field("entry_id", pa.string()),
    pa.field("rank", pa.int64()),
    pa.field("code", pa.string()),
    pa.field("position", pa.int64()),
]
_SEATS = pa.schema(_SEATS_FIELDS)
_OTHERS = pa.schema([*_SEATS_FIELDS[:3], pa.field("type", pa.string())])


@dataclass(frozen=True, slots=True)
class Plan:
    """A market's plan. The market's record has its key and hash, so that write access to the bucket is not enough to
    give a winner's code to another one."""

    market: MarketPhase
    # Its object in the bucket.
    key: str
    # The hash of its bytes, in hex.
    sha256: str
    rows: int
    # The highest position that it names, or that of earlier plans if it names none.
    last_position: int

    def as_fields(self) -> dict[str, Any]:
        return as_document(self, "key", "sha256", "rows", "last_position")

    @classmethod
    def of(cls, market: MarketPhase, entry: Mapping[str, Any]) -> Plan:
        """Return the plan that a market's record (`entry`) names. Raises TransientFailure without one: its chunks
        wait.
        """
        fields = entry.get("plan")
        if not fields:
            raise TransientFailure("draws", f"{market} has no plan")
        return cls(market, fields["key"], fields["sha256"], int(fields["rows"]), int(fields["lastPosition"]))


def write_seats(
    objects: ObjectStore,
    market: MarketPhase,
    result: Committed,
    codes: Iterator[CodePosition],
    *,
    behind: int,
) -> Plan:
    """Write the plan of winner i with code i, after position `behind`; constant memory.

    Raises TransientFailure if `codes` end before the winners: they were counted before, so some are void by now.
    """
    last = behind

    def tables() -> Iterator[pa.Table]:
        nonlocal last
        rows = 0
        for batch in result.new_winners(market.market_id):
            chosen = list(islice(codes, batch.num_rows))
            if len(chosen) < batch.num_rows:
                raise TransientFailure("mongo", f"codes of {market} became fewer while they were planned")
            parts = [
                pa.array(range(rows + 1, rows + batch.num_rows + 1), pa.int64()),
                batch.column("ref"),
                batch.column("entry_id"),
                batch.column("rank").cast(pa.int64()),
                pa.array([each.code for each in chosen], pa.string()),
                pa.array([each.position for each in chosen], pa.int64()),
            ]
            yield pa.table(parts, schema=_SEATS)
            rows += batch.num_rows
            last = chosen[-1].position if chosen else last

    written = _write(objects, market, _SEATS, tables())
    return replace(written, last_position=last)


def write_others(objects: ObjectStore, market: MarketPhase, result: Committed) -> Plan:
    """Write the plan of the messages to the others, by ref; constant memory."""

    def tables() -> Iterator[pa.Table]:
        rows = 0
        for batch in result.others():
            numbers = pa.array(range(rows + 1, rows + batch.num_rows + 1), pa.int64())
            parts = [numbers, *(batch.column(name) for name in ("ref", "entry_id", "type"))]
            yield pa.table(parts, schema=_OTHERS)
            rows += batch.num_rows

    return _write(objects, market, _OTHERS, tables())


def _write(objects: ObjectStore, market: MarketPhase, schema: pa.Schema, tables: Iterator[pa.Table]) -> Plan:
    """Each attempt has its own key; the market's record names the valid one."""
    rows = 0
    with tempfile.TemporaryDirectory(prefix="regworkers-plan-") as folder:
        path = Path(folder) / "plan.parquet"
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for table in tables:
                writer.write_table(table, row_group_size=_GROUP_ROWS)
                rows += table.num_rows
        name = f"plan/{market.market_id}-{secrets.token_hex(8)}.parquet"
        key = pipeline_key(market.campaign_id, market.phase, name)
        objects.put_file(key, path)
        return Plan(market, key, file_hash(path), rows, 0)


class _Fetched(NamedTuple):
    buffer: pa.Buffer
    metadata: pq.FileMetaData


class Plans:
    """The plans of a drain, each fetched once. Safe to share between threads.

    A fetched file is unlinked at once and read through its memory map, so nothing remains however the process ends.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._lock = scheduling.lock()
        self._fetching: dict[str, scheduling.Lock] = {}
        self._open: OrderedDict[str, _Fetched] = OrderedDict()

    def rows(self, plan: Plan, first: int, last: int) -> list[Planned]:
        """Return rows `first` to `last`, counted from 1. Raises PermanentFailure KEY_CONFLICT if the plan has no such
        rows, is missing, or is not the file that was written.
        """
        if last > plan.rows:
            raise PermanentFailure(
                Reason.KEY_CONFLICT, f"the plan of {plan.market} has {plan.rows} rows, none number {last}"
            )
        buffer, metadata = self._plan(plan)
        groups: list[int] = []
        before = start = 0
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            if before + rows >= first and before < last:
                start = before if not groups else start
                groups.append(group)
            before += rows
        table = pq.ParquetFile(pa.BufferReader(buffer), metadata=metadata).read_row_groups(
            groups, use_threads=False
        )
        wanted = table.slice(first - 1 - start, last - first + 1).to_pylist()
        return [_planned(row, plan.market) for row in wanted]

    def _plan(self, plan: Plan) -> _Fetched:
        with self._lock:
            if plan.key in self._open:
                self._open.move_to_end(plan.key)
                return self._open[plan.key]
            fetching = self._fetching.setdefault(plan.key, scheduling.lock())
        with fetching:
            with self._lock:
                if plan.key in self._open:
                    return self._open[plan.key]
            fetched = self._fetch(plan)
            with self._lock:
                self._open[plan.key] = fetched
                self._fetching.pop(plan.key, None)
                while len(self._open) > _OPEN_PLANS:
                    self._open.popitem(last=False)
            return fetched

    def _fetch(self, plan: Plan) -> _Fetched:
        with tempfile.TemporaryDirectory(prefix="regworkers-plan-") as folder:
            path = Path(folder) / "plan.parquet"
            try:
                self._objects.get_file(plan.key, path)
            except MissingObject as missing:
                # Chunks are made from an existing plan, so it was removed.
                raise PermanentFailure(Reason.KEY_CONFLICT, f"{missing}: restore the plan") from None
            if (found := file_hash(path)) != plan.sha256:
                raise PermanentFailure(
                    Reason.KEY_CONFLICT,
                    f"{plan.key} has SHA-256 {found}, the plan that was written {plan.sha256}: restore that version",
                )
            buffer = pa.memory_map(str(path)).read_buffer()
        return _Fetched(buffer, pq.read_metadata(pa.BufferReader(buffer)))


def with_replanned(
    codes: Codes, market: MarketPhase, entry: Mapping[str, Any], first: int, rows: Sequence[Planned]
) -> list[Planned]:
    """Return the `rows` of a plan, which begin at row `first`, with the replacements of void codes. `entry` is the
    market's record. Raises PermanentFailure CODE_CONFLICT if such a code does not exist.
    """
    moved = {int(each["row"]): int(each["to"]) for each in entry.get("replanned") or ()}
    wanted = {row: to for row, to in moved.items() if first <= row < first + len(rows)}
    if not wanted:
        return list(rows)
    stored = codes.at(market.campaign_id, market.market_id, list(wanted.values()))
    planned = list(rows)
    for row, position in wanted.items():
        if position not in stored:
            raise PermanentFailure(
                Reason.CODE_CONFLICT, f"{market}: no code has position {position}: restore it"
            )
        at = row - first
        planned[at] = replace(planned[at], code=stored[position].code, position=position)
    return planned


def _planned(row: dict[str, Any], market: MarketPhase) -> Planned:
    if market.market_id == NON_WINNERS:
        return Planned(row["ref"], row["entry_id"], NoticeType(row["type"]))
    return Planned(row["ref"], row["entry_id"], NoticeType.WINNER, row["rank"], row["code"], row["position"])


def log_codes(
    runtime: Runtime,
    campaign_id: str,
    phase: PhaseRecord,
    plans: Mapping[str, Plan],
    moves: Moves | None = None,
) -> None:
    """Publish the codes of the phase with those of the new `plans` and `moves`, and put them into the log, before these
    become valid. Idempotent.

    Raises NotWitnessed while too few witnesses vouch for it, and as `Plans.rows` and `Salts.of`.
    """
    salts = Salts(runtime, campaign_id)
    lines: list[str] = []
    for market_id, entry in sorted(phase.markets.items()):
        market = MarketPhase(campaign_id, market_id, phase.phase)
        plan = plans.get(market_id) or (Plan.of(market, entry) if entry.get("plan") else None)
        if market_id == NON_WINNERS or plan is None:
            continue
        replanned = [*(entry.get("replanned") or ()), *(moves or {}).get(market_id, ())]
        codes = {**dict(_rows(Plans(runtime.objects), plan)), **_moved(runtime, market, replanned)}
        for page in in_batches(sorted(codes.items()), _ROWS):
            salted = salts.of([code for _, code in page])
            lines += [f"{PlannedLine(market_id, at, salted[code].digest)}\n" for at, code in page]
    if not lines:
        return
    data = "".join(lines).encode("ascii")
    number = 1
    while runtime.objects.put_once(public_key(campaign_id, phase.phase, codes_name(number)), data) != data:
        number += 1
    log_leaves(runtime, campaign_id, phase.phase, Kind.CODES, sha256_hex(data))


def _rows(plans: Plans, plan: Plan) -> Iterator[tuple[int, str]]:
    for first in range(1, plan.rows + 1, _ROWS):
        for row in plans.rows(plan, first, min(first + _ROWS - 1, plan.rows)):
            yield row.position, row.code


def _moved(runtime: Runtime, market: MarketPhase, moves: list[dict[str, Any]]) -> dict[int, str]:
    wanted = [int(each["to"]) for each in moves]
    stored = runtime.codes.at(market.campaign_id, market.market_id, wanted) if wanted else {}
    return {position: stored[position].code for position in wanted if position in stored}


class CodeProof(NamedTuple):
    part: dict[str, Any]  # the key `code` of the winner's receipt
    planned: bytes  # the published list that has it


def code_proof(runtime: Runtime, campaign_id: str, ref: str) -> CodeProof | None:
    """The proof of the code that a winner was given; None before that. Raises UsageError if no published list has it,
    and as `Salts.of`.
    """
    won = runtime.selections.of_entry(campaign_id, ref)
    if not won:
        return None
    phase, market_id, position = int(won[-1]["phase"]), str(won[-1]["marketId"]), int(won[-1]["position"])
    code = runtime.codes.at(campaign_id, market_id, [position])[position].code
    salted = Salts(runtime, campaign_id).of([code])[code]
    line = str(PlannedLine(market_id, position, salted.digest))
    number = 1
    while (
        kept := runtime.objects.get_tagged(public_key(campaign_id, phase, codes_name(number)))
    ) is not None:
        if line.encode() in kept.data.splitlines():
            planned = {"hash": sha256_hex(kept.data), "name": codes_name(number), "phase": phase}
            named = {"code": salted.code, "market": market_id, "position": position, "salt": salted.salt}
            return CodeProof({**named, "list": planned}, kept.data)
        number += 1
    raise UsageError(
        f"no published list of planned codes of phase {phase} has the line {line}: the code, its salt or its place was"
        " changed after it was planned"
    )
