"""The tree of a campaign's registrations on the artefacts' bucket, below `registrations/<campaignId>/`.

A bundle of entries is put once under the tree's size before it. So the first writer decides what comes next, and every
other one goes on from there: nothing is lost or appended twice, whichever process dies. Full tiles follow, then the
checkpoint, under If-Match. Partial tiles are written only for the sizes that get a file in `sizes/`, whose hash is a
leaf of the public log: from the last of these sizes, and the bundles since, the tree goes on in the next process.

Nothing here waits for the log. A size whose leaf the log could not take is logged when it can.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile

import structlog

from fairdraw import scheduling
from fairdraw.errors import DrawError
from fairdraw.log.leaves import CHECKPOINT, Kind, LogLeaf
from fairdraw.log.record import OpenTime
from fairdraw.log.tree import GrowingTree, StoredTree, TreeFile, bundle_paths, read_bundle, write_bundle
from fairdraw.maths.registration import (
    Notice,
    NoticeKind,
    RegistrationSize,
    TreeState,
    size_name,
    tree_folder,
)
from regworkers_core.adapters.aws.objects import ObjectStore
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.deadline import Background
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.runtime import Runtime
from regworkers_core.selection.public.log_edge import LogEdge
from regworkers_core.selection.public.public_log import PublicLog

log = structlog.get_logger(__name__)
_RESTORE = "find out who wrote there, and restore the version that was (docs/runbooks/registrations.md)"
# These fill 270 KB.
MOST_ENTRIES = 4096
# A size is logged at most so often in the first and the last hour of registration, and otherwise.
_BUSY_SECONDS, _QUIET_SECONDS, _BUSY_HOURS_SECONDS = 60.0, 600.0, 3600.0
# A batch of the drain fills some sixteen tiles and bundles, each a call of tens of milliseconds.
_PUTS_AT_A_TIME = 8
# After the log could not take a leaf.
_AGAIN_SECONDS = 60.0
_EMPTY = GrowingTree().root().hex()
# What a leaf says does not depend on its time.
_NO_TIME = iso(0.0)


class OtherWriter(TransientFailure):
    """Another process appended to the tree: this one has lost its lease, and opens the tree again once it has it."""

    def __init__(self, campaign_id: str) -> None:
        super().__init__("s3", f"another process appended to the registrations of {campaign_id}")


@dataclass(frozen=True, slots=True)
class Bundle:
    """Entries that were decided: each is a leaf's hex text or a notice's text."""

    # The index of the first one.
    first: int
    entries: tuple[bytes, ...]

    @property
    def end(self) -> int:
        """The size of the tree with these entries."""
        return self.first + len(self.entries)


class Memory:
    """What a process keeps of a tree between two openings: the tree, its call that publishes the log, and which entries
    count no more, as far as they were read: notices, and registrations that ended. That is a byte for each entry.
    """

    def __init__(self) -> None:
        self.grown: GrowingTree | None = None
        # The witnesses of one log are asked for all campaigns at once.
        self.publishing = Background("publish the log")
        self._over = bytearray()

    @property
    def size(self) -> int:
        return len(self._over)

    def add(self, bundle: Bundle) -> None:
        """What comes next."""
        self._over += bytes(len(bundle.entries))
        for at, entry in enumerate(bundle.entries, bundle.first):
            if (notice := Notice.parse(entry)) is not None:
                self._over[at] = True
                self._over[notice.index] |= notice.kind is not NoticeKind.UNIT

    def counts(self, index: int) -> bool:
        return not self._over[index]


class RegistrationFiles:
    """The files of a campaign's tree, for everybody who reads them.

    Every method raises TransientFailure when S3 cannot answer, DrawError for a file that is missing or not what its
    name says.
    """

    def __init__(self, objects: ObjectStore, campaign_id: str) -> None:
        self._objects, self.campaign_id = objects, campaign_id
        self._folder = f"{tree_folder(campaign_id)}/"

    def read(self, path: str) -> bytes | None:
        """The bytes of a file by its path below the tree's folder; None if there is none."""
        tagged = self._objects.get_tagged(self._folder + path)
        return None if tagged is None else tagged.data

    def state(self) -> TreeState:
        """All that was appended; the empty tree before the first entry."""
        return self.state_of(self.read(CHECKPOINT))

    def has_bundles(self) -> bool:
        """Whether entries were decided, also before there is a checkpoint."""
        return self.read(_bundle_path(0)) is not None

    def tree(self, size: int) -> StoredTree:
        """The tree when it had one of its `sizes`, for proofs."""
        return StoredTree(size, self.read)

    def entries(self, size: int) -> Iterator[bytes]:
        """The entries of the tree when it had one of its `sizes`, in order, at constant memory."""
        for path in bundle_paths(size):
            if (data := self.read(path)) is None:
                raise self.missing(path, "the tree has its entries")
            yield from read_bundle(data, path)

    def made_at(self, size: int) -> float:
        """When a size got its file, in seconds since the epoch; 0: it has none, as the empty tree."""
        tagged = self._objects.get_tagged(self._folder + size_name(size)) if size else None
        return 0.0 if tagged is None else tagged.at

    def not_logged(self, state: TreeState) -> list[int]:
        """The sizes since the last one whose leaf is in the published log."""
        if not state.sizes:
            return []
        edge = LogEdge.stored(self._objects)
        lacking = takewhile(lambda size: edge.find(self.leaf(size)) is None, reversed(state.sizes))
        return sorted(lacking)

    def is_due(self, now: float, window: OpenTime) -> bool:
        """Whether the tree has entries for whose size the time has come; times in seconds since the epoch, `window` is
        when registration is open.
        """
        state = self.state()
        pause_seconds = _pause_seconds(now, window)
        return state.size != state.last_size and now - self.made_at(state.last_size) >= pause_seconds

    def leaf(self, size: int, at: str = _NO_TIME) -> LogLeaf:
        """The leaf of the public log about one of the `sizes`, decided at this time."""
        path = size_name(size)
        if (data := self.read(path)) is None:
            raise self.missing(path, "the checkpoint names it")
        return LogLeaf(
            self.campaign_id,
            RegistrationSize.parse(data, self._folder + path).hash,
            Kind.REGISTRATIONS,
            0,
            at,
        )

    def state_of(self, checkpoint: bytes | None) -> TreeState:
        """What the bytes of a checkpoint say; None: there is none yet."""
        if checkpoint is None:
            return TreeState(self.campaign_id, erased=0, withdrawn=0, notices=0, root=_EMPTY, size=0)
        state = TreeState.parse(checkpoint, self._folder + CHECKPOINT)
        if state.campaign_id != self.campaign_id:
            raise DrawError(self._folder + CHECKPOINT, f"is of the campaign {state.campaign_id}: {_RESTORE}")
        return state

    def missing(self, path: str, why: str) -> DrawError:
        """The error for a file by its path below the tree's folder."""
        return DrawError(self._folder + path, f"is missing, and {why}: {_RESTORE}")


