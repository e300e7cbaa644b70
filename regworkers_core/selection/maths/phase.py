"""What one phase is computed from, read and checked against itself and against the phase before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from regworkers_core.selection.maths.errors import DrawError
from regworkers_core.selection.maths.files import (
    LEAVES,
    MANIFEST,
    RESULT,
    SEED,
    STRIKES,
    file_hash,
    sha256_hex,
)
from regworkers_core.selection.maths.manifest import Manifest
from regworkers_core.selection.maths.seed import SeedFile
from regworkers_core.selection.maths.strikes import check_cumulative, parse_strikes

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Phase:
    """`folder` has leaves.txt, manifest.json, strikes.txt and seed.json; `previous` is the folder of the phase
    before, None in phase 1. `strikes`: ref -> reason.
    """

    folder: Path
    previous: Path | None
    manifest: Manifest
    strikes: dict[str, str]
    seed: SeedFile

    @staticmethod
    def read(folder: Path, previous: Path | None) -> Phase:
        """DrawError names the artefact that is malformed or contradicts another one. The root is not recomputed
        here, nor drand's signature verified.
        """
        manifest = Manifest.parse((folder / MANIFEST).read_bytes())
        strikes_data = (folder / STRIKES).read_bytes()
        strikes = parse_strikes(strikes_data)
        if sha256_hex(strikes_data) != manifest.strikes_hash:
            raise DrawError(STRIKES, "its SHA-256 is not the strikesHash of the manifest")
        seed = SeedFile.parse((folder / SEED).read_bytes())
        phase = Phase(folder, previous, manifest, strikes, seed)
        if (previous is None) != (manifest.phase == 1):
            raise DrawError(
                MANIFEST, f"phase {manifest.phase}: the phase before is needed from phase 2 on, and only then"
            )
        if previous is None:
            seed.check(manifest.hash, manifest.seed_source)
        else:
            phase._check_previous(previous)
        return phase

    def _check_previous(self, folder: Path) -> None:
        data = (folder / MANIFEST).read_bytes()
        before = Manifest.parse(data)
        hashes = {"manifestHash": sha256_hex(data), "resultHash": file_hash(folder / RESULT)}
        for key, found in hashes.items():
            if (self.manifest.previous or {}).get(key) != found:
                raise DrawError(
                    MANIFEST, f"previous.{key}: not the hash of the phase before, which is {found}"
                )
        self._check_unchanged(before)
        for name in (LEAVES, SEED):
            if not _same(self.folder / name, folder / name):
                raise DrawError(name, "differs from the phase before: it is the same in all phases")
        check_cumulative(parse_strikes((folder / STRIKES).read_bytes()), self.strikes)

    def _check_unchanged(self, before: Manifest) -> None:
        now = self.manifest
        if now.phase != before.phase + 1:
            raise DrawError(MANIFEST, f"phase {now.phase} follows phase {before.phase}: one by one")
        ids = [[market.market_id for market in manifest.markets] for manifest in (before, now)]
        if ids[0] != ids[1]:
            raise DrawError(MANIFEST, f"markets: the same in all phases, found {ids[1]} after {ids[0]}")
        allowed = replace(
            before,
            markets=now.markets,
            phase=now.phase,
            previous=now.previous,
            strikes_hash=now.strikes_hash,
            waitlist_size=now.waitlist_size,
        )
        old, new = allowed.as_document(), now.as_document()
        changed = sorted(key for key in new if old[key] != new[key])
        if changed:
            raise DrawError(MANIFEST, f"{', '.join(changed)}: may not change between phases")


def _same(one: Path, other: Path) -> bool:
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as a, other.open("rb") as b:
        while piece := a.read(_PIECE):
            if piece != b.read(_PIECE):
                return False
    return True
