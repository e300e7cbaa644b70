"""Static tiles give every ref of a draw the bytes of its receipt, within five requests and 50 KB."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fairdraw.errors import DrawError
from fairdraw.large import tiles
from fairdraw.large.engine import Engine
from fairdraw.large.receipts import ReceiptSource, build_receipt
from fairdraw.maths.files import canonical_bytes
from fairdraw.maths.leaves import Leaf, unit_of
from fairdraw.maths.manifest import MarketTerms, ReserveTerms
from tests.fairdraw.proof import draws
from tests.fairdraw.verifier.node import Node


def _tiles_of(draw: Path, out: Path) -> tiles.Proofs:
    out.mkdir()
    return tiles.write_proofs(
        ReceiptSource(draw, None, log=_log), out, engine=Engine(out / "scratch", threads=1, memory_mib=256)
    )


def _random_draw(root: Path, seed: int, count: int, refs: Sequence[str], wins: int) -> Path:
    """Households of up to six, weights, reserves, strikes and a top-up."""
    rng = random.Random(seed)
    markets = [f"m{number}" for number in range(rng.randint(1, 5))]
    households = [
        (unit_of(draws.UNIT_KEY, draws.CAMPAIGN, str(number)), rng.choice((1, 1, 2, 64)))
        for number in range(max(count // 3, 1))
    ]
    leaves = []
    for ref in sorted(rng.sample(refs, count)):
        unit, weight = rng.choice(households) if rng.random() < 0.6 else (ref, 1)
        segments = ("fan",) if rng.random() < 0.3 else ()
        leaves.append(
            Leaf(ref, unit, weight, segments, tuple(rng.sample(markets, rng.randint(1, len(markets)))))
        )
    terms = tuple(MarketTerms(each, count // 8 + 2, (ReserveTerms("fan", 1),)) for each in markets)
    more = tuple(MarketTerms(each.market_id, each.capacity * 2, ()) for each in terms)
    struck = dict.fromkeys(sorted(rng.sample([leaf.ref for leaf in leaves], count // 10)), "BOT")
    return draws.make(root, leaves, [draws.Terms(terms, {}, 3), draws.Terms(more, struck, 3)], wins=wins)


def _log(campaign_id: str, phases: int) -> dict[str, Any]:
    """All receipts of a draw have the same part of the public log."""
    entry = {"leaf": f'{{"campaignId":"{campaign_id}"}}', "index": phases, "proof": []}
    return {
        "checkpoint": "origin\n1\n—\n",
        "entries": [entry],
        "keys": {"log": [], "need": 0, "witnesses": []},
    }


def _absent(ref: str) -> tuple[str, ...]:
    return ("NONE",)


@pytest.mark.parametrize(
    ("seed", "count", "wins", "kind"),
    [(1, 1, 1, "hex"), (2, 64, 1, "hex"), (3, 65, 2, "hex"), (4, 700, 1, "counted"), (5, 900, 3, "hex")],
)
def test_every_ref_of_a_random_draw_gets_the_bytes_of_its_receipt(
    tmp_path: Path, node: Node, seed: int, count: int, wins: int, kind: str
) -> None:
    # Refs that are evenly spread, and refs that share a long beginning.
    refs = (
        draws.refs(2 * count)
        if kind == "hex"
        else [f"summer-tour-{number:06d}" for number in range(2 * count)]
    )
    draw = _random_draw(tmp_path / "draw", seed, count, refs, wins)
    made = _tiles_of(draw, tmp_path / "page")
    asked = [*random.Random(seed).sample(refs, min(len(refs), 150)), "-", "zzzz", "a"]

    found = node.ask("receipts", folder=str(tmp_path / "page"), refs=asked)

    assert made.leaves == count
    for ref, each in zip(asked, found, strict=True):
        receipt = build_receipt(draw, ref, index=tmp_path / "leaves.index", reasons=_absent, log=_log)
        # Why an entry was left out is not public.
        if receipt["kind"] == "excluded":
            receipt["reasons"] = []
        assert each["text"] == canonical_bytes(receipt).decode()
        assert each["drawn"] == (receipt["kind"] == "draw")
        assert each["requests"] <= 5
        assert each["bytes"] <= 50_000


def test_a_draw_without_entries_proves_that_no_one_took_part(tmp_path: Path, node: Node) -> None:
    draw = draws.make(tmp_path / "draw", [], [draws.Terms((MarketTerms("m1", 5),), {})])
    assert _tiles_of(draw, tmp_path / "page").tiles == 0
    (found,) = node.ask("receipts", folder=str(tmp_path / "page"), refs=["some-ref"])
    receipt = build_receipt(draw, "some-ref", reasons=_absent, log=_log) | {"reasons": []}
    assert (found["text"], found["drawn"]) == (canonical_bytes(receipt).decode(), False)


def test_fifty_markets_and_two_phases_fit_into_fifty_kilobytes(tmp_path: Path, node: Node) -> None:
    rng, markets = random.Random(50), [f"market-{number:02d}" for number in range(50)]
    leaves = [
        Leaf(
            ref,
            unit_of(draws.UNIT_KEY, draws.CAMPAIGN, str(at // 3)),
            1,
            (("fan",), ("local",), ())[at % 3],
            tuple(rng.sample(markets, 10)),
        )
        for at, ref in enumerate(draws.refs(1500))
    ]
    reserves = (ReserveTerms("fan", 2), ReserveTerms("local", 2))
    phases = [
        draws.Terms(tuple(MarketTerms(each, seats, reserves, reserves) for each in markets), {})
        for seats in (6, 11)
    ]
    draw = draws.make(tmp_path / "draw", leaves, phases)
    _tiles_of(draw, tmp_path / "page")
    refs = [leaf.ref for leaf in leaves[::50]] + ["0", "7f", "f" * 32]
    found = node.ask("receipts", folder=str(tmp_path / "page"), refs=refs)
    assert max(each["bytes"] for each in found) <= 50_000
    assert max(each["requests"] for each in found) <= 5


def test_leaves_under_another_root_have_no_proofs(tmp_path: Path) -> None:
    draw = _random_draw(tmp_path / "draw", 1, 20, draws.refs(40), 1)
    leaves = (draw / "phase-1" / "leaves.txt").read_bytes()
    (draw / "phase-1" / "leaves.txt").write_bytes(leaves.replace(b"|1|", b"|2|", 1))
    with pytest.raises(DrawError, match=r"leaves.txt: 20 leaves with root"):
        _tiles_of(draw, tmp_path / "page")
    assert [path.name for path in (tmp_path / "page").iterdir() if path.is_file()] == []
