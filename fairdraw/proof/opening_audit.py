"""The audit of an opening: the operator shows to an auditor what each registration means, and the published list and
the draw say whether that is true.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from fairdraw.documents import as_document
from fairdraw.errors import DrawError, UsageError
from fairdraw.log.place import Place
from fairdraw.log.registered import Numbers, entries_of, tree_state
from fairdraw.maths.files import LEAVES, MANIFEST, SEED
from fairdraw.maths.manifest import Manifest, Registrations, SeedFile
from fairdraw.maths.merkle import TreeHash, leaf_hash
from fairdraw.maths.registration import (
    OpenedRegistration,
    Registration,
    RegistrationClass,
    RegistrationTree,
    registration_leaf,
)

_ENDED = (RegistrationClass.WITHDRAWN, RegistrationClass.ERASED)
# Findings that are named one by one.
_SHOWN = 20
# So much of a hash is enough: two texts with the same one cannot be found.
_MARK_BYTES = 16


def chosen(randomness: str, tree: RegistrationTree, count: int) -> set[int]:
    """The indexes of `count` registrations of the tree, or of all if it has fewer, that the beacon chooses:
    `SHA256("vfaudit1|" + randomness + "|" + n)` modulo the size, n from 0 on, without notices and repeats.
    """
    found: set[int] = set()
    number = 0
    while len(found) < min(count, tree.size - tree.notices):
        digest = hashlib.sha256(f"vfaudit1|{randomness}|{number}".encode()).digest()
        index = int.from_bytes(digest, "big") % tree.size
        if tree.at(index) is not None:
            found.add(index)
        number += 1
    return found


@dataclass(frozen=True, slots=True)
class Audited:
    """What an opening shows."""

    campaign_id: str
    # The hash of phase 1's manifest, to be compared with the log.
    manifest_hash: str
    # How many registrations were to be shown.
    due: int
    # How many of them were computed again from what was shown.
    opened: int
    # Registrations by class, as the opening has them.
    classes: dict[str, int]
    # What is wrong, as sentences; of many the first ones.
    findings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return as_document(self)


def audit(
    opening: Iterable[bytes],
    place: Place,
    campaign_id: str,
    sample: int | None = None,
    name: str = "the opening",
) -> Audited:
    """Check the lines of an opening: all, or those of a `sample`, a number of registrations that the beacon chooses.
    `place` has the published draw and its registrations; errors have the `name` of the opening. A full audit needs
    some 150 bytes for each entry.

    Raises UsageError for a campaign without them and for lines that are no opening, DrawError for files that do not
    hold together.
    """
    read, folder = place.read, f"draws/{campaign_id}/phase-1"
    if (data := read(f"{folder}/{MANIFEST}")) is None:
        raise UsageError(
            f"there is no {folder}/{MANIFEST}: registrations are opened once a draw commits to them"
        )
    manifest = Manifest.parse(data)
    if (counted := manifest.registrations) is None:
        raise UsageError(f"the draw of {campaign_id} has no registrations: its campaign did not log them")
    entries = entries_of(read, campaign_id, max((counted.size, *tree_state(read, campaign_id).sizes)))
    tree = RegistrationTree()
    for entry in islice(entries, counted.size):
        tree.add(entry)
    if Numbers.of(tree) != Numbers.of(counted):
        raise DrawError(
            MANIFEST, f"registrations: {Numbers.of(counted)}; the published list has {Numbers.of(tree)}"
        )
    due = None
    if sample is not None:
        if (data := read(f"{folder}/{SEED}")) is None:
            raise UsageError(f"there is no {folder}/{SEED} yet: the round of the beacon chooses the sample")
        seed = SeedFile.parse(data)
        seed.check(manifest.hash, manifest.seed_source)
        due = chosen(seed.randomness, tree, sample)
    # What ended after the draw explains why a salt is gone.
    for entry in entries:
        tree.add(entry)
    rows = _rows(opening, name)
    return _Audit(manifest, counted, tree, _marks(place, folder, manifest), due).run(rows)


def _rows(opening: Iterable[bytes], name: str) -> Iterator[OpenedRegistration]:
    """The lines of an opening, by index. Raises UsageError for a first line that is none, DrawError for another one."""
    last = -1
    for number, line in enumerate(opening, 1):
        where = f"{name}, line {number}"
        try:
            own = OpenedRegistration.parse(line.removesuffix(b"\n"), where)
        except DrawError as error:
            if number > 1:
                raise
            raise UsageError(
                f"{name}: this is no opening, which `registrations open` makes: line 1 is {error.message}"
            ) from None
        if own.index <= last:
            raise DrawError(where, f"index: numbers that increase are needed, {own.index} follows {last}")
        last = own.index
        yield own


def _mark(ref: str, unit: str) -> bytes:
    return hashlib.sha256(f"{ref}|{unit}".encode()).digest()[:_MARK_BYTES]


def _marks(place: Place, folder: str, manifest: Manifest) -> set[bytes]:
    """A mark of each entry in the draw. Raises DrawError for another list than that of the manifest."""
    if (file := place.open(f"{folder}/{LEAVES}")) is None:
        raise UsageError(
            f"there is no {folder}/{LEAVES} yet: the list of a draw is published with its result"
        )
    tree, marks = TreeHash(), set[bytes]()
    with file:
        for line in file:
            leaf = line.removesuffix(b"\n")
            tree.add(leaf_hash(leaf))
            ref, _, rest = leaf.decode("ascii", "replace").partition("|")
            marks.add(_mark(ref, rest.partition("|")[0]))
    # Any other line than those of the draw gives another root.
    if tree.root().hex() != manifest.root:
        raise DrawError(LEAVES, "is not the list of its manifest")
    return marks


class _Audit:
    """Compares the lines of an opening with the list (`tree`), of which the draw has the first entries (`counted`), and
    with the `marks` of the entries in the draw. `due` are the indexes of the sample; None: all.
    """

    def __init__(
        self,
        manifest: Manifest,
        counted: Registrations,
        tree: RegistrationTree,
        marks: set[bytes],
        due: set[int] | None,
    ) -> None:
        self._manifest, self._counted, self._tree, self._marks, self._due = (
            manifest,
            counted,
            tree,
            marks,
            due,
        )
        self._wrong: list[str] = []
        self._classes = Counter[str](dict.fromkeys(RegistrationClass, 0))
        # Lines that were checked by their salt, and those of drawn entries that were not.
        self._opened = self._hidden = 0

    def run(self, opening: Iterable[OpenedRegistration]) -> Audited:
        for own in opening:
            if self._due is None or own.index in self._due:
                self._classes[own.class_] += 1
                self._wrong += (f"entry {own.index}: {what}" for what in self._line(own))
        due = self._counted.size - self._counted.notices if self._due is None else len(self._due)
        if (missing := due - self._classes.total()) > 0:
            self._wrong.append(f"{missing} of {due} registrations are not in the opening")
        if self._due is None:
            self._wrong += self._whole()
        findings = self._wrong[:_SHOWN]
        if len(self._wrong) > _SHOWN:
            findings.append(f"{len(self._wrong) - _SHOWN} more findings")
        classes = {str(name): self._classes[name] for name in RegistrationClass}
        manifest = self._manifest
        return Audited(manifest.campaign_id, manifest.hash, due, self._opened, classes, tuple(findings))

    def _whole(self) -> Iterator[str]:
        """What only all lines together show."""
        if (added := len(self._marks) - self._hidden) > 0:
            yield f"{added} entries of the draw are no registration of the opening: they were added"
        counted = self._counted
        due = (self._manifest.count, counted.excluded, counted.withdrawn, counted.erased)
        for name, number in zip(RegistrationClass, due, strict=True):
            if self._classes[name] != number:
                yield f"{self._classes[name]} registrations are {name} by the opening, {number} by the manifest"

    def _line(self, own: OpenedRegistration) -> Iterator[str]:
        now = self._tree.at(own.index)
        if now is None or own.index >= self._counted.size:
            yield "no registration of the draw"
            return
        then = Registration(
            now.index, now.leaf, tuple(each for each in now.notices if each.index < self._counted.size)
        )
        ended = then.ended and RegistrationClass(then.ended)
        if (ended or own.class_) != own.class_ or (ended is None and own.class_ in _ENDED):
            yield f"it is {own.class_} by the opening, {ended or 'neither withdrawn nor erased'} by the list"
        if own.ref is None or own.unit is None or own.at is None or own.salt is None:
            if now.ended is None:
                yield "it is not shown, and no notice says that it ended"
            self._hidden += own.class_ is RegistrationClass.DRAWN
            return
        self._opened += 1
        campaign_id = self._manifest.campaign_id
        if registration_leaf(campaign_id, own.ref, own.unit, own.at, own.salt) != then.current:
            yield "what is shown does not give its leaf: it is another one"
        mark = _mark(own.ref, own.unit)
        if own.class_ is not RegistrationClass.DRAWN:
            if mark in self._marks:
                yield f"it is {own.class_} by the opening, and in the draw"
        elif mark not in self._marks:
            yield "it is drawn by the opening, and not in the draw with this ref and unit, or twice in the opening"
        self._marks.discard(mark)
