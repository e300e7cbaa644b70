"""Frauds that a receipt, or a replay of the published files, shows without the public log.

The operator makes all files and receipts fit as far as the rules allow. Each test shows where the fraud is caught, and
that it would pass if that check alone were missing.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from fairdraw.large.receipts import Receipt, build_receipt
from fairdraw.maths import manifest as manifests
from fairdraw.maths import phase as phases
from fairdraw.maths.files import CUTOFFS, MANIFEST, SEED, STRIKES, file_hash
from fairdraw.maths.leaves import Leaf
from fairdraw.maths.manifest import Manifest, MarketTerms
from fairdraw.maths.rules import entry_key, unit_key
from fairdraw.proof import check, checker, inputs, verify
from fairdraw.terms import QUICKNET, iso
from tests.fairdraw.frauds.forging import (
    bend_cutoffs,
    blamed,
    copied,
    edit,
    failed,
    read,
    redraw,
    reposition,
    restate,
    without,
    write,
    write_leaves,
)
from tests.fairdraw.proof.draws import (
    BEACON,
    CAMPAIGN,
    FIRST,
    MORE,
    ROUND,
    Terms,
    entrants,
    make,
    outcomes,
    publish_beside,
)

LEAVES = entrants()
ONCE = [Terms(FIRST, {})]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A draw of one phase without strikes."""
    return make(tmp_path_factory.mktemp("honest"), LEAVES, ONCE)


