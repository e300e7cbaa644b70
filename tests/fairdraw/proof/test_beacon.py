"""The beacon's signature, checked offline with a recorded round of the real chain and with wrong ones."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace

import pytest

from fairdraw.errors import DrawError
from fairdraw.maths.manifest import Manifest
from fairdraw.proof import beacon
from fairdraw.proof.beacon import verify_beacon
from fairdraw.terms import CHAINS, QUICKNET, QUICKNET_HASH, signed_at
from regworkers_core.domain.selection import round_after
from tests.fairdraw.proof.draws import RANDOMNESS, ROUND, SIGNATURE

P = int(
    "1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab", 16
)


def refusal(signature: str, round_number: int = ROUND, chain: str = QUICKNET_HASH) -> DrawError:
    with pytest.raises(DrawError) as refused:
        verify_beacon(chain, round_number, signature)
    return refused.value


def compressed(x: int, *, high: bool = False) -> str:
    return f"{x + (1 << 383) + (high << 381):096x}"


def square(x: int) -> bool:
    return pow((x**3 + 4) % P, (P - 1) // 2, P) == 1


def test_the_recorded_round_of_the_real_chain_is_accepted() -> None:
    assert verify_beacon(QUICKNET_HASH, ROUND, SIGNATURE) == RANDOMNESS
    assert hashlib.sha256(bytes.fromhex(SIGNATURE)).hexdigest() == RANDOMNESS


def test_the_signature_of_another_round_is_refused() -> None:
    refused = refusal(SIGNATURE, ROUND + 1)
    assert refused.artefact == "seed.json" and "round 1001" in str(refused)


def test_a_point_of_the_group_that_is_not_the_signature_is_refused() -> None:
    # The same x with the other y: a valid point of the right order, the negated signature.
    negated = f"{int(SIGNATURE, 16) ^ (1 << 381):096x}"
    assert "not the chain's" in str(refusal(negated))


def test_any_flipped_bit_is_refused() -> None:
    for bit in (0, 7, 100, 200, 380, 382, 383):
        assert refusal(f"{int(SIGNATURE, 16) ^ (1 << bit):096x}").artefact == "seed.json"


def test_a_point_off_the_curve_is_refused() -> None:
    off = next(x for x in range(1, 100) if not square(x))
    assert "not a point of the group" in str(refusal(compressed(off)))
    assert "not a point of the group" in str(refusal(compressed(P)))


def test_a_point_of_the_curve_outside_the_group_is_refused() -> None:
    on = next(x for x in range(1, 100) if square(x))
    assert "not a point of the group" in str(refusal(compressed(on)))


def test_the_identity_element_is_refused() -> None:
    assert "not a point of the group" in str(refusal("c0" + "0" * 94))


def test_what_is_not_96_lower_case_hex_digits_is_refused() -> None:
    for text in (
        "",
        SIGNATURE.upper(),
        SIGNATURE[:-1],
        SIGNATURE + "0",
        SIGNATURE[:-1] + "g",
        SIGNATURE + "\n",
    ):
        assert "96 lower-case hex digits" in str(refusal(text))
    assert "count from 1" in str(refusal(SIGNATURE, 0))


def test_the_pinned_key_must_hash_to_the_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    assert QUICKNET.hash == QUICKNET_HASH
    assert "not a known chain" in str(refusal(SIGNATURE, chain="ab" * 32))
    other = QUICKNET.public_key[:-1] + "b"
    monkeypatch.setitem(CHAINS, QUICKNET_HASH, replace(QUICKNET, public_key=other))
    assert "does not hash to the chain" in str(refusal(SIGNATURE))


def test_the_round_of_a_commit_is_the_first_that_is_signed_ten_minutes_later() -> None:
    for moment in (1_700_000_000.0, 1_700_000_000.001, 1_700_000_001.999, 1_700_000_002.0, 1764043200.123):
        chosen = round_after(moment)
        assert QUICKNET.due(chosen) >= moment + 600 > QUICKNET.due(chosen - 1)
    assert round_after(QUICKNET.genesis, 0) == 1 and round_after(QUICKNET.genesis + 3, 0) == 2
    assert round_after(0.0) == 1


def test_a_round_after_the_year_9999_has_no_time_and_is_refused() -> None:
    far = Manifest(
        as_of="2026-11-25T08:00:00.000Z",
        campaign_id="summer",
        count=0,
        draw_id="summer",
        markets=(),
        phase=1,
        previous=None,
        root="a" * 64,
        seed_source={"chain": QUICKNET_HASH, "kind": "drand", "round": 2**53 - 1},
        strikes_hash="b" * 64,
        waitlist_size=None,
        wins_per_unit=1,
    )
    assert signed_at(far.seed_source) is None
    with pytest.raises(DrawError, match="after the year 9999"):
        beacon.check_round(far)


def test_the_recursion_limit_is_unchanged() -> None:
    """A deeply nested JSON would crash the process under the one that the library sets."""
    script = (
        "import sys; limit = sys.getrecursionlimit()\n"
        "from fairdraw.proof.beacon import verify_beacon\n"
        f"verify_beacon({QUICKNET_HASH!r}, {ROUND}, {SIGNATURE!r})\n"
        "assert sys.getrecursionlimit() == limit"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
