"""The tree and its files, against the test vectors of Certificate Transparency and by properties."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairdraw.errors import DrawError
from fairdraw.log import tree
from fairdraw.maths.merkle import leaf_hash, path_to, verify_proof
from tests.support.trees import TreeOf

_INPUTS = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
VECTORS = [leaf_hash(bytes.fromhex(each)) for each in _INPUTS]
ROOTS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
# (old, new): proof
CONSISTENCY = {
    (1, 8): (
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ),
    (6, 8): (
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
    (2, 5): (
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ),
}
ENTRIES = [b"%d" % number for number in range(700)]
NODES = [leaf_hash(each) for each in ENTRIES]


def grown(entries: Sequence[bytes]) -> tree.GrowingTree:
    growing = tree.GrowingTree()
    for each in entries:
        growing.append(each)
    return growing


@cache
def files_of(size: int) -> dict[str, bytes]:
    """The files that a tree of this size needs."""
    growing = grown(ENTRIES[:size])
    return dict([*growing.full(), *growing.partial()])


def stored(size: int) -> tree.StoredTree:
    return tree.StoredTree(size, files_of(size).get)


@pytest.mark.parametrize("size", range(9))
def test_the_roots_are_those_of_the_vectors(size: int) -> None:
    assert tree.root_over(VECTORS[:size]).hex() == ROOTS[size]
    growing = grown([bytes.fromhex(each) for each in _INPUTS[:size]])
    assert growing.root().hex() == ROOTS[size]


@pytest.mark.parametrize("sizes", CONSISTENCY)
def test_the_consistency_proofs_are_those_of_the_vectors(sizes: tuple[int, int]) -> None:
    old, new = sizes
    assert [each.hex() for each in TreeOf(VECTORS[:new]).consistency(old)] == list(CONSISTENCY[sizes])


@given(new=st.integers(0, 700), data=st.data())
def test_each_tree_is_proven_to_continue_each_earlier_one(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(0, new))
    roots = tree.root_over(NODES[:old]), tree.root_over(NODES[:new])
    proof = stored(new).consistency(old)
    assert tree.is_consistent(old, roots[0], new, roots[1], proof)
    if not old:
        return
    assert not tree.is_consistent(old, sha256(roots[0]).digest(), new, roots[1], proof)
    assert not tree.is_consistent(old, roots[0], new, sha256(roots[1]).digest(), proof)
    assert not tree.is_consistent(old, roots[0], new, roots[1], [*proof, roots[0]])
    if proof:
        assert not tree.is_consistent(old, roots[0], new, roots[1], proof[:-1])
        changed = data.draw(st.integers(0, len(proof) - 1))
        bent = [sha256(each).digest() if at == changed else each for at, each in enumerate(proof)]
        assert not tree.is_consistent(old, roots[0], new, roots[1], bent)
        assert not tree.is_consistent(new, roots[1], old, roots[0], proof)


@given(size=st.integers(1, 700), data=st.data())
def test_each_leaf_is_proven_to_be_in_the_tree(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = stored(size).inclusion(index)
    assert proof == path_to(index, NODES[:size])
    root = tree.root_over(NODES[:size]).hex()
    assert verify_proof(f"{index}", index, size, [each.hex() for each in proof], root)


def test_a_log_of_70000_leaves_has_the_tiles_of_the_specification() -> None:
    assert tree.bundle_path(70_000) == "tile/entries/273.p/112"
    assert tree.bundle_path(256) == "tile/entries/000"
    assert tree.bundle_path(1_234_067 * 256 + 1) == "tile/entries/x001/x234/067.p/1"
    assert [*tree.bundle_paths(513)] == ["tile/entries/000", "tile/entries/001", "tile/entries/002.p/1"]
    assert [*tree.bundle_paths(512)] == ["tile/entries/000", "tile/entries/001"]
    # A checkpoint with such a size is refused for its first file, and takes no memory.
    assert next(tree.bundle_paths(10**18)) == "tile/entries/000"


def test_the_tiles_of_all_sizes_together_are_those_of_the_last_one() -> None:
    growing, found = tree.GrowingTree(), dict[str, bytes]()
    for size, entry in enumerate(ENTRIES, 1):
        growing.append(entry)
        for path, data in [*growing.full(), *growing.partial(size - 1)]:
            assert found.setdefault(path, data) == data
    assert found["tile/0/000"] == b"".join(NODES[:256])
    assert found["tile/0/002.p/188"] == b"".join(NODES[512:])
    assert found["tile/1/000.p/1"] == tree.root_over(NODES[:256])
    assert found["tile/1/000.p/2"] == tree.root_over(NODES[:256]) + tree.root_over(NODES[256:512])
    assert not [path for path in found if path.startswith("tile/2")]


@given(size=st.one_of(st.integers(0, 700), st.sampled_from([255, 256, 257, 511, 512, 513])), data=st.data())
def test_a_tree_goes_on_from_its_last_files_alone(size: int, data: st.DataObject) -> None:
    parts = data.draw(st.lists(st.integers(0, size), max_size=5))
    found, read = dict[str, bytes](), list[str]()

    def reads(path: str) -> bytes | None:
        read.append(path)
        return found.get(path)

    before = 0
    for until in [*sorted(parts), size]:
        read.clear()
        growing = tree.GrowingTree.resume(before, reads)
        assert len(read) <= 2, "the last bundle, and the last tile above it"
        for entry in ENTRIES[before:until]:
            growing.append(entry)
        assert (growing.size, growing.root()) == (until, tree.root_over(NODES[:until]))
        for path, bytes_ in [*growing.full(), *growing.partial(before)]:
            assert found.setdefault(path, bytes_) == bytes_
        assert not growing.full() and not growing.partial(until)
        before = until
    assert found.items() >= files_of(size).items(), "a reader finds every file of the last size"


def test_a_large_tree_goes_on_from_four_files() -> None:
    """70,000 leaves: the last bundle, and tiles of levels 1 and 2."""
    growing = grown([b"%d" % number for number in range(70_000)])
    found = dict([*growing.full(), *growing.partial()])
    again = tree.GrowingTree.resume(70_000, found.get)
    assert again.root() == growing.root()
    assert [each.path for each in again.partial(69_999)] == ["tile/entries/273.p/112", "tile/0/273.p/112"]
    whole = tree.StoredTree(70_000, found.get)
    assert whole.root() == growing.root()
    earlier = grown([b"%d" % number for number in range(66_000)]).root()
    assert tree.is_consistent(66_000, earlier, 70_000, growing.root(), whole.consistency(66_000))
    proof = [each.hex() for each in whole.inclusion(12_345)]
    assert verify_proof("12345", 12_345, 70_000, proof, growing.root().hex())


@pytest.mark.parametrize(
    ("path", "data", "what"),
    [
        ("tile/entries/002.p/88", None, "is missing"),
        ("tile/entries/002.p/88", b"\x00\x01a", "not a bundle of 88 entries"),
        ("tile/1/000.p/2", None, "is missing"),
        ("tile/1/000.p/2", b"x" * 63, "not a tile of 2 hashes"),
    ],
)
def test_a_last_file_that_is_missing_or_none_is_refused(path: str, data: bytes | None, what: str) -> None:
    found = files_of(600)
    assert path in found
    with pytest.raises(DrawError, match=what) as error:
        tree.GrowingTree.resume(600, lambda name: data if name == path else found.get(name))
    assert error.value.artefact == path


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=256))
def test_a_bundle_gives_its_entries_back(entries: list[bytes]) -> None:
    assert tree.read_bundle(tree.write_bundle(entries), "b") == entries
    assert grown(entries[:-1]).next_bundle(entries[-1]).data == tree.write_bundle(entries)


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x00\x05abc", b"\x00\x01a\x00", b"\x00\x00" * 257])
def test_bytes_that_are_no_bundle_are_refused(data: bytes) -> None:
    with pytest.raises(DrawError, match="not a bundle"):
        tree.read_bundle(data, "b")
