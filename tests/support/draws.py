"""Drawn campaigns without a draw: a result as a test wants it, committed and confirmed as a draw would leave it."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from fairdraw.terms import ALGORITHM
from regworkers_core.adapters.mongo.draws import DrawRecord
from regworkers_core.domain.selection import NON_WINNERS, MarketPhase, Notice, Outcome
from regworkers_core.runtime import Runtime
from regworkers_core.selection.assign.release import publish_phase
from regworkers_core.selection.notify import work

CAMPAIGN = "summer"
CONFIRMED_AT = "2026-03-01T12:00:00.000Z"


@dataclass(frozen=True, slots=True)
class Row:
    """One leaf of a result; see `outcomes.parquet`."""

    ref: str
    outcome: Outcome
    market: str = ""
    rank: int = 0
    previous: str = ""
    previous_market: str = ""

    @property
    def entry_id(self) -> str:
        return f"entry-of-{self.ref}"


def result(
    winners: Mapping[str, int], *, waiting: int = 0, unselected: int = 0, limited: int = 0
) -> list[Row]:
    """Rows of an outcome with this number of winners by market. Markets alternate in rank order; the others follow."""
    rows: list[Row] = []
    left = dict(winners)
    while any(left.values()):
        for market in winners:
            if left[market]:
                left[market] -= 1
                rows.append(Row(_ref(len(rows)), Outcome.WINNER, market, len(rows) + 1))
    for outcome, number in ((Outcome.WAITLIST, waiting), (Outcome.UNSELECTED, unselected)):
        rows += [Row(_ref(len(rows) + each), outcome, "", len(rows) + each + 1) for each in range(number)]
    rows += [Row(_ref(len(rows) + each), Outcome.HOUSEHOLD_LIMIT) for each in range(limited)]
    return rows


def _ref(number: int) -> str:
    """Random to look at, the same in every run: the order of refs is not that of ranks."""
    return hashlib.sha256(f"leaf-{number}".encode()).hexdigest()[:22]


def next_phase(rows: Iterable[Row], changes: Mapping[str, Row]) -> list[Row]:
    """The result of the phase behind `rows`: what `changes` (by ref) does not name stays."""
    return [
        replace(changes.get(row.ref, row), previous=row.outcome.value, previous_market=row.market)
        for row in rows
    ]


def confirmed(
    runtime: Runtime,
    rows: Sequence[Row],
    markets: Iterable[str],
    *,
    phase: int = 1,
    campaign_id: str = CAMPAIGN,
    only_drawn: bool = False,
) -> str:
    """Put a drawn and confirmed phase in place (`only_drawn`: not confirmed yet); returns its result hash."""
    markets = sorted(markets)
    ordered = sorted(rows, key=lambda row: row.ref)
    lines = [f"{row.ref}|{row.market}|{row.rank or ''}|{row.outcome}\n" for row in ordered]
    result_hash = hashlib.sha256("".join(lines).encode()).hexdigest()
    named = [f"{row.ref}|{row.entry_id}|{row.previous}|{row.previous_market}\n" for row in ordered]
    _put_outcomes(runtime, ordered, f"pipeline/{campaign_id}/phase-{phase}/outcomes.parquet")
    new = Counter(row.market for row in rows if _is_new(row))
    kept = Counter(row.market for row in rows if row.outcome is Outcome.WINNER)
    summary = {"markets": {each: {"new": new[each], "winners": kept[each]} for each in markets}}
    terms = [{"capacity": kept[each], "marketId": each, "reserves": []} for each in markets]
    fields = {
        "phase": phase,
        "status": "DRAWN",
        "resultHash": result_hash,
        "manifestHash": hashlib.sha256(f"{campaign_id}:{phase}".encode()).hexdigest(),
        "hashes": {"leaves.txt": "0" * 64},
        "entriesHash": hashlib.sha256("".join(named).encode()).hexdigest(),
        "outcomes": dict(Counter(row.outcome.value for row in rows)),
        "summary": orjson.dumps(summary).decode(),
        "manifest": orjson.dumps({"markets": terms}).decode(),
        "drawnAt": CONFIRMED_AT,
        "terms": {"algorithm": ALGORITHM},
    }
    if not only_drawn:
        fields |= {"confirmedAt": CONFIRMED_AT, "confirmedBy": "test"}
    database = runtime.database
    if phase == 1:
        database["campaigns"].insert_one(_campaign(campaign_id, markets))
        first = {"_id": campaign_id, "campaignId": campaign_id, "drawId": campaign_id, "token": 1}
        database["draws"].insert_one({**first, "phases": {"1": fields}})
    else:
        database["draws"].update_one({"_id": campaign_id}, {"$set": {f"phases.{phase}": fields}})
    return result_hash


def _is_new(row: Row) -> bool:
    return row.outcome is Outcome.WINNER and row.previous != Outcome.WINNER


def _put_outcomes(runtime: Runtime, rows: Sequence[Row], key: str) -> None:
    columns: dict[str, list[Any]] = {
        "ref": [row.ref for row in rows],
        "entry_id": [row.entry_id for row in rows],
        "market": [row.market for row in rows],
        "rank": [row.rank for row in rows],
        "outcome": [row.outcome.value for row in rows],
        "previous": [row.previous for row in rows],
        "previous_market": [row.previous_market for row in rows],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "outcomes.parquet"
        texts = ("ref", "entry_id", "market", "outcome", "previous", "previous_market")
        types = {**dict.fromkeys(texts, pa.string()), "rank": pa.int32()}
        schema = pa.schema([pa.field(name, types[name]) for name in columns])
        pq.write_table(pa.Table.from_pydict(columns, schema=schema), path)
        runtime.objects.put_file(key, path)


def _campaign(campaign_id: str, markets: Sequence[str]) -> dict[str, Any]:
    return {
        "_id": campaign_id,
        "slug": campaign_id,
        "name": campaign_id,
        "status": "PROCESSING",
        "opensAt": "2026-01-01T00:00:00.000Z",
        "closesAt": "2026-02-01T00:00:00.000Z",
        "markets": [{"marketId": each, "name": each, "capacity": 1000} for each in markets],
    }


def add_codes(
    runtime: Runtime,
    market_id: str,
    number: int,
    *,
    first: int = 1,
    campaign_id: str = CAMPAIGN,
    **changes: Any,
) -> None:
    """Codes at the positions from `first` on; `changes` are fields of all of them."""
    documents = [
        {
            "_id": code_at(market_id, position),
            "campaignId": campaign_id,
            "marketId": market_id,
            "position": position,
            "status": "AVAILABLE",
            **changes,
        }
        for position in range(first, first + number)
    ]
    if documents:
        runtime.database["codes"].insert_many(documents)


def code_at(market_id: str, position: int) -> str:
    return f"{market_id.upper()}{position:06d}"


def publish(runtime: Runtime, phase: int = 1, campaign_id: str = CAMPAIGN) -> dict[str, dict[str, Any]]:
    """As the draw's run does it."""
    return publish_phase(runtime, campaign_id, phase, token=1, run_id="test-run")


