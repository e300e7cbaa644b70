"""Registrations as the rules have them (docs/draw-rules.md, *Registration*), in plain Python that shares no step with
the code it tries: what a leaf commits to, what a notice says, and what a tree is by its entries alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from tests.fairdraw.maths.oracle import sha, tree_hash

Gone = Literal["withdrawn", "erased"]
Read = Callable[[str], bytes | None]
WIDTH = 256
_LEAF = re.compile(rb"[0-9a-f]{64}")
_NOTICE = re.compile(rb"vfnote1\|(0|[1-9][0-9]*)\|(?:(withdrawn|erased)\|-|unit\|([0-9a-f]{64}))")


class Wrong(AssertionError):
    """The entries are no tree of registrations."""


class Commitment(NamedTuple):
    """What a leaf commits to, with its salt."""

    campaign_id: str
    ref: str
    # The unit as it is published.
    unit: str
    at: str
    # In hex.
    salt: str

    @property
    def leaf(self) -> str:
        return sha("|".join(("vfreg1", *self)))


def notice(index: int, kind: str, leaf: str = "-") -> bytes:
    return f"vfnote1|{index}|{kind}|{leaf}".encode()


@dataclass
class Standing:
    """What a tree says of each registration, by its index."""

    # The leaf that counts: that of the last notice `unit`, else the entry itself.
    leaves: dict[int, str] = field(default_factory=dict)
    gone: dict[int, Gone] = field(default_factory=dict)
    # Indexes of notices about it.
    notices: dict[int, list[int]] = field(default_factory=dict)

    @property
    def live(self) -> set[int]:
        return self.leaves.keys() - self.gone.keys()

    def numbers(self) -> dict[str, int]:
        """As in a manifest, but for what only the draw knows."""
        return {
            "notices": sum(map(len, self.notices.values())),
            "withdrawn": sum(each == "withdrawn" for each in self.gone.values()),
            "erased": sum(each == "erased" for each in self.gone.values()),
        }


def standing(entries: Sequence[bytes]) -> Standing:
    """Raises Wrong."""
    found, owners = Standing(), dict[str, int]()

    def take(leaf: str, owner: int) -> str:
        # Who moves out and back in has the first leaf again.
        if owners.setdefault(leaf, owner) != owner:
            raise Wrong(f"{owner} and {owners[leaf]} have one leaf")
        return leaf

    for index, entry in enumerate(entries):
        if _LEAF.fullmatch(entry):
            found.leaves[index] = take(entry.decode(), index)
            continue
        match = _NOTICE.fullmatch(entry)
        if match is None:
            raise Wrong(f"entry {index} is neither a leaf nor a notice: {entry!r}")
        about, gone, unit = int(match[1]), match[2], match[3]
        if about not in found.leaves:
            raise Wrong(f"the notice {index} is about {about}, which is no registration before it")
        if about in found.gone:
            raise Wrong(f"the notice {index} is about {about}, which was {found.gone[about]}")
        found.notices.setdefault(about, []).append(index)
        if unit:
            found.leaves[about] = take(unit.decode(), about)
        else:
            found.gone[about] = "withdrawn" if gone == b"withdrawn" else "erased"
    return found


def root(entries: Sequence[bytes]) -> str:
    return tree_hash(list(entries))


def tile_path(level: str, number: int, width: int = 0) -> str:
    """As C2SP tlog-tiles has it; `width` of a partial one."""
    digits = f"{number:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    *groups, last = (digits[at : at + 3] for at in range(0, len(digits), 3))
    return f"tile/{level}/{''.join(f'x{each}/' for each in groups)}{last}{f'.p/{width}' if width else ''}"


def bundle(entries: Sequence[bytes]) -> bytes:
    return b"".join(len(each).to_bytes(2, "big") + each for each in entries)


def unbundled(data: bytes) -> list[bytes]:
    """Raises Wrong."""
    found, at = list[bytes](), 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 2], "big")
        found.append(data[at + 2 : at + 2 + length])
        at += 2 + length
    if at != len(data) or not found:
        raise Wrong("not a bundle of entries")
    return found


def tiles(entries: Sequence[bytes]) -> dict[str, bytes]:
    """Every tile of a tree of this size, by path below its folder: full ones, and the last of each level."""
    found = {
        tile_path("entries", at // WIDTH, len(part) % WIDTH): bundle(part)
        for at in range(0, len(entries), WIDTH)
        if (part := entries[at : at + WIDTH])
    }
    nodes, level = [hashlib.sha256(b"\x00" + each).digest() for each in entries], 0
    while nodes:
        for at in range(0, len(nodes), WIDTH):
            part = nodes[at : at + WIDTH]
            found[tile_path(str(level), at // WIDTH, len(part) % WIDTH)] = b"".join(part)
        full = len(nodes) // WIDTH * WIDTH
        nodes = [_over(nodes[at : at + WIDTH]) for at in range(0, full, WIDTH)]
        level += 1
    return found


def _over(nodes: Sequence[bytes]) -> bytes:
    """The root over a full tile."""
    while len(nodes) > 1:
        nodes = [
            hashlib.sha256(b"\x01" + left + right).digest()
            for left, right in zip(nodes[::2], nodes[1::2], strict=True)
        ]
    return nodes[0]


def read_entries(read: Read, size: int) -> list[bytes]:
    """The entries of a tree of this size, from its tiles. Raises Wrong for one that is missing."""
    found = list[bytes]()
    while len(found) < size:
        left = min(WIDTH, size - len(found))
        path = tile_path("entries", len(found) // WIDTH, left % WIDTH)
        if (data := read(path)) is None:
            raise Wrong(f"{path} is missing")
        found += unbundled(data)
    return found


def decided(bundles: Mapping[int, bytes]) -> list[bytes]:
    """The entries of all decided bundles, which are named by their first index. Raises Wrong for a gap."""
    found = list[bytes]()
    for first in sorted(bundles):
        if first != len(found):
            raise Wrong(f"the bundle {first} does not begin where the one before ends: {len(found)}")
        found += unbundled(bundles[first])
    return found
