"""Small drawn campaigns as files, drawn by the oracle: the order may be as unfair as a test wants."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from fairdraw.maths import plain
from fairdraw.maths.leaves import Leaf
from fairdraw.maths.manifest import strikes_bytes
from fairdraw.terms import ALGORITHM, QUICKNET_HASH
from regworkers_core.selection.report.inputs import ReportFiles
from tests.fairdraw.maths import oracle

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
    voucher: str | None = None

    @property
    def household(self) -> str:
        return self.unit or self.ref


@dataclass(frozen=True, slots=True)
class Seats:
    """Seats of a market; reserves, and those for later phases, as (segment, seats) in precedence order."""

    capacity: int
    reserves: tuple[tuple[str, int], ...] = ()
    later: tuple[tuple[str, int], ...] = ()


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
    # The folders of the phases before.
    earlier: tuple[Path, ...] = ()
    seed_source: Mapping[str, Any] = field(
        default_factory=lambda: {"kind": "drand", "chain": QUICKNET_HASH, "round": 1000}
    )
    # ref -> (market, rank, outcome), filled by `draw`.
    result: dict[str, tuple[str, int, str]] = field(default_factory=dict)

    def draw(self) -> ReportFiles:
        """Allocate and write all files."""
        leaves = [
            (fan.ref, fan.household, fan.weight, fan.segments, fan.preferences)
            for fan in sorted(self.fans, key=lambda fan: fan.ref)
        ]
        markets = [(market, seats.capacity, list(seats.reserves)) for market, seats in self.markets.items()]
        with patch.object(plain, "_candidates", self._candidates):
            drawn = oracle.draw(
                leaves,
                markets,
                "",
                "spring",
                wins_per_unit=self.wins_per_unit,
                waitlist_size=self.waitlist,
                strikes=dict.fromkeys(self.strikes, "BOT"),
                previous={ref: (market, 0, outcome) for ref, (market, outcome) in self.before.items()},
            )
        self.result = {ref: (at.market, at.rank, str(at.outcome)) for ref, at in drawn.outcomes.items()}
        return self._write(drawn.cutoffs)

    def _candidates(self, leaves: Sequence[Leaf], *_: object) -> list[plain._Candidate]:
        """In the order that the test wants: a unit goes by the first of its numbers."""
        units: dict[str, float] = {}
        for fan in self.fans:
            number = self.order(fan)
            units[fan.household] = min(number, units.get(fan.household, number))
        members: Counter[str] = Counter()
        found = []
        for place, leaf in enumerate(
            sorted(leaves, key=lambda leaf: (units[leaf.unit], leaf.unit, leaf.ref))
        ):
            members[leaf.unit] += 1
            if members[leaf.unit] <= self.wins_per_unit:
                key = place.to_bytes(32)
                found.append(plain._Candidate(key, leaf.unit, key, leaf))
        return found

    def _write(self, cutoffs: bytes) -> ReportFiles:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "cutoffs.json").write_bytes(cutoffs)
        self._json(
            "summary.json", {"manifestHash": "a" * 64, "resultHash": "b" * 64, "cutoffsHash": "d" * 64}
        )
        self._json("manifest.json", self.manifest())
        (self.folder / "strikes.txt").write_bytes(strikes_bytes(dict.fromkeys(self.strikes, "BOT")))
        lines = (
            f"{ref}|{market}|{rank or ''}|{outcome}\n" for ref, (market, rank, outcome) in self.result.items()
        )
        (self.folder / "result.txt").write_text("".join(sorted(lines)))
        self._tables()
        pool, exclusions, outcomes = (
            self.folder / f"{name}.parquet" for name in ("pool", "exclusions", "outcomes")
        )
        return ReportFiles(self.folder, pool, exclusions, outcomes, self.earlier)

    def manifest(self) -> dict[str, Any]:
        return {
            "algorithm": ALGORITHM,
            "asOf": "2026-03-20T00:00:00.000Z",
            "campaignId": "spring",
            "count": len(self.fans),
            "drawId": "spring",
            "markets": [
                {
                    "marketId": market,
                    "capacity": seats.capacity,
                    "reserves": [{"segment": name, "seats": limit} for name, limit in seats.reserves],
                    "laterReserves": [{"segment": name, "seats": limit} for name, limit in seats.later],
                }
                for market, seats in sorted(self.markets.items())
            ],
            "phase": self.phase,
            "previous": None if self.phase == 1 else {"manifestHash": "e" * 64, "resultHash": "f" * 64},
            "registrations": None,
            "root": "0" * 64,
            "seedSource": dict(self.seed_source),
            "strikesHash": "1" * 64,
            "strikesRoot": "2" * 64,
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
                "vouched_by": fan.voucher,
            }
            for fan in self.fans
        ]
        texts = pa.list_(pa.string())
        schema = pa.schema(
            [("ref", pa.string()), ("unit", pa.string()), ("weight", pa.int32()), ("segments", texts),
             ("preferences", texts), ("entry_id", pa.string()), ("created_at", pa.string()),
             ("mail_domain", pa.string()), ("vouched_by", pa.string())]
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
            earlier=(*self.earlier, self.folder),
            result={},
        )


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
