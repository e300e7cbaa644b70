"""The inputs of a phase, read from its folder, and the checks of each against the others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fairdraw.errors import DrawError, UsageError
from fairdraw.maths.files import (
    ARTEFACTS,
    MANIFEST,
    RESULT,
    SEED,
    STRIKES,
    SUMMARY,
    parse_canonical,
    sha256_hex,
)
from fairdraw.maths.manifest import (
    Manifest,
    SeedFile,
    changed_terms,
    derive_seed,
    parse_strikes,
)
from fairdraw.proof.beacon import check_round, verify_beacon
from fairdraw.proof.guarantee import Published
from fairdraw.terms import Chain

PHASE_FOLDER = re.compile(r"phase-([1-9][0-9]*)")


@dataclass(frozen=True, slots=True)
class Inputs:
    """One phase as read. A field is None if its file is missing or damaged."""

    # That of the phase, from 1.
    number: int
    folder: Path
    manifest: Manifest | None
    manifest_hash: str
    seed: SeedFile | None
    # Reasons by ref.
    strikes: Mapping[str, str] | None
    summary: Mapping[str, Any] | None
    published: Published
    # Which files are missing or damaged, and why.
    errors: tuple[DrawError, ...]
    # The folder of phase 1 for a phase without a result, which may have no leaves and seed of its own yet.
    first: Path | None = None

    @property
    def is_drawn(self) -> bool:
        return self.first is None

    def path(self, name: str) -> Path:
        """Where this file is read."""
        own = self.folder / name
        return own if self.first is None or own.exists() else self.first / name


# Beside a phase in an export: its result is not for fans yet.
NOT_CONFIRMED = "not-confirmed.txt"


def mark_not_confirmed(folder: Path, phases: Iterable[int]) -> list[str]:
    """Mark these phases, and no other ones, in a folder of artefacts; return the relative names of the marks."""
    for former in folder.glob(f"phase-*/{NOT_CONFIRMED}"):
        former.unlink()
    names = [f"phase-{number}/{NOT_CONFIRMED}" for number in phases]
    for name in names:
        (folder / name).write_text(
            "This phase was drawn, and its publication is not confirmed yet: its result may still be found wrong.\n",
            encoding="utf-8",
        )
    return names


def is_confirmed(phase: Path) -> bool:
    """Whether the folder of a phase has no mark of `mark_not_confirmed`."""
    return not (phase / NOT_CONFIRMED).exists()


def drawn_folders(folder: Path) -> list[Path]:
    """The folders of all phases whose result is for fans. Raises UsageError for a folder without one."""
    if drawn := [each for each in phase_folders(folder) if (each / RESULT).is_file()]:
        return drawn
    raise UsageError(
        f"{folder} contains no confirmed result yet: receipts and pages exist once a phase is drawn and confirmed"
    )


def phase_folders(folder: Path) -> list[Path]:
    """The folders of the phases of a draw, from phase 1 on, without those that are marked as not confirmed. Raises
    UsageError if one is missing.
    """
    folders = all_folders(folder)
    if missing := missing_phase(folders):
        raise UsageError(
            f"{folder} contains {folders[-1].name} but no phase-{missing}: all phases are needed"
        )
    return [each for each in folders if is_confirmed(each)]


def missing_phase(folders: Sequence[Path]) -> int | None:
    """The first phase that is not there, though a later one is."""
    numbers = (number for number, each in enumerate(folders, 1) if each.name != f"phase-{number}")
    return next(numbers, None)


def all_folders(folder: Path) -> list[Path]:
    """The folders of the phases that are there, in order. Raises UsageError if there is none."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder: give the folder that contains phase-1, phase-2, ...")
    numbers = sorted(
        int(found[1])
        for each in folder.iterdir()
        if each.is_dir() and (found := PHASE_FOLDER.fullmatch(each.name))
    )
    if not numbers:
        raise UsageError(f"{folder} contains no phase-1: give the folder of a draw")
    return [folder / f"phase-{number}" for number in numbers]


