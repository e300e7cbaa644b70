"""A campaign's list of registrations as a log has it: it only grew, its notices keep the rules, the manifest counts it.

The entries are read from the tree's bundles, and every root and number is computed again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fairdraw.errors import DrawError
from fairdraw.log.leaves import CHECKPOINT, Kind, LeafTimes, LogLeaf
from fairdraw.log.place import Place, Read
from fairdraw.log.record import RecordLeaf, closing
from fairdraw.log.tree import WIDTH, GrowingTree, TreeFile, bundle_path, read_bundle
from fairdraw.maths.files import sha256_hex
from fairdraw.maths.manifest import Manifest, Registrations
from fairdraw.maths.opened import opened_name
from fairdraw.maths.registration import (
    REGISTRATIONS,
    RegistrationSize,
    RegistrationTree,
    TreeState,
    size_name,
    size_problem,
    tree_folder,
)
from fairdraw.terms import iso

# An entry that comes into the list so long after the campaign closed may have been added then.
LATE_SECONDS = 900.0
# Damaged files of a list that are named; the others are counted.
_NAMED = 3


class Numbers(NamedTuple):
    """What the first entries of a tree are."""

    # The number of entries.
    size: int
    # That over them, in hex.
    root: str
    # Those of any kind.
    notices: int
    # Registrations that were taken back.
    withdrawn: int
    # Registrations that were erased.
    erased: int

    @staticmethod
    def of(found: RegistrationTree | Registrations) -> Numbers:
        return Numbers(found.size, found.root, found.notices, found.withdrawn, found.erased)

    @property
    def leaves(self) -> int:
        """New registrations."""
        return self.size - self.notices

    @property
    def units(self) -> int:
        """Notices of another unit."""
        return self.notices - self.withdrawn - self.erased

    def __str__(self) -> str:
        ended = f"{self.withdrawn} withdrawn and {self.erased} erased"
        return f"{self.size} entries with root {self.root}, {self.notices} notices, {ended}"


@dataclass(frozen=True, slots=True)
class LateMinute:
    """What came into a list in one minute after the campaign closed."""

    campaign_id: str
    # It is like 2026-09-21T18:01.
    minute: str
    # New registrations.
    leaves: int
    # Notices of another unit.
    units: int

    def __str__(self) -> str:
        return (
            f"{self.campaign_id}: late, {self.minute}: {self.leaves} registrations, {self.units} other units"
        )


def tree_state(read: Read, campaign_id: str) -> TreeState:
    """How far a campaign's tree is. Raises DrawError if that is not published."""
    path = f"{tree_folder(campaign_id)}/{CHECKPOINT}"
    if (data := read(path)) is None:
        raise DrawError(path, "is not published: the sizes of the list of registrations are unknown")
    state = TreeState.parse(data, path)
    if state.campaign_id != campaign_id:
        raise DrawError(path, f"is about {state.campaign_id}")
    return state


def entries_of(read: Read, campaign_id: str, size: int) -> Iterator[bytes]:
    """The entries of a campaign's tree of this size. Raises DrawError for a bundle that is missing or none."""
    for start in range(0, size, WIDTH):
        yield from bundle_from(read, campaign_id, size, start)


def bundle_from(read: Read, campaign_id: str, size: int, start: int) -> list[bytes]:
    """The entries of one bundle of a campaign's tree of this size, the first of which is `start`. Raises DrawError if
    it is missing or none.
    """
    path = f"{tree_folder(campaign_id)}/{bundle_path(min(start + WIDTH, size))}"
    if (data := read(path)) is None:
        raise DrawError(path, "is missing, and the list of registrations has its entries")
    entries = read_bundle(data, path)
    if len(entries) != min(WIDTH, size - start):
        raise DrawError(path, f"not a bundle of {min(WIDTH, size - start)} entries")
    return entries


@dataclass(frozen=True, slots=True)
class _Logged:
    """The first entries of a tree whose size is a leaf of the log."""

    # That of the leaf.
    index: int
    numbers: Numbers
    # When the leaf was in the log, in seconds since the epoch; None if that is not known.
    at: float | None


