"""The names of a phase's artefacts, and their hashes."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

LEAVES = "leaves.txt"
MANIFEST = "manifest.json"
STRIKES = "strikes.txt"
SEED = "seed.json"
RESULT = "result.txt"
CUTOFFS = "cutoffs.json"
SUMMARY = "summary.json"
# What a phase publishes, in the order in which one follows from the other.
ARTEFACTS = (LEAVES, STRIKES, MANIFEST, SEED, RESULT, CUTOFFS, SUMMARY)

# The twin of result.txt for the pipeline.
OUTCOMES = "outcomes.parquet"

HASH = re.compile(r"[0-9a-f]{64}")
HEX_DIGITS = "64 lower-case hex digits"
_CHUNK = 1 << 20


def is_hash(text: object) -> bool:
    """Whether `text` is 32 bytes as exactly 64 lower-case hex digits."""
    return isinstance(text, str) and HASH.fullmatch(text) is not None


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file in hex, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()
