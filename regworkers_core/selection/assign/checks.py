"""Checks the guarantees of the assignment against the stores: codes and winners match one to one, counts agree.

Selections and codes are compared in files, so that memory does not grow with the number of winners.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from fairdraw.large.engine import Engine
from regworkers_core.adapters.mongo.draws import PhaseRecord, PhaseStatus
from regworkers_core.domain.keys import quoted
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.selection import NON_WINNERS, MarketPhase, PromiseVerdict
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime
from regworkers_core.selection.notify.counts import compare, differences


def judge(runtime: Runtime, campaign_id: str) -> dict[str, PromiseVerdict]:
    """Judge every promise of the campaign, by name, and note that in the record of each phase that is complete."""
    record = runtime.draws.light(campaign_id)
    phases = record.phases.values() if record is not None else ()
    # As it was before: one that completes meanwhile is judged next time.
    complete = [each.phase for each in phases if each.reached(PhaseStatus.COMPLETED)]
    found = {check.__name__: check(runtime, campaign_id) for check in PROMISES}
    passed = all(verdict.passed for verdict in found.values())
    for phase in complete:
        runtime.draw_markets.judge_phase(campaign_id, phase, passed=passed, at=iso(runtime.clock()))
    return found


def codes_and_winners_biject(runtime: Runtime, campaign_id: str) -> PromiseVerdict:
    """Check that every selection has its code and every given code its selection, with the same ref and market."""
    numbers = count_pairs(runtime, campaign_id)
    wrong = {name: number for name, number in list(numbers.items())[2:] if number}
    text = "codes and winners are one to one" if not wrong else f"not one to one: {_listed(wrong)}"
    return PromiseVerdict(not wrong, text, numbers)


def codes_within_capacity(runtime: Runtime, campaign_id: str) -> PromiseVerdict:
    """Check that no market has more winners than the capacity that the latest published phase committed to, nor more
    selections than all phases planned (a winner who is struck later keeps the selection: its code is given).
    """
    phases = _published(runtime, campaign_id)
    summaries = [orjson.loads(phase.fields["summary"])["markets"] for phase in phases]
    capacity = {
        market["marketId"]: int(market["capacity"]) for market in orjson.loads(phases[-1].manifest)["markets"]
    }
    winners = {market: int(each["winners"]) for market, each in summaries[-1].items()}
    planned = Counter[str]()
    for summary in summaries:
        planned.update({market: int(each["new"]) for market, each in summary.items()})
    given = runtime.selections.count_by_market(campaign_id)
    over = Counter({market: number - capacity.get(market, 0) for market, number in winners.items()})
    beyond = given - planned
    wrong = +over + beyond
    numbers = {
        "capacity": sum(capacity.values()),
        "winners": sum(winners.values()),
        "selections": given.total(),
        "planned": planned.total(),
        "over": wrong.total(),
    }
    text = "no market is above its capacity" if not wrong else f"above capacity or plan: {_listed(wrong)}"
    return PromiseVerdict(not wrong, text, numbers)


def counts_match(runtime: Runtime, campaign_id: str) -> PromiseVerdict:
    """Check that planned = written = enqueued in every completed market, with the winners of the result; and once the
    last confirmed phase is complete, that winners, refs with a code, and refs whose last message says so are the same.
    """
    numbers: Counter[str] = Counter()
    wrong: list[str] = []
    published = _published(runtime, campaign_id)
    for phase in published:
        new = {
            market: each["new"] for market, each in orjson.loads(phase.fields["summary"])["markets"].items()
        }
        for market_id, entry in phase.markets.items():
            numbers["markets"] += 1
            if "completedAt" not in entry and entry["planned"]:
                numbers["open"] += 1
                continue
            market = MarketPhase(campaign_id, market_id, phase.phase)
            planned, enqueued = entry["planned"], runtime.outbox.count(market)
            written = planned if market_id == NON_WINNERS else runtime.selections.count(market)
            numbers.update(planned=planned, written=written, enqueued=enqueued)
            if not planned == written == enqueued == new.get(market_id, planned):
                wrong.append(f"{market}: planned {planned}, written {written}, enqueued {enqueued}")
    if published[-1].reached(PhaseStatus.COMPLETED):
        compared = compare(runtime, campaign_id, published[-1].phase)
        numbers.update(compared)
        if different := differences(compared):
            wrong.append(f"phase {published[-1].phase}: {different}")
    text = "; ".join(wrong) if wrong else "planned = written = enqueued in every completed market"
    return PromiseVerdict(not wrong, text, dict(numbers))


PROMISES = (codes_and_winners_biject, codes_within_capacity, counts_match)


def _published(runtime: Runtime, campaign_id: str) -> list[PhaseRecord]:
    record = runtime.draws.get(campaign_id)
    phases = [phase for phase in (record.phases if record else {}).values() if phase.markets]
    phases = [phase for phase in phases if phase.reached(PhaseStatus.PUBLISHED)]
    if not phases:
        raise UsageError(f"the draw of {quoted(campaign_id)} is not published: there is nothing to check")
    return phases


def _listed(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in numbers.items())


_COMPARED = ("ref", "marketId", "position")
_SCHEMA = pa.schema([pa.field(name, pa.string()) for name in ("code", *_COMPARED)])


def count_pairs(runtime: Runtime, campaign_id: str) -> dict[str, int]:
    """Count `selections`, `codesGiven` and every kind of mismatch between them. Raises TransientFailure."""
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
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
        for batch in batches:
            writer.write_table(pa.Table.from_pylist([_row(each, code) for each in batch], schema=_SCHEMA))


def _row(document: Mapping[str, Any], code: str) -> dict[str, str]:
    """Write values as Python's repr: text and numbers stay different, and an absent value is one, too."""
    values = {"code": document.get(code), **{name: document.get(name) for name in _COMPARED}}
    return {name: repr(value) for name, value in values.items()}
