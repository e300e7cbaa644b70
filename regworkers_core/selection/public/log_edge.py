"""The end of the public log, as one call of its operator finds it: by its last tiles, however long the log is.

`facts/<SHA-256 of what a leaf says>` has the index of that leaf. It is written before the checkpoint covers the leaf,
so one read finds a published leaf, and no leaf is written twice. What was decided since is read entry by entry.
"""

from __future__ import annotations

from fairdraw.errors import DrawError
from fairdraw.log.leaves import CHECKPOINT, LogLeaf, key_leaf
from fairdraw.log.note import Checkpoint, Note, NoteError, VerifierKey
from fairdraw.log.tree import (
    WIDTH,
    GrowingTree,
    StoredTree,
    bundle_path,
    bundle_paths,
    read_bundle,
    root_over,
)
from fairdraw.maths.files import sha256_hex
from fairdraw.terms import seconds
from regworkers_core.adapters.aws.objects import ObjectStore
from regworkers_core.engine.stop import OnStep, no_step

FOLDER = "log/"


class _LogFiles:
    """The files of the log that never change, as one call reads and writes them: each once."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._known: dict[str, bytes] = {}

    def read(self, path: str) -> bytes | None:
        if path not in self._known:
            tagged = self._objects.get_tagged(FOLDER + path)
            if tagged is None:
                return None
            self._known[path] = tagged.data
        return self._known[path]

    def put_once(self, path: str, data: bytes) -> bytes:
        """Returns what is stored: these bytes, or earlier ones."""
        if path not in self._known:
            self._known[path] = self._objects.put_once(FOLDER + path, data)
        return self._known[path]


def fact_path(leaf: LogLeaf) -> str:
    return f"facts/{sha256_hex(leaf.fact)}"


class LogEdge:
    """What is published, and what was decided since. Every method raises TransientFailure, DrawError for files that are
    not those of a log.
    """

    def __init__(self, objects: ObjectStore, origin: str, note: Note | None, on_step: OnStep) -> None:
        """`note` is the published checkpoint, verified; None: there is none yet."""
        self._files, self.origin, self.note, self._on_step = _LogFiles(objects), origin, note, on_step
        checkpoint = Checkpoint(origin, 0, root_over([])) if note is None else Checkpoint.parse(note.text)
        self.published, self._root = checkpoint.size, checkpoint.root
        self._tree = GrowingTree.resume(self.published, self._files.read)
        if self._tree.root() != self._root:
            raise _wrong_root(self.published)
        self._later: list[LogLeaf] = []
        self._later_facts: dict[bytes, int] = {}
        self._has_facts = not self.published

    @classmethod
    def stored(cls, objects: ObjectStore) -> LogEdge:
        """The end of the log for those who trust the bucket: no key is read, no signature verified."""
        if (tagged := objects.get_tagged(FOLDER + CHECKPOINT)) is None:
            return cls(objects, "", None, no_step)
        try:
            note = Note.parse(tagged.data)
            return cls(objects, Checkpoint.parse(note.text).origin, note, no_step)
        except NoteError as error:
            raise DrawError(CHECKPOINT, str(error)) from None

    @property
    def size(self) -> int:
        return self._tree.size

    @property
    def checkpoint(self) -> Checkpoint:
        """The state that a checkpoint of all entries has, signed or not."""
        return Checkpoint(self.origin, self.size, self._tree.root())

    @property
    def tree(self) -> StoredTree:
        """The tree of all entries, whose tiles were put."""
        return StoredTree(self.size, self._files.read)

    def find(self, leaf: LogLeaf) -> int | None:
        """The index of the leaf that says the same, among those that are published or were read since."""
        if (index := self._later_facts.get(leaf.fact)) is not None:
            return index
        path = fact_path(leaf)
        if (data := self._files.read(path)) is None:
            return None
        index = int(data) if data.isdigit() else -1
        if index >= self.published:
            # Its writer died before the checkpoint covered it, or is about to write that.
            return None
        if index < 0 or self.leaf(index).fact != leaf.fact:
            raise DrawError(path, "does not name the entry that says this: find out who wrote it")
        return index

    def leaf(self, index: int) -> LogLeaf:
        if index >= self.published:
            return self._later[index - self.published]
        path = bundle_path(min((index // WIDTH + 1) * WIDTH, self.published))
        return LogLeaf.parse(self._bundle(path)[index % WIDTH], f"entry {index}")

    def changed_at(self, key: VerifierKey) -> float | None:
        """When `key` replaced another one; None for the log's first key."""
        self._ensure_facts()
        index = self.find(key_leaf(key, 0.0))
        return None if index is None else seconds(self.leaf(index).time)

    # What was decided

    def read_waiting(self) -> None:
        """Read everything that was decided."""
        while (stored := self._files.read(path := bundle_path(self.size + 1))) is not None:
            self._continue(path, stored)

    def decide(self, leaf: LogLeaf) -> int:
        """The index of the leaf, which comes next unless the log has it."""
        self._ensure_facts()
        index = self.find(leaf)
        while index is None:
            path, data = self._tree.next_bundle(leaf.to_bytes())
            self._continue(path, self._files.put_once(path, data))
            self._on_step("log.after_bundle")
            index = self._later_facts.get(leaf.fact)
        return index

    def _continue(self, path: str, stored: bytes) -> None:
        """Append the last entry of a stored bundle, ours or another writer's."""
        entry = read_bundle(stored, path)[-1]
        leaf = LogLeaf.parse(entry, path)
        if self._tree.next_bundle(entry).data != stored:
            raise DrawError(path, "does not continue the log: find out who wrote it")
        self._later_facts.setdefault(leaf.fact, self.size)
        self._later.append(leaf)
        self._tree.append(entry)

    # Files before the checkpoint

    def put_tiles(self) -> None:
        for path, data in [*self._tree.full(), *self._tree.partial(self.published)]:
            if self._files.put_once(path, data) != data:
                raise DrawError(path, "has other hashes than the entries: find out who wrote it")
        self._on_step("log.after_tiles")

    def put_facts(self) -> None:
        self._ensure_facts()
        for index, leaf in enumerate(self._later, self.published):
            self._put_fact(fact_path(leaf), index)
        self._on_step("log.after_facts")

    def _put_fact(self, path: str, index: int) -> None:
        # The first entry that says it counts.
        self._files.put_once(path, b"%d" % index)

    def _ensure_facts(self) -> None:
        """Write the facts of all published leaves unless the last one has its fact: a version of this program that knew
        no facts wrote it.
        """
        if not self._has_facts and self._files.read(fact_path(self.leaf(self.published - 1))) is None:
            tree, facts = GrowingTree(), []
            for path in bundle_paths(self.published):
                for entry in self._bundle(path):
                    tree.append(entry)
                    facts.append(fact_path(LogLeaf.parse(entry, path)))
            if tree.root() != self._root:
                raise _wrong_root(self.published)
            for index, fact in enumerate(facts):
                self._put_fact(fact, index)
        self._has_facts = True

    def _bundle(self, path: str) -> list[bytes]:
        if (data := self._files.read(path)) is None:
            raise DrawError(path, "is missing, and the checkpoint has its entries")
        return read_bundle(data, path)


def _wrong_root(size: int) -> DrawError:
    return DrawError(CHECKPOINT, f"its root is not that of the {size} entries")
