"""A Merkle tree (RFC 6962) that grows, and its files: C2SP tlog-tiles, which any monitor of logs can read.

A tile has up to 256 hashes of one level, a bundle the entries of up to 256 leaves; the last of each is partial, and its
path says how long it is. So what is stored is never changed, and who appends needs the last files only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import NamedTuple, Self

from fairdraw.errors import DrawError
from fairdraw.log.place import Read
from fairdraw.maths.merkle import TreeHash, leaf_hash

WIDTH = 256
# Levels of the binary tree in a tile.
_HEIGHT = 8
_HASH_BYTES = 32
# An entry's length has two bytes.
_LENGTH_BYTES = 2


class TreeFile(NamedTuple):
    """A tile, or a bundle of entries."""

    path: str
    data: bytes


class StoredTree:
    """The tree of `size` leaves by its stored tiles, of which each is read when it is needed, and once.

    Every method raises DrawError for a tile that is missing, or is none.
    """

    def __init__(self, size: int, read: Read) -> None:
        self.size, self._read = size, read
        self._tiles: dict[str, list[bytes]] = {}

    def root(self, start: int = 0, end: int | None = None) -> bytes:
        """The root over the leaves from `start` to before `end`: the whole tree, or a subtree of it."""
        end = self.size if end is None else end
        count = end - start
        if count & (count - 1):
            half = start + _left(count)
            return _above(self.root(start, half), self.root(half, end))
        if not count:
            return root_over([])
        level, height = divmod(count.bit_length() - 1, _HEIGHT)
        number, first = divmod(start >> _HEIGHT * level, WIDTH)
        return root_over(self.tile(level, number)[first : first + (1 << height)])

    def tile(self, level: int, number: int) -> list[bytes]:
        """The hashes of a tile of this tree."""
        last = min((number + 1) * WIDTH, self.size >> _HEIGHT * level)
        path = _path(str(level), last)
        if path not in self._tiles:
            data = _file(self._read, path)
            if len(data) != (last - number * WIDTH) * _HASH_BYTES:
                raise DrawError(path, f"not a tile of {last - number * WIDTH} hashes")
            starts = range(0, len(data), _HASH_BYTES)
            self._tiles[path] = [data[start : start + _HASH_BYTES] for start in starts]
        return self._tiles[path]

    def inclusion(self, index: int) -> list[bytes]:
        """The proof that the tree has the leaf: its siblings, from the leaf up to the root (RFC 6962, 2.1.1)."""
        start, end, siblings = 0, self.size, []
        while end - start > 1:
            half = start + _left(end - start)
            if index < half:
                siblings.append((half, end))
                end = half
            else:
                siblings.append((start, half))
                start = half
        return [self.root(*each) for each in reversed(siblings)]

    def consistency(self, old: int) -> list[bytes]:
        """The proof that the tree begins with the tree of size `old` (RFC 6962, 2.1.2)."""
        return self._subproof(old, 0, self.size, whole=True) if old else []

    def _subproof(self, old: int, start: int, end: int, *, whole: bool) -> list[bytes]:
        """`whole`: the verifier knows the root over the leaves up to `old`."""
        if old == end:
            return [] if whole else [self.root(start, end)]
        half = start + _left(end - start)
        if old <= half:
            return [*self._subproof(old, start, half, whole=whole), self.root(half, end)]
        return [*self._subproof(old, half, end, whole=False), self.root(start, half)]


class GrowingTree:
    """A tree at its end. In memory are the entries of the last bundle and the hashes of the last tile of each level,
    unless they are full.
    """

    def __init__(self) -> None:
        self.size = 0
        self._entries: list[bytes] = []
        self._edge: list[list[bytes]] = []
        self._full: list[TreeFile] = []

    @classmethod
    def resume(cls, size: int, read: Read) -> Self:
        """The tree of this size by its last bundle and tiles. Raises DrawError for one that is missing, or is none; the
        caller compares the root.
        """
        tree, stored = cls(), StoredTree(size, read)
        tree.size = size
        if size % WIDTH:
            path = bundle_path(size)
            tree._entries = read_bundle(_file(read, path), path)
            if len(tree._entries) != size % WIDTH:
                raise DrawError(path, f"not a bundle of {size % WIDTH} entries")
        tree._edge.append([leaf_hash(each) for each in tree._entries])
        while count := size >> _HEIGHT * (level := len(tree._edge)):
            tree._edge.append(stored.tile(level, count // WIDTH) if count % WIDTH else [])
        return tree

    def append(self, entry: bytes) -> None:
        self.size += 1
        self._entries.append(entry)
        if len(self._entries) == WIDTH:
            self._full.append(TreeFile(bundle_path(self.size), write_bundle(self._entries)))
            self._entries = []
        node, level = leaf_hash(entry), 0
        while True:
            if level == len(self._edge):
                self._edge.append([])
            hashes = self._edge[level]
            hashes.append(node)
            if len(hashes) < WIDTH:
                return
            self._full.append(TreeFile(_path(str(level), self.size >> _HEIGHT * level), b"".join(hashes)))
            node, self._edge[level] = root_over(hashes), []
            level += 1

    def root(self) -> bytes:
        right: list[bytes] = []
        for hashes in self._edge:
            right = [root_over([*hashes, *right])] if hashes or right else []
        return right[0] if right else root_over([])

    def next_bundle(self, entry: bytes) -> TreeFile:
        """The last bundle as it would be with one more entry."""
        return TreeFile(bundle_path(self.size + 1), write_bundle([*self._entries, entry]))

    def full(self) -> list[TreeFile]:
        """The bundles and tiles that filled since the last call."""
        files, self._full = self._full, []
        return files

    def partial(self, since: int = 0) -> list[TreeFile]:
        """The last bundle and tiles where they are not full, without those that the tree of size `since` had, too."""
        files = []
        if self._entries and self.size != since:
            files.append(TreeFile(bundle_path(self.size), write_bundle(self._entries)))
        for level, hashes in enumerate(self._edge):
            count = self.size >> _HEIGHT * level
            if hashes and count != since >> _HEIGHT * level:
                files.append(TreeFile(_path(str(level), count), b"".join(hashes)))
        return files


def root_over(nodes: Sequence[bytes]) -> bytes:
    """The root over the hashes of leaves, or of subtrees of equal size of which the last may be smaller."""
    tree = TreeHash()
    for node in nodes:
        tree.add(node)
    return tree.root()


def _left(count: int) -> int:
    """How many of the leaves are in the left subtree."""
    return 1 << (count - 1).bit_length() - 1


def _file(read: Read, path: str) -> bytes:
    data = read(path)
    if data is None:
        raise DrawError(path, "is missing, and the tree has it")
    return data


def is_consistent(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether `proof` shows that the tree of size `new` begins with that of size `old` (RFC 9162, 2.1.4.2)."""
    if old == new or old == 0:
        return not proof and old <= new and (old != new or old_root == new_root)
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if old > new or not path:
        return False
    first, last = old - 1, new - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    found_old = found_new = path[0]
    for node in path[1:]:
        if last == 0:
            return False
        if first & 1 or first == last:
            found_old, found_new = _above(node, found_old), _above(node, found_new)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            found_new = _above(found_new, node)
        first, last = first >> 1, last >> 1
    return last == 0 and (found_old, found_new) == (old_root, new_root)


