"""Allocation: from the order of the draw to a seat, or none, for every leaf.

Candidates propose in rank order, each to markets in the order of preference. A market's seats are groups: its reserves
in order of precedence, then the open seats (seats offered minus those that reserves have taken). A group keeps its
best-ranked applicants; a rejected one asks the next group of the market, and after the last group the next market. An
applicant joins one group and displaces at most one other, so this has the same result as choosing again among all
applicants. Without reserves no applicant is displaced, and it is serial dictatorship.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fairdraw.errors import DrawError
from fairdraw.large.engine import Engine
from fairdraw.large.outcomes import LeafIdentity, Outcomes
from fairdraw.large.rank import RANKED, Ranked, check_weights, rank_leaves
from fairdraw.large.wishes import Wishes
from fairdraw.maths.files import CUTOFFS, LEAVES, RESULT, SUMMARY, canonical_bytes, scratch_folder, sha256_hex
from fairdraw.maths.manifest import Manifest
from fairdraw.maths.merkle import root_of
from fairdraw.maths.phase import MarketCounts, Phase, Summary, seats_offered
from fairdraw.maths.rules import (
    NO_SEATS,
    Cutoff,
    MarketCutoffs,
    cutoffs_document,
    entry_key,
    unit_key,
)

# Candidates that are filtered together: in a larger batch, too many would be tried for seats taken within it.
_MOST_ROWS = 20_000


@dataclass(slots=True)
class Group:
    """Seats with one rule. `held` is a heap of negative ranks: the worst-ranked holder is on top."""

    seats: int
    segment: int | None = None
    held: list[int] = field(default_factory=list)

    @property
    def full(self) -> bool:
        return len(self.held) >= self.seats

    @property
    def cutoff_rank(self) -> int | None:
        """The rank of the worst-ranked holder; None when there is room, 0 when there are no seats."""
        if not self.full:
            return None
        return -self.held[0] if self.seats else 0

    def offer(self, rank: int) -> int:
        """Take `rank` if there is room or a worse-ranked holder. Returns the rank that is rejected, 0 for none."""
        if len(self.held) < self.seats:
            heapq.heappush(self.held, -rank)
            return 0
        return -heapq.heappushpop(self.held, -rank) if self.seats else rank


class MarketGroups:
    """The groups of a market, reserves in order of precedence; `open.seats` shrinks as reserves fill."""

    __slots__ = ("open", "reserves")

    def __init__(self, offered: int, reserves: Sequence[tuple[int, int]]) -> None:
        """`reserves` are (index of the segment in `Wishes.segments`, seats)."""
        self.reserves = [Group(seats, segment) for segment, seats in reserves]
        self.open = Group(offered)

    @property
    def groups(self) -> Iterator[Group]:
        yield from self.reserves
        yield self.open


class Allocation:
    """The proposals of all candidates. After `run` the groups of `markets` hold the ranks of the winners.

    `candidates` are line numbers (from 0) in rank order, so the first has rank 1; `free` says by rank who takes part:
    neither struck nor a winner of an earlier phase. A candidate who may find a seat takes about a microsecond; the
    others are skipped in batches.
    """

    def __init__(
        self,
        markets: Sequence[MarketGroups],
        wishes: Wishes,
        candidates: npt.NDArray[np.int32],
        free: npt.NDArray[np.bool_],
        batch_rows: int,
    ) -> None:
        self._markets, self._wishes = markets, wishes
        self._candidates, self._free = candidates, free
        self._rows = min(batch_rows, _MOST_ROWS)
        # They are sets, because one value of an array costs several times as much.
        self._segments = [frozenset(np.flatnonzero(row).tolist()) for row in wishes.members]
        self._with_reserves = any(market.reserves for market in markets)
        # How many preferences have been asked, by rank, in case the candidate is displaced.
        self._asked = array("H", bytes(2 * len(candidates) if self._with_reserves else 0))

    def run(self) -> None:
        for start in range(0, len(self._candidates), self._rows):
            if all(group.full for market in self._markets for group in market.groups):
                break
            places = start + np.flatnonzero(self._free[start : start + self._rows])
            for rank, wanted in self._hopeful(places):
                self._place(rank, wanted)

    def _place(self, rank: int, wanted: list[int]) -> None:
        """Let `rank` ask for a seat, then the candidate that it displaced, and so on."""
        asked = 0
        while True:
            rejected = rank
            while rejected == rank and asked < len(wanted):
                rejected = self._choose(self._markets[wanted[asked]], rank)
                asked += 1
            if self._with_reserves:
                self._asked[rank - 1] = asked
            if rejected in (0, rank):
                return
            rank, asked = rejected, self._asked[rejected - 1]
            wanted = self._wishes.markets(int(self._candidates[rank - 1]))

    def _choose(self, market: MarketGroups, rank: int) -> int:
        """Let `rank` apply to a market. Returns the rank that is rejected in the end, 0 for none."""
        asking, entitled = 0, frozenset[int]()
        for group in market.reserves:
            if rank != asking:
                asking = rank
                entitled = self._segments[self._wishes.rights[self._candidates[rank - 1]]]
            if group.segment in entitled:
                rank = group.offer(rank)
                if not rank:
                    return self._give_up_open_seat(market.open)
        return market.open.offer(rank)

    @staticmethod
    def _give_up_open_seat(group: Group) -> int:
        """Account for one more of the market's seats in a reserve. Returns the rank that loses an open seat, or 0."""
        group.seats -= 1
        return -heapq.heappop(group.held) if len(group.held) > group.seats else 0

    def _hopeful(self, places: npt.NDArray[np.int64]) -> Iterator[tuple[int, list[int]]]:
        """Yield those of these candidates, worse-ranked than all before, who may find a seat, with their markets: one
        of them has an open seat, or one in a reserve for the candidate. A full group never has room again.
        """
        if not len(places):
            return
        positions, wishes = self._candidates[places], self._wishes
        lengths, wanted = wishes.of(positions)
        firsts = np.cumsum(lengths) - lengths
        room = np.array([not market.open.full for market in self._markets], np.bool_)[wanted]
        if self._with_reserves:
            kept = np.zeros((len(self._markets), len(wishes.segments)), np.bool_)
            for number, market in enumerate(self._markets):
                for group in market.reserves:
                    kept[number, group.segment] = not group.full
            rights = np.repeat(wishes.rights[positions], lengths)
            room |= (kept[wanted] & wishes.members[rights]).any(axis=1)
        hopeful = np.flatnonzero(np.logical_or.reduceat(room, firsts))
        flat = wanted.tolist()
        ends = (firsts + lengths)[hopeful].tolist()
        for rank, first, end in zip(
            (places[hopeful] + 1).tolist(), firsts[hopeful].tolist(), ends, strict=True
        ):
            yield rank, flat[first:end]


