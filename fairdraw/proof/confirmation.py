"""The check of a fan's confirmation against the published files: the entry is in the list, and the list in the log."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

from fairdraw.documents import as_document
from fairdraw.errors import DrawError
from fairdraw.log.leaves import Kind, LeafTimes
from fairdraw.log.note import NoteError
from fairdraw.log.parts import Published, published
from fairdraw.log.place import Place, in_log
from fairdraw.log.registered import entries_of, tree_state
from fairdraw.log.tree import WIDTH, StoredTree, root_over
from fairdraw.log.trust import WEAK_QUORUM, Trust, TrustedKey
from fairdraw.maths.files import Fields, JsonFile, is_hash, json_keys, sha256_hex
from fairdraw.maths.merkle import leaf_hash
from fairdraw.maths.registration import (
    SALT,
    Notice,
    Registration,
    RegistrationSize,
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
_ITS_KEYS = (
    "Some keys are taken as the operator published them beside the log: compare their fingerprints with a source that"
    " the operator cannot change, or give a file of trusted keys (`--trust`)."
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
    # That of the entry.
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
            ref=fields.text("ref", str, "a ref"),
            salt=fields.text("salt", SALT.fullmatch, "32 lower-case hex digits"),
            unit=None if fields.raw("unit") is None else fields.text("unit", str, "a unit"),
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
    """Runs the steps of the check of a confirmation; `place` has the published files."""

    def __init__(self, confirmation: Confirmation, place: Place, trust: Trust) -> None:
        self.confirmation, self._place, self._trust = confirmation, place, trust
        # What was noted about the entry that its fan may not know.
        self.findings: list[str] = []
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
            *([_ITS_KEYS] if any(key.given == "log" for key in self.keys()) else ()),
        )

    @cached_property
    def _log(self) -> Published:
        """Raises DrawError for a log that does not hold together, Unchecked if there is none."""
        found = published(self._place.read, self._trust.keys)
        if found is None:
            raise Unchecked("no log: nothing shows when the list of registrations was what it is")
        return found

    @cached_property
    def _sizes(self) -> list[_Logged]:
        """The sizes of the list that are in the log, with the entry, in order."""
        own = self.confirmation
        leaves = {
            leaf.hash: index
            for index, leaf in self._log.state.of_campaign(own.campaign_id)
            if leaf.kind is Kind.REGISTRATIONS
        }
        if not leaves:
            raise Unchecked(f"{NOT_YET}: the log has no list of registrations of this campaign")
        found = []
        for size in tree_state(self._place.read, own.campaign_id).sizes:
            name = f"{tree_folder(own.campaign_id)}/{size_name(size)}"
            data = self._place.read(name) if size > own.index else None
            if data is not None and (index := leaves.get(sha256_hex(data))) is not None:
                file = RegistrationSize.parse(data, name)
                if (file.campaign_id, file.size) != (own.campaign_id, size):
                    raise DrawError(name, "is about another campaign or size")
                found.append(_Logged(index, file))
        if not found:
            raise Unchecked(f"{NOT_YET}: no list of registrations in the log has an entry {own.index}")
        return found

    def _check_registration(self) -> str:
        own, newest = self.confirmation, self._sizes[-1].file
        found = self._registration(newest)
        leaves = [found.leaf, *(noted.notice.leaf for noted in found.notices if noted.notice.leaf)]
        if own.leaf not in leaves:
            wrong(
                f"entry {own.index} of the list is another one: ref, unit, time and salt do not give its leaf"
            )
        # Notices before the unit of the confirmation are known to its fan.
        for number, noted in enumerate(found.notices):
            if noted.notice.leaf is None or own.leaf not in leaves[number + 1 :]:
                self.findings.append(noted_line(noted))
        first = f"entry {own.index} of {newest.size} in the list of registrations (from 0), registered at {own.at}"
        return "\n".join([first, *map(noted_line, found.notices)])

    def _registration(self, newest: RegistrationSize) -> Registration:
        """The entry at the index with all notices about it, from a list whose root was computed again."""
        folder, start = tree_folder(newest.campaign_id), self.confirmation.index // WIDTH * WIDTH
        stored = StoredTree(newest.size, lambda path: self._place.read(f"{folder}/{path}"))
        blocks = [stored.root(at, at + WIDTH) for at in range(0, start, WIDTH)]
        found: Registration | None = None
        bundle: list[bytes] = []
        for at, entry in enumerate(
            entries_of(self._place.read, newest.campaign_id, newest.size, start), start
        ):
            bundle.append(leaf_hash(entry))
            if len(bundle) == WIDTH:
                blocks.append(root_over(bundle))
                bundle = []
            if at == self.confirmation.index:
                text = entry.decode("ascii", "replace")
                if not is_hash(text):
                    wrong(f"entry {at} of the list is no registration")
                found = Registration(at, text)
            elif found is not None and (notice := Notice.parse(entry)) and notice.index == found.index:
                found = found.with_notice(at, notice)
        if (
            root_over([*blocks, *([root_over(bundle)] if bundle else [])]).hex() != newest.root
            or found is None
        ):
            wrong(f"the {newest.size} entries of the list do not have the root that is in the log")
        return found

    def _check_log(self) -> str:
        newest, state = self._sizes[-1], self._log.state
        return (
            f"the list of {newest.file.size} entries with root {newest.file.root} is leaf {newest.index} of the log"
            f" {state.origin} of {state.size} leaves"
        )

    def _check_witnesses(self) -> str:
        first, (state, keys) = self._sizes[0], self._log
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
