"""What must hold whatever happens, as functions that can be turned against a broken variant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Tracker(Protocol):
    checkpoint: str | None

    def read(self, sequence: str) -> bool: ...

    def acknowledge(self, sequence: str) -> None: ...


def checkpoint_violations(tracker: Tracker, read: Sequence[str], acknowledged: Sequence[str]) -> list[str]:
    """Feed a tracker and tell each moment at which its checkpoint lay beyond a record that was still open,
    or went backwards.
    """
    found = []
    for sequence in read:
        tracker.read(sequence)
    done: set[int] = set()
    before = -1
    for sequence in acknowledged:
        tracker.acknowledge(sequence)
        done.add(int(sequence))
        reached = -1 if tracker.checkpoint is None else int(tracker.checkpoint)
        skipped = [number for number in read if int(number) <= reached and int(number) not in done]
        if skipped:
            found.append(f"at {reached}: {skipped} are open")
        if reached < before:
            found.append(f"from {before} back to {reached}")
        before = reached
    return found
