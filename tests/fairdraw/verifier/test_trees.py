"""Trees as static files: JavaScript and Perl read them as Python does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from fairdraw.errors import DrawError
from fairdraw.log import tree
from fairdraw.maths.files import MANIFEST, canonical_bytes, sha256_hex
from fairdraw.maths.merkle import leaf_hash, path_to
from fairdraw.maths.registration import RegistrationTree
from tests.fairdraw.proof.draws import FIRST, Terms, entrants, make
from tests.fairdraw.verifier.folders import follow
from tests.fairdraw.verifier.node import Node, perl


def write_tree(folder: Path, entries: Sequence[bytes]) -> None:
    """The tiles and bundles of a tree with these entries."""
    growing = tree.GrowingTree()
    for each in entries:
        growing.append(each)
    for path, data in (*growing.full(), *growing.partial()):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 700, 65_536 + 300])
def test_the_page_reads_entries_and_proofs_from_tiles_also_of_an_earlier_size(
    javascript: Node, tmp_path: Path, size: int
) -> None:
    entries = [b"entry %d" % each for each in range(size)]
    nodes = [leaf_hash(each) for each in entries]
    write_tree(tmp_path, entries)
    rng = Random(size)
    for within in {1, size, *(rng.randint(1, size) for _ in range(6))}:
        index = rng.randrange(within)
        found = javascript.ask("tiles", folder=str(tmp_path), size=size, within=within, index=index)
        assert found["entry"] == f"entry {index}"
        assert found["proof"] == [each.hex() for each in path_to(index, nodes[:within])]


def _leaf(number: int) -> bytes:
    return sha256_hex(b"%d" % number).encode()


def _random_tree(rng: Random) -> list[bytes]:
    """Leaves and notices; mostly with one entry in the place of another that may not verify there."""
    entries: list[bytes] = []
    live: list[int] = []
    for number in range(rng.choice((200, 300, 600))):
        about = rng.choice(live or [0])
        if not live or rng.random() < 0.7:
            live.append(number)
            entries.append(_leaf(number))
        elif rng.random() < 0.4:
            entries.append(b"vfnote1|%d|unit|%s" % (about, rng.choice((_leaf(number), entries[about]))))
        else:
            live.remove(about)
            entries.append(b"vfnote1|%d|%s|-" % (about, rng.choice((b"withdrawn", b"erased"))))
    if rng.random() < 0.7:
        line, leaf = b"vfnote1|%d|" % rng.randrange(len(entries)), _leaf(10**6)
        entries[rng.randrange(len(entries))] = rng.choice((
            *(rng.choice(entries), leaf, leaf.upper(), leaf[:-1], leaf + b"\n", b"", b"vfnote1|00|erased|-"),
            *(line + rest for rest in (b"erased|-", b"withdrawn|-", b"unit|" + leaf, b"unit|-", b"erased|" + leaf)),
            *(b"vfnote1|0|erased|-\n", b"vfnote1|99999|erased|-", b"vfnote1|-1|erased|-", b"vfnote1|0|gone|-"),
        ))  # fmt: skip
    return entries


def _registrations(entries: Sequence[bytes], count: int) -> dict[str, Any]:
    """What the manifest of a draw of `count` leaves says of these entries."""
    erased, notices, withdrawn = (
        sum(each.startswith(b"vfnote1|") and kind in each for each in entries)
        for kind in (b"|erased|", b"", b"|withdrawn|")
    )
    size = len(entries)
    return {"erased": erased, "excluded": size - count - erased - notices - withdrawn, "notices": notices,
            "root": tree.root_over([*map(leaf_hash, entries)]).hex(), "size": size, "withdrawn": withdrawn}  # fmt: skip


def _verifies(entries: Sequence[bytes]) -> bool:
    grown = RegistrationTree()
    try:
        for each in entries:
            grown.add(each)
    except DrawError:
        return False
    return True


def test_perl_judges_a_tree_of_registrations_as_python_does(tmp_path: Path) -> None:
    rng, seen, draw = Random(31), set[bool](), make(tmp_path, entrants(), [Terms(FIRST)])
    for number in range(60):
        copied, entries = tmp_path / str(number), _random_tree(rng)
        write_tree(copied, entries)
        manifest = json.loads((draw / "phase-1" / MANIFEST).read_bytes())
        stated = _registrations(entries[: rng.randint(160, len(entries))], manifest["count"])
        holds = _verifies(entries)
        if rng.random() < 0.2:
            # The sum stays right.
            key, holds = rng.choice(("erased", "notices", "withdrawn", "root")), False
            stated |= (
                {key: "ab" * 32}
                if key == "root"
                else {key: stated[key] + 1, "excluded": stated["excluded"] - 1}
            )
        (draw / "phase-1" / MANIFEST).write_bytes(canonical_bytes(manifest | {"registrations": stated}))
        follow(draw, draw=True)
        done = perl(draw, "--registrations", str(copied))
        assert done.verdict == ("holds" if holds else "fails"), (number, stated, done.said)
        seen.add(holds)
    assert seen == {True, False}


def test_perl_refuses_a_tree_that_is_cut_one_that_ends_an_entry_twice_and_one_of_a_draw_that_has_none(
    tmp_path: Path,
) -> None:
    draw, entries = make(tmp_path, entrants(), [Terms(FIRST)]), [_leaf(number) for number in range(600)]
    write_tree(tmp_path / "tree", entries)
    judged = partial(perl, draw, "--registrations", str(tmp_path / "tree"))
    assert "the manifest has no registrations" in judged().said
    manifest = json.loads((draw / "phase-1" / MANIFEST).read_bytes())
    manifest["registrations"] = _registrations(entries, manifest["count"])
    (draw / "phase-1" / MANIFEST).write_bytes(canonical_bytes(manifest))
    follow(draw, draw=True)
    assert judged().verdict == "holds"
    ended = [*entries[:-2], b"vfnote1|0|withdrawn|-", b"vfnote1|0|erased|-"]
    write_tree(tmp_path / "ended", ended)
    (draw / "phase-1" / MANIFEST).write_bytes(
        canonical_bytes(manifest | {"registrations": _registrations(ended, manifest["count"])})
    )
    follow(draw, draw=True)
    assert "or about one that ended" in perl(draw, "--registrations", str(tmp_path / "ended")).said
    (draw / "phase-1" / MANIFEST).write_bytes(canonical_bytes(manifest))
    follow(draw, draw=True)
    last = tmp_path / "tree" / tree.bundle_path(600)
    last.write_bytes(last.read_bytes()[:-1])
    assert "not a bundle of its entries" in judged().said
    last.unlink()
    assert "512 entries, the manifest has 600" in judged().said
