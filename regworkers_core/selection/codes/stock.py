"""Counts codes against seats, voids leaked ones, reads those that fans hold and those that must not count."""

from __future__ import annotations

import csv
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from fairdraw.documents import as_document
from regworkers_core.adapters.files import in_batches, masked
from regworkers_core.adapters.mongo.codes import Code, CodeStatus
from regworkers_core.adapters.mongo.draws import DrawRecord, MarketStatus, PhaseStatus
from regworkers_core.adapters.mongo.outbox import RowStatus
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.domain.selection import DrawBusy, MarketPhase
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.runtime import Runtime
from regworkers_core.selection.campaigns.registry import draw_lease

# While a market has one of these states, a plan may name the code already, and a plan is never made twice.
_PLANNED = frozenset({MarketStatus.PENDING, MarketStatus.ASSIGNING})


@dataclass(frozen=True, slots=True)
class MarketStock:
    """Codes of one market by status."""

    market_id: str
    # Its seats; None: the campaign has no such market.
    capacity: int | None
    # Codes that were not assigned yet.
    available: int = 0
    # Codes of winners.
    assigned: int = 0
    # Codes that were used.
    redeemed: int = 0
    # Codes that count no more.
    void: int = 0
    # How many codes its winners wait for; None before the winners are known: then every seat may be won.
    wanted: int | None = None

    @property
    def codes(self) -> int:
        """All of them, whatever their status."""
        return self.available + self.assigned + self.redeemed + self.void

    @property
    def missing(self) -> int:
        """Codes that are missing: for the winners once they are known, before that for all seats."""
        if self.wanted is not None:
            return max(0, self.wanted - self.available)
        return max(0, (self.capacity or 0) - self.available - self.assigned - self.redeemed)

    def as_dict(self) -> dict[str, Any]:
        return as_document(self) | {"missing": self.missing}


@dataclass(frozen=True, slots=True)
class Voided:
    """The result of voiding one code: `code` is masked, `outcome` is a sentence."""

    code: str
    done: bool
    outcome: str


def read_stock(runtime: Runtime, campaign: Campaign, record: DrawRecord | None = None) -> list[MarketStock]:
    """Return the stock of every market of the campaign, then of markets that only codes name. `record` is the
    campaign's draw, None before there is one.
    """
    counts = runtime.codes.count(campaign.campaign_id)
    seats = seats_of(campaign, record)
    wanted = _wanted(record)
    strays = sorted(counts.keys() - set(campaign.market_ids))
    found = []
    for market_id in (*campaign.market_ids, *strays):
        market, of = campaign.market(market_id), counts.get(market_id, {})
        found.append(
            MarketStock(
                market_id,
                seats.get(market_id),
                available=of.get(CodeStatus.AVAILABLE, 0),
                assigned=of.get(CodeStatus.ASSIGNED, 0),
                redeemed=of.get(CodeStatus.REDEEMED, 0),
                void=of.get(CodeStatus.VOID, 0),
                wanted=None if wanted is None or market is None else wanted[market_id],
            )
        )
    return found


def seats_of(campaign: Campaign, record: DrawRecord | None) -> dict[str, int]:
    """Return the current seats by market id: those of the draw's latest phase, before a draw the campaign's."""
    seats = {market.market_id: market.capacity for market in campaign.markets}
    if record is not None and record.phases:
        terms: Mapping[str, Any] = record.latest.fields.get("terms") or {}
        seats |= {
            each["marketId"]: int(each["capacity"])
            for each in terms.get("markets", ())
            if each["marketId"] in seats
        }
    return seats


def _wanted(record: DrawRecord | None) -> Counter[str] | None:
    """Return by market how many codes the winners of a draw wait for: in blocked markets, and in a result that is not
    published yet. A market that is being assigned has all its codes. None while the winners of the latest phase are
    not known.
    """
    if record is None or not record.phases or "report" not in record.latest.fields:
        return None
    wanted: Counter[str] = Counter()
    if record.annulled:
        return wanted
    for phase in record.phases.values():
        if not phase.reached(PhaseStatus.PUBLISHED):
            wanted.update((phase.fields.get("report") or {}).get("newWinners", {}))
        for market_id, numbers in phase.markets.items():
            if numbers.get("status") == MarketStatus.BLOCKED:
                wanted[market_id] += int(numbers["needed"])
    return wanted


