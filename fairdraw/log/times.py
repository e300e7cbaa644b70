"""The time of a leaf: when enough witnesses had seen it in the log, by the checkpoints that were kept."""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from fairdraw.errors import DrawError
from fairdraw.log.keys import LogKeys, Quorum
from fairdraw.log.leaves import LogLeaf, LogState, kept_path
from fairdraw.log.note import Note, NoteError
from fairdraw.log.place import Read
from fairdraw.terms import seconds

# A leaf says at most so much later than its witnesses when it was decided: clocks differ.
_CLOCKS_SECONDS = 60.0
# A round is at most so long after its manifest was in the log: one of a far day is a draw that is withheld.
FAR_SECONDS = 7 * 86_400.0


class Kept(NamedTuple):
    """A checkpoint that was kept."""

    # The number of leaves at that time.
    size: int
    note: Note
    # When enough witnesses had cosigned it, in seconds since the epoch; minus infinity where none is needed.
    at: float


def cosigned_at(note: Note, quorum: Quorum) -> float:
    """When enough witnesses had cosigned; infinite if they have not. Raises NoteError for a wrong cosignature."""
    return quorum.met_at({each.key: float(each.at or 0) for each in note.verified(quorum.witnesses)})


def says_later(leaf: LogLeaf, at: float) -> bool:
    """Whether the leaf's own time is later than that at which witnesses had seen it."""
    return (seconds(leaf.time) or 0.0) > at + _CLOCKS_SECONDS


class LeafTimes:
    """The times of all leaves of a log. `read` gives the log's files. Each method raises DrawError for a kept
    checkpoint that is not one of these entries.
    """

    def __init__(self, state: LogState, keys: LogKeys, read: Read) -> None:
        self._state, self._keys, self._read = state, keys, read
        self._read_before: dict[int, Kept | None] = {}

    def kept(self, index: int) -> Kept | None:
        """The smallest checkpoint with the leaf that enough witnesses cosigned."""
        sizes = range(index + 1, self._state.size + 1)
        return next((kept for size in sizes if (kept := self._of_size(size)) is not None), None)

    def at(self, index: int) -> float | None:
        """The leaf's time in seconds since the epoch: its own where no witness is needed; None if it has none."""
        if not self._keys.quorum.need:
            return seconds(self._state.leaf(index).time)
        kept = self.kept(index)
        return None if kept is None else kept.at

    def _of_size(self, size: int) -> Kept | None:
        if size not in self._read_before:
            self._read_before[size] = self._read_kept(size)
        return self._read_before[size]

    def _read_kept(self, size: int) -> Kept | None:
        for key in self._keys.log:
            if (data := self._read(kept_path(size, key))) is None:
                continue
            note = self._state.kept(data, size, key)
            try:
                at = cosigned_at(note, self._keys.quorum)
            except NoteError as error:
                raise DrawError(kept_path(size, key), str(error)) from None
            if at < inf:
                return Kept(size, note, at)
        return None
