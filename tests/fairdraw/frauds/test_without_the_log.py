"""Frauds that a receipt, or a replay of the published files, shows without the public log.

The operator makes all files and receipts fit as far as the rules allow. Each test shows where the fraud is caught, and
that it would pass if that check alone were missing.
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from fairdraw.large.receipts import Receipt, build_receipt
from fairdraw.maths import manifest as manifests
from fairdraw.maths import phase as phases
from fairdraw.maths.files import CUTOFFS, MANIFEST, SEED, STRIKES, canonical_bytes, file_hash, sha256_hex
from fairdraw.maths.leaves import Leaf, unit_of
from fairdraw.maths.manifest import Manifest, MarketTerms, ReserveTerms
from fairdraw.maths.merkle import root_of
from fairdraw.maths.rules import entry_key, unit_key
from fairdraw.proof import checker, drawn, inputs, parts, verify
from fairdraw.terms import QUICKNET, iso
from tests.fairdraw.frauds.forging import (
    bend_cutoffs,
    blamed,
    copied,
    edit,
    failed,
    limits,
    page_without,
    perl_without,
    read,
    redraw,
    reposition,
    restate,
    without,
    write,
    write_leaves,
)
from tests.fairdraw.maths.draws import outcomes_of
from tests.fairdraw.proof.draws import (
    BEACON,
    CAMPAIGN,
    FIRST,
    MORE,
    ROUND,
    UNIT_KEY,
    Terms,
    entrants,
    make,
    outcomes,
    publish_beside,
)
from tests.fairdraw.proof.test_record_in_receipts import OPENED

LEAVES = entrants()
ONCE = [Terms(FIRST, {})]
# Of a later phase: no more seats, and no reserve.
FIRST_AGAIN = tuple(replace(market, reserves=()) for market in FIRST)
# Where a proof is not one, in Python and on the page.
NO_LINE = "not verify_proof(self._line, index, count, self._proof, root)"
NO_STRIKE = "not verify_proof(self._line, self._index, self._size, self._proof, root)"
PAGE_NO_LINE = "!verifyInclusion(line, index, count, proof, root)"
PAGE_NO_STRIKE = "!verifyInclusion(line, index, size, proof, root)"


def without_line(patch: pytest.MonkeyPatch) -> None:
    without(patch, parts.PhasePart.check_result, NO_LINE)
    page_without(patch, PAGE_NO_LINE)


def without_strike(patch: pytest.MonkeyPatch) -> None:
    without(patch, parts.StrikeProof.check, NO_STRIKE)
    page_without(patch, PAGE_NO_STRIKE)


def without_comparison(patch: pytest.MonkeyPatch) -> None:
    """No replay compares what it computes with what is published."""
    patch.setattr(verify, "difference", lambda *_: "")
    page_without(
        patch,
        "!differs && compareSpans(piece, from, at, published, Math.min(done + from, stop), stop)",
        "!differs && done !== published.length",
        '(await this.text("cutoffs.json")) !== cutoffs',
        "summaryText !== phase.summary(resultHash, resultRoot, cutoffsHash)",
    )
    perl_without(patch, "content($path) eq $bytes")


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


def copied_cutoffs(receipt: Receipt) -> Receipt:
    """Cut-offs that no one meets, and a summary that has their hash."""
    part = receipt["phases"][0]
    cutoffs = json.loads(part["cutoffs"])
    for groups in cutoffs["markets"].values():
        groups["open"] = {"entryKey": "0" * 63 + "1", "key": "0" * 63 + "1", "rank": 1}
        for reserve in groups["reserves"]:
            reserve["cutoff"] = groups["open"]
    text = canonical_bytes(cutoffs)
    summary = json.loads(part["summary"]) | {"cutoffsHash": sha256_hex(text)}
    return {"cutoffs": text.decode(), "summary": canonical_bytes(summary).decode()}


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
    monkeypatch.setattr(parts, "verify_proof", lambda *_: True)
    monkeypatch.setattr(verify, "root_of", lambda _path: (terms.root, terms.count))
    page_without(monkeypatch, "!verifyInclusion(line, index, manifest.count, proof, manifest.root)")
    page_without(monkeypatch, "leaves.root !== first.root || leaves.count !== first.count")
    perl_without(monkeypatch, "root_of($lines) eq $manifest->{root} && @$lines == $manifest->{count}")
    assert failed(receipt) == [] and blamed(forged, tmp_path) == []


def test_seats_moved_once_the_order_is_known(
    honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forged = copied(honest, tmp_path)
    phase, seed = forged / "phase-1", the_seed(honest / "phase-1")
    east, west = FIRST
    moved = (replace(east, capacity=east.capacity - 2), replace(west, capacity=west.capacity + 2))
    terms = Manifest.parse((phase / MANIFEST).read_bytes())
    (phase / MANIFEST).write_bytes(replace(terms, markets=moved).to_bytes())
    redraw(phase, tmp_path)
    before = outcomes_of(honest / "phase-1")
    friend = next(
        ref for ref, place in outcomes_of(phase).items() if place[0] == "west" and place != before[ref]
    )
    receipt = build_receipt(forged, friend)
    assert failed(receipt) == ["seed"]
    assert blamed(forged, tmp_path) == ["phase-1/seed.json"]
    for module in (manifests, inputs):
        monkeypatch.setattr(module, "derive_seed", lambda *_: seed)
    page_without(monkeypatch, "deriveSeed(hash, source, seed.randomness) !== seed.seed")
    compared = "deriveSeed(hash, manifest.source, seed.randomness) === seed.seed"
    page_without(monkeypatch, compared, replaced_by="true")
    formula = "vfseed2|$first_hash|$source->{chain}|$seed->{round}|$seed->{randomness}"
    perl_without(monkeypatch, f'sha256_hex("{formula}") eq $seed->{{seed}}')
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
    monkeypatch.setattr(drawn, "market_of", lambda *_: None)
    page_without(monkeypatch, "market !== null")
    assert all(failed(other) == [] for other in others)
    without_comparison(monkeypatch)
    assert blamed(forged, tmp_path) == []


def test_a_receipt_swapped_with_that_of_another_loser(honest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = (leaf.ref for leaf in with_outcome(honest / "phase-1", "WAITLIST")[:2])
    receipt = build_receipt(honest, theirs)
    with_line(receipt, ref=mine)
    receipt |= {"ref": mine, "entryKey": entry_key(the_seed(honest / "phase-1"), mine)}
    assert failed(receipt) == ["leaf", "result-1"]
    without(monkeypatch, drawn.Drawn._check_leaf, "leaf.ref != self.ref")
    page_without(monkeypatch, "leaf.ref !== ref")
    without_line(monkeypatch)
    assert failed(receipt) == []


def test_another_round_than_the_committed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The signature is that of the round before.
    forged = make(tmp_path / "draw", LEAVES, ONCE, source=replace(BEACON, round=ROUND + 1))
    receipt = build_receipt(forged, LEAVES[-1].ref)
    assert failed(receipt) == ["randomness"]
    assert blamed(forged, tmp_path, by_signature=True) == ["phase-1/seed.json"]
    for module in (inputs, drawn):
        monkeypatch.setattr(module, "verify_beacon", lambda *_: "")
    page_without(
        monkeypatch,
        "!verifyBls(chain.publicKey, BEACON_DOMAIN, message, signature, curves)",
    )
    assert failed(receipt) == [] and blamed(forged, tmp_path) == []


def test_a_round_that_was_signed_before_the_entries_were_frozen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = iso(QUICKNET.due(ROUND) + 60)
    forged = make(tmp_path / "draw", LEAVES, ONCE, as_of=known)
    receipt = build_receipt(forged, LEAVES[-1].ref)
    assert failed(receipt) == ["randomness"]
    assert blamed(forged, tmp_path) == ["phase-1/manifest.json"]
    for module in (checker, inputs):
        monkeypatch.setattr(module, "check_round", lambda *_: None)
    early = "lead !== null && due * 1000 - milliseconds(asOf) < lead * 1000"
    page_without(monkeypatch, early)
    perl_without(monkeypatch, "!defined $lead || $due - time_of($manifest->{asOf}) >= $lead * 1000")
    assert failed(receipt) == [] and blamed(forged, tmp_path) == []


def test_a_strike_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    struck = LEAVES[20].ref
    for module in (phases, verify):
        monkeypatch.setattr(module, "newly_unclaimed", lambda *_: frozenset())
    forged = make(tmp_path / "draw", LEAVES, [Terms(FIRST, {struck: "FRAUD"}), Terms(MORE, {})])
    receipt = build_receipt(forged, struck)
    assert failed(receipt) == ["outcome-2"]
    without(monkeypatch, drawn.Drawn._expected, "struck_before not in (None, phase.strike)")
    page_without(monkeypatch, "struck !== null && struck !== reason")
    page_without(monkeypatch, "found !== reason")
    perl_without(monkeypatch, "defined $strikes{$_} && $strikes{$_} eq $before->{$_}")
    assert failed(receipt) == [] and blamed(forged, tmp_path) == []
    monkeypatch.undo()
    assert blamed(forged, tmp_path) == ["phase-2/strikes.txt"]


def with_line(receipt: Receipt, phase: int = 1, **fields: str) -> Receipt:
    """The receipt with another line of the result of a phase, and without the seat."""
    names = ("ref", "market", "rank", "outcome")
    result = receipt["phases"][phase - 1]["result"]
    line = dict(zip(names, result["line"].split("|"), strict=True)) | fields
    result["line"] = "|".join(line.values())
    rank = int(line["rank"]) if line["rank"] else None
    return receipt | {"market": line["market"], "outcome": line["outcome"], "rank": rank}


@pytest.fixture(scope="module")
def struck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A draw and its top-up, each with a strike of another entry."""
    strikes = {LEAVES[20].ref: "FRAUD"}
    more = strikes | {LEAVES[25].ref: "DUPLICATE_ACCOUNT"}
    return make(tmp_path_factory.mktemp("struck"), LEAVES, [Terms(FIRST, strikes), Terms(MORE, more)])