def published(
    runtime: Runtime, rows: Sequence[Row], markets: Iterable[str], *, codes: int
) -> dict[str, dict[str, Any]]:
    """A confirmed phase with this number of codes for each market, published."""
    confirmed(runtime, rows, markets)
    for name in markets:
        add_codes(runtime, name, codes)
    return publish(runtime)


def plan_of(runtime: Runtime, market_id: str, phase: int = 1, campaign_id: str = CAMPAIGN) -> dict[str, Any]:
    """What the record says of a market's plan: key, sha256, rows, lastPosition."""
    found: dict[str, Any] = record_of(runtime, campaign_id).phases[phase].markets[market_id]["plan"]
    return found


def market(market_id: str, phase: int = 1, campaign_id: str = CAMPAIGN) -> MarketPhase:
    return MarketPhase(campaign_id, market_id, phase)


def findings(runtime: Runtime, rows: Sequence[Row], phase: int = 1, campaign_id: str = CAMPAIGN) -> list[str]:
    """What an assigned phase has lost or doubled, in words. It must hold one code, one selection and one outbox row for
    each new winner, one outbox row for each other ref that gets a message, and nothing else.
    """
    database, found = runtime.database, []
    winners = {row.ref: row for row in rows if _is_new(row)}
    selections = [each for each in database["selections"].find() if each["phase"] == phase]
    codes = [each for each in database["codes"].find() if each.get("phase") == phase]
    outbox = [each for each in database["outbox"].find() if each["phase"] == phase]
    notified = [row for row in rows if _is_notified(row)]
    for what, documents, wanted in (
        ("selections", selections, Counter(list(winners))),
        ("codes", codes, Counter(list(winners))),
        ("outbox rows", outbox, Counter(row.ref for row in notified)),
    ):
        have = Counter(each["ref"] for each in documents)
        found += [f"{what}: {(wanted - have).total()} missing"] if wanted - have else []
        found += [f"{what}: {(have - wanted).total()} too many"] if have - wanted else []
    by_ref = {each["ref"]: each for each in codes}
    ranks: dict[str, list[tuple[int, int]]] = {}
    for each in selections:
        code = by_ref.get(each["ref"], {})
        if (each["code"], each["marketId"]) != (code.get("_id"), code.get("marketId")):
            found.append(f"selection {each['_id']} and its code differ")
        ranks.setdefault(each["marketId"], []).append((each["rank"], each["position"]))
    found += [
        f"market {market_id}: positions do not follow the ranks"
        for market_id, pairs in ranks.items()
        if [position for _, position in sorted(pairs)] != sorted(position for _, position in pairs)
    ]
    return found


def _is_notified(row: Row) -> bool:
    if row.outcome is Outcome.WINNER:
        return _is_new(row)
    return row.outcome is not Outcome.STRUCK and row.outcome.value != row.previous


def market_status(runtime: Runtime, phase: int = 1, campaign_id: str = CAMPAIGN) -> dict[str, str]:
    """Status by market, `-` included, and of the phase itself under the empty name."""
    record = runtime.draws.get(campaign_id)
    assert record is not None
    statuses = {name: str(entry["status"]) for name, entry in record.phases[phase].markets.items()}
    return {"": record.phases[phase].status.value, **statuses}


def all_completed(*markets: str) -> dict[str, str]:
    return dict.fromkeys(["", *markets, NON_WINNERS], "COMPLETED")


def raising_for(ref: str) -> Callable[[Notice, str, str], Any]:
    """Replaces `work.notification_queued`: the message to `ref` alone raises, as of a defect."""
    queued = work.notification_queued

    def raising(notice: Notice, at: str, correlation_id: str) -> Any:
        if notice.ref == ref:
            raise KeyError("name")
        return queued(notice, at, correlation_id)

    return raising


def record_of(runtime: Runtime, campaign_id: str = CAMPAIGN) -> DrawRecord:
    """What is kept of a draw that has begun."""
    record = runtime.draws.get(campaign_id)
    assert record is not None
    return record
