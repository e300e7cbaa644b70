"""The tree of a campaign's registrations: its leaves, the notices about them, and what does not verify in it.

A leaf commits to one entry and says nothing without its salt. A notice says that a leaf was withdrawn or erased, or got
another unit. Both are entries of one tree, in the order in which they were appended.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar, Self

from fairdraw.errors import DrawError
from fairdraw.maths.files import Fields, JsonFile, is_hash, sha256_hex, short
from fairdraw.maths.manifest import Manifest
from fairdraw.maths.merkle import TreeHash, leaf_hash

# The folder that has the folder of each campaign's tree; also what errors about a tree name.
REGISTRATIONS = "registrations"
NOTICE_PREFIX = "vfnote1|"
_NOTICE = re.compile(
    rb"vfnote1\|(0|[1-9][0-9]{0,15})\|(?:(withdrawn|erased)\|-|unit\|([0-9a-f]{64}))", re.ASCII
)
# The salt of a leaf: 128 random bits.
SALT = re.compile("[0-9a-f]{32}", re.ASCII)
_REASONS = re.compile("[A-Z_]+(?:,[A-Z_]+)*", re.ASCII)
_LEAF_BYTES = 32
# Places in the table of an empty tree, a power of two.
_FIRST_TABLE = 1 << 10


def tree_folder(campaign_id: str) -> str:
    """Return the folder of a campaign's tree: its tiles, bundles and sizes are below."""
    return f"{REGISTRATIONS}/{campaign_id}"


def size_name(size: int) -> str:
    """Return the name of the file of a size in the folder of its tree."""
    return f"sizes/{size}.json"


def registration_leaf(campaign_id: str, ref: str, unit: str, at: str, salt: str) -> str:
    """Return what the tree has for an entry: SHA-256, in hex, of `"vfreg1|" + campaignId + "|" + ref + "|" + unit + "|"
    + at + "|" + salt`. `unit` is as leaves.txt has it, `at` a time in ISO format, `salt` 32 hex digits.
    """
    return sha256_hex(f"vfreg1|{campaign_id}|{ref}|{unit}|{at}|{salt}".encode())


class NoticeKind(StrEnum):
    """What a notice says of its registration."""

    WITHDRAWN = "withdrawn"
    ERASED = "erased"
    # It has another unit, with the same ref, time and salt.
    UNIT = "unit"


@dataclass(frozen=True, slots=True)
class Notice:
    """An entry of the tree about the earlier one at `index`. `leaf` is the new one of kind `unit`, else None."""

    index: int
    kind: NoticeKind
    leaf: str | None = None

    @property
    def text(self) -> bytes:
        """The entry of the tree."""
        return f"{NOTICE_PREFIX}{self.index}|{self.kind}|{self.leaf or '-'}".encode()

    @staticmethod
    def parse(entry: bytes) -> Notice | None:
        """Read exactly these bytes; None if they are no notice."""
        found = _NOTICE.fullmatch(entry)
        if found is None:
            return None
        index, ended, leaf = found.groups()
        kind = NoticeKind(ended.decode()) if ended else NoticeKind.UNIT
        return Notice(int(index), kind, leaf.decode() if leaf else None)


@dataclass(frozen=True, slots=True)
class Noted:
    """A notice, and its own index in the tree."""

    index: int
    notice: Notice


@dataclass(frozen=True, slots=True)
class Registration:
    """One registration, and all notices about it in the order of the tree."""

    index: int
    # The entry at its index.
    leaf: str
    notices: tuple[Noted, ...] = ()

    @property
    def ended(self) -> NoticeKind | None:
        """Why it counts no more; None as long as it does."""
        kind = self.notices[-1].notice.kind if self.notices else NoticeKind.UNIT
        return None if kind is NoticeKind.UNIT else kind

    @property
    def current(self) -> str:
        """What is recomputed from ref, unit, time and salt: the leaf of the last notice that gave another unit, else
        its own.
        """
        return next((noted.notice.leaf for noted in reversed(self.notices) if noted.notice.leaf), self.leaf)

    def with_notice(self, at: int, notice: Notice) -> Registration:
        """Return it with the notice at index `at`. Raises DrawError if that may not follow."""
        last = self.notices[-1].index if self.notices else self.index
        if notice.index != self.index or at <= last:
            raise DrawError(
                REGISTRATIONS, f"entry {at} is no notice about entry {self.index} that follows {last}"
            )
        if self.ended is not None:
            raise DrawError(
                REGISTRATIONS,
                f"entry {at} is a notice about entry {self.index}, which was {self.ended} before",
            )
        return replace(self, notices=(*self.notices, Noted(at, notice)))