def _above(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def bundle_path(size: int) -> str:
    """Path of the bundle with the last entry of a log of `size`."""
    return _path("entries", size)


def bundle_paths(size: int) -> Iterator[str]:
    """Yield the paths of all bundles of a log of `size`, in order. A checkpoint may claim any size."""
    for end in range(WIDTH, size + WIDTH, WIDTH):
        yield bundle_path(min(end, size))


def _path(level: str, count: int) -> str:
    """Path of the tile with hash number `count`, from 1, as its last one."""
    number, width = (count - 1) // WIDTH, count % WIDTH
    digits = f"{number:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    name = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    return f"tile/{level}/{name}" + (f".p/{width}" if width else "")


def write_bundle(entries: Sequence[bytes]) -> bytes:
    return b"".join(len(each).to_bytes(_LENGTH_BYTES, "big") + each for each in entries)


def read_bundle(data: bytes, path: str, most: int = WIDTH) -> list[bytes]:
    """Raises DrawError for `path` if the bytes are no bundle of at most `most` entries."""
    entries: list[bytes] = []
    at = 0
    while at < len(data):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(data[at:start], "big")
        entries.append(data[start:at])
    if at != len(data) or not 0 < len(entries) <= most:
        raise DrawError(path, f"not a bundle of 1 to {most} entries")
    return entries
