"""The public beacon of a draw: its chain, the round that a manifest commits to, and the signature of that round.

Pure and offline. Source: drand's scheme `bls-unchained-g1-rfc9380`; the message of a round is SHA-256 of its number in
8 bytes.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from fairdraw.bls import SIGNATURE_FORM, is_signature, verify
from fairdraw.errors import DrawError
from fairdraw.maths.files import MANIFEST
from fairdraw.maths.manifest import Manifest
from fairdraw.terms import CHAIN_FILE, LAST_SECOND, QUICKNET, QUICKNET_HASH, Chain, iso, seconds

SEED = "seed.json"
DOMAIN = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"


def chain_of(chain_hash: str, described: bytes | None = None) -> Chain:
    """The chain that a manifest names. `described` are the bytes of `chain.json`, which a draw of quicknet has not.

    Raises DrawError.
    """
    if chain_hash == QUICKNET_HASH:
        if described is not None:
            raise DrawError(CHAIN_FILE, "a draw with the chain quicknet has no such file")
        return QUICKNET
    if described is None:
        raise DrawError(MANIFEST, f"seedSource.chain {chain_hash!r} is not quicknet: {CHAIN_FILE} is missing")
    chain = Chain.parse(described)
    if chain.hash != chain_hash:
        raise DrawError(CHAIN_FILE, f"describes the chain {chain.hash}, {MANIFEST} names {chain_hash}")
    return chain


def chain_in(folder: Path, chain_hash: str) -> Chain:
    """The chain that the manifests of the draw in this folder name. Raises DrawError."""
    path = folder / CHAIN_FILE
    return chain_of(chain_hash, path.read_bytes() if path.is_file() else None)


def check_round(manifest: Manifest, chain: Chain, lead: int | None) -> None:
    """Check that the chain signs the manifest's round at least `lead` seconds after `asOf`. Raises DrawError.

    The manifest is made after `asOf`: with an earlier round the operator could know the randomness, or had no time to
    publish the manifest. With an unknown lead (None) only a round after the year 9999 is refused.
    """
    number = manifest.seed_source.round
    due, as_of = chain.due(number), seconds(manifest.as_of) or 0.0
    if due > LAST_SECOND:
        raise DrawError(MANIFEST, f"seedSource.round: {number} is signed after the year 9999")
    if lead is not None and round((due - as_of) * 1000) < lead * 1000:
        raise DrawError(
            MANIFEST,
            f"seedSource.round: round {number} is signed at {iso(due)} (UTC), asOf is {manifest.as_of}: the"
            f" round must come at least {lead} s later",
        )


def round_message(round_number: int) -> bytes:
    """What a chain signs for a round."""
    return hashlib.sha256(round_number.to_bytes(8, "big")).digest()


def verify_beacon(chain: Chain, round_number: int, signature: str) -> str:
    """Verify the signature of a round, in hex, and return its randomness: SHA-256 of the signature, 64 hex digits.

    Raises DrawError for `seed.json` if the signature is not the chain's.
    """
    if not SIGNATURE_FORM.fullmatch(signature):
        raise DrawError(SEED, "signature is not 96 lower-case hex digits")
    if round_number < 1:
        raise DrawError(SEED, f"round {round_number} is not valid: rounds count from 1")
    if not _is_signed(chain.public_key, round_number, signature):
        raise DrawError(SEED, f"signature is not the chain's signature of round {round_number}")
    return hashlib.sha256(bytes.fromhex(signature)).hexdigest()


# A replay of several phases and a receipt verify the same round again.
@lru_cache(maxsize=64)
def _is_signed(public_key: str, round_number: int, signature: str) -> bool:
    if not is_signature(signature):
        raise DrawError(SEED, "signature is not a point of the group of signatures")
    return verify(public_key, round_message(round_number), DOMAIN, signature)