@pytest.mark.parametrize("phase", [1, 2])
def test_a_strike_invented_for_a_winner(struck: Path, monkeypatch: pytest.MonkeyPatch, phase: int) -> None:
    winners = with_outcome(struck / "phase-1", "WINNER")
    ref = next(leaf.ref for leaf in winners if leaf.ref not in (LEAVES[20].ref, LEAVES[25].ref))
    receipt = build_receipt(struck, ref)
    others = build_receipt(struck, LEAVES[20].ref)["phases"]
    assert failed(receipt) == []
    for number in range(phase, 3):
        # The proof is that of the one who was struck.
        receipt["phases"][number - 1]["strike"] = others[number - 1]["strike"] | {"line": f"{ref}|FRAUD"}
        receipt = with_line(receipt, number, market="", outcome="STRUCK")
    steps = [f"{kind}-{number}" for number in range(phase, 3) for kind in ("result", "strike")]
    assert failed(receipt) == steps
    # To say nothing of the strike, or to show that of another entry, does not help.
    for strike, step in ((None, f"strike-{phase}"), (others[phase - 1]["strike"], "receipt")):
        part = receipt["phases"][phase - 1]
        changed = [*receipt["phases"][: phase - 1], part | {"strike": strike}, *receipt["phases"][phase:]]
        assert step in failed(receipt | {"phases": changed})
    without_line(monkeypatch)
    assert failed(receipt) == [step for step in steps if step.startswith("strike")]
    without_strike(monkeypatch)
    assert failed(receipt) == []


