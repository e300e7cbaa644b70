"""How far a shard was worked off without a gap, whatever the order of the acknowledgements."""

from __future__ import annotations

from collections import deque


class ContiguousTracker:
    """Sequence numbers in the order in which they were read, and the highest one with no gap before it.

    Memory is bounded by what was read and is not yet behind the checkpoint. Not thread-safe.
    """

    def __init__(self, checkpoint: str | None = None) -> None:
        self.checkpoint = checkpoint
        self._reached = -1 if checkpoint is None else int(checkpoint)
        self._order: deque[str] = deque()
        self._open: set[str] = set()

    def __len__(self) -> int:
        """How many were read and are not behind the checkpoint."""
        return len(self._order)

    def read(self, sequence: str) -> bool:
        """A record was read; False if it is already being worked on."""
        if sequence in self._open:
            return False
        self._open.add(sequence)
        self._order.append(sequence)
        return True

    def acknowledge(self, sequence: str) -> None:
        """A record is done; one that is not open is ignored."""
        self._open.discard(sequence)
        while self._order and self._order[0] not in self._open:
            self._advance(self._order.popleft())

    def _advance(self, sequence: str) -> None:
        # As integers: the strings differ in length. Never backwards, should a service restart its numbers.
        if int(sequence) > self._reached:
            self._reached, self.checkpoint = int(sequence), sequence