@dataclass(frozen=True, slots=True)
class RegistrationSize(JsonFile):
    """sizes/<size>.json: size and root of a campaign's tree at one moment, whose hash is a leaf of the log."""

    FILE: ClassVar[str] = "size of registrations"

    campaign_id: str
    # That over all entries, in hex.
    root: str
    # The number of entries.
    size: int

    @property
    def hash(self) -> str:
        return sha256_hex(self.to_bytes())

    @classmethod
    def read(cls, fields: Fields) -> Self:
        return cls(fields.id("campaignId"), fields.hash("root"), fields.integer("size"))


def size_problem(manifest: Manifest, last: str | None) -> str:
    """Return what is wrong with root and size in the manifest of phase 1, before whose leaf the log last had the size
    of its tree with this hash (None: it had none); empty if nothing is.
    """
    logged = manifest.registrations
    if logged is None:
        return "" if last is None else "registrations: null is not what the log had last before the manifest"
    size = RegistrationSize(manifest.campaign_id, logged.root, logged.size)
    if last is None and (logged.size, logged.root) == (0, sha256_hex(b"")):
        return ""
    if last == size.hash:
        return ""
    return (
        f"registrations: {logged.size} entries with root {logged.root} are not what the log had last before the"
        " manifest"
    )


@dataclass(frozen=True, slots=True)
class TreeState(JsonFile):
    """checkpoint: all that was appended to a campaign's tree so far, and where its sizes are."""

    FILE: ClassVar[str] = "checkpoint of registrations"

    campaign_id: str
    # How many registrations ended so.
    erased: int
    # The same, taken back by their fans.
    withdrawn: int
    # Entries that are notices of any kind.
    notices: int
    # That over all entries, in hex.
    root: str
    # The number of entries.
    size: int
    # Those that have a file `RegistrationSize`, ascending.
    sizes: tuple[int, ...] = ()

    @property
    def last_size(self) -> int:
        """The last one that has a file; 0: none has."""
        return self.sizes[-1] if self.sizes else 0

    @classmethod
    def read(cls, fields: Fields) -> Self:
        size, sizes = fields.integer("size"), fields.list("sizes")
        before = 0
        for each in sizes:
            if type(each) is not int or not before < each <= size:
                fields.refuse(
                    "sizes", f"numbers from 1 to {size} that increase are needed, found {short(each)}"
                )
            before = each
        return cls(
            campaign_id=fields.id("campaignId"),
            erased=fields.integer("erased"),
            withdrawn=fields.integer("withdrawn"),
            notices=fields.integer("notices"),
            root=fields.hash("root"),
            size=size,
            sizes=tuple(sizes),
        )


class RegistrationClass(StrEnum):
    """What became of a registration in the draw: each is in exactly one class."""

    DRAWN = "drawn"
    EXCLUDED = "excluded"
    WITHDRAWN = "withdrawn"
    ERASED = "erased"


@dataclass(frozen=True, slots=True)
class OpenedRegistration(JsonFile):
    """One line of an opening, which the operator gives to an auditor: what a leaf of the tree means.

    Time, ref, salt and unit are None where the operator has them no more. Ref and unit may be any text: an entry whose
    ref or unit is no id is registered, and excluded from the draw.
    """

    FILE: ClassVar[str] = "opening"

    class_: RegistrationClass
    # That of the registration in the tree.
    index: int
    # When it was registered.
    at: str | None
    # That of the entry.
    ref: str | None
    # It is 32 hex digits.
    salt: str | None
    # What leaves.txt has or would have: that of the last notice with another unit, if there is one.
    unit: str | None
    # Why an excluded entry has no leaf in the draw, several joined by commas; else None.
    reason: str | None = None

    @classmethod
    def read(cls, fields: Fields) -> Self:
        classes = {*RegistrationClass}
        class_ = RegistrationClass(
            fields.text("class", classes.__contains__, f"one of {', '.join(RegistrationClass)}")
        )

        def text(key: str, accept: Callable[[str], object], what: str) -> str | None:
            return None if fields.raw(key) is None else fields.text(key, accept, what)

        reason = text("reason", _REASONS.fullmatch, "reasons of A-Z and _, joined by commas,")
        if (reason is None) == (class_ is RegistrationClass.EXCLUDED):
            fields.refuse("reason", "one is needed for an excluded entry, and for no other")
        return cls(
            class_=class_,
            index=fields.integer("index"),
            at=None if fields.raw("at") is None else fields.time("at"),
            ref=text("ref", any_text, "a ref"),
            salt=text("salt", SALT.fullmatch, "32 lower-case hex digits"),
            unit=text("unit", any_text, "a unit"),
            reason=reason,
        )


def any_text(_text: str) -> bool:
    """Whether a text may be the ref or the unit of a registered entry: an entry without a ref has the empty one."""
    return True


