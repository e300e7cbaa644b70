"""Receipts: every entrant's holds, none of another outcome does, and each step that was tampered with is named."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fairdraw.errors import DrawError, UsageError
from fairdraw.large.receipts import NoReceipt, build_receipt
from fairdraw.maths.beside import Annulled
from fairdraw.maths.files import RESULT, canonical_bytes, file_hash
from fairdraw.maths.leaves import unit_of
from fairdraw.maths.manifest import MarketTerms
from fairdraw.maths.rules import entry_key
from fairdraw.proof.check import ReceiptChecked, check_receipt
from fairdraw.proof.receipt_view import receipt_text
from tests.fairdraw.proof.draws import (
    CAMPAIGN,
    FIRST,
    UNIT_KEY,
    Terms,
    entrants,
    make,
    outcomes,
    publish_beside,
    refs,
)

FAMILY = unit_of(UNIT_KEY, CAMPAIGN, "family")


def receipts(folder: Path) -> dict[str, dict[str, Any]]:
    last = folder / ("phase-2" if (folder / "phase-2").exists() else "phase-1")
    return {ref: build_receipt(folder, ref, index=folder / "leaves.index") for ref in outcomes(last)}


def line_of(receipt: dict[str, Any], phase: int = -1) -> str:
    """The line of result.txt in a phase, by default the last one."""
    return str(receipt["phases"][phase - 1 if phase > 0 else phase]["result"]["line"])


def relined(receipt: dict[str, Any], phase: int = 0, **parts: str) -> None:
    """Another line of result.txt, in one phase or (0) in all: `market`, `rank`, `outcome`."""
    for number, each in enumerate(receipt["phases"], 1):
        if phase in (0, number):
            names = ("ref", "market", "rank", "outcome")
            fields = dict(zip(names, each["result"]["line"].split("|"), strict=True)) | parts
            each["result"]["line"] = "|".join(fields.values())


def check(receipt: dict[str, Any]) -> ReceiptChecked:
    return check_receipt(canonical_bytes(receipt))


def failed(checked: ReceiptChecked) -> list[str]:
    return [each.name for each in checked.checks if each.state == "failed"]


@pytest.fixture(scope="module")
def all_receipts(beaconed: Path) -> dict[str, dict[str, Any]]:
    return receipts(beaconed)


def one_of(all_receipts: dict[str, dict[str, Any]], outcome: str) -> dict[str, Any]:
    """A copy of the first receipt with this outcome (a winner's: in both phases), to be changed."""
    found = next(
        each
        for each in all_receipts.values()
        if each["outcome"] == outcome and (outcome != "WINNER" or line_of(each, 1).endswith("WINNER"))
    )
    return json.loads(canonical_bytes(found))  # type: ignore[no-any-return]


def test_every_entrants_receipt_states_the_published_outcome_and_passes(
    beaconed: Path, all_receipts: dict[str, dict[str, Any]]
) -> None:
    published = outcomes(beaconed / "phase-2")
    assert {ref: each["outcome"] for ref, each in all_receipts.items()} == published
    assert set(published.values()) == {"WINNER", "WAITLIST", "UNSELECTED", "HOUSEHOLD_LIMIT", "STRUCK"}
    for receipt in all_receipts.values():
        checked = check(receipt)
        assert checked.verdict != "fails", failed(checked)


def test_a_receipt_of_a_draw_from_the_beacon_checks_the_signature(beaconed: Path) -> None:
    receipt = build_receipt(beaconed, refs(36)[3])
    assert check(receipt).verdict != "fails" and "drand quicknet" in receipt["guarantee"]
    seed = json.loads(receipt["seed"])
    signature = "a" + seed["signature"][1:]
    randomness = hashlib.sha256(bytes.fromhex(signature)).hexdigest()
    forged = {**seed, "signature": signature, "randomness": randomness}
    receipt["seed"] = canonical_bytes(forged).decode()
    assert failed(check(receipt))[0] == "randomness"


def test_unselected_and_waiting_differ_at_the_end_of_the_waitlist(tmp_path: Path) -> None:
    for size, expected in ((0, {"UNSELECTED"}), (3, {"WAITLIST", "UNSELECTED"}), (None, {"WAITLIST"})):
        folder = make(tmp_path / str(size), entrants(), [Terms(FIRST, {}, waitlist_size=size)])
        made = receipts(folder)
        seen = {each["outcome"] for each in made.values()} - {"WINNER", "HOUSEHOLD_LIMIT"}
        assert seen == expected
        if size == 0:
            beaten = next(each for each in made.values() if each["outcome"] == "UNSELECTED")
            assert claimed(json.loads(canonical_bytes(beaten)), "", "WAITLIST") == ["result-1", "outcome-1"]
        assert all(check(each).verdict != "fails" for each in made.values())


def test_a_household_that_may_win_twice_names_two_siblings(tmp_path: Path) -> None:
    leaves = entrants(12, households=0)
    unit = [leaf for leaf in leaves if leaf.ref != leaves[0].ref][:5]
    merged = [
        type(leaf)(leaf.ref, FAMILY if leaf in unit else leaf.unit, 2 if leaf in unit else 1, (), ("west",))
        for leaf in leaves
    ]
    folder = make(tmp_path / "draw", merged, [Terms(FIRST, {})], wins=2)
    limited = [each for each in receipts(folder).values() if each["outcome"] == "HOUSEHOLD_LIMIT"]
    assert len(limited) == 3
    for receipt in limited:
        assert check(receipt).verdict != "fails" and len(receipt["siblings"]) == 2
        receipt["siblings"].pop()
        assert failed(check(receipt)) == ["candidate"]


def test_a_sibling_of_another_unit_or_behind_does_not_count(all_receipts: dict[str, dict[str, Any]]) -> None:
    receipt = one_of(all_receipts, "HOUSEHOLD_LIMIT")
    ahead = receipt["siblings"][0]["leaf"].split("|")[0]
    stranger = next(
        each
        for ref, each in all_receipts.items()
        if each["outcome"] != "HOUSEHOLD_LIMIT" and ref not in (ahead, receipt["ref"])
    )
    receipt["siblings"] = [stranger["inclusion"]]
    assert failed(check(receipt)) == ["candidate"]
    receipt["siblings"] = [receipt["inclusion"]]
    assert failed(check(receipt)) == ["candidate"]
    # The entry ahead, with the claim that it was behind.
    first = json.loads(canonical_bytes(all_receipts[ahead]))
    first["siblings"] = [one_of(all_receipts, "HOUSEHOLD_LIMIT")["inclusion"]]
    relined(first, market="", rank="", outcome="HOUSEHOLD_LIMIT")
    first.update(rank=None, market="", outcome="HOUSEHOLD_LIMIT")
    assert "candidate" in failed(check(first))


def test_a_forged_sibling_does_not_count(all_receipts: dict[str, dict[str, Any]]) -> None:
    receipt = one_of(all_receipts, "HOUSEHOLD_LIMIT")
    seed = json.loads(receipt["seed"])["seed"]
    ahead = next(ref for ref in refs(1_000)[36:] if entry_key(seed, ref) < receipt["entryKey"])
    _, rest = receipt["siblings"][0]["leaf"].split("|", 1)
    receipt["siblings"][0]["leaf"] = f"{ahead}|{rest}"
    assert failed(check(receipt)) == ["candidate"]


def test_a_rank_that_changes_between_phases_fails(all_receipts: dict[str, dict[str, Any]]) -> None:
    receipt = max(all_receipts.values(), key=lambda each: each["rank"] or 0)
    receipt = json.loads(canonical_bytes(receipt))
    relined(receipt, 1, rank=str(receipt["rank"] + 1))
    assert failed(check(receipt)) == ["result-1", "rank"]


Change = Callable[[dict[str, Any]], None]


def text_of(name: str, number: int, **fields: Any) -> Change:
    def change(receipt: dict[str, Any]) -> None:
        document = json.loads(receipt["phases"][number - 1][name])
        receipt["phases"][number - 1][name] = canonical_bytes({**document, **fields}).decode()

    return change


def seed_with(**fields: Any) -> Change:
    def change(receipt: dict[str, Any]) -> None:
        receipt["seed"] = canonical_bytes({**json.loads(receipt["seed"]), **fields}).decode()

    return change


def leaf_with(old: str, new: str) -> Change:
    def change(receipt: dict[str, Any]) -> None:
        receipt["inclusion"]["leaf"] = receipt["inclusion"]["leaf"].replace(old, new, 1)

    return change


def proof_hash(receipt: dict[str, Any]) -> None:
    first = receipt["inclusion"]["proof"][0]
    receipt["inclusion"]["proof"][0] = ("0" if first[0] != "0" else "1") + first[1:]


def unmet_cutoffs(receipt: dict[str, Any]) -> None:
    none = {"entryKey": "0" * 64, "key": "0" * 64, "rank": 0}
    for phase in receipt["phases"]:
        markets = json.loads(phase["cutoffs"])["markets"]
        for groups in markets.values():
            groups["open"] = none
            groups["reserves"] = [{**each, "cutoff": none} for each in groups["reserves"]]
        phase["cutoffs"] = canonical_bytes({"markets": markets}).decode()


def outcome(value: str) -> Change:
    def change(receipt: dict[str, Any]) -> None:
        market = (receipt["market"] or "east") if value == "WINNER" else ""
        relined(receipt, len(receipt["phases"]), market=market, outcome=value)
        receipt.update(outcome=value, market=market)

    return change


def strike_with(**fields: Any) -> Change:
    def change(receipt: dict[str, Any]) -> None:
        receipt["phases"][-1]["strike"].update(fields)

    return change


ZEROS = "0" * 64
TAMPERED: list[tuple[str, str, Change]] = [
    ("WINNER", "inclusion", leaf_with("|1|", "|2|")),
    ("WINNER", "inclusion", proof_hash),
    (
        "WINNER",
        "inclusion",
        lambda receipt: receipt["inclusion"].update(index=receipt["inclusion"]["index"] ^ 1),
    ),
    ("WINNER", "inclusion", lambda receipt: receipt["inclusion"]["proof"].pop()),
    ("WINNER", "inclusion", text_of("manifest", 1, root=ZEROS)),
    ("WINNER", "manifest", text_of("manifest", 2, winsPerUnit=2)),
    ("WINNER", "manifest", text_of("manifest", 1, asOf="2026-11-26T08:00:00.000Z")),
    ("WINNER", "manifest", text_of("summary", 1, resultHash=ZEROS)),
    ("WINNER", "manifest", text_of("summary", 2, manifestHash=ZEROS)),
    ("WINNER", "result-1", text_of("summary", 1, resultRoot=ZEROS)),
    ("WINNER", "result-2", lambda receipt: receipt["phases"][1]["result"]["proof"].pop()),
    ("WINNER", "manifest", lambda receipt: receipt["phases"].append(receipt["phases"][-1])),
    ("WINNER", "manifest", lambda receipt: receipt.update(campaignId="winter")),
    ("WINNER", "randomness", seed_with(randomness=ZEROS)),
    ("WINNER", "randomness", lambda receipt: receipt.update(guarantee="it was unknown to all")),
    ("WINNER", "seed", seed_with(seed=ZEROS)),
    ("WINNER", "key", lambda receipt: receipt.update(key=ZEROS)),
    ("WINNER", "entryKey", lambda receipt: receipt.update(entryKey=ZEROS)),
    ("WINNER", "manifest", text_of("manifest", 2, strikesHash=ZEROS)),
    ("WINNER", "outcome-1", unmet_cutoffs),
    ("WINNER", "outcome-1", text_of("summary", 1, cutoffsHash=ZEROS)),
    ("WINNER", "outcome-2", outcome("WAITLIST")),
    ("WINNER", "stated", lambda receipt: receipt.update(rank=1_000)),
    ("WINNER", "stated", lambda receipt: receipt.update(market="nowhere")),
    ("WAITLIST", "outcome-2", outcome("WINNER")),
    ("WAITLIST", "result-2", outcome("UNSELECTED")),
    ("UNSELECTED", "result-2", outcome("WAITLIST")),
    ("WAITLIST", "strike-2", outcome("STRUCK")),
    ("WINNER", "strike-2", outcome("UNCLAIMED")),
    ("STRUCK", "outcome-2", outcome("WAITLIST")),
    ("STRUCK", "strike-2", lambda receipt: receipt["phases"][-1].update(strike=None)),
    ("STRUCK", "strike-2", strike_with(index=2)),
    ("STRUCK", "strike-2", strike_with(size=3)),
    ("STRUCK", "strike-2", strike_with(proof=[])),
    ("STRUCK", "strike-2", text_of("manifest", 2, strikesRoot=ZEROS)),
    ("HOUSEHOLD_LIMIT", "outcome-2", outcome("WAITLIST")),
]


@pytest.mark.parametrize(("kind", "step", "change"), TAMPERED)
def test_the_step_that_was_tampered_with_fails(
    all_receipts: dict[str, dict[str, Any]], kind: str, step: str, change: Change
) -> None:
    receipt = one_of(all_receipts, kind)
    change(receipt)
    checked = check(receipt)
    assert step in failed(checked), [(each.name, each.detail) for each in checked.checks]


def restated(receipt: dict[str, Any]) -> None:
    """The hashes of manifests and cut-offs that were changed, stated as if they had been published."""
    for number, phase in enumerate(receipt["phases"], 1):
        hashes = {
            f"{name}Hash": hashlib.sha256(phase[name].encode()).hexdigest()
            for name in ("manifest", "cutoffs")
        }
        text_of("summary", number, **hashes)(receipt)


@pytest.mark.parametrize(
    "fields",
    [
        {"phase": 3},
        {"winsPerUnit": 2},
        {"markets": []},
        {"previous": {"manifestHash": ZEROS, "resultHash": ZEROS}},
    ],
)
def test_a_manifest_of_a_later_phase_that_was_changed_along_with_its_hash_does_not_follow(
    all_receipts: dict[str, dict[str, Any]], fields: dict[str, Any]
) -> None:
    receipt = one_of(all_receipts, "WINNER")
    restated(receipt)
    assert check(receipt).verdict != "fails"
    text_of("manifest", 2, **fields)(receipt)
    restated(receipt)
    assert "manifest" in failed(check(receipt))
    if "previous" in fields:
        before = json.loads(all_receipts[receipt["ref"]]["phases"][1]["manifest"])["previous"]
        for key in before:
            text_of("manifest", 2, previous={**before, key: ZEROS})(receipt)
            restated(receipt)
            assert failed(check(receipt)) == ["manifest"], key


def claimed(receipt: dict[str, Any], market: str, outcome: str) -> list[str]:
    """What fails when each phase and the receipt state this."""
    relined(receipt, market=market, outcome=outcome)
    receipt.update(market=market, outcome=outcome)
    return failed(check(receipt))


def test_a_market_that_was_not_won_fails_for_winners_and_others(
    all_receipts: dict[str, dict[str, Any]],
) -> None:
    winner = one_of(all_receipts, "WINNER")
    other = {"east": "west", "west": "east"}[winner["market"]]
    assert "outcome-1" in claimed(winner, other, "WINNER")
    assert claimed(one_of(all_receipts, "WAITLIST"), "east", "WAITLIST") == [
        "result-1",
        "outcome-1",
        "result-2",
        "outcome-2",
    ]


def test_a_winner_stays_in_the_market_that_was_won_when_a_better_one_gets_seats(tmp_path: Path) -> None:
    phases = [Terms((MarketTerms("east", east), MarketTerms("west", 9)), {}) for east in (0, 9)]
    folder = make(tmp_path / "draw", entrants(3, households=0), phases)
    receipt = build_receipt(folder, refs(3)[0])
    assert receipt["inclusion"]["leaf"].endswith("|east,west") and receipt["market"] == "west"
    assert check(receipt).verdict != "fails"
    relined(receipt, 2, market="east")
    assert failed(check({**receipt, "market": "east"})) == ["result-2", "outcome-2"]


def test_a_rank_beyond_the_leaves_fails(tmp_path: Path) -> None:
    seats = (MarketTerms("east", 9), MarketTerms("west", 9))
    folder = make(tmp_path / "draw", entrants(4, households=0), [Terms(seats, {})])
    receipt = build_receipt(folder, refs(4)[1])
    relined(receipt, rank="5")
    assert failed(check({**receipt, "rank": 5})) == ["result-1", "rank"]


def test_a_market_that_is_not_in_the_draw_is_a_failed_check(all_receipts: dict[str, dict[str, Any]]) -> None:
    for kind in ("WAITLIST", "HOUSEHOLD_LIMIT"):
        receipt = one_of(all_receipts, kind)
        receipt["inclusion"]["leaf"] = receipt["inclusion"]["leaf"].rpartition("|")[0] + "|moon"
        assert "leaf" in failed(check(receipt))


def test_a_sibling_of_another_weight_does_not_count(tmp_path: Path) -> None:
    leaves = [
        type(leaf)(leaf.ref, FAMILY, 1 + number % 2, (), ("west",))
        for number, leaf in enumerate(entrants(12, households=0))
    ]
    folder = make(tmp_path / "draw", leaves, [Terms(FIRST, {})])
    made = [build_receipt(folder, ref) for ref in refs(12)]
    last = max(
        (each for each in made if each["outcome"] == "HOUSEHOLD_LIMIT"), key=lambda each: each["entryKey"]
    )
    assert check(last).verdict != "fails"
    weight = last["inclusion"]["leaf"].split("|")[2]
    stranger = next(
        each
        for each in made
        if each["inclusion"]["leaf"].split("|")[2] != weight and each["entryKey"] < last["entryKey"]
    )
    assert failed(check({**last, "siblings": [stranger["inclusion"]]})) == ["candidate"]


def test_every_receipt_says_how_many_others_are_in_the_unit(
    beaconed: Path, all_receipts: dict[str, dict[str, Any]]
) -> None:
    for ref, receipt in all_receipts.items():
        alone = receipt["inclusion"]["leaf"].split("|")[1] == ref
        assert receipt["together"] == (0 if alone else 1)
        asked = "drawn alone: is that right?" if alone else "drawn together with 1 other: is that right?"
        assert [asked in each for each in check(receipt).limits].count(True) == 1
        assert build_receipt(beaconed, ref)["together"] == receipt["together"], "with or without an index"


def test_a_phase_without_a_result_is_not_in_the_receipt(beaconed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(beaconed, tmp_path / "committed")
    for name in (RESULT, "cutoffs.json", "summary.json"):
        (folder / "phase-2" / name).unlink()
    receipt = build_receipt(folder, refs(36)[3])
    assert len(receipt["phases"]) == 1 and check(receipt).verdict != "fails"


def test_a_damaged_file_is_named_where_the_receipt_needs_it(beaconed: Path, tmp_path: Path) -> None:
    for name in ("notice.json", "accepted.json", "cutoffs.json"):
        folder = shutil.copytree(beaconed, tmp_path / name)
        (folder / "phase-2" / name).write_bytes(b"\xff")
        with pytest.raises(DrawError, match=name):
            build_receipt(folder, refs(36)[3])


def only_to_compare(receipt: dict[str, Any], data: bytes) -> list[tuple[int, int]]:
    """Where a receipt that is in no log states what no step proves: the summary of the last phase, whose hash is in the
    log, and the number of the unit's other entries.
    """
    inside = json.dumps(receipt["phases"][-1]["summary"]).encode()
    start = data.rindex(inside)
    together = data.index(b'"together":')
    return [(start, start + len(inside)), (together, data.index(b",", together))]


@pytest.mark.parametrize("kind", ["WINNER", "WAITLIST", "HOUSEHOLD_LIMIT", "STRUCK"])
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_of_a_receipt_goes_unnoticed(
    all_receipts: dict[str, dict[str, Any]], kind: str, at: float, bit: int
) -> None:
    receipt = one_of(all_receipts, kind)
    data = bytearray(canonical_bytes(receipt))
    place = int(at * len(data))
    assume(not any(start <= place < end for start, end in only_to_compare(receipt, bytes(data))))
    data[place] ^= 1 << bit
    assert check_receipt(bytes(data)).verdict == "fails", data[max(0, place - 40) : place + 40]


def test_a_rank_that_contradicts_a_cutoff_fails(all_receipts: dict[str, dict[str, Any]]) -> None:
    receipt = one_of(all_receipts, "WINNER")
    relined(receipt, rank="30")
    receipt["rank"] = 30
    assert failed(check(receipt)) == ["result-1", "result-2", "rank"]


def test_input_that_is_not_a_receipt_is_a_failed_check_and_no_crash(
    all_receipts: dict[str, dict[str, Any]],
) -> None:
    good = one_of(all_receipts, "WINNER")
    garbage: list[bytes] = [b"", b"[]", b"{", b"\xff", b"null", b'{"kind": "draw"}', b"[" * 100_000]
    for key, value in good.items():
        garbage.append(json.dumps({each: good[each] for each in good if each != key}).encode())
        for wrong in (
            (None, 7, [], {}, "x", "[/x]\x1b[31m") if not isinstance(value, list) else (None, 7, "x", [3])
        ):
            # No step proves how many others are in the unit.
            if wrong != value and (key, wrong) != ("together", 7):
                garbage.append(json.dumps({**good, key: wrong}).encode())
    for key in good["phases"][0]:
        for wrong in (7, [], "x", {}):
            phases = [{**good["phases"][0], key: wrong}, *good["phases"][1:]]
            garbage.append(json.dumps({**good, "phases": phases}).encode())
    garbage.append(json.dumps({**good, "phases": []}).encode())
    ref, last = good["ref"], good["phases"][-1]
    strike = {"index": 0, "proof": [], "size": 1}
    for key, place, texts in (
        (
            "result",
            last["result"],
            (ref, f"{ref}|west|1", f"{ref}||1|LOST", line_of(good).replace(ref, "other")),
        ),
        ("strike", strike, ("other|FRAUD", f"{ref}|fraud", f"{ref}|FRAUD\nother|FRAUD")),
    ):
        for text in texts:
            changed = {**last, key: {**place, "line": text}}
            data = json.dumps({**good, "phases": [*good["phases"][:-1], changed]}).encode()
            assert failed(check_receipt(data)) == ["receipt"], text
    for data in garbage:
        checked = check_receipt(data)
        assert checked.verdict == "fails", data[:200]
        assert all("\x1b" not in each.detail for each in checked.checks)


def test_an_excluded_entry_gets_its_reasons_and_a_proof_that_it_was_not_in_the_draw(beaconed: Path) -> None:
    known = refs(36)
    for ref in ("0" * 32, known[7][:-1] + "-", "z" * 32):
        receipt = build_receipt(beaconed, ref, reasons=lambda _: ["NO_MARKET"])
        assert receipt["kind"] == "excluded" and receipt["reasons"] == ["NO_MARKET"]
        assert check(receipt).verdict != "fails"
        assert receipt_text(receipt, check(receipt)).startswith("Not in the draw (NO_MARKET)\n  summer, ")
    # An entrant who was in the draw, with the claim of the opposite.
    receipt = build_receipt(beaconed, known[7][:-1] + "-", reasons=lambda _: ["NO_MARKET"])
    for side in ("before", "after"):
        forged = {**receipt, side: build_receipt(beaconed, known[12])["inclusion"]}
        assert failed(check(forged)) == ["absence"]
        assert failed(check({**receipt, side: None})) == ["absence"]
    assert failed(check({**receipt, "ref": known[12]})) == ["absence"]
    assert failed(check({**receipt, "ref": "0" * 32})) == ["absence"]
    assert failed(check({**receipt, "campaignId": "winter"})) == ["manifest"]
    assert failed(check({**receipt, "reasons": ["no market"]})) == ["reason"]
    before, after = (build_receipt(beaconed, known[place])["inclusion"] for place in (6, 8))
    missing = {**receipt, "ref": known[7], "before": before, "after": {**after, "index": 7}}
    assert failed(check(missing)) == ["absence"]
    assert failed(check({**receipt, "reasons": []})) == ["reason"]


def test_an_excluded_entry_of_a_draw_without_entries_has_no_neighbours(tmp_path: Path) -> None:
    folder = make(tmp_path / "empty", [], [Terms(FIRST, {})])
    receipt = build_receipt(folder, "excluded-ref", reasons=lambda _: ["NO_MARKET"])
    assert check(receipt).verdict != "fails" and receipt["before"] is receipt["after"] is None


def test_an_unknown_ref_and_an_invalid_one_are_usage_errors(beaconed: Path, tmp_path: Path) -> None:
    with pytest.raises(NoReceipt, match="confirmation"):
        build_receipt(beaconed, "unknown-ref")
    for ref in ("", "a|b", "a\n", "x" * 65):
        with pytest.raises(UsageError, match="a ref is"):
            build_receipt(beaconed, ref)
    (tmp_path / "phase-1").mkdir()
    with pytest.raises(UsageError, match="no confirmed result yet"):
        build_receipt(tmp_path, "unknown-ref")


def test_a_result_without_the_entry_is_reported_as_damaged(tmp_path: Path) -> None:
    folder = make(tmp_path / "draw", entrants(10), [Terms(FIRST, {})])
    path = folder / "phase-1" / RESULT
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[1:]))
    with pytest.raises(DrawError, match=r"result\.txt"):
        build_receipt(folder, lines[0].split("|")[0])