def read_inputs(folder: Path) -> Inputs:
    """Read the small artefacts of the folder `phase-<n>`. Never raises for their content."""
    errors: list[DrawError] = []
    data: dict[str, bytes] = {}
    for name in ARTEFACTS:
        if not (folder / name).is_file():
            errors.append(DrawError(name, "is missing"))
        elif name in (MANIFEST, SEED, STRIKES, SUMMARY):
            data[name] = (folder / name).read_bytes()

    def parsed(name: str, parse: Any) -> Any:
        try:
            return parse(data[name]) if name in data else None
        except DrawError as error:
            errors.append(error)
            return None

    published, wrong = Published.read(folder)
    return Inputs(
        number=int(folder.name.removeprefix("phase-")),
        folder=folder,
        manifest=parsed(MANIFEST, Manifest.parse),
        manifest_hash=sha256_hex(data[MANIFEST]) if MANIFEST in data else "",
        seed=parsed(SEED, SeedFile.parse),
        strikes=parsed(STRIKES, parse_strikes),
        summary=parsed(SUMMARY, lambda raw: parse_canonical(raw, SUMMARY)),
        published=published,
        errors=(*errors, *wrong),
    )


def committed_to(each: Inputs, first: Inputs) -> Inputs:
    """A phase after phase 1, `first`, before it has a result: only its manifest and strikes must be there."""
    due = (MANIFEST, STRIKES)
    errors = [
        error for error in each.errors if error.artefact in due or (each.folder / error.artefact).exists()
    ]
    return replace(each, errors=tuple(errors), first=first.folder)


def check_manifest(
    phases: Sequence[Inputs], number: int, chain: Chain | None, lead: int | None
) -> Iterator[DrawError]:
    """Errors of the manifest of phase `number`, or of the file that contradicts it. `chain` is None if it cannot be
    read, `lead` if it is unknown.

    The hashes of the previous phase are left to the replay, which computes them.
    """
    each = phases[number - 1]
    if each.manifest is None:
        return
    yield from _contradictions(phases, number)
    if each.manifest.phase != number:
        yield DrawError(
            MANIFEST, f"phase: expected {number}, the number of the folder, found {each.manifest.phase}"
        )
    yield from each.published.problems(each.manifest, None if each.strikes is None else len(each.strikes))
    if number == 1 and chain is not None:
        try:
            check_round(each.manifest, chain, lead)
        except DrawError as error:
            yield error
    earlier = [before.manifest for before in phases[: number - 1]]
    if earlier and all(earlier):
        yield from changed_terms([known for known in earlier if known], each.manifest)


def check_seed(phases: Sequence[Inputs], number: int, chain: Chain | None) -> Iterator[DrawError]:
    """Errors of the seed of phase `number`, whose manifest is valid. `chain` is None if it cannot be read."""
    each, first = phases[number - 1], phases[0]
    if each.seed is None or each.manifest is None or first.manifest is None:
        return
    try:
        if chain is not None:
            verify_beacon(chain, first.manifest.seed_source.round, each.seed.signature)
        each.seed.check(first.manifest_hash, first.manifest.seed_source)
    except DrawError as error:
        yield error


def _contradictions(phases: Sequence[Inputs], number: int) -> Iterator[DrawError]:
    """Compare the manifest's hash with the summary, the seed (phase 1) and the next manifest, which all contain it."""
    each = phases[number - 1]
    found, witnesses = each.manifest_hash, list(_witnesses(phases, number))
    against = [witness for witness in witnesses if not witness[1]]
    if not against:
        return
    if len(witnesses) == 1:
        name = against[0][0]
        yield DrawError(MANIFEST, f"SHA-256 is {found}, {name} has another: one of the two files was changed")
        yield DrawError(
            name, f"does not match {MANIFEST}, whose SHA-256 is {found}: one of the two files was changed"
        )
    elif len(against) * 2 > len(witnesses):
        names = " and ".join(name for name, _ in against)
        yield DrawError(MANIFEST, f"SHA-256 is {found}, which contradicts {names}")
    else:
        for name, _ in against:
            # An error in a file of a later phase is reported with that phase.
            if name in ARTEFACTS:
                yield DrawError(name, f"does not match {MANIFEST}, whose SHA-256 is {found}")


def _witnesses(phases: Sequence[Inputs], number: int) -> Iterator[tuple[str, bool]]:
    each = phases[number - 1]
    if each.summary is not None:
        yield SUMMARY, each.summary.get("manifestHash") == each.manifest_hash
    if number == 1 and each.seed is not None and each.manifest is not None:
        derived = derive_seed(each.manifest_hash, each.manifest.seed_source, each.seed.randomness)
        yield SEED, derived == each.seed.seed
    after = phases[number] if number < len(phases) else None
    if after is not None and after.manifest is not None and after.manifest.previous is not None:
        follows = after.manifest.previous["manifestHash"] == each.manifest_hash
        yield f"{after.folder.name}/{MANIFEST}", follows


def read_json(path: Path) -> dict[str, Any]:
    """Read a file with a canonical JSON object. Raises DrawError."""
    return parse_canonical(path.read_bytes(), path.name)
