"""The log's Merkle tree (RFC 6962) and its files: C2SP tlog-tiles, which any monitor of logs can read.

`nodes` are always the hashes of the leaves, in order. A tile has up to 256 hashes of one level, a bundle the entries of
up to 256 leaves; the last of each is partial, and its path says how long it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256

from fairdraw.errors import DrawError
from fairdraw.maths.merkle import TreeHash

WIDTH = 256
# An entry's length has two bytes.
_LENGTH_BYTES = 2


def root_over(nodes: Sequence[bytes]) -> bytes:
    tree = TreeHash()
    for node in nodes:
        tree.add(node)
    return tree.root()


def consistency(old: int, nodes: Sequence[bytes]) -> list[bytes]:
    """The proof that the tree over `nodes` begins with the tree of size `old` (RFC 6962, 2.1.2)."""
    return _subproof(old, nodes, whole=True) if old else []


def _subproof(old: int, nodes: Sequence[bytes], *, whole: bool) -> list[bytes]:
    """`whole`: the verifier knows the root over the first `old` nodes."""
    if old == len(nodes):
        return [] if whole else [root_over(nodes)]
    half = 1 << (len(nodes) - 1).bit_length() - 1
    if old <= half:
        return [*_subproof(old, nodes[:half], whole=whole), root_over(nodes[half:])]
    return [*_subproof(old - half, nodes[half:], whole=False), root_over(nodes[:half])]


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


def tiles(nodes: Sequence[bytes]) -> Iterator[tuple[str, bytes]]:
    """Path and bytes of the tiles that the last leaf changed: one of each level that it completed a hash of."""
    size, level = len(nodes), 0
    while size and size % (span := WIDTH**level) == 0:
        count = size // span
        start = (count - 1) // WIDTH * WIDTH
        hashes = [root_over(nodes[at * span : (at + 1) * span]) for at in range(start, count)]
        yield _path(str(level), count), b"".join(hashes)
        level += 1


def bundle_path(size: int) -> str:
    """Path of the bundle with the last entry of a log of `size`."""
    return _path("entries", size)


def bundle_paths(size: int) -> list[str]:
    """Paths of all bundles of a log of `size`, in order."""
    ends = [*range(WIDTH, size + 1, WIDTH), *([size] if size % WIDTH else [])]
    return [bundle_path(end) for end in ends]


def _path(level: str, count: int) -> str:
    """Path of the tile with hash number `count`, from 1, as its last one."""
    number, width = (count - 1) // WIDTH, count % WIDTH
    digits = f"{number:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    name = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    return f"tile/{level}/{name}" + (f".p/{width}" if width else "")


def write_bundle(entries: Sequence[bytes]) -> bytes:
    """The bytes of the bundle of the last entries."""
    first = (len(entries) - 1) // WIDTH * WIDTH
    return b"".join(len(each).to_bytes(_LENGTH_BYTES, "big") + each for each in entries[first:])


def read_bundle(data: bytes, path: str) -> list[bytes]:
    """Raises DrawError for `path` if the bytes are no bundle of at most 256 entries."""
    entries: list[bytes] = []
    at = 0
    while at < len(data):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(data[at:start], "big")
        entries.append(data[start:at])
    if at != len(data) or not 0 < len(entries) <= WIDTH:
        raise DrawError(path, f"not a bundle of 1 to {WIDTH} entries")
    return entries


def all_tiles(nodes: Sequence[bytes]) -> Iterator[tuple[str, bytes]]:
    """Path and bytes of every tile that a log of this size needs: the full ones, and the last of each level."""
    hashes, level = list(nodes), 0
    while hashes:
        for start in range(0, len(hashes), WIDTH):
            tile = hashes[start : start + WIDTH]
            yield _path(str(level), start + len(tile)), b"".join(tile)
        full = len(hashes) // WIDTH * WIDTH
        hashes = [root_over(hashes[start : start + WIDTH]) for start in range(0, full, WIDTH)]
        level += 1