def test_a_receipt_says_when_its_round_was_signed_and_fails_if_that_was_too_soon(
    beaconed: Path, tmp_path: Path
) -> None:
    receipt = build_receipt(beaconed, refs(36)[3])
    assert receipt["roundAt"] == "2023-08-23T15:59:24.000Z"
    assert "signed at 2023-08-23T15:59:24.000Z (UTC)" in receipt["guarantee"]
    for wrong in (None, "2023-08-23T15:59:27.000Z", 7):
        assert failed(check({**receipt, "roundAt": wrong})) == ["randomness"]
    late = make(tmp_path / "late", entrants(9), [Terms(FIRST, {})], as_of="2026-11-25T08:00:00.000Z")
    for ref in (refs(9)[3], "unknown-ref"):
        receipt = build_receipt(late, ref, reasons=lambda _ref: ["NO_MARKET"])
        checked = check(receipt)
        assert failed(checked) == (["manifest"] if ref == "unknown-ref" else ["randomness"])
        assert any("at least 600 s" in each.detail for each in checked.checks)


def test_a_receipt_says_that_a_later_phase_may_exist(beaconed: Path, tmp_path: Path) -> None:
    shutil.copytree(beaconed / "phase-1", tmp_path / "phase-1")
    for folder, last in ((tmp_path, 1), (beaconed, 2)):
        receipt = build_receipt(folder, refs(36)[3])
        checked = check(receipt)
        said = f"up to phase {last}. A later phase may exist"
        assert checked.verdict != "fails" and any(said in limit for limit in checked.limits)
        assert said in " ".join(receipt_text(receipt, checked).split())