class RegistrationLog:
    """The tree of one campaign for the process that appends to it, which holds the lease of the campaign's draw.

    First it does with `pending` what it would do with entries of its own, then `decide` and `advance` follow each
    other. Every method raises as `RegistrationFiles`, and OtherWriter; after that, and after any other exception, the
    tree is opened again.
    """

    def __init__(
        self,
        objects: ObjectStore,
        campaign_id: str,
        public: PublicLog,
        *,
        clock: Callable[[], float],
        on_step: OnStep = no_step,
        memory: Memory | None = None,
    ) -> None:
        self._objects, self._public, self._clock, self._on_step = objects, public, clock, on_step
        self.memory = memory or Memory()
        self.files = RegistrationFiles(objects, campaign_id)
        self._folder = f"{tree_folder(campaign_id)}/"
        tagged = objects.get_tagged(self._folder + CHECKPOINT)
        self._tag = None if tagged is None else tagged.tag
        self.state = self.files.state_of(None if tagged is None else tagged.data)
        grown = self.memory.grown
        self.grown = grown if grown is not None and self._is_stored(grown) else self._resumed()
        self.memory.grown = self.grown
        # When the last size got its file, and from when on the log is asked again, in seconds since the epoch.
        self._sized_at, self._again_at = self.files.made_at(self.state.last_size), 0.0
        # The log has the leaves of the sizes up to this one, and everybody can see those up to the second; None before
        # the log was asked.
        self._decided: int | None = None if self.state.sizes else 0
        self._published = self._decided

    @classmethod
    def open(
        cls, runtime: Runtime, campaign_id: str, on_step: OnStep = no_step, memory: Memory | None = None
    ) -> RegistrationLog:
        """The tree as it is stored. With the `memory` of an earlier opening it is not read again, unless another
        process appended meanwhile.
        """
        public, clock = PublicLog.of(runtime, on_step), runtime.clock
        return cls(runtime.objects, campaign_id, public, clock=clock, on_step=on_step, memory=memory)

    def _is_stored(self, tree: GrowingTree) -> bool:
        return (tree.size, tree.root().hex()) == (self.state.size, self.state.root)

    def _resumed(self) -> GrowingTree:
        """The tree by the files of its last size, and the bundles since."""
        try:
            tree = GrowingTree.resume(self.state.last_size, self.files.read)
        except DrawError as error:
            raise DrawError(self._folder + error.artefact, f"{error.message}: {_RESTORE}") from None
        for bundle in self.bundles(tree.size):
            for entry in bundle.entries:
                tree.append(entry)
            tree.full()
        if not self._is_stored(tree):
            raise DrawError(
                self._folder + CHECKPOINT,
                f"its root is not that of the {self.state.size} entries: {_RESTORE}",
            )
        return tree

    @property
    def size(self) -> int:
        return self.state.size

    @property
    def is_logged(self) -> bool:
        """Whether everybody can see its size in the log, as far as is known."""
        return self.size == self.state.last_size == self._published

    # Reading

    def bundles(self, first: int = 0) -> Iterator[Bundle]:
        """All entries from the first one of a bundle on."""
        while first < self.size:
            if (bundle := self._bundle(first)) is None:
                raise self.files.missing(_bundle_path(first), "the checkpoint has its entries")
            yield bundle
            first = bundle.end

    def counts(self, index: int) -> bool:
        """Whether the entry is a registration that did not end."""
        for bundle in self.bundles(self.memory.size):
            self.memory.add(bundle)
        return self.memory.counts(index)

    # Appending

    def pending(self) -> Bundle | None:
        """The bundle that was decided and is not in the tree yet; None if there is none."""
        return self._bundle(self.size)

    def decide(self, entries: Sequence[bytes]) -> Bundle:
        """Decide what comes next: these entries, 1 to MOST_ENTRIES, unless another process was faster. Returns what was
        decided.
        """
        if not 0 < len(entries) <= MOST_ENTRIES:
            raise ValueError(f"1 to {MOST_ENTRIES} entries are needed, found {len(entries)}")
        path, data = _bundle_path(self.size), write_bundle(entries)
        stored = self._objects.put_once(self._folder + path, data)
        self._on_step("registrations.after_bundle")
        return Bundle(self.size, tuple(entries) if stored == data else _entries(stored, path))

    def advance(self, bundle: Bundle) -> None:
        """Append a bundle that was decided, after its indexes are stored."""
        if not bundle.first == self.grown.size == self.size:
            raise ValueError(
                f"the bundle {bundle.first} does not follow {self.size} entries: open the tree again"
            )
        for entry in bundle.entries:
            self.grown.append(entry)
        self._put(self.grown.full())
        if self.memory.size == bundle.first:
            self.memory.add(bundle)
        self._on_step("registrations.after_tiles")
        kinds = Counter(notice.kind for entry in bundle.entries if (notice := Notice.parse(entry)))
        self._put_state(
            replace(
                self.state,
                erased=self.state.erased + kinds[NoticeKind.ERASED],
                withdrawn=self.state.withdrawn + kinds[NoticeKind.WITHDRAWN],
                notices=self.state.notices + kinds.total(),
                root=self.grown.root().hex(),
                size=self.grown.size,
            )
        )
        self._on_step("registrations.after_checkpoint")

    # Sizes

    def log_size(self, now: float, window: OpenTime) -> None:
        """Give the size a file if it is due, and a leaf in the public log, which is published in the background. Times
        are in seconds since the epoch; `window` is when registration is open. The campaign's `opened.json` is in the
        log before.

        A log that cannot take the leaf, or be published, is asked again after a minute.
        """
        if self._is_due(now, window):
            self._put_size(now)
            self._again_at = now
        if self._published == self.state.last_size or now < self._again_at:
            return
        self._again_at = now + _AGAIN_SECONDS
        try:
            until = self._decide_leaves()
        except (TransientFailure, UsageError, DrawError) as error:
            log.warning("registrations not logged", campaignId=self.state.campaign_id, error=str(error))
        else:
            self.memory.publishing.start(partial(self._publish, until), self.state.campaign_id)

    def log_now(self) -> None:
        """Give the size a file and decide its leaf in the public log now, as a freeze needs it. Raises as `PublicLog`,
        too.
        """
        if self.size != self.state.last_size:
            self._put_size(self._clock())
        self._decide_leaves()

    def _is_due(self, now: float, window: OpenTime) -> bool:
        return self.size != self.state.last_size and now - self._sized_at >= _pause_seconds(now, window)

    def _put_size(self, now: float) -> None:
        self._put(self.grown.partial(self.state.last_size))
        made = RegistrationSize(self.state.campaign_id, self.state.root, self.size)
        self._put([TreeFile(size_name(self.size), made.to_bytes())])
        self._on_step("registrations.after_size")
        self._put_state(replace(self.state, sizes=(*self.state.sizes, self.size)))
        self._sized_at = now
        self._on_step("registrations.after_sizes")

    def _decide_leaves(self) -> int:
        """Decide the leaves of all sizes that have none; returns the last one."""
        if self._decided is None:
            lacking = set(self.files.not_logged(self.state))
            logged = [size for size in self.state.sizes if size not in lacking]
            self._decided = self._published = max(logged, default=0)
        at, decided = iso(self._clock()), self._decided
        leaves = [self.files.leaf(size, at) for size in self.state.sizes if size > decided]
        if leaves:
            self._public.decide(leaves)
            self._decided = self.state.last_size
        self._on_step("registrations.after_leaves")
        return self.state.last_size

    def _publish(self, until: int) -> None:
        if self._public.publish() is None:
            self._published = until

    # Files

    def _bundle(self, first: int) -> Bundle | None:
        path = _bundle_path(first)
        data = self.files.read(path)
        return None if data is None else Bundle(first, _entries(data, path))

    def _put(self, files: Sequence[TreeFile]) -> None:
        """Put them in any order: readers take them once the checkpoint has their size."""
        if files:
            with scheduling.pool(min(len(files), _PUTS_AT_A_TIME), "tiles") as pool:
                list(pool.map(self._put_one, files))

    def _put_one(self, file: TreeFile) -> None:
        if self._objects.put_once(self._folder + file.path, file.data) != file.data:
            raise DrawError(self._folder + file.path, f"is not what the entries give: {_RESTORE}")

    def _put_state(self, state: TreeState) -> None:
        tag = self._objects.put_over(self._folder + CHECKPOINT, state.to_bytes(), self._tag)
        if tag is None:
            raise OtherWriter(state.campaign_id)
        self._tag, self.state = tag, state


def _pause_seconds(now: float, window: OpenTime) -> float:
    """The least time between two sizes."""
    first, last = now - window.start, window.end - now
    is_busy = 0 <= first < _BUSY_HOURS_SECONDS or 0 <= last < _BUSY_HOURS_SECONDS
    return _BUSY_SECONDS if is_busy else _QUIET_SECONDS


def _bundle_path(first: int) -> str:
    return f"bundles/{first}"


def _entries(data: bytes, path: str) -> tuple[bytes, ...]:
    return tuple(read_bundle(data, path, MOST_ENTRIES))
