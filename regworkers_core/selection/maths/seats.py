"""Who gets which seat: candidates in rank order, each proposing to markets in the order of preference.

One procedure for both ways of allocation. A market's seats are groups: its reserves in precedence order, then
the open seats (seats offered minus those that reserves have taken). A group keeps its best-ranked applicants;
whom it turns away asks the next group of the market, and after the last one the next market. Because an
applicant joins one group and displaces at most one other, going from group to group comes to the same as
choosing anew among all applicants. Where nobody is displaced, which is so without reserves, this is serial
dictatorship.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from regworkers_core.selection.maths.wishes import Wishes

# Looked at together: among more, too many would be tried for seats that went within the batch.
_MOST_ROWS = 20_000


@dataclass(slots=True)
class Group:
    """Seats with one rule. `held` is a heap of negative ranks: the worst admitted is on top."""

    seats: int
    segment: int | None = None
    held: list[int] = field(default_factory=list)

    @property
    def full(self) -> bool:
        return len(self.held) >= self.seats

    @property
    def cutoff_rank(self) -> int | None:
        """The rank of the worst admitted; None when there is room, 0 when there are no seats."""
        if not self.full:
            return None
        return -self.held[0] if self.seats else 0

    def offer(self, rank: int) -> int:
        """Take `rank` if there is room or a worse one; returns who is turned away, 0 for nobody."""
        if len(self.held) < self.seats:
            heapq.heappush(self.held, -rank)
            return 0
        return -heapq.heappushpop(self.held, -rank) if self.seats else rank


class MarketGroups:
    """`reserves` in precedence order; `open.seats` shrinks as reserves fill."""

    __slots__ = ("open", "reserves")

    def __init__(self, offered: int, reserves: Sequence[tuple[int, int]]) -> None:
        """`reserves`: (index of the segment among those of `Wishes`, seats)."""
        self.reserves = [Group(seats, segment) for segment, seats in reserves]
        self.open = Group(offered)

    @property
    def groups(self) -> Iterator[Group]:
        yield from self.reserves
        yield self.open


class Allocation:
    """`candidates`: line numbers (from 0) in rank order, so that the first has rank 1. `free`: by rank, who takes
    part: neither struck nor pinned. After `run` the groups of `markets` hold the ranks of the winners.

    Time: about a microsecond for a candidate who may find a seat; the others are left out many at a time.
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
        self._with_reserves = any(market.reserves for market in markets)
        # By rank: how many preferences have been asked, for those who may be displaced.
        self._asked = array("H", bytes(2 * len(candidates) if self._with_reserves else 0))

    def run(self) -> None:
        for start in range(0, len(self._candidates), self._rows):
            if all(group.full for market in self._markets for group in market.groups):
                break
            places = start + np.flatnonzero(self._free[start : start + self._rows])
            for rank, wanted in self._hopeful(places):
                self._place(rank, wanted)

    def _place(self, rank: int, wanted: list[int]) -> None:
        """Let `rank` ask for a seat, then whoever was turned away for it, and so on."""
        asked = 0
        while True:
            away = rank
            while away == rank and asked < len(wanted):
                away = self._choose(self._markets[wanted[asked]], rank)
                asked += 1
            if self._with_reserves:
                self._asked[rank - 1] = asked
            if away in (0, rank):
                return
            rank, asked = away, self._asked[away - 1]
            wanted = self._wishes.markets(int(self._candidates[rank - 1]))

    def _choose(self, market: MarketGroups, rank: int) -> int:
        """Let `rank` apply to a market; returns who is turned away in the end, 0 for nobody."""
        for group in market.reserves:
            if self._entitled(rank, group):
                rank = group.offer(rank)
                if not rank:
                    return self._give_up_open_seat(market.open)
        return market.open.offer(rank)

    def _entitled(self, rank: int, group: Group) -> bool:
        rights = self._wishes.rights[self._candidates[rank - 1]]
        return bool(self._wishes.members[rights, group.segment])

    @staticmethod
    def _give_up_open_seat(group: Group) -> int:
        """A reserve took one more of the market's seats."""
        group.seats -= 1
        return -heapq.heappop(group.held) if len(group.held) > group.seats else 0

    def _hopeful(self, places: npt.NDArray[np.int64]) -> Iterator[tuple[int, list[int]]]:
        """Who of these may find a seat, being worse-ranked than all before, with the markets wanted: there is an
        open seat in one of them, or one in a reserve of theirs. What is full never has room again.
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