def void_codes(
    runtime: Runtime,
    campaign: Campaign,
    codes: Sequence[str],
    *,
    reason: str,
    run_id: str,
    dry_run: bool = False,
    on_step: OnStep = no_step,
) -> list[Voided]:
    """Void AVAILABLE codes permanently. They keep their positions, which plans then skip.

    A code that a fan holds, or whose market is being assigned, is not changed. This holds the lease of the draw, under
    which every plan is made, so no plan can name a code that is voided here. Raises DrawBusy while another run works on
    the draw, also if one takes over half way (codes that are void by then stay void).
    """
    done: list[Voided] = []
    with draw_lease(runtime, campaign.campaign_id, run_id) as lease:
        on_step("codes.after_lease")
        stored = runtime.codes.get(codes)
        busy = _markets_in_assignment(runtime, campaign.campaign_id)
        for code in dict.fromkeys(codes):
            found = stored.get(code)
            hindrance = _hindrance(found, campaign.campaign_id, busy)
            was_void = found is not None and found.status is CodeStatus.VOID
            if hindrance is None and not was_void and not dry_run:
                if lease.lost:
                    raise DrawBusy(campaign.campaign_id)
                if not runtime.codes.void(
                    campaign.campaign_id, code, at=iso(runtime.clock()), reason=reason, run_id=run_id
                ):
                    hindrance = "was given to a fan meanwhile"
            now = "would be void" if dry_run else "is void now"
            outcome = hindrance or ("was void already" if was_void else now)
            done.append(Voided(masked(code), hindrance is None, outcome))
    return done


def _hindrance(code: Code | None, campaign_id: str, busy: frozenset[str]) -> str | None:
    if code is None or code.campaign_id != campaign_id:
        return f"is not a code of {campaign_id}"
    if code.status in (CodeStatus.ASSIGNED, CodeStatus.REDEEMED):
        return f"is {code.status}: a fan holds it, so its issuer has to block it"
    if code.status is CodeStatus.AVAILABLE and code.market_id in busy:
        return f"may be planned for a winner: void it when market {code.market_id} is complete"
    return None


def _markets_in_assignment(runtime: Runtime, campaign_id: str) -> frozenset[str]:
    record = runtime.draws.get(campaign_id)
    if record is None or record.annulled:
        return frozenset()
    return frozenset(
        market_id
        for phase in record.phases.values()
        for market_id, numbers in phase.markets.items()
        if numbers.get("status") in _PLANNED
    )


@dataclass(frozen=True, slots=True)
class CodesPrecheck:
    """Whether there are codes for every seat, by market id."""

    # The seats of every market.
    seats: Mapping[str, int]
    # Codes that are here.
    available: Mapping[str, int]
    # Codes at the Code Service; None if there is none, or if it did not answer.
    at_service: Mapping[str, int] | None = None
    # The error of a service that did not answer.
    trouble: str | None = None

    @property
    def warnings(self) -> list[str]:
        """Warnings as sentences. They do not stop a draw: a market with too few codes waits before its assignment."""
        found = [] if self.trouble is None else [f"the Code Service did not answer: {self.trouble}"]
        for market, seats in self.seats.items():
            here, there = self.available[market], (self.at_service or {}).get(market, 0)
            if here < seats:
                found.append(
                    f"{market}: {here:,} available of {seats:,} codes needed: `regworkers codes import`"
                )
            if self.at_service is not None and there < min(here, seats):
                found.append(f"{market}: {here:,} available here, {there:,} at the Code Service")
        return found

    def as_facts(self) -> dict[str, Any]:
        return {
            "codes": {
                market: {
                    "seats": seats,
                    "available": self.available[market],
                    "atService": None if self.at_service is None else self.at_service.get(market, 0),
                }
                for market, seats in self.seats.items()
            },
            "warnings": self.warnings,
        }


def check_codes(runtime: Runtime, campaign: Campaign) -> CodesPrecheck:
    """Compare codes with seats. Raises TransientFailure if MongoDB does not answer; the Code Service may be down."""
    stocks = {stock.market_id: stock for stock in read_stock(runtime, campaign)}
    seats = {market.market_id: market.capacity for market in campaign.markets}
    available = {market: stocks[market].available for market in seats}
    if not runtime.settings.services.code.base_url:
        return CodesPrecheck(seats, available)
    try:
        there = runtime.services.code.available(campaign.campaign_id)
    except (Failure, UsageError) as failure:
        return CodesPrecheck(seats, available, trouble=str(failure))
    return CodesPrecheck(seats, available, there or {})


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


def count_redeemed(runtime: Runtime, campaign_id: str, refs: Sequence[str]) -> int:
    """Return how many codes these refs have redeemed. Raises TransientFailure."""
    found = 0
    for start in range(0, len(refs), _PAGE):
        won = runtime.selections.of_refs(campaign_id, refs[start : start + _PAGE])
        codes = runtime.codes.get([each["code"] for each in won])
        holders = {each["code"]: each["ref"] for each in won}
        found += sum(
            code.status is CodeStatus.REDEEMED and code.ref == holders[code.code] for code in codes.values()
        )
    return found


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