def test_a_lapsed_seat_invented_for_a_winner(struck: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    winner = with_outcome(struck / "phase-1", "WINNER")[0].ref
    receipt = build_receipt(struck, winner)
    strike = {"index": 0, "line": f"{winner}|UNCLAIMED", "proof": [], "size": 1}
    receipt["phases"][1]["strike"] = strike
    receipt = with_line(receipt, 2, market="", outcome="UNCLAIMED")
    assert failed(receipt) == ["result-2", "strike-2"]
    with monkeypatch.context() as patch:
        without_line(patch)
        without_strike(patch)
        assert failed(receipt) == []
    # In the first phase, and of one who has won nothing, no seat can lapse.
    receipt["phases"][0]["strike"] = strike
    assert "outcome-1" in failed(with_line(receipt, 1, market="", outcome="UNCLAIMED"))
    loser = build_receipt(struck, with_outcome(struck / "phase-2", "WAITLIST")[0].ref)
    loser["phases"][1]["strike"] = strike | {"line": f"{loser['ref']}|UNCLAIMED"}
    assert "outcome-2" in failed(with_line(loser, 2, outcome="UNCLAIMED"))


@pytest.mark.parametrize("outcome", ["WAITLIST", "UNSELECTED", "HOUSEHOLD_LIMIT"])
def test_a_winner_whose_receipt_has_no_seat(
    honest: Path, monkeypatch: pytest.MonkeyPatch, outcome: str
) -> None:
    receipt = build_receipt(honest, with_outcome(honest / "phase-1", "WINNER")[0].ref)
    assert failed(with_line(receipt, market="", outcome=outcome)) == ["result-1", "outcome-1"]
    # With cut-offs that no one meets, and a summary that names them.
    cutoffs = copied_cutoffs(receipt)
    receipt["phases"][0] |= cutoffs
    receipt = with_line(receipt, market="", outcome="WAITLIST")
    assert failed(receipt) == ["result-1"]
    without_line(monkeypatch)
    assert failed(receipt) == []


def test_waiting_and_not_selected_exchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = make(tmp_path / "draw", LEAVES, [Terms(FIRST, {}, waitlist_size=5)])
    for outcome, other in (("WAITLIST", "UNSELECTED"), ("UNSELECTED", "WAITLIST")):
        ref = max(
            with_outcome(draw / "phase-1", outcome), key=lambda leaf: build_receipt(draw, leaf.ref)["rank"]
        ).ref
        receipt = with_line(build_receipt(draw, ref), outcome=other)
        assert failed(receipt) == ["result-1"]
        with monkeypatch.context() as patch:
            without_line(patch)
            assert failed(receipt) == []


def test_a_seat_withdrawn_by_a_later_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # No new seats, so no cut-off of phase 2 is met.
    forged = make(
        tmp_path / "draw", LEAVES, [*ONCE, Terms((MarketTerms("east", 4), replace(FIRST[1], capacity=5)), {})]
    )
    winner = with_outcome(forged / "phase-1", "WINNER")[0].ref
    reposition(forged / "phase-2", winner, "", "WAITLIST")
    restate(forged / "phase-2")
    receipt = build_receipt(forged, winner)
    assert failed(receipt) == ["outcome-2"]
    assert set(blamed(forged, tmp_path)) == {"phase-2/result.txt", "phase-2/summary.json"}
    without(monkeypatch, drawn.Drawn._expected, "before and before.position.outcome == Outcome.WINNER")
    page_without(monkeypatch, 'before && before.position.outcome === "WINNER"')
    assert failed(receipt) == []
    without_comparison(monkeypatch)
    assert blamed(forged, tmp_path) == []


def test_an_entry_of_the_list_whose_receipt_excludes_it(
    honest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, left_out, after = (build_receipt(honest, leaf.ref) for leaf in LEAVES[7:10])
    receipt = excluded(left_out, before, after)
    assert failed(receipt) == ["absence"]
    without(monkeypatch, checker.Excluded._check_absence, "high != low + 1")
    page_without(monkeypatch, "high !== low + 1")
    assert failed(receipt) == []


def excluded(receipt: Receipt, before: Receipt, after: Receipt) -> Receipt:
    """A receipt of exclusion in place of that of an entry of the list."""
    one_sided = ("entryKey", "inclusion", "key", "market", "outcome", "rank", "seed", "siblings", "together")
    common = {name: value for name, value in receipt.items() if name not in one_sided}
    later = [{name: each[name] for name in ("manifest", "summary")} for each in receipt["phases"][1:]]
    return common | {
        "kind": "excluded",
        "manifest": receipt["phases"][0]["manifest"],
        "published": receipt["phases"][0]["published"],
        "phases": later,
        "reasons": ["DUPLICATE"],
        "before": before["inclusion"],
        "after": after["inclusion"],
    }


def test_a_winner_who_is_excluded_under_another_list(
    honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = with_outcome(honest / "phase-1", "WINNER")[0]
    rest = [leaf for leaf in LEAVES if leaf != victim]
    at = LEAVES.index(victim)
    # The list without the victim, as if it were that of a second phase.
    other = make(tmp_path / "other", rest, [*ONCE, Terms(MORE, {})])
    before, after = (build_receipt(other, LEAVES[number].ref) for number in (at - 1, at + 1))
    receipt = excluded(build_receipt(honest, victim.ref), before, after)
    receipt["manifest"] = before["phases"][1]["manifest"]
    assert failed(receipt) == ["manifest"]
    assert failed(receipt | {"phases": [receipt["phases"]]}) == ["receipt"]
    monkeypatch.setattr(checker, "check_phases", lambda _phases: "")
    page_without(monkeypatch, "manifest.phase !== number")
    assert failed(receipt) == []


def test_a_struck_winner_kept(honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forged = make(tmp_path / "draw", LEAVES, [*ONCE, Terms(MORE, {})])
    friend, phase = with_outcome(forged / "phase-1", "WINNER")[0].ref, forged / "phase-2"
    (phase / STRIKES).write_text(f"{friend}|FRAUD\n")
    edit(phase / MANIFEST, strikesHash=file_hash(phase / STRIKES), strikesRoot=root_of(phase / STRIKES).root)
    restate(phase)
    receipt = build_receipt(forged, friend)
    assert failed(receipt) == ["outcome-2"]
    # The friend gets a receipt without the strike. That holds: only strikes.txt has all strikes.
    receipt["phases"][1]["strike"] = None
    assert failed(receipt) == []
    assert "phase-2/result.txt" in blamed(forged, tmp_path)
    without_comparison(monkeypatch)
    assert blamed(forged, tmp_path) == []


def test_cutoffs_bent_for_one_loser(honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A winner's seat went to a friend: the receipt has cut-offs that no entry met.
    forged = copied(honest, tmp_path)
    robbed = bend_cutoffs(forged / "phase-1")
    receipt = build_receipt(forged, robbed)
    assert receipt["outcome"] == "WAITLIST" and failed(receipt) == []
    assert "phase-1/cutoffs.json" in blamed(forged, tmp_path)
    without_comparison(monkeypatch)
    assert blamed(forged, tmp_path) == []


def test_another_reason_holds_without_the_log(topped_up: Path) -> None:
    receipt = build_receipt(topped_up, LEAVES[-1].ref)
    published = receipt["phases"][1]["published"]
    published["notice"] = published["notice"].replace("more seats", "a sponsor's wish")
    assert "sponsor" in published["notice"] and failed(receipt) == []


# What a later phase may do


def test_a_top_up_with_a_reserve_that_was_not_declared(
    honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The friend is alone in a segment, for which the second phase declares a reserve.
    waiting = {leaf.ref for leaf in with_outcome(honest / "phase-1", "WAITLIST")}
    leaves = [replace(leaf, segments=("crew",)) if leaf.ref in waiting else leaf for leaf in LEAVES]
    made = tuple(
        replace(market, reserves=(ReserveTerms("crew", 1),), later_reserves=(ReserveTerms("crew", 1),))
        for market in MORE
    )
    with monkeypatch.context() as patch:
        patch.setattr(phases, "changed_terms", lambda *_: ())
        forged = make(tmp_path / "draw", leaves, [*ONCE, Terms(made, {})])
    first, second = (outcomes(forged / f"phase-{number}") for number in (1, 2))
    friend = next(ref for ref in waiting if (first[ref], second[ref]) == ("WAITLIST", "WINNER"))
    receipt = build_receipt(forged, friend)
    assert failed(receipt) == ["manifest"]
    assert blamed(forged, tmp_path) == ["phase-2/manifest.json"]
    for module in (phases, parts, inputs):
        monkeypatch.setattr(module, "changed_terms", lambda *_: ())
    declared = "JSON.stringify(now.laterReserves) !== JSON.stringify(then.laterReserves)"
    page_without(monkeypatch, declared)
    perl_without(
        monkeypatch, "canonical({ %$last, %allowed, markets => \\@markets }) eq canonical($manifest)"
    )
    assert failed(receipt) == [] and blamed(forged, tmp_path) == []


def test_winners_who_are_struck_so_that_a_friend_wins(honest: Path, tmp_path: Path) -> None:
    # Two invented strikes, as many seats as before: the next one wins.
    winners = [leaf.ref for leaf in with_outcome(honest / "phase-1", "WINNER")][:2]
    strikes = dict.fromkeys(sorted(winners), "DUPLICATE_ACCOUNT")
    bent = make(tmp_path / "draw", LEAVES, [*ONCE, Terms(FIRST_AGAIN, strikes)])
    before, after = (outcomes(bent / f"phase-{number}") for number in (1, 2))
    friends = [ref for ref in after if before[ref] != after[ref] == "WINNER"]
    assert friends and blamed(bent, tmp_path) == []
    for ref in (*winners, *friends):
        assert "chosen with every rank known" in limits(build_receipt(bent, ref))
    assert all("reason of a strike is the operator's" in limits(build_receipt(bent, ref)) for ref in winners)


# What is bent before the commit


def test_strangers_who_are_drawn_as_one_household(tmp_path: Path) -> None:
    units = [unit_of(UNIT_KEY, CAMPAIGN, f"unit-{number}") for number in range(6)]
    merged = [replace(leaf, unit=units[at // 6], weight=1) for at, leaf in enumerate(LEAVES[:30])]
    alone = [replace(leaf, unit=leaf.ref) for leaf in LEAVES[30:]]
    bent = make(tmp_path / "draw", merged + alone, ONCE)
    assert blamed(bent, tmp_path) == []
    assert "together with 5 others: is that right?" in limits(build_receipt(bent, merged[0].ref))
    assert "drawn alone: is that right?" in limits(build_receipt(bent, alone[0].ref))


def test_a_weight_and_a_segment_given_before_the_commit(honest: Path, tmp_path: Path) -> None:
    loser = max(with_outcome(honest / "phase-1", "WAITLIST"), key=lambda leaf: leaf.weight)
    friend = replace(loser, weight=64, segments=("fan",))
    bent = make(tmp_path / "draw", [friend if leaf == loser else leaf for leaf in LEAVES], ONCE)
    receipt = build_receipt(bent, friend.ref)
    assert failed(receipt) == blamed(bent, tmp_path) == []
    assert receipt["outcome"] == "WINNER" and "|64|fan|" in receipt["inclusion"]["leaf"]


def test_an_entry_that_is_left_out_with_an_invented_reason(tmp_path: Path) -> None:
    bent = make(tmp_path / "draw", LEAVES[1:], ONCE)
    receipt = build_receipt(bent, LEAVES[0].ref, reasons=lambda _ref: ["FRAUD"])
    assert blamed(bent, tmp_path) == []
    assert "The reason is the operator's decision" in limits(receipt)


def test_a_receipt_of_another_campaign(topped_up: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The fan has registered for one that opened otherwise.
    receipt = build_receipt(topped_up, LEAVES[-1].ref) | {"opened": [OPENED.to_bytes().decode()]}
    other = replace(OPENED, name="Another night").hash
    assert failed(receipt, opened=OPENED.hash) == []
    assert failed(receipt, opened=other) == ["opened"]
    monkeypatch.setattr(checker, "changes_since", lambda *_: ())
    page_without(monkeypatch, "each.hash === hash", replaced_by="true")
    assert failed(receipt, opened=other) == []