def allocate_seats(
    folder: Path, previous: Path | None, ranked: Path, out: Path, *, engine: Engine
) -> Summary:
    """Write result.txt, cutoffs.json, summary.json and outcomes.parquet (without entry ids) into `out`.

    `folder` holds leaves.txt, manifest.json, strikes.txt and seed.json; `previous` those of the phase before and its
    result.txt. `ranked` is the file that `rank_leaves` made from the same leaves and seed. Raises DrawError.
    """
    phase, order = Phase.read(folder, previous), Ranked.read(ranked)
    if len(order.order) != phase.manifest.count:
        raise DrawError(
            ranked.name, f"{len(order.order):,} leaves, the manifest counts {phase.manifest.count:,}"
        )
    return allocate_phase(phase, order, out, engine=engine)


def allocate_phase(phase: Phase, order: Ranked, out: Path, *, engine: Engine) -> Summary:
    """Do as `allocate_seats`, from inputs in memory, whatever the source of the seed."""
    outcomes = Outcomes.before(phase.manifest, phase.folder / LEAVES, phase.previous)
    candidates = order.order[order.ranks > 0]
    with scratch_folder(engine.scratch) as scratch:
        markets = _seat(phase, outcomes, candidates, scratch, engine.batch_rows)
    for number, market in enumerate(markets):
        for group in market.groups:
            outcomes.win(number, candidates[np.array(group.held, np.int64) * -1 - 1])
    outcomes.close(candidates, phase.manifest.waitlist_size)
    del candidates
    return _write(phase, outcomes, order, markets, out)


