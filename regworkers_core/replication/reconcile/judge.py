"""From pairs that differed to differences for certain: the recheck by generation.

What could be lag is read again after the lag objective; it is a difference only if the source stayed the
same for that long and the replica still does not agree. What healed is dropped, what changed again gets
another generation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from regworkers_core.replication.reconcile.classify import Kind, classify, could_be_lag, is_confirmed
from regworkers_core.replication.reconcile.compare import Comparison, Difference, Step
from regworkers_core.replication.reconcile.scan import Tick
from regworkers_core.replication.reconcile.sides import Sides

_REFUSABLE = (Kind.MISSING, Kind.STALE, Kind.RESURRECTED)


class Judge:
    """`clock` in epoch seconds, as `updatedAt` is."""

    def __init__(
        self,
        comparison: Comparison,
        sides: Sides,
        *,
        lag_objective_seconds: float,
        clock: Callable[[], float],
        sleep: Callable[[float], object],
        tick: Tick,
    ) -> None:
        self._comparison, self._sides = comparison, sides
        self._objective = lag_objective_seconds
        self._clock, self._sleep, self._tick = clock, sleep, tick

    def first_look(self, replica_read_at: float) -> None:
        """Settle what cannot be lag, leave the rest open. The replica was read from `replica_read_at` on."""
        for page in self._comparison.pages(Step.FOUND):
            looked = []
            for difference in page:
                open_ = could_be_lag(
                    *difference.pair,
                    replica_read_at=replica_read_at,
                    lag_objective_seconds=self._objective,
                )
                step = Step.OPEN if open_ else Step.SETTLED
                looked.append(replace(difference, step=step, kind=classify(*difference.pair)))
            self._comparison.put(self.with_rejected(looked))

    def recheck(self, source_read_at: float, generations: int) -> int:
        """Settle what is open; the whole source was read by `source_read_at`. What keeps changing for all
        `generations` becomes NOT_YET. Returns the number of generations it took.
        """
        for generation in range(generations):
            if not self._comparison.count(Step.OPEN):
                return generation
            self._pause(source_read_at + self._objective - self._clock())
            for page in self._comparison.pages(Step.OPEN):
                self._comparison.put(self.with_rejected(self._look_again(page, source_read_at)))
                self._tick(len(page))
            source_read_at = self._clock()
        self._comparison.settle_open(Kind.NOT_YET)
        return generations

    def _look_again(self, page: list[Difference], source_read_at: float) -> list[Difference]:
        fresh = self._sides.read([difference.key for difference in page])
        now = self._clock()
        looked = []
        for before in page:
            pair = fresh[before.key]
            kind = classify(*pair)
            certain = kind is None or is_confirmed(
                before.pair.source, *pair, source_read_at=source_read_at, now=now
            )
            step = Step.SETTLED if certain else Step.OPEN
            looked.append(replace(before, pair=pair, kind=kind, step=step))
        return looked

    def with_rejected(self, looked: Iterable[Difference]) -> list[Difference]:
        """The same, REJECTED where the source's very state has an open dead letter."""
        differences = list(looked)
        refused = self._sides.refused(
            difference.pair.source
            for difference in differences
            if difference.step is Step.SETTLED and difference.kind in _REFUSABLE
        )
        return [
            replace(difference, kind=Kind.REJECTED) if difference.key in refused else difference
            for difference in differences
        ]

    def _pause(self, seconds: float) -> None:
        if seconds > 0:
            self._sleep(seconds)