class RegistrationTree:
    """A tree as it grows, in some 50 bytes for each entry; every entry is checked against all before it."""

    def __init__(self) -> None:
        self._tree = TreeHash()
        self._leaves = LeafPlaces(_LEAF_BYTES)
        self._noted: dict[int, Registration] = {}
        # The index of the registration that each notice is about, by the notice's own.
        self._owners: dict[int, int] = {}
        # How many registrations ended, by why.
        self.withdrawn = self.erased = 0

    @property
    def size(self) -> int:
        """The number of entries."""
        return self._leaves.size

    @property
    def root(self) -> str:
        """The root over all entries, in hex."""
        return self._tree.root().hex()

    @property
    def notices(self) -> int:
        """The number of notices of all kinds."""
        return len(self._owners)

    @property
    def noted(self) -> Mapping[int, Registration]:
        """The registrations that have notices, by index."""
        return MappingProxyType(self._noted)

    def add(self, entry: bytes) -> None:
        """Append an entry. Raises DrawError for one that does not verify, which leaves the tree as it is."""
        notice, text = Notice.parse(entry), entry.decode("ascii", "replace")
        if notice is not None:
            self._add_notice(notice)
        elif is_hash(text):
            self._add_leaf(text, self.size)
        else:
            raise DrawError(REGISTRATIONS, f"entry {self.size} is neither a leaf nor a notice")
        self._tree.add(leaf_hash(entry))

    def at(self, index: int) -> Registration | None:
        """The registration at this index, with its notices; None for a notice, and beyond the tree."""
        if index in self._noted:
            return self._noted[index]
        if index in self._owners or not 0 <= index < self.size:
            return None
        return Registration(index, self._leaves.at(index).hex())

    def find(self, leaf: str) -> Registration | None:
        """The registration that has this leaf, or had it before or after a notice; None if there is none."""
        place = self._leaves.place(bytes.fromhex(leaf))
        return None if place is None else self.at(self._owners.get(place, place))

    def _add_leaf(self, leaf: str, owner: int) -> None:
        found = self.find(leaf)
        if found is not None and found.index != owner:
            raise DrawError(
                REGISTRATIONS,
                f"entry {self.size} has the leaf of entry {found.index}: one leaf for two entries",
            )
        self._leaves.append(bytes.fromhex(leaf))

    def _add_notice(self, notice: Notice) -> None:
        at, before = self.size, self.at(notice.index)
        if before is None:
            raise DrawError(
                REGISTRATIONS, f"entry {at} is a notice about entry {notice.index}, which is no earlier leaf"
            )
        noted = before.with_notice(at, notice)
        if notice.leaf is None:
            self._leaves.append(None)
        else:
            self._add_leaf(notice.leaf, notice.index)
        self._noted[notice.index], self._owners[at] = noted, notice.index
        self.withdrawn += notice.kind is NoticeKind.WITHDRAWN
        self.erased += notice.kind is NoticeKind.ERASED


class LeafPlaces:
    """Leaves by place, and the place of a leaf: a hash table with open addressing over one array of bytes. It keeps the
    first `mark_bytes` of each leaf: two leaves with the same 16 cannot be found. Its table has 8 to 16 bytes for each.
    """

    def __init__(self, mark_bytes: int) -> None:
        self._mark_bytes, self._marks = mark_bytes, bytearray()
        # A place counted from 1; 0: free.
        self._table = array("I", bytes(4 * _FIRST_TABLE))

    @property
    def size(self) -> int:
        return len(self._marks) // self._mark_bytes

    def at(self, place: int) -> bytes:
        """What is kept of the leaf at a place."""
        return bytes(self._marks[place * self._mark_bytes : (place + 1) * self._mark_bytes])

    def place(self, leaf: bytes) -> int | None:
        """None for a leaf that has none."""
        found = self._table[self._slot(leaf[: self._mark_bytes])]
        return found - 1 if found else None

    def append(self, leaf: bytes | None) -> None:
        """Take the next place with a leaf, or with none. The first place of a leaf that is there twice counts."""
        self._marks += leaf[: self._mark_bytes] if leaf else bytes(self._mark_bytes)
        if leaf is not None:
            self._enter(self.size)
        if 2 * self.size > len(self._table):
            before = self._table
            self._table = array("I", bytes(2 * len(before) * before.itemsize))
            for found in filter(None, before):
                self._enter(found)

    def _enter(self, found: int) -> None:
        slot = self._slot(self.at(found - 1))
        self._table[slot] = self._table[slot] or found

    def _slot(self, mark: bytes) -> int:
        """The slot of the table that has this leaf, else the free one for it."""
        last = len(self._table) - 1
        slot = int.from_bytes(mark[:8], "big") & last
        while (place := self._table[slot]) and self.at(place - 1) != mark:
            slot = slot + 1 & last
        return slot
