"""What a contestant is, and what one timed round of it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from benchmarks.replication.counting import CallCounter
from benchmarks.replication.data import Item


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds from the stream to the queue, and from the queue to replica, event and cleared flag."""

    enqueue: float
    save: float

    @property
    def total(self) -> float:
        return self.enqueue + self.save


class Contestant(Protocol):
    name: str
    counter: CallCounter

    def load(self, items: Sequence[Item]) -> None:
        """Write the entries of one round; not timed."""
        ...

    def run(self) -> Timed:
        """Replicate what was loaded."""
        ...
