"""The campaign in a receipt: as it opened and changed, on whose chain it was drawn, and how a lapsed seat reads."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fairdraw import bls
from fairdraw.large.receipts import build_receipt
from fairdraw.log.leaves import LogLeaf
from fairdraw.maths.files import canonical_bytes
from fairdraw.maths.manifest import ManifestSeedSource, MarketTerms
from fairdraw.maths.opened import Amended, Opened, opened_name
from fairdraw.proof.beacon import DOMAIN, round_message
from fairdraw.proof.check import check_receipt
from fairdraw.proof.checker import NO_OPENED
from fairdraw.proof.receipt_view import checked_text
from fairdraw.terms import CHAIN_FILE, QUICKNET, QUICKNET_HASH, Chain, iso
from tests.fairdraw.proof.draws import (
    AS_OF,
    CAMPAIGN,
    FIRST,
    ROUND,
    Terms,
    entrants,
    make,
    outcomes,
    refs,
)
from tests.fairdraw.proof.test_logged import NONE, check, failed, leaves_of, logged, state, trust

DAY = 86_400
# The logs of these tests have the record a day before the manifest.
OPENS, LATE, CLOSES = (iso(QUICKNET.due(ROUND) - each) for each in (DAY + 700, DAY + 1_400, 3_600))
OPENED = Opened(
    campaign_id=CAMPAIGN,
    caseless=False,
    chain=QUICKNET_HASH,
    closes_at=CLOSES,
    code_key=None,
    eligibility={},
    event_id="tour-26",
    issuer_keys=(),
    markets=FIRST,
    name="Summer tour",
    opens_at=OPENS,
    registration=False,
    unit_key_hash="c" * 64,
    waitlist_size=8,
    wins_per_unit=1,
)
Receipt = dict[str, Any]


def amended(before: Opened, **changes: Any) -> Amended:
    return replace(before.amending(before, "a smaller hall"), **changes)


@pytest.fixture(scope="module")
def receipt(beaconed: Path) -> Receipt:
    return build_receipt(beaconed, refs(36)[3])


def with_record(receipt: Receipt, *files: Opened) -> Receipt:
    return receipt | {"opened": [each.to_bytes().decode() for each in files]}


def test_the_record_is_that_beside_the_phases(beaconed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(beaconed, tmp_path / "draw")
    files = [OPENED, amended(OPENED, closes_at=AS_OF)]
    for number, each in enumerate(files):
        (folder / opened_name(number)).write_bytes(each.to_bytes())
    for ref in (refs(36)[3], "unknown-ref"):
        made = build_receipt(folder, ref, reasons=lambda _ref: ["NO_MARKET"])
        assert made["opened"] == with_record({}, *files)["opened"]
        checked = check(made, NONE)
        assert failed(checked) == [] and "Summer tour (summer), reference" in checked_text(checked)


def test_a_receipt_says_what_is_missing_where_the_campaign_was_not_logged(receipt: Receipt) -> None:
    checked = check(logged(receipt))
    assert checked.verdict == "holds" and state(checked, "opened") == ("passed", NO_OPENED)
    assert any("its event has no other draw" in limit for limit in checked.limits)
    assert "[-] The campaign as it opened, and what changed since: not applicable" in checked_text(checked)


def test_the_hash_of_any_text_is_accepted_and_what_changed_since_is_shown(receipt: Receipt) -> None:
    larger = replace(FIRST[0], capacity=FIRST[0].capacity + 5)
    first = replace(OPENED, markets=(larger, FIRST[1]), closes_at=AS_OF)
    second = amended(first, markets=FIRST, closes_at=CLOSES)
    made = logged(with_record(receipt, first, second))
    since = check(made, opened=first.hash)
    assert since.verdict == "holds" and not since.findings, (failed(since), since.findings)
    said = state(since, "opened")[1]
    assert "because: a smaller hall" in said and f"seats of east: {FIRST[0].capacity}, before" in said
    assert f"closes: {CLOSES}, before {AS_OF}" in said
    last = check(made, opened=second.hash)
    assert last.verdict == "holds" and "nothing has changed since" in state(last, "opened")[1]
    for other in (made, logged(receipt)):
        checked = check(other, opened="ab" * 32)
        assert failed(checked) == ["opened"] and "of another campaign" in state(checked, "opened")[1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"campaign_id": "winter"}, "campaignId"),
        ({"chain": "ab" * 32}, "seedSource.chain"),
        ({"markets": FIRST[:1]}, "markets"),
    ],
)
def test_a_draw_of_another_campaign_than_the_one_that_opened_fails(
    receipt: Receipt, changes: dict[str, Any], said: str
) -> None:
    made = logged(with_record(receipt, replace(OPENED, **changes)))
    assert failed(check(made)) == ["opened"] and said in state(check(made), "opened")[1]


def test_terms_that_were_never_announced_are_findings(receipt: Receipt) -> None:
    promised = replace(FIRST[0], capacity=FIRST[0].capacity + 5)
    made = logged(with_record(receipt, replace(OPENED, markets=(promised, FIRST[1]), waitlist_size=99)))
    checked = check(made)
    assert checked.verdict == "holds" and len(checked.findings) == 2
    assert "FINDING: seats of east: 4, opened with 9\n" in checked_text(checked)


def test_a_record_that_comes_late_or_after_the_list_is_a_finding(receipt: Receipt) -> None:
    late = check(logged(with_record(receipt, replace(OPENED, opens_at=LATE))))
    assert late.verdict == "holds"
    assert ["more than 10 minutes after" in finding for finding in late.findings] == [True]
    made = with_record(receipt, OPENED)
    own = leaves_of(made)
    after = check(logged(made, [*own[1:2], own[0], *own[2:]]))
    assert any("after the manifest, so it binds nothing" in finding for finding in after.findings)
    # A text that the log lacks binds nothing, and none that it has may be left out.
    added = check(logged(made, own[1:]))
    assert failed(added) == [] and any("binds nothing" in finding for finding in added.findings)
    hidden: list[LogLeaf] = leaves_of(with_record(made, OPENED, amended(OPENED, closes_at=AS_OF)))
    assert "log" in failed(check(logged(made, hidden)))


SECRET = bytes(31) + b"\x07"
OURS = Chain(
    bls.public_key(SECRET), hashlib.sha256(b"ours").hexdigest(), "ours", QUICKNET.due(ROUND) - 999, 1
)


@pytest.fixture(scope="module")
def on_our_chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = make(
        tmp_path_factory.mktemp("ours"),
        entrants(),
        [Terms(FIRST, {})],
        source=ManifestSeedSource(OURS.hash, 1_000),
        signature=bls.sign(SECRET, round_message(1_000), DOMAIN),
    )
    (folder / CHAIN_FILE).write_bytes(OURS.to_bytes())
    yield folder


def test_a_draw_by_another_beacon_is_for_trying_out_until_a_trust_file_has_its_lead(
    on_our_chain: Path,
) -> None:
    for ref in (refs(36)[3], "unknown-ref"):
        receipt = build_receipt(on_our_chain, ref, reasons=lambda _ref: ["NO_MARKET"])
        assert "a beacon of this machine: for trying out only" in receipt["guarantee"]
        made = logged(receipt)
        unknown = check(made)
        assert unknown.verdict == "incomplete" and "incomplete: lead unknown" in checked_text(unknown)
        known = check(made, trust(beacon={OURS.hash: {"lead": 700}}))
        assert known.verdict == "holds", [(each.name, each.detail) for each in known.checks]
        assert failed(check(made, trust(beacon={OURS.hash: {"lead": 701}}))) == ["witnesses"]
        step = "manifest" if ref == "unknown-ref" else "randomness"
        assert step in failed(check(made, trust(beacon={OURS.hash: {"lead": 1_201}})))
        # The description decides what is verified: it must be there, and have the hash.
        other = replace(OURS, period=2).to_bytes().decode()
        for chain in (None, other, receipt["chain"].replace("ours", "default"), receipt["chain"] + " "):
            assert step in failed(check(made | {"chain": chain}))


def test_a_draw_of_quicknet_has_no_description_of_a_chain(receipt: Receipt) -> None:
    assert receipt["chain"] is None
    assert "randomness" in failed(check(receipt | {"chain": OURS.to_bytes().decode()}))


def test_a_seat_that_lapsed_reads_so_and_the_siblings_keep_the_limit(tmp_path: Path) -> None:
    leaves = entrants()
    terms = Terms((MarketTerms("east", 12), MarketTerms("west", 14)), {})
    probe = outcomes(make(tmp_path / "probe", leaves, [terms]) / "phase-1")
    gone = next(leaf for leaf in leaves if probe[leaf.ref] == "WINNER" and leaf.unit != leaf.ref)
    sibling = next(leaf.ref for leaf in leaves if leaf.unit == gone.unit and leaf.ref != gone.ref)
    later = replace(terms, strikes={gone.ref: "UNCLAIMED"})
    folder = make(tmp_path / "draw", leaves, [terms, later, later])
    receipt = build_receipt(folder, gone.ref)
    checked = check_receipt(canonical_bytes(receipt))
    assert failed(checked) == [] and receipt["outcome"] == "UNCLAIMED" and receipt["market"] == ""
    assert checked_text(checked).startswith(
        "Selected before, but the seat was not claimed in time (UNCLAIMED)\n"
    )
    assert any("The reason of a strike" in limit for limit in checked.limits)
    other = build_receipt(folder, sibling)
    assert other["outcome"] == "HOUSEHOLD_LIMIT" and failed(check_receipt(canonical_bytes(other))) == []
    assert [each["leaf"] for each in other["siblings"]] == [gone.line]
