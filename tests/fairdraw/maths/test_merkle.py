"""The Merkle tree against its recursive definition, over all small sizes and across blocks of the index."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairdraw.errors import DrawError
from fairdraw.maths import merkle
from fairdraw.maths.merkle import proof_of, root_of, root_over, verify_proof, write_index
from tests.fairdraw.maths import oracle


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merkle, "BLOCK_LEAVES", 4)


def leaves_file(folder: Path, count: int) -> tuple[Path, list[bytes]]:
    leaves = [f"r{number:03d}|u{number}|1||m".encode() for number in range(count)]
    path = folder / "leaves.txt"
    path.write_bytes(b"".join(leaf + b"\n" for leaf in leaves))
    return path, leaves


@pytest.mark.parametrize("count", [*range(20), 31, 32, 33, 64, 65])
def test_root_and_proofs_are_those_of_the_definition(tmp_path: Path, count: int) -> None:
    path, leaves = leaves_file(tmp_path, count)
    root = oracle.tree_hash(leaves)
    index = tmp_path / "leaves.index"
    assert root_of(path) == (root, count)
    assert write_index(path, index) == (root, count)
    for number, leaf in enumerate(leaves):
        proof = proof_of(path, number, index=index)
        assert list(proof.hashes) == oracle.audit_path(number, leaves)
        assert (proof.index, proof.count, proof.leaf) == (number, count, leaf.decode())
        assert proof == proof_of(path, f"r{number:03d}", index=index) == proof_of(path, number)
        assert verify_proof(proof.leaf, proof.index, proof.count, proof.hashes, root)


def test_a_proof_holds_for_nothing_but_its_leaf_place_count_and_root(tmp_path: Path) -> None:
    path, _ = leaves_file(tmp_path, 11)
    root, count = root_of(path)
    for number in range(count):
        proof = proof_of(path, number)
        hashes = list(proof.hashes)
        assert not verify_proof(proof.leaf + "x", number, count, hashes, root)
        assert not verify_proof(proof.leaf, number, count, hashes, oracle.sha("other"))
        assert not verify_proof(proof.leaf, number, count, hashes[:-1], root)
        assert not verify_proof(proof.leaf, number, count, [*hashes, hashes[0]], root)
        for other in {*range(-1, count + 1)} - {number}:
            assert not verify_proof(proof.leaf, other, count, hashes, root)
        for step in range(len(hashes)):
            flipped = f"{int(hashes[step], 16) ^ 1:064x}"
            assert not verify_proof(
                proof.leaf, number, count, [*hashes[:step], flipped, *hashes[step + 1 :]], root
            )
        assert not verify_proof(proof.leaf, number, count, ["no hash", *hashes[1:]], root)


def test_an_unknown_leaf_has_no_proof(tmp_path: Path) -> None:
    path, _ = leaves_file(tmp_path, 9)
    for unknown in (-1, 9, 12, "r", "r0000", "r009", "z"):
        with pytest.raises(KeyError):
            proof_of(path, unknown)
    empty, _ = leaves_file(tmp_path, 0)
    for unknown in (0, "r000"):
        with pytest.raises(KeyError):
            proof_of(empty, unknown)


def test_an_index_of_other_leaves_is_refused(tmp_path: Path) -> None:
    path, _ = leaves_file(tmp_path, 9)
    index = tmp_path / "leaves.index"
    write_index(path, index)
    path.write_bytes(path.read_bytes().replace(b"r005|u5|", b"r005|u9|"))
    with pytest.raises(DrawError, match="do not match their index"):
        proof_of(path, 6, index=index)
    index.write_bytes(index.read_bytes()[:-1])
    with pytest.raises(DrawError, match="index is truncated"):
        proof_of(path, 6, index=index)


@pytest.mark.parametrize("name", ["result.txt", "strikes.txt"])
def test_a_line_of_a_result_or_of_strikes_has_a_proof_by_an_index_of_its_own(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    lines = [f"r{number:03d}||{number + 1}|WAITLIST" for number in range(21)]
    path.write_text("".join(f"{line}\n" for line in lines))
    root, count = write_index(path, tmp_path / "lines.index")
    assert root == root_over(path.read_bytes()) == oracle.tree_hash([line.encode() for line in lines])
    for number, line in enumerate(lines):
        proof = proof_of(path, f"r{number:03d}", index=tmp_path / "lines.index")
        assert (proof.leaf, proof.index, proof.count) == (line, number, count)
        assert verify_proof(line, number, count, proof.hashes, root)
    path.write_bytes(path.read_bytes().replace(b"r003||4|", b"r003||5|"))
    with pytest.raises(DrawError, match=f"{name}: the lines from 0 on do not match their index"):
        proof_of(path, 1, index=tmp_path / "lines.index")


def test_a_last_line_without_line_feed_has_no_root(tmp_path: Path) -> None:
    path, _ = leaves_file(tmp_path, 9)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DrawError, match="no line feed"):
        root_of(path)
