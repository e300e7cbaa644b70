"""The RFC 6962 Merkle tree over the lines of leaves.txt, strikes.txt or result.txt: root, inclusion proofs, and an
index that makes proofs fast.

Leaf hash SHA-256(0x00 + leaf), node SHA-256(0x01 + left + right), split at the largest power of two below n;
the root over no leaves is SHA-256 of nothing.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from fairdraw.errors import DrawError
from fairdraw.maths.files import is_hash

# Leaves per entry of the index: a power of two, so that each block is a complete subtree. A proof hashes one block
# (about 1 ms) and the roots of all blocks (10 M leaves: 10,000 nodes, about 8 ms).
BLOCK_LEAVES = 1024
_ENTRY_BYTES = 40
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Proof:
    """The inclusion proof of one leaf."""

    # Its position, from 0.
    index: int
    # The number of all leaves.
    count: int
    # The line without its line feed.
    leaf: str
    # The way from its sibling to a child of the root, in hex.
    hashes: tuple[str, ...]


class TreeHash:
    """The root of a growing list of subtrees of equal size, as a binary counter with one root per set bit."""

    def __init__(self) -> None:
        self._stack: list[tuple[int, bytes]] = []

    def add(self, subtree: bytes) -> None:
        height = 0
        stack = self._stack
        while stack and stack[-1][0] == height:
            subtree = hashlib.sha256(b"\x01" + stack.pop()[1] + subtree).digest()
            height += 1
        stack.append((height, subtree))

    def root(self) -> bytes:
        """Return the root over all subtrees so far. Only the last may be incomplete."""
        if not self._stack:
            return hashlib.sha256(b"").digest()
        root = self._stack[-1][1]
        for _, left in reversed(self._stack[:-1]):
            root = hashlib.sha256(b"\x01" + left + root).digest()
        return root


def leaf_hash(leaf: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + leaf).digest()


def levels_of(nodes: Sequence[bytes]) -> list[list[bytes]]:
    """Return the levels of the tree over `nodes`, from these to the root; an empty list for none."""
    levels = [list(nodes)] if nodes else []
    while levels and len(levels[-1]) > 1:
        levels.append(_above(levels[-1]))
    return levels


def path_up(position: int, levels: Sequence[Sequence[bytes]]) -> list[bytes]:
    """Return the siblings from `position` in the lowest of the levels up to their root."""
    path = []
    for nodes in levels:
        sibling = position ^ 1
        if sibling < len(nodes):
            path.append(nodes[sibling])
        position //= 2
    return path


def path_to(position: int, nodes: Sequence[bytes]) -> list[bytes]:
    """Return the siblings from `position` up to the root over `nodes`."""
    return path_up(position, levels_of(nodes))


class Root(NamedTuple):
    """The root over a file of leaves, in hex, and the number of leaves."""

    root: str
    leaves: int


def root_of(path: Path) -> Root:
    """Return the root over the lines of a file, at constant memory. Raises DrawError unless each has a line feed."""
    tree, count = TreeHash(), 0
    for _offset, leaves in blocks_of(path):
        tree.add(block_root(leaves))
        count += len(leaves)
    return Root(tree.root().hex(), count)


def root_over(data: bytes) -> str:
    """Return the root over the lines of a small file, in hex, each of which ends with a line feed."""
    tree = TreeHash()
    for line in data.split(b"\n")[:-1]:
        tree.add(leaf_hash(line))
    return tree.root().hex()


def write_index(path: Path, index: Path) -> Root:
    """Do as `root_of`, and write the index of blocks for `proof_of`, which can be rebuilt at any time.

    A block has an entry of 40 bytes: its byte offset in the file (8 bytes, big-endian), then the root of its subtree.
    """
    tree, count = TreeHash(), 0
    made = index.with_name(index.name + ".part")
    with made.open("wb") as file:
        for offset, leaves in blocks_of(path):
            root = block_root(leaves)
            file.write(offset.to_bytes(8, "big") + root)
            tree.add(root)
            count += len(leaves)
    made.replace(index)
    return Root(tree.root().hex(), count)


def proof_of(path: Path, leaf: int | str, *, index: Path | None = None) -> Proof:
    """Return the inclusion proof of the line at this position (from 0), or of the one that begins with this ref, in
    leaves.txt, strikes.txt or result.txt.

    `index` is a file of `write_index`, made here when missing; without one, the whole file is hashed. Raises KeyError
    for an unknown position or ref, DrawError when the index does not belong to the file.
    """
    entries = _entries(path, index)
    with _mapped(path) as data:
        number, leaves = _block_with(data, entries, leaf)
        position = leaf if isinstance(leaf, int) else _position(leaves, number, leaf)
        inside = position - number * BLOCK_LEAVES
        if not 0 <= inside < len(leaves):
            raise KeyError(leaf)
        if block_root(leaves) != entries[number][1]:
            raise DrawError(
                path.name, f"the lines from {number * BLOCK_LEAVES} on do not match their index: rebuild it"
            )
        count = (len(entries) - 1) * BLOCK_LEAVES + data[entries[-1][0] :].count(b"\n")
    proof = path_to(inside, [leaf_hash(each) for each in leaves])
    proof += path_to(number, [root for _, root in entries])
    return Proof(position, count, leaves[inside].decode("ascii"), tuple(each.hex() for each in proof))


def verify_proof(leaf: str, index: int, count: int, proof: Sequence[str], root: str) -> bool:
    """Whether `leaf` is at `index` (from 0) among the `count` leaves under `root` (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < count or not all(is_hash(each) for each in proof):
        return False
    node, last = index, count - 1
    found = leaf_hash(leaf.encode())
    for sibling in map(bytes.fromhex, proof):
        if last == 0:
            return False
        if node & 1 or node == last:
            found = hashlib.sha256(b"\x01" + sibling + found).digest()
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            found = hashlib.sha256(b"\x01" + found + sibling).digest()
        node >>= 1
        last >>= 1
    return last == 0 and found.hex() == root


def blocks_of(path: Path, size: int = 0) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the offset in the file and the leaves of each block of `size` leaves, a power of two (default:
    BLOCK_LEAVES).
    """
    with path.open("rb", buffering=_READ_BYTES) as file:
        offset = 0
        while lines := list(islice(file, size or BLOCK_LEAVES)):
            if not lines[-1].endswith(b"\n"):
                raise DrawError(path.name, "the last line has no line feed")
            yield offset, [line[:-1] for line in lines]
            offset += sum(map(len, lines))


def block_root(leaves: Sequence[bytes]) -> bytes:
    sha256 = hashlib.sha256
    nodes = [sha256(b"\x00" + leaf).digest() for leaf in leaves]
    while len(nodes) > 1:
        nodes = _above(nodes)
    return nodes[0]


def _above(nodes: Sequence[bytes]) -> list[bytes]:
    """Return the next level of the tree."""
    sha256 = hashlib.sha256
    pairs = zip(nodes[::2], nodes[1::2], strict=False)
    above = [sha256(b"\x01" + left + right).digest() for left, right in pairs]
    # An odd node moves up unchanged, which is the split at the largest power of two.
    if len(nodes) % 2:
        above.append(nodes[-1])
    return above


def _entries(path: Path, index: Path | None) -> list[tuple[int, bytes]]:
    if index is None:
        return [(offset, block_root(leaves)) for offset, leaves in blocks_of(path)]
    if not index.exists():
        write_index(path, index)
    data = index.read_bytes()
    if len(data) % _ENTRY_BYTES:
        raise DrawError(path.name, "its index is truncated: rebuild it")
    return [
        (int.from_bytes(data[at : at + 8], "big"), data[at + 8 : at + _ENTRY_BYTES])
        for at in range(0, len(data), _ENTRY_BYTES)
    ]


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap | bytes]:
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data


class _Block(NamedTuple):
    number: int
    leaves: list[bytes]


def _block_with(data: mmap.mmap | bytes, entries: Sequence[tuple[int, bytes]], leaf: int | str) -> _Block:
    """Return the only block that can hold the leaf."""
    if isinstance(leaf, int):
        number = leaf // BLOCK_LEAVES
        if leaf < 0 or number >= len(entries):
            raise KeyError(leaf)
    else:
        number = _last_block_from(data, entries, leaf.encode())
        if number < 0:
            raise KeyError(leaf)
    start = entries[number][0]
    end = entries[number + 1][0] if number + 1 < len(entries) else len(data)
    return _Block(number, data[start:end].split(b"\n")[:-1])


def _last_block_from(data: mmap.mmap | bytes, entries: Sequence[tuple[int, bytes]], ref: bytes) -> int:
    """Return the last block whose first ref is at most `ref`; -1 when there is none."""
    low, high = 0, len(entries)
    while low < high:
        middle = (low + high) // 2
        start = entries[middle][0]
        if data[start : data.find(b"|", start)] <= ref:
            low = middle + 1
        else:
            high = middle
    return low - 1


def _position(leaves: Sequence[bytes], number: int, ref: str) -> int:
    start = ref.encode() + b"|"
    for inside, leaf in enumerate(leaves):
        if leaf.startswith(start):
            return number * BLOCK_LEAVES + inside
    raise KeyError(ref)