def test_a_receipt_names_no_file_that_there_is_not(beaconed: Path, tmp_path: Path) -> None:
    assert "published artefacts" not in " ".join(check(build_receipt(beaconed, refs(36)[3])).limits)
    folder = publish_beside(shutil.copytree(beaconed, tmp_path / "beside"))
    for path in [*folder.glob("phase-*/replaced-*.json"), *folder.glob("phase-*/accepted.json")]:
        path.unlink()
    limits = " ".join(check(build_receipt(folder, refs(36)[3])).limits)
    assert "compare them with notice.json beside the published artefacts" in limits


def test_a_receipt_counts_replaced_manifests_and_names_what_was_accepted_and_why(
    beaconed: Path, tmp_path: Path
) -> None:
    folder = publish_beside(shutil.copytree(beaconed, tmp_path / "beside"))
    for ref in (refs(36)[3], "unknown-ref"):
        receipt = build_receipt(folder, ref, reasons=lambda _ref: ["NO_MARKET"])
        checked = check(receipt)
        assert checked.verdict != "fails", failed(checked)
        text = " ".join(receipt_text(receipt, checked).split())
        assert "took the place of 1 earlier one(s)" in text
        assert "with round 900" in text and "late_commit, because: the store was down" in text
        part = receipt["phases"][0]["published"] if receipt["kind"] == "draw" else receipt["published"]
        kept = dict(part)
        assert "replaced-1.json: {" in receipt_text(receipt, checked)
        if receipt["kind"] == "draw":
            assert "with notice.json, accepted.json, replaced-1.json beside" in text
        for change in (
            {"replaced": []},
            {"replaced": [kept["replaced"][0].replace("count", "court")]},
            {"replaced": [7]},
            {"notice": None},
            {"notice": kept["notice"].replace('"east":4', '"east":5')},
            {"notice": kept["notice"].replace("T15:47:44", "T14:47:44")},
            {"accepted": "[ ]"},
        ):
            part.update(change)
            assert check(receipt).verdict == "fails", change
            part.update(kept)
        assert check(receipt).verdict != "fails"
        if receipt["kind"] == "draw":
            second = receipt["phases"][1]["published"]
            second["notice"] = second["notice"].replace('"phase":2', '"phase":3')
            assert failed(check(receipt)) == ["published"]
        else:
            before = json.loads(kept["replaced"][0])
            manifest = {**json.loads(before["manifest"]), "count": 37}
            other = {**before, "manifest": canonical_bytes(manifest).decode()}
            part["replaced"] = [canonical_bytes(other).decode()]
            assert "published" in failed(check(receipt))


