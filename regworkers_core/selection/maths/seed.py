"""From the randomness to the seed, and seed.json."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from regworkers_core.selection.maths.canonical import Fields, canonical_bytes, parse_canonical
from regworkers_core.selection.maths.errors import DrawError
from regworkers_core.selection.maths.files import HEX_DIGITS, SEED, is_hash, sha256_hex
from regworkers_core.selection.maths.manifest import COMMIT_REVEAL, DRAND, SeedSource

_SIGNATURE = re.compile(r"(?:[0-9a-f]{2})+")


def derive_seed(manifest_hash: str, source: str, round: int, randomness: str) -> str:
    """`SHA256("vfseed1|" + manifestHash of phase 1 + "|" + source + "|" + round + "|" + randomness)` in hex.

    `source` is `commit-reveal` with round 0, or drand's chain hash. DrawError unless `randomness` is exactly 64
    lower-case hex digits.
    """
    if not is_hash(randomness):
        raise DrawError(SEED, f"randomness: 64 lower-case hex digits are needed, found {randomness!r}")
    return sha256_hex(f"vfseed1|{manifest_hash}|{source}|{round}|{randomness}".encode())


def commitment_of(randomness: str) -> str:
    """The commitment to a secret: SHA-256 of its 32 bytes (not of their hex digits)."""
    if not is_hash(randomness):
        raise DrawError(SEED, "randomness: 64 lower-case hex digits are needed")
    return hashlib.sha256(bytes.fromhex(randomness)).hexdigest()


@dataclass(frozen=True, slots=True)
class SeedFile:
    """seed.json. `signature` is drand's in hex, None for commit-reveal, whose `round` is 0."""

    kind: str
    randomness: str
    round: int
    seed: str
    signature: str | None

    @staticmethod
    def of(
        manifest_hash: str, kind: str, source: str, round: int, randomness: str, signature: str | None
    ) -> SeedFile:
        """With the seed derived from the manifest hash of phase 1. DrawError for malformed randomness."""
        seed = derive_seed(manifest_hash, source, round, randomness)
        return SeedFile(kind, randomness, round, seed, signature)

    def as_fields(self) -> dict[str, Any]:
        """The document of seed.json."""
        return {
            "kind": self.kind,
            "randomness": self.randomness,
            "round": self.round,
            "seed": self.seed,
            "signature": self.signature,
        }

    def to_bytes(self) -> bytes:
        return canonical_bytes(self.as_fields())

    @staticmethod
    def parse(data: bytes, artefact: str = SEED) -> SeedFile:
        """The seed file in exactly these bytes. DrawError names the key and what was found."""
        return SeedFile.parse_fields(parse_canonical(data, artefact), artefact)

    @staticmethod
    def parse_fields(document: object, artefact: str = SEED) -> SeedFile:
        """The inverse of `as_fields`. DrawError names the key and what was found."""
        fields = Fields(artefact, "", document, ("kind", "randomness", "round", "seed", "signature"))
        kind = fields.text("kind", (COMMIT_REVEAL, DRAND).__contains__, f"{COMMIT_REVEAL} or {DRAND}")
        signature = None
        if kind == DRAND:
            signature = fields.text("signature", _SIGNATURE.fullmatch, "lower-case hex")
        elif fields.raw("signature") is not None or fields.raw("round") != 0:
            fields.refuse("", f"{COMMIT_REVEAL} has round 0 and no signature")
        return SeedFile(
            kind=kind,
            randomness=fields.text("randomness", is_hash, HEX_DIGITS),
            round=fields.integer("round"),
            seed=fields.text("seed", is_hash, HEX_DIGITS),
            signature=signature,
        )

    def check(self, manifest_hash: str, seed_source: object, artefact: str = SEED) -> None:
        """DrawError unless this follows from the manifest's `seedSource` and the manifest hash of phase 1.

        drand's BLS signature is not verified here, only that the randomness is its SHA-256.
        """
        source = SeedSource.parse(seed_source)
        if (self.kind, self.round) != (source.kind, source.round):
            raise DrawError(
                artefact,
                f"{source.kind} with round {source.round} was committed to, found {self.kind} with {self.round}",
            )
        if source.commitment is not None:
            if commitment_of(self.randomness) != source.commitment:
                raise DrawError(artefact, "randomness: its SHA-256 is not the commitment of the manifest")
        elif self.signature is None or sha256_hex(bytes.fromhex(self.signature)) != self.randomness:
            raise DrawError(artefact, "randomness: not the SHA-256 of the signature")
        if derive_seed(manifest_hash, source.source, source.round, self.randomness) != self.seed:
            raise DrawError(artefact, "seed: does not follow from the manifest of phase 1 and the randomness")
