"""Small drawn campaigns as files, with a plain allocation of their own: the order may be as unfair as a test wants."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from regworkers_core.selection.report.inputs import ReportFiles

OPENED = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = 14
DOMAINS = ("mail.example", "post.example", "inbox.example", "cards.example")


@dataclass(frozen=True, slots=True)
class Fan:
    ref: str
    entry_id: str
    created: datetime
    domain: str = DOMAINS[0]
    unit: str = ""
    weight: int = 1
    segments: tuple[str, ...] = ()
    preferences: tuple[str, ...] = ("north",)

    @property
    def household(self) -> str:
        return self.unit or self.ref


@dataclass(frozen=True, slots=True)
class Seats:
    """Seats of a market; reserves as (segment, seats) in precedence order."""

    capacity: int
    reserves: tuple[tuple[str, int], ...] = ()


@dataclass
class World:
    """Draw `fans` for `markets`; `order` gives each fan's lottery number (the lowest goes first)."""

    folder: Path
    fans: Sequence[Fan]
    markets: Mapping[str, Seats]
    order: Callable[[Fan], float]
    wins_per_unit: int = 1
    waitlist: int | None = None
    strikes: frozenset[str] = frozenset()
    excluded: Mapping[str, int] = field(default_factory=dict)
    phase: int = 1
    before: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    seed_source: Mapping[str, Any] = field(
        default_factory=lambda: {"kind": "commit-reveal", "commitment": "c" * 64}
    )
    # ref -> (market, rank, outcome), filled by `draw`.
    result: dict[str, tuple[str, int, str]] = field(default_factory=dict)

    def draw(self) -> ReportFiles:
        """Allocate and write all files."""
        units: dict[str, float] = {}
        for fan in self.fans:
            number = self.order(fan)
            units[fan.household] = min(number, units.get(fan.household, number))
        candidates: list[Fan] = []
        members: dict[str, int] = {}
        for fan in sorted(self.fans, key=lambda fan: (units[fan.household], fan.household, fan.ref)):
            members[fan.household] = members.get(fan.household, 0) + 1
            if members[fan.household] <= self.wins_per_unit:
                candidates.append(fan)
        rank = {fan.ref: place for place, fan in enumerate(candidates, 1)}
        pinned = {
            ref: market
            for ref, (market, outcome) in self.before.items()
            if outcome == "WINNER" and ref not in self.strikes
        }
        waiting = [fan for fan in candidates if fan.ref not in self.strikes and fan.ref not in pinned]
        offered = {
            market: seats.capacity - sum(1 for taken in pinned.values() if taken == market)
            for market, seats in self.markets.items()
        }
        held = self._deferred_acceptance(waiting, rank, offered)
        won = {**pinned, **{ref: market for market, refs in held.items() for ref in refs}}
        left = 0
        for fan in candidates:
            if fan.ref in self.strikes or fan.ref in won:
                continue
            left += 1
            waits = self.waitlist is None or left <= self.waitlist
            self.result[fan.ref] = ("", rank[fan.ref], "WAITLIST" if waits else "UNSELECTED")
        for fan in self.fans:
            if fan.ref in self.strikes:
                self.result[fan.ref] = ("", rank.get(fan.ref, 0), "STRUCK")
            elif fan.ref in won:
                self.result[fan.ref] = (won[fan.ref], rank[fan.ref], "WINNER")
            else:
                self.result.setdefault(fan.ref, ("", 0, "HOUSEHOLD_LIMIT"))
        return self._write(held, rank, offered)

    def _deferred_acceptance(
        self, waiting: Sequence[Fan], rank: Mapping[str, int], offered: Mapping[str, int]
    ) -> dict[str, list[str]]:
        fans = {fan.ref: fan for fan in waiting}
        held: dict[str, list[str]] = {market: [] for market in self.markets}
        next_choice = {fan.ref: 0 for fan in waiting}
        free = list(reversed(waiting))
        while free:
            fan = free.pop()
            while next_choice[fan.ref] < len(fan.preferences):
                market = fan.preferences[next_choice[fan.ref]]
                next_choice[fan.ref] += 1
                reserves = self.markets[market].reserves
                if not reserves and len(held[market]) >= offered[market]:
                    # Fans come in rank order, so a later one never displaces an earlier one here.
                    continue
                applicants = [*held[market], fan.ref]
                if not reserves:
                    held[market] = applicants
                    break
                chosen = self._choose(market, applicants, fans, rank, offered[market])
                held[market] = [ref for refs in chosen.values() for ref in refs]
                free.extend(fans[ref] for ref in applicants if ref not in held[market] and ref != fan.ref)
                if fan.ref in held[market]:
                    break
        return held

    def _choose(
        self,
        market: str,
        applicants: Sequence[str],
        fans: Mapping[str, Fan],
        rank: Mapping[str, int],
        offered: int,
    ) -> dict[str | None, list[str]]:
        left = sorted(applicants, key=rank.__getitem__)
        chosen: dict[str | None, list[str]] = {}
        for segment, seats in self.markets[market].reserves:
            chosen[segment] = [ref for ref in left if segment in fans[ref].segments][:seats]
            left = [ref for ref in left if ref not in chosen[segment]]
        chosen[None] = left[: offered - sum(map(len, chosen.values()))]
        return chosen

    def _write(
        self, held: Mapping[str, list[str]], rank: Mapping[str, int], offered: Mapping[str, int]
    ) -> ReportFiles:
        fans = {fan.ref: fan for fan in self.fans}
        cutoffs: dict[str, Any] = {}
        for market, seats in self.markets.items():
            chosen = self._choose(market, held[market], fans, rank, offered[market])
            reserved = [(segment, chosen[segment], limit) for segment, limit in seats.reserves]
            open_seats = offered[market] - sum(len(refs) for _, refs, _ in reserved)
            cutoffs[market] = {
                "open": _cutoff(chosen[None], open_seats, rank),
                "reserves": [
                    {"segment": segment, "cutoff": _cutoff(refs, limit, rank)}
                    for segment, refs, limit in reserved
                ],
            }
        self.folder.mkdir(parents=True, exist_ok=True)
        self._json("cutoffs.json", {"markets": cutoffs})
        self._json(
            "summary.json", {"manifestHash": "a" * 64, "resultHash": "b" * 64, "cutoffsHash": "d" * 64}
        )
        self._json("manifest.json", self.manifest())
        self._tables()
        pool, exclusions, outcomes = (
            self.folder / f"{name}.parquet" for name in ("pool", "exclusions", "outcomes")
        )
        return ReportFiles(self.folder, pool, exclusions, outcomes)

    def manifest(self) -> dict[str, Any]:
        return {
            "algorithm": "vf1",
            "asOf": "2026-03-20T00:00:00.000Z",
            "campaignId": "spring",
            "count": len(self.fans),
            "drawId": "spring",
            "markets": [
                {
                    "marketId": market,
                    "capacity": seats.capacity,
                    "reserves": [{"segment": segment, "seats": limit} for segment, limit in seats.reserves],
                }
                for market, seats in sorted(self.markets.items())
            ],
            "phase": self.phase,
            "previous": None if self.phase == 1 else {"manifestHash": "e" * 64, "resultHash": "f" * 64},
            "root": "0" * 64,
            "seedSource": dict(self.seed_source),
            "strikesHash": "1" * 64,
            "waitlistSize": self.waitlist,
            "winsPerUnit": self.wins_per_unit,
        }

    def _json(self, name: str, document: Mapping[str, Any]) -> None:
        (self.folder / name).write_bytes(orjson.dumps(document, option=orjson.OPT_SORT_KEYS))

    def _tables(self) -> None:
        pool = [
            {
                "ref": fan.ref,
                "unit": fan.household,
                "weight": fan.weight,
                "segments": list(fan.segments),
                "preferences": list(fan.preferences),
                "entry_id": fan.entry_id,
                "created_at": f"{fan.created:%Y-%m-%dT%H:%M:%S}.000Z",
                "mail_domain": fan.domain,
            }
            for fan in self.fans
        ]
        texts = pa.list_(pa.string())
        schema = pa.schema(
            [("ref", pa.string()), ("unit", pa.string()), ("weight", pa.int32()), ("segments", texts),
             ("preferences", texts), ("entry_id", pa.string()), ("created_at", pa.string()),
             ("mail_domain", pa.string())]
        )  # fmt: skip
        pq.write_table(pa.Table.from_pylist(pool, schema=schema), self.folder / "pool.parquet")
        outcomes = []
        for fan in sorted(self.fans, key=lambda fan: fan.ref):
            market, rank, outcome = self.result[fan.ref]
            previous_market, previous = self.before.get(fan.ref, ("", ""))
            outcomes.append(
                {"ref": fan.ref, "entry_id": fan.entry_id, "market": market, "rank": rank, "outcome": outcome,
                 "previous": previous, "previous_market": previous_market}
            )  # fmt: skip
        columns = ("ref", "entry_id", "market", "rank", "outcome", "previous", "previous_market")
        schema = pa.schema([(name, pa.int32() if name == "rank" else pa.string()) for name in columns])
        pq.write_table(pa.Table.from_pylist(outcomes, schema=schema), self.folder / "outcomes.parquet")
        excluded = [
            {"entry_id": f"x-{reason}-{n}", "ref": f"x{n}", "reason": reason}
            for reason, count in self.excluded.items()
            for n in range(count)
        ]
        schema = pa.schema([("entry_id", pa.string()), ("ref", pa.string()), ("reason", pa.string())])
        pq.write_table(pa.Table.from_pylist(excluded, schema=schema), self.folder / "exclusions.parquet")

    def next_phase(self, folder: Path, markets: Mapping[str, Seats], strikes: frozenset[str]) -> World:
        """A top-up of this drawn world, with the same order."""
        before = {ref: (market, outcome) for ref, (market, _, outcome) in self.result.items()}
        return replace(
            self,
            folder=folder,
            markets=markets,
            strikes=strikes,
            phase=self.phase + 1,
            before=before,
            result={},
        )


def _cutoff(refs: Sequence[str], seats: int, rank: Mapping[str, int]) -> dict[str, Any] | None:
    if len(refs) < seats:
        return None
    worst = max((rank[ref] for ref in refs), default=0)
    return {"rank": worst, "key": "0" * 64, "entryKey": "0" * 64}


def fans(count: int, rng: random.Random, markets: Sequence[str] = ("north",), choices: int = 1) -> list[Fan]:
    """Registered evenly over two weeks, ids in the order of registration, refs random."""
    made = []
    for n in range(count):
        made.append(
            Fan(
                ref=f"{rng.getrandbits(128):032x}",
                entry_id=f"entry-{n:06d}",
                created=OPENED + timedelta(days=DAYS * n / count),
                domain=rng.choice(DOMAINS),
                preferences=tuple(rng.sample(list(markets), min(choices, len(markets)))),
            )
        )
    return made


def by_lot(seed: int) -> Callable[[Fan], float]:
    """A fair order: the least of the fan's tickets, the same for a whole unit."""

    def number(fan: Fan) -> float:
        lot = random.Random(f"{seed}-{fan.household}")
        return min(lot.random() for _ in range(fan.weight))

    return number