def test_a_receipt_of_an_annulled_draw_says_so_first(beaconed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(beaconed, tmp_path / "annulled")
    at = "2026-11-26T08:00:00.000Z"
    annulled = Annulled(at, CAMPAIGN, file_hash(folder / "phase-2" / "manifest.json"), 2, "the wrong list")
    (folder / "phase-2" / "annulled.json").write_bytes(annulled.to_bytes())
    for ref in (refs(36)[3], "unknown-ref"):
        receipt = build_receipt(folder, ref, reasons=lambda _ref: ["NO_MARKET"])
        checked = check(receipt)
        assert checked.verdict != "fails"
        assert receipt_text(receipt, checked).startswith("This draw was annulled")
        assert f"{at}: the wrong list" in receipt_text(receipt, checked)
        other = {**receipt, "annulled": receipt["annulled"].replace('"summer"', '"winter"')}
        assert failed(check(other)) == ["published"]
        assert check({**receipt, "annulled": 7}).verdict == "fails"
    drawn = build_receipt(folder, refs(36)[3])
    drawn["annulled"] = drawn["annulled"].replace(annulled.manifest_hash, ZEROS)
    assert failed(check(drawn)) == ["published"]


def test_cut_offs_that_are_not_those_of_the_manifests_groups_fail(
    all_receipts: dict[str, dict[str, Any]],
) -> None:
    def changed(change: Callable[[dict[str, Any]], None]) -> list[str]:
        receipt = one_of(all_receipts, "WAITLIST")
        document = json.loads(receipt["phases"][0]["cutoffs"])
        change(document["markets"])
        receipt["phases"][0]["cutoffs"] = canonical_bytes(document).decode()
        restated(receipt)
        return failed(check(receipt))

    assert changed(lambda markets: None) == []
    assert "outcome-1" in changed(lambda markets: markets.pop("east"))
    assert "outcome-1" in changed(lambda markets: markets.update(moon=markets["east"]))
    assert "outcome-1" in changed(lambda markets: markets["east"].update(reserves=[]))
    assert "outcome-1" in changed(lambda markets: markets["east"]["reserves"][0].update(segment="other"))
    none = {"entryKey": ZEROS, "key": ZEROS, "rank": 0}
    assert "outcome-1" in changed(lambda markets: markets["east"]["reserves"][0].update(cutoff=none))
    assert "outcome-1" in changed(lambda markets: markets["west"]["open"].update(rank=37))
    assert "outcome-1" in changed(lambda markets: markets["west"].update(open={**none, "key": "1" * 64}))


def test_a_rank_of_thousands_of_digits_is_a_failed_check(all_receipts: dict[str, dict[str, Any]]) -> None:
    for rank in ("9" * 5_000, "9" * 17, "0", "٣", "-1", "1_0"):
        receipt = one_of(all_receipts, "WAITLIST")
        relined(receipt, rank=rank)
        checked = check(receipt)
        assert checked.verdict == "fails" and all(len(each.detail) < 2_000 for each in checked.checks)
    for stated in ("5", 5.0, True, 0, -5):
        receipt = one_of(all_receipts, "WAITLIST")
        receipt["rank"] = str(receipt["rank"]) if stated == "5" else stated
        assert check_receipt(json.dumps(receipt).encode()).verdict == "fails", stated


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("9" * 5_000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(["WINNER", "WAITLIST", "HOUSEHOLD_LIMIT", "STRUCK"]), data=st.data())
def test_any_value_anywhere_in_a_receipt_is_no_crash(
    all_receipts: dict[str, dict[str, Any]], kind: str, data: st.DataObject
) -> None:
    receipt = one_of(all_receipts, kind)
    place: Any = receipt
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        inner = place[key]
        text = isinstance(inner, str) and inner.startswith("{")
        if not (text or isinstance(inner, dict | list)) or not inner or data.draw(st.integers(0, 3)) == 0:
            break
        if text:
            # A document within: changed there, and written canonically again where that is possible.
            document = json.loads(inner)
            document[data.draw(st.sampled_from(sorted(document)))] = data.draw(VALUES)
            try:
                place[key] = canonical_bytes(document).decode()
            except ValueError:
                place[key] = json.dumps(document)
            break
        place = inner
    if not text:
        place[key] = data.draw(VALUES)
    checked = check_receipt(json.dumps(receipt).encode())
    assert all(len(each.detail) < 20_000 for each in checked.checks)


def test_the_steps_count_in_plain_words(all_receipts: dict[str, dict[str, Any]]) -> None:
    said = "\n".join(json.dumps(check(each).as_dict()) for each in all_receipts.values())
    assert (
        re.findall(r".{20}(?:ticket\(s\)|one of the 1 |\b1 (?:other )?entries|\b1 tickets).{20}", said) == []
    )
    for words in (
        "the only ticket of unit",
        "the entry of its unit that may win",
        "1 entry of the unit is ahead",
    ):
        assert words in said
