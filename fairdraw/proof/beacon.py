"""Verification of the beacon's signatures: BLS12-381, signatures in G1, a pinned key in G2. Pure and offline.

Source: drand's scheme `bls-unchained-g1-rfc9380`; the message of a round is SHA-256 of its number in 8 bytes.
"""

from __future__ import annotations

import hashlib
import re
import sys
from functools import lru_cache
from typing import Any

from fairdraw.errors import DrawError
from fairdraw.maths.files import MANIFEST
from fairdraw.maths.manifest import Manifest
from fairdraw.terms import CHAINS, LAST_SECOND, LEAD_SECONDS, Chain, iso, seconds

SEED = "seed.json"
_DOMAIN = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"
_SIGNATURE = re.compile(r"[0-9a-f]{96}")


def chain_of(chain_hash: str) -> Chain:
    """The pinned description of a chain. Raises DrawError for an unknown chain, or one whose hash does not match."""
    chain = CHAINS.get(chain_hash)
    if chain is None:
        known = ", ".join(CHAINS)
        raise DrawError(MANIFEST, f"seedSource.chain {chain_hash!r} is not a known chain; known are: {known}")
    if chain.hash != chain_hash:
        raise DrawError(SEED, f"the pinned key of chain {chain_hash} does not hash to the chain")
    return chain


def check_round(manifest: Manifest) -> None:
    """Check that the beacon signs the manifest's round at least 600 s after `asOf`. Raises DrawError.

    The manifest is made after `asOf`: with an earlier round the operator could know the randomness, or had no time to
    publish the manifest.
    """
    source = manifest.seed_source
    due, as_of = chain_of(source.chain).due(source.round), seconds(manifest.as_of) or 0.0
    if due > LAST_SECOND:
        raise DrawError(MANIFEST, f"seedSource.round: {source.round} is signed after the year 9999")
    if due < as_of + LEAD_SECONDS:
        raise DrawError(
            MANIFEST,
            f"seedSource.round: round {source.round} is signed at {iso(due)} (UTC), asOf is {manifest.as_of}: the"
            f" round must come at least {LEAD_SECONDS} s later",
        )


def verify_beacon(chain_hash: str, round_number: int, signature_hex: str) -> str:
    """Verify the signature of a round and return its randomness: SHA-256 of the signature, 64 hex digits.

    Takes about 0.7 s. Raises DrawError for `seed.json` if the signature is not the chain's.
    """
    chain = chain_of(chain_hash)
    if not _SIGNATURE.fullmatch(signature_hex):
        raise DrawError(SEED, "signature is not 96 lower-case hex digits")
    if round_number < 1:
        raise DrawError(SEED, f"round {round_number} is not valid: rounds count from 1")
    if not _is_signed(chain, round_number, signature_hex):
        raise DrawError(SEED, f"signature is not the chain's signature of round {round_number}")
    return hashlib.sha256(bytes.fromhex(signature_hex)).hexdigest()


# A replay of several phases and a receipt verify the same round again.
@lru_cache(maxsize=64)
def _is_signed(chain: Chain, round_number: int, signature_hex: str) -> bool:
    # The import takes a second, and most commands never verify. It raises Python's recursion limit so far that deeply
    # nested JSON would crash the process, so the limit is restored.
    limit = sys.getrecursionlimit()
    from py_ecc.bls.hash_to_curve import hash_to_G1
    from py_ecc.bls.point_compression import decompress_G1, decompress_G2
    from py_ecc.optimized_bls12_381.optimized_curve import G2
    from py_ecc.optimized_bls12_381.optimized_pairing import pairing

    sys.setrecursionlimit(limit)
    halves: Any = int(chain.public_key[:96], 16), int(chain.public_key[96:], 16)
    key: Any = decompress_G2(halves)
    try:
        signature: Any = decompress_G1(_number(signature_hex))
    except ValueError:
        signature = None
    if signature is None or not _in_group(signature):
        raise DrawError(SEED, "signature is not a point of the group of signatures")
    message = hashlib.sha256(round_number.to_bytes(8, "big")).digest()
    sha256: Any = hashlib.sha256
    hashed: Any = hash_to_G1(message, _DOMAIN, sha256)
    return bool(pairing(G2, signature) == pairing(key, hashed))


def _in_group(point: Any) -> bool:
    """Whether the point is in the subgroup of prime order and not its identity element."""
    from py_ecc.bls.g2_primitives import subgroup_check
    from py_ecc.optimized_bls12_381.optimized_curve import is_inf

    return bool(not is_inf(point) and subgroup_check(point))


def _number(text: str) -> Any:
    return int(text, 16)
