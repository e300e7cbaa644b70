"""The check of a fan's confirmation against the published files: the entry is in the list, and the list in the log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

from fairdraw.documents import as_document
from fairdraw.errors import DrawError
from fairdraw.log.leaves import CHECKPOINT, KEYS, Kind, LeafTimes, LogLeaf, cosigned_at
from fairdraw.log.note import NoteError
from fairdraw.log.parts import Published, published
from fairdraw.log.place import Place, Read, in_log
from fairdraw.log.registered import bundle_from, tree_state
from fairdraw.log.tree import WIDTH, StoredTree, root_over
from fairdraw.log.trust import WEAK_QUORUM, Trust, TrustedKey
from fairdraw.maths.files import MANIFEST, Fields, JsonFile, is_hash, json_keys, sha256_hex
from fairdraw.maths.manifest import Manifest
from fairdraw.maths.merkle import leaf_hash
from fairdraw.maths.registration import (
    SALT,
    Notice,
    Registration,
    RegistrationSize,
    any_text,
    registration_leaf,
    size_name,
    size_problem,
    tree_folder,
)
from fairdraw.proof.checker import THE_LIST, Result, Step
from fairdraw.proof.logged import NO_WITNESS, Unchecked, seen_by
from fairdraw.proof.parts import wrong
from fairdraw.proof.registered import REGISTRATION, noted_line
from fairdraw.terms import iso

CONFIRMATION = "confirmation"
VERSION = 1
NOT_YET = "not in the list yet"
# Notices about an entry are looked for in the newest entries, at most this number: their files have a megabyte.
LOOKED_THROUGH = 64 * WIDTH
_ITS_KEYS = (
    "Some keys are taken as the operator published them beside the log: compare their fingerprints with a source that"
    " the operator cannot change, or give a file of trusted keys (`--trust`)."
)
_NOT_READ = (
    "Notices about the registration were looked for in the newest entries alone, from entry {} on: `check-receipt"
    " --whole` looks in all later ones."
)
_AS_OF = "The log was read as witnesses saw it at {}: what the list got after that, and a later draw, does not show."
_IN_THE_DRAW = "That the entry takes part in the draw shows its receipt, once there is one."


@dataclass(frozen=True, slots=True)
class Confirmation(JsonFile):
    """What a fan has of the own registration."""

    FILE: ClassVar[str] = CONFIRMATION

    # When the entry was registered.
    at: str
    campaign_id: str
    # That of its leaf in the list of registrations.
    index: int
    # That of the entry; empty: it has none.
    ref: str
    # It is 32 hex digits.
    salt: str
    # What is published; None: the entry has none, so that its ref is published.
    unit: str | None

    def as_document(self) -> dict[str, Any]:
        return {"kind": REGISTRATION, "version": VERSION} | as_document(self)

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        return json_keys(cls, "kind", "version")

    @classmethod
    def read(cls, fields: Fields) -> Self:
        fields.text("kind", REGISTRATION.__eq__, f'"{REGISTRATION}"')
        if fields.integer("version") != VERSION:
            fields.refuse("version", f"{VERSION} is needed")
        return cls(
            at=fields.time("at"),
            campaign_id=fields.id("campaignId"),
            index=fields.integer("index"),
            ref=fields.text("ref", any_text, "a ref"),
            salt=fields.text("salt", SALT.fullmatch, "32 lower-case hex digits"),
            unit=None if fields.raw("unit") is None else fields.text("unit", any_text, "a unit"),
        )

    @property
    def leaf(self) -> str:
        """What the list of registrations has for it, unless a notice gave it another unit since."""
        unit = self.ref if self.unit is None else self.unit
        return registration_leaf(self.campaign_id, self.ref, unit, self.at, self.salt)


@dataclass(frozen=True, slots=True)
class _Logged:
    """A size of the list that is in the log."""

    # That of its leaf.
    index: int
    file: RegistrationSize


class ConfirmationChecker:
    """Runs the steps of the check of a confirmation; `place` has the published files. `whole`: notices are looked for
    in every later entry, not in the newest ones alone.
    """

    def __init__(
        self, confirmation: Confirmation, place: Place, trust: Trust, *, whole: bool = False
    ) -> None:
        self.confirmation, self._place, self._trust, self._whole = confirmation, place, trust, whole
        # What was noted about the entry that its fan may not know.
        self.findings: list[str] = []
        # Where no notice was looked for, and until when.
        self._unread: list[str] = []
        # The first size of the list in the log that has what is confirmed; None until that was found.
        self._first: _Logged | None = None
        # Since when the entry is in the list, and who saw it; empty if that is not known.
        self.since = ""

    def steps(self) -> list[tuple[str, Step]]:
        return [
            (REGISTRATION, self._check_registration),
            ("log", self._check_log),
            ("witnesses", self._check_witnesses),
        ]

    def result(self) -> Result:
        own = self.confirmation
        return Result(own.campaign_id, None, own.ref, REGISTRATION, since=self.since)

    def keys(self) -> tuple[TrustedKey, ...]:
        """The keys that the check relies on."""
        try:
            keys = self._log.keys
        except (DrawError, Unchecked):
            return ()
        given = self._trust.keys
        found = [
            TrustedKey.of("log", each.name, each.public, "trust" if given.log else "log") for each in keys.log
        ]
        by = "trust" if given.quorum.members else "log"
        return (
            *found,
            *(TrustedKey.of("witness", each.name, each.public, by) for each in keys.quorum.witnesses),
        )

    def limits(self) -> tuple[str, ...]:
        return (
            _IN_THE_DRAW,
            THE_LIST,
            *self._unread,
            *([_ITS_KEYS] if any(key.given == "log" for key in self.keys()) else ()),
        )

    def _read(self, path: str) -> bytes:
        """A file of the list. Raises Unchecked for one that is missing: it contradicts no claim."""
        if (data := self._place.read(path)) is None:
            raise Unchecked(f"{path} is missing")
        return data

    @cached_property
    def _log(self) -> Published:
        """Raises DrawError for a log that does not hold together, Unchecked if it, or a part of it, is missing."""
        # The keys may be trusted ones instead.
        may_lack = f"log/{KEYS}"
        with _below("log"):
            found = published(
                lambda path: (self._place.read if path == may_lack else self._read)(path), self._trust.keys
            )
        if found is None:
            raise Unchecked("no log: nothing shows when the list of registrations was what it is")
        return found

    @cached_property
    def _leaves(self) -> Sequence[tuple[int, LogLeaf]]:
        """Those of the campaign in the log, in order."""
        found = self._log.state.of_campaign(self.confirmation.campaign_id)
        opened = [index for index, leaf in found if leaf.kind is Kind.OPENED]
        if len(opened) > 1:
            wrong(
                f"leaf {opened[-1]} of the log opens the campaign again, after leaf {opened[0]}: a campaign opens once"
            )
        return found

    @cached_property
    def _logged(self) -> dict[str, int]:
        """The leaves of sizes of the list, by hash. One that the log has twice running is where it was first."""
        found: dict[str, int] = {}
        for index, leaf in self._leaves:
            if leaf.kind is not Kind.REGISTRATIONS:
                continue
            if leaf.hash in found and leaf.hash != [*found][-1]:
                wrong(
                    f"leaf {index} of the log is the list of leaf {found[leaf.hash]} again: it did not only grow"
                )
            found.setdefault(leaf.hash, index)
        return found

    @cached_property
    def _drawn(self) -> RegistrationSize | None:
        """The list that the draw counts; None before the draw."""
        campaign_id = self.confirmation.campaign_id
        manifests = [
            (index, leaf.hash)
            for index, leaf in self._leaves
            if (leaf.kind, leaf.phase) == (Kind.MANIFEST, 1)
        ]
        if not manifests:
            return None
        path = f"draws/{campaign_id}/phase-1/{MANIFEST}"
        data = self._read(path)
        last, own = manifests[-1][0], [index for index, hash_ in manifests if hash_ == sha256_hex(data)]
        if not own:
            raise DrawError(path, f"is not the one that is leaf {last} of the log")
        if own[-1] != last:
            # The log has a manifest before it is published.
            raise Unchecked(
                f"{path} is still that of leaf {own[-1]} of the log, which leaf {last} replaced: try again"
            )
        manifest = Manifest.parse(data)
        # One that replaces another counts the same list.
        before = [hash_ for hash_, at in self._logged.items() if at < manifests[0][0]]
        if problem := size_problem(manifest, before[-1] if before else None):
            wrong(problem)
        counted = manifest.registrations
        if counted is None:
            return RegistrationSize(campaign_id, sha256_hex(b""), 0)
        return RegistrationSize(campaign_id, counted.root, counted.size)

    def _beyond(self) -> str:
        """Why the entry cannot be in the list of the draw; empty if nothing speaks against it."""
        if self._drawn is None or self.confirmation.index < self._drawn.size:
            return ""
        return f"not in the list: the draw closed it at {self._drawn.size} entries"

    @cached_property
    def _sizes(self) -> Sequence[int]:
        """Those of the list that have a file, ascending."""
        if self._place.read(self._checkpoint_path) is None and not self._logged:
            return ()
        return tree_state(self._read, self.confirmation.campaign_id).sizes

    @property
    def _checkpoint_path(self) -> str:
        return f"{tree_folder(self.confirmation.campaign_id)}/{CHECKPOINT}"

    @cached_property
    def _newest(self) -> _Logged:
        """The newest size of the list in the log, which has the entry. An older one would hide notices."""
        if beyond := self._beyond():
            raise Unchecked(beyond)
        last = max(self._logged.values(), default=None)
        found = self._first_logged(reversed(self._sizes))
        if last is not None and (found is None or found.index != last):
            raise DrawError(
                self._checkpoint_path,
                f"names no list of registrations that is leaf {last} of the log: it was changed, or a file in sizes",
            )
        if found is None or found.file.size <= self.confirmation.index:
            raise Unchecked(
                f"{NOT_YET}: no list of registrations in the log has an entry {self.confirmation.index}"
            )
        return found

    def _first_logged(self, sizes: Iterable[int]) -> _Logged | None:
        for size in sizes:
            name = f"{tree_folder(self.confirmation.campaign_id)}/{size_name(size)}"
            data = self._read(name)
            if (index := self._logged.get(sha256_hex(data))) is not None:
                file = RegistrationSize.parse(data, name)
                if (file.campaign_id, file.size) != (self.confirmation.campaign_id, size):
                    raise DrawError(name, "is about another campaign or size")
                return _Logged(index, file)
        return None

    def _check_registration(self) -> str:
        if beyond := self._beyond():
            wrong(beyond)
        own, newest, drawn = self.confirmation, self._newest.file, self._drawn
        since = 0 if self._whole else _newest_from(newest.size)
        tree = _ReadList(self._read, newest)
        found = tree.registration(own.index, since)
        if own.leaf not in _leaves(found).values() and since > own.index:
            # A notice before may have given it this unit.
            since, found = 0, tree.registration(own.index, 0)
        had = _leaves(found)
        if own.leaf not in had.values():
            wrong(
                f"entry {own.index} of the list is another one: ref, unit, time and salt do not give its leaf"
            )
        # A notice with the unit of the confirmation proves its ref no earlier: the entry before it may be of any.
        shown_at = max(index for index, leaf in had.items() if leaf == own.leaf)
        first = self._first_logged(size for size in self._sizes if size > shown_at) or self._newest
        for size in (first.file, drawn):
            if size is not None:
                tree.require_start(size)
        self._first = first
        # Notices before the unit of the confirmation are known to its fan.
        self.findings += [noted_line(noted) for noted in found.notices if noted.index > shown_at]
        if drawn is not None and shown_at >= drawn.size:
            counted = [leaf for index, leaf in had.items() if index < drawn.size][-1]
            if counted != own.leaf:
                self.findings.append(
                    f"entry {shown_at}: what is confirmed came into the list after the draw, which has another leaf"
                    f" for entry {own.index}"
                )
        if since > own.index:
            self._unread.append(_NOT_READ.format(since))
        annulled = [
            f"leaf {index} of the log annuls the draw"
            for index, leaf in self._leaves
            if leaf.kind is Kind.ANNULLED
        ]
        self.findings += annulled
        line = f"entry {own.index} of {newest.size} in the list of registrations (from 0), registered at {own.at}"
        return "\n".join([line, *map(noted_line, found.notices), *annulled])

    def _check_log(self) -> str:
        newest, state = self._newest, self._log.state
        return (
            f"the list of {newest.file.size} entries with root {newest.file.root} is leaf {newest.index} of the log"
            f" {state.origin} of {state.size} leaves"
        )

    def _check_witnesses(self) -> str:
        first, (state, keys) = self._first or self._newest, self._log
        times = LeafTimes(state, keys, in_log(self._place.read))
        with _below("log"):
            at = times.at(first.index)
        if at is None:
            wrong("no checkpoint shows when enough witnesses saw the entry in the list")
        if not keys.quorum.need:
            self.since = f"in the list since {iso(at)}, by the operator's word"
            raise Unchecked(NO_WITNESS)
        try:
            kept = times.kept(first.index)
            notes = [note for note in (kept and kept.note, state.note) if note is not None]
            signed = [{each.key for each in note.verified(keys.quorum.witnesses)} for note in notes]
            until = cosigned_at(notes[-1], keys.quorum)
        except NoteError as error:
            raise DrawError(f"log/{CHECKPOINT}", str(error)) from None
        found = seen_by(notes[-1], keys.quorum)
        self._unread.append(_AS_OF.format(iso(until)))
        seen = len(signed[0])
        self.since = f"in the list since {iso(at)}, by {'1 witness' if seen == 1 else f'{seen} witnesses'}"
        if not keys.quorum.colluders:
            raise Unchecked(WEAK_QUORUM)
        return f"{self.since}\n{found}"


class _ReadList:
    """A list of registrations as it is read: over the entries of some bundles, and the hashes of the others, its root
    was computed again.
    """

    def __init__(self, read: Read, size: RegistrationSize) -> None:
        self._read, self._size = read, size
        self._blocks: list[bytes] = []

    def registration(self, index: int, since: int) -> Registration:
        """The entry at the index with the notices about it from the entry `since` on."""
        size, folder = self._size.size, tree_folder(self._size.campaign_id)
        stored = StoredTree(size, lambda path: self._read(f"{folder}/{path}"))
        own = index // WIDTH * WIDTH
        self._blocks = []
        found: Registration | None = None
        for start in range(0, size, WIDTH):
            if start != own and start < max(own, since):
                with _below(folder):
                    self._blocks.append(stored.root(start, start + WIDTH))
                continue
            entries = self._bundle(start)
            self._blocks.append(root_over([*map(leaf_hash, entries)]))
            for at, entry in enumerate(entries, start):
                if at == index:
                    text = entry.decode("ascii", "replace")
                    if not is_hash(text):
                        wrong(f"entry {at} of the list is no registration")
                    found = Registration(at, text)
                elif found is not None and (notice := Notice.parse(entry)) and notice.index == index:
                    found = found.with_notice(at, notice)
        if root_over(self._blocks).hex() != self._size.root or found is None:
            wrong(f"the {size} entries of the list do not have the root that is in the log")
        return found

    def require_start(self, part: RegistrationSize) -> None:
        """Refuse the list unless it begins with an earlier one."""
        # None of a later one.
        whole, rest = divmod(min(part.size, self._size.size), WIDTH)
        nodes = self._blocks[:whole]
        if rest:
            hashes = [*map(leaf_hash, self._bundle(whole * WIDTH))]
            if root_over(hashes) != self._blocks[whole]:
                wrong(f"the {self._size.size} entries of the list do not have the root that is in the log")
            nodes.append(root_over(hashes[:rest]))
        if part.size > self._size.size or root_over(nodes).hex() != part.root:
            wrong(
                f"the list of {self._size.size} entries does not begin with the {part.size} that the log has: it did"
                " not only grow"
            )

    def _bundle(self, start: int) -> list[bytes]:
        return bundle_from(self._read, self._size.campaign_id, self._size.size, start)


@contextmanager
def _below(folder: str) -> Iterator[None]:
    """Name what is wrong with a file by its whole path."""
    try:
        yield
    except DrawError as error:
        raise DrawError(f"{folder}/{error.artefact}", error.message) from None


def _newest_from(size: int) -> int:
    """The first of the newest entries, which are looked through; it begins a bundle."""
    return max(0, -(-size // WIDTH) * WIDTH - LOOKED_THROUGH)


def _leaves(registration: Registration) -> dict[int, str]:
    """Those that it had, by the index of their entry, in order."""
    noted = {each.index: each.notice.leaf for each in registration.notices if each.notice.leaf}
    return {registration.index: registration.leaf} | noted