@pytest.fixture(scope="module")
def topped_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same draw with more seats in a second phase, and a notice of each phase."""
    return publish_beside(make(tmp_path_factory.mktemp("topped-up"), LEAVES, [*ONCE, Terms(MORE, {})]))


def with_outcome(phase: Path, outcome: str) -> list[Leaf]:
    """The leaves of single entries with this outcome."""
    found = outcomes(phase)
    return [leaf for leaf in LEAVES if leaf.unit == leaf.ref and found[leaf.ref] == outcome]


def the_seed(phase: Path) -> str:
    return str(read(phase / SEED)["seed"])


def favourable(phase: Path, leaf: Leaf) -> Leaf:
    """A leaf in the same place with a better key than all others: refs are tried once the seed is known."""
    best = min(unit_key(the_seed(phase), CAMPAIGN, each.unit, each.weight) for each in LEAVES)
    for number in count():
        ref = f"{leaf.ref[:-4]}{number:04x}"
        if unit_key(the_seed(phase), CAMPAIGN, ref, 1) < best:
            return replace(leaf, ref=ref, unit=ref, weight=1)
    raise AssertionError


def heavier(_phase: Path, leaf: Leaf) -> Leaf:
    return replace(leaf, weight=64)


@pytest.mark.parametrize("change", [favourable, heavier])
def test_a_leaf_exchanged_or_made_heavier_after_the_commit(
    honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: type[Leaf]
) -> None:
    forged = copied(honest, tmp_path)
    phase = forged / "phase-1"
    loser = with_outcome(phase, "WAITLIST")[0]
    friend = change(phase, loser)  # type: ignore[call-arg, arg-type]
    write_leaves(phase, [friend if leaf == loser else leaf for leaf in LEAVES])
    redraw(phase, tmp_path)
    receipt = build_receipt(forged, friend.ref)
    assert receipt["outcome"] == "WINNER"
    assert failed(receipt) == ["inclusion"]
    assert blamed(forged, tmp_path) == ["phase-1/leaves.txt"]
    terms = Manifest.parse((phase / MANIFEST).read_bytes())
    monkeypatch.setattr(checker, "verify_proof", lambda *_: True)
    monkeypatch.setattr(verify, "root_of", lambda _path: (terms.root, terms.count))
    assert failed(receipt) == [] and blamed(forged, tmp_path) == []


def test_seats_moved_once_the_order_is_known(
    honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forged = copied(honest, tmp_path)
    phase, seed = forged / "phase-1", the_seed(honest / "phase-1")
    east, west = FIRST
    moved = (replace(east, capacity=east.capacity + 3), replace(west, capacity=west.capacity - 3))
    terms = Manifest.parse((phase / MANIFEST).read_bytes())
    (phase / MANIFEST).write_bytes(replace(terms, markets=moved).to_bytes())
    redraw(phase, tmp_path)
    losers = {leaf.ref for leaf in with_outcome(honest / "phase-1", "WAITLIST")}
    friend = next(ref for ref, outcome in outcomes(phase).items() if outcome == "WINNER" and ref in losers)
    receipt = build_receipt(forged, friend)
    assert failed(receipt) == ["seed"]
    assert blamed(forged, tmp_path) == ["phase-1/seed.json"]
    for module in (manifests, inputs):
        monkeypatch.setattr(module, "derive_seed", lambda *_: seed)
    assert failed(receipt) == [] and blamed(forged, tmp_path) == []


def test_cutoffs_bent_for_everybody(honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forged = copied(honest, tmp_path)
    phase = forged / "phase-1"
    waiting = {
        leaf.ref: build_receipt(honest, leaf.ref)
        for leaf in with_outcome(phase, "WAITLIST")
        if "west" in leaf.preferences
    }
    friend = max(waiting.values(), key=lambda receipt: int(receipt["rank"]))
    cutoffs = read(phase / CUTOFFS)
    cutoffs["markets"]["west"]["open"] = {name: friend[name] for name in ("entryKey", "key", "rank")}
    write(phase / CUTOFFS, cutoffs)
    reposition(phase, friend["ref"], "west", "WINNER")
    restate(phase)
    # The friend's own receipt holds. Those of all whom the bent cut-off passes over do not.
    assert failed(build_receipt(forged, friend["ref"])) == []
    others = [build_receipt(forged, ref) for ref in waiting if ref != friend["ref"]]
    assert len(others) > 3 and all(failed(other) == ["outcome-1"] for other in others)
    found = blamed(forged, tmp_path)
    assert found == [f"phase-1/{name}" for name in ("result.txt", "cutoffs.json", "summary.json")]
    monkeypatch.setattr(check, "market_of", lambda *_: None)
    assert all(failed(other) == [] for other in others)
    monkeypatch.setattr(verify, "difference", lambda *_: "")
    assert blamed(forged, tmp_path) == []


def test_a_receipt_swapped_with_that_of_another_loser(honest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = (leaf.ref for leaf in with_outcome(honest / "phase-1", "WAITLIST")[:2])
    receipt = build_receipt(honest, theirs)
    rest = receipt["phases"][0]["result"].partition("|")[2]
    receipt["phases"][0]["result"] = f"{mine}|{rest}"
    receipt |= {"ref": mine, "entryKey": entry_key(the_seed(honest / "phase-1"), mine)}
    assert failed(receipt) == ["leaf"]
    without(monkeypatch, check.Drawn._check_leaf, "leaf.ref != self.ref")
    assert failed(receipt) == []


def test_another_round_than_the_committed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The signature is that of the round before.
    forged = make(tmp_path / "draw", LEAVES, ONCE, source={**BEACON, "round": ROUND + 1})
    receipt = build_receipt(forged, LEAVES[-1].ref)
    assert failed(receipt) == ["randomness"]
    assert blamed(forged, tmp_path) == ["phase-1/seed.json"]
    monkeypatch.setattr(inputs, "verify_beacon", lambda *_: "")
    assert failed(receipt) == [] and blamed(forged, tmp_path) == []


def test_a_round_that_was_signed_before_the_entries_were_frozen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = iso(QUICKNET.due(ROUND) + 60)
    forged = make(tmp_path / "draw", LEAVES, ONCE, source=BEACON, as_of=known)
    receipt = build_receipt(forged, LEAVES[-1].ref)
    assert failed(receipt) == ["randomness"]
    assert blamed(forged, tmp_path) == ["phase-1/manifest.json"]
    for module in (checker, inputs):
        monkeypatch.setattr(module, "check_round", lambda *_: None)
    assert failed(receipt) == [] and blamed(forged, tmp_path) == []


def test_a_strike_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    struck = LEAVES[20].ref
    for module in (phases, verify):
        monkeypatch.setattr(module, "check_cumulative", lambda *_: None)
    forged = make(tmp_path / "draw", LEAVES, [Terms(FIRST, {struck: "FRAUD"}), Terms(MORE, {})])
    receipt = build_receipt(forged, struck)
    assert failed(receipt) == ["outcome-2"]
    without(monkeypatch, check.Drawn._expected, "before.strike != phase.strike")
    assert failed(receipt) == [] and blamed(forged, tmp_path) == []
    monkeypatch.undo()
    assert blamed(forged, tmp_path) == ["phase-2/strikes.txt"]


def test_a_strike_invented_where_the_manifest_has_none(honest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    receipt = build_receipt(honest, with_outcome(honest / "phase-1", "WINNER")[0].ref)
    phase = receipt["phases"][0]
    phase["strike"] = f"{receipt['ref']}|FRAUD"
    phase["result"] = f"{receipt['ref']}||{receipt['rank']}|STRUCK"
    receipt |= {"market": "", "outcome": "STRUCK"}
    assert failed(receipt) == ["outcome-1"]
    without(monkeypatch, check.Drawn._expected, "phase.manifest.strikes_hash == _NO_STRIKES")
    assert failed(receipt) == []


def test_a_seat_withdrawn_by_a_later_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # No new seats, so no cut-off of phase 2 is met.
    forged = make(
        tmp_path / "draw", LEAVES, [*ONCE, Terms((MarketTerms("east", 4), MarketTerms("west", 5)), {})]
    )
    winner = with_outcome(forged / "phase-1", "WINNER")[0].ref
    reposition(forged / "phase-2", winner, "", "WAITLIST")
    restate(forged / "phase-2")
    receipt = build_receipt(forged, winner)
    assert failed(receipt) == ["outcome-2"]
    assert set(blamed(forged, tmp_path)) == {"phase-2/result.txt", "phase-2/summary.json"}
    without(monkeypatch, check.Drawn._expected, "before.position.outcome == Outcome.WINNER")
    assert failed(receipt) == []
    monkeypatch.setattr(verify, "difference", lambda *_: "")
    assert blamed(forged, tmp_path) == []


def test_an_entry_of_the_list_whose_receipt_excludes_it(
    honest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, left_out, after = (build_receipt(honest, leaf.ref) for leaf in LEAVES[7:10])
    receipt: Receipt = {
        name: left_out[name]
        for name in ("annulled", "campaignId", "guarantee", "log", "ref", "roundAt", "version")
    }
    receipt |= {
        "kind": "excluded",
        "manifest": left_out["phases"][0]["manifest"],
        "published": left_out["phases"][0]["published"],
        "reasons": ["DUPLICATE"],
        "before": before["inclusion"],
        "after": after["inclusion"],
    }
    assert failed(receipt) == ["absence"]
    without(monkeypatch, checker.Excluded._check_absence, "high != low + 1")
    assert failed(receipt) == []


def test_a_struck_winner_kept(honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forged = make(tmp_path / "draw", LEAVES, [*ONCE, Terms(MORE, {})])
    friend, phase = with_outcome(forged / "phase-1", "WINNER")[0].ref, forged / "phase-2"
    (phase / STRIKES).write_text(f"{friend}|FRAUD\n")
    edit(phase / MANIFEST, strikesHash=file_hash(phase / STRIKES))
    restate(phase)
    receipt = build_receipt(forged, friend)
    assert failed(receipt) == ["outcome-2"]
    # The friend gets a receipt without the strike. That holds: only strikes.txt has all strikes.
    receipt["phases"][1]["strike"] = None
    assert failed(receipt) == []
    assert "phase-2/result.txt" in blamed(forged, tmp_path)
    monkeypatch.setattr(verify, "difference", lambda *_: "")
    assert blamed(forged, tmp_path) == []


def test_a_manifest_replaced_by_a_favourable_one_has_another_hash_than_the_published_one(
    honest: Path, tmp_path: Path
) -> None:
    # With the secret known, sizes of the waiting list are tried until the friend wins.
    friend = with_outcome(honest / "phase-1", "WAITLIST")[0].ref
    for size in count(100):
        forged = make(tmp_path / str(size), LEAVES, [replace(ONCE[0], waitlist_size=size)])
        if outcomes(forged / "phase-1")[friend] == "WINNER":
            break
    assert failed(build_receipt(forged, friend)) == [] and blamed(forged, tmp_path) == []
    public = file_hash(honest / "phase-1" / MANIFEST)
    assert blamed(forged, tmp_path, public) == ["phase-1/manifest.json"]


def test_cutoffs_bent_for_one_loser(honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A winner's seat went to a friend: the receipt has cut-offs that no entry met.
    forged = copied(honest, tmp_path)
    robbed = bend_cutoffs(forged / "phase-1")
    receipt = build_receipt(forged, robbed)
    assert receipt["outcome"] == "WAITLIST" and failed(receipt) == []
    assert "phase-1/cutoffs.json" in blamed(forged, tmp_path)
    monkeypatch.setattr(verify, "difference", lambda *_: "")
    assert blamed(forged, tmp_path) == []


def test_another_reason_holds_without_the_log(topped_up: Path) -> None:
    receipt = build_receipt(topped_up, LEAVES[-1].ref)
    published = receipt["phases"][1]["published"]
    published["notice"] = published["notice"].replace("more seats", "a sponsor's wish")
    assert "sponsor" in published["notice"] and failed(receipt) == []
