"""Lists of registrations for draws of tests: entries of all classes in a random order, and what their operator has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from fairdraw.large.receipts import RegistrationSource
from fairdraw.log.tree import WIDTH
from fairdraw.maths.files import canonical_bytes
from fairdraw.maths.leaves import unit_of
from fairdraw.maths.manifest import Registrations
from fairdraw.maths.registration import (
    Notice,
    NoticeKind,
    OpenedRegistration,
    RegistrationClass,
    RegistrationSize,
    RegistrationTree,
    TreeState,
    registration_leaf,
    size_name,
    tree_folder,
)
from tests.fairdraw.maths import oracle
from tests.fairdraw.proof.draws import UNIT_KEY

DRAWN, EXCLUDED = RegistrationClass.DRAWN, RegistrationClass.EXCLUDED
AT = "2023-08-20T08:15:00.123Z"


@dataclass
class Registered:
    """The list of registrations of one campaign, and what its operator has of each."""

    campaign_id: str
    entries: list[bytes] = field(default_factory=list)
    # By index.
    opened: dict[int, OpenedRegistration] = field(default_factory=dict)

    def register(
        self,
        rng: Random,
        ref: str,
        unit: str,
        class_: RegistrationClass = DRAWN,
        reason: str | None = None,
    ) -> OpenedRegistration:
        salt = f"{rng.getrandbits(128):032x}"
        own = OpenedRegistration(class_, len(self.entries), AT, ref, salt, unit, reason)
        self.opened[own.index] = own
        self.entries.append(registration_leaf(self.campaign_id, ref, unit, AT, salt).encode())
        return own

    def note(self, own: OpenedRegistration, kind: NoticeKind, unit: str = "") -> None:
        leaf = None
        if kind is NoticeKind.UNIT:
            leaf = registration_leaf(self.campaign_id, own.ref or "", unit, own.at or "", own.salt or "")
            now = (own.class_, own.index, own.at, own.ref, own.salt, unit, own.reason)
            self.opened[own.index] = OpenedRegistration(*now)
        else:
            gone = RegistrationClass(kind)
            self.opened[own.index] = OpenedRegistration(gone, own.index, None, None, None, None)
        self.entries.append(Notice(own.index, kind, leaf).text)

    @property
    def tree(self) -> RegistrationTree:
        made = RegistrationTree()
        for entry in self.entries:
            made.add(entry)
        return made

    def counted(self, count: int) -> Registrations:
        """What a manifest that has `count` leaves says of the list."""
        tree = self.tree
        excluded = tree.size - tree.notices - count - tree.withdrawn - tree.erased
        return Registrations(tree.erased, excluded, tree.notices, tree.root, tree.size, tree.withdrawn)

    @property
    def size(self) -> RegistrationSize:
        return RegistrationSize(self.campaign_id, oracle.tree_hash(self.entries), len(self.entries))

    def source(self, path: Path) -> RegistrationSource:
        """For receipts; the entries are written to `path`."""
        path.write_bytes(b"".join(entry + b"\n" for entry in self.entries))
        by_ref = {each.ref: each for each in self.opened.values()}
        return RegistrationSource(path, by_ref.get)

    def files(self, sizes: Sequence[int]) -> dict[str, bytes]:
        """What is published of the list by path, which had each of these sizes."""
        folder = tree_folder(self.campaign_id)
        found: dict[str, bytes] = {}
        for size in sizes:
            entries = self.entries[:size]
            root = oracle.tree_hash(entries)
            file = RegistrationSize(self.campaign_id, root, size)
            found[f"{folder}/{size_name(size)}"] = file.to_bytes()
            found |= {f"{folder}/{path}": data for path, data in tiles(entries).items()}
        # Also of a list that breaks the rules.
        kinds = Counter(each.kind for each in map(Notice.parse, self.entries) if each)
        state = TreeState(
            campaign_id=self.campaign_id,
            erased=kinds[NoticeKind.ERASED],
            withdrawn=kinds[NoticeKind.WITHDRAWN],
            notices=kinds.total(),
            root=self.size.root,
            size=self.size.size,
            sizes=tuple(sizes),
        )
        return found | {f"{folder}/checkpoint": state.to_bytes()}

    def opening(self) -> bytes:
        """What the operator gives to an auditor."""
        return b"".join(self.opened[index].to_bytes() + b"\n" for index in sorted(self.opened))

    def confirmation(self, number: int, **changes: Any) -> bytes:
        """What the fan of a registration has."""
        own = self.opened[number]
        return canonical_bytes(
            {
                "at": own.at,
                "campaignId": self.campaign_id,
                "index": number,
                "kind": "registration",
                "ref": own.ref,
                "salt": own.salt,
                "unit": None if own.unit == own.ref else own.unit,
                "version": 1,
            }
            | changes
        )


def tiles(entries: Sequence[bytes]) -> dict[str, bytes]:
    """Tiles and bundles of a list with exactly these entries, by their definition."""
    found: dict[str, bytes] = {}
    for start in range(0, len(entries), WIDTH):
        part = entries[start : start + WIDTH]
        found[_path("entries", start // WIDTH, len(part))] = b"".join(
            len(each).to_bytes(2, "big") + each for each in part
        )
    level, span = 0, 1
    while span <= len(entries):
        roots = [
            bytes.fromhex(oracle.tree_hash(list(entries[start : start + span])))
            for start in range(0, len(entries) - span + 1, span)
        ]
        for start in range(0, len(roots), WIDTH):
            part = roots[start : start + WIDTH]
            found[_path(str(level), start // WIDTH, len(part))] = b"".join(part)
        level, span = level + 1, span * WIDTH
    return found


def _path(level: str, number: int, width: int) -> str:
    return f"tile/{level}/{number:03d}" + (f".p/{width}" if width < WIDTH else "")


def registered(rng: Random, campaign_id: str, units: Mapping[str, str], outside: int = 3) -> Registered:
    """A list with the entries of a draw (units by ref), some of them with another unit at first or with a former life,
    and at most `outside` entries of each other class.
    """
    made = Registered(campaign_id)
    steps: list[tuple[str, str, RegistrationClass]] = [(ref, unit, DRAWN) for ref, unit in units.items()]
    for class_ in RegistrationClass:
        for _ in range(rng.randint(0, outside) if class_ is not DRAWN else 0):
            ref = f"{rng.getrandbits(64):016x}"
            steps.append((ref, rng.choice((ref, unit_of(UNIT_KEY, campaign_id, ref), "")), class_))
    rng.shuffle(steps)
    for ref, unit, class_ in steps:
        if rng.random() < 0.1:
            made.note(made.register(rng, ref, unit), NoticeKind.WITHDRAWN)
        first = ref if rng.random() < 0.2 else unit
        reason = "NO_MARKET" if class_ is EXCLUDED else None
        own = made.register(rng, ref, first, DRAWN if class_ not in (DRAWN, EXCLUDED) else class_, reason)
        if first != unit:
            made.note(own, NoticeKind.UNIT, unit)
        if class_ not in (DRAWN, EXCLUDED):
            made.note(own, NoticeKind(class_))
    return made