def _seat(
    phase: Phase, outcomes: Outcomes, candidates: npt.NDArray[np.int32], scratch: Path, batch_rows: int
) -> list[MarketGroups]:
    """Apply the strikes, then allocate the seats of this phase. The wishes, which take most of the memory, are freed
    before the result is written.
    """
    manifest = phase.manifest
    segments = sorted({each.segment for market in manifest.markets for each in market.reserves})
    ids = [market.market_id for market in manifest.markets]
    leaves = phase.folder / LEAVES
    wishes = Wishes.read(leaves, manifest.count, ids, segments, tuple(phase.strikes), scratch)
    outcomes.strike(wishes.struck, phase.strikes, phase.unclaimed)
    markets = _offered(manifest, outcomes.pin(), segments)
    Allocation(markets, wishes, candidates, outcomes.undecided(candidates), batch_rows).run()
    return markets


def _offered(manifest: Manifest, pinned: Sequence[int], segments: Sequence[str]) -> list[MarketGroups]:
    """The groups of seats of this phase, by market."""
    offered = seats_offered(manifest, pinned)
    return [
        MarketGroups(
            offered[market.market_id],
            [(segments.index(reserve.segment), reserve.seats) for reserve in market.reserves],
        )
        for market in manifest.markets
    ]


def _write(
    phase: Phase, outcomes: Outcomes, order: Ranked, markets: Sequence[MarketGroups], out: Path
) -> Summary:
    out.mkdir(parents=True, exist_ok=True)
    ranks = np.zeros(len(order.order), np.int32)
    ranks[order.order] = order.ranks
    worst = {rank for market in markets for group in market.groups if (rank := group.cutoff_rank)}
    result_hash, identities = outcomes.write(phase.folder / LEAVES, out, ranks, worst)
    cutoffs = canonical_bytes(cutoffs_document(_cutoffs(phase, markets, identities)))
    (out / CUTOFFS).write_bytes(cutoffs)
    counts = zip(phase.manifest.markets, outcomes.new_winners(), outcomes.winners(), strict=True)
    summary = Summary(
        manifest_hash=phase.manifest.hash,
        result_hash=result_hash,
        result_root=root_of(out / RESULT).root,
        cutoffs_hash=sha256_hex(cutoffs),
        outcomes=outcomes.counts(),
        markets={market.market_id: MarketCounts(new, winners) for market, new, winners in counts},
    )
    (out / SUMMARY).write_bytes(summary.to_bytes())
    return summary


def _cutoffs(
    phase: Phase, markets: Sequence[MarketGroups], worst: Mapping[int, LeafIdentity]
) -> dict[str, MarketCutoffs]:
    """Return the cut-offs of every market. Keys are made only for the worst-ranked winner of a full group."""
    seed, draw_id = phase.seed.seed, phase.manifest.draw_id
    made = {0: NO_SEATS}
    for rank, (ref, unit, weight) in worst.items():
        made[rank] = Cutoff(rank, unit_key(seed, draw_id, unit, weight), entry_key(seed, ref))

    def cutoff(group: Group) -> Cutoff | None:
        return None if group.cutoff_rank is None else made[group.cutoff_rank]

    return {
        terms.market_id: MarketCutoffs(
            cutoff(market.open),
            tuple(
                (reserve.segment, cutoff(group))
                for reserve, group in zip(terms.reserves, market.reserves, strict=True)
            ),
        )
        for terms, market in zip(phase.manifest.markets, markets, strict=True)
    }


def compute(folder: Path, previous: Path | None, out: Path, *, engine: Engine) -> Summary:
    """Rank and allocate one phase: result.txt, cutoffs.json, summary.json and outcomes.parquet into `out`. Raises
    DrawError.
    """
    with scratch_folder(engine.scratch) as scratch:
        rank_leaves(folder, scratch / RANKED, engine=engine)
        return allocate_seats(folder, previous, scratch / RANKED, out, engine=engine)


class LargeEngine(Engine):
    """Draws of many millions of entries, as `proof.verify` replays them."""

    __slots__ = ()

    def require(self, count: int) -> None:
        """Takes every draw."""

    def check_weights(self, leaves: Path, count: int) -> None:
        """See `rank.check_weights`."""
        check_weights(leaves, count, self)

    def compute(self, folder: Path, previous: Path | None, out: Path) -> Summary:
        """See `compute`."""
        return compute(folder, previous, out, engine=self)
