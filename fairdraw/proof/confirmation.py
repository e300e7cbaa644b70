"""The check of a fan's confirmation against the published files: the entry is in the list, and the list in the log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Self

from fairdraw.documents import as_document
from fairdraw.errors import DrawError
from fairdraw.log.leaves import CHECKPOINT, Kind, LeafTimes, LogLeaf
from fairdraw.log.note import NoteError
from fairdraw.log.parts import Published, published
from fairdraw.log.place import Place, in_log
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


class _Sizes(NamedTuple):
    first: _Logged
    newest: _Logged


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
        # Where no notice was looked for.
        self._unread: tuple[str, ...] = ()
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
        """Raises DrawError for a log that does not hold together, Unchecked if there is none."""
        found = published(self._place.read, self._trust.keys)
        if found is None:
            raise Unchecked("no log: nothing shows when the list of registrations was what it is")
        return found

    @cached_property
    def _of_campaign(self) -> Sequence[tuple[int, LogLeaf]]:
        """Those of the campaign in the log, in order."""
        return self._log.state.of_campaign(self.confirmation.campaign_id)

    @cached_property
    def _closed(self) -> int | None:
        """How many entries the list of the draw has; None if no manifest in the log is published here."""
        data = self._place.read(self._manifest_path)
        if data is None or sha256_hex(data) not in _manifests(self._of_campaign):
            return None
        counted = Manifest.parse(data).registrations
        return 0 if counted is None else counted.size

    @property
    def _manifest_path(self) -> str:
        return f"draws/{self.confirmation.campaign_id}/phase-1/{MANIFEST}"

    def _beyond(self) -> str:
        """Why the entry cannot be in the list of the draw; empty if nothing speaks against it."""
        if self._closed is None or self.confirmation.index < self._closed:
            return ""
        return f"not in the list: the draw closed it at {self._closed} entries"

    @cached_property
    def _sizes(self) -> _Sizes:
        """The first and the newest size of the list that are in the log and have the entry."""
        own = self.confirmation
        if beyond := self._beyond():
            raise Unchecked(beyond)
        leaves = {leaf.hash: index for index, leaf in self._of_campaign if leaf.kind is Kind.REGISTRATIONS}
        has_none = self._place.read(self._checkpoint_path) is None and not leaves
        sizes = () if has_none else tree_state(self._read, own.campaign_id).sizes
        having = [size for size in sizes if size > own.index]
        newest = self._first_logged(reversed(having), leaves)
        first = self._first_logged(having, leaves)
        if newest is None or first is None:
            before = self._first_logged(reversed(sizes[: len(sizes) - len(having)]), leaves)
            self._require_open(None if before is None else before.index)
            raise Unchecked(f"{NOT_YET}: no list of registrations in the log has an entry {own.index}")
        return _Sizes(first, newest)

    @property
    def _checkpoint_path(self) -> str:
        return f"{tree_folder(self.confirmation.campaign_id)}/{CHECKPOINT}"

    def _require_open(self, last: int | None) -> None:
        """Refuse "not yet" where the entry cannot come any more, or where the log has a newer list than that of the
        leaf `last` (None: there is none): then the published files were changed.
        """
        since = _since_opening(self._of_campaign)
        newest = [index for index, leaf in since if leaf.kind is Kind.REGISTRATIONS][-1:]
        if newest and newest != [last]:
            raise DrawError(
                self._checkpoint_path,
                f"names no list of registrations that is leaf {newest[0]} of the log: it was changed, or a file in"
                " sizes",
            )
        if not (manifests := _manifests(since)):
            return
        if self._closed is None and sha256_hex(self._read(self._manifest_path)) != manifests[-1]:
            raise DrawError(self._manifest_path, "is not the one in the log")
        wrong(
            f"not in the list: the draw counts {self._closed} entries, and no list of registrations in the log has as"
            " many"
        )

    def _first_logged(self, sizes: Iterable[int], leaves: Mapping[str, int]) -> _Logged | None:
        for size in sizes:
            name = f"{tree_folder(self.confirmation.campaign_id)}/{size_name(size)}"
            data = self._read(name)
            if (index := leaves.get(sha256_hex(data))) is not None:
                file = RegistrationSize.parse(data, name)
                if (file.campaign_id, file.size) != (self.confirmation.campaign_id, size):
                    raise DrawError(name, "is about another campaign or size")
                return _Logged(index, file)
        return None

    def _check_registration(self) -> str:
        if beyond := self._beyond():
            wrong(beyond)
        own, newest = self.confirmation, self._sizes.newest.file
        since = 0 if self._whole else _newest_from(newest.size)
        found = self._registration(newest, since)
        if own.leaf not in _leaves(found) and since > own.index:
            # A notice before may have given it this unit.
            since, found = 0, self._registration(newest, 0)
        leaves = _leaves(found)
        if own.leaf not in leaves:
            wrong(
                f"entry {own.index} of the list is another one: ref, unit, time and salt do not give its leaf"
            )
        # Notices before the unit of the confirmation are known to its fan.
        for number, noted in enumerate(found.notices):
            if noted.notice.leaf is None or own.leaf not in leaves[number + 1 :]:
                self.findings.append(noted_line(noted))
        first = f"entry {own.index} of {newest.size} in the list of registrations (from 0), registered at {own.at}"
        if since > own.index:
            self._unread = (_NOT_READ.format(since),)
        return "\n".join([first, *map(noted_line, found.notices)])

    def _registration(self, newest: RegistrationSize, since: int) -> Registration:
        """The entry at the index with the notices about it from the entry `since` on, from a list whose root was
        computed again: over the entries that were read, and the hashes of other bundles.
        """
        index, folder = self.confirmation.index, tree_folder(newest.campaign_id)
        stored = StoredTree(newest.size, lambda path: self._read(f"{folder}/{path}"))
        own = index // WIDTH * WIDTH
        blocks: list[bytes] = []
        found: Registration | None = None
        for start in range(0, newest.size, WIDTH):
            if start != own and start < max(own, since):
                blocks.append(stored.root(start, start + WIDTH))
                continue
            entries = bundle_from(self._read, newest.campaign_id, newest.size, start)
            blocks.append(root_over([*map(leaf_hash, entries)]))
            for at, entry in enumerate(entries, start):
                if at == index:
                    text = entry.decode("ascii", "replace")
                    if not is_hash(text):
                        wrong(f"entry {at} of the list is no registration")
                    found = Registration(at, text)
                elif found is not None and (notice := Notice.parse(entry)) and notice.index == index:
                    found = found.with_notice(at, notice)
        if root_over(blocks).hex() != newest.root or found is None:
            wrong(f"the {newest.size} entries of the list do not have the root that is in the log")
        return found

    def _check_log(self) -> str:
        newest, state = self._sizes.newest, self._log.state
        return (
            f"the list of {newest.file.size} entries with root {newest.file.root} is leaf {newest.index} of the log"
            f" {state.origin} of {state.size} leaves"
        )

    def _check_witnesses(self) -> str:
        first, (state, keys) = self._sizes.first, self._log
        times = LeafTimes(state, keys, in_log(self._place.read))
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
        except NoteError as error:
            wrong(str(error))
        found = seen_by(notes[-1], keys.quorum)
        seen = len(signed[0])
        self.since = f"in the list since {iso(at)}, by {'1 witness' if seen == 1 else f'{seen} witnesses'}"
        if not keys.quorum.colluders:
            raise Unchecked(WEAK_QUORUM)
        return f"{self.since}\n{found}"


def _newest_from(size: int) -> int:
    """The first of the newest entries, which are looked through; it begins a bundle."""
    return max(0, -(-size // WIDTH) * WIDTH - LOOKED_THROUGH)


def _manifests(leaves: Iterable[tuple[int, LogLeaf]]) -> list[str]:
    """The hashes of the manifests of phase 1."""
    return [leaf.hash for _, leaf in leaves if (leaf.kind, leaf.phase) == (Kind.MANIFEST, 1)]


def _since_opening(leaves: Sequence[tuple[int, LogLeaf]]) -> Sequence[tuple[int, LogLeaf]]:
    """Those after the last one that opened the campaign, as the page reads them: from the end of the log back to it."""
    opened = [at for at, (_, leaf) in enumerate(leaves, 1) if leaf.kind is Kind.OPENED]
    return leaves[opened[-1] if opened else 0 :]


def _leaves(registration: Registration) -> list[str]:
    """Those that it had, in order."""
    return [registration.leaf, *(noted.notice.leaf for noted in registration.notices if noted.notice.leaf)]
