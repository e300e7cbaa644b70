"""Leaves of the log, each one fact about a draw, and a log as it is read: entries under a signed checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from math import inf
from typing import ClassVar, NamedTuple, Self

from fairdraw.errors import DrawError
from fairdraw.log import tree
from fairdraw.log.note import Checkpoint, Note, NoteError, VerifierKey
from fairdraw.log.place import Read
from fairdraw.log.trust import LogKeys, Quorum
from fairdraw.maths.files import Fields, JsonFile, sha256_hex
from fairdraw.maths.merkle import TreeHash, leaf_hash, levels_of, path_up
from fairdraw.terms import is_selection_id, iso, seconds

CHECKPOINT, KEYS = "checkpoint", "keys.json"
# The first checkpoint of each size, by its size and the key that signed it.
_KEPT = "checkpoints/"
# The former key signs so long beside the new one.
CHANGE_SECONDS = 30 * 86_400.0
# A leaf says at most so much later than its witnesses when it was decided: clocks differ.
_CLOCKS_SECONDS = 60.0
# A round is at most so long after its manifest was in the log: one of a far day is a draw that is withheld.
FAR_SECONDS = 7 * 86_400.0


class Kind(StrEnum):
    """What a leaf's hash is about: a record of the campaign, a file of a phase, the size of a tree of registrations, or
    a key of the log.
    """

    OPENED = "opened"
    AMENDED = "amended"
    MANIFEST = "manifest"
    REPLACED = "replaced"
    NOTICE = "notice"
    RESULT = "result"
    CODES = "codes"
    ANNULLED = "annulled"
    REGISTRATIONS = "registrations"
    KEY = "key"


# Leaves of these kinds belong to no phase: theirs is 0. That of an amendment is its number.
_NO_PHASE = frozenset({Kind.OPENED, Kind.REGISTRATIONS, Kind.KEY})


@dataclass(frozen=True, slots=True)
class LogLeaf(JsonFile):
    """One leaf."""

    FILE: ClassVar[str] = "leaf of the log"

    campaign_id: str
    # The SHA-256 of the file (of kind `result`: of summary.json), or of the key's text.
    hash: str
    kind: Kind
    phase: int
    # When it was decided.
    time: str

    @classmethod
    def read(cls, fields: Fields) -> Self:
        kind = Kind(fields.text("kind", set(Kind).__contains__, f"one of {', '.join(Kind)}"))
        if kind is Kind.KEY:
            fields.text("campaignId", lambda text: text == "", "no campaign")
        else:
            fields.text("campaignId", is_selection_id, "an id")
        phase = fields.integer("phase", 0 if kind in _NO_PHASE else 1)
        if phase and kind in _NO_PHASE:
            fields.refuse("phase", f"0 is needed for {kind}, found {phase}")
        return cls(fields.raw("campaignId"), fields.hash("hash"), kind, phase, fields.time("time"))

    @property
    def fact(self) -> bytes:
        """How the entry begins: all but the time. The log has it once, whatever the time of a repeat."""
        return self.to_bytes()[: -len(self.time) - 2]

    def says(self, kind: Kind, phase: int, hash_: str) -> bool:
        return (self.kind, self.phase, self.hash) == (kind, phase, hash_)


def kept_path(size: int, key: VerifierKey) -> str:
    return f"{_KEPT}{size}-{key.key_id.hex()}"


def key_leaf(key: VerifierKey, at: float) -> LogLeaf:
    return LogLeaf("", sha256_hex(str(key).encode()), Kind.KEY, 0, iso(at))


def verified_note(data: bytes, keys: Iterable[VerifierKey]) -> Note:
    """The signed checkpoint of a log. Raises DrawError unless it is one, signed by one of `keys`."""
    try:
        note = Note.parse(data)
        origin = Checkpoint.parse(note.text).origin
        # A key of another log proves nothing about this one.
        if not note.verified([key for key in keys if key.name == origin]):
            raise NoteError("it is signed by none of the log's keys")
    except NoteError as error:
        raise DrawError(CHECKPOINT, str(error)) from None
    return note


def kept_note(data: bytes, checkpoint: Checkpoint, key: VerifierKey) -> Note:
    """A checkpoint that was kept. Raises DrawError for one of another log, or without a signature by `key`."""
    path = kept_path(checkpoint.size, key)
    try:
        note = Note.parse(data)
        signed = note.verified([key])
    except NoteError as error:
        raise DrawError(path, str(error)) from None
    if not signed or note.text != checkpoint.text:
        raise DrawError(path, "is no checkpoint of these entries: find out who wrote it")
    return note


@dataclass(frozen=True)
class LogState:
    """The entries of a log, and its checkpoint, None for a log that does not exist yet. `verified` proves that both
    belong together; `leaf` reads an entry.
    """

    origin: str
    entries: tuple[bytes, ...] = ()
    note: Note | None = None

    @classmethod
    def verified(cls, read: Callable[[str], bytes | None], keys: Iterable[VerifierKey]) -> LogState:
        """Read a whole log by the paths of its files, and check everything: the signature of one of `keys`, that the
        entries have the checkpoint's root, that each is a leaf.

        Raises DrawError with the file that is wrong.
        """
        data = read(CHECKPOINT)
        if data is None:
            raise DrawError(CHECKPOINT, "there is none: this is no log, or it has no leaf yet")
        note = verified_note(data, keys)
        checkpoint = Checkpoint.parse(note.text)
        entries: list[bytes] = []
        for path in tree.bundle_paths(checkpoint.size):
            bundle = read(path)
            if bundle is None:
                raise DrawError(path, "is missing, and the checkpoint has its entries")
            entries += tree.read_bundle(bundle, path)
        state = cls(checkpoint.origin, tuple(entries), note)
        if (len(entries), tree.root_over(state.nodes)) != (checkpoint.size, checkpoint.root):
            raise DrawError(CHECKPOINT, f"its root is not that of the {checkpoint.size} entries")
        return state

    @property
    def size(self) -> int:
        return len(self.entries)

    @cached_property
    def nodes(self) -> list[bytes]:
        return [leaf_hash(entry) for entry in self.entries]

    def leaf(self, index: int) -> LogLeaf:
        """Raises DrawError for an entry that is no leaf."""
        return LogLeaf.parse(self.entries[index], f"entry {index}")

    @property
    def checkpoint(self) -> Checkpoint:
        """The state that a checkpoint of these entries has, signed or not."""
        return Checkpoint(self.origin, self.size, tree.root_over(self.nodes))

    def with_entry(self, entry: bytes) -> LogState:
        return LogState(self.origin, (*self.entries, entry), self.note)

    def of_campaign(self, campaign_id: str) -> list[tuple[int, LogLeaf]]:
        """Index and leaf of each leaf of a campaign (empty: of keys), in order. Raises DrawError."""
        begin = b'{"campaignId":"%s",' % campaign_id.encode()
        return [(at, self.leaf(at)) for at, entry in enumerate(self.entries) if entry.startswith(begin)]

    @cached_property
    def _roots(self) -> list[bytes]:
        """The root of the tree at each size."""
        growing = TreeHash()
        roots = [growing.root()]
        for node in self.nodes:
            growing.add(node)
            roots.append(growing.root())
        return roots

    @cached_property
    def _levels(self) -> list[list[bytes]]:
        return levels_of(self.nodes)

    def proof(self, index: int) -> list[str]:
        """The inclusion proof of a leaf, in hex."""
        return [node.hex() for node in path_up(index, self._levels)]

    def kept(self, data: bytes, size: int, key: VerifierKey) -> Note:
        """The checkpoint that was kept when the log had `size` leaves. Raises DrawError for one of another log, or
        without a signature by `key`.
        """
        return kept_note(data, Checkpoint(self.origin, size, self._roots[size]), key)


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