class RegistrationAccount:
    """What a log says of one campaign's registrations. `leaves` are those of the campaign, with their indexes."""

    def __init__(
        self, place: Place, times: LeafTimes, campaign_id: str, leaves: Sequence[tuple[int, LogLeaf]]
    ) -> None:
        self._place, self._times, self._id = place, times, campaign_id
        self._leaves = [(at, leaf) for at, leaf in leaves if leaf.kind is Kind.REGISTRATIONS]
        self._is_opened = any(leaf.kind is Kind.OPENED for _, leaf in leaves)
        self._logged: list[_Logged] = []
        self._late: dict[str, LateMinute] = {}
        # Paths of bundles and tiles.
        self._damaged: list[str] = []

    @property
    def late(self) -> tuple[LateMinute, ...]:
        """What came after the close, once the findings were made."""
        return tuple(self._late.values())

    def findings(
        self, record: Sequence[RecordLeaf], manifest: Manifest | None, manifest_index: int
    ) -> Iterator[str]:
        """What is wrong with the list. `record` is that of the campaign, `manifest` that of phase 1, whose leaf has
        this index; None if there is none.
        """
        counted = None if manifest is None else manifest.registrations
        if manifest is not None:
            before = [leaf.hash for at, leaf in self._leaves if at < manifest_index]
            if problem := size_problem(manifest, before[-1] if before else None):
                yield problem
        if not self._leaves and (counted is None or not counted.size):
            return
        try:
            found = self._numbers(0 if counted is None else counted.size)
        except DrawError as error:
            yield str(error)
            return
        yield from self._match(found)
        yield from self._differing()
        if counted is not None and found[counted.size] != Numbers.of(counted):
            yield f"{REGISTRATIONS}: the manifest has {Numbers.of(counted)}; the list has {found[counted.size]}"
        if not self._is_opened and max(found):
            yield (
                f"{opened_name(0)}: not in the log, and the list of registrations has {max(found)} entries: which of"
                " them came after the close is unknown"
            )
        if record:
            early = [each.numbers.size for each in self._logged if each.index < record[0].index]
            if any(early):
                yield f"{opened_name(0)}: in the log after the first {early[-1]} entries of the list of registrations"
            yield from self._after_close(record)

    def _numbers(self, counted: int) -> dict[int, Numbers]:
        """What the tree has at each of its sizes, and at that of the manifest. Raises DrawError."""
        published = {*tree_state(self._place.read, self._id).sizes}
        sizes = {0, counted, *published}
        tree, files, last = RegistrationTree(), GrowingTree(), 0
        found = {0: Numbers.of(tree)}
        for entry in entries_of(self._place.read, self._id, max(sizes)):
            tree.add(entry)
            files.append(entry)
            self._compare(files.full())
            if tree.size in sizes:
                found[tree.size] = Numbers.of(tree)
            if tree.size in published:
                self._compare(files.partial(last))
                last = tree.size
        return found

    def _compare(self, files: Sequence[TreeFile]) -> None:
        """Keep the paths of published files that are not those of the entries: no proof is made of them."""
        for file in files:
            path = f"{tree_folder(self._id)}/{file.path}"
            if self._place.digest(path) != sha256_hex(file.data):
                self._damaged.append(path)

    def _differing(self) -> Iterator[str]:
        for path in self._damaged[:_NAMED]:
            yield f"{path} is not published, or not that of the entries: restore the version that was written first"
        if more := len(self._damaged[_NAMED:]):
            yield f"{tree_folder(self._id)}: not those of the entries are as many files more: {more}"

    def _match(self, found: Mapping[int, Numbers]) -> Iterator[str]:
        """Find the size of each leaf. Each must be larger than the one before."""
        files = [RegistrationSize(self._id, each.root, each.size) for each in found.values()]
        by_hash = {each.hash: each for each in files}
        last = 0
        for index, leaf in self._leaves:
            file = by_hash.get(leaf.hash)
            if file is None:
                yield (
                    f"leaf {index} ({leaf.kind}) is not size and root of the first entries of the list: it did not only"
                    " grow"
                )
                continue
            if file.size <= last:
                yield f"leaf {index} ({leaf.kind}) has {file.size} entries, a leaf before it {last}: an old list"
                continue
            last = file.size
            if self._place.digest(path := f"{tree_folder(self._id)}/{size_name(file.size)}") != leaf.hash:
                yield f"{path} is not published, or not the one in the log"
            self._logged.append(_Logged(index, found[last], self._times.at(index)))

    def _after_close(self, record: Sequence[RecordLeaf]) -> Iterator[str]:
        """Count what came after the close. New registrations come at most 15 minutes after it."""
        closes = closing(record)
        before, since = Numbers.of(RegistrationTree()), record[0].opened.opens_at
        for each in self._logged:
            numbers, at = each.numbers, each.at
            leaves, units = numbers.leaves - before.leaves, numbers.units - before.units
            before = numbers
            if leaves and (at is None or at > closes + LATE_SECONDS):
                until = "a time that no witness vouches for" if at is None else iso(at)
                yield (
                    f"{leaves} entries came into the list of registrations between {since} and {until}, more than"
                    f" {LATE_SECONDS // 60:.0f} minutes after the campaign closed at {iso(closes)}: when they were"
                    " added is the operator's word"
                )
            if at is None:
                continue
            since = iso(at)
            if at > closes and (leaves or units):
                minute = since[: len("2026-09-21T18:01")]
                known = self._late.get(minute, LateMinute(self._id, minute, 0, 0))
                self._late[minute] = LateMinute(self._id, minute, known.leaves + leaves, known.units + units)
